"""What a gfrouter knows as one JSON-able value, and back: for the state file, and for a supervisor that re-executes.

    {"what": MAGIC, "version": VERSION, "time": unix seconds,
     "sources": {name: {"heard": unix seconds or null, "pools": {key: [node, ...]}, "memory": what the source keeps}},
     "names": {address with a host name: [numeric address, ...]},
     "out": [health, ...], "drained": [[address, ...], [key, ...]]}
A node is pair.py's list with sni, cores, load and last_check behind it, and via where it has one; a health is pair.py's
list. Keys that are not UTF-8 travel as JSON's escapes of their surrogates.

Strategy: what is restored has been written by anybody, at any time, so it is judged entry by entry: a bad one is
dropped and counted, and costs no other. Only a value that is not ours as a whole is refused. A restored node stands in
its own source's feed and is served at once; that feed is stale until the source speaks, and from then on the source's
word is all that counts. What belongs to a source that is configured no more is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol, TypeGuard

from router.address import AddressError, HostName, parse_node
from router.endpoint import Cause
from router.feed import Feed
from router.node import Node
from router.pair import pack_health, pack_node
from router.static import RESERVED
from router.table import MOST_ADDRESSES, Drained, Table

MAGIC = "gfrouter state"
VERSION = 1
SKEW = 300.0  # seconds by which a clock may have been put back since; what is younger than that comes from elsewhere
LONGEST_TEXT = 4096  # characters of a key, an address, a vassal; no packet and no source has longer ones
LARGEST_INT = 2**63  # weights and counts; beyond it they are garbage
MOST_TIMES = 1000  # ejections in a row; the time out stops growing long before
LONGEST_OUT = 30 * 86400.0  # seconds; an operator's ejection may be long, and nothing is out for ever by a file
LONGEST_CHECK = 60.0  # seconds in which the checks tell anew who fails them, unless they are configured no more
MOST_DRAINED = 100_000  # addresses or keys; more than anybody has nodes

Saved = dict[str, Any]


class Remembering(Protocol):
    """A source, its feed, and when it was heard last, as the supervisor has them (sourcestate.py)."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Any: ...
    @property
    def feed(self) -> Feed: ...
    def heard_at(self) -> float | None: ...


class NotOurs(ValueError):
    """The whole value is of no use; the text says why."""


@dataclass(slots=True)
class Restored:
    """What became of a saved state: what is served again, and how many bad entries were dropped."""

    time: float
    keys: int = 0
    nodes: int = 0
    dropped: int = 0


def save(table: Table, sources: Iterable[Remembering], *, now: float, wall: float) -> Saved:
    """All that `restore` brings back; `now` in monotonic, `wall` in unix seconds. It shares nothing with the table."""
    return {
        "what": MAGIC,
        "version": VERSION,
        "time": wall,
        "sources": {one.name: save_source(one) for one in sources},
        "names": {address: list(name.addresses) for address, name in table.names.items() if name.addresses},
        "out": [[*who, min(seconds, LONGEST_OUT)] for one in table.out for *who, seconds in [pack_health(one, now)]],
        "drained": [list(part) for part in table.drained],
    }


def save_source(one: Remembering) -> Saved:
    """What one source has said, and what it keeps from one start to the next."""
    return {
        "heard": one.heard_at(),
        "pools": {
            key: [_pack(node) for node in nodes.values()]
            for key, nodes in one.feed.remembered().items()
            if key not in RESERVED
        },
        "memory": _memory(one),
    }


def _memory(one: Remembering) -> Any:
    """What the source keeps; nothing where it has a fault, or no JSON, which must not cost what the others keep."""
    remember: Callable[[], Any] | None = getattr(one.source, "remember", None)
    try:
        memory = remember() if remember else None
        json.dumps(memory)
    except Exception as error:
        one.feed.reject("bad memory", f"remember: {error!r}")
        return None
    return memory


def restore(saved: object, table: Table, sources: Sequence[Remembering], *, now: float, wall: float) -> Restored:
    """Bring back what `save` saved, before any source runs; `now` in monotonic, `wall` in unix seconds.

    NotOurs where `saved` is not ours, or of another time. `table` tells nobody of the changes one by one.
    """
    state = _ours(saved, wall)
    result = Restored(state["time"])
    on_change, table.on_change = table.on_change, lambda change: None  # one line tells of it, not one a node
    try:
        for one in sources:
            _restore_source(_mapping(state, "sources", result).get(one.name), one, result)
        _restore_names(_mapping(state, "names", result), table, result)
    finally:
        table.on_change = on_change
    _restore_health(_list(state, "out", result), table, result, now, max(0.0, wall - result.time))
    table.drain(_drained(state.get("drained"), result))
    return result


