"""One source's slice of the table, and the only thing that a source gets to see of it.

A feed holds what its source says, by key and by address as said; the table (table.py) merges all feeds. Its limits are
its own, so a source that says too much hurts no other. No verb does I/O, or raises for what a source says; `wanted`
alone waits.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from router.address import AddressError, HostName, parse_node
from router.asked import Asked
from router.endpoint import LIVE, Cause
from router.node import Node
from router.uwsgi import printable

if TYPE_CHECKING:
    from router.table import Table

log = logging.getLogger("gfrouter")

NOTHING: dict[str, Node] = {}
MOST_FAILING = 10_000  # keys that have no nodes, of which it is known that they could not be seen: clients invent keys
MOST_NAMES = 1000  # host names in a table, as each is looked up again and again


class Feed:
    """A slice of `table`. Keys are text.

    No verb but `wanted` blocks. What the caller passes must not be changed by it afterwards. A node whose address
    nobody could connect to, or whose key is no text, or one too many, is dropped, counted and logged; it costs neither
    the other nodes nor an exception.
    """

    def __init__(self, table: Table, source: str, max_keys: int, max_nodes: int) -> None:
        self.source = source
        self.max_keys = max_keys
        self.max_nodes = max_nodes
        self.slices: dict[str, dict[str, Node]] = {}  # as the source says them
        self.shown = self.slices  # what the table merges; a shaped feed (shaping.py) shows something else
        self.size = 0  # nodes in all slices
        self.error: str | None = None  # why the source cannot see; None while it can
        self.complained = False  # whether the log has it that the source cannot see, and not that it can again
        self.key_errors: dict[str, str] = {}  # the same for single keys
        self.errors = 0
        self.last_error = ""  # the latest of all, whatever has become of it
        self.rejected: Counter[str] = Counter()
        self.spoken = False  # has the source ever given all that it can see?
        self.stale_since: float | None = None  # unix seconds of what was recalled; None once the source has spoken
        self.asked = Asked()
        self.progressed = 0  # verbs that brought news from the source; `supervise` watches it
        self._table = table

    def set(self, key: str, nodes: Iterable[Node]) -> None:
        """`nodes` are all that this source knows of `key`; none means that it has none for certain."""
        self._take(key, nodes)
        self._table.on_answer(self, key)  # when the table has them: an answer without a node ends the wait for one

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
        self._settle(key, (node.address,))
        targets = self._table.targets(node.address)
        if len(targets) == 1:  # of a name with several addresses nobody knows which one has spoken
            endpoint = self._table.endpoints.get(targets[0])
            if endpoint is not None and endpoint.state != LIVE:
                self._table.restore(endpoint, Cause.REFUSED)
        return True

    def describe(self, key: str, node: Node) -> None:
        """A node that is known is described anew; that is no sign of life."""
        self.slices[key][node.address] = node
        self._settle(key, (node.address,))

    def withdraw(self, key: str, address: str) -> None:
        """This source no longer vouches for the node. Unknown ones are ignored."""
        self.progress(key)
        nodes = self.slices.get(key, {})
        if nodes.pop(address, None) is not None:
            self.size -= 1
            if not nodes:
                del self.slices[key]
            self._settle(key, (address,))

    def fail(self, error: object, key: str | None = None) -> None:
        """The source cannot see (this key). Its nodes stay in service as they are."""
        self.errors += 1
        self.last_error = text = printable(str(error)) or type(error).__name__
        if key is None:
            self.error = text
        else:
            self.key_errors[key] = text
            if len(self.key_errors) > len(self.slices) + MOST_FAILING:  # so many have no nodes: one is easily found
                del self.key_errors[next(each for each in self.key_errors if each not in self.slices)]
            self._table.on_answer(self, key)

    def wanted(self, timeout: float | None = None) -> str | None:
        """The next key that a client asked for and nobody knows. Waits; None if there is none within `timeout` seconds.

        For a source that says `on_demand`. Each key comes once a question, which ends some seconds later by itself; the
        answer is `set` (no nodes: there is no such key) or `fail`, with the key as it came from here.
        """
        return self.asked.take(timeout)

    def reject(self, reason: str, detail: str = "", times: int = 1) -> None:
        """Entries that were malformed, or too many, were dropped. Counted by `reason`, a few fixed words; logged ever
        more rarely.
        """
        before = self.rejected[reason]
        self.rejected[reason] = count = before + times
        if not before or len(str(count)) > len(str(before)):  # the first one, then whenever there is a digit more
            again = f" ({count} of this kind so far)" if count > 1 else ""
            log.warning("%s: dropped, %s%s%s", self.source, reason, detail and f": {printable(detail)}", again)

    def progress(self, key: str | None = None) -> None:
        """The source can see (this key). Every verb but `fail` and `reject` says so."""
        self.progressed += 1
        self.error = None
        self.stale_since = None
        if self.complained:
            self.complained = False
            log.info("%s: can see again", self.source)
        if key is not None:
            self.key_errors.pop(key, None)

    # From one start to the next; not for sources.

    def remembered(self) -> Mapping[str, Mapping[str, Node]]:
        """What `recall` should get at the next start."""
        return self.slices

    def recall(self, pools: Mapping[str, Iterable[Node]], since: float) -> None:
        """The source said this before this start, and was heard last at `since` (unix seconds): it is served, and
        stale until the source speaks.
        """
        for key, nodes in pools.items():
            self._store(key, nodes)
        if self.slices:
            self.stale_since = since

    def _admits(self, key: str, address: str, said: Mapping[str, Node]) -> bool:
        """Whether `key`, of which `said` is kept so far, may have a node at `address`."""
        table = self._table
        if not said and key not in self.slices and not self._admits_key(key):
            return False
        if self.size + len(said) - len(self.slices.get(key, ())) >= self.max_nodes:
            self.reject("too many nodes", f"{self.max_nodes} are kept, and {address!r} would be one more")
        else:
            return address in table.endpoints or address in table.names or self._admits_address(address)
        return False

    def _admits_key(self, key: str) -> bool:
        """The same of a key that is new to this feed."""
        if len(self.slices) >= self.max_keys:
            self.reject("too many keys", f"{self.max_keys} are kept, and {key!r} would be one more")
            return False
        try:
            key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # as a JSON text may be; no request can have it, and no reader of the stats
            self.reject("bad key", f"{key!r} is no text")
            return False
        return True

    def _admits_address(self, address: str) -> bool:
        """The same of an address that is new to the table."""
        table = self._table
        try:
            target = parse_node(address)
        except AddressError as error:
            self.reject("bad node address", str(error))
            return False
        if not isinstance(target, HostName):
            if table.is_own(address):
                self.reject("own address", f"{address!r} is where the router itself listens")
                return False
            table.admitted[address] = target
        elif len(table.names) >= MOST_NAMES:
            self.reject("too many host names", f"{MOST_NAMES} are kept, and {address!r} would be one more")
            return False
        else:
            table.expect_name(address)  # now, as one verb may bring many; it is used as soon as they are in
        return True

    def _take(self, key: str, nodes: Iterable[Node]) -> None:
        self.progress(key)
        self._store(key, nodes)

    def _store(self, key: str, nodes: Iterable[Node]) -> None:
        before = self.slices.get(key, NOTHING)
        nodes = list(nodes)  # a source that breaks off in between must leave nothing behind
        said = {node.address: node for node in nodes}
        if not said.keys() <= before.keys():  # otherwise all are known, and there is room for them
            said = {}
            for node in nodes:
                if node.address in said or self._admits(key, node.address, said):
                    said[node.address] = node
        # A list keeps the order in which the source named them: the log reads the same each time.
        news = [address for address in before if address not in said]
        news += [address for address, node in said.items() if not same(node, before.get(address))]
        self.size += len(said) - len(before)
        if said:
            self.slices[key] = said
        else:
            self.slices.pop(key, None)
        if news:
            self._settle(key, news)

    def _settle(self, key: str, addresses: Iterable[str]) -> None:
        """The slice of `key` has been changed at these addresses."""
        self._table.settle(key, addresses, self.source)


def same(one: Node, other: Node | None) -> bool:
    """Equal in every field, those that take no part in `==` as well."""
    return one is other or (
        one == other
        and other is not None
        and one.last_check == other.last_check
        and one.load == other.load
        and one.cores == other.cores
    )
