"""The one place where everything that is known about nodes comes together: slices by source, merged to key → pool.

Each source writes to its own `Feed`, and a feed holds what this source says: its slice. A pool is the union of the
slices. The same address from two sources is one member, described by the source that was given its feed first, and it
leaves when the last source lets go of it.

Nothing here does I/O, reads a clock or waits: under gevent each verb is atomic, so there are no locks. Whoever must act
on a change (log lines, the routers' copies, cheap mode) is told through the callbacks.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import randrange

from router import net
from router.endpoint import LIVE, OUT, TRIAL, Endpoint
from router.node import Node
from router.pool import Member, Pool

log = logging.getLogger("gfrouter")


@dataclass(slots=True)
class Change:
    """What one verb changed in one pool; `changed` members are the ones that are described anew."""

    key: str
    source: str
    opened: bool = False
    closed: bool = False
    joined: list[Member] = field(default_factory=list)
    left: list[Member] = field(default_factory=list)
    changed: list[Member] = field(default_factory=list)


class Table:
    """Key → `Pool`, address → `Endpoint`. `on_change` hears of membership, `on_health` of endpoints' states.

    `on_spoken` hears of each source that has given all that it can see, for the first time.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[Change], None] = lambda change: None,
        on_health: Callable[[Endpoint], None] = lambda endpoint: None,
        on_spoken: Callable[[Feed], None] = lambda feed: None,
        randrange: Callable[[int], int] = randrange,
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.out: set[Endpoint] = set()
        self.feeds: list[Feed] = []
        self.on_change = on_change
        self.on_health = on_health
        self.on_spoken = on_spoken
        self.randrange = randrange

    def feed(self, source: str) -> Feed:
        """A slice for one more source. Those that come earlier describe the nodes that they share with later ones."""
        feed = Feed(self, source)
        self.feeds.append(feed)
        return feed

    def nodes(self, key: str) -> list[Node]:
        """What is known of `key`, as another table's `Feed.set` takes it."""
        pool = self.pools.get(key)
        return [member.node for member in pool.members.values()] if pool else []

    @property
    def empty(self) -> bool:
        """True where no node can be asked: none is known, or all have failed."""
        return len(self.endpoints) == len(self.out)

    # Health. The only way for an endpoint to change its state, except that the balancer takes one on trial.

    def fail(self, endpoint: Endpoint, out_until: float) -> None:
        """`endpoint` failed: out of turn until `out_until` (monotonic seconds), then on trial."""
        endpoint.out_until = out_until
        self._turn(endpoint, OUT)

    def restore(self, endpoint: Endpoint) -> None:
        """`endpoint` works: it connected, or announced itself."""
        self._turn(endpoint, LIVE)

    def release_trial(self, endpoint: Endpoint) -> None:
        """The request that tried `endpoint` went away before there was a result: the next one may try."""
        self._turn(endpoint, TRIAL)

    def begin_trials(self, now: float) -> None:
        """Put those whose time is up on trial; `now` in monotonic seconds."""
        for endpoint in [endpoint for endpoint in self.out if endpoint.out_until <= now]:
            self._turn(endpoint, TRIAL)

    def _turn(self, endpoint: Endpoint, state: int) -> None:
        if endpoint.state == state:
            return
        endpoint.state = state
        if endpoint.members:
            (self.out.add if state == OUT else self.out.discard)(endpoint)
            for member in endpoint.members:
                member.pool.stale = True
            self.on_health(endpoint)

    # Merging.

    def _settle(self, key: str, addresses: Iterable[str], source: str) -> None:
        """Bring the members of `key` at these addresses in line with what the slices say now."""
        change = Change(key, source)
        pool = self.pools.get(key)
        for address in addresses:
            node = next((f.slices[key][address] for f in self.feeds if address in f.slices.get(key, ())), None)
            member = pool.members.get(address) if pool else None
            if node is None:
                if member is not None:
                    change.left.append(self._leave(member))
            elif member is None:
                if pool is None:
                    pool = self.pools[key] = Pool(key, node.algorithm, self.randrange)
                    change.opened = True
                change.joined.append(self._join(pool, node))
            else:
                if member.node != node:
                    change.changed.append(member)
                    pool.stale = True  # type: ignore[union-attr]  # a member has a pool
                member.node = node
        if pool is not None and not pool.members:
            del self.pools[key]
            change.closed = True
        if change.joined or change.left or change.changed:
            self.on_change(change)

    def _join(self, pool: Pool, node: Node) -> Member:
        endpoint = self.endpoints.get(node.address)
        if endpoint is None:
            endpoint = self.endpoints[node.address] = Endpoint(node.address, *net.parse_node(node.address))
        member = pool.members[node.address] = Member(pool, endpoint, node)
        endpoint.members.add(member)
        pool.stale = True
        return member

    def _leave(self, member: Member) -> Member:
        endpoint = member.endpoint
        del member.pool.members[endpoint.address]
        member.pool.stale = True
        endpoint.members.discard(member)
        if not endpoint.members:
            # Requests in flight hold on to it; a node that comes back later starts from zero with a new one.
            del self.endpoints[endpoint.address]
            self.out.discard(endpoint)
        return member


