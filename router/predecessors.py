"""The routers of a supervisor that has executed this one in its place: they serve until ours do, and end.

They know what they were told before; nothing more is said to them but to stop. They are our children, as the process is
the same. Each ends within `drain-timeout` or is killed.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import gevent
import gevent.socket

from router.handover import Old, reap
from router.logs import log
from router.pair import encode

STOP = encode({"stop": True})
KILL_WAIT = 1.0  # seconds beyond drain-timeout before a router that does not end is killed
LOOK = 1.0  # seconds between two looks at whether it should have ended


class Predecessor:
    """One of them. `run` returns when it has ended."""

    def __init__(self, old: Old) -> None:
        self.old = old
        self.pid = old.pid
        self.until = old.until
        self.pair = socket.socket(fileno=old.pair)
        self.pair.setblocking(False)  # one that does not read must not keep us from telling the next one
        try:
            self.process: int | None = os.pidfd_open(old.pid)  # nobody has waited for it: this pid is no other's yet
        except OSError:
            self.process = None  # it has ended

    def stop(self, within: float) -> None:
        """It is to accept no more, and to end when its requests have; the second time changes nothing."""
        if self.until is not None:
            return
        self.until = monotonic() + within
        with suppress(OSError):
            if self.old.midway or not self._told():
                self.pair.shutdown(socket.SHUT_RDWR)

    def _told(self) -> bool:
        try:
            return self.pair.send(STOP) == len(STOP)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def run(self) -> None:
        if self.process is not None:
            while not readable_within(self.process, LOOK):
                if self.until is not None and monotonic() > self.until + KILL_WAIT:
                    log.error("uWSGI fastrouter (pid: %d) does not end: killed", self.pid)
                    self.kill()
            reap(self.pid)
            os.close(self.process)
            self.process = None
        self.pair.close()

    def bequest(self) -> Old:
        """For one more start in our place."""
        return Old(self.pid, self.pair.fileno(), self.until, self.old.midway)


def readable_within(fd: int, seconds: float) -> bool:
    """Whether it is, as the descriptor of a process is when that has ended."""
    try:
        gevent.socket.wait_read(fd, timeout=seconds)
    except TimeoutError:
        return False
    return True


class Predecessors:
    """All of them that are there."""

    def __init__(self, olds: Sequence[Old]) -> None:
        self.alive = [Predecessor(old) for old in olds]
        self.greenlets = [gevent.spawn(self._keep, one) for one in self.alive]

    def _keep(self, one: Predecessor) -> None:
        one.run()
        self.alive.remove(one)
        log.info("uWSGI fastrouter of before (pid: %d) has ended", one.pid)

    def stop(self, within: float) -> None:
        for one in self.alive:
            one.stop(within)

    def kill(self) -> None:
        for one in self.alive:
            one.kill()

    def bequests(self) -> list[Old]:
        return [one.bequest() for one in self.alive]
