"""The native uWSGI subscription server: workers announce themselves in datagrams, and fall silent when they die.

`Subscription` is the source: it joins a socket, a clock that stands still while nobody listens, the senders' quota
(quota.py) and the parser of announcement.py to a feed.

Reading comes before understanding: a turn first takes in what waits in the socket, as the kernel drops what
finds no room, and then acts on a few of the datagrams that were within their senders' quotas.

Invariants: a node is withdrawn only by its own word, or after `tolerance` seconds during which we were
listening and had acted on all that was there. A flood takes at most READS datagrams and BATCH announcements a
turn of the loop, and cannot put expiry off for ever. What was heard outlives a run that failed, so that a node
falls due even if its last word came before the failure; what is recalled from before the start counts as heard
then, so that each worker has the whole tolerance to say that it is still there.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gevent.socket import wait_read

from discovery import credentials
from discovery.ack import acknowledge
from discovery.admission import Admission
from discovery.announcement import LARGEST_DATAGRAM, Announcement, AnnouncementError, parse_announcement
from discovery.credentials import Credentials
from discovery.identity import IDENTITY
from discovery.pending import Heard, Pending
from discovery.quota import Quota
from discovery.sender import from_sender, host_and_port, shown
from discovery.settings import Settings, parse_url
from router import net
from router.address import AddressError, HostName, parse_node
from router.feed import Feed
from router.listened import Listened
from router.node import Node
from router.uwsgi import printable

SWEEP_EVERY = 1.0  # seconds
READS = 2000  # datagrams a turn of the loop: 10 ms, faster than 100,000 a second come in
STEP = 250  # datagrams, after which it is looked who floods
BATCH = 50  # announcements to act on, or nodes to expire, a turn: 3 ms, which all others can wait
NAMES = 250  # nodes by host name that one sending host may bring; the table keeps four times as many names
PENDING = 20_000  # datagrams that were read and not acted on yet; 5 MB of usual ones, 82 of the largest
SIGNED_BATCH = 15  # the same where signatures are verified: 2 ms with usual keys, 15 with slow ones
MOST_ROUTERS = 8  # on the way to a worker: a key that has none any more and goes round gets ever more, and ends here
LONGEST_ROUTER = 16  # characters of a router's word, half of which we need; so what we pass on fits into its field
FLOOD_PATIENCE = 5.0  # seconds that a sweep waits for the socket to run dry; more than a late one is late


# The kernel passes on what became of an earlier datagram, or is short of memory: the next read may be good.
PASSING = frozenset(
    (errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOBUFS, errno.ENOMEM)
)

NOBODY = (0, 0, 0)  # pid, uid and gid of a sender of whom nothing is known

Place = tuple[str, str]  # key and address; or, for who has no address, key and vassal

log = logging.getLogger("gfrouter")


class Subscription:
    """uWSGI's own announcements, taken in on a datagram socket.

    The URL is `udp://HOST:PORT`, `unix://PATH` or `fd://N`, with `?tolerance=17` and the rest of `Settings`. It binds
    its socket when it is made; `close` closes that. ValueError for a URL that is wrong or an address that cannot be
    bound. `address` is the real one, `port` 0 included. `clock` gives monotonic seconds, `wall` unix seconds.
    `identity` is who we are among routers.
    """

    form = "udp://HOST:PORT, unix:///PATH or unix://@NAME"
    settings = Settings

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        identity: str = IDENTITY,
    ) -> None:
        wanted, self.options = parse_url(url)
        self.socket = net.bind(wanted, kind=socket.SOCK_DGRAM)
        self.address = net.bound_name(self.socket)
        self.name = f"subscription@{self.address}"
        self.quota = Quota(self.socket, self.options.quota)
        self._admission = Admission(self.options, wall)
        if self.options.use_credentials:
            credentials.ask_for(self.socket)
        self._listened = Listened(clock, SWEEP_EVERY)
        self._wall = wall
        self._identity = identity
        self._pending = Pending()
        # When we heard of them last, on `_listened`; the oldest first, where a sweep begins.
        self._heard: OrderedDict[Place, float] = OrderedDict()
        self._inactive: OrderedDict[Place, float] = OrderedDict()  # by vassal
        self._vassals: dict[Place, str] = {}  # the address of who has one
        self._named: dict[Place, str] = {}  # nodes by host name, and the sending host that brought them
        self._names: Counter[str] = Counter()  # how many of these a sending host has brought
        self._sweep_at = 0.0  # on `_listened`

    def run(self, feed: Feed) -> None:
        """Take announcements until killed; raise when the socket is of no use any more."""
        while True:
            self._wait()
            self.turn(feed)

    def close(self) -> None:
        self.socket.close()

    def remember(self) -> dict[str, Any]:
        """Who has brought the nodes by host name, so that a restart gives nobody room for more of them; and what was
        signed when, so that it makes nothing that was overheard good again.
        """
        return {"named": [[*place, host] for place, host in self._named.items()], **self._admission.remember()}

    def recall(self, slices: Mapping[str, Mapping[str, Node]], memory: object) -> None:
        """These nodes are served from before the start, as if they had announced themselves just now."""
        self._admission.recall(memory)
        now = self._listened()
        for key, nodes in slices.items():
            for address, node in nodes.items():
                self._heard[key, address] = now
                if node.vassal:
                    self._vassals[key, node.vassal] = address
        named = memory.get("named") if isinstance(memory, dict) else None
        for one in named if isinstance(named, list) else ():
            match one:
                case [str(key), str(address), str(host)] if address in slices.get(key, ()):
                    self._note_named((key, address), host)

    def turn(self, feed: Feed) -> None:
        """Read what waits, act on BATCH of it; expire the silent when it is time and nothing is left. Never waits."""
        now = self._listened()
        dry = self._receive(feed, now)
        for _ in range(min(SIGNED_BATCH if self.options.sign_check else BATCH, len(self._pending))):
            self._understand(feed, *self._pending.take(), now)
        overdue = now - self._sweep_at
        due = overdue >= FLOOD_PATIENCE or (dry and not self._pending and overdue >= 0)
        if due and self._sweep(feed, now):
            self._sweep_at = now + SWEEP_EVERY

    def _wait(self) -> None:
        """Until there is something to read or to sweep; even if there is, the other greenlets get a turn."""
        timeout = 0.0 if self._pending else max(0.0, self._sweep_at - self._listened())
        with suppress(TimeoutError):
            wait_read(self.socket.fileno(), timeout)

    def _receive(self, feed: Feed, now: float) -> bool:
        """Take in READS datagrams or fewer; True when there were no more."""
        for _ in range(READS // STEP):
            if len(self._pending) >= PENDING:
                return False
            dry = self._read(feed, now)
            for host, port in self.quota.flooders(now):
                who = f"{host} port {port}" if port else f"{host} (all ports)"
                if dropped := self._pending.drop(host, port):
                    feed.reject("over the quota", f"from {who}", dropped)
                log.warning("%s: %s floods, and is not heard for a while", self.name, who)
            if dry:
                return True
        return False

    def _read(self, feed: Feed, now: float) -> bool:
        """Take in STEP datagrams or fewer, but for those beyond their sender's quota; True when there were no more."""
        admits, allows, add = self.quota.admits, self._admission.allows, self._pending.add
        receive = self._receive_with_credentials if self.options.use_credentials else self._receive_plainly
        dry, dropped = False, 0
        for _ in range(STEP):
            try:
                heard = receive()
            except BlockingIOError:
                dry = True
                break
            except OSError as error:
                if error.errno not in PASSING:
                    raise
                feed.reject("receive error", str(error))
                continue
            host, port = host_and_port(heard[1])
            if not admits(host, port, now):
                dropped += 1
                loud = heard[1]
            elif not allows(host):
                feed.reject("not allowed", f"from {shown(heard[1])}")
            else:
                add(host, heard)
        if dropped:
            feed.reject("over the quota", f"the last one from {shown(loud)}", dropped)
        return dry

    def _receive_plainly(self) -> Heard:
        # One byte more than may come tells an oversized datagram from the largest.
        return *self.socket.recvfrom(LARGEST_DATAGRAM + 1), None

    def _receive_with_credentials(self) -> Heard:
        return credentials.receive(self.socket, LARGEST_DATAGRAM + 1)

    def _understand(self, feed: Feed, datagram: bytes, sender: Any, whose: Credentials | None, now: float) -> None:
        try:
            said = parse_announcement(datagram)
            self._admission.judge(said, datagram, whose)
            if self.options.address == "sender":
                said = from_sender(said, sender)
            if said.subscribe and (trouble := loop(said.routers, self._identity)):
                feed.reject("loop", f"{trouble} for key {said.key!r} (from {shown(sender)})")
                said = replace(said, subscribe=False)  # it may have known another way before
            self._act(feed, said, host_and_port(sender)[0], whose, now)
        except AnnouncementError as error:
            feed.reject(error.reason, f"{error} (from {shown(sender)})")

    def _act(self, feed: Feed, said: Announcement, host: str, whose: Credentials | None, now: float) -> None:
        place, vassal = (said.key, said.address), (said.key, said.vassal)
        if not said.subscribe:
            if self._heard.pop(place, None) is not None:
                _log("[uWSGI fastrouter pid %d] %s => marking %s as failed", place)
                self._withdraw(feed, place)
            elif not said.address:
                self._inactive.pop(vassal, None)
            return
        if said.vassal and not said.address and vassal in self._vassals:
            said = replace(said, address=self._vassals[vassal])  # what it said of its address before still holds
            place = (said.key, said.address)
        if not said.address:
            self._hear_inactive(feed, said, vassal, now)
        elif said.vassal and said.clear and place in self._heard:
            del self._heard[place]
            self._withdraw(feed, place)
            _log("[uwsgi-subscription for pid %d] %s => cleared address for vassal node: %s", vassal)
            self._keep_inactive(feed, vassal, now)
        else:
            self._announce(feed, said, host, whose, now)

    def _announce(self, feed: Feed, said: Announcement, host: str, whose: Credentials | None, now: float) -> None:
        place, vassal = (said.key, said.address), (said.key, said.vassal)
        known = self._heard.pop(place, None) is not None
        self._forget_vassal(feed, place)  # it may have another one's name now
        named = not known and self._is_named(said.address, host)
        self._heard[place] = now  # first: whatever becomes of it, it must fall due
        if not feed.announce(said.key, said.node(self._wall(), whose or NOBODY)):
            del self._heard[place]
            return
        if named:
            self._note_named(place, host)
        if said.vassal:
            self._move_vassal(feed, vassal, said.address)
        if said.notify and not known:
            try:
                acknowledge(said.notify, said.key, said.address)
            except (OSError, AddressError) as error:
                feed.reject("no acknowledgement", str(error))

    def _is_named(self, address: str, host: str) -> bool:
        """Whether a new node's address holds a host name, of which nobody may bring too many: they are looked up."""
        try:
            named = isinstance(parse_node(address), HostName)
        except AddressError as error:
            raise AnnouncementError("bad node address", str(error)) from None
        if named and self._names[host] >= NAMES:
            raise AnnouncementError("too many host names", f"{NAMES} of this sender are kept")
        return named

    def _note_named(self, place: Place, host: str) -> None:
        if place not in self._named:
            self._named[place] = host
            self._names[host] += 1

    def _hear_inactive(self, feed: Feed, said: Announcement, vassal: Place, now: float) -> None:
        """Who has a vassal's name and no address yet is not asked anything; it is known to exist."""
        if not said.vassal:
            raise AnnouncementError("no address", f"no address for key {said.key!r}")
        if self._keep_inactive(feed, vassal, now):
            _log("[uwsgi-subscription for pid %d] %s => new vassal node: %s", vassal)

    def _keep_inactive(self, feed: Feed, vassal: Place, now: float) -> bool:
        """True if it was not known."""
        known = self._inactive.pop(vassal, None) is not None
        if not known and len(self._inactive) >= feed.max_nodes:
            raise AnnouncementError("too many nodes", f"{feed.max_nodes} without address are kept")
        self._inactive[vassal] = now
        return not known

    def _move_vassal(self, feed: Feed, vassal: Place, address: str) -> None:
        """A vassal has one address for a key; the one before goes."""
        key, name = vassal
        before = self._vassals.get(vassal)
        was_inactive = self._inactive.pop(vassal, None) is not None
        if was_inactive or (before is not None and before != address):
            _log("[uwsgi-subscription for pid %d] %s => updated vassal node: %s with address %s", (key, name, address))
        if before is not None and before != address and self._heard.pop((key, before), None) is not None:
            self._withdraw(feed, (key, before))
        self._vassals[vassal] = address

    def _withdraw(self, feed: Feed, place: Place) -> None:
        self._forget_vassal(feed, place)
        host = self._named.pop(place, None)
        if host is not None:
            self._names[host] -= 1
            if not self._names[host]:
                del self._names[host]
        feed.withdraw(*place)

    def _forget_vassal(self, feed: Feed, place: Place) -> None:
        """The node at this place has its vassal's name no more."""
        key, address = place
        node = feed.slices.get(key, {}).get(address)
        if node is not None and node.vassal:
            self._vassals.pop((key, node.vassal), None)

    def _sweep(self, feed: Feed, now: float) -> bool:
        """Withdraw BATCH nodes at most that were silent for more than the tolerance; True if no more were."""
        self._admission.tidy()
        if lost := self.quota.dropped():
            feed.reject(
                "dropped by the kernel", "a sender over its quota, or more at once than there is room for", lost
            )
        done = self._forget(
            self._heard, now - self.options.tolerance,
            f"marking %s as failed (no announce received in {self.options.tolerance} seconds)",
            lambda place: self._withdraw(feed, place),
        )  # fmt: skip
        return done & self._forget(
            self._inactive, now - self.options.tolerance_inactive,
            f"marking vassal %s as failed (no announce received in {self.options.tolerance_inactive} seconds)",
        )  # fmt: skip

    def _forget(
        self,
        heard: OrderedDict[Place, float],
        since: float,
        line: str,
        withdraw: Callable[[Place], None] = lambda place: None,
    ) -> bool:
        """Forget BATCH places at most that were heard last before `since`; True if there are no more of them."""
        for _ in range(BATCH):
            place = next(iter(heard), None)
            if place is None or heard[place] >= since:
                return True
            del heard[place]
            _log(f"[uwsgi-subscription for pid %d] %s => {line}", place)
            withdraw(place)
        return False


def loop(routers: str, identity: str) -> str:
    """What is wrong with the way that an announcement has come, "" if nothing is: a request would come back to us."""
    way = routers.split()
    if identity in way:
        return "the way of a router leads through us"
    if any(len(word) > LONGEST_ROUTER or not (word.isascii() and word.isprintable()) for word in way):
        return "what is no word for a router is on the way"
    return f"more than {MOST_ROUTERS} routers are on the way" if len(way) > MOST_ROUTERS else ""


def _log(line: str, place: tuple[str, ...]) -> None:
    """One of uWSGI's lines, of a key and who is meant there."""
    log.info(line, os.getpid(), *map(printable, place))
