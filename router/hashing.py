"""The same node for the same word: the algorithms `iphash`, by REMOTE_ADDR, and `hash:VAR`, by any var.

Consistent: a node that leaves takes no keys along but its own, and one that comes takes its share from all the others.
Nothing depends on the process or on what was there before, so all routers agree, also after a restart.

Strategy (multi-probe consistent hashing, Appleton and O'Reilly, 2015): each node stands at `POINTS` places of a circle,
or fewer by its weight, beside the heaviest of the pool. A word is hashed to `PROBES` places, and of the points that
follow them the nearest one has it. With so few points the shares are off by some 6 % where 160 points and one probe are
off by 8; a ring of 1,000 nodes is laid in a few ms, and where it was laid before, in less than one.
A point that weight, or a slow start, leaves only a part of is there for that part of all words.

Bounded (Mirrokni, Thorup and Zadimoghaddam, 2016), for `hash:VAR` alone: a node with more than `BOUND` times its share
of what the pool's nodes have in flight, and more than `QUIET`, has no room, and the next nearest point has the word.
`iphash` is for those who keep something of a client in a worker, so there a node keeps its words whatever it has to do.

Words that are not there, or empty, are no words: these requests are spread by the weights.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection
from hashlib import blake2b
from math import ceil, inf
from struct import Struct
from typing import TYPE_CHECKING

from router.balance import Asks, Pick, is_askable
from router.endpoint import LIVE
from router.key import find_var
from router.least import taken

if TYPE_CHECKING:
    from router.endpoint import Endpoint
    from router.pool import Member, Pool

POINTS = 16
PROBES = 8
BOUND = 1.25
FEW = 16  # members whose points are taken out one by one: where more have left, all are looked at once
QUIET = 8  # requests in flight that are never too many: a few of one word must not leave their node while all is quiet

_POINTS = Struct(f"<{POINTS}Q")
_HALVES = _POINTS.size // blake2b.MAX_DIGEST_SIZE  # digests for a node's points
_PROBES = Struct(f"<{PROBES + 1}I")  # one more says for which words a point is there that is there for some
_WORDS = 2**32


def points_of(address: str) -> list[float]:
    """Where on the circle, from 0 to 1, this address stands."""
    name = address.encode("utf-8", "surrogateescape")
    digest = b"".join(blake2b(name, salt=b"%d" % half).digest() for half in range(_HALVES))
    return [point / 2**64 for point in _POINTS.unpack(digest)]


class Circle:
    """The points of a pool's ring, in their order, and what its members have in flight."""

    __slots__ = ("bounded", "changed", "counts", "owners", "parts", "points", "seen", "total", "weights")

    def __init__(self, bounded: bool) -> None:
        self.bounded = bounded
        self.points: list[float] = []  # with the first one once more at the end, a round later
        self.owners: dict[float, Member] = {}
        self.counts: dict[Member, int] = {}
        self.parts: dict[float, float] = {}  # of all words, those for which a point is there, where not for all
        self.weights: dict[Member, float] = {}  # as parts of 1
        self.changed: dict[Member, None] = {}  # whose requests in flight are to be looked at before the next pick
        self.seen: dict[Member, int] = {}  # what each had when it was looked at
        self.total = 0  # of these

    def lay(self, pool: Pool) -> None:
        """The ring has been laid anew. The heaviest member counts also while it is out: its return moves no others."""
        heaviest = max(member.node.weight for member in pool.members.values())
        most = max(member.share for member in pool.ring)
        wanted = {member: POINTS * member.node.weight / heaviest for member in pool.ring}
        counts = {member: ceil(points) for member, points in wanted.items()}
        self._move(counts)
        self.parts = {
            point: points * member.share / (counts[member] * most)
            for member, points in wanted.items()
            if points * member.share < counts[member] * most
            for point in points_of(member.endpoint.address)[: counts[member]]
        }
        if self.bounded:
            self._weigh(pool)

    def _weigh(self, pool: Pool) -> None:
        sum_of_weights = sum(member.node.weight * member.share for member in pool.ring)
        self.weights = {member: member.node.weight * member.share / sum_of_weights for member in pool.ring}
        self.seen = {member: member.endpoint.in_flight for member in pool.ring}
        self.total = sum(self.seen.values())
        self.changed.clear()
        for member in pool.ring:
            member.endpoint.watch(member)

    def _move(self, counts: dict[Member, int]) -> None:
        """From the members and points that there were to these."""
        before, self.counts = self.counts, counts
        gone = [member for member, count in before.items() if counts.get(member) != count]
        come = [member for member, count in counts.items() if before.get(member) != count]
        if not gone and not come:
            return
        points = self.points[:-1]
        if points:
            del self.owners[self.points[-1]]
        if gone:
            left = {point for member in gone for point in points_of(member.endpoint.address)[: before[member]]}
            for point in left:
                self.owners.pop(point, None)
            if len(gone) <= FEW:
                for point in left:
                    del points[bisect_left(points, point)]
            else:
                points = [point for point in points if point not in left]
        for member in come:
            new = points_of(member.endpoint.address)[: counts[member]]
            self.owners.update(dict.fromkeys(new, member))
            points += new
        points.sort()  # of what was sorted, and a little more: cheap
        self.points = [*points, points[0] + 1]
        self.owners[points[0] + 1] = self.owners[points[0]]

    def look(self) -> None:
        """Count anew what has changed."""
        for member in self.changed:
            if member in self.seen:
                in_flight = member.endpoint.in_flight
                self.total += in_flight - self.seen[member]
                self.seen[member] = in_flight
                member.endpoint.watch(member)
        self.changed.clear()

    def is_full(self, member: Member) -> bool:
        """Whether it has all that it may have of what is in flight, with one more."""
        in_flight = member.endpoint.in_flight
        return in_flight >= QUIET and in_flight >= ceil(BOUND * (self.total + 1) * self.weights[member])

    def nearest(self, probes: Collection[int], part: int) -> Member:
        """Whose the word is."""
        points, nearest, found = self.points, inf, 0.0
        for probe in probes:
            at = probe / _WORDS
            point = points[bisect_left(points, at)]
            if point - at < nearest:
                nearest = point - at
                found = point
        if found in self.parts and not self._is_there(found, part):
            return self.nearest_of(probes, part, lambda member: True) or self.owners[found]
        return self.owners[found]

    def nearest_of(self, probes: Collection[int], part: int, legal: Callable[[Member], bool]) -> Member | None:
        """The same among the members that are `legal`."""
        points, nearest, found = self.points, inf, None
        for probe in probes:
            at = probe / _WORDS
            index = bisect_left(points, at)
            for step in range(len(points) - 1):
                point = points[(index + step) % (len(points) - 1)]
                distance = (point - at) % 1
                if distance >= nearest:
                    break
                if self._is_there(point, part) and legal(self.owners[point]):
                    nearest = distance
                    found = self.owners[point]
                    break
        return found

    def _is_there(self, point: float, part: int) -> bool:
        return point not in self.parts or (part / _WORDS + point) % 1 < self.parts[point]


