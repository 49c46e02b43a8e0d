"""Who says what: the sources that know a key and its nodes. For the stats and the admin API."""

from __future__ import annotations

from collections.abc import Callable

from router.node import Node
from router.table import Table

Said = list[tuple[str, dict[str, Node]]]


def said(table: Table, key: str) -> Said:
    """(source, what it says of this key) for each that says anything; the first to know a node describes it.

    By address as said, and for a host name by each of those that it stands for as well.
    """
    names = {name: table.names[name].addresses for name in table.named.get(key, ())}
    found = []
    for feed in table.feeds:
        if nodes := feed.shown.get(key):
            for name, addresses in names.items():
                if name in nodes:
                    nodes = {**dict.fromkeys(addresses, nodes[name]), **nodes}
            found.append((feed.source, nodes))
    return found


def sayers(words: Said, address: str) -> list[str]:
    """The sources that know the node at this address, in their order; there is one at least."""
    return [name for name, nodes in words if address in nodes]


def sayers_of(words: Said) -> Callable[[str], list[str]]:
    """`sayers` for one address after the other; of most keys one source knows all, and its list is made once."""
    if len(words) == 1:
        alone = [words[0][0]]
        return lambda address: alone
    return lambda address: sayers(words, address)
