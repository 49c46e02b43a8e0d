"""The uwsgi packet, read and written. No I/O: functions from bytes to values and back.

    header, 4 bytes    modifier1 u8, datasize u16 little endian, modifier2 u8
    vars, datasize     key length u16le, key, value length u16le, value; and so on. Only values may be empty
    body               raw, of no length that the packet would know

Strategy: whoever reads waits until `packet_size` bytes are there, so everything else sees whole packets and
needs no state between two reads. A packet is taken strictly or not at all: whatever is malformed gives
PacketError, never another exception and never a part of the vars. Offsets in its texts count from the
header's first byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HEADER = 4  # bytes
MAX_VARS = 0xFFFF  # bytes; what datasize can say
IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS")  # methods that may be tried at a second node after a first one
HTTP_METHODS = (
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"PRI ",
)
BODY_VARS = (b"REQUEST_METHOD", b"CONTENT_LENGTH", b"HTTP_TRANSFER_ENCODING")
LENGTH_DIGITS = 18  # of a CONTENT_LENGTH: an exabyte, and the sum of any two still fits into 64 bits


class PacketError(ValueError):
    """A malformed packet, or one that cannot be built; the text says what is wrong where, in numbers."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A whole packet. `size` is the length of header and vars, and so the offset at which the body begins."""

    modifier1: int
    modifier2: int
    vars: tuple[tuple[bytes, bytes], ...]
    size: int


def packet_size(data: bytes) -> int:
    """Bytes of header and vars, 4 to 65,539, by a header that is the first 4 bytes of `data`."""
    if len(data) < HEADER:
        raise PacketError(f"a header of {_bytes(len(data))}, expected {HEADER}")
    return HEADER + data[1] + (data[2] << 8)


def parse(data: bytes) -> Packet:
    """The packet that `data` begins with; what follows it is left alone. PacketError if it is not whole."""
    size = packet_size(data)
    if size > len(data):
        rest = _bytes(len(data) - HEADER)
        raise PacketError(f"datasize {size - HEADER}, but the packet ends after {rest}")
    return Packet(data[0], data[3], tuple(iter_vars(data, size)), size)


def iter_vars(data: bytes, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Each (key, value) of `data[4:end]`, in order, duplicates too. PacketError as soon as one is malformed.

    `end` need not be what the header says: announcements go by the length of the datagram.
    """
    at = HEADER
    while at < end:
        if end - at < 3:
            raise PacketError(f"{_bytes(end - at, 'stray ')} after the last var")
        key_at = at + 2
        key_end = key_at + int.from_bytes(data[at:key_at], "little")
        if key_end == key_at:
            raise PacketError(f"key of length 0 at offset {at}")
        if key_end > end:
            raise PacketError(_overrun(at, "key", key_end - key_at, key_end - end))
        value_at = key_end + 2
        if value_at > end:
            raise PacketError(f"var at offset {at}: {_bytes(end - key_end)} for the value length, expected 2")
        value_end = value_at + int.from_bytes(data[key_end:value_at], "little")
        if value_end > end:
            raise PacketError(_overrun(at, "value", value_end - value_at, value_end - end))
        yield data[key_at:key_end], data[value_at:value_end]
        at = value_end


def build(vars: Iterable[tuple[bytes, bytes]], modifier1: int = 0, modifier2: int = 0) -> bytes:
    """Header and vars; `parse` is the inverse. PacketError for what a packet cannot say."""
    for name, modifier in ("modifier1", modifier1), ("modifier2", modifier2):
        if not 0 <= modifier <= 255:
            raise PacketError(f"{name} {modifier} is out of range (0 to 255)")
    pairs = list(vars)
    size = sum(4 + len(key) + len(value) for key, value in pairs)
    if size > MAX_VARS:
        raise PacketError(f"vars of {size} bytes do not fit into datasize ({MAX_VARS})")
    parts = [bytes((modifier1,)), size.to_bytes(2, "little"), bytes((modifier2,))]
    for number, (key, value) in enumerate(pairs, 1):
        if not key:
            raise PacketError(f"key of length 0 in var {number}")
        parts += (len(key).to_bytes(2, "little"), key, len(value).to_bytes(2, "little"), value)
    return b"".join(parts)


def is_repeatable(data: bytes, end: int) -> bool:
    """Whether the request may go to a second node after a first one failed: idempotent, and all of it here.

    `data` is what has come so far, `end` where its vars end. In doubt False: for a var that stands there
    twice, as nobody knows which one the node took, and for a malformed packet.
    """
    if len(data) > end:
        return False
    try:
        pairs = [pair for pair in iter_vars(data, end) if pair[0] in BODY_VARS]
    except PacketError:
        return False
    said = dict(pairs)
    return (
        len(said) == len(pairs)
        and said.get(b"REQUEST_METHOD") in IDEMPOTENT
        and said.get(b"CONTENT_LENGTH", b"") in (b"", b"0")
        and b"HTTP_TRANSFER_ENCODING" not in said
    )


def looks_like_http(data: bytes | bytearray) -> bool:
    """Whether somebody speaks HTTP here: to be asked of the beginning of a packet that is not whole."""
    return data.startswith(HTTP_METHODS) and b" HTTP/" in data


def content_length(data: bytes, end: int) -> int:
    """Bytes of body that the vars announce; 0 for none or no number, -1 if a var is malformed: nobody can tell.

    The last CONTENT_LENGTH counts, as it does for uWSGI's workers.
    """
    length = 0
    try:
        for key, value in iter_vars(data, end):
            if key == b"CONTENT_LENGTH":
                length = int(value) if value.isdigit() and len(value) <= LENGTH_DIGITS else 0
    except PacketError:  # where the key is forced, such a request is served as well
        return -1
    return length


def printable(text: str) -> str:
    """A text from outside as it may stand in a log line: a line break in a key must not forge a line."""
    return text if text.isprintable() else repr(text)[1:-1]


def _overrun(at: int, what: str, length: int, excess: int) -> str:
    return f"var at offset {at}: {what} length {length} runs {_bytes(excess)} past the end"


def _bytes(count: int, kind: str = "") -> str:
    return f"{count} {kind}byte" if count == 1 else f"{count} {kind}bytes"