def circle(*, bounded: bool) -> Callable[[Pool], None]:
    """What lays a pool's members out for `hashed_by`."""

    def lay(pool: Pool) -> None:
        if pool.order is None:
            pool.order = Circle(bounded)
        pool.order.lay(pool)

    return lay


def hashed_by(var: bytes) -> Pick:
    """The algorithm that picks by this var of the request."""

    def pick(pool: Pool, avoid: Collection[Endpoint] = (), session: Asks | None = None) -> Member | None:
        if pool.stale:
            pool.lay_ring()
        if not pool.ring:
            return None
        circle: Circle = pool.order
        bounded = circle.bounded
        if circle.changed:
            circle.look()
        word = find_var(session.head, session.size, var) if session is not None else b""
        if not word:
            word = b"%d" % pool.randrange(_WORDS)
        *probes, part = _PROBES.unpack(blake2b(word, digest_size=_PROBES.size).digest())
        first = circle.nearest(probes, part)
        member: Member | None = first
        if first.endpoint.state != LIVE or avoid or (bounded and circle.is_full(first)):

            def can(one: Member) -> bool:
                return one.endpoint not in avoid and is_askable(pool, one.endpoint)

            member = circle.nearest_of(probes, part, lambda one: can(one) and not (bounded and circle.is_full(one)))
            if member is None:  # rather one that is full, or starts slowly, than none
                member = circle.nearest_of(probes, part, can) or next(filter(can, pool.ring), None)
        if bounded and member is not None:
            circle.changed[member] = None  # it is about to have one more
        return taken(member)

    return pick
