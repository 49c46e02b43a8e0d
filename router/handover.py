"""What a supervisor leaves to the one that it executes in its own place: sockets, routers, all that is known.

All of it goes over the exec as open descriptors. A JSON text in a memory file says which is which, and VARIABLE says
which descriptor that is. It names the process, which stays the same one, so whoever else inherits it takes nothing.
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
from dataclasses import asdict, dataclass, field

import gevent
import gevent.subprocess

from router.logs import finish_log, log
from router.uwsgi import printable

VARIABLE = "GFROUTER_HANDOVER"
TRIAL = "GFROUTER_TRIAL"
CHECK = "--check"
CHECK_WAIT = 30.0  # seconds; a start takes a tenth of one, on a machine that has something else to do ten times that
HEAR = 0.001  # seconds in which the loop hears of the signals that have come
HELD_BACK = (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Held:
    """A socket that was bound for `address`, as the options had it. Those of one address are in the slots' order."""

    address: str
    kind: int
    fd: int


@dataclass(frozen=True, slots=True)
class Old:
    """A router: the descriptors of its pair and of its process. `until` in monotonic seconds, None: still accepts.

    `midway`: a part of a message has been sent, so nothing more can be said to it.
    """

    pid: int
    pair: int
    until: float | None = None
    midway: bool = False


@dataclass
class Estate:
    """All that is handed over; `state` as `saved.restore` takes it."""

    held: list[Held] = field(default_factory=list)
    routers: list[Old] = field(default_factory=list)
    state: object = None
    spoken: list[str] = field(default_factory=list)  # the sources for which nobody waits any more
    again: bool = False  # a signal has come since the configuration was checked
    resumed: bool = False  # false at the first start

    def take(self, address: str, kind: int) -> socket.socket | None:
        """The next socket that was bound for this address; None where there is none (any more)."""
        for held in self.held:
            if (held.address, held.kind) == (address, kind):
                self.held.remove(held)
                sock = socket.socket(fileno=held.fd)
                sock.setblocking(False)
                return sock
        return None

    def close_rest(self) -> None:
        """Nobody wants the sockets that were not taken."""
        for held in self.held:
            log.info("no longer bound on %s fd %d", printable(held.address), held.fd)
            os.close(held.fd)
        self.held.clear()

    def descriptors(self) -> list[int]:
        return [held.fd for held in self.held] + [router.pair for router in self.routers]


def inherited(environ: MutableMapping[str, str], pid: int) -> Estate:
    """What was handed over to process `pid`: nothing where it starts for the first time."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return Estate()
    try:
        with os.fdopen(int(text), encoding="ascii") as file:
            record = json.load(file)
        if record.pop("pid") != pid:
            return Estate()
        estate = Estate(
            [Held(**each) for each in record["held"]],
            [Old(**each) for each in record["routers"]],
            record["state"],
            record["spoken"],
            record["again"],
            resumed=True,
        )
        for fd in estate.descriptors():
            os.set_inheritable(fd, False)
    except (OSError, OverflowError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.error("cannot read what %s=%s hands over: %s", VARIABLE, printable(text), error)
        return Estate()
    return estate


def on_trial(environ: Mapping[str, str], parent: int) -> Estate | None:
    """What a check may use that the process `parent` has asked for by `why_not`; None for anybody else's."""
    try:
        record = json.loads(environ.get(TRIAL, "null"))
        return Estate([Held(**each) for each in record["held"]]) if record["pid"] == parent else None
    except (ValueError, TypeError, KeyError):
        return None


def why_not(held: Sequence[Held], given: Sequence[int]) -> str:
    """Why our own command would not start in our place; empty where it would.

    The one that checks it has `held` and the descriptors that we were `given`, so it can bind whatever else is wanted.
    """
    command = [sys.executable, *sys.orig_argv[1:], CHECK]
    trial = json.dumps({"pid": os.getpid(), "held": [*map(asdict, held)]})
    try:
        done = gevent.subprocess.run(
            command,
            stdin=gevent.subprocess.DEVNULL,
            stdout=gevent.subprocess.DEVNULL,
            stderr=gevent.subprocess.PIPE,
            timeout=CHECK_WAIT,
            env={**os.environ, TRIAL: trial},
            pass_fds=[*(one.fd for one in held), *given],
            start_new_session=True,  # the signals of a terminal are ours
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
    memory = os.memfd_create("gfrouter-handover", 0)
    try:
        held, routers = map(asdict, estate.held), map(asdict, estate.routers)
        left = {"held": [*held], "routers": [*routers], "state": estate.state}
        left |= {"spoken": estate.spoken, "again": estate.again}
        with os.fdopen(os.dup(memory), "w", encoding="ascii") as file:
            file.write(json.dumps({"pid": os.getpid(), **left}))
        os.lseek(memory, 0, os.SEEK_SET)
        finish_log()
        _set_inheritable(estate.descriptors(), True)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, VARIABLE: str(memory)})
    except OSError as error:
        log.error("cannot start anew, going on as before: %s", error)
        os.close(memory)
        _set_inheritable(estate.descriptors(), False)


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
