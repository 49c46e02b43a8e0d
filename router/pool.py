"""One key and its members: who can serve it, whose turn it is, and what has been counted.

A `Member` is an endpoint and what this key's source says of it. It outlives its place in the pool for as long as a
request holds it, so an unsubscribed node finishes what it has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from router.algorithms import algorithm as algorithm_named
from router.balance import behind_queue, in_turn, with_room
from router.endpoint import LIVE

if TYPE_CHECKING:
    from router.endpoint import Endpoint
    from router.node import Node

WHOLE = 100  # a member's share of its weight; less while it starts slowly
NOTE_EVERY = 0.2  # seconds between two notes of a member that is busy
NOTES = 100  # kept, so of 20 s at least; workers announce themselves each 10 s


class Member:
    """One node in one pool. Counters are this process's; `rx` counts bytes to the node, `tx` bytes from it."""

    __slots__ = (
        "endpoint", "failures", "history", "in_flight", "node", "note_due", "pool", "requests", "rx", "share", "tx",
    )  # fmt: skip

    def __init__(self, pool: Pool, endpoint: Endpoint, node: Node) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.node = node
        self.share = WHOLE
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self.tx = 0
        self.rx = 0
        self.note_due = 0.0  # unix seconds
        self.history: deque[tuple[float, int]] | None = None

    def note(self, now: float) -> None:
        """Remember what had been served when the request that came at `now` (unix seconds) was about to be.

        uWSGI's `last_requests` counts since the last announcement. A router never hears of announcements that change
        nothing, so it keeps these notes, and the supervisor knows the time of the announcement.
        """
        self.note_due = now + NOTE_EVERY
        if self.history is None:
            self.history = deque(maxlen=NOTES)
        self.history.append((now, self.requests))

    def __repr__(self) -> str:
        return f"<Member {self.pool.key} {self.endpoint!r}>"


class Pool:
    """The members of one key by address, the name of their algorithm, and the ring of those whose turn it is, laid out
    as that wants them: in `turns` for `wrr`, in `order` for the others.

    `limit`: requests that one endpoint gets at a time, 0 for any number. Without one the pick is the algorithm itself.
    """

    __slots__ = (
        "algorithm", "choose", "drained", "hits", "key", "lap", "lay", "levels", "members", "order", "panic", "pick",
        "queue", "randrange", "retries", "ring", "stale", "turns",
    )  # fmt: skip

    def __init__(self, key: str, algorithm: str, randrange: Callable[[int], int], limit: int = 0) -> None:
        self.key = key
        self.algorithm = algorithm
        named = algorithm_named(algorithm)
        self.lay = named.lay
        self.levels = named.levels
        self.choose = with_room(named.pick, limit) if limit else named.pick  # for those whose turn it is
        self.pick = behind_queue(self.choose) if limit else self.choose  # for those who come
        self.queue: dict[Any, None] = {}  # sessions that wait for room, in their order (queueing.py)
        self.retries: dict[Any, None] = {}  # likewise, but not with those that have been asked already
        self.members: dict[str, Member] = {}
        self.hits = 0
        self.drained = False  # its key is: nobody takes new requests for it
        self.randrange = randrange
        self.stale = True
        self.panic = False  # none in the ring is live, and the broken ones stand there as well
        self.ring: list[Member] = []
        self.lap = 0
        self.turns: Iterator[Member] = iter(())
        self.order: Any = None

    def lay_ring(self) -> None:
        """Lay the ring anew, after a change of members, weights, levels or health."""
        self.stale = False
        self.ring = [] if self.drained else in_turn(self.members.values(), levels=self.levels)
        if self.ring:
            self.panic = not any(member.endpoint.state == LIVE for member in self.ring)
            self.lay(self)

    def __repr__(self) -> str:
        return f"<Pool {self.key} {len(self.members)} members>"
