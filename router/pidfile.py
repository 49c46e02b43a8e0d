"""The files that say as which process a gfrouter runs, and what is said to that process by naming one.

Such a file stays where a gfrouter was killed, and its number may be another process's by then. So it is locked while
that gfrouter runs: an fcntl() lock belongs to the process, is not inherited, and stays over an exec while the file is
open. Whoever wants to send a signal asks the kernel who holds the lock. A file may be named by two options; it is never
closed, as that would let the lock go.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from router.folder import absolute
from router.handover import Estate
from router.logs import log
from router.uwsgi import printable

MODE = 0o644
FLOCK = struct.Struct("@hhqqi0q")  # struct flock: type, whence, start, length, pid
MOST_BYTES = 64  # of a number and a line break; beyond it is no pidfile


class PidFiles:
    """Those of this process. What the start before had open is in `estate`, and there is what the next one gets."""

    def __init__(self, estate: Estate, stack: ExitStack, *, vacuum: bool) -> None:
        self._estate = estate
        self._stack = stack
        self._vacuum = vacuum
        self._known, estate.pid_files = estate.pid_files, []

    def hold(self, path: str) -> None:
        """Write it, unless the start before has. ValueError where that cannot be done, and nothing is served yet."""
        path = absolute(path)
        fd = next((fd for fd in self._known if _is_file(path, fd)), None)
        if fd is None:
            log.info("writing pidfile to %s", printable(path))
            try:
                fd = _written(path)
            except OSError as error:
                text = f"cannot write the pidfile {printable(path)}: {error.strerror}"
                if not self._estate.resumed:
                    raise ValueError(text) from None
                log.error("%s", text)
                return
        self._estate.pid_files.append(fd)
        if self._vacuum:
            self._stack.enter_context(_removed(path, fd))

    def close_rest(self) -> None:
        """Those that no option names any more."""
        for fd in set(self._known) - set(self._estate.pid_files):
            os.close(fd)


def tell(path: str, number: int) -> int:
    """Send a signal to the gfrouter of this file; returns its pid. ValueError where there is none, or it may not be."""
    name = f"pidfile {printable(path)}"
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES).strip()
            if not text.isdigit():
                raise ValueError(f"{name}: there is no number of a process in it")
            pid = int(text)
            if _holder(file.fileno()) != pid:
                raise ValueError(f"{name}: no gfrouter runs as process {pid}")
        os.kill(pid, number)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None
    return pid


def _written(path: str) -> int:
    """The descriptor of the file, which holds our pid. A reader finds it whole, whenever it looks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, MODE)
    try:
        text = b"%d\n" % os.getpid()
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
    except OSError:
        os.close(fd)
        raise
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        log.warning("the pidfile %s is that of another gfrouter, too (pid: %s)", printable(path), _holder(fd))
    return fd


def _holder(fd: int) -> int:
    """The pid of the process that has locked the file; 0 where nobody has."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _is_file(path: str, fd: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(fd))
    return False


@contextmanager
def _removed(path: str, fd: int) -> Iterator[None]:
    """At the end the file is, if it is still ours and we still may."""
    try:
        yield
    finally:
        if _is_file(path, fd):
            try:
                os.unlink(path)
                log.info("VACUUM: pidfile removed.")
            except OSError as error:
                log.warning("the pidfile %s stays: %s", printable(path), error.strerror)