def _ours(saved: object, wall: float) -> Saved:
    if not isinstance(saved, dict) or saved.get("what") != MAGIC:
        raise NotOurs("it is no state of a gfrouter")
    version, time = saved.get("version"), saved.get("time")
    if version != VERSION or isinstance(version, bool):
        raise NotOurs(f"its version is {str(version)[:20]}, and this gfrouter reads version {VERSION}")
    if not _is_number(time) or time < 0:
        raise NotOurs("it does not say when it was saved")
    if time > wall + SKEW:
        raise NotOurs(f"it was saved {min(time - wall, 1e12):.0f} s in the future")
    return saved


def _mapping(parent: Mapping[str, Any], name: str, result: Restored) -> dict[str, Any]:
    value = parent.get(name)
    if isinstance(value, dict):
        return value
    result.dropped += 1
    return {}


def _list(parent: Mapping[str, Any], name: str, result: Restored) -> list[Any]:
    value = parent.get(name)
    if isinstance(value, list):
        return value
    result.dropped += 1
    return []


def _restore_source(saved: object, one: Remembering, result: Restored) -> None:
    if saved is None:
        return  # it is new
    if not isinstance(saved, dict):
        result.dropped += 1
        return
    pools: dict[str, list[Node]] = {}
    for key, packed in _mapping(saved, "pools", result).items():
        if not _is_text(key) or key in RESERVED or not isinstance(packed, list):
            result.dropped += 1
            continue
        nodes = [node for values in packed if (node := _unpack(values, result)) is not None]
        if nodes:
            pools[key] = nodes
    heard = saved.get("heard")
    since = min(heard, result.time) if _is_number(heard) and heard > 0 else result.time
    one.feed.recall(pools, since)
    result.keys += len(one.feed.slices)
    result.nodes += one.feed.size
    if recall := getattr(one.source, "recall", None):
        try:
            recall(one.feed.slices, saved.get("memory"))
        except Exception as error:
            one.feed.reject("bad memory", f"recall: {error!r}")


def _restore_names(names: Mapping[str, Any], table: Table, result: Restored) -> None:
    """What host names stood for, until they are looked up again."""
    for name, addresses in names.items():
        if isinstance(addresses, list) and all(map(_is_numeric, addresses[:MOST_ADDRESSES])):
            table.resolve(name, addresses[:MOST_ADDRESSES])
        else:
            result.dropped += 1


def _restore_health(out: Iterable[Any], table: Table, result: Restored, now: float, passed: float) -> None:
    """Who was out is still out for the rest of its time."""
    for values in out:
        match values:
            case [str(address), int(cause), int(times), int() | float() as seconds] if (
                cause in list(Cause) and 0 <= times <= MOST_TIMES and _is_number(seconds)
            ):
                if endpoint := table.endpoints.get(address):
                    left = min(seconds, LONGEST_CHECK if cause == Cause.CHECK else LONGEST_OUT) - passed
                    table.fail(endpoint, now + max(0.0, left), Cause(cause), times)
            case _:
                result.dropped += 1


def _drained(saved: object, result: Restored) -> Drained:
    match saved:
        case [list(addresses), list(keys)]:
            kept = [tuple(text for text in part[:MOST_DRAINED] if _is_text(text)) for part in (addresses, keys)]
            result.dropped += len(addresses) + len(keys) - len(kept[0]) - len(kept[1])
            return kept[0], kept[1]
    result.dropped += 1
    return ((), ())


def _pack(node: Node) -> list[Any]:
    return [*pack_node(node), node.sni, node.cores, node.load, node.last_check, *([node.via] if node.via else [])]


def _unpack(values: object, result: Restored) -> Node | None:
    """The node that `_pack` packed; None, and counted, where it is anything else."""
    match values:
        case [
            str(address), int(weight), int(backup), int(modifier1), int(modifier2), str(proto), str(vassal),
            str(algorithm), bool(sni), int(cores), int(load), int() | float() as last_check,
            *via,
        ] if (
            all(map(_is_text, (address, proto or "-", vassal or "-", algorithm or "-")))
            and 1 <= weight < LARGEST_INT
            and 0 <= backup < LARGEST_INT
            and 0 <= modifier1 <= 255
            and 0 <= modifier2 <= 255
            and 0 <= cores <= 2 * LARGEST_INT
            and 0 <= load <= 2 * LARGEST_INT
            and _is_number(last_check)
            and _is_address(address)
            and (not via or (len(via) == 1 and _is_text(via[0])))
        ):  # fmt: skip
            return Node(
                address, weight, backup, modifier1, modifier2, proto, vassal, algorithm,
                via="".join(map(str, via)), sni=sni, cores=cores, load=load, last_check=last_check,
            )  # fmt: skip
    result.dropped += 1
    return None


def _is_address(text: str) -> bool:
    try:
        parse_node(text)
    except AddressError:
        return False
    return True


def _is_numeric(text: object) -> bool:
    try:
        return isinstance(text, str) and not isinstance(parse_node(text), HostName)
    except AddressError:
        return False


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and isfinite(value)


def _is_text(text: object) -> bool:
    """Whether it is one that a key or an address may be: short, and bytes on the wire."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_TEXT:
        return False
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
