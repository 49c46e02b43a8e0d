"""The native uWSGI subscription server: workers announce themselves over UDP, and fall silent when they die.

`Listened` is a clock that does not run while nobody listens. `Subscription` is the source: it joins a socket,
that clock and the parser of announcement.py to a feed.

Invariants: a node is withdrawn only by its own word, or after `tolerance` seconds during which we were
listening and had read all that was there. A flood takes at most BATCH datagrams a turn of the loop, and
cannot put expiry off for ever. What was heard outlives a run that failed, so that a node falls due even if
its last word came before the failure.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qsl

from gevent.socket import wait_read

from discovery.announcement import LARGEST_DATAGRAM, Announcement, AnnouncementError, parse_announcement
from router import net
from router.table import Feed
from router.uwsgi import printable

DEFAULT_TOLERANCE = 17  # seconds of silence, as in uWSGI, whose workers announce themselves each 10 s
LARGEST_TOLERANCE = 86_400  # seconds; beyond a day a typing error is likelier than a wish
SWEEP_EVERY = 1.0  # seconds
LATE = 2.0  # seconds by which a sweep may come late before we say that nobody was listening
BATCH = 50  # datagrams to read, or nodes to expire, a turn of the loop: 3 ms, which all others can wait
FLOOD_PATIENCE = 5.0  # seconds that a sweep waits for the socket to run dry; more than a late one is late

# The kernel passes on what became of an earlier datagram, or is short of memory: the next read may be good.
PASSING = frozenset(
    (errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOBUFS, errno.ENOMEM)
)

log = logging.getLogger("gfrouter")


class Listened:
    """Seconds for which we have listened: a monotonic clock, less the time when nobody read the socket.

    It expects to be read once in SWEEP_EVERY. A reading that comes more than LATE after that (SIGSTOP, a
    paused VM, a blocked loop) moves it on as far as it was expected and no further; so every deadline moves
    by the lateness.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lost = 0.0
        self._expected = clock() + SWEEP_EVERY

    def __call__(self) -> float:
        now = self._clock()
        late = now - self._expected
        if late > LATE:
            self._lost += late
        self._expected = now + SWEEP_EVERY
        return now - self._lost


class Subscription:
    """The source of `udp://HOST:PORT?tolerance=17`. It binds its socket when it is made; `close` closes that.

    ValueError for a URL that is wrong or an address that cannot be bound. `address` is the real one, `port` 0
    included. `clock` gives monotonic seconds, `wall` unix seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        wanted, self.tolerance = parse_url(url)
        self.socket = net.bind(wanted, kind=socket.SOCK_DGRAM)
        self.address = net.bound_name(self.socket)
        self.name = f"subscription@{self.address}"
        self._listened = Listened(clock)
        self._wall = wall
        # (key, address) → when we heard of it last, on `_listened`; the oldest first, where a sweep begins.
        self._heard: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._sweep_at = 0.0  # on `_listened`

    def run(self, feed: Feed) -> None:
        """Take announcements until killed; raise when the socket is of no use any more."""
        while True:
            self._wait()
            self.turn(feed)

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def turn(self, feed: Feed) -> None:
        """Read BATCH datagrams at most; expire the silent when it is time and none is left. Never waits."""
        dry = self._receive(feed)
        now = self._listened()
        overdue = now - self._sweep_at
        if overdue >= FLOOD_PATIENCE or (dry and overdue >= 0):
            swept = self._sweep(feed, now)
            if swept:
                self._sweep_at = now + SWEEP_EVERY

    def _wait(self) -> None:
        """Until there is something to read or to sweep; even if there is, the other greenlets get a turn."""
        timeout = max(0.0, self._sweep_at - self._listened())
        with suppress(TimeoutError):
            wait_read(self.socket.fileno(), timeout)

    def _receive(self, feed: Feed) -> bool:
        """Read and act on BATCH datagrams or fewer; True when there were no more."""
        now = self._listened()
        for _ in range(BATCH):
            try:
                # One byte more than may come tells an oversized datagram from the largest.
                datagram, sender = self.socket.recvfrom(LARGEST_DATAGRAM + 1)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno not in PASSING:
                    raise
                feed.reject("receive error", str(error))
                continue
            try:
                self._act(feed, parse_announcement(datagram), now)
            except AnnouncementError as error:
                feed.reject(error.reason, f"{error} (from {sender[0]}:{sender[1]})")
        return False

    def _act(self, feed: Feed, said: Announcement, now: float) -> None:
        # A vassal without an address would have to be started first, which nobody here can.
        if not said.address:
            raise AnnouncementError("no address", f"no address for key {said.key!r}")
        place = (said.key, said.address)
        known = self._heard.pop(place, None) is not None
        if said.leaving:
            if known:
                _log("[uWSGI fastrouter pid %d] %s => marking %s as failed", place)
                feed.withdraw(*place)
            return
        if not known:
            try:
                net.parse_node(said.address)
            except net.AddressError as error:
                raise AnnouncementError("bad node address", str(error)) from None
        self._heard[place] = now
        feed.announce(said.key, said.node(self._wall()))

    def _sweep(self, feed: Feed, now: float) -> bool:
        """Withdraw BATCH nodes at most that were silent for more than the tolerance; True if no more were."""
        silence = f"(no announce received in {self.tolerance} seconds)"
        for _ in range(BATCH):
            place = next(iter(self._heard), None)
            if place is None or now - self._heard[place] <= self.tolerance:
                return True
            del self._heard[place]
            _log(f"[uwsgi-subscription for pid %d] %s => marking %s as failed {silence}", place)
            feed.withdraw(*place)
        return False


def parse_url(url: str) -> tuple[str, int]:
    """(address to bind, tolerance in s) of `udp://HOST:PORT?tolerance=17`, else ValueError."""
    wrong = f"subscription url {url!r}"
    scheme, _, rest = url.partition("://")
    if scheme != "udp" or not rest:
        raise ValueError(f"{wrong}: expected udp://HOST:PORT or udp://HOST:PORT?tolerance=SECONDS")
    address, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    tolerance = options.pop("tolerance", str(DEFAULT_TOLERANCE))
    if options:
        raise ValueError(f"{wrong}: option {next(iter(options))!r} is not known (known: tolerance)")
    if not re.fullmatch("[0-9]{1,9}", tolerance):
        raise ValueError(f"{wrong}: tolerance {tolerance!r} is not a number of seconds")
    if not 1 <= int(tolerance) <= LARGEST_TOLERANCE:
        raise ValueError(f"{wrong}: tolerance {tolerance} is out of range (1 to {LARGEST_TOLERANCE} seconds)")
    return address.removesuffix("/"), int(tolerance)


def _log(line: str, place: tuple[str, str]) -> None:
    """One of uWSGI's lines, of a key and an address."""
    log.info(line, os.getpid(), *map(printable, place))
