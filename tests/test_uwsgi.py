"""The codec: packets whole, byte by byte and with trailing data; each malformed form with its exact text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.uwsgi import (
    HEADER,
    Packet,
    PacketError,
    build,
    content_length,
    is_repeatable,
    iter_vars,
    packet_size,
    parse,
)

PACKETS = [
    (b"\x00\x00\x00\x00", Packet(0, 0, (), 4)),
    (b"\x05\x00\x00\xff", Packet(5, 255, (), 4)),
    (b"\x00\x05\x00\x00\x01\x00k\x00\x00", Packet(0, 0, ((b"k", b""),), 9)),
    (b"\x00\x06\x00\x00\x01\x00k\x01\x00v", Packet(0, 0, ((b"k", b"v"),), 10)),
    (
        b"\x1e\x1b\x00\x07\x09\x00HTTP_HOST\x07\x00foo.com\x01\x00k\x02\x00\x00\xff",
        Packet(30, 7, ((b"HTTP_HOST", b"foo.com"), (b"k", b"\x00\xff")), 31),
    ),
    (b"\x00\x08\x01\x00\x01\x00k\x03\x01" + b"v" * 259, Packet(0, 0, ((b"k", b"v" * 259),), 268)),
    (b"\x00\x0c\x00\x00" + b"\x01\x00k\x01\x00v" * 2, Packet(0, 0, ((b"k", b"v"),) * 2, 16)),
]

names = st.binary(min_size=1, max_size=300)
values = st.binary(max_size=300)
vars_ = st.lists(st.tuples(names, values), max_size=30)
modifiers = st.integers(0, 255)


@pytest.mark.parametrize(("data", "packet"), PACKETS)
def test_packets_are_parsed_whole_and_built_back(data: bytes, packet: Packet) -> None:
    assert parse(data) == packet
    assert packet_size(data) == packet.size == len(data)
    assert build(packet.vars, packet.modifier1, packet.modifier2) == data


@pytest.mark.parametrize(("data", "packet"), PACKETS)
def test_byte_by_byte_a_packet_is_an_error_until_its_last_byte(data: bytes, packet: Packet) -> None:
    for size in range(len(data)):
        with pytest.raises(PacketError) as error:
            parse(data[:size])
        if size < HEADER:
            assert str(error.value) == f"a header of {size} byte{'' if size == 1 else 's'}, expected 4"
        else:
            assert packet_size(data[:size]) == len(data)
            assert str(error.value).startswith(f"datasize {len(data) - 4}, but the packet ends after {size - 4} b")


@pytest.mark.parametrize(("data", "packet"), PACKETS)
def test_what_follows_a_packet_is_left_alone(data: bytes, packet: Packet) -> None:
    for trailing in (b"\x00", b"trailing", data):
        assert parse(data + trailing) == packet
        assert (data + trailing)[parse(data + trailing).size :] == trailing


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a header of 0 bytes, expected 4"),
        (b"\x00", "a header of 1 byte, expected 4"),
        (b"\x00\x00\x00", "a header of 3 bytes, expected 4"),
        (b"\x00\x00\x02\x00" + bytes(300), "datasize 512, but the packet ends after 300 bytes"),
        (b"\x00\x02\x00\x00\x01", "datasize 2, but the packet ends after 1 byte"),
        (b"\x00\x01\x00\x00\x01", "1 stray byte after the last var"),
        (b"\x00\x02\x00\x00\x01\x00", "2 stray bytes after the last var"),
        (b"\x00\x08\x00\x00\x01\x00k\x01\x00v\x01\x00", "2 stray bytes after the last var"),
        (b"\x00\x04\x00\x00\x00\x00\x00\x00", "key of length 0 at offset 4"),
        (b"\x00\x0a\x00\x00\x01\x00k\x01\x00v\x00\x00\x00\x00", "key of length 0 at offset 10"),
        (b"\x00\x04\x00\x00\x03\x00ke", "var at offset 4: key length 3 runs 1 byte past the end"),
        (
            b"\x00\x29\x00\x00\x01\x00k\x08\x00" + b"v" * 8 + b"\x28\x00" + b"k" * 26,
            "var at offset 17: key length 40 runs 14 bytes past the end",
        ),
        (b"\x00\x03\x00\x00\x01\x00k", "var at offset 4: 0 bytes for the value length, expected 2"),
        (b"\x00\x04\x00\x00\x01\x00k\x00", "var at offset 4: 1 byte for the value length, expected 2"),
        (b"\x00\x06\x00\x00\x01\x00k\x03\x00v", "var at offset 4: value length 3 runs 2 bytes past the end"),
        (
            b"\x00\x05\x00\x00\x01\x00k\xff\x00",
            "var at offset 4: value length 255 runs 255 bytes past the end",
        ),
        (b"GET / HTTP/1.0\r\n\r\n", "datasize 21573, but the packet ends after 14 bytes"),
    ],
)
def test_malformed_packets_say_what_is_wrong_in_numbers(data: bytes, text: str) -> None:
    with pytest.raises(PacketError) as error:
        parse(data)
    assert str(error.value) == text


def test_a_length_may_not_run_into_the_body() -> None:
    with pytest.raises(PacketError, match=r"^var at offset 4: value length 3 runs 2 bytes past the end$"):
        parse(b"\x00\x06\x00\x00\x01\x00k\x03\x00v" + b"body" * 10)


@pytest.mark.parametrize(
    ("vars", "modifier1", "modifier2", "text"),
    [
        ([(b"k", b"v" * 69_995)], 0, 0, "vars of 70000 bytes do not fit into datasize (65535)"),
        ([(b"k" * 65_532, b"")], 0, 0, "vars of 65536 bytes do not fit into datasize (65535)"),
        ([(b"k", b"v"), (b"", b"v")], 0, 0, "key of length 0 in var 2"),
        ([], 256, 0, "modifier1 256 is out of range (0 to 255)"),
        ([], 0, -1, "modifier2 -1 is out of range (0 to 255)"),
    ],
)
def test_what_a_packet_cannot_say_is_not_built(
    vars: list[tuple[bytes, bytes]], modifier1: int, modifier2: int, text: str
) -> None:
    with pytest.raises(PacketError) as error:
        build(vars, modifier1, modifier2)
    assert str(error.value) == text


def test_the_largest_packet_fits() -> None:
    packet = build([(b"k" * 65_531, b"")])
    assert len(packet) == packet_size(packet) == 65_539
    assert parse(packet).vars == ((b"k" * 65_531, b""),)


@given(vars_, modifiers, modifiers, st.binary(max_size=50))
def test_parse_is_the_inverse_of_build(
    vars: list[tuple[bytes, bytes]], modifier1: int, modifier2: int, body: bytes
) -> None:
    packet = build(vars, modifier1, modifier2)
    assert parse(packet + body) == Packet(modifier1, modifier2, tuple(vars), len(packet))


def parsed_or_refused(data: bytes) -> None:
    """Either a packet, which then says all that `data` says, or a PacketError."""
    with suppress(PacketError):
        packet = parse(data)
        assert build(packet.vars, packet.modifier1, packet.modifier2) == data[: packet.size]


@given(st.binary(max_size=400))
def test_garbage_is_a_packet_or_a_packet_error(data: bytes) -> None:
    parsed_or_refused(data)


@given(vars_, st.data())
def test_a_damaged_packet_is_a_packet_or_a_packet_error(vars: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    damaged = bytearray(build(vars))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    parsed_or_refused(bytes(damaged))


@given(vars_)
def test_vars_end_where_the_caller_says(vars: list[tuple[bytes, bytes]]) -> None:
    packet = build(vars)
    anything = b"\xff\xff\xff\xff" + packet[HEADER:]  # an announcement's datasize means nothing
    assert list(iter_vars(anything, len(anything))) == vars


GET = (b"REQUEST_METHOD", b"GET")


@pytest.mark.parametrize(
    ("vars", "repeatable"),
    [
        ([GET], True),
        ([(b"REQUEST_METHOD", b"HEAD")], True),
        ([(b"REQUEST_METHOD", b"OPTIONS")], True),
        ([GET, (b"CONTENT_LENGTH", b"")], True),
        ([GET, (b"CONTENT_LENGTH", b"0")], True),
        ([GET, (b"HTTP_HOST", b"foo.com"), (b"HTTP_HOST", b"foo.com")], True),
        ([], False),
        ([(b"REQUEST_METHOD", b"get")], False),
        ([(b"REQUEST_METHOD", b"POST")], False),
        ([(b"REQUEST_METHOD", b"PUT"), (b"CONTENT_LENGTH", b"0")], False),
        ([(b"REQUEST_METHOD", b"DELETE")], False),
        ([GET, (b"CONTENT_LENGTH", b"1")], False),
        ([GET, (b"CONTENT_LENGTH", b"nonsense")], False),
        ([GET, (b"HTTP_TRANSFER_ENCODING", b"chunked")], False),
        ([GET, (b"HTTP_TRANSFER_ENCODING", b"")], False),
        ([GET, (b"REQUEST_METHOD", b"POST")], False),
        ([(b"REQUEST_METHOD", b"POST"), GET], False),
        ([GET, GET], False),
        ([GET, (b"CONTENT_LENGTH", b"5"), (b"CONTENT_LENGTH", b"0")], False),
    ],
)
def test_only_a_bodyless_idempotent_request_is_repeatable(vars: list[tuple[bytes, bytes]], repeatable: bool) -> None:
    packet = build(vars)
    assert is_repeatable(packet, len(packet)) is repeatable
    assert is_repeatable(packet + b"\x00", len(packet)) is False  # some of a body has come


def test_a_malformed_request_is_not_repeatable() -> None:
    packet = build([GET]) + b"\x00"
    assert is_repeatable(packet, len(packet)) is False


@pytest.mark.parametrize(
    ("lengths", "bytes_"),
    [
        ([], 0),
        ([b""], 0),
        ([b"0"], 0),
        ([b"1234"], 1234),
        ([b"0012"], 12),
        ([b"5", b"7"], 7),
        ([b"7", b""], 0),
        ([b"-7"], 0),
        ([b"+7"], 0),
        ([b" 7"], 0),
        ([b"7x"], 0),
        ([b"9" * 18], 10**18 - 1),
        ([b"9" * 19], 0),
        ([b"9" * 60_000], 0),
        (["٣".encode()], 0),
    ],
)
def test_content_length_is_the_last_ones_number(lengths: list[bytes], bytes_: int) -> None:
    packet = build([GET, *((b"CONTENT_LENGTH", length) for length in lengths)])
    assert content_length(packet + b"body", len(packet)) == bytes_
    assert content_length(packet + b"body", len(packet) + 2) == -1  # of a malformed one nobody can tell
