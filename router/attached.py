"""Programs that run beside the routers for as long as we do: attached daemons, and the worker of one's own (worker.py).

Each is started again whenever it ends, after pauses that grow while it ends soon. It is a session of its own, so that a
terminal's signals meet us alone, and gets none of our sockets but those meant for it; what it writes goes where our log
goes, by itself. It does not outlive us: the kernel signals it when we are gone, whatever has ended us. An exec in our
place is no such end. The start after it finds the program here, ends it, and starts the one that is configured then:
what takes its requests from a socket that we hold loses none, as they wait there meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.subprocess

from router.handover import Beside, reap
from router.logs import log
from router.predecessors import readable_within
from router.uwsgi import printable

PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before the next start, of a program that ends soon each time
CALM = 10.0  # seconds; what has lived longer is started again at once
DAEMON_MERCY = 3.0  # seconds between SIGTERM and SIGKILL, as uWSGI gives its daemons
KILL_WAIT = 1.0  # seconds in which a killed one is gone
MOST_DESCRIPTORS = 65_536  # uWSGI closes each number up to its limit when it starts; ours may be a thousand million
PR_SET_PDEATHSIG = 1  # prctl(2)
NOT_FOR_PROGRAMS = ("UWSGI_", "GFROUTER_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")  # to whom these are said is us

_libc = ctypes.CDLL(None)


def plain_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a program gets of our environment: not what it says to us."""
    return {name: value for name, value in environ.items() if not name.startswith(NOT_FOR_PROGRAMS)}


@dataclass(frozen=True, slots=True)
class Askers:
    """The routers, as a program sees them that answers requests.

    `before`: whether there are any of the start before. `hold`: for so many seconds from now requests that nobody can
    answer wait; 0 ends that. `know` returns when ours know all that was said so far; False where one does not answer.
    """

    before: Callable[[], bool]
    hold: Callable[[float], None]
    know: Callable[[], bool]


class Attached:
    """One program. `run` keeps it running; `name` is what the start after us finds it by.

    `at_death` is the signal that it gets when we are gone. `to_group`: SIGTERM goes to all its processes, not to the
    first alone, and SIGKILL follows after `mercy` seconds to all. `begin` is called before each start and may raise
    OSError; `ended` after each end, and where it could not be started; `give_way` before the one of the start before
    ours is told to end.
    """

    def __init__(
        self,
        name: str,
        tag: str,
        command: Sequence[str],
        log_fd: int,
        *,
        at_death: signal.Signals,
        mercy: float,
        to_group: bool = True,
        fds: Sequence[int] = (),
        begin: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
        give_way: Callable[[Askers], None] = lambda askers: None,
    ) -> None:
        self.name = name
        self.tag = tag
        self.command = command
        self.shown = printable(name)
        self.at_death = at_death
        self.mercy = mercy
        self.to_group = to_group
        self.starts = 0
        self.ready = True  # the worker is when it has answered
        self.process: Process | None = None
        self._log_fd = log_fd
        self._fds = fds
        self._begin = begin
        self._ended = ended
        self.give_way = give_way

    def run(self, gate: gevent.lock.BoundedSemaphore, stopping: gevent.event.Event) -> None:
        """Until `stopping`. Each start holds the `gate`, so that whoever has it can count on none being under way."""
        deaths = 0
        while not stopping.is_set():
            began = monotonic()
            with gate:
                if stopping.is_set():
                    return
                popen = self._start()
                self.process = Process(popen.pid) if popen else None
            if popen:
                status = popen.wait()
                self.process = None
            self._ended()
            if stopping.is_set():
                return
            if popen:
                log.error('[%s] "%s" (pid: %d) ended with status %d', self.tag, self.shown, popen.pid, status)
            deaths = 0 if monotonic() - began > CALM else deaths + 1
            if pause := PAUSES[min(max(deaths - 1, 0), len(PAUSES) - 1)]:
                log.info('[%s] throttling "%s" for %d seconds', self.tag, self.shown, pause)
                stopping.wait(pause)

    def _start(self) -> gevent.subprocess.Popen[bytes] | None:
        word = "respawning" if self.starts else "spawning"
        log.info('[%s] %s "%s" (uid: %d gid: %d)', self.tag, word, self.shown, os.getuid(), os.getgid())
        self.starts += 1
        try:
            self._begin()
            return gevent.subprocess.Popen(
                self.command,
                stdin=gevent.subprocess.DEVNULL,
                stdout=self._log_fd,
                stderr=self._log_fd,
                env=plain_environment(os.environ),
                pass_fds=self._fds,
                start_new_session=True,
                preexec_fn=partial(of_its_own, os.getpid(), self.at_death),
            )
        except (OSError, gevent.subprocess.SubprocessError) as error:
            log.error('[%s] unable to spawn "%s": %s', self.tag, self.shown, error)
            return None

    def row(self) -> dict[str, Any]:
        """For the stats."""
        pid = self.process.pid if self.process else 0
        state = "waiting" if not pid else "running" if self.ready else "starting"
        return {"name": self.name, "pid": pid, "restarts": max(self.starts - 1, 0), "state": state}


