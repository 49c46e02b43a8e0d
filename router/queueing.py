"""Where requests wait for a node that has room, as each endpoint takes `max-connections` at a time.

A request that meets none but full endpoints stays here, in the queue of its pool, without greenlet or timer; what its
client sends meanwhile stays in the kernel. Wherever a request lets its node go (`engine.leave`), and wherever the table
changes, the pools concerned are due: soon after, a few a wake-up, the first in each queue goes to whoever has room. Of
pools that share an endpoint the one that was not served for the longest time comes first. Newcomers do not overtake: to
them a pool that has a queue has no room (balance.py). Retries, which avoid the nodes that they have asked, are a queue
of their own, so that nobody stands behind one that cannot go where he can; they have waited before, and go first.

Invariant: for whoever waits in a pool that is not due there are nodes to ask, and all of them are full. So where nobody
can be asked any more nobody waits: they go on as if they had just come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from itertools import islice
from typing import TYPE_CHECKING

from router.balance import is_askable
from router.session import QUEUED, Session
from router.uwsgi import printable

if TYPE_CHECKING:
    from router.endpoint import Endpoint
    from router.engine import Engine
    from router.pool import Pool

QUEUE_FULL, QUEUE_TIMEOUT = "queue full", "queue timeout"  # why a request is refused
MOST_QUEUED = 10_000  # sessions, and half of the engine's at most; each holds its head, 1 KiB usually, 128 at most
SERVES = 16  # sessions a wake-up, so that the others are not forgotten; about 1 ms


class Queues:
    """The queues of all pools. `limit`: requests in flight at one endpoint, 0 for any number; `longest`: of one queue.

    The owner has `serve` called soon after `wake` was called.
    """

    def __init__(self, engine: Engine, *, limit: int, longest: int, wake: Callable[[], None]) -> None:
        self.engine = engine
        self.limit = limit
        self.longest = longest
        self.wake = wake
        self.most = min(MOST_QUEUED, engine.most // 2)  # the other half is for requests that can go on
        self.waiting: dict[Session, Pool] = {}
        self.pools: OrderedDict[Pool, None] = OrderedDict()  # that have a queue; those that were served last come last
        self.due: OrderedDict[Pool, None] = OrderedDict()  # that may have room for somebody, or nobody left to ask
        self.freed: set[str] = set()  # addresses of endpoints that have let a request go: their pools are to be due
        self.changed = False  # in the table, so that all pools are
        self.entered = 0  # sessions in all

    def enter(self, session: Session, pool: Pool) -> bool:
        """The pool has no room for the session: it waits for that, or is refused. False where that is no use."""
        if not self.limit or not is_worth(pool, session.avoid):
            return False
        length = len(pool.queue) + len(pool.retries)
        if length >= self.longest or len(self.waiting) >= self.most:
            key = printable(pool.key)
            self.engine.refuse(session, QUEUE_FULL, f"no node of {key!r} has room, and {length} requests wait")
            return True
        session.state = QUEUED
        session.tick = self.engine.tick
        (pool.retries if session.avoid else pool.queue)[session] = None
        self.waiting[session] = pool
        self.pools[pool] = None
        self.entered += 1
        return True

    def forget(self, session: Session) -> None:
        """The session goes on, or ends. One that does not wait is ignored."""
        pool = self.waiting.pop(session, None)
        if pool is None:
            return
        del (pool.retries if session.avoid else pool.queue)[session]
        if not pool.queue and not pool.retries:
            del self.pools[pool]
            self.due.pop(pool, None)

    def has_room(self, endpoint: Endpoint) -> bool:
        return not self.limit or endpoint.in_flight < self.limit

    # Who waits may go on.

    def free(self, endpoint: Endpoint) -> None:
        """A request has let it go, while somebody waits."""
        self.freed.add(endpoint.address)
        self.wake()

    def call(self) -> None:
        """Something has changed in the table."""
        if self.waiting:
            self.changed = True
            self.wake()

    def serve(self) -> None:
        """Send the next few that may go on their way."""
        self._find_due()
        for _ in range(SERVES):
            if not self.due:
                break
            pool = next(iter(self.due))
            if not self._serve(pool):
                del self.due[pool]
            elif pool in self.due:
                self.due.move_to_end(pool)
        if self.due:
            self.wake()

    def _find_due(self) -> None:
        freed, self.freed = self.freed, set()
        changed, self.changed = self.changed, False
        for pool in self.pools:
            if changed or not pool.members.keys().isdisjoint(freed):
                self.due[pool] = None

    def _serve(self, pool: Pool) -> bool:
        """Let the first that can go on do so. False where all have to wait."""
        for session in (*pool.retries, *islice(pool.queue, 1)):
            member = pool.choose(pool, session.avoid, session)
            if member is None and is_worth(pool, session.avoid):
                continue
            self.pools.move_to_end(pool)
            self.forget(session)
            try:
                if member is not None:
                    self.engine.connect(session, member)
                else:
                    self.engine.detours.left_behind(session, pool.key)
            except Exception:
                self.engine.fault(session)
            return True
        return False


def is_worth(pool: Pool, avoid: Collection[Endpoint]) -> bool:
    """Whether it is of use to wait for room: somebody outside `avoid` could be asked who had some."""
    if pool.stale:
        pool.lay_ring()
    return any(is_askable(pool, member.endpoint) and member.endpoint not in avoid for member in pool.ring)


def share(limit: int, number: int, processes: int) -> int:
    """Of `limit` requests in flight, those for the router process `number`, from 1: so many exactly, but one at least,
    as a process that could ask nobody would serve nobody. 0, no limit, is 0 for each.
    """
    return limit and max(1, limit // processes + (number <= limit % processes))
