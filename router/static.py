"""Nodes that the options name: `to` serves keys that nobody else knows, `fallback` requests that find no other node.

They are held as all others are, so that their health, host names, counters and the routers' copies need no code of
their own: in pools under the reserved keys `TO` and `FALLBACK`, said by a source that has spoken at once. No packet can
name such a key: its first three characters stand for bytes that are no UTF-8, and together they are, so bytes never
decode to them. session.py asks these pools where a key has no node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import gevent.event

from router.address import AddressError, parse_node
from router.node import Node

if TYPE_CHECKING:
    from router.feed import Feed
    from router.table import Table

TO, FALLBACK = "\udce2\udc86\udc92to", "\udce2\udc86\udc92fallback"
OWN = "\udce2\udc86\udc92worker"  # the worker of a configuration for both (worker.py)
RESERVED = {TO: "to", FALLBACK: "fallback", OWN: "worker"}  # → as logs name it

# The modifiers stand behind the address as in the values of uWSGI's `use-cache`; without them they are 0.
_NODE = re.compile(r"(.*?)(?:,([0-9]+))?(?:,([0-9]+))?", re.DOTALL)
FORM = "ADDRESS[,MODIFIER1[,MODIFIER2]]"


class Static:
    """The source of the nodes that the options name. `to` and `fallback` are texts of the form FORM."""

    name = "static"

    def __init__(self, to: Sequence[str], fallback: Sequence[str]) -> None:
        self.pools = {TO: alike(map(static_node, to)), FALLBACK: in_order(map(static_node, fallback))}

    def run(self, feed: Feed) -> NoReturn:
        feed.replace(self.pools)
        while True:
            gevent.event.Event().wait()  # nothing more will be said


def static_node(text: str) -> Node:
    """The node that `text` means, else ValueError."""
    found = _NODE.fullmatch(text)
    assert found is not None  # the first group takes anything
    address, *modifiers = found.groups()
    try:
        parse_node(address)
    except AddressError as error:
        raise ValueError(error.reason) from None
    for modifier in modifiers:
        if modifier and int(modifier[:4]) > 255:
            raise ValueError(f"modifier {modifier} is out of range (legal: {FORM}, modifiers from 0 to 255)")
    modifier1, modifier2 = (int(modifier or 0) for modifier in modifiers)
    return Node(address, modifier1=modifier1, modifier2=modifier2)


def alike(nodes: Iterable[Node]) -> list[Node]:
    """The nodes in turn. One that is named several times has as many turns, as in uWSGI."""
    found: dict[str, Node] = {}
    for node in nodes:
        before = found.get(node.address)
        found[node.address] = replace(before, weight=before.weight + 1) if before else node
    return list(found.values())


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """The nodes one after the other: each is asked where those before it have failed."""
    first: dict[str, Node] = {}
    for node in nodes:
        first.setdefault(node.address, node)
    return [replace(node, backup=level) for level, node in enumerate(first.values())]


def only_fallback(table: Table) -> bool:
    """Whether none but fallback nodes can be asked."""
    return all(
        endpoint.lost or all(member.pool.key == FALLBACK for member in endpoint.members)
        for endpoint in table.endpoints.values()
    )
