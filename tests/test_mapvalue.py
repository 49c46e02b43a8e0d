"""uWSGI's values of a cache and of a code string, and files of them: which nodes they mean, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.mapvalue import MOST, nodes_of, parse_items
from discovery.nodes import Unreadable
from router.node import Node


@pytest.mark.parametrize(
    ("value", "nodes"),
    [
        ("10.0.0.5:3031", [Node("10.0.0.5:3031")]),
        ("/run/a.sock,7", [Node("/run/a.sock", modifier1=7)]),
        ("@app,7,8", [Node("@app", modifier1=7, modifier2=8)]),
        (":1,7|:2,8", [Node(":1", modifier1=7), Node(":2", modifier1=8)]),
        (":1|:2|:1", [Node(":1", weight=2), Node(":2")]),
        ("a.sock", [Node("a.sock")]),
    ],
)
def test_a_value_names_nodes(value: str, nodes: list[Node]) -> None:
    assert nodes_of(value) == nodes


@pytest.mark.parametrize("value", ["", "|", ":1|", "|:1", ":1||:2", ":0", ":1,256", ":1,7,8,9", "10.0.0.300:1", "a\0b"])
def test_a_value_that_names_no_node_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        nodes_of(value)


def test_one_value_names_so_many_nodes_at_most() -> None:
    assert len(nodes_of("|".join(f"/{n}" for n in range(MOST)))) == MOST
    with pytest.raises(ValueError, match=f"{MOST + 1} nodes, but {MOST} is the limit"):
        nodes_of("|".join(f"/{n}" for n in range(MOST + 1)))


@given(st.text())
def test_any_text_is_nodes_or_a_value_error(value: str) -> None:
    with suppress(ValueError):
        assert nodes_of(value)


def test_a_file_has_a_key_and_its_value_in_a_line() -> None:
    text = b"# KEY VALUE\n\nfoo.com\t:1,7|:2 # two\r\nbar%20com /run/a%20b.sock\nfoo.com :3\n"
    assert parse_items(text) == {
        "foo.com": [Node(":1", modifier1=7), Node(":2"), Node(":3")],
        "bar com": [Node("/run/a b.sock")],
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"foo.com", "a line is KEY VALUE"),
        (b"foo.com :1 weight=2", "a line is KEY VALUE"),
        (b"foo.com :1,999", "modifier 999 is out of range"),
        (b"foo.com :1\nfoo.com :2|:1", "line 3: the same node of the same key as in line 2"),
        (b"x" * 256 + b" :1", "a key of 256 bytes"),
        (b"foo.com %", "is no byte"),
    ],
)
def test_one_wrong_line_spoils_the_file(line: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_items(b"good.com :1\n" + line)
