"""The one place where everything that is known about nodes comes together: slices by source, merged to key → pool.

Each source writes to its own `Feed`, and a feed holds what this source says: its slice. A pool is the union of the
slices. The same address from two sources is one member, described by the source that was given its feed first, and it
leaves when the last source lets go of it. A node whose address holds a host name stands for as many members as the name
has addresses; which ones those are, somebody else finds out (resolver.py) and says by `resolve`.

Nothing here does I/O, reads a clock or waits: under gevent each verb is atomic, so there are no locks. Whoever must act
on a change (log lines, the routers' copies, cheap mode) is told through the callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from random import randrange

from router import algorithmname
from router.address import HostName, Inet, Unix, parse_node
from router.endpoint import LIVE, OUT, TRIAL, Cause, Endpoint
from router.feed import Feed
from router.node import Node
from router.pool import Member, Pool

UNLIMITED = 2**63
MOST_ADDRESSES = 16  # of one host name
MOST_NAMED = 20_000  # members by host names: each node may be as many as its name has addresses

Drained = tuple[Collection[str], Collection[str]]  # addresses, keys


@dataclass(slots=True)
class Name:
    """A host name that stands in nodes' addresses: the numeric addresses it has now, and the keys of those nodes."""

    addresses: tuple[str, ...] = ()
    keys: dict[str, None] = field(default_factory=dict)
    due: float = 0.0  # when it is to be looked up, in the resolver's monotonic seconds
    error: str = ""  # why the last lookup failed


@dataclass(slots=True)
class Change:
    """What one verb changed in one pool; `changed` members are the ones that are described anew. `loads` are those that
    say more or less of their load, where the pool's algorithm steers by that.
    """

    key: str
    source: str
    name: str = ""  # the address with a host name that stands for others now; "" where a source has spoken
    opened: bool = False
    closed: bool = False
    joined: list[Member] = field(default_factory=list)
    left: list[Member] = field(default_factory=list)
    changed: list[Member] = field(default_factory=list)
    loads: list[Member] = field(default_factory=list)

    @property
    def only_loads(self) -> bool:
        return bool(self.loads) and not (self.joined or self.left or self.changed)


