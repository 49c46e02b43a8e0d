"""The key of a request: its rules one by one, a naive reading beside it, and the real fastrouter beside it."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.key import find_key, is_host
from router.uwsgi import PacketError, build, parse
from scripted import NodeConnection, ScriptedNode, connect, split, wait_for
from servers import UWSGI, Process, free_address

Vars = list[tuple[bytes, bytes]]

KEY, HOST, NAME = b"UWSGI_FASTROUTER_KEY", b"HTTP_HOST", b"SERVER_NAME"
LONGEST, TOO_LONG = b"k" * 255, b"k" * 256


def naive(packet: bytes) -> bytes:
    """The fastrouter's own reading: one buffer that the vars overwrite as they come."""
    buffer, has_key = b"", False
    for name, value in parse(packet).vars:
        fits = len(value) <= 255
        if fits and name == NAME and buffer == b"":
            buffer = value
        if fits and name == HOST and not has_key:
            buffer = value
        if fits and name == KEY:
            buffer, has_key = value, True
    return buffer


def found(vars: Vars) -> bytes:
    packet = build(vars)
    return find_key(packet, len(packet))


def outcome(read: Callable[[], bytes]) -> bytes | str:
    try:
        return read()
    except PacketError as error:
        return str(error)


@pytest.mark.parametrize(
    ("vars", "key"),
    [
        ([], b""),
        ([(b"PATH_INFO", b"/")], b""),
        ([(KEY, b"a")], b"a"),
        ([(HOST, b"b")], b"b"),
        ([(NAME, b"c")], b"c"),
        ([(NAME, b"c"), (HOST, b"b"), (KEY, b"a")], b"a"),
        ([(KEY, b"a"), (HOST, b"b"), (NAME, b"c")], b"a"),
        ([(NAME, b"c"), (HOST, b"b")], b"b"),
        ([(HOST, b"b"), (NAME, b"c")], b"b"),
        ([(HOST, b"Foo.com:8080")], b"Foo.com:8080"),
        ([(b"http_host", b"b"), (b"HTTP_HOSTS", b"b"), (b"X_HTTP_HOST", b"b")], b""),
    ],
)
def test_key_comes_before_host_before_name_in_any_order(vars: Vars, key: bytes) -> None:
    assert found(vars) == key


@pytest.mark.parametrize(
    ("vars", "key"),
    [
        ([(KEY, b"a"), (KEY, b"z")], b"z"),
        ([(KEY, b"a"), (HOST, b"b"), (KEY, b"z"), (HOST, b"y")], b"z"),
        ([(HOST, b"b"), (HOST, b"y")], b"y"),
        ([(HOST, b"b"), (NAME, b"c"), (HOST, b"y"), (NAME, b"x")], b"y"),
        ([(NAME, b"c"), (NAME, b"x")], b"c"),
        ([(NAME, b""), (NAME, b"x"), (NAME, b"w")], b"x"),
    ],
)
def test_the_last_key_the_last_host_and_the_first_name_count(vars: Vars, key: bytes) -> None:
    assert found(vars) == key


@pytest.mark.parametrize(
    ("vars", "key"),
    [
        ([(KEY, b"")], b""),
        ([(HOST, b"")], b""),
        ([(KEY, b""), (HOST, b"b")], b""),
        ([(HOST, b"b"), (KEY, b"")], b""),
        ([(HOST, b"b"), (HOST, b"")], b""),
        ([(KEY, b"a"), (KEY, b"")], b""),
        ([(NAME, b"c"), (HOST, b"")], b""),
        ([(HOST, b""), (NAME, b"c")], b"c"),
        ([(KEY, b""), (NAME, b"c")], b"c"),
        ([(KEY, b""), (HOST, b"b"), (NAME, b"c")], b"c"),
    ],
)
def test_an_empty_value_takes_away_what_stood_there(vars: Vars, key: bytes) -> None:
    assert found(vars) == key


