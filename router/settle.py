"""What is between binding and serving: the files that say who we are, another user, another folder, another name."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress

from router import privileges, titles
from router.folder import present_folder
from router.handover import HELD_BACK, Estate
from router.logfile import LogFile, first_file, second_file
from router.logs import log
from router.options import Options
from router.pidfile import PidFiles
from router.uwsgi import printable


def settle(options: Options, stack: ExitStack, estate: Estate) -> LogFile | None:
    """Do it, in uWSGI's order; returns the file that the log goes to from here on. ValueError where it cannot be done.

    `stack` removes the pidfiles at the end, under `vacuum`. What the next start needs for that is put into `estate`.
    From here on others know our number, so signals wait until the supervisor hears them: they would end the process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    log_file = first_file(options)  # named before the folder is another one, as when it was opened
    pid_files = PidFiles(estate, stack, vacuum=options.vacuum)
    for path in filter(None, (options.pidfile, options.safe_pidfile)):
        pid_files.hold(path)
    if options.logfile_chown and (options.uid or options.gid) and os.geteuid() == 0 and log_file:
        os.fchown(2, options.uid or -1, options.gid or -1)
    privileges.drop(options)
    if second := second_file(options):
        second.take_over(estate.resumed)
        log_file = second
    change_folder(options, estate)
    stack.callback(go_home, estate)
    for path in filter(None, (options.pidfile2, options.safe_pidfile2)):
        pid_files.hold(path)
    pid_files.close_rest()
    privileges.check_state_file(options)
    if not titles.show(titles.supervisors_title(options)):
        log.warning("procname: ps shows it where setproctitle is installed (pip install 'gfrouter[procname]')")
    return log_file


def change_folder(options: Options, estate: Estate) -> None:
    """Go to the folder that the options name; the next start begins where this one did. ValueError if that fails."""
    if options.chdir is None:
        return
    log.info("chdir() to %s", printable(options.chdir))
    try:
        home = present_folder()
        os.chdir(options.chdir)
        estate.home = home
    except OSError as error:
        raise ValueError(f"cannot chdir() to {printable(options.chdir)}: {error.strerror}") from None


def go_home(estate: Estate) -> None:
    """At the end the files of sockets are removed, by the names that they were bound under."""
    if estate.home is not None:
        with suppress(OSError):
            estate.home.enter()