class Table:
    """Key → `Pool`, address → `Endpoint`, and the host names that stand for addresses.

    `on_change` hears of membership, `on_health` of endpoints' states, `on_drain` of what is drained, `on_name` of each
    new host name, `on_spoken` of each source that has given all that it can see, for the first time, `on_answer` of
    each key of which a feed has said all that it knows, or that it cannot tell. `is_own` says of a numeric address
    whether the router itself listens there: a node there would send each request round and round. `algorithm` is
    that of pools whose first node names none, `limit` is the pools' (pool.py).
    """

    def __init__(
        self,
        *,
        on_change: Callable[[Change], None] = lambda change: None,
        on_health: Callable[[Endpoint], None] = lambda endpoint: None,
        on_drain: Callable[[], None] = lambda: None,
        on_name: Callable[[str], None] = lambda address: None,
        on_spoken: Callable[[Feed], None] = lambda feed: None,
        on_answer: Callable[[Feed, str], None] = lambda feed, key: None,
        is_own: Callable[[str], bool] = lambda address: False,
        algorithm: str = algorithmname.DEFAULT,
        limit: int = 0,
        randrange: Callable[[int], int] = randrange,
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.out: set[Endpoint] = set()
        self.drained: Drained = ((), ())  # as it was said
        self.drained_addresses: frozenset[str] = frozenset()  # with those that a host name among them stands for
        self.feeds: list[Feed] = []
        self.names: dict[str, Name] = {}  # by the announced address, `app.internal:3031`
        self.named: dict[str, dict[str, None]] = {}  # key → those of `names` that stand in its nodes
        self.named_members = 0
        self.admitted: dict[str, Inet | Unix] = {}  # the new addresses of the verb at hand, as they were parsed
        self.on_change = on_change
        self.on_health = on_health
        self.on_drain = on_drain
        self.on_name = on_name
        self.on_spoken = on_spoken
        self.on_answer = on_answer
        self.is_own = is_own
        self.algorithm = algorithm
        self.limit = limit
        self.randrange = randrange

    def feed(self, source: str, max_keys: int = UNLIMITED, max_nodes: int = UNLIMITED) -> Feed:
        """A slice for one more source. Those that come earlier describe the nodes that they share with later ones."""
        feed = Feed(self, source, max_keys, max_nodes)
        self.feeds.append(feed)
        return feed

    def nodes(self, key: str) -> list[Node]:
        """What is known of `key`, as another table's `Feed.set` takes it."""
        pool = self.pools.get(key)
        return [member.node for member in pool.members.values()] if pool else []

    @property
    def empty(self) -> bool:
        """True where no node can be asked: none is known, or all have failed for good."""
        return len(self.endpoints) == len(self.out) and all(endpoint.lost for endpoint in self.out)

    # Health. The only way for an endpoint to change its state, except that the balancer takes one on trial.

    def fail(
        self,
        endpoint: Endpoint,
        out_until: float,
        cause: Cause = Cause.REFUSED,
        times: int = 1,
        *,
        firm: bool = False,
    ) -> None:
        """`endpoint` failed, the `times`-th time in a row: out of turn until `out_until` (monotonic seconds), then on
        trial. Where it is out for a stronger cause, that stays, unless this is `firm`.
        """
        if cause == Cause.EJECTED:
            endpoint.ejected_until = out_until
        if endpoint.state == OUT and endpoint.cause > cause and not firm:
            return
        news = endpoint.state == OUT and (endpoint.cause, endpoint.times) != (cause, times)
        endpoint.out_until, endpoint.cause, endpoint.times = out_until, cause, times
        if news:
            self._tell(endpoint)
        else:
            self._turn(endpoint, OUT)

    def restore(self, endpoint: Endpoint, cure: Cause = Cause.CHECK) -> None:
        """`endpoint` works; if it is out for a stronger cause than `cure`, that does not show it."""
        if endpoint.cause <= cure and endpoint.state != LIVE:
            endpoint.broken = 0
            self._turn(endpoint, LIVE)

    def release_trial(self, endpoint: Endpoint) -> None:
        """The request that tried `endpoint` went away before there was a result: the next one may try."""
        self._turn(endpoint, TRIAL)

    def begin_trials(self, now: float) -> None:
        """Put those whose time is up on trial; `now` in monotonic seconds."""
        for endpoint in [endpoint for endpoint in self.out if endpoint.out_until <= now]:
            self._turn(endpoint, TRIAL)

    def begin_trial(self, endpoint: Endpoint) -> None:
        """Put this one on trial, if it is out, whether its time is up or not."""
        if endpoint.state == OUT:
            self._turn(endpoint, TRIAL)

    def _turn(self, endpoint: Endpoint, state: int) -> None:
        if endpoint.state == state:
            return
        endpoint.state = state
        endpoint.trier = None
        if endpoint.members:
            (self.out.add if state == OUT else self.out.discard)(endpoint)
            self._tell(endpoint)

    def _tell(self, endpoint: Endpoint) -> None:
        for member in endpoint.members:
            member.pool.stale = True
        if endpoint.members:
            self.on_health(endpoint)

    def drain(self, drained: Drained) -> None:
        """From now on these endpoints and keys, known or not, get no new requests, and all others do.

        The address with a host name means all that the name stands for, now and later.
        """
        before, (addresses, keys) = self.drained[1], drained
        self.drained = dict.fromkeys(addresses), dict.fromkeys(keys)
        for key in {*before, *keys}:
            if pool := self.pools.get(key):
                pool.drained = key in self.drained[1]
                pool.stale = True
        self._mark_drained()

    def _mark_drained(self) -> None:
        """Bring the endpoints in line with what is drained and what names stand for."""
        before = self.drained_addresses
        self.drained_addresses = frozenset(target for said in self.drained[0] for target in self.targets(said))
        for address in before ^ self.drained_addresses:
            if endpoint := self.endpoints.get(address):
                endpoint.drained = address in self.drained_addresses
                for member in endpoint.members:
                    member.pool.stale = True
        self.on_drain()

    # Merging.

    def resolve(self, name: str, addresses: Iterable[str]) -> None:
        """The node address `name` holds a host name that stands for these numeric ones now; for none, if empty."""
        known = self.names.get(name)
        if known is None:
            return
        others = [address for address in dict.fromkeys(addresses) if not self.is_own(address)]
        before, known.addresses = known.addresses, tuple(others[:MOST_ADDRESSES])
        if name in self.drained[0]:  # before the new ones turn up
            self._mark_drained()
        for key in list(known.keys):
            said_by = next(feed.source for feed in self.feeds if name in feed.shown.get(key, ()))
            self._merge(Change(key, said_by, name), dict.fromkeys((*before, *known.addresses)))

    def expect_name(self, address: str) -> None:
        """A feed is about to say something of this address with a host name, which nobody has said before."""
        self.names[address] = Name()

    def targets(self, address: str) -> tuple[str, ...]:
        """The numeric addresses that an announced one stands for."""
        known = self.names.get(address)
        return (address,) if known is None else known.addresses

    def settle(self, key: str, addresses: Iterable[str], source: str) -> None:
        """Feeds say something new of these addresses, in the sources' words: bring the members of `key` in line."""
        targets: dict[str, None] = {}
        for address in addresses:
            if address in self.names:  # a feed has said by `expect_name` that it is one
                targets.update(dict.fromkeys(self._follow(key, address)))
            else:
                targets[address] = None
        self._merge(Change(key, source), targets)
        self.admitted.clear()

    def _follow(self, key: str, address: str) -> tuple[str, ...]:
        """What this host name's address stands for; its use by `key` begins or ends here."""
        name = self.names[address]
        if any(address in feed.shown.get(key, ()) for feed in self.feeds):
            if not name.keys:
                self.on_name(address)
            name.keys[key] = None
            self.named.setdefault(key, {})[address] = None
        else:
            name.keys.pop(key, None)
            names = self.named.get(key, {})
            names.pop(address, None)
            if not names:
                self.named.pop(key, None)
            if not name.keys:
                del self.names[address]
                if address in self.drained[0]:
                    self._mark_drained()
        return name.addresses

    def _described(self, key: str, address: str) -> Node | None:
        """The node at this numeric address, as the first source that knows it for `key` says; None for nobody."""
        names = self.named.get(key, ())
        for feed in self.feeds:
            said = feed.shown.get(key)
            if not said:
                continue
            if address in said:
                return said[address]
            for name in names:
                if name in said and address in self.names[name].addresses:
                    return replace(said[name], address=address, host=name)
        return None

    def _merge(self, change: Change, addresses: Iterable[str]) -> None:
        """Bring the members of a key at these numeric addresses in line with what the slices say now."""
        key = change.key
        pool = self.pools.get(key)
        for address in addresses:
            node = self._described(key, address)
            member = pool.members.get(address) if pool else None
            if node is None:
                if member is not None:
                    change.left.append(self._leave(member))
            elif member is None:
                if node.host and self.named_members >= MOST_NAMED:
                    self.names[node.host].error = f"{MOST_NAMED} nodes are there by host names, and this is one more"
                    continue  # the next lookup may find room
                if pool is None:
                    pool = self.pools[key] = Pool(key, self._algorithm(node, change), self.randrange, self.limit)
                    pool.drained = key in self.drained[1]
                    change.opened = True
                change.joined.append(self._join(pool, node))
            else:
                if member.node != node:
                    change.changed.append(member)
                    pool.stale = True  # type: ignore[union-attr]  # a member has a pool
                elif (node.load, node.cores) != (member.node.load, member.node.cores):
                    self._note_load(change, member)
                self.named_members += bool(node.host) - bool(member.node.host)
                member.node = node
        if pool is not None and not pool.members:
            del self.pools[key]
            change.closed = True
        if change.joined or change.left or change.changed or change.loads:
            self.on_change(change)

    def _algorithm(self, node: Node, change: Change) -> str:
        """That of a pool which this node opens. A name that nobody knows costs the node nothing."""
        if not node.algorithm:
            return self.algorithm
        if algorithmname.is_algorithm(node.algorithm):
            return node.algorithm
        said_by = next(feed for feed in self.feeds if feed.source == change.source)
        detail = (
            f"{node.algorithm!r}, said for {change.key!r} (legal: {algorithmname.LEGAL}), which has {self.algorithm}"
        )
        said_by.reject("unknown algorithm", detail)
        return self.algorithm

    def _note_load(self, change: Change, member: Member) -> None:
        """The member says something new of its load, which its pool may want to know."""
        pool = member.pool
        if pool.algorithm == algorithmname.LOAD:
            change.loads.append(member)
            if pool.order is not None:
                pool.order.changed[member] = None

    def _join(self, pool: Pool, node: Node) -> Member:
        endpoint = self.endpoints.get(node.address)
        if endpoint is None:
            target = self.admitted.get(node.address) or parse_node(node.address)
            assert not isinstance(target, HostName)  # a member's address is one that a name stands for
            endpoint = self.endpoints[node.address] = Endpoint(node.address, target.family, target.sockaddr)
            endpoint.drained = node.address in self.drained_addresses
        member = pool.members[node.address] = Member(pool, endpoint, node)
        endpoint.members.add(member)
        self.named_members += bool(node.host)
        pool.stale = True
        return member

    def _leave(self, member: Member) -> Member:
        endpoint = member.endpoint
        del member.pool.members[endpoint.address]
        member.pool.stale = True
        endpoint.members.discard(member)
        self.named_members -= bool(member.node.host)
        if not endpoint.members:
            # Requests in flight hold on to it; a node that comes back later starts from zero with a new one.
            del self.endpoints[endpoint.address]
            self.out.discard(endpoint)
        return member
