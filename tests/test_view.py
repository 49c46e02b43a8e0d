"""The JSON of the admin API, from tables whose feeds are told what to say."""

import dataclasses
import json
import math
from typing import Any

import pytest

from router import view
from router.feed import Feed
from router.keyrules import NO_RULES, KeyRules
from router.node import Node
from router.sourcestate import Watched
from router.static import FALLBACK, TO
from router.stats import Slot
from router.table import Table
from router.view import State

NOW = 1000.0


class Unrun:
    """A source whose feed the tests tell what to say."""

    name = ""

    def run(self, feed: Feed) -> None: ...


def a_table() -> Table:
    """Two sources that know foo.com, the first one describing what both know; bar.com is the second one's."""
    table = Table()
    first, second = table.feed("subscription"), table.feed("consul")
    first.announce("foo.com", Node(":1", weight=3))
    second.replace({"foo.com": [Node(":1", weight=1, backup=2), Node(":2", backup=1)], "bar.com": [Node(":2")]})
    return table


def state(
    table: Table,
    *shares: dict[str, Any],
    on_demand: tuple[str, ...] = (),
    stand_ins: tuple[str, ...] = (),
    warming: float = 0,
    rules: KeyRules = NO_RULES,
) -> State:
    slots = [Slot(number, pid=100 + number, counts=counts) for number, counts in enumerate(shares, 1)]
    rows = [Watched(Unrun(), feed).row() for feed in table.feeds]
    where = {"listen": [":80"]}
    return State(table, slots, rows, where, on_demand, stand_ins, 42, NOW - 60, warming, NOW, 5000.0, rules=rules)


def fail(table: Table, address: str, seconds: float = 30) -> None:
    table.fail(table.endpoints[address], NOW + seconds)


def share(key: str, **nodes: list[Any]) -> dict[str, Any]:
    return {"active": 1, "requests": 4, "pools": {key: [7, {f":{name[1:]}": counts for name, counts in nodes.items()}]}}


def test_the_status_adds_up() -> None:
    table = a_table()
    fail(table, ":2")
    found = view.status(
        state(
            table,
            {"active": 2, "requests": 5, "waiting": 1, "queued": {"foo.com": 2, "bar.com": 1}},
            {"active": 1, "requests": 6},
        )
    )
    assert (found["pid"], found["started"], found["uptime"]) == (42, 4940, 60)
    assert (found["pools"], found["nodes"], found["out"]) == (2, 2, 1)
    assert (found["in_flight"], found["requests"], found["waiting"], found["queued"]) == (3, 11, 1, 3)
    assert [one["name"] for one in found["sources"]] == ["subscription", "consul"]
    assert [(one["number"], one["pid"], one["state"]) for one in found["processes"]] == [
        (1, 101, "accepting"),
        (2, 102, "accepting"),
    ]


def test_a_router_process_that_is_down_has_no_pid() -> None:
    (found,) = view.status(State(Table(), [Slot(1)], [], {}, (), (), 1, 0, 0, 0, 0))["processes"]
    assert (found["pid"], found["state"], found["started"]) == (None, "down", None)


def test_the_nodes_of_options_are_no_pools_and_serve_what_has_no_node() -> None:
    table = a_table()
    options = table.feed("static")
    options.replace({TO: [Node(":8")], FALLBACK: [Node(":9")]})
    assert [one["key"] for one in view.pools(state(table))["pools"]] == ["foo.com", "bar.com"]
    assert view.status(state(table))["pools"] == 2
    named = {one["address"]: (one["keys"], one["options"]) for one in view.nodes(state(table))["nodes"]}
    assert named == {
        ":1": (["foo.com"], []),
        ":2": (["bar.com", "foo.com"], []),
        ":8": ([], ["to"]),
        ":9": ([], ["fallback"]),
    }
    found = view.lookup(state(table, stand_ins=(TO, FALLBACK)), "nobody.com")
    assert (found["outcome"], [one["address"] for one in found["nodes"]]) == ("node", [":8"])
    assert found["reasons"] == ["no source knows this key", "the nodes of option to serve it"]
    fail(table, ":2")
    found = view.lookup(state(table, stand_ins=(TO, FALLBACK)), "bar.com")
    assert [one["address"] for one in found["nodes"] if one["next"]] == [":9"]
    assert view.lookup(state(table), "bar.com")["outcome"] == "no node"


