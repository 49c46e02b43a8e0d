"""Who has least to do: the algorithms `lrc`, `wlrc` and `load`, by one heap a pool, and `p2c` by two random members.

    lrc     requests in flight
    wlrc    requests in flight / weight, both as the fastrouter has them
    load    (requests in flight + load) / (cores * weight), load and cores being the worker's own latest words: the
            requests that wait at its socket, and those that it can work on at a time
    p2c     of two members, drawn by weight, the one with fewer requests in flight / weight

Requests in flight are the endpoint's, for all its keys, in this process. Equals take turns by their weights: each turn
puts a member's next one off by 1/weight, and nobody saves turns up while others are served (start-time fair queueing).
A member that starts slowly has the weight `share` leaves it.

Strategy: an entry of the heap says what a member had to do when it was looked at, or less. So whoever stands on top is
the one, if it still has no more than that, and else sinks. A request that ends makes a member lighter without its pool
knowing: the endpoint tells those that watch it, once until they look again, and a pool looks when it picks. So a
request costs a pool of any size O(log n), and a pool that is not asked costs nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush, heapreplace
from itertools import accumulate
from typing import TYPE_CHECKING

from router.balance import Asks, is_askable
from router.endpoint import LIVE, TRIAL, TRYING

if TYPE_CHECKING:
    from router.endpoint import Endpoint
    from router.pool import Member, Pool

PHASES = 1024  # beginnings among which a new member's first turn is drawn: routers must not begin with the same one
DRAWS = 4  # pairs that p2c draws before it looks at all

Load = Callable[["Member"], float]
Entry = tuple[float, float, int, "Member"]  # load, next turn, a number that tells equals apart, member


def requests(member: Member) -> float:
    return member.endpoint.in_flight / member.share


def weighted_requests(member: Member) -> float:
    return member.endpoint.in_flight / (member.node.weight * member.share)


def announced_load(member: Member) -> float:
    node = member.node
    return (member.endpoint.in_flight + node.load) / ((node.cores or 1) * node.weight * member.share)


def same_turns(member: Member) -> float:
    return 1 / member.share


def weighted_turns(member: Member) -> float:
    return 1 / (member.node.weight * member.share)


class Ranking:
    """The members of a pool's ring, the one with the least `load` first. `turn` is how far a turn puts one off."""

    __slots__ = ("changed", "clock", "entries", "heap", "load", "number", "turn")

    def __init__(self, load: Load, turn: Load) -> None:
        self.load = load
        self.turn = turn
        self.heap: list[Entry] = []  # with entries that hold no longer
        self.entries: dict[Member, Entry] = {}  # those that do, of all in the ring
        self.changed: dict[Member, None] = {}  # to be looked at before the next pick
        self.clock = 0.0  # the turn that was taken last
        self.number = 0

    def lay(self, pool: Pool) -> None:
        """The ring has been laid anew. Who stood in it before keeps its turn."""
        before, self.entries = self.entries, {}
        self.changed.clear()
        for member in pool.ring:
            if member in before:
                start = before[member][1]
            else:
                start = self.clock + self.turn(member) * pool.randrange(PHASES) / PHASES
            self._enter(member, start)
        self._tidy()

    def _enter(self, member: Member, start: float) -> Entry:
        self.number += 1
        entry = self.entries[member] = (self.load(member), start, self.number, member)
        member.endpoint.watch(member)
        return entry

    def _tidy(self) -> None:
        self.heap = list(self.entries.values())
        heapify(self.heap)

    def look(self) -> None:
        """Bring those up that have become lighter."""
        for member in self.changed:
            entry = self.entries.get(member)
            if entry is None:  # it has left the ring
                continue
            if self.load(member) < entry[0]:
                heappush(self.heap, self._enter(member, entry[1]))
            else:
                member.endpoint.watch(member)
        self.changed.clear()
        if len(self.heap) > 2 * len(self.entries) + PHASES:
            self._tidy()

    def first(self, pool: Pool) -> Member | None:
        """The one with the least to do that can be asked."""
        heap, entries = self.heap, self.entries
        while heap:
            entry = heap[0]
            load, start, _, member = entry
            if entries.get(member) is not entry:
                heappop(heap)
            elif (now := self.load(member)) > load:
                self.number += 1
                entries[member] = heavier = (now, start, self.number, member)
                heapreplace(heap, heavier)
            elif is_askable(pool, member.endpoint):
                heapreplace(heap, self._delayed(entry))
                return member
            else:  # somebody tries it; whatever comes of that, the ring is laid anew
                heappop(heap)
        return None

    def first_outside(self, pool: Pool, avoid: Collection[Endpoint]) -> Member | None:
        """The same among those outside `avoid`: who is asked again, or meets full ones, has all of them looked at."""
        best: Entry | None = None
        for member in pool.ring:
            endpoint = member.endpoint
            if endpoint not in avoid and is_askable(pool, endpoint):
                _, start, number, _ = self.entries[member]
                entry = (self.load(member), start, number, member)
                if best is None or entry < best:
                    best = entry
        if best is None:
            return None
        heappush(self.heap, self._delayed(best))
        return best[3]

    def _delayed(self, entry: Entry) -> Entry:
        """The entry of a member that takes its turn now."""
        load, start, _, member = entry
        self.clock = max(self.clock, start)
        self.number += 1
        entry = self.entries[member] = (load, self.clock + self.turn(member), self.number, member)
        return entry


def ranking(load: Load, turn: Load) -> Callable[[Pool], None]:
    """What lays a pool's members out for `least`."""

    def lay(pool: Pool) -> None:
        if pool.order is None:
            pool.order = Ranking(load, turn)
        pool.order.lay(pool)

    return lay


def least(pool: Pool, avoid: Collection[Endpoint] = (), session: Asks | None = None) -> Member | None:
    """Whoever stands first in the pool's ranking. None where nobody, or nobody outside `avoid`, can be asked."""
    if pool.stale:
        pool.lay_ring()
    if not pool.ring:
        return None
    order: Ranking = pool.order
    if order.changed:
        order.look()
    return taken(order.first_outside(pool, avoid) if avoid else order.first(pool))


def taken(member: Member | None) -> Member | None:
    """The same; one on trial is taken by the request that finds it."""
    if member is not None and member.endpoint.state == TRIAL:
        member.endpoint.state = TRYING
    return member


def lay_weights(pool: Pool) -> None:
    """For `p2c`: the sums of the weights in the ring up to each member."""
    pool.order = list(accumulate(member.node.weight * member.share for member in pool.ring))


def p2c(pool: Pool, avoid: Collection[Endpoint] = (), session: Asks | None = None) -> Member | None:
    """The power of two choices. None where nobody, or nobody outside `avoid`, can be asked."""
    if pool.stale:
        pool.lay_ring()
    ring = pool.ring
    if not ring:
        return None
    sums: list[int] = pool.order
    for _ in range(DRAWS):
        at = bisect_right(sums, pool.randrange(sums[-1]))
        other = bisect_right(sums, pool.randrange(sums[-1]))
        one, two = ring[at], ring[other if other != at else at - 1]
        if weighted_requests(two) < weighted_requests(one):
            one, two = two, one
        for member in (one, two):
            endpoint = member.endpoint
            if endpoint not in avoid and (endpoint.state == LIVE or is_askable(pool, endpoint)):
                return taken(member)
    askable = [member for member in ring if member.endpoint not in avoid and is_askable(pool, member.endpoint)]
    return taken(min(askable, key=weighted_requests, default=None))
