"""One key and its members: who can serve it, whose turn it is, and what has been counted.

A `Member` is an endpoint and what this key's source says of it. It outlives its place in the pool for as long as a
request holds it, so an unsubscribed node finishes what it has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from router.balance import ALGORITHMS, DEFAULT, in_turn, laps

if TYPE_CHECKING:
    from router.endpoint import Endpoint
    from router.node import Node

HISTORY_SECONDS = 32  # busy seconds that a member remembers; workers announce themselves each 10 s


class Member:
    """One node in one pool. Counters are this process's; `rx` counts bytes to the node, `tx` bytes from it."""

    __slots__ = ("endpoint", "failures", "history", "in_flight", "node", "pool", "requests", "rx", "second", "tx")

    def __init__(self, pool: Pool, endpoint: Endpoint, node: Node) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.node = node
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self.tx = 0
        self.rx = 0
        self.second = 0  # unix seconds of the newest note in the history
        self.history: deque[tuple[int, int]] | None = None

    def note(self, second: int) -> None:
        """Remember what had been served when the unix second `second` began.

        uWSGI's `last_requests` counts since the last announcement. A router never hears of announcements that change
        nothing, so it keeps these notes, one a busy second, and the supervisor says which second it was.
        """
        self.second = second
        if self.history is None:
            self.history = deque(maxlen=HISTORY_SECONDS)
        self.history.append((second, self.requests))

    def __repr__(self) -> str:
        return f"<Member {self.pool.key} {self.endpoint!r}>"


class Pool:
    """The members of one key by address, their algorithm, and the ring that `wrr` walks."""

    __slots__ = ("algorithm", "hits", "key", "lap", "members", "pick", "randrange", "ring", "stale", "turns")

    def __init__(self, key: str, algorithm: str, randrange: Callable[[int], int]) -> None:
        self.key = key
        self.algorithm = algorithm if algorithm in ALGORITHMS else DEFAULT
        self.pick = ALGORITHMS[self.algorithm]
        self.members: dict[str, Member] = {}
        self.hits = 0
        self.randrange = randrange
        self.stale = True
        self.ring: list[Member] = []
        self.lap = 0
        self.turns: Iterator[Member] = iter(())

    def lay_ring(self) -> None:
        """Lay the ring anew, after a change of members, weights, levels or health; the walk starts anywhere."""
        self.stale = False
        self.ring = in_turn(self.members.values())
        if not self.ring:
            return
        ring_laps = laps([(member, member.node.weight) for member in self.ring])
        first = next(ring_laps)
        self.lap = len(first)
        self.turns = chain(islice(first, self.randrange(self.lap), None), chain.from_iterable(ring_laps))

    def __repr__(self) -> str:
        return f"<Pool {self.key} {len(self.members)} members>"
