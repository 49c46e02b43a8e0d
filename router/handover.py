"""What a supervisor leaves to the one that it executes in its own place: sockets, routers, all that is known.

All of it goes over the exec as open descriptors. A JSON text in a memory file says which is which, and VARIABLE says
which descriptor that is. It names the process, which stays the same one, so whoever else inherits it takes nothing.
The check before it is handed the same, but for what is known, so whoever could not read that says so while nothing has
happened. A field that is new needs a default: versions before it leave it out, and do not look at it.
Signals wait from before the exec until the new start listens to them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import gevent
import gevent.subprocess

from router import net
from router.folder import Folder, present_folder
from router.logs import finish_log, log
from router.uwsgi import printable

VARIABLE = "GFROUTER_HANDOVER"
CHECK = "--check"
CHECK_WAIT = 30.0  # seconds; a start takes a tenth of one, on a machine that has something else to do ten times that
HEAR = 0.001  # seconds in which the loop hears of the signals that have come
HELD_BACK = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Held:
    """A socket that was bound for `address`, as the options had it. Those of one address are in the slots' order.

    `file` is the identity (net.py) of a unix socket's file.
    """

    address: str
    kind: int
    fd: int
    file: Sequence[int] | None = None

    def taken(self) -> socket.socket | None:
        """It, for our own use; None where its file is gone or another's by now, so that nobody reaches it."""
        sock = socket.socket(fileno=self.fd)
        if self.file is not None and not net.is_there(sock, tuple(self.file)):
            sock.detach()
            return None
        sock.setblocking(False)
        return sock


@dataclass(frozen=True, slots=True)
class Old:
    """A router and the descriptor of its pair. `until` in monotonic seconds, None: still accepts.

    `midway`: it has been sent a part of a message, or not all with which it begins, so nothing more can be said to it.
    """

    pid: int
    pair: int
    until: float | None = None
    midway: bool = False


@dataclass(frozen=True, slots=True)
class Beside:
    """A program that runs beside the routers (attached.py); `name` is what its next start is found by."""

    name: str
    pid: int


Kind = TypeVar("Kind", Held, Old, Beside)


@dataclass
class Estate:
    """All that is handed over; `state` as `saved.restore` takes it."""

    held: list[Held] = field(default_factory=list)
    routers: list[Old] = field(default_factory=list)
    state: object = None
    spoken: list[str] = field(default_factory=list)  # the sources for which nobody waits any more
    again: bool = False  # a signal has come since the configuration was checked
    pid_files: list[int] = field(default_factory=list)  # descriptors (pidfile.py)
    resumed: bool = False  # false where nothing was handed over
    home: Folder | None = None  # in which the next start begins; None: the present one. It is not handed over
    beside: list[Beside] = field(default_factory=list)

    def take(self, address: str, kind: int) -> socket.socket | None:
        """The next socket that was bound for this address; None where there is none (any more)."""
        for held in self.held:
            if (held.address, held.kind) == (address, kind) and (sock := held.taken()):
                self.held.remove(held)
                return sock
        return None

    def close_rest(self, vacuum: bool) -> None:
        """Nobody wants the sockets that were not taken. `vacuum`: nor their files."""
        for held in self.held:
            log.info("no longer bound on %s fd %d", printable(held.address), held.fd)
            with socket.socket(fileno=held.fd) as sock:
                if vacuum and held.file is not None:
                    net.unlink_own(net.bound_name(sock), tuple(held.file))
        self.held.clear()

    def descriptors(self) -> list[int]:
        return [*(held.fd for held in self.held), *(router.pair for router in self.routers), *self.pid_files]