@pytest.mark.parametrize(
    ("vars", "key"),
    [
        ([(KEY, LONGEST)], LONGEST),
        ([(HOST, LONGEST)], LONGEST),
        ([(NAME, LONGEST)], LONGEST),
        ([(KEY, TOO_LONG)], b""),
        ([(KEY, TOO_LONG), (HOST, b"b")], b"b"),
        ([(HOST, b"b"), (KEY, TOO_LONG)], b"b"),
        ([(KEY, b"a"), (KEY, TOO_LONG)], b"a"),
        ([(HOST, b"b"), (HOST, TOO_LONG)], b"b"),
        ([(HOST, TOO_LONG), (NAME, b"c")], b"c"),
        ([(NAME, TOO_LONG), (NAME, b"c")], b"c"),
        ([(HOST, b"k" * 512)], b""),  # its low byte is 0
        ([(HOST, b"k" * 65_000)], b""),
    ],
)
def test_a_value_over_255_bytes_is_as_if_absent(vars: Vars, key: bytes) -> None:
    assert found(vars) == key


def encoded(name: bytes, value: bytes) -> bytes:
    """A var as it stands in a packet, to be hidden in a value."""
    return build([(name, value)])[4:]


@pytest.mark.parametrize("name", [KEY, HOST, NAME])
def test_a_value_that_looks_like_a_var_is_none(name: bytes) -> None:
    spoof = encoded(name, b"evil.com")
    assert found([(HOST, b"foo.com"), (b"HTTP_COOKIE", spoof)]) == b"foo.com"
    assert found([(b"HTTP_COOKIE", spoof), (HOST, b"foo.com")]) == b"foo.com"
    assert found([(KEY, b"foo.com"), (b"HTTP_COOKIE", b"x" + spoof + b"x")]) == b"foo.com"
    assert found([(b"QUERY_STRING", b"a=" + spoof)]) == b""
    assert found([(b"X" + spoof, b"name")]) == b""


def test_the_body_is_not_looked_at() -> None:
    packet = build([(HOST, b"foo.com")])
    for body in (encoded(KEY, b"evil.com"), encoded(HOST, b"evil.com"), b"\x00", b"\xff" * 100):
        assert find_key(packet + body, len(packet)) == b"foo.com"


@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b"\x01", "1 stray byte after the last var"),
        (b"\x01\x00", "2 stray bytes after the last var"),
        (b"\x00\x00\x00\x00", "key of length 0 at offset 24"),
        (b"\x01\x00k\x01\x00", "var at offset 24: value length 1 runs 1 byte past the end"),
        (b"\x01\x00k\x00", "var at offset 24: 1 byte for the value length, expected 2"),
        (b"\x28\x00key", "var at offset 24: key length 40 runs 37 bytes past the end"),
        (b"\x00\x01key", "var at offset 24: key length 256 runs 253 bytes past the end"),
        (b"\x01\x00k\xff\xff", "var at offset 24: value length 65535 runs 65535 bytes past the end"),
    ],
)
def test_a_malformed_var_after_the_key_spoils_the_packet(tail: bytes, text: str) -> None:
    whole = build([(HOST, b"foo.com")]) + tail
    for body in (b"", b"body" * 20_000):
        with pytest.raises(PacketError) as error:
            find_key(whole + body, len(whole))
        assert str(error.value) == text


@pytest.mark.parametrize("size", [1, 8, 9, 11, 20, 254, 255, 256, 257, 265, 276, 512, 521, 5000])
def test_names_of_any_length_are_walked_over(size: int) -> None:
    filler = (b"n" * size, b"v" * size)
    assert found([filler, (HOST, b"foo.com"), filler]) == b"foo.com"


names = st.sampled_from([KEY, HOST, NAME, b"X", b"X_HTTP_HOST", b"PATH_INFO", b"n" * 255, b"n" * 256, b"n" * 265])
spoofs = st.builds(
    lambda before, name, value, after: before + encoded(name, value) + after,
    st.binary(max_size=3),
    st.sampled_from([KEY, HOST, NAME]),
    st.sampled_from([b"", b"evil.com"]),
    st.binary(max_size=3),
)
values = st.sampled_from([b"", b"a", b"foo.com", LONGEST, TOO_LONG]) | spoofs | st.binary(max_size=20)
vars_ = st.lists(st.tuples(names, values), max_size=12)


@given(vars_, st.binary(max_size=20) | spoofs)
@example([(b"X", b"\x09\x00HTTP_HOST\x07\x00foo.com")], b"")
def test_find_key_agrees_with_the_naive_reading(vars: Vars, body: bytes) -> None:
    packet = build(vars)
    assert find_key(packet + body, len(packet)) == naive(packet)