def of_its_own(parent: int, at_death: int) -> None:
    """In the new process, before it is executed."""
    _libc.prctl(PR_SET_PDEATHSIG, at_death)
    if os.getppid() != parent:  # it is too late for that already
        os._exit(1)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # which we ignore
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Process:
    """A running program by its pid, whoever has started it; it leads a session."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd: int | None
        try:
            self.fd = os.pidfd_open(pid)  # a child that nobody has waited for: this pid is no other's yet
        except OSError:
            self.fd = None

    def __del__(self) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def ended_within(self, seconds: float) -> bool:
        return self.fd is None or readable_within(self.fd, seconds)

    def stop(self, mercy: float, to_group: bool) -> None:
        """SIGTERM, after `mercy` seconds SIGKILL. Returns when it has ended, or is not to be ended."""
        if not self.ended_within(0):
            with suppress(OSError):
                (os.killpg if to_group else os.kill)(self.pid, signal.SIGTERM)
        if not self.ended_within(mercy):
            log.error("a program (pid: %d) does not end within %d s: killed", self.pid, mercy)
            self.kill()
            self.ended_within(KILL_WAIT)

    def kill(self) -> None:
        """It and all that it has started."""
        if not self.ended_within(0):
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


class Attachments:
    """All of them, and those that the start before this one has left, which end first."""

    def __init__(self, programs: Sequence[Attached] = (), before: Sequence[Beside] = ()) -> None:
        self.programs = programs
        self.before = {one.name: Process(one.pid) for one in before}
        self.gate = gevent.lock.BoundedSemaphore(1)
        self._stopping = gevent.event.Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def run(self, askers: Askers) -> None:
        """Start them, in greenlets. What is configured no more ends when the routers that may need it are gone."""
        self._greenlets = [gevent.spawn(self._keep, program, askers) for program in self.programs]
        for name in self.before.keys() - {program.name for program in self.programs}:
            self._greenlets.append(gevent.spawn(self._let_go, name, askers))

    def _keep(self, program: Attached, askers: Askers) -> None:
        if program.name in self.before:
            program.give_way(askers)
            self._end_before(program.name, program.mercy, program.to_group)
        program.run(self.gate, self._stopping)

    def _let_go(self, name: str, askers: Askers) -> None:
        while askers.before() and not self._stopping.wait(KILL_WAIT):
            pass
        self._end_before(name, DAEMON_MERCY, True)

    def _end_before(self, name: str, mercy: float, to_group: bool) -> None:
        process = self.before[name]
        log.info("[uwsgi-daemons] stopping daemon (pid: %d): %s", process.pid, printable(name))
        process.stop(mercy, to_group)
        reap(process.pid)
        self.before.pop(name, None)

    def stop(self) -> None:
        """End all of them. Returns when they have."""
        self._stopping.set()
        running = [(program, program.process) for program in self.programs if program.process]
        for program, process in running:
            log.info("[%s] stopping daemon (pid: %d): %s", program.tag, process.pid, program.shown)
        enders = [gevent.spawn(process.stop, program.mercy, program.to_group) for program, process in running]
        gevent.joinall(enders)
        mercy = max((program.mercy for program in self.programs), default=DAEMON_MERCY)
        gevent.joinall(self._greenlets, timeout=mercy + KILL_WAIT)
        self.kill()

    def kill(self) -> None:
        """At once, and nothing is started any more."""
        self._stopping.set()
        for process in [*self.before.values(), *(one.process for one in self.programs if one.process)]:
            process.kill()

    def bequests(self) -> list[Beside]:
        """For a start in our place; the gate must be held."""
        left = [Beside(name, process.pid) for name, process in self.before.items()]
        return left + [Beside(one.name, one.process.pid) for one in self.programs if one.process]

    def rows(self) -> list[dict[str, Any]]:
        return [program.row() for program in self.programs]


def daemon(command: str, log_fd: int) -> Attached:
    """What `attach-daemon` runs; uWSGI has the kernel kill it as well."""
    shell = ["/bin/sh", "-c", command]
    return Attached(command, "uwsgi-daemons", shell, log_fd, at_death=signal.SIGKILL, mercy=DAEMON_MERCY)
