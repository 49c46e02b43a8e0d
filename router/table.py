"""The one place where everything that is known about nodes comes together: slices by source, merged to key → pool.

Each source writes to its own `Feed`, and a feed holds what this source says: its slice. A pool is the union of the
slices. The same address from two sources is one member, described by the source that was given its feed first, and it
leaves when the last source lets go of it. A node whose address holds a host name stands for as many members as the name
has addresses; which ones those are, somebody else finds out (resolver.py) and says by `resolve`.

Nothing here does I/O, reads a clock or waits: under gevent each verb is atomic, so there are no locks. Whoever must act
on a change (log lines, the routers' copies, cheap mode) is told through the two callbacks.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import randrange

from router.address import AddressError, HostName, parse_node
from router.endpoint import LIVE, OUT, TRIAL, Endpoint
from router.node import Node
from router.pool import Member, Pool

log = logging.getLogger("gfrouter")

UNLIMITED = 2**63
MOST_NAMES = 1000  # host names in a table, as each is looked up again and again
MOST_ADDRESSES = 256  # of one name


@dataclass(slots=True)
class Name:
    """A host name that stands in nodes' addresses: the numeric addresses it has now, and the keys of those nodes."""

    addresses: tuple[str, ...] = ()
    keys: dict[str, None] = field(default_factory=dict)
    due: float = 0.0  # when it is to be looked up, in the resolver's monotonic seconds
    error: str = ""  # why the last lookup failed


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
    """Key → `Pool`, address → `Endpoint`, and the host names that stand for addresses.

    `on_change` hears of membership, `on_health` of endpoints' states, `on_name` of each new host name.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[Change], None] = lambda change: None,
        on_health: Callable[[Endpoint], None] = lambda endpoint: None,
        on_name: Callable[[str], None] = lambda address: None,
        randrange: Callable[[int], int] = randrange,
    ) -> None:
        self.pools: dict[str, Pool] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.out: set[Endpoint] = set()
        self.feeds: list[Feed] = []
        self.names: dict[str, Name] = {}  # by the announced address, `app.internal:3031`
        self.named: dict[str, dict[str, None]] = {}  # key → those of `names` that stand in its nodes
        self.on_change = on_change
        self.on_health = on_health
        self.on_name = on_name
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

    def resolve(self, name: str, addresses: Iterable[str]) -> None:
        """The node address `name` holds a host name that stands for these numeric ones now; for none, if empty."""
        known = self.names.get(name)
        if known is None:
            return
        before, known.addresses = known.addresses, tuple(dict.fromkeys(addresses))[:MOST_ADDRESSES]
        for key in list(known.keys):
            said_by = next(feed.source for feed in self.feeds if name in feed.slices.get(key, ()))
            self._settle(key, dict.fromkeys((*before, *known.addresses)), said_by)

    def targets(self, address: str) -> tuple[str, ...]:
        """The numeric addresses that an announced one stands for."""
        known = self.names.get(address)
        return (address,) if known is None else known.addresses

    def _settle_said(self, key: str, addresses: Iterable[str], source: str) -> None:
        """As `_settle`, of addresses as sources say them."""
        targets: dict[str, None] = {}
        for address in addresses:
            targets.update(dict.fromkeys(self._follow(key, address)))
        self._settle(key, targets, source)

    def _follow(self, key: str, address: str) -> tuple[str, ...]:
        """What `address` stands for; if it holds a host name, its use by `key` begins or ends here."""
        if address in self.endpoints or not (address in self.names or isinstance(parse_node(address), HostName)):
            return (address,)
        name = self.names.setdefault(address, Name())
        if any(address in feed.slices.get(key, ()) for feed in self.feeds):
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
        return name.addresses

    def _described(self, key: str, address: str) -> Node | None:
        """The node at this numeric address, as the first source that knows it for `key` says; None for nobody."""
        names = self.named.get(key, ())
        for feed in self.feeds:
            said = feed.slices.get(key)
            if not said:
                continue
            if address in said:
                return said[address]
            for name in names:
                if name in said and address in self.names[name].addresses:
                    return replace(said[name], address=address, host=name)
        return None

    def _settle(self, key: str, addresses: Iterable[str], source: str) -> None:
        """Bring the members of `key` at these numeric addresses in line with what the slices say now."""
        change = Change(key, source)
        pool = self.pools.get(key)
        for address in addresses:
            node = self._described(key, address)
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
            target = parse_node(node.address)
            assert not isinstance(target, HostName)  # a member's address is one that a name stands for
            endpoint = self.endpoints[node.address] = Endpoint(node.address, target.family, target.sockaddr)
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
    connect to, or one too many, is dropped, counted and logged; it costs neither the other nodes nor an exception.
    """

    def __init__(self, table: Table, source: str, max_keys: int, max_nodes: int) -> None:
        self.source = source
        self.max_keys = max_keys
        self.max_nodes = max_nodes
        self.slices: dict[str, dict[str, Node]] = {}
        self.size = 0  # nodes in all slices
        self.error: str | None = None  # why the source cannot see; None while it can
        self.key_errors: dict[str, str] = {}  # the same for single keys
        self.errors = 0
        self.rejected: Counter[str] = Counter()
        self.progressed = 0  # verbs that brought news from the source; `supervise` watches it
        self._table = table

    def set(self, key: str, nodes: Iterable[Node]) -> None:
        """`nodes` are all that this source knows of `key`; none means that it has none for certain."""
        self.progress(key)
        self._store(key, nodes)

    def replace(self, pools: Mapping[str, Iterable[Node]]) -> None:
        """The same for every key at once: what is not named is gone."""
        self.progress()
        self.key_errors.clear()
        for key in [key for key in self.slices if key not in pools]:
            self._store(key, ())
        for key, nodes in pools.items():
            self._store(key, nodes)

    def announce(self, key: str, node: Node) -> bool:
        """The node itself says that it is alive. The only verb that brings a refused endpoint back into turn.

        False where the node was dropped.
        """
        self.progress(key)
        said = self.slices.get(key, {})
        if node.address not in said:
            if not self._admits(key, node.address, said):
                return False
            self.slices[key] = said
            self.size += 1
        said[node.address] = node
        self._table._settle_said(key, (node.address,), self.source)
        for address in self._table.targets(node.address):
            endpoint = self._table.endpoints[address]
            if endpoint.state != LIVE:
                self._table.restore(endpoint)
        return True

    def withdraw(self, key: str, address: str) -> None:
        """This source no longer vouches for the node. Unknown ones are ignored."""
        self.progress(key)
        nodes = self.slices.get(key, {})
        if nodes.pop(address, None) is not None:
            self.size -= 1
            if not nodes:
                del self.slices[key]
            self._table._settle_said(key, (address,), self.source)

    def fail(self, error: object, key: str | None = None) -> None:
        """The source cannot see (this key). Its nodes stay in service as they are."""
        self.errors += 1
        text = str(error) or type(error).__name__
        if key is None:
            self.error = text
        else:
            self.key_errors[key] = text

    def reject(self, reason: str, detail: str = "", times: int = 1) -> None:
        """Entries that were malformed, or too many, were dropped. Counted by `reason`, a few fixed words; logged ever
        more rarely.
        """
        before = self.rejected[reason]
        self.rejected[reason] = count = before + times
        if not before or len(str(count)) > len(str(before)):  # the first one, then whenever there is a digit more
            again = f" ({count} of this kind so far)" if count > 1 else ""
            log.warning("%s: dropped, %s%s%s", self.source, reason, detail and f": {detail}", again)

    def progress(self, key: str | None = None) -> None:
        """The source can see (this key). Every verb but `fail` and `reject` says so."""
        self.progressed += 1
        self.error = None
        if key is not None:
            self.key_errors.pop(key, None)

    def _admits(self, key: str, address: str, said: Mapping[str, Node]) -> bool:
        """Whether `key`, of which `said` is kept so far, may have a node at `address`."""
        table = self._table
        if not said and key not in self.slices and len(self.slices) >= self.max_keys:
            self.reject("too many keys", f"{self.max_keys} are kept, and {key!r} would be one more")
        elif self.size + len(said) - len(self.slices.get(key, ())) >= self.max_nodes:
            self.reject("too many nodes", f"{self.max_nodes} are kept, and {address!r} would be one more")
        elif address in table.endpoints or address in table.names:
            return True
        else:
            try:
                if not isinstance(parse_node(address), HostName):
                    return True
                if len(table.names) < MOST_NAMES:
                    table.names[address] = Name()  # now, as one verb may bring many; it is used as soon as they are in
                    return True
                self.reject("too many host names", f"{MOST_NAMES} are kept, and {address!r} would be one more")
            except AddressError as error:
                self.reject("bad node address", str(error))
        return False

    def _store(self, key: str, nodes: Iterable[Node]) -> None:
        said: dict[str, Node] = {}
        for node in list(nodes):  # a source that breaks off in between must leave nothing behind
            if node.address in said or self._admits(key, node.address, said):
                said[node.address] = node
        before = self.slices.pop(key, {})
        self.size += len(said) - len(before)
        if said:
            self.slices[key] = said
        # A dict and not a set keeps the order in which the source named them: the log reads the same each time.
        self._table._settle_said(key, dict.fromkeys([*before, *said]), self.source)
