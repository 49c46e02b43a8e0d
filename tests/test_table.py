"""Slices merged to pools: the union, who describes a node, what is logged, and a model to hold it against."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.endpoint import LIVE, OUT
from router.feed import Feed
from router.node import Node
from router.pool import Member
from router.table import Change, Table


class Recorded:
    """A table, and all it told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.health: list[tuple[str, int]] = []
        self.table = Table(
            on_change=self.changes.append,
            on_health=lambda endpoint: self.health.append((endpoint.address, endpoint.state)),
        )

    def addresses(self, key: str) -> list[str]:
        return [node.address for node in self.table.nodes(key)]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def addresses_of(members: Iterable[Member]) -> list[str]:
    return [member.endpoint.address for member in members]


def test_a_first_node_opens_the_pool_and_the_last_one_closes_it(recorded: Recorded) -> None:
    feed = recorded.table.feed("consul")
    feed.announce("foo.com", Node(":1"))
    feed.announce("foo.com", Node(":2"))
    feed.withdraw("foo.com", ":1")
    feed.withdraw("foo.com", ":2")
    told = [(c.opened, c.closed, addresses_of(c.joined), addresses_of(c.left)) for c in recorded.changes]
    assert told == [
        (True, False, [":1"], []),
        (False, False, [":2"], []),
        (False, False, [], [":1"]),
        (False, True, [], [":2"]),
    ]
    assert recorded.table.pools == {} and recorded.table.endpoints == {} and feed.slices == {}


def test_an_announcement_that_changes_nothing_tells_nobody_but_is_kept(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(":1", load=1, cores=2, last_check=100))
    feed.announce("foo.com", Node(":1", load=5, cores=2, last_check=110))
    assert len(recorded.changes) == 1
    node = recorded.table.nodes("foo.com")[0]
    assert (node.load, node.last_check) == (5, 110)


def test_a_node_described_anew_is_told(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(":1"))
    feed.announce("foo.com", Node(":1", weight=3, modifier1=9))
    assert addresses_of(recorded.changes[1].changed) == [":1"]
    assert recorded.table.nodes("foo.com") == [Node(":1", weight=3, modifier1=9)]


def test_set_is_all_that_a_source_knows_of_a_key(recorded: Recorded) -> None:
    feed = recorded.table.feed("dns")
    feed.set("foo.com", [Node(":1"), Node(":2")])
    feed.set("bar.com", [Node(":1")])
    feed.set("foo.com", [Node(":2"), Node(":3")])
    assert recorded.addresses("foo.com") == [":2", ":3"]
    assert recorded.addresses("bar.com") == [":1"]
    feed.set("foo.com", [])
    assert "foo.com" not in recorded.table.pools


def test_replace_drops_what_it_does_not_name(recorded: Recorded) -> None:
    feed = recorded.table.feed("etcd")
    feed.replace({"foo.com": [Node(":1")], "bar.com": [Node(":2")]})
    feed.replace({"bar.com": [Node(":2"), Node(":3")]})
    assert list(recorded.table.pools) == ["bar.com"]
    assert recorded.addresses("bar.com") == [":2", ":3"]
    feed.replace({})
    assert recorded.table.pools == {}


def test_a_source_has_spoken_when_it_has_given_everything_and_that_is_told_once() -> None:
    told: list[tuple[str, list[str]]] = []
    table = Table(on_spoken=lambda feed: told.append((feed.source, list(table.pools))))
    consul, heard = table.feed("consul"), table.feed("subscription")
    for feed in (consul, heard):
        feed.announce("foo.com", Node(":1"))
        feed.set("foo.com", [Node(":1")])
        feed.withdraw("foo.com", ":1")
        feed.fail("cannot see")
    assert not consul.spoken and told == []
    consul.replace({"bar.com": [Node(":2")]})
    consul.replace({})
    consul.fail("cannot see")
    assert consul.spoken and not heard.spoken
    assert told == [("consul", ["bar.com"])], "all that it sees is in the table by then"


def test_replace_with_an_empty_list_is_no_pool(recorded: Recorded) -> None:
    recorded.table.feed("etcd").replace({"foo.com": []})
    assert recorded.table.pools == {} and recorded.changes == []


def test_the_same_node_from_two_sources_goes_with_the_last(recorded: Recorded) -> None:
    first, second = recorded.table.feed("consul"), recorded.table.feed("dns")
    second.set("foo.com", [Node(":1", weight=2)])
    first.set("foo.com", [Node(":1", weight=1)])
    assert recorded.table.nodes("foo.com") == [Node(":1", weight=1)], "the first configured describes it"
    first.set("foo.com", [])
    assert recorded.table.nodes("foo.com") == [Node(":1", weight=2)]
    second.set("foo.com", [])
    assert recorded.table.pools == {}


