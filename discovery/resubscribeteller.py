"""One place that is told of us, and what was said there: each key when it changes, and every ten seconds, as a worker.

    news      keys of which something else may have to be said: at once, but many together a moment later
    due       when each key is said again, a little before ten seconds are over, each at a time of its own
    failing   nothing listens there: one datagram now and then, until one is not refused; then all is said again

A turn says a few datagrams and never waits for an answer, so 10,000 keys fill no receiver's buffer (200 KiB hold some
270 datagrams) and stay below the quota of a gfrouter (1,000 a second). What is said goes from one socket, which hears
from the kernel that nothing listens over there.
"""

from __future__ import annotations

import heapq
import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import ceil
from random import random
from time import monotonic, time
from typing import Any, Protocol

import gevent
from gevent.event import Event

from discovery.announcement import LARGEST_INT, SUBSCRIBE, Announcement, build_announcement
from discovery.announcetarget import reason
from discovery.torouter import ECHO_S, connected
from discovery.whereabouts import Place, shown
from router.source import wait_before

EVERY = 10.0  # seconds from one renewal to the next at most, as uWSGI's workers have it
JITTER = 0.2  # of that, by which it comes earlier: the renewals of many keys spread by themselves
PAUSE = 0.02  # seconds between two turns; what changes meanwhile is said once
BATCH = 16  # datagrams a turn, so 800 a second
ROUND = 12.5  # seconds in which all keys are said, however many there are; a receiver forgets us after 17
CALM_S = 60.0  # between two lines of one thing that fails again and again, but for the first of its first 10, 100, ...
LOOKS = 200  # keys a turn that are looked at, most of which have not changed after all: 2 ms
AHEAD = 3  # seconds by which what is signed may be ahead of the clock: a farewell and a return at once take them
PROBE_EVERY = 2.0  # seconds at most between two datagrams to where nothing listens

Sign = Callable[[bytes, int], bytes]  # a datagram and unix seconds → the same, signed

UNSURE = object()  # what was said when a receiver may not have heard it

log = logging.getLogger("gfrouter")


class Offer(Protocol):
    @property
    def weight(self) -> int: ...
    @property
    def backup(self) -> int: ...
    @property
    def via(self) -> str: ...


class Offers(Protocol):
    """What there is to tell, as router/resubscribe.py has it."""

    def keys(self) -> list[str]: ...
    def knows(self, key: str) -> bool: ...
    def get(self, key: str) -> Offer | None: ...


class Troubles:
    """What goes wrong with one thing: counted, and logged now and then. `clock` gives monotonic seconds."""

    def __init__(self, name: str, clock: Callable[[], float] = monotonic) -> None:
        self.name = name
        self.failed = 0
        self.error = ""  # "" while all is well
        self.last_error = ""
        self._clock = clock
        self._calm_at = 0.0

    def note(self, text: str) -> None:
        is_new = not self.error and self._clock() >= self._calm_at
        self.failed += 1
        self.error = self.last_error = text
        if is_new or len(str(self.failed)) > len(str(self.failed - 1)):
            self._calm_at = self._clock() + CALM_S
            times = f" ({self.failed} times so far)" if self.failed > 1 else ""
            log.warning("%s: %s; trying again%s", self.name, text, times)

    def over(self) -> None:
        self.error = ""

    def row(self) -> dict[str, Any]:
        return {"failed": self.failed, "error": self.error, "last_error": self.last_error}