def test_pools_are_listed_with_their_sources() -> None:
    table = a_table()
    fail(table, ":1")
    assert view.pools(state(table, {"queued": {"foo.com": 2}}, {"queued": {"foo.com": 1}}))["pools"] == [
        {
            "key": "foo.com",
            "algorithm": "wrr",
            "nodes": 2,
            "out": 1,
            "drained": False,
            "queued": 3,
            "sources": ["subscription", "consul"],
        },
        {
            "key": "bar.com",
            "algorithm": "wrr",
            "nodes": 1,
            "out": 0,
            "drained": False,
            "queued": 0,
            "sources": ["consul"],
        },
    ]


def test_a_pool_has_its_nodes_with_what_all_processes_counted() -> None:
    table = a_table()
    table.pools["foo.com"].members[":1"].requests = 100  # of processes that are gone
    shares = share("foo.com", n1=[3, 0, 0, 1, 2, []]), share("foo.com", n1=[4, 0, 0, 1, 0, []])
    found = view.pool(state(table, *shares), "foo.com")
    assert found
    first, second = found["nodes"]
    assert (first["requests"], first["in_flight"], first["failures"]) == (107, 2, 2)
    assert (first["weight"], first["sources"]) == (3, ["subscription", "consul"])
    assert (second["requests"], second["backup"], second["sources"]) == (0, 1, ["consul"])


def test_an_unknown_pool_is_none() -> None:
    assert view.pool(state(a_table()), "baz.com") is None


def test_nodes_are_addresses_with_all_their_keys() -> None:
    table = a_table()
    found = {one["address"]: one for one in view.nodes(state(table, share("bar.com", n2=[5, 0, 0, 2, 0, []])))["nodes"]}
    assert found[":2"]["keys"] == ["bar.com", "foo.com"]
    assert (found[":2"]["requests"], found[":2"]["in_flight"]) == (5, 2)
    assert found[":1"]["sources"] == ["subscription", "consul"]


def test_nodes_of_one_state_alone() -> None:
    table = a_table()
    fail(table, ":2", 12.34)
    (out,) = view.nodes(state(table), "out")["nodes"]
    assert (out["address"], out["state"], out["retry_in"]) == (":2", "out", 12.3)
    (live,) = view.nodes(state(table), "live")["nodes"]
    assert (live["address"], live["retry_in"]) == (":1", None)


def test_a_node_whose_time_is_up_is_on_trial() -> None:
    table = a_table()
    fail(table, ":2", -1)
    (one,) = view.nodes(state(table), "trial")["nodes"]
    assert (one["address"], one["retry_in"]) == (":2", None)
    assert view.status(state(table))["out"] == 0


def test_a_lookup_says_who_describes_a_node_and_whom_that_overrides() -> None:
    found = view.lookup(state(a_table()), "foo.com")
    assert (found["outcome"], found["reasons"]) == ("node", ["1 node takes a turn"])
    first, second = found["nodes"]
    assert [(one["source"], one["describes"], one["weight"], one["backup"]) for one in first["said"]] == [
        ("subscription", True, 3, 0),
        ("consul", False, 1, 2),
    ]
    assert (first["next"], first["weight"], first["backup"]) == (True, 3, 0)
    assert (second["next"], second["backup"]) == (False, 1)  # a higher level, while the lowest one serves
    assert found["sources"] == [
        {"name": "subscription", "knows": True, "error": ""},
        {"name": "consul", "knows": True, "error": ""},
    ]


def test_the_next_level_serves_where_the_lowest_is_out() -> None:
    table = a_table()
    fail(table, ":1")
    assert {one["address"]: one["next"] for one in view.lookup(state(table), "foo.com")["nodes"]} == {
        ":1": False,
        ":2": True,
    }


def test_where_all_are_out_nobody_is_next() -> None:
    table = a_table()
    fail(table, ":2")
    found = view.lookup(state(table), "bar.com")
    assert found["outcome"] == "no node"
    assert [(one["next"], one["state"], one["retry_in"]) for one in found["nodes"]] == [(False, "out", 30.0)]


def test_one_on_trial_may_be_next() -> None:
    table = a_table()
    fail(table, ":2", -1)
    found = view.lookup(state(table), "bar.com")
    assert (found["outcome"], found["nodes"][0]["next"]) == ("node", True)