def test_withdrawing_what_is_unknown_is_nothing(recorded: Recorded) -> None:
    feed = recorded.table.feed("consul")
    feed.withdraw("foo.com", ":1")
    feed.announce("foo.com", Node(":1"))
    feed.withdraw("foo.com", ":2")
    feed.withdraw("bar.com", ":1")
    assert recorded.addresses("foo.com") == [":1"]


def test_only_an_announcement_revives(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(":1"))
    endpoint = recorded.table.endpoints[":1"]
    recorded.table.fail(endpoint, out_until=30.0)
    assert recorded.table.empty
    feed.set("foo.com", [Node(":1")])
    assert endpoint.state == OUT
    feed.announce("foo.com", Node(":1"))
    assert endpoint.state == LIVE and not recorded.table.empty
    assert recorded.health == [(":1", OUT), (":1", LIVE)]


def test_health_belongs_to_the_address_whatever_keys_it_serves(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    for key in ("foo.com", "bar.com"):
        feed.announce(key, Node(":1"))
    recorded.table.fail(recorded.table.endpoints[":1"], out_until=30.0)
    for pool in recorded.table.pools.values():
        assert pool.pick(pool) is None
    feed.announce("bar.com", Node(":1"))
    assert recorded.table.pools["foo.com"].pick(recorded.table.pools["foo.com"]) is not None


def test_a_node_that_comes_back_starts_from_zero(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(":1"))
    member = recorded.table.pools["foo.com"].members[":1"]
    member.requests = member.in_flight = member.endpoint.in_flight = 1
    recorded.table.fail(member.endpoint, out_until=30.0)
    feed.withdraw("foo.com", ":1")
    feed.announce("foo.com", Node(":1"))
    again = recorded.table.pools["foo.com"].members[":1"]
    assert (again.requests, again.in_flight, again.endpoint.state) == (0, 0, LIVE)
    assert member.in_flight == 1, "the request in flight holds on to the old one"


def test_an_endpoint_that_has_left_changes_nothing_any_more(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(":1"))
    endpoint = recorded.table.endpoints[":1"]
    feed.withdraw("foo.com", ":1")
    recorded.table.fail(endpoint, out_until=30.0)
    assert recorded.table.out == set() and recorded.health == []


def test_fail_keeps_the_nodes_and_any_other_verb_clears_it(recorded: Recorded) -> None:
    feed = recorded.table.feed("dns")
    feed.set("foo.com", [Node(":1")])
    feed.fail(OSError("no route"))
    feed.fail(TimeoutError(), key="foo.com")
    assert (feed.error, feed.key_errors, feed.errors) == ("no route", {"foo.com": "TimeoutError"}, 2)
    assert recorded.addresses("foo.com") == [":1"]
    feed.set("foo.com", [Node(":1")])
    assert (feed.error, feed.key_errors) == (None, {})


def test_a_node_nobody_could_connect_to_costs_itself(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    feed = recorded.table.feed("consul")
    with caplog.at_level(logging.WARNING, "gfrouter"):
        feed.set("foo.com", [Node(":1"), Node("10.0.0.5:99999"), Node(":2")])
        feed.announce("foo.com", Node("10.0.0.5:x"))
    assert recorded.addresses("foo.com") == [":1", ":2"]
    assert feed.rejected == {"bad node address": 2}
    assert "10.0.0.5:99999" in caplog.text


def test_rejects_are_logged_ever_more_rarely(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    feed = recorded.table.feed("subscription")
    with caplog.at_level(logging.WARNING, "gfrouter"):
        for number in range(1, 250):
            feed.reject("no key", f"packet {number}")
    assert caplog.messages == [
        "subscription: dropped, no key: packet 1",
        "subscription: dropped, no key: packet 10 (10 of this kind so far)",
        "subscription: dropped, no key: packet 100 (100 of this kind so far)",
    ]
    assert feed.rejected["no key"] == 249


def test_keys_of_any_bytes_are_keys(recorded: Recorded) -> None:
    key = b"f\xff\x00".decode("utf-8", "surrogateescape")
    recorded.table.feed("etcd").announce(key, Node(":1"))
    assert recorded.addresses(key) == [":1"]


KEYS = st.sampled_from(["foo.com", "bar.com", "baz.com"])
NODES = st.builds(
    Node,
    address=st.sampled_from([":1", ":2", ":3", "/run/a.sock", "not:an:address"]),
    weight=st.integers(1, 3),
    backup=st.integers(0, 1),
    load=st.integers(0, 3),
)
POOLS = st.dictionaries(KEYS, st.lists(NODES, max_size=4), max_size=3)
SOURCES = st.integers(0, 2)


class ThreeSources(RuleBasedStateMachine):
    """Random verbs of three sources, against the naive union: three plain dicts, merged from scratch each time."""

    @initialize()
    def start(self) -> None:
        self.recorded = Recorded()
        self.table = self.recorded.table
        self.feeds: list[Feed] = [self.table.feed(f"source{number}") for number in range(3)]
        self.naive: list[dict[tuple[str, str], Node]] = [{}, {}, {}]
        self.replica = Table()
        self.copy = self.replica.feed("supervisor")

    def keep(self, source: int, key: str, node: Node) -> None:
        if node.address != "not:an:address":
            self.naive[source][key, node.address] = node

    def forget(self, source: int, key: str) -> None:
        self.naive[source] = {place: node for place, node in self.naive[source].items() if place[0] != key}

    @rule(source=SOURCES, key=KEYS, node=NODES)
    def announce(self, source: int, key: str, node: Node) -> None:
        self.feeds[source].announce(key, node)
        self.keep(source, key, node)
        if endpoint := self.table.endpoints.get(node.address):
            assert endpoint.state == LIVE

    @rule(source=SOURCES, key=KEYS, node=NODES)
    def withdraw(self, source: int, key: str, node: Node) -> None:
        self.feeds[source].withdraw(key, node.address)
        self.naive[source].pop((key, node.address), None)

    @rule(source=SOURCES, key=KEYS, nodes=st.lists(NODES, max_size=4))
    def set(self, source: int, key: str, nodes: list[Node]) -> None:
        self.feeds[source].set(key, nodes)
        self.forget(source, key)
        for node in nodes:
            self.keep(source, key, node)

    @rule(source=SOURCES, pools=POOLS)
    def replace(self, source: int, pools: dict[str, list[Node]]) -> None:
        self.feeds[source].replace(pools)
        self.naive[source] = {}
        for key, nodes in pools.items():
            for node in nodes:
                self.keep(source, key, node)

    @rule(source=SOURCES, key=st.none() | KEYS)
    def cannot_see(self, source: int, key: str | None) -> None:
        self.feeds[source].fail("down", key)

    @rule(address=st.sampled_from([":1", ":2", ":3"]))
    def fail_endpoint(self, address: str) -> None:
        if endpoint := self.table.endpoints.get(address):
            self.table.fail(endpoint, out_until=1.0)

    @invariant()
    def pools_are_the_union(self) -> None:
        union: dict[tuple[str, str], Node] = {}
        for slice_ in reversed(self.naive):
            union.update(slice_)
        seen = {(key, node.address): node for key in self.table.pools for node in self.table.nodes(key)}
        assert seen == union
        assert all(seen[place].load == node.load for place, node in union.items())

    @invariant()
    def endpoints_are_those_of_the_members(self) -> None:
        members = [member for pool in self.table.pools.values() for member in pool.members.values()]
        assert set(self.table.endpoints) == {member.endpoint.address for member in members}
        assert self.table.out == {e for e in self.table.endpoints.values() if e.state == OUT}
        for endpoint in self.table.endpoints.values():
            assert endpoint.members == {member for member in members if member.endpoint is endpoint}

    @invariant()
    def every_live_member_gets_its_turn(self) -> None:
        for pool in self.table.pools.values():
            live = [m for m in pool.members.values() if m.endpoint.state == LIVE]
            level = min((m.node.backup for m in live), default=0)
            first = {m.endpoint.address for m in live if m.node.backup == level}
            picked = {member.endpoint.address for _ in range(30) if (member := pool.pick(pool))}
            assert picked == first

    @invariant()
    def a_replica_fed_by_the_changes_is_equal(self) -> None:
        for change in self.recorded.changes:
            for member in change.left:
                self.copy.withdraw(change.key, member.endpoint.address)
            self.copy.set(change.key, self.table.nodes(change.key))
        self.recorded.changes.clear()
        assert {key: set(self.replica.nodes(key)) for key in self.replica.pools} == {
            key: set(self.table.nodes(key)) for key in self.table.pools
        }


TestThreeSources = ThreeSources.TestCase
TestThreeSources.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