class Teller:
    """Tells one place that we are at `address`. `identity` is who we are among routers, `sign` signs what is said.

    `wall` gives unix seconds, `clock` monotonic seconds, `random` 0 up to 1.
    """

    def __init__(
        self,
        receiver: str,
        place: Place,
        address: str,
        offers: Offers,
        identity: str,
        sign: Sign | None = None,
        *,
        wall: Callable[[], float] = time,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
        sleep: Callable[[float], Any] = gevent.sleep,
    ) -> None:
        self.receiver = receiver
        self.place = place
        self.address = address
        self.offers = offers
        self.identity = identity
        self.troubles = Troubles(f"resubscribe {shown(place)}", clock)
        # What was said last of each key that may be known there: an Offer, or UNSURE. At first that is all that is
        # offered, as the start before this one may have said it.
        self.told: dict[str, object] = dict.fromkeys(offers.keys(), UNSURE)
        self.news: dict[str, None] = dict.fromkeys(self.told)
        self.sent = 0
        self.failures = 0  # in a row
        self._due: dict[str, float] = {}  # on `clock`
        self._heap: list[tuple[float, str]] = []  # the same, those that hold no more among them
        self._sock: socket.socket | None = None
        self._probing = False
        self._awake = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._sign, self._wall = sign, wall
        self._seconds: dict[str, int] = {}  # of each key's last signature
        self._clock, self._random, self._sleep = clock, random, sleep

    def start(self) -> None:
        self._greenlet = gevent.spawn(self.run)

    def run(self) -> None:
        log.info("telling %s what we serve, as %s", shown(self.place), self.address)
        while True:
            wait = self.turn()
            if self.failures:
                self._sleep(wait)
            else:
                self._awake.wait(max(0.0, wait - PAUSE))
                self._awake.clear()
                self._sleep(PAUSE)

    def note(self, keys: Iterable[str]) -> None:
        self.news.update(dict.fromkeys(keys))
        self._awake.set()

    def turn(self) -> float:
        """Say some of what is to be said; returns the seconds until the next turn."""
        now = self._clock()
        try:
            self._hear()
            if self.failures and not self._probing:
                return self._probe()
            if self._probing:
                self._recover()
            return self._say(now)
        except OSError as error:
            return self._fail(error)

    def withdraw(self) -> None:
        """Take everything back, as far as that can be done; stops the turns."""
        if self._greenlet:
            self._greenlet.kill()
        with suppress(OSError):  # who cannot be reached misses us soon enough
            for number, key in enumerate(list(self.told), start=1):
                self._send(key, None)
                del self.told[key]
                if number % BATCH == 0:
                    self._sleep(PAUSE)
        self._close()

    def leave(self) -> None:
        """The same, where the receiver or we are elsewhere now."""
        log.info("%s is told no longer what we serve, as %s", shown(self.place), self.address)
        self.withdraw()

    def row(self) -> dict[str, Any]:
        return {
            "receiver": self.receiver,
            "place": shown(self.place),
            "address": self.address,
            "keys": len(self.told),
            "sent": self.sent,
            **self.troubles.row(),
        }

    # What is to be said.

    def _say(self, now: float) -> float:
        most = max(BATCH, ceil((len(self._due) + len(self.news)) * PAUSE / ROUND))
        sent = looked = 0
        while sent < most and looked < LOOKS + most and (pick := self._next(now, sent)):
            key, renewal = pick
            looked += 1
            try:
                sent += self._tell(key, renewal, now)
            except TimeoutError:  # it is there, and slow
                self.told[key] = UNSURE
                self.news[key] = None
                self.troubles.note("its queue is full")
                return PAUSE
        if sent:
            self.troubles.over()
        if self.news or (self._heap and self._heap[0][0] <= now):
            return PAUSE
        wait = self._heap[0][0] - now if self._heap else EVERY
        return min(wait, ECHO_S) if sent else wait  # soon it is known whether anything listens

    def _next(self, now: float, turn: int) -> tuple[str, bool] | None:
        """The key to look at, and whether its renewal is due. News and renewals take turns: neither waits for all."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        due = bool(self._heap) and self._heap[0][0] <= now
        if self.news and (not due or turn % 2 == 0):
            key = next(iter(self.news))
            del self.news[key]
            return key, False
        return (heapq.heappop(self._heap)[1], True) if due else None

    def _tell(self, key: str, renewal: bool, now: float) -> bool:
        """Say what holds for `key`, where that is something else or its renewal is due. True if anything was sent."""
        offer, before = self.offers.get(key), self.told.get(key)
        if offer is None and not self.offers.knows(key):
            self._due.pop(key, None)
        elif renewal or offer != before or key not in self._due:
            self._look_again(key, now, EVERY * (1.0 - JITTER * self._random()))
        if offer == before and not (renewal and offer):
            self._forget_second(key, now)
            return False
        if self._is_ahead(key, AHEAD):
            self._look_again(key, now)
            return False
        self._send(key, offer)
        if offer is None:
            del self.told[key]
            self._forget_second(key, now)
        else:
            self.told[key] = offer
        return True

    def _send(self, key: str, offer: Offer | None) -> None:
        """One datagram: what is offered, or that nothing is."""
        said = Announcement(offer is not None, key, self.address)
        if offer:
            way = f"{self.identity} {offer.via}".strip()
            said = Announcement(
                True, key, self.address, weight=min(offer.weight, LARGEST_INT), backup=offer.backup, routers=way
            )
        if self._sock is None:
            self._sock = connected(self.place)
        self._sock.send(self._signed(key, build_announcement(said)))
        self.sent += 1

    def _signed(self, key: str, datagram: bytes) -> bytes:
        """Signed, with another second than any before for this key: a receiver takes only what is newer."""
        if self._sign is None:
            return datagram
        second = max(int(self._wall()), self._seconds.get(key, 0) + 1)
        self._seconds[key] = second + (datagram[3] != SUBSCRIBE)  # a farewell is signed with the next one
        return self._sign(datagram, second)

    def _is_ahead(self, key: str, seconds: int) -> bool:
        """Whether the next signature would be for a time more than so many seconds from now."""
        return self._seconds.get(key, 0) + 1 > int(self._wall()) + seconds

    def _forget_second(self, key: str, now: float) -> None:
        """Nothing is told of this key any more: its last signature matters until its time is over."""
        if key in self._seconds and key not in self.told:
            if self._is_ahead(key, 0):
                self._look_again(key, now)
            else:
                del self._seconds[key]

    def _look_again(self, key: str, now: float, wait: float = 1.0) -> None:
        self._due[key] = now + wait
        heapq.heappush(self._heap, (self._due[key], key))

    # Where nothing listens.

    def _hear(self) -> None:
        """Raises what the kernel has learned of earlier datagrams."""
        if self._sock and (number := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            raise OSError(number, os.strerror(number))

    def _fail(self, error: OSError) -> float:
        self.troubles.note(reason(error))
        if not self.failures:
            self.told = dict.fromkeys(self.told, UNSURE)
        self.failures += 1
        self._probing = False
        self._close()
        return min(PROBE_EVERY, wait_before(self.failures, self._random))

    def _probe(self) -> float:
        """Say one thing; if that is not refused, the next turn says all."""
        for key in [*self.news, *self.told]:
            if offer := self.offers.get(key):
                self.told[key] = UNSURE
                self._send(key, offer)
                break
        else:  # nothing to say but farewells, and who is not there needs none
            self.told.clear()
        self._probing = True
        return ECHO_S

    def _recover(self) -> None:
        self._probing = False
        self.failures = 0
        self.troubles.over()
        self.news = dict.fromkeys([*self.told, *self.offers.keys()])

    def _close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None
