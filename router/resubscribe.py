"""What this router tells other routers of itself: the seam between the table and whoever sends it.

`Offers` is what there is to tell, a view of the table; an `Announcer` tells it, found by its entry point in GROUP as
sources are, so that nothing here knows how. A key is offered with one node, ourselves, that stands for its whole pool.
Pure, but for `announcers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from time import monotonic
from typing import Any, Protocol

from router.endpoint import LIVE, OUT, Cause, Endpoint
from router.feed import Feed
from router.node import Node
from router.options import Options
from router.pool import Member
from router.sources import Listening
from router.sourcestate import Watched
from router.static import RESERVED
from router.table import Table

GROUP = "gfrouter.announcers"
NAME = "resubscribe"


@dataclass(frozen=True, slots=True)
class Offer:
    """What we are for one key: the nodes of its first level together, in one.

    `via`: the shortest way from us to a worker, as words for the routers on it (node.py); "" where one is ours. The
    weight is that of all nodes with a way as short: two routers that tell each other would add up without end.
    """

    weight: int
    backup: int = 0
    via: str = ""


class Offers:
    """What `feeds` have brought into `table`, as this router offers it to others. `clock` gives monotonic seconds."""

    def __init__(self, table: Table, feeds: Sequence[Feed], clock: Callable[[], float] = monotonic) -> None:
        self._table = table
        self._feeds = feeds
        self._clock = clock

    def keys(self) -> list[str]:
        """All that these feeds know, each once."""
        return list(dict.fromkeys(key for feed in self._feeds for key in feed.shown if key not in RESERVED))

    def knows(self, key: str) -> bool:
        return key not in RESERVED and any(key in feed.shown for feed in self._feeds)

    def get(self, key: str) -> Offer | None:
        """None where nobody can be asked for `key`: there is no node, all are drained, or all have failed."""
        pool = self._table.pools.get(key) if self.knows(key) else None
        if pool is None or pool.drained:
            return None
        members = [one for one in pool.members.values() if not one.endpoint.drained and self._is_said(key, one.node)]
        now = self._clock()
        if not any(_can_be_asked(member, now) for member in members):
            return None
        level = min(member.node.backup for member in members)
        first = [(member.node.via.split(), member.node.weight) for member in members if member.node.backup == level]
        way = min((way for way, _ in first), key=lambda words: (len(words), words))
        return Offer(sum(weight for other, weight in first if len(other) == len(way)), level, " ".join(way))

    def _is_said(self, key: str, node: Node) -> bool:
        """Whether one of our feeds says it; others may have brought nodes of the same key."""
        return any((node.host or node.address) in feed.shown.get(key, ()) for feed in self._feeds)


def _can_be_asked(member: Member, now: float) -> bool:
    """As `Endpoint.lost` has it, but that a failed node's time is up the supervisor is not told."""
    endpoint = member.endpoint
    return endpoint.state != OUT or endpoint.cause == Cause.BROKEN or endpoint.out_until <= now


class Announcer(Protocol):
    """Tells other routers what we offer, in greenlets of its own. No verb but `withdraw` waits."""

    def start(self, offers: Offers) -> None:
        """Tell all that is offered, and go on."""

    def note(self, keys: Iterable[str]) -> None:
        """What is offered for these may have changed."""

    def withdraw(self) -> None:
        """Take everything back, within a few seconds, and say nothing more."""

    def rows(self) -> list[dict[str, Any]]:
        """How each receiver is, for the stats."""


class Announcers:
    """Those of one router, none or more, and what the supervisor tells them. `which` of its sources others hear of:
    `all`, or only those that take announcements.
    """

    def __init__(self, announcers: Sequence[Announcer], table: Table, which: str, sources: Sequence[Watched]) -> None:
        self._announcers = announcers
        feeds = [one.feed for one in sources if which == "all" or isinstance(one.source, Listening)]
        self._offers = Offers(table, feeds)
        self._held: set[str] | None = None  # keys that are to be noted later

    def start(self) -> None:
        for announcer in self._announcers:
            announcer.start(self._offers)

    def note(self, keys: Sequence[str]) -> None:
        """Something else may be offered for these."""
        if self._held is not None:
            self._held.update(keys)
            return
        for announcer in self._announcers:
            announcer.note(keys)

    def hold(self, value: bool) -> None:
        """What changes meanwhile is told afterwards, as it is then: nobody outside is to hear of a moment's absence."""
        held, self._held = self._held, set() if value else None
        self.note([*(held or ())])

    def note_health(self, endpoint: Endpoint) -> None:
        """That it is out is seen at the next renewal, as it may be back by then."""
        if endpoint.state == LIVE and self._announcers:
            self.note([member.pool.key for member in endpoint.members])

    def withdraw(self) -> None:
        for announcer in self._announcers:
            announcer.withdraw()

    def rows(self) -> list[dict[str, Any]]:
        return [row for announcer in self._announcers for row in announcer.rows()]


def announcers(options: Options, listening: str) -> list[Announcer]:
    """Those that the options ask for; `listening` is the router's own address. ValueError where they cannot be had."""
    if not options.resubscribe:
        return []
    for entry in entry_points(group=GROUP, name=NAME):
        make = entry.load()
        return [make(options.resubscribe, options.resubscribe_address or listening, options.resubscribe_sign)]
    raise ValueError(f"resubscribe: nothing named {NAME} is installed in the group {GROUP}")
