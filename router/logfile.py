"""The file that the log goes to in place of standard error: opened, given away, and opened anew when it is moved.

It is opened on descriptors 1 and 2, so all that writes there is in it, and the routers inherit it. Each second the
supervisor looks whether the name still means that file. Where it has been moved or removed, as log rotation does, each
process opens it anew by its name, and until then writes to the file that was moved, so no line is lost. What cannot be
opened anew changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

import gevent

from router.folder import absolute
from router.logs import log, renew_log
from router.options import Options
from router.uwsgi import printable

MODE = 0o640
EVERY = 1.0  # seconds between two looks at whether it has been moved
OUTPUT, ERROR = 1, 2


class LogFile:
    """The file `path`; its `mode` is set where one is given. Nothing is opened before it is asked for."""

    def __init__(self, path: str, mode: int | None) -> None:
        self.path = absolute(path)
        self.mode = mode

    def open(self) -> int:
        """A descriptor of it. ValueError where it cannot be had."""
        try:
            return opened(self.path, self.mode)
        except OSError as error:
            raise ValueError(f"cannot open the log file {printable(self.path)}: {error.strerror}") from None

    def take_over(self, resumed: bool) -> None:
        """Write there from now on. ValueError where it cannot be opened; a start that is `resumed` goes on then."""
        if _is_open(self.path):
            return
        try:
            redirect(self.open())
        except ValueError as error:
            if not resumed:
                raise
            log.error("%s", error)

    def run(self, tell: Callable[..., None]) -> None:
        """For ever: see to it that the lines are in the file of that name. `tell` gives orders to the routers."""
        failing = ""
        while stat.S_ISREG(os.fstat(ERROR).st_mode):
            gevent.sleep(EVERY)
            if _is_open(self.path):
                continue
            reason = reopen(self.path, self.mode)
            if reason and reason != failing:
                log.error("the log file %s cannot be opened anew: %s", printable(self.path), reason)
            elif not reason:
                log.info("the log file %s was moved: opened anew", printable(self.path))
                tell(log=self.path)
            failing = reason


def first_file(options: Options) -> LogFile | None:
    """Where the log goes from the beginning on."""
    path = options.daemonize or options.logto
    return LogFile(path, options.logfile_chmod) if path else None


def second_file(options: Options) -> LogFile | None:
    """Where it goes when all is bound and privileges are dropped."""
    path = options.daemonize2 or options.logto2
    return LogFile(path, options.logfile_chmod) if path else None


def opened(path: str, mode: int | None = None) -> int:
    """A descriptor of the file, to append to. For reading, too: a pipe without a reader must not keep us waiting."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, MODE)
    if mode is not None:
        with suppress(OSError):  # it is another user's
            os.fchmod(fd, mode)
    return fd


def redirect(fd: int) -> None:
    """Make this the standard output and error, and close it."""
    for standard in (OUTPUT, ERROR):
        os.dup2(fd, standard)
    os.close(fd)
    renew_log()


def reopen(path: str, mode: int | None = None) -> str:
    """Open it anew, if its name means another file by now. Returns why that cannot be done; empty where it was."""
    if not _is_open(path):
        try:
            redirect(opened(path, mode))
        except OSError as error:
            return str(error.strerror)
    return ""


def _is_open(path: str) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(ERROR))
    return False
