"""What `gfrouter status` and `gfrouter lookup` print: aligned, short, and no byte of a name reaches the terminal."""

import dataclasses
import math

import pytest

from router import view
from router.node import Node
from router.pages import drains_page, duration, lookup_page, status_page, table
from router.table import Table
from test_view import a_table, fail, state


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"),
        (7384, "2 h 3 min"), (86_400 * 12 + 3 * 3600 + 59, "12 d 3 h"),
    ],
)  # fmt: skip
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_as_wide_as_needed_and_a_long_name_stands_alone() -> None:
    rows: list[list[object]] = [["a", 1], ["x" * 40, 22], ["b", "\x1b[2J"]]
    assert table(("name", "n"), rows) == [
        "name                            n",
        "a                               1",
        "x" * 40 + "\n" + " " * 32 + "22",
        "b                               \\x1b[2J",
    ]


def test_a_lookup_in_full() -> None:
    found = a_table()
    fail(found, ":1", 12)
    assert lookup_page(view.lookup(state(found), "foo.com")) == [
        "foo.com: a request goes to a node: 1 node takes a turn",
        "",
        "node  next  weight  level  state      said by",
        ":1    no    3       0      out, 12 s  subscription, consul (overridden: weight 1, level 2)",
        ":2    yes   1       1      live       consul",
    ]


def test_a_lookup_of_an_unknown_key_says_who_was_asked() -> None:
    found = a_table()
    found.feeds[1].fail("connection refused")
    assert lookup_page(view.lookup(state(found), "\udcff.com")) == [
        "\\udcff.com: a request is refused: no source knows this key",
        "",
        "consul cannot see: connection refused",
        "does not know it: subscription",
    ]


def test_a_name_without_address_is_told() -> None:
    found = Table()
    found.feed("consul").set("foo.com", [Node("app.lan:1")])
    assert "app.lan:1 has no address: not looked up yet" in lookup_page(view.lookup(state(found), "foo.com"))


def test_a_status_in_full() -> None:
    found = a_table()
    fail(found, ":2", 61)
    found.feeds[1].fail("the leader is gone " * 6)
    found.feeds[0].reject("bad key")
    shown = state(found, {"active": 2, "requests": 1234}, warming=3)
    assert status_page(view.status(shown), view.nodes(shown, "out")["nodes"]) == [
        "gfrouter 0.1.0, pid 42, up 1 min",
        "  listen: :80",
        "  warming: requests for unknown keys wait, for 3 s at most",
        "",
        "2 keys, 2 nodes, 1 of them out; 1,234 requests, 2 in flight",
        "",
        "router  pid  state      starts  in flight  requests",
        "1       101  accepting  0       2          1234",
        "",
        "source        state    keys  nodes  errors  dropped  age",
        "subscription  ok       1     1      0       1        -",
        "consul        failing  2     3      1       0        -",
        "    the leader is gone the leader is gone the leader is gone the leader is gone",
        "    the leader is gone the leader is gone",
        "",
        "out of turn:",
        "  :2, tried again in 1 min 1 s",
    ]


def test_what_is_drained_stands_in_a_status_and_a_lookup() -> None:
    found = a_table()
    fail(found, ":1", math.inf)
    found.drain(((":2",), ("bar.com",)))
    shown = state(found, {})
    assert status_page(view.status(shown), view.nodes(shown, "out")["nodes"])[-7:] == [
        "", "out of turn:", "  :1", "", "drained:", "  node :2", "  key bar.com",
    ]  # fmt: skip
    assert lookup_page(view.lookup(shown, "bar.com"))[0] == "bar.com: a request is refused: the key is drained"
    assert ":2    no    1       0      live, drained  consul" in lookup_page(view.lookup(shown, "bar.com"))


def test_a_drain_has_a_line_for_each_word() -> None:
    found = a_table()
    found.drain(((":2", ":9"), ("foo.com", "\x1b[2J")))
    shown = state(found, {"pools": {"bar.com": [1, {":2": [5, 0, 0, 2, 0, []]}]}})
    assert drains_page(view.drains(shown), "drained") == [
        "node :2: drained, 2 in flight",
        "node :9: drained; nobody knows it now",
        "key foo.com: drained (2 nodes), 0 in flight",
        "key \\x1b[2J: drained; nobody knows it now",
    ]
    unsure = view.drains(dataclasses.replace(shown, all_counted=False))
    assert drains_page(unsure, "drained")[0] == "node :2: drained, not all routers say what is in flight"


def test_many_that_are_out_are_counted() -> None:
    found = Table()
    found.feed("x").set("foo.com", [Node(f":{port}") for port in range(1, 31)])
    for address in list(found.endpoints):
        fail(found, address)
    shown = state(found, {})
    lines = status_page(view.status(shown), view.nodes(shown, "out")["nodes"])
    assert lines[-1] == "  and 20 more"
    assert max(map(len, lines)) <= 80
