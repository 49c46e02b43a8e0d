"""What a place to announce at is, and the loop that keeps one told: `Target` is the contract, `Announcer` the loop.

Each target has a loop of its own, so that one that is down or slow holds up no other, nor the command that is wrapped.
A target knows how to speak; it does not know how to fail: it raises `Trouble`, and the loop says so once, waits, longer
each time but never longer than a renewal is away, and has it try again. Between two renewals the loop looks every
second whether what was said still holds: our own address may have changed, or the target's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import random
from time import monotonic
from typing import Any, Protocol

import gevent

from discovery.whereabouts import Whereabouts
from router.source import ENDINGS, describe, wait_before
from router.uwsgi import printable

LOOK_EVERY = 1.0  # seconds between two looks whether what was said still holds
# Seconds between two connects to a worker that does not accept yet: its first requests should not wait for long.
KNOCK_EVERY = 0.2

log = logging.getLogger("gfrouter")


@dataclass(frozen=True)
class Registration:
    """What is to be announced. `address` is as written: with `:PORT` each target is told where it sees us."""

    keys: tuple[str, ...]
    address: str
    weight: int = 1
    backup: int = 0
    modifier1: int = 0
    modifier2: int = 0
    interval: int = 10
    """Seconds between two renewals."""
    ttl: int = 30
    """Seconds of silence after which Consul or etcd take us for dead."""


class Trouble(Exception):
    """The target could not be told; the text says why, in one line. To be tried again."""


class NotAccepting(Trouble):
    """Nobody accepts connections at the address, so it is not announced. To be tried again soon."""


# Whether connects to an address succeed; None where that cannot be told now, as when its queue is full.
Accepts = Callable[[str], bool | None]


class Target(Protocol):
    """A router, an agent or a cluster that is told where we are."""

    name: str
    """As the command line has it, without secrets."""
    every: float
    """Seconds from one renewal to the next."""
    where: Whereabouts
    """Where it is itself."""

    def renew(self) -> None:
        """Announce, or renew what was announced; withdraw what is no longer so. Raises Trouble or OSError."""

    def is_current(self) -> bool:
        """Whether the last renewal would say the same now. Cheap, and does not wait."""

    def withdraw(self) -> None:
        """Take back all that was said. Raises Trouble or OSError where that fails."""


class Announcer:
    """Keeps one target told until its greenlet is killed."""

    def __init__(
        self,
        target: Target,
        *,
        sleep: Callable[[float], Any] = gevent.sleep,
        random: Callable[[], float] = random,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.target = target
        self.sleep, self.random, self.clock = sleep, random, clock
        self.failures = 0
        self.trouble = ""

    def run(self) -> None:
        while True:
            self.rest(self.turn())

    def turn(self) -> float:
        """One renewal; returns the seconds until the next one is due."""
        try:
            self.target.renew()
        except NotAccepting as trouble:
            self.failures = 0
            if str(trouble) != self.trouble:
                log.info("%s: %s", self.target.name, trouble)
            self.trouble = str(trouble)
            return KNOCK_EVERY
        except ENDINGS:
            raise
        except (Exception, gevent.Timeout) as error:
            self.failures += 1
            self._complain(reason(error))
            self.target.where.hurry()
            return min(self.target.every, wait_before(self.failures, self.random))
        if self.failures:
            log.info("%s: all is well again", self.target.name)
        self.failures, self.trouble = 0, ""
        return self.target.every

    def rest(self, wait: float) -> None:
        """Wait, but no longer than what was said holds."""
        due = self.clock() + wait
        while (left := due - self.clock()) > 0:
            self.sleep(min(LOOK_EVERY, left))
            if not self.target.is_current():
                return

    def withdraw(self) -> None:
        try:
            self.target.withdraw()
        except (Exception, gevent.Timeout) as error:
            log.warning("%s: not withdrawn: %s", self.target.name, reason(error))

    def _complain(self, trouble: str) -> None:
        """Say what is wrong, where that is not what was wrong before."""
        if trouble != self.trouble:
            name = f"{self.target.name}: "
            log.warning("%s%s; trying again", "" if trouble.startswith(name) else name, trouble)
        self.trouble = trouble


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, Trouble):
        return str(error)
    return (isinstance(error, OSError) and error.strerror) or describe(error)


def log_joined(keys: Iterable[str], address: str, place: str) -> None:
    for key in keys:
        log.info("%s + %s (%s)", printable(key), printable(address), place)


def log_left(keys: Iterable[str], address: str, place: str) -> None:
    for key in keys:
        log.info("%s - %s (%s)", printable(key), printable(address), place)
