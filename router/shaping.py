"""A feed whose source's URL says how to treat what it says: keys rewritten, removals held back, the stale hidden.

`slices` stay the source's own word, so limits are counted and sources read them as ever; `shown` is made from them, and
is what the table merges. A verb notes the places that it has touched (a place is a key as shown and an address), and
when it is done each of them is judged once, by all that is said then.

Invariants: a place is shown if it is said by a key that is not hidden, or if it is held back. What is held back is said
no more; it is `max_nodes` places at most, and none while the source says `min_nodes` nodes or more. What is hidden is
shown again as soon as the source can see again. A source without these settings has a plain feed and pays for none of
this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

from router.address import HostName, parse_node
from router.feed import NOTHING, Feed
from router.node import Node
from router.table import Table

Place = tuple[str, str]  # a key as shown, and an address

log = logging.getLogger("gfrouter")


class ShapedFeed(Feed):
    """A feed with `rewrite` from the source's keys to ours, and with limits to what the source may take away.

    `min_nodes`: removals that leave the source with fewer wait until it says as many again; 0 is off. `max_stale`:
    seconds after which a source (or a key) that cannot be seen is hidden; 0 is never. Somebody calls `age` each second.
    """

    def __init__(
        self,
        table: Table,
        source: str,
        max_keys: int,
        max_nodes: int,
        *,
        rewrite: Callable[[str], str] | None = None,
        min_nodes: int = 0,
        max_stale: float = 0,
    ) -> None:
        super().__init__(table, source, max_keys, max_nodes)
        self.shown = {}
        self.held: dict[Place, None] = {}
        self.hidden = False  # all that it has said
        self.hidden_keys: dict[str, None] = {}  # the source's keys
        self._rewrite = rewrite
        self._min_nodes = min_nodes
        self._max_stale = max_stale
        self._sayers: dict[Place, dict[str, None]] = {}  # the source's keys for a place, where keys are rewritten
        self._touched: dict[str, dict[str, None]] = {}  # the source's key → addresses
        self._open = False  # inside a verb
        self._blind_since: float | None = None
        self._keys_blind_since: dict[str, float] = {}

    # The verbs, each judged as a whole.

    def _take(self, key: str, nodes: Iterable[Node]) -> None:  # of `set`
        with self._verb():
            super()._take(key, nodes)

    def replace(self, pools: Mapping[str, Iterable[Node]]) -> None:
        with self._verb():
            for key in self.hidden_keys:
                self._touch(key)
            self.hidden_keys.clear()
            self._keys_blind_since.clear()
            super().replace(pools)

    def announce(self, key: str, node: Node) -> bool:
        with self._verb():
            return super().announce(key, node)

    def withdraw(self, key: str, address: str) -> None:
        with self._verb():
            super().withdraw(key, address)

    def progress(self, key: str | None = None) -> None:
        with self._verb():
            super().progress(key)
            self._blind_since = None
            if self.hidden:
                log.warning("%s: can see again: its %d nodes are back", self.source, self.size)
                self.hidden = False
                for each in self.slices:
                    self._touch(each)
            if key is not None:
                self._keys_blind_since.pop(key, None)
                if key in self.hidden_keys:
                    del self.hidden_keys[key]
                    self._touch(key)

    def remembered(self) -> Mapping[str, Mapping[str, Node]]:
        """What is hidden is not served at the next start either; what is held back is."""
        pools = {key: visible for key in self.slices if (visible := self._visible(key))}
        if not self._rewrite:  # else nobody knows by which key the source had said it
            for key, address in self.held:
                pools[key] = {**pools.get(key, NOTHING), address: self.shown[key][address]}
        return pools

    def recall(self, pools: Mapping[str, Iterable[Node]], since: float) -> None:
        with self._verb():
            super().recall(pools, since)

    @contextmanager
    def _verb(self) -> Iterator[None]:
        outermost, self._open = not self._open, True
        try:
            yield
        finally:
            if outermost:
                self._open = False
                self._judge(hold=self.size < self._min_nodes)

    # What grows stale.

    def age(self, now: float) -> None:
        """It is `now`, in seconds that this process was running: hide what could not be seen for too long."""
        if not self._max_stale:
            return
        if self.error is None:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = now
        elif now - self._blind_since >= self._max_stale and not self.hidden:
            self._hide()
        for key in self._keys_blind_since.keys() - self.key_errors.keys():
            del self._keys_blind_since[key]
        for key in self.key_errors:
            if now - self._keys_blind_since.setdefault(key, now) >= self._max_stale and key not in self.hidden_keys:
                self._hide_key(key)

    def _hide(self) -> None:
        if self.slices or self.held:
            text = "%s: could not see for %d s (%s): its %d nodes are taken out"
            log.warning(text, self.source, self._max_stale, self.error, self.size)
        for key in self.slices:
            self._touch(key)
        self.hidden = True
        held, self.held = self.held, {}
        self._judge(hold=False, gone=held)

    def _hide_key(self, key: str) -> None:
        shown = self._shown_key(key)
        held = [place for place in self.held if place[0] == shown]
        if key not in self.slices and not held:
            return
        text = "%s: could not see %r for %d s (%s): its %d nodes are taken out"
        count = len(self.slices.get(key, ()))
        log.warning(text, self.source, key, self._max_stale, self.key_errors[key], count)
        self._touch(key)
        self.hidden_keys[key] = None
        for place in held:
            del self.held[place]
        self._judge(hold=False, gone=held)

    # From what is said to what is shown.

    def _settle(self, key: str, addresses: Iterable[str]) -> None:
        self._touched.setdefault(key, {}).update(dict.fromkeys(addresses))

    def _touch(self, key: str) -> None:
        self._settle(key, self.slices.get(key, ()))

    def _judge(self, hold: bool, gone: Iterable[Place] = ()) -> None:
        """Show what is said at the places that were touched; `gone` ones are held back no more."""
        touched, self._touched = self._touched, {}
        places: dict[Place, None] = dict.fromkeys(gone)
        for key, addresses in touched.items():
            shown = self._shown_key(key)
            for address in addresses:
                places[shown, address] = None
                if self._rewrite:
                    self._note_sayer((shown, address), key)
        held = len(self.held)
        if not hold:
            places |= self.held
        joined: dict[str, list[str]] = {}
        left: dict[str, list[str]] = {}
        for place in places:
            side = joined if self._show(place, hold) else left
            side.setdefault(place[0], []).append(place[1])
        if self.held and not hold:
            text = "%s: says %d nodes again: %d that were held back are gone"
            log.warning(text, self.source, self.size, len(self.held))
            self.held.clear()
        if self.held and not held:
            text = "%s: says %d nodes, which is below min-nodes=%d: %d that are gone are held back"
            log.warning(text, self.source, self.size, self._min_nodes, len(self.held))
        # A host name that moves from one key to another must not be forgotten in between.
        for key, changed in chain(joined.items(), left.items()):
            self._table.settle(key, changed, self.source)

    def _show(self, place: Place, hold: bool) -> bool:
        """Bring `shown` in line with what is said at this place; True if there is a node then."""
        key, address = place
        node = self._said(place)
        if node is not None:
            if address not in self.shown.get(key, ()):
                self._expect(address)
            self.shown.setdefault(key, {})[address] = node
            self.held.pop(place, None)
        elif address in self.shown.get(key, ()):
            if hold and (place in self.held or len(self.held) < self.max_nodes):
                self.held[place] = None
                return True
            del self.shown[key][address]
            if not self.shown[key]:
                del self.shown[key]
        return node is not None

    def _expect(self, address: str) -> None:
        """The address is shown, maybe once more: the table may have forgotten meanwhile that it holds a host name."""
        table = self._table
        if address not in table.names and isinstance(parse_node(address), HostName):
            table.expect_name(address)

    def _said(self, place: Place) -> Node | None:
        """The node that is said to be there, by the key that has said so first; None where none is to be seen."""
        key: str | None = place[0]
        if self._rewrite:
            key = next(iter(self._sayers.get(place, ())), None)
        return None if key is None else self._visible(key).get(place[1])

    def _note_sayer(self, place: Place, key: str) -> None:
        if place[1] in self._visible(key):
            self._sayers.setdefault(place, {})[key] = None
        elif sayers := self._sayers.get(place):
            sayers.pop(key, None)
            if not sayers:
                del self._sayers[place]

    def _visible(self, key: str) -> Mapping[str, Node]:
        return NOTHING if self.hidden or key in self.hidden_keys else self.slices.get(key, NOTHING)

    def _shown_key(self, key: str) -> str:
        return self._rewrite(key) if self._rewrite else key