@given(vars_, st.data(), st.binary(max_size=300))
def test_find_key_agrees_on_damaged_packets(vars: Vars, data: st.DataObject, body: bytes) -> None:
    damaged = bytearray(build(vars))
    size = len(damaged)
    for _ in range(data.draw(st.integers(0, 3)) if size > 4 else 0):
        damaged[data.draw(st.integers(4, size - 1))] = data.draw(st.integers(0, 255))
    packet = bytes(damaged)
    assert outcome(lambda: find_key(packet + body, size)) == outcome(lambda: naive(packet))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_find_key_agrees_on_garbage(vars: bytes, body: bytes) -> None:
    packet = b"\x00" + len(vars).to_bytes(2, "little") + b"\x00" + vars
    assert outcome(lambda: find_key(packet + body, len(packet))) == outcome(lambda: naive(packet))


def answer_with_modifier1(connection: NodeConnection) -> None:
    connection.send(connection.read_head()[:1])


def test_find_key_agrees_with_the_real_fastrouter() -> None:
    """Each known key's node has a modifier1 of its own and sends it back, so that the answer tells the key."""
    keys = {b"a": 1, b"b": 2, b"c": 3, LONGEST: 4, b"evil.com": 5}
    values = [*keys, b"", TOO_LONG, encoded(HOST, b"evil.com"), encoded(KEY, b"evil.com")]
    choose = random.Random(20140526).choice
    names = [KEY, HOST, HOST, NAME, NAME, b"X"]
    packets = [build([(choose(names), choose(values)) for _ in range(choose(range(1, 6)))]) for _ in range(300)]
    whole = build([(HOST, b"b")])
    for tail in (
        b"\x01",
        b"\x01\x00",
        b"\x00" * 4,
        b"\x01\x00k\x00",
        b"\x01\x00k\x09\x00v",
        b"\x01\x00k\x00\x00",
    ):
        packets.append(b"\x00" + (len(whole) - 4 + len(tail)).to_bytes(2, "little") + whole[3:] + tail)

    router, subscriptions = free_address(), free_address()
    command = (UWSGI, "--master", "--fastrouter", router, "--fastrouter-subscription-server", subscriptions)
    with Process(*command) as fastrouter, ScriptedNode(answer_with_modifier1) as node:

        def asked(packet: bytes) -> int:
            """The modifier1 that the packet reached the node with; 0 when it was closed."""
            with connect(router) as sock:
                sock.sendall(packet)
                return (sock.recv(1) or b"\x00")[0]

        fastrouter.wait_line("spawned uWSGI fastrouter")
        announce(subscriptions, [(key, node.address, modifier1) for key, modifier1 in keys.items()])
        wait_for(lambda: asked(build([(KEY, b"evil.com")])) == 5, "the fastrouter to know its nodes")
        real = [asked(packet) for packet in packets]

    ours = [outcome(partial(find_key, packet, len(packet))) for packet in packets]
    assert [keys.get(key, 0) if isinstance(key, bytes) else 0 for key in ours] == real
    assert set(real) == {0, 1, 2, 3, 4, 5}


def announce(server: str, nodes: list[tuple[bytes, str, int]]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for key, address, modifier1 in nodes:
            fields = [(b"key", key), (b"address", address.encode()), (b"modifier1", b"%d" % modifier1)]
            sock.sendto(build(fields, 224), split(server))


@pytest.mark.parametrize(
    "key",
    ["foo.com", "FOO.com.", "foo.com:8080", "localhost", "a_b.x-y.com", "xn--bcher-kva.example", "4.com", "a" * 63,
     ".".join(["a" * 49] * 5) + ".abc:65535"],
)  # fmt: skip
def test_a_host_name_with_or_without_port_is_a_host(key: str) -> None:
    assert is_host(key)


@pytest.mark.parametrize(
    "key",
    ["", ".", "a..b", ".com", "foo.com..", "foo.com:", "foo.com:port", "foo.com:123456", "foo.com/app", "a b",
     "foo.com\n", "-a.com", "a-.com", "10.0.0.1", "10.0.0.1:80", "[::1]:80", "1", "f\udcff.com", "bücher.de", "٣.com", "a" * 64,
     ".".join(["a" * 49] * 5) + ".abcd"],
)  # fmt: skip
def test_whatever_else_is_none(key: str) -> None:
    assert not is_host(key)
