"""What one entry of etcd says, and what all of them say together. No I/O: bytes to nodes, or EntryError.

An entry is `PREFIX/KEY/ADDRESS`, both percent-encoded, with an empty value or a JSON object. It is taken whole or not
at all, so that a malformed one costs itself alone: the node that it named before goes, too. What is known depends only
on what etcd holds, never on how it came there: a list and the same entries seen one by one give the same nodes.

Entries are kept by their own name in etcd, as two that are written differently may mean the same node, which then stays
until the last one of them is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from router.algorithmname import LEGAL, is_algorithm
from router.node import Node

LARGEST_NAME = 255  # bytes of a key or an address, as in uWSGI's announcements
LARGEST_VALUE = 4096  # bytes; the longest that makes sense is a tenth of it
LARGEST_BYTE = 2**8 - 1  # modifiers, as the packet's header has them
LARGEST_INT = 2**31 - 1  # weight and backup, as in uWSGI's announcements
SHOWN = 80  # bytes of an entry's name in a message

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class EntryError(ValueError):
    """An entry that is dropped. `reason` is one of a few fixed texts to count by; str() names the entry."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Entries:
    """The entries below a prefix (`/gfrouter/`, with the slash), as what they say of each key; at most `most`."""

    def __init__(self, prefix: bytes, most: int) -> None:
        self.prefix = prefix
        self.most = most
        self.size = 0
        self._pools: dict[str, dict[bytes, Node]] = {}  # key → the entry's name in etcd → node

    def put(self, name: bytes, value: bytes) -> str:
        """Take in an entry; gives the key of which it speaks. An EntryError changes nothing: `delete` it then."""
        key, address = parse_name(name, self.prefix)
        try:
            node = parse_value(address, value)
        except EntryError as error:
            raise EntryError(error.reason, f"{shown(name)}: {error}") from None
        known = name in self._pools.get(key, ())
        if not known and self.size >= self.most:
            raise EntryError("too many nodes", f"{self.most} are kept, and {shown(name)} would be one more")
        pool = self._pools.setdefault(key, {})
        self.size += not known
        pool[name] = node
        return key

    def delete(self, name: bytes) -> str | None:
        """Forget an entry; gives its key if it was known."""
        try:
            key, _ = parse_name(name, self.prefix)
        except EntryError:
            return None
        pool = self._pools.get(key, {})
        if pool.pop(name, None) is None:
            return None
        self.size -= 1
        if not pool:
            del self._pools[key]
        return key

    def nodes(self, key: str) -> list[Node]:
        """All that is known of `key`, in the order of the entries' names."""
        pool = self._pools.get(key, {})
        return [pool[name] for name in sorted(pool)]

    def pools(self) -> dict[str, list[Node]]:
        return {key: self.nodes(key) for key in self._pools}


def parse_name(name: bytes, prefix: bytes) -> tuple[str, str]:
    """(key, address) of an entry's name."""
    parts = name.removeprefix(prefix).split(b"/")
    if not name.startswith(prefix) or len(parts) != 2:
        raise EntryError("bad key", f"{shown(name)}: expected {shown(prefix)}KEY/ADDRESS")
    key, address = (_decoded(name, what, part) for what, part in zip(("key", "address"), parts, strict=True))
    return key, address


def parse_value(address: str, value: bytes) -> Node:
    """The node at `address` as an entry's value describes it. Unknown fields are ignored."""
    if len(value) > LARGEST_VALUE:
        raise EntryError("bad value", f"a value of {len(value)} bytes, at most {LARGEST_VALUE}")
    if not value.strip():
        return Node(address)
    try:
        said = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise EntryError("bad value", f"no JSON: {error}") from None
    if not isinstance(said, dict):
        raise EntryError("bad value", f"a JSON {type(said).__name__}, expected an object")
    return Node(address, **{field: read(said, field) for field, read in FIELDS.items() if field in said})


def encode_name(prefix: bytes, key: str, address: str) -> bytes:
    """The name of the entry for this node: what `parse_name` takes apart."""
    return prefix + _encoded(key) + b"/" + _encoded(address)


def shown(name: bytes) -> str:
    return repr(name[:SHOWN])[1:] + ("..." if len(name) > SHOWN else "")


def _decoded(name: bytes, what: str, part: bytes) -> str:
    if _BAD_ESCAPE.search(part):
        raise EntryError("bad key", f"{shown(name)}: a % in the {what} that two hexadecimal digits do not follow")
    data = unquote_to_bytes(part)
    if not 0 < len(data) <= LARGEST_NAME:
        raise EntryError("bad key", f"{shown(name)}: {what} of {len(data)} bytes, expected 1 to {LARGEST_NAME}")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise EntryError("bad key", f"{shown(name)}: the {what} is not UTF-8") from None


def _encoded(text: str) -> bytes:
    """Every byte that could mean something to etcd's tools or to us, percent-encoded."""
    data = text.encode()
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in data)


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:[]@*")


def _whole(least: int, most: int) -> Callable[[Mapping[str, Any], str], int]:
    def read(said: Mapping[str, Any], field: str) -> int:
        value = said[field]
        # In Python a boolean is a number; in JSON it is not.
        if isinstance(value, bool) or not isinstance(value, int):
            raise EntryError("bad value", f"{field} is no whole number (legal: {least} to {most})")
        if not least <= value <= most:
            raise EntryError("bad value", f"{field} is out of range (legal: {least} to {most})")
        return value

    return read


def _algorithm(said: Mapping[str, Any], field: str) -> str:
    value = said[field]
    if not isinstance(value, str) or not (value == "" or is_algorithm(value)):
        raise EntryError("bad value", f"{field} is no algorithm (legal: {LEGAL})")
    return value


FIELDS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "weight": _whole(1, LARGEST_INT),
    "backup": _whole(0, LARGEST_INT),
    "modifier1": _whole(0, LARGEST_BYTE),
    "modifier2": _whole(0, LARGEST_BYTE),
    "algorithm": _algorithm,
}