def test_what_is_drained_is_no_candidate_and_the_reason_says_so() -> None:
    table = a_table()
    table.drain(((":1",), ("bar.com",)))
    found = view.lookup(state(table), "foo.com")
    assert [(one["next"], one["drained"]) for one in found["nodes"]] == [(False, True), (True, False)]
    found = view.lookup(state(table), "bar.com")
    assert (found["outcome"], found["reasons"], found["nodes"][0]["next"]) == ("no node", ["the key is drained"], False)
    assert [one["drained"] for one in view.pools(state(table))["pools"]] == [False, True]
    assert view.status(state(table))["drained"] == [{"what": ":1", "kind": "node"}, {"what": "bar.com", "kind": "key"}]
    fail(table, ":2")
    (reason,) = view.lookup(state(table), "foo.com")["reasons"]
    assert reason.startswith("every node of this key that is not drained has failed")
    table.drain(((":1", ":2"), ()))
    assert view.lookup(state(table), "foo.com")["reasons"] == ["every node of this key is drained"]


def test_a_drain_counts_what_all_processes_have_in_flight_there() -> None:
    table = a_table()
    table.drain(((":2", ":9"), ("foo.com",)))
    shares = [
        share("bar.com", n2=[5, 0, 0, 2, 0, []]),
        share("foo.com", n2=[5, 0, 0, 1, 0, []], n1=[5, 0, 0, 4, 0, []]),
    ]
    shown = state(table, *shares)
    assert view.drains(shown) == {
        "drains": [
            {"what": ":2", "kind": "node", "drained": True, "known": True, "nodes": [":2"], "in_flight": 3},
            {"what": ":9", "kind": "node", "drained": True, "known": False, "nodes": [], "in_flight": 0},
            {"what": "foo.com", "kind": "key", "drained": True, "known": True, "nodes": [":1", ":2"], "in_flight": 5},
        ]
    }
    unsure = dataclasses.replace(shown, all_counted=False)
    assert [one["in_flight"] for one in view.drains(unsure)["drains"]] == [None] * 3


def test_who_is_out_until_something_happens_has_no_time() -> None:
    table = a_table()
    fail(table, ":2", math.inf)
    assert [(one["state"], one["retry_in"]) for one in view.nodes(state(table), "out")["nodes"]] == [("out", None)]


def test_an_unknown_key_is_refused_or_waits() -> None:
    table = a_table()
    refused = view.lookup(state(table), "baz.com")
    assert (refused["outcome"], refused["nodes"], refused["algorithm"]) == ("unknown key", [], None)
    waits = view.lookup(state(table, warming=7), "baz.com")
    assert (waits["outcome"], waits["reasons"]) == ("wait", ["still warming: it waits up to 7 s for subscription"])
    asked = view.lookup(state(table, on_demand=("dns",)), "baz.com")
    assert (asked["outcome"], asked["reasons"]) == (
        "wait",
        ["dns is asked for it, and the request waits for the answer"],
    )


def test_a_lookup_names_who_cannot_see() -> None:
    table = a_table()
    table.feeds[0].fail("gone")
    table.feeds[1].fail("SERVFAIL", "foo.com")
    found = {one["name"]: one["error"] for one in view.lookup(state(table), "foo.com")["sources"]}
    assert found == {"subscription": "gone", "consul": "SERVFAIL"}


def test_a_name_is_shown_by_what_it_stands_for_or_as_unresolved() -> None:
    table = Table()
    table.feed("consul").set("foo.com", [Node("app.lan:1", weight=4), Node("new.lan:1")])
    table.resolve("app.lan:1", ["10.0.0.1:1", "10.0.0.2:1"])
    table.names["new.lan:1"].error = "no such name"
    found = view.lookup(state(table), "foo.com")
    assert [(one["address"], one["host"], one["said"][0]["weight"]) for one in found["nodes"]] == [
        ("10.0.0.1:1", "app.lan:1", 4),
        ("10.0.0.2:1", "app.lan:1", 4),
    ]
    assert found["unresolved"] == [{"address": "new.lan:1", "error": "no such name", "sources": ["consul"]}]


@pytest.mark.parametrize("key", [b'\xff\x00"\\', b"", "é".encode(), b"a/b?c=d&e"])
def test_a_key_of_any_bytes_comes_back_as_it_is(key: bytes) -> None:
    text = key.decode("utf-8", "surrogateescape")
    table = Table()
    table.feed("x").announce(text, Node(":1"))
    for found in (view.lookup(state(table), text), view.pool(state(table), text)):
        assert found
        assert json.loads(json.dumps(found))["key"].encode("utf-8", "surrogateescape") == key
