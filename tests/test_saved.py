"""What is known as one JSON value and back: the round trip, what is dropped, and who ends the staleness."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.endpoint import LIVE, OUT, Cause
from router.node import Node
from router.saved import LONGEST_CHECK, LONGEST_OUT, SKEW, NotOurs, Restored, restore, save
from router.shaping import ShapedFeed
from router.sourcestate import Watched
from router.static import TO
from router.table import Table

NOW, WALL = 1000.0, 1_700_000_000.0


class Quiet:
    """A source that says nothing, and remembers what it is told to."""

    def __init__(self, name: str, memory: Any = None) -> None:
        self.name = name
        self.memory = memory
        self.recalled: list[tuple[list[str], Any]] = []

    def run(self, feed: object) -> None:
        raise NotImplementedError

    def remember(self) -> Any:
        return self.memory

    def recall(self, pools: Any, memory: object) -> None:
        self.recalled.append((list(pools), memory))


class One:
    """A table with sources of these names."""

    def __init__(self, *names: str, max_nodes: int = 2**63) -> None:
        self.table = Table()
        self.sources = [
            Watched(Quiet(name), self.table.feed(name, max_nodes=max_nodes), clock=lambda: NOW, wall=lambda: WALL)
            for name in names
        ]
        self.feeds = [one.feed for one in self.sources]

    def save(self) -> Any:
        return json.loads(json.dumps(save(self.table, self.sources, now=NOW, wall=WALL)))

    def restore(self, saved: object, later: float = 0.0) -> Restored:
        return restore(saved, self.table, self.sources, now=5.0, wall=WALL + later)


texts = st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
addresses = st.builds("10.0.0.{}:{}".format, st.integers(1, 9), st.integers(1, 65535)) | st.just("app.lan:3031")
byte = st.integers(0, 255)
nodes = st.builds(
    Node, addresses, weight=st.integers(1, 2**31), backup=byte, modifier1=byte, modifier2=byte, vassal=texts,
    sni=st.booleans(), via=st.just("") | texts, cores=byte, load=st.integers(0, 2**64), last_check=st.floats(0, 2e9),
)  # fmt: skip
slices = st.dictionaries(texts, st.lists(nodes, min_size=1, max_size=3), max_size=4)


@given(slices, slices, st.lists(addresses, max_size=2, unique=True), st.lists(texts, max_size=2, unique=True))
def test_what_is_saved_comes_back(first: Any, second: Any, drained: list[str], keys: list[str]) -> None:
    before = One("consul", "etcd")
    before.feeds[0].replace(first)
    before.feeds[1].replace(second)
    before.table.drain((drained, keys))
    after = One("consul", "etcd")
    result = after.restore(before.save())
    assert result.dropped == 0
    for old, new in zip(before.feeds, after.feeds, strict=True):
        assert new.slices == old.slices
        kept = [(n.cores, n.load, n.last_check) for key in old.slices for n in old.slices[key].values()]
        assert kept == [(n.cores, n.load, n.last_check) for key in old.slices for n in new.slices[key].values()]
        assert new.spoken is False
        assert new.stale_since == (WALL if old.slices else None)
    assert {key: after.table.nodes(key) for key in after.table.pools} == {
        key: before.table.nodes(key) for key in before.table.pools
    }
    assert after.table.drained == before.table.drained


def test_who_was_out_is_out_for_the_rest_of_its_time() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node(":1"), Node(":2"), Node(":3")]})
    endpoints = before.table.endpoints
    before.table.fail(endpoints[":1"], NOW + 60, Cause.BROKEN, 3)
    before.table.fail(endpoints[":2"], NOW + 4, Cause.REFUSED)
    after = One("consul")
    assert after.restore(before.save(), later=10).dropped == 0
    one, two, three = (after.table.endpoints[address] for address in (":1", ":2", ":3"))
    assert (one.state, one.cause, one.times, one.out_until) == (OUT, Cause.BROKEN, 3, 5.0 + 50)
    assert (two.state, two.out_until) == (OUT, 5.0)  # on trial at once
    assert three.state == LIVE


def test_the_clock_that_was_put_back_makes_nobody_wait_longer() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node(":1")]})
    before.table.fail(before.table.endpoints[":1"], NOW + 60)
    after = One("consul")
    after.restore(before.save(), later=-SKEW)
    assert after.table.endpoints[":1"].out_until == 5.0 + 60


def test_a_host_name_serves_at_once_by_the_addresses_that_it_had() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node("app.lan:1")]})
    before.table.resolve("app.lan:1", ["10.0.0.1:1"])
    after = One("consul")
    assert after.restore(before.save()).dropped == 0
    assert [node.address for node in after.table.nodes("a")] == ["10.0.0.1:1"]


def test_a_first_replace_drops_what_it_denies_and_ends_the_staleness() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node(":1"), Node(":2")], "b": [Node(":3")]})
    after = One("consul")
    after.restore(before.save())
    feed = after.feeds[0]
    row = after.sources[0].row()
    assert (row["stale"], row["last_success"], row["age"], row["state"]) == (True, WALL, 0.0, "remembered")
    feed.fail("refused")
    assert after.sources[0].row()["stale"] is True and set(after.table.pools) == {"a", "b"}
    feed.replace({"a": [Node(":1")]})
    assert {key: [node.address for node in after.table.nodes(key)] for key in after.table.pools} == {"a": [":1"]}
    assert (after.sources[0].row()["stale"], after.sources[0].row()["state"]) == (False, "ok")


def test_what_is_stale_is_saved_again_with_when_its_source_was_heard() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node(":1")]})
    saved = before.save()
    saved["sources"]["consul"]["heard"] = WALL - 3600
    once = One("consul")
    once.restore(saved)
    twice = One("consul")
    twice.restore(once.save())
    assert twice.feeds[0].stale_since == WALL - 3600


def test_sources_that_are_configured_no_more_and_the_options_nodes_are_dropped() -> None:
    before = One("consul", "static")
    before.feeds[0].replace({"a": [Node(":1")]})
    before.feeds[1].replace({TO: [Node(":2")]})
    saved = before.save()
    after = One("etcd", "static")
    assert after.restore(saved).dropped == 0
    assert not after.table.pools


def test_a_source_gets_what_it_remembered() -> None:
    before = One("subscription")
    before.feeds[0].announce("a", Node(":1"))
    source = before.sources[0].source
    assert isinstance(source, Quiet)
    source.memory = [["a", ":1", 7]]
    after = One("subscription")
    after.restore(before.save())
    source = after.sources[0].source
    assert isinstance(source, Quiet)
    assert source.recalled == [(["a"], [["a", ":1", 7]])]


def test_min_nodes_holds_back_what_the_first_word_denies_and_what_was_held_back() -> None:
    def shaped() -> tuple[Table, list[Watched]]:
        table = Table()
        table.feeds.append(ShapedFeed(table, "dns", 2**63, 2**63, min_nodes=2))
        return table, [Watched(Quiet("dns"), table.feeds[0])]

    table, sources = shaped()
    table.feeds[0].replace({"a": [Node(":1"), Node(":2")]})
    table.feeds[0].replace({"a": [Node(":1")]})  # :2 is held back
    saved = save(table, sources, now=NOW, wall=WALL)
    table, sources = shaped()
    restore(saved, table, sources, now=NOW, wall=WALL)
    assert [node.address for node in table.nodes("a")] == [":1", ":2"]
    table.feeds[0].replace({})
    assert [node.address for node in table.nodes("a")] == [":1", ":2"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "no state of a gfrouter"),
        ([], "no state of a gfrouter"),
        ({"what": "other"}, "no state of a gfrouter"),
        ({"version": 2}, "its version is 2"),
        ({"version": True}, "its version is True"),
        ({"time": "now"}, "does not say when"),
        ({"time": float("nan")}, "does not say when"),
        ({"time": WALL + SKEW + 1}, "in the future"),
    ],
)
def test_what_is_not_ours_is_refused_whole(change: Any, reason: str) -> None:
    saved = {**One("consul").save(), **change} if isinstance(change, dict) else change
    with pytest.raises(NotOurs, match=reason):
        One("consul").restore(saved)


GOOD = [":1", 1, 0, 0, 0, "", "", "", False, 0, 0, 0]


@pytest.mark.parametrize(
    "bad",
    [
        None, [], [":1"], {}, "x", [*GOOD, 1], [*GOOD, ""], [*GOOD, "a", "b"],
        [1, *GOOD[1:]], ["fd://3", *GOOD[1:]], [":0", *GOOD[1:]],
        [":1", 0, *GOOD[2:]], [":1", "1", *GOOD[2:]], [":1", 10**40, *GOOD[2:]], [":1", 1, -1, *GOOD[3:]],
        [":1", 1, 0, 256, *GOOD[4:]], ["/" + "x" * 5000, *GOOD[1:]], ["/\ud800", *GOOD[1:]],
        [*GOOD[:5], "", "\ud800", *GOOD[7:]], [*GOOD[:11], float("inf")], [*GOOD[:11], None],
    ],
)  # fmt: skip
def test_a_bad_node_costs_itself_alone(bad: Any) -> None:
    saved = One("consul").save()
    saved["sources"]["consul"]["pools"] = {"a": [bad, [":2", *GOOD[1:]]]}
    after = One("consul")
    result = after.restore(saved)
    assert (result.dropped, result.nodes) == (1, 1)
    assert [node.address for node in after.table.nodes("a")] == [":2"]


@pytest.mark.parametrize(
    ("part", "value", "dropped"),
    [
        ("sources", [], 1), ("sources", {"consul": 1}, 1), ("sources", {"consul": {"pools": 1}}, 1),
        ("sources", {"consul": {"pools": {"": [GOOD], "\ud800": [GOOD], TO: [GOOD], "a": 1}}}, 4),
        ("names", 1, 1), ("names", {"x": 1, "y": [1], "z": ["fd://3"], "n": ["app.lan:1"]}, 4),
        ("out", 1, 1), ("out", [1, [":1", 9, 1, 1], [":1", 1, -1, 1], [":1", 1, 1, float("nan")]], 4),
        ("drained", None, 1), ("drained", [[1, "ok", ""], ["\ud800"]], 3),
    ],
)  # fmt: skip
def test_a_bad_part_costs_itself_alone(part: str, value: Any, dropped: int) -> None:
    assert One("consul").restore({**One("consul").save(), part: value}).dropped == dropped


def test_nobody_is_out_for_ever_by_a_file() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node(":1")]})
    saved = before.save()
    saved["out"] = [[":1", 3, 1, 1e14]]
    after = One("consul")
    after.restore(saved)
    assert after.table.endpoints[":1"].out_until == 5.0 + LONGEST_OUT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["sources", "names", "out", "drained"]), json_values), json_values)
def test_whatever_is_in_it_raises_nothing(parts: dict[str, Any], source: Any) -> None:
    sources = {"consul": {"pools": source, "memory": source, "heard": source}}
    One("consul").restore({**One("consul").save(), "sources": sources, **parts})


def test_what_the_limits_leave_no_room_for_is_rejected_as_ever() -> None:
    before = One("consul")
    before.feeds[0].replace({"a": [Node(":1"), Node(":2")]})
    after = One("consul", max_nodes=1)
    result = after.restore(before.save())
    assert (result.nodes, dict(after.feeds[0].rejected)) == (1, {"too many nodes": 1})


def test_a_source_with_a_fault_costs_no_other_what_it_keeps(caplog: pytest.LogCaptureFixture) -> None:
    def fault(*arguments: object) -> None:
        raise RuntimeError("ours")

    before = One("consul", "etcd", "file")
    for feed in before.feeds:
        feed.replace({"foo.com": [Node("10.0.0.1:3031")]})
    before.sources[0].source.remember = fault  # type: ignore[attr-defined]
    before.sources[1].source.memory = {1, 2}  # type: ignore[attr-defined]
    after = One("consul", "etcd", "file")
    after.sources[2].source.recall = fault  # type: ignore[attr-defined]
    assert after.restore(before.save()).nodes == 3
    assert caplog.messages == [
        "consul: dropped, bad memory: remember: RuntimeError('ours')",
        "etcd: dropped, bad memory: remember: TypeError('Object of type set is not JSON serializable')",
        "file: dropped, bad memory: recall: RuntimeError('ours')",
    ]


def test_who_fails_the_checks_is_out_until_they_had_time_to_tell_anew() -> None:
    before, after = One("consul"), One("consul")
    before.feeds[0].replace({"foo.com": [Node("10.0.0.1:3031")]})
    before.table.fail(before.table.endpoints["10.0.0.1:3031"], inf, Cause.CHECK, times=0)
    assert after.restore(before.save()).dropped == 0
    endpoint = after.table.endpoints["10.0.0.1:3031"]
    assert (endpoint.state, endpoint.cause, endpoint.out_until) == (OUT, Cause.CHECK, 5.0 + LONGEST_CHECK)
