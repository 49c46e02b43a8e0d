"""The text of a file of nodes: each line is a node, a comment, or an error that names it."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import nodes
from discovery.nodes import LONGEST_LINE, Unreadable, parse
from router.address import AddressError, parse_node
from router.node import Node


def test_a_whole_file() -> None:
    text = """\
# who serves what

foo.com  10.0.0.5:3031\tweight=3   # the large one
foo.com  /run/foo.sock  backup=1 modifier1=7 modifier2=255 algorithm=hash:HTTP_X_USER
\t bar.com:8080 app.internal:3031
b%C3%BCcher.de [::1]:3031 #
bücher.de @abstract
a%20b /run/a%20b%23.sock
%25 :3031
c#d 10.0.0.5:3031"""
    assert parse(text.encode()) == {
        "foo.com": [
            Node("10.0.0.5:3031", weight=3),
            Node("/run/foo.sock", backup=1, modifier1=7, modifier2=255, algorithm="hash:HTTP_X_USER"),
        ],
        "bar.com:8080": [Node("app.internal:3031")],
        "bücher.de": [Node("[::1]:3031"), Node("@abstract")],
        "a b": [Node("/run/a b#.sock")],
        "%": [Node(":3031")],
        "c#d": [Node("10.0.0.5:3031")],
    }


@pytest.mark.parametrize("data", [b"", b"\n", b"#", b" \t\r\n# nothing\r\n", b"\xef\xbb\xbf", b"#no\xc3\xbcde\n"])
def test_a_file_that_says_nothing_means_no_nodes(data: bytes) -> None:
    assert parse(data) == {}


@pytest.mark.parametrize("data", [b"a :1\r\nb :2\r\n", b"\xef\xbb\xbfa :1\nb :2", b"a\t:1\n\n\nb   :2"])
def test_line_ends_and_marks_of_other_systems(data: bytes) -> None:
    assert parse(data) == {"a": [Node(":1")], "b": [Node(":2")]}


