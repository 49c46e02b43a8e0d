"""Who says what: how each source is doing, and what the sources say of one key. For the stats and the admin API."""

from __future__ import annotations

from typing import Any

from router.feed import Feed
from router.node import Node
from router.table import Table

Said = list[tuple[str, dict[str, Node]]]


def source(feed: Feed) -> dict[str, Any]:
    """How one source is doing. `state`: `silent` until it says something, then `current` or `failing`."""
    return {
        "name": feed.source,
        "state": "failing" if feed.error is not None else "current" if feed.progressed else "silent",
        "last_success": None,
        "age": None,
        "error": feed.error or "",
        "errors": feed.errors,
        "keys": len(feed.slices),
        "nodes": feed.size,
        "rejected": dict(feed.rejected),
    }


def said(table: Table, key: str) -> Said:
    """(source, what it says of this key) for each that says anything; the first to know a node describes it.

    By address as said, and for a host name by each of those that it stands for as well.
    """
    names = {name: table.names[name].addresses for name in table.named.get(key, ())}
    found = []
    for feed in table.feeds:
        if nodes := feed.slices.get(key):
            for name, addresses in names.items():
                if name in nodes:
                    nodes = {**dict.fromkeys(addresses, nodes[name]), **nodes}
            found.append((feed.source, nodes))
    return found


def sayers(words: Said, address: str) -> list[str]:
    """The sources that know the node at this address, in their order; there is one at least."""
    if len(words) == 1:  # as for most keys, and faster for 50,000 nodes
        return [words[0][0]]
    return [name for name, nodes in words if address in nodes]
