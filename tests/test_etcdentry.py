"""Entries of etcd: names and values to nodes, and many of them to what is known of each key."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.etcdentry import LARGEST_VALUE, Entries, EntryError, encode_name, parse_name, parse_value
from router.node import Node

PREFIX = b"/gfrouter/"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (b"foo.com/127.0.0.1:3031", ("foo.com", "127.0.0.1:3031")),
        (b"foo.com%3a8080/127.0.0.1%3A3031", ("foo.com:8080", "127.0.0.1:3031")),
        (b"foo.com%2Fapp/%2Frun%2Fapp.sock", ("foo.com/app", "/run/app.sock")),
        (b"b%C3%BCcher.de/[::1]:3031", ("bücher.de", "[::1]:3031")),
        (b"a+b/@name", ("a+b", "@name")),
        (b"k" * 255 + b"/a", ("k" * 255, "a")),
    ],
)
def test_a_name_is_a_key_and_an_address(name: bytes, meant: tuple[str, str]) -> None:
    assert parse_name(PREFIX + name, PREFIX) == meant


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"foo.com", "expected '/gfrouter/'KEY/ADDRESS"),
        (b"", "expected '/gfrouter/'KEY/ADDRESS"),
        (b"foo.com/app/127.0.0.1:3031", "expected '/gfrouter/'KEY/ADDRESS"),
        (b"foo.com/127.0.0.1:3031/", "expected '/gfrouter/'KEY/ADDRESS"),
        (b"/127.0.0.1:3031", "key of 0 bytes, expected 1 to 255"),
        (b"foo.com/", "address of 0 bytes, expected 1 to 255"),
        (b"k" * 256 + b"/a", "key of 256 bytes, expected 1 to 255"),
        (b"k/" + b"%61" * 256, "address of 256 bytes, expected 1 to 255"),
        (b"foo.com%/a", "a % in the key that two hexadecimal digits do not follow"),
        (b"foo.com/%4", "a % in the address that two hexadecimal digits do not follow"),
        (b"foo.com/%zz", "a % in the address that two hexadecimal digits do not follow"),
        (b"foo%FF/a", "the key is not UTF-8"),
        (b"foo\xff/a", "the key is not UTF-8"),
    ],
)
def test_a_bad_name_is_told_with_what_is_wrong(name: bytes, why: str) -> None:
    with pytest.raises(EntryError) as caught:
        parse_name(PREFIX + name, PREFIX)
    assert caught.value.reason == "bad key"
    assert why in str(caught.value)
    assert str(caught.value).startswith("'/gfrouter/")


def test_a_name_outside_the_prefix_is_none_of_ours() -> None:
    with pytest.raises(EntryError, match="expected"):
        parse_name(b"/other/foo.com/a", PREFIX)


@pytest.mark.parametrize(
    ("value", "node"),
    [
        (b"", Node("a")),
        (b" \n", Node("a")),
        (b"{}", Node("a")),
        (b'{"weight": 3, "backup": 1, "modifier1": 9, "modifier2": 255}', Node("a", 3, 1, 9, 255)),
        (b'{"algorithm": "lrc"}', Node("a", algorithm="lrc")),
        (b'{"pid": 4711, "note": {"weight": "heavy"}}', Node("a")),
        (b'{"weight": 2147483647}', Node("a", 2**31 - 1)),
    ],
)
def test_a_value_describes_the_node(value: bytes, node: Node) -> None:
    assert parse_value("a", value) == node


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"weight=3", "no JSON: "),
        (b"\xff\xfe", "no JSON: "),
        (b"[" * 4000, "no JSON: "),
        (b"[]", "a JSON list, expected an object"),
        (b"null", "a JSON NoneType, expected an object"),
        (b"3", "a JSON int, expected an object"),
        (b'{"weight": 0}', "weight is out of range (legal: 1 to 2147483647)"),
        (b'{"weight": -1}', "weight is out of range"),
        (b'{"weight": 2147483648}', "weight is out of range"),
        (b'{"weight": %s}' % (b"9" * 4000), "weight is out of range"),
        (b'{"weight": true}', "weight is no whole number"),
        (b'{"weight": "3"}', "weight is no whole number"),
        (b'{"weight": 3.0}', "weight is no whole number"),
        (b'{"weight": 1e400}', "weight is no whole number"),
        (b'{"weight": NaN}', "weight is no whole number"),
        (b'{"weight": null}', "weight is no whole number"),
        (b'{"backup": -1}', "backup is out of range (legal: 0 to 2147483647)"),
        (b'{"modifier1": 256}', "modifier1 is out of range (legal: 0 to 255)"),
        (b'{"modifier2": false}', "modifier2 is no whole number (legal: 0 to 255)"),
        (b'{"algorithm": 1}', "algorithm is no algorithm (legal: wrr, lrc, "),
        (b'{"algorithm": "fair"}', "algorithm is no algorithm (legal: wrr, lrc, "),
        (b" " * (LARGEST_VALUE + 1), "a value of 4097 bytes, at most 4096"),
    ],
)
def test_a_bad_value_is_told_with_what_is_wrong(value: bytes, why: str) -> None:
    with pytest.raises(EntryError) as caught:
        parse_value("a", value)
    assert caught.value.reason == "bad value"
    assert why in str(caught.value)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_garbage_gives_a_node_or_the_one_error(name: bytes, value: bytes) -> None:
    entries = Entries(PREFIX, 10)
    try:
        key = entries.put(PREFIX + name, value)
    except EntryError:
        assert entries.pools() == {}
    else:
        assert len(entries.nodes(key)) == 1


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(TEXT, TEXT)
def test_any_key_and_address_can_be_written(key: str, address: str) -> None:
    name = encode_name(PREFIX, key, address)
    assert name.isascii()
    assert parse_name(name, PREFIX) == (key, address)


def test_an_address_is_written_so_that_people_can_read_it() -> None:
    assert encode_name(PREFIX, "foo.com", "127.0.0.1:3031") == b"/gfrouter/foo.com/127.0.0.1:3031"
    assert encode_name(PREFIX, "foo.com", "/run/a b.sock") == b"/gfrouter/foo.com/%2Frun%2Fa%20b.sock"


def test_two_entries_for_the_same_node_keep_it_until_the_last_is_gone() -> None:
    entries = Entries(PREFIX, 10)
    entries.put(PREFIX + b"foo.com/127.0.0.1:3031", b"")
    entries.put(PREFIX + b"foo%2Ecom/127.0.0.1%3A3031", b"")
    assert entries.delete(PREFIX + b"foo.com/127.0.0.1:3031") == "foo.com"
    assert entries.nodes("foo.com") == [Node("127.0.0.1:3031")]
    assert entries.delete(PREFIX + b"foo%2Ecom/127.0.0.1%3A3031") == "foo.com"
    assert entries.pools() == {}


def test_deleting_what_is_not_known_says_nothing() -> None:
    entries = Entries(PREFIX, 10)
    entries.put(PREFIX + b"foo.com/a", b"")
    assert entries.delete(PREFIX + b"foo.com/b") is None
    assert entries.delete(PREFIX + b"bar.com/a") is None
    assert entries.delete(PREFIX + b"too/deep/a") is None
    assert entries.size == 1


def test_one_too_many_is_refused_and_known_ones_can_still_change() -> None:
    entries = Entries(PREFIX, 1)
    entries.put(PREFIX + b"foo.com/a", b"")
    with pytest.raises(EntryError, match=r"1 are kept, and '/gfrouter/foo.com/b' would be one more"):
        entries.put(PREFIX + b"foo.com/b", b"")
    assert entries.put(PREFIX + b"foo.com/a", b'{"weight": 2}') == "foo.com"
    assert entries.nodes("foo.com") == [Node("a", weight=2)]


NAMES = st.builds(
    lambda key, address: PREFIX + b"%s/%s" % (key, address),
    st.sampled_from([b"foo.com", b"foo%2Ecom", b"bar", b"bad%", b"deep/er"]),
    st.sampled_from([b"127.0.0.1:1", b"127.0.0.1%3A1", b"127.0.0.1:2", b""]),
)
VALUES = st.sampled_from([b"", b'{"weight": 2}', b'{"weight": 3}', b'{"weight": true}', b"rubbish"])


@given(st.lists(st.tuples(NAMES, st.none() | VALUES), max_size=40))
def test_what_is_known_depends_only_on_what_etcd_holds(events: list[tuple[bytes, bytes | None]]) -> None:
    """The entries, one event after the other, against a plain dictionary that is read anew each time."""
    entries, held = Entries(PREFIX, 1000), dict[bytes, bytes]()
    told: dict[str, list[Node]] = {}
    for name, value in events:
        if value is None:
            held.pop(name, None)
            touched = entries.delete(name)
        else:
            held[name] = value
            try:
                touched = entries.put(name, value)
            except EntryError:
                touched = entries.delete(name)
        if touched is not None:
            told[touched] = entries.nodes(touched)
        model = _understood(held)
        assert entries.pools() == model
        assert {key: nodes for key, nodes in told.items() if nodes} == model
        assert entries.size == sum(map(len, model.values()))


def _understood(held: dict[bytes, bytes]) -> dict[str, list[Node]]:
    known: dict[str, list[Node]] = {}
    for name in sorted(held):
        parts = name.decode().removeprefix("/gfrouter/").replace("%2E", ".").replace("%3A", ":").split("/")
        if (
            len(parts) != 2
            or "%" in parts[0]
            or not parts[1]
            or held[name] not in (b"", b'{"weight": 2}', b'{"weight": 3}')
        ):
            continue
        weight = json.loads(held[name] or b"{}").get("weight", 1)
        known.setdefault(parts[0], []).append(Node(parts[1], weight=weight))
    return known