class Feed:
    """One source's slice of the table, and the only thing a source gets to see of it. Keys are text.

    Verbs never block. What the caller passes must not be changed by it afterwards. A node whose address nobody could
    connect to is dropped, counted and logged; it costs neither the other nodes nor an exception.
    """

    def __init__(self, table: Table, source: str) -> None:
        self.source = source
        self.slices: dict[str, dict[str, Node]] = {}
        self.error: str | None = None  # why the source cannot see; None while it can
        self.key_errors: dict[str, str] = {}  # the same for single keys
        self.errors = 0
        self.rejected: Counter[str] = Counter()
        self.spoken = False  # has the source ever given all that it can see?
        self.progressed = 0  # verbs that brought news from the source; `supervise` watches it
        self._table = table

    def set(self, key: str, nodes: Iterable[Node]) -> None:
        """`nodes` are all that this source knows of `key`; none means that it has none for certain."""
        self.progress(key)
        self._store(key, nodes)

    def replace(self, pools: Mapping[str, Iterable[Node]]) -> None:
        """The same for every key at once: what is not named is gone. After it the source has spoken."""
        self.progress()
        self.key_errors.clear()
        for key in [key for key in self.slices if key not in pools]:
            self._store(key, ())
        for key, nodes in pools.items():
            self._store(key, nodes)
        if not self.spoken:
            self.spoken = True
            self._table.on_spoken(self)

    def announce(self, key: str, node: Node) -> None:
        """The node itself says that it is alive. The only verb that brings a refused endpoint back into turn."""
        self.progress(key)
        if not self._connectable(node):
            return
        self.slices.setdefault(key, {})[node.address] = node
        self._table._settle(key, (node.address,), self.source)
        endpoint = self._table.endpoints[node.address]
        if endpoint.state != LIVE:
            self._table.restore(endpoint)

    def withdraw(self, key: str, address: str) -> None:
        """This source no longer vouches for the node. Unknown ones are ignored."""
        self.progress(key)
        nodes = self.slices.get(key, {})
        if nodes.pop(address, None) is not None:
            if not nodes:
                del self.slices[key]
            self._table._settle(key, (address,), self.source)

    def fail(self, error: object, key: str | None = None) -> None:
        """The source cannot see (this key). Its nodes stay in service as they are."""
        self.errors += 1
        text = str(error) or type(error).__name__
        if key is None:
            self.error = text
        else:
            self.key_errors[key] = text

    def reject(self, reason: str, detail: str = "") -> None:
        """One malformed entry was dropped. Counted by `reason` (a few fixed words); logged ever more rarely."""
        self.rejected[reason] += 1
        count = self.rejected[reason]
        if count == 10 ** (len(str(count)) - 1):
            again = f" ({count} of this kind so far)" if count > 1 else ""
            log.warning("%s: dropped, %s%s%s", self.source, reason, detail and f": {detail}", again)

    def progress(self, key: str | None = None) -> None:
        """The source can see (this key). Every verb but `fail` and `reject` says so."""
        self.progressed += 1
        self.error = None
        if key is not None:
            self.key_errors.pop(key, None)

    def _connectable(self, node: Node) -> bool:
        if node.address in self._table.endpoints:
            return True
        try:
            net.parse_node(node.address)
        except net.AddressError as error:
            self.reject("bad node address", str(error))
            return False
        return True

    def _store(self, key: str, said: Iterable[Node]) -> None:
        nodes = {node.address: node for node in said if self._connectable(node)}
        before = self.slices.pop(key, {})
        if nodes:
            self.slices[key] = nodes
        # A dict and not a set keeps the order in which the source named them: the log reads the same each time.
        self._table._settle(key, dict.fromkeys([*before, *nodes]), self.source)