def test_a_key_may_be_any_bytes() -> None:
    assert parse(b"%ff%00%0A :1") == {"\udcff\0\n": [Node(":1")]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("foo.com", "the address is missing (legal: KEY ADDRESS [SETTING=VALUE ...]): 'foo.com'"),
        ("foo.com # :1", "the address is missing (legal: KEY ADDRESS [SETTING=VALUE ...]): 'foo.com # :1'"),
        ("a 10.0.0.5", "address '10.0.0.5': no port, and no path that begins with / (or @): 'a 10.0.0.5'"),
        ("a run/x.sock", "address 'run/x.sock': no port, and no path"),
        ("a b:70000", "address 'b:70000': port 70000 is out of range"),
        ("a /x%00y", "address '/x\\x00y': the address has a NUL byte inside"),
        ("a :1 weight=0", "weight=0: out of range (legal: 1 to 2147483647): 'a :1 weight=0'"),
        ("a :1 weight=", "weight=: a number is missing (legal: 1 to 2147483647)"),
        ("a :1 backup=-1", "backup=-1: out of range (legal: 0 to 2147483647)"),
        ("a :1 algorithm=fair", "algorithm=fair: no algorithm (legal: wrr, lrc, "),
        ("a :1 modifier1=256", "modifier1=256: out of range (legal: 0 to 255)"),
        ("a :1 modifier2=x", "modifier2=x: not a whole number (legal: 0 to 255)"),
        ("a :1 weight=1 weight=1", "weight is there twice"),
        (
            "a :1 colour=1",
            "setting 'colour=1' is not known (known: weight=, backup=, modifier1=, modifier2=, algorithm=)",
        ),
        ("a :1 :2", "setting ':2' is not known"),
        ("a :1#b", "address ':1#b': "),
        ("100% :1", "'%' is no byte (a percent sign itself is %25)"),
        ("a [fe80::1%eth0]:1", "'%et' is no byte (a percent sign itself is %25)"),
        ("a\x01b :1", "control character 0x01 (in a key or address write %01)"),
        ("a\x00 :1", "control character 0x00"),
        ("a\xa0:1", "the address is missing"),
        ("k" * 256 + " :1", "a key of 256 bytes, but 255 is the limit"),
        ("a /" + "p" * LONGEST_LINE, f"{LONGEST_LINE + 3} bytes, but {LONGEST_LINE} is the limit"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(f"good :1\n\n{line}\nbad\n".encode())
    assert str(caught.value).startswith(f"line 3: {message}")
    assert len(str(caught.value)) < 400


def test_a_line_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(Unreadable, match=r"^line 2: byte 0xff at 3 is not UTF-8: 'a \\\\xff'$"):
        parse(b"a :1\na \xff\n")


def test_the_same_node_twice_names_both_lines() -> None:
    with pytest.raises(Unreadable, match=r"^line 4: the same node of the same key as in line 2: 'a :1 weight=2'$"):
        parse(b"# x\na :1\nb :1\na :1 weight=2\n")


def test_there_is_a_limit_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MOST_NODES", 2)
    assert len(parse(b"a :1\nb :1\n# \n")) == 2
    with pytest.raises(Unreadable, match=r"^line 4: more than 2 nodes: 'c :1'$"):
        parse(b"a :1\nb :1\n# \nc :1\n")


@given(st.binary(max_size=200) | st.text("a:1 /%20=#weight\t\n\r", max_size=200).map(str.encode))
def test_any_bytes_are_nodes_or_the_one_error(data: bytes) -> None:
    try:
        pools = parse(data)
    except Unreadable:
        return
    for key, found in pools.items():
        assert 0 < len(key.encode("utf-8", "surrogateescape")) <= 255
        assert len({node.address for node in found}) == len(found) > 0
        for node in found:
            parse_node(node.address)


def writable(address: str) -> bool:
    try:
        parse_node(address)
    except AddressError:
        return False
    return True


KEYS = st.binary(min_size=1, max_size=80)
ADDRESSES = (st.text(max_size=30).map("/".__add__) | st.just("[::1]:3031") | st.just("a.b:1")).filter(writable)
NODES = st.builds(
    Node,
    ADDRESSES,
    weight=st.integers(1, 2**31 - 1),
    backup=st.integers(0, 3),
    modifier1=st.integers(0, 255),
    modifier2=st.integers(0, 255),
)


@given(st.dictionaries(KEYS, st.lists(NODES, min_size=1, max_size=4, unique_by=lambda node: node.address), max_size=5))
def test_what_is_written_is_read(pools: dict[bytes, list[Node]]) -> None:
    lines = [
        f"{quote(key)} {quote(node.address)} weight={node.weight} backup={node.backup} "
        f"modifier1={node.modifier1} modifier2={node.modifier2}"
        for key, found in pools.items()
        for node in found
    ]
    assert parse("\n".join(lines).encode()) == {
        key.decode("utf-8", "surrogateescape"): found for key, found in pools.items()
    }


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=40).map(lambda key: key.decode("utf-8", "surrogateescape")),
        st.lists(
            st.builds(
                Node,
                st.sampled_from(["10.0.0.5:3031", "[::1]:1", "@a b", "/run/a%20#b\n.sock", "/run/\udcff", "app:1"]),
                weight=st.integers(1, 2**31 - 1),
                backup=st.integers(0, 2**31 - 1),
                modifier1=st.integers(0, 255),
                modifier2=st.integers(0, 255),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda node: node.address,
        ),
        max_size=3,
    )
)
def test_what_is_written_is_read_as_it_was(pools: nodes.Pools) -> None:
    assert parse(nodes.text_of(pools).encode()) == pools


def test_a_line_says_no_more_than_it_must() -> None:
    assert nodes.line_of("foo.com:80", Node("10.0.0.5:3031", modifier2=3)) == "foo.com:80 10.0.0.5:3031 modifier2=3"
    assert nodes.line_of("a b", Node("/run/#1.sock", weight=2, backup=1)) == "a%20b /run/%231.sock weight=2 backup=1"
