"""Giving up root: the user, the group and the supplementary groups of the whole gfrouter, once all sockets are bound.

Each step is verified afterwards; what did not take effect stops the start. A user who is not root may only ask for what
it is already, as the start after a reload does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from grp import getgrgid
from pwd import getpwuid

import gevent.subprocess

from router.folder import resolved
from router.logs import log
from router.options import Options
from router.uwsgi import printable

PR_SET_DUMPABLE = 4  # prctl(2)
START_WAIT = 30.0  # seconds for the trial of a router's start, which takes a tenth of one


def drop(options: Options) -> None:
    """Become the user and group that the options name. ValueError where that cannot be done, or did not happen.

    A trial of a start does it, too: who has become another user cannot go back to the configuration of before.
    """
    if os.geteuid() != 0:
        _refuse_others(options.uid or None, options.gid or None)
        return
    uid, gid = new_owner(options)
    if uid is None and gid is None:
        log.warning("uWSGI running as root, you can use --uid/--gid options")
        log.warning("*** WARNING: you are running uWSGI as root !!! (use the --uid flag) ***")
        return
    assert gid is not None
    groups = {gid, *options.add_gid}
    if uid is not None and not options.no_initgroups and (name := _user(uid)):
        groups.update(os.getgrouplist(name, gid))
    _become(uid, gid, groups)
    if uid is None:
        log.warning("*** WARNING: you are running uWSGI as root !!! (use the --uid flag) ***")
        return
    # The kernel hides /proc/self/fd from who has changed its user, and starting a router would take seconds without.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    _try_a_start(uid)


def new_owner(options: Options) -> tuple[int | None, int | None]:
    """The user and group that root is to become; None: stays. ValueError where the user's group is not known."""
    uid, gid = options.uid or None, options.gid or None  # 0 means to stay, as in uWSGI
    if uid is not None and gid is None:
        try:
            gid = getpwuid(uid).pw_gid
        except KeyError:
            reason = f"no user has the number {uid}, so its group is not known: gid must be given, too"
            raise ValueError(reason) from None
    return uid, gid


def socket_owner(options: Options) -> tuple[int, int] | None:
    """Whose the files of unix sockets are to be, as uWSGI binds them later; None: they stay who they are bound by."""
    uid, gid = new_owner(options) if os.geteuid() == 0 else (None, None)
    if uid is None and gid is None:
        return None
    return -1 if uid is None else uid, -1 if gid is None else gid


def _user(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return ""


def check_state_file(options: Options) -> None:
    """ValueError where the user that we have become cannot keep it."""
    if options.state_file is not None and (options.uid or options.gid):
        folder = os.path.dirname(resolved(options.state_file))
        if not os.access(folder, os.W_OK | os.X_OK):
            where = f"state file {printable(options.state_file)}"
            raise ValueError(f"{where}: its folder is not writable for user {os.getuid()}, group {os.getgid()}")


def _refuse_others(uid: int | None, gid: int | None) -> None:
    if gid is not None and gid != os.getgid():
        raise ValueError(f"cannot setgid() to {gid} as user {os.geteuid()}, who is not root")
    if uid is not None and uid != os.getuid():
        raise ValueError(f"cannot setuid() to {uid} as user {os.geteuid()}, who is not root")


def _become(uid: int | None, gid: int, groups: set[int]) -> None:
    try:
        what = "setgroups()"
        os.setgroups(sorted(groups))
        log.info("setgid() to %d", gid)
        what = f"setgid() to {gid}"
        os.setresgid(gid, gid, gid)
        for group in sorted(groups - {gid}):
            log.info("set additional group %d%s", group, _name_of(group))
        if uid is not None:
            log.info("setuid() to %d", uid)
            what = f"setuid() to {uid}"
            os.setresuid(uid, uid, uid)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot {what}: {getattr(error, 'strerror', None) or error}") from None
    _verify(uid, gid, groups)


def _verify(uid: int | None, gid: int, groups: set[int]) -> None:
    """ValueError where anything of root is left, or can be had again."""
    if os.getresgid() != (gid, gid, gid) or set(os.getgroups()) != groups:
        raise ValueError(f"the groups are {os.getresgid()} and {os.getgroups()} after setgid() to {gid}")
    if uid is None:
        return
    if os.getresuid() != (uid, uid, uid):
        raise ValueError(f"the user is {os.getresuid()} after setuid() to {uid}")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise ValueError(f"user {uid} can become root again: it has kept capabilities")


def _name_of(group: int) -> str:
    try:
        return f" ({getgrgid(group).gr_name})"
    except KeyError:
        return ""


def _try_a_start(uid: int) -> None:
    """ValueError where a router could not be started: its interpreter or our package is hidden from this user."""
    try:
        done = gevent.subprocess.run(
            [sys.executable, "-P", "-c", "import router.server"],
            stdin=gevent.subprocess.DEVNULL,
            stdout=gevent.subprocess.DEVNULL,
            stderr=gevent.subprocess.PIPE,
            timeout=START_WAIT,
        )
    except (OSError, gevent.subprocess.SubprocessError) as error:
        raise ValueError(f"user {uid} cannot start a router: {error}") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = printable(lines[-1]) if lines else f"status {done.returncode}"
        raise ValueError(f"user {uid} cannot start a router: {reason}")