def inherited(environ: MutableMapping[str, str], pid: int, parent: int) -> Estate:
    """What was handed over to process `pid`, by itself before it was executed or by its `parent` to be checked.

    Nothing where it starts for the first time. ValueError where it cannot be read.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return Estate()
    try:
        with os.fdopen(int(text), encoding="ascii") as file:
            record = json.load(file)
        if record["pid"] not in (pid, parent):
            return Estate()
        estate = Estate(
            [_known(Held, each) for each in record["held"]],
            [_known(Old, each) for each in record["routers"]],
            record["state"],
            record.get("spoken", []),
            record.get("again", False),
            record.get("pid_files", []),
            resumed=True,
            beside=[_known(Beside, each) for each in record.get("beside", [])],
        )
        _set_inheritable(estate.descriptors(), False)
    except (OSError, OverflowError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"cannot read what {VARIABLE}={printable(text)} hands over: {error!r}") from None
    return estate


def _known(kind: type[Kind], record: Mapping[str, Any]) -> Kind:
    """What this version knows of it."""
    return kind(**{field.name: record[field.name] for field in fields(kind) if field.name in record})


def why_not(estate: Estate, given: Sequence[int]) -> str:
    """Why our own command would not start in our place; empty where it would.

    The one that checks it has the sockets of `estate` and the descriptors that we were `given`, so it can bind whatever
    else is wanted.
    """
    command = [sys.executable, *sys.orig_argv[1:], CHECK]
    try:
        with _written(estate) as memory:
            done = gevent.subprocess.run(
                command,
                stdin=gevent.subprocess.DEVNULL,
                stdout=gevent.subprocess.DEVNULL,
                stderr=gevent.subprocess.PIPE,
                timeout=CHECK_WAIT,
                env={**os.environ, VARIABLE: str(memory)},
                pass_fds=[memory, *(one.fd for one in estate.held), *given],
                start_new_session=True,  # the signals of a terminal are ours
                preexec_fn=estate.home.enter if estate.home else None,
            )
    except gevent.subprocess.TimeoutExpired:
        return f"{CHECK} did not end within {CHECK_WAIT:.0f} s"
    except (OSError, gevent.subprocess.SubprocessError) as error:
        return f"cannot execute {sys.executable}: {error}"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return printable(lines[-1]) if lines else f"{CHECK} ended with status {done.returncode}"


def execute(estate: Estate) -> None:
    """Become the new start, which inherits `estate`. Returns only where that cannot be done, having said why.

    Called with signals held back.
    """
    try:
        with _written(estate) as memory, _at_home(estate.home):
            finish_log()
            _set_inheritable([memory, *estate.descriptors()], True)
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, VARIABLE: str(memory)})
    except OSError as error:
        log.error("cannot start anew, going on as before: %s", error)
        _set_inheritable(estate.descriptors(), False)


@contextmanager
def _written(estate: Estate) -> Iterator[int]:
    """The descriptor of a memory file that says what is in it, to be read from its beginning."""
    memory = os.memfd_create("gfrouter-handover")
    try:
        held, routers = [*map(asdict, estate.held)], [*map(asdict, estate.routers)]
        record = {"pid": os.getpid(), "held": held, "routers": routers, "state": estate.state}
        record["pid_files"] = estate.pid_files
        with os.fdopen(os.dup(memory), "w", encoding="ascii") as file:
            beside = [*map(asdict, estate.beside)]
            file.write(json.dumps(record | {"spoken": estate.spoken, "again": estate.again, "beside": beside}))
        os.lseek(memory, 0, os.SEEK_SET)
        yield memory
    finally:
        os.close(memory)


@contextmanager
def _at_home(home: Folder | None) -> Iterator[None]:
    """In the folder `home`, if it is another one."""
    if home is None:
        yield
        return
    here = present_folder()
    try:
        home.enter()
        yield
    finally:
        here.enter()
        os.close(here.fd)


def _set_inheritable(descriptors: Sequence[int], value: bool) -> None:
    for fd in descriptors:
        os.set_inheritable(fd, value)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """What comes meanwhile comes afterwards; over an exec, to the new start, which calls `let_signals_through`.

    What came before has been heard when this begins.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        gevent.sleep(HEAR)
        yield
    finally:
        let_signals_through()


def let_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def reap(pid: int) -> None:
    """So that no zombie stays; gevent may have done it."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
