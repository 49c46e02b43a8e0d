"""What the supervisor and a router say to each other: length-prefixed JSON over a socket pair. No socket here.

Down, one message for all that is news when the router reads:
    {"options": {...}, "listeners": [fd, ...], "on_demand": whom, "pages": {status: page, ...}}
                                                           first, once; `whom` says for which keys sources on demand are
                                                           asked: "" for none, "hosts", "any"; pages: users' own
    {"pools": {key: [node, ...], ...}}                     second, once: the whole table; the router accepts after it
    {"warming": seconds}                                   with the table: so long unknown keys may wait; 0: no longer
    {"set": [[key, [node, ...], [address, ...]], ...]}     keys that changed, what they hold, and who has left
    {"loads": [[key, address, load, cores], ...]}          of nodes of pools that steer by it
    {"out": [health, ...], "live": [address, ...]}         endpoints out of turn, or in it again
    {"drained": [[address, ...], [key, ...]]}              all that get no new requests
    {"unknown": [key, ...]}                                asked for by this router, and nobody serves them
    {"count": N}                                           asks for the counters
    {"beat": N}                                            asks for a sign of life (`harakiri`)
    {"stop": true}                                         accept no more, finish, end
Up:
    {"out": [...], "live": [...]}                          what happened to endpoints here
    {"wanted": [key, ...]}                                 requests wait for these, which nobody serves, to be looked up
    {"counters": N, ...}                                   the answer to {"count": N} (stats.py says what is in it)
    {"beaten": N}                                          the answer to {"beat": N}
A node is a list: address, weight, backup, modifier1, modifier2, proto, vassal, algorithm; a health too: address, cause,
times, seconds for which it is out. The algorithm is that of the node's pool, empty where that is the default. Keys that
are not UTF-8 travel as JSON's escapes of their surrogates.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from router.endpoint import Cause, Endpoint
from router.node import Node

if TYPE_CHECKING:
    from router.feed import Feed
    from router.pool import Member
    from router.table import Table

Message = dict[str, Any]

LENGTH = struct.Struct("!I")  # bytes of the JSON text that follows
CHUNK = 1 << 18  # bytes a read
ALGORITHM = 7  # where a node's list has it


def encode(message: Message) -> bytes:
    """One message as it goes over the pair."""
    text = json.dumps(message, separators=(",", ":")).encode("ascii")
    return LENGTH.pack(len(text)) + text


class Decoder:
    """Bytes in, messages out, however the bytes were cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take in `data`; yields each message that is whole."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            text = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield json.loads(text)


def messages(recv: Callable[[int], bytes]) -> Iterator[Message]:
    """What comes through `recv` (a socket's), until its end; a reset is an end as well."""
    decoder = Decoder()
    while True:
        try:
            data = recv(CHUNK)
        except OSError:
            return
        if not data:
            return
        yield from decoder.feed(data)


def pack_node(node: Node) -> list[Any]:
    """A node as it stands in a message."""
    return [
        node.address, node.weight, node.backup, node.modifier1, node.modifier2, node.proto, node.vassal, node.algorithm,
    ]  # fmt: skip


def pack_pool(table: Table, key: str) -> list[list[Any]]:
    """The nodes of `key` as they stand in a message. The first one of a router's pool may not be the one that opened
    ours, so each of them names the pool's algorithm.
    """
    pool = table.pools.get(key)
    if pool is None:
        return []
    algorithm = "" if pool.algorithm == table.algorithm else pool.algorithm
    nodes = [pack_node(member.node) for member in pool.members.values()]
    for node in nodes:
        node[ALGORITHM] = algorithm
    return nodes


def pack_loads(members: Iterable[Member]) -> list[list[Any]]:
    """What these say of their load, as it stands in a message."""
    return [[one.pool.key, one.node.address, one.node.load, one.node.cores] for one in members]


def take_loads(feed: Feed, loads: Iterable[list[Any]]) -> None:
    """In a router: what nodes say of their load. Those that are gone by now are ignored."""
    for key, address, load, cores in loads:
        if node := feed.slices.get(key, {}).get(address):
            feed.describe(key, replace(node, load=load, cores=cores))


def pack_health(endpoint: Endpoint, now: float) -> list[Any]:
    """An endpoint that is out, as it stands in a message; `now` in monotonic seconds."""
    return [endpoint.address, endpoint.cause, endpoint.times, endpoint.out_until - now]


def take_health(table: Table, out: Iterable[list[Any]], live: Iterable[str], now: float) -> None:
    """In a router: bring the endpoints into the state that the supervisor says they are in, whatever was found here.
    What it has not heard of that yet it will, and then says how they are after all.
    """
    for address, cause, times, seconds in out:
        if endpoint := table.endpoints.get(address):
            table.fail(endpoint, now + seconds, Cause(cause), times, firm=True)
    for address in live:
        if endpoint := table.endpoints.get(address):
            table.restore(endpoint)


def take_findings(table: Table, out: Iterable[list[Any]], live: Iterable[str], now: float) -> None:
    """In the supervisor: what a router has found. Requests that went well are no cure for who fails the active checks,
    or has been ejected by an operator since.
    """
    for address, cause, times, seconds in out:
        if endpoint := table.endpoints.get(address):
            if endpoint.out_until <= now:
                table.begin_trial(endpoint)  # so this is what it came to
            table.fail(endpoint, now + seconds, Cause(cause), times)
    for address in live:
        if (endpoint := table.endpoints.get(address)) and endpoint.ejected_until <= now:
            table.restore(endpoint, Cause.EJECTED)


def unpack_node(values: list[Any]) -> Node:
    """The node that `pack_node` packed."""
    return Node(*values)
