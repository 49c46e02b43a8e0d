"""Slices merged to pools: the union, who describes a node, what is logged, and a model to hold it against."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router import feed as feeds
from router.endpoint import LIVE, OUT, Cause
from router.feed import MOST_NAMES, Feed
from router.node import Node
from router.pool import Member
from router.table import MOST_ADDRESSES, UNLIMITED, Change, Table


class Recorded:
    """A table, and all it told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.health: list[tuple[str, int]] = []
        self.names: list[str] = []
        self.table = Table(
            on_change=self.changes.append,
            on_health=lambda endpoint: self.health.append((endpoint.address, endpoint.state)),
            on_name=self.names.append,
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


def test_a_set_that_changes_but_what_steers_nothing_tells_nobody_and_is_kept(recorded: Recorded) -> None:
    feed = recorded.table.feed("consul")
    for load, cores, last_check in [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 1)]:
        feed.set("foo.com", [Node(":1", load=load, cores=cores, last_check=last_check)])
        node = recorded.table.nodes("foo.com")[0]
        assert (node.load, node.cores, node.last_check) == (load, cores, last_check)
    assert len(recorded.changes) == 1


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


@pytest.mark.parametrize("cause", Cause)
def test_an_announcement_revives_only_who_was_refused(recorded: Recorded, cause: Cause) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(":1"))
    endpoint = recorded.table.endpoints[":1"]
    recorded.table.fail(endpoint, 30.0, cause)
    feed.announce("foo.com", Node(":1"))
    assert (endpoint.state == LIVE) is (cause == Cause.REFUSED)


def test_a_weaker_cause_changes_nothing_and_a_stronger_one_is_told(recorded: Recorded) -> None:
    recorded.table.feed("subscription").announce("foo.com", Node(":1"))
    endpoint = recorded.table.endpoints[":1"]
    recorded.table.fail(endpoint, 30.0, Cause.BROKEN, times=2)
    recorded.table.fail(endpoint, 90.0, Cause.REFUSED)
    assert (endpoint.cause, endpoint.out_until, endpoint.times) == (Cause.BROKEN, 30.0, 2)
    recorded.table.fail(endpoint, 20.0, Cause.CHECK)
    assert (endpoint.cause, endpoint.out_until) == (Cause.CHECK, 20.0)
    assert recorded.health == [(":1", OUT)] * 2


def test_who_is_drained_gets_no_new_requests_wherever_he_turns_up(recorded: Recorded) -> None:
    table, feed = recorded.table, recorded.table.feed("consul")
    feed.replace({"foo.com": [Node(":1"), Node(":2")], "bar.com": [Node(":1")]})
    table.drain(((":1", ":3"), ("baz.com",)))
    feed.set("qux.com", [Node(":3")])
    feed.set("baz.com", [Node(":2")])
    picked = {key: pool.pick(pool) for key, pool in table.pools.items()}
    assert {key: member and member.endpoint.address for key, member in picked.items()} == {
        "foo.com": ":2", "bar.com": None, "qux.com": None, "baz.com": None,
    }  # fmt: skip
    table.drain(((), ()))
    assert all(pool.pick(pool) for pool in table.pools.values())


def test_health_belongs_to_the_address_whatever_keys_it_serves(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    for key in ("foo.com", "bar.com"):
        feed.announce(key, Node(":1"))
    recorded.table.fail(recorded.table.endpoints[":1"], out_until=30.0)
    for pool in recorded.table.pools.values():
        assert pool.pick(pool) is None
    feed.announce("bar.com", Node(":1"))
    assert recorded.table.pools["foo.com"].pick(recorded.table.pools["foo.com"]) is not None


def test_who_leaves_while_it_is_out_is_out_no_more(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    for address in (":1", ":2"):
        feed.announce("foo.com", Node(address))
    recorded.table.fail(recorded.table.endpoints[":1"], out_until=30.0)
    feed.withdraw("foo.com", ":1")
    assert recorded.table.out == set() and not recorded.table.empty


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


def test_keys_that_clients_invent_and_a_source_cannot_see_are_not_remembered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "MOST_FAILING", 3)
    feed = Table().feed("dns")
    feed.set("foo.com", [Node(":1")])
    feed.fail("no answer", "foo.com")
    for number in range(9):
        feed.fail("no answer", f"{number}.com")
    assert [*feed.key_errors] == ["foo.com", "6.com", "7.com", "8.com"]


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


# Host names.

APP = "app.lan:3031"
ONE, TWO, THREE = (f"10.0.0.{number}:3031" for number in (1, 2, 3))


def test_a_name_is_told_and_has_no_node_before_it_is_resolved(recorded: Recorded) -> None:
    recorded.table.feed("consul").announce("foo.com", Node(APP))
    assert recorded.names == [APP]
    assert (recorded.table.pools, recorded.table.endpoints, recorded.changes) == ({}, {}, [])
    assert recorded.table.targets(APP) == ()


def test_a_name_stands_for_a_node_at_each_of_its_addresses(recorded: Recorded) -> None:
    recorded.table.feed("consul").announce("foo.com", Node(APP, weight=3, modifier1=9, load=4))
    recorded.table.resolve(APP, [ONE, TWO, ONE, "[fd00::1]:3031"])
    nodes = recorded.table.nodes("foo.com")
    assert nodes == [Node(a, weight=3, modifier1=9, host=APP) for a in (ONE, TWO, "[fd00::1]:3031")]
    assert [node.load for node in nodes] == [4, 4, 4]
    assert list(recorded.table.endpoints) == [ONE, TWO, "[fd00::1]:3031"]
    assert [(c.opened, c.source, addresses_of(c.joined)) for c in recorded.changes] == [
        (True, "consul", [ONE, TWO, "[fd00::1]:3031"])
    ]


def test_a_name_that_moves_takes_its_nodes_along_in_every_key(recorded: Recorded) -> None:
    feed = recorded.table.feed("consul")
    feed.set("foo.com", [Node(APP), Node(":1")])
    feed.set("bar.com", [Node(APP, weight=2)])
    recorded.table.resolve(APP, [ONE, TWO])
    survivor = recorded.table.endpoints[TWO]
    recorded.changes.clear()
    recorded.table.resolve(APP, [TWO, THREE])
    assert recorded.addresses("foo.com") == [":1", TWO, THREE]
    assert recorded.table.nodes("bar.com") == [Node(TWO, weight=2, host=APP), Node(THREE, weight=2, host=APP)]
    assert recorded.table.endpoints[TWO] is survivor
    told = [(c.key, addresses_of(c.joined), addresses_of(c.left), c.opened, c.closed) for c in recorded.changes]
    assert told == [("foo.com", [THREE], [ONE], False, False), ("bar.com", [THREE], [ONE], False, False)]
    recorded.table.resolve(APP, [])
    assert recorded.addresses("foo.com") == [":1"] and "bar.com" not in recorded.table.pools
    recorded.table.resolve(APP, [ONE])
    assert recorded.addresses("foo.com") == [":1", ONE] and recorded.addresses("bar.com") == [ONE]


def test_the_same_answer_again_changes_nothing(recorded: Recorded) -> None:
    recorded.table.feed("consul").announce("foo.com", Node(APP))
    recorded.table.resolve(APP, [ONE, TWO])
    recorded.changes.clear()
    recorded.table.resolve(APP, [TWO, ONE])
    assert recorded.changes == []


def test_an_address_from_a_name_and_a_number_is_one_member_which_the_number_describes(recorded: Recorded) -> None:
    feed = recorded.table.feed("consul")
    feed.set("foo.com", [Node(APP, weight=2), Node(ONE, weight=5)])
    recorded.table.resolve(APP, [ONE])
    assert recorded.table.nodes("foo.com") == [Node(ONE, weight=5)]
    feed.withdraw("foo.com", ONE)
    assert recorded.table.nodes("foo.com") == [Node(ONE, weight=2, host=APP)]
    feed.withdraw("foo.com", APP)
    assert recorded.table.pools == {}


def test_the_first_source_describes_an_address_whether_by_name_or_number(recorded: Recorded) -> None:
    first, second = recorded.table.feed("consul"), recorded.table.feed("dns")
    second.set("foo.com", [Node(ONE, weight=5)])
    first.set("foo.com", [Node(APP, weight=2)])
    recorded.table.resolve(APP, [ONE])
    assert recorded.table.nodes("foo.com") == [Node(ONE, weight=2, host=APP)]
    first.set("foo.com", [])
    assert recorded.table.nodes("foo.com") == [Node(ONE, weight=5)]


def test_a_name_goes_with_its_last_use(recorded: Recorded) -> None:
    first, second = recorded.table.feed("consul"), recorded.table.feed("dns")
    first.announce("foo.com", Node(APP))
    first.announce("bar.com", Node(APP))
    second.announce("foo.com", Node(APP))
    recorded.table.resolve(APP, [ONE])
    first.withdraw("foo.com", APP)
    assert recorded.addresses("foo.com") == [ONE]
    first.withdraw("bar.com", APP)
    assert recorded.table.names[APP].keys == {"foo.com": None}
    second.withdraw("foo.com", APP)
    assert (recorded.table.names, recorded.table.named, recorded.table.endpoints) == ({}, {}, {})
    assert recorded.names == [APP], "told once"
    first.announce("foo.com", Node(APP))
    assert recorded.names == [APP, APP] and recorded.table.targets(APP) == (), "a new one, not yet resolved"


def test_resolving_an_unknown_name_is_nothing(recorded: Recorded) -> None:
    recorded.table.resolve(APP, [ONE])
    assert (recorded.table.names, recorded.table.endpoints, recorded.changes) == ({}, {}, [])


@pytest.mark.parametrize(("addresses", "then"), [([ONE], [LIVE]), ([ONE, TWO], [OUT, OUT])])
def test_an_announcement_revives_the_only_address_of_its_name(
    recorded: Recorded, addresses: list[str], then: list[int]
) -> None:
    """Of several nobody knows which one has spoken, and a dead one must not come back for its neighbour's word."""
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(APP))
    recorded.table.resolve(APP, addresses)
    for endpoint in recorded.table.endpoints.values():
        recorded.table.fail(endpoint, out_until=30.0)
    feed.announce("foo.com", Node(APP))
    assert [endpoint.state for endpoint in recorded.table.endpoints.values()] == then


def test_so_many_members_are_there_by_host_names_at_most(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.table.MOST_NAMED", 5)
    feed = recorded.table.feed("subscription")
    for number in range(4):
        feed.announce(f"{number}.com", Node(APP))
    feed.announce("0.com", Node("10.0.0.9:1"))
    addresses = [ONE, TWO]
    recorded.table.resolve(APP, addresses)
    members = [member for pool in recorded.table.pools.values() for member in pool.members.values()]
    assert sum(bool(member.node.host) for member in members) == recorded.table.named_members == 5
    assert "host names" in recorded.table.names[APP].error
    feed.withdraw("0.com", APP)
    recorded.table.resolve(APP, addresses)
    assert recorded.table.named_members == 5, "the next lookup fills the room"
    for number in range(4):
        feed.withdraw(f"{number}.com", APP)
    assert recorded.table.named_members == 0 and recorded.table.nodes("0.com") == [Node("10.0.0.9:1")]


def test_an_announcement_of_a_name_describes_all_its_nodes_anew(recorded: Recorded) -> None:
    feed = recorded.table.feed("subscription")
    feed.announce("foo.com", Node(APP))
    recorded.table.resolve(APP, [ONE, TWO])
    feed.announce("foo.com", Node(APP, weight=4, last_check=9.0))
    assert recorded.table.nodes("foo.com") == [Node(ONE, weight=4, host=APP), Node(TWO, weight=4, host=APP)]
    assert [node.last_check for node in recorded.table.nodes("foo.com")] == [9.0, 9.0]


def test_a_name_has_so_many_addresses_at_most(recorded: Recorded) -> None:
    recorded.table.feed("consul").announce("foo.com", Node(APP))
    recorded.table.resolve(APP, [f"10.1.{n // 250}.{n % 250}:1" for n in range(MOST_ADDRESSES + 5)])
    assert len(recorded.table.endpoints) == MOST_ADDRESSES


# Limits.


def test_a_name_too_many_is_dropped_whoever_brings_it_and_in_whatever_number(recorded: Recorded) -> None:
    first, second = recorded.table.feed("consul"), recorded.table.feed("subscription")
    first.set("foo.com", [Node(f"app{number}.lan:3031") for number in range(MOST_NAMES + 10)])
    assert len(recorded.table.names) == first.size == MOST_NAMES
    assert first.rejected == {"too many host names": 10}
    assert not second.announce("bar.com", Node("other.lan:3031"))
    assert second.announce("bar.com", Node("app7.lan:3031")), "one that is known already costs nothing"
    assert second.announce("bar.com", Node(ONE))
    assert second.rejected == {"too many host names": 1}
    first.withdraw("foo.com", "app8.lan:3031")
    assert second.announce("bar.com", Node("other.lan:3031"))


def test_a_source_that_breaks_off_leaves_no_name_behind(recorded: Recorded) -> None:
    def nodes() -> Iterable[Node]:
        yield Node(APP)
        raise OSError("gone")

    feed = recorded.table.feed("consul")
    with pytest.raises(OSError, match="gone"):
        feed.set("foo.com", nodes())
    assert (recorded.table.names, feed.slices, feed.size) == ({}, {}, 0)


def test_nodes_beyond_the_limits_are_dropped_and_known_ones_are_not(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    feed = recorded.table.feed("subscription", max_keys=2, max_nodes=3)
    said = [feed.announce(key, Node(a)) for key in ("foo.com", "bar.com", "baz.com") for a in (ONE, TWO)]
    assert said == [True, True, True, False, False, False]
    assert feed.announce("foo.com", Node(TWO, weight=4))
    assert recorded.table.nodes("foo.com") == [Node(ONE), Node(TWO, weight=4)]
    assert (list(feed.slices), feed.size) == (["foo.com", "bar.com"], 3)
    assert caplog.messages == [
        f"subscription: dropped, too many nodes: 3 are kept, and {TWO!r} would be one more",
        "subscription: dropped, too many keys: 2 are kept, and 'baz.com' would be one more",
    ]
    assert feed.rejected == {"too many nodes": 1, "too many keys": 2}
    feed.withdraw("bar.com", ONE)
    assert feed.announce("baz.com", Node(TWO)), "room again"


def test_a_key_that_is_no_text_is_dropped_and_one_of_any_bytes_is_not(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """JSON can write half of a character; whoever reads the stats could not be told of it."""
    feed = recorded.table.feed("json-url")
    feed.replace({key: [Node(ONE)] for key in ("\ud800", "\udcff", "é")})
    assert list(recorded.table.pools) == ["\udcff", "é"]
    assert not feed.announce("\udc00", Node(ONE))
    assert caplog.messages == [r"json-url: dropped, bad key: '\ud800' is no text"]
    assert feed.rejected == {"bad key": 2}


def test_limits_are_each_sources_own(recorded: Recorded) -> None:
    first, second = recorded.table.feed("consul", 1, 1), recorded.table.feed("dns", 1, 1)
    assert first.announce("foo.com", Node(ONE)) and second.announce("bar.com", Node(TWO))


def test_all_of_a_key_may_be_exchanged_at_the_limit(recorded: Recorded) -> None:
    feed = recorded.table.feed("dns", max_keys=1, max_nodes=2)
    feed.set("foo.com", [Node(ONE), Node(TWO)])
    feed.set("foo.com", [Node(THREE), Node(":1"), Node(":2")])
    assert recorded.addresses("foo.com") == [THREE, ":1"]
    feed.replace({"bar.com": [Node(ONE), Node(TWO)]})
    assert recorded.addresses("bar.com") == [ONE, TWO] and feed.size == 2


def test_many_rejects_at_once_count_as_many_and_are_one_line(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    feed = recorded.table.feed("subscription")
    for times in (3, 5, 1, 400, 500, 91, 1):
        feed.reject("over the quota", "a.b.c.d", times)
    assert feed.rejected == {"over the quota": 1001}
    assert caplog.messages == [
        f"subscription: dropped, over the quota: a.b.c.d ({count} of this kind so far)" for count in (3, 409, 1000)
    ]


# The model.

NAMES = ["app.lan:1", "db.lan:1"]
NUMBERS = ["127.0.0.1:1", "127.0.0.1:2", "[::1]:1", ":1", "/run/a.sock"]
KEYS = st.sampled_from(["foo.com", "bar.com", "baz.com"])
NODES = st.builds(
    Node,
    address=st.sampled_from([*NAMES, *NUMBERS, "not:an:address"]),
    weight=st.integers(1, 3),
    backup=st.integers(0, 1),
    load=st.integers(0, 3),
)
POOLS = st.dictionaries(KEYS, st.lists(NODES, max_size=4), max_size=3)
SOURCES = st.integers(0, 2)
LIMITS = [(UNLIMITED, UNLIMITED), (2, 4), (UNLIMITED, 3)]  # keys and nodes of each source

Slice = dict[tuple[str, str], Node]


class ThreeSources(RuleBasedStateMachine):
    """Random verbs of three sources, against the naive union: three plain dicts, merged from scratch each time.

    Two of the sources have limits, and names get other addresses now and then.
    """

    @initialize()
    def start(self) -> None:
        self.recorded = Recorded()
        self.table = self.recorded.table
        self.feeds: list[Feed] = [self.table.feed(f"source{number}", *limits) for number, limits in enumerate(LIMITS)]
        self.naive: list[Slice] = [{}, {}, {}]
        self.rejected: list[Counter[str]] = [Counter(), Counter(), Counter()]
        self.resolved: dict[str, list[str]] = {}  # of names in use
        self.told = Counter[str]()
        self.replica = Table()
        self.copy = self.replica.feed("supervisor")

    def keep(self, source: int, key: str, node: Node) -> bool:
        slice_, rejected = self.naive[source], self.rejected[source]
        max_keys, max_nodes = LIMITS[source]
        keys = {key for key, _ in slice_}
        if (key, node.address) not in slice_:
            if key not in keys and len(keys) >= max_keys:
                rejected["too many keys"] += 1
                return False
            if len(slice_) >= max_nodes:
                rejected["too many nodes"] += 1
                return False
            if node.address == "not:an:address":
                rejected["bad node address"] += 1
                return False
        slice_[key, node.address] = node
        return True

    def forget(self, source: int, key: str) -> None:
        self.naive[source] = {place: node for place, node in self.naive[source].items() if place[0] != key}

    def note_names(self) -> None:
        """After a verb: those that nobody uses any more are forgotten, new ones are told and have no address."""
        used = {address for slice_ in self.naive for _, address in slice_ if address in NAMES}
        self.told.update(used - set(self.resolved))
        self.resolved = {name: self.resolved.get(name, []) for name in used}

    @rule(source=SOURCES, key=KEYS, node=NODES)
    def announce(self, source: int, key: str, node: Node) -> None:
        kept = self.feeds[source].announce(key, node)
        assert kept == self.keep(source, key, node)
        self.note_names()
        addresses = self.resolved.get(node.address, [node.address])
        if kept and len(addresses) == 1:  # of several nobody knows which one has spoken
            endpoint = self.table.endpoints[addresses[0]]
            assert endpoint.state == LIVE or endpoint.cause > Cause.REFUSED

    @rule(source=SOURCES, key=KEYS, node=NODES)
    def withdraw(self, source: int, key: str, node: Node) -> None:
        self.feeds[source].withdraw(key, node.address)
        self.naive[source].pop((key, node.address), None)
        self.note_names()

    @rule(source=SOURCES, key=KEYS, nodes=st.lists(NODES, max_size=4))
    def set(self, source: int, key: str, nodes: list[Node]) -> None:
        self.feeds[source].set(key, nodes)
        self.forget(source, key)
        for node in nodes:
            self.keep(source, key, node)
        self.note_names()

    @rule(source=SOURCES, pools=POOLS)
    def replace(self, source: int, pools: dict[str, list[Node]]) -> None:
        self.feeds[source].replace(pools)
        self.naive[source] = {place: node for place, node in self.naive[source].items() if place[0] in pools}
        self.note_names()
        for key, nodes in pools.items():
            self.forget(source, key)
            for node in nodes:
                self.keep(source, key, node)
            self.note_names()

    @rule(name=st.sampled_from(NAMES), addresses=st.lists(st.sampled_from(NUMBERS[:3]), max_size=4))
    def resolve(self, name: str, addresses: list[str]) -> None:
        self.table.resolve(name, addresses)
        if name in self.resolved:
            self.resolved[name] = addresses

    @rule(source=SOURCES, key=st.none() | KEYS)
    def cannot_see(self, source: int, key: str | None) -> None:
        self.feeds[source].fail("down", key)

    @rule(address=st.sampled_from(NUMBERS), cause=st.sampled_from(Cause), times=st.integers(1, 3))
    def fail_endpoint(self, address: str, cause: Cause, times: int) -> None:
        if endpoint := self.table.endpoints.get(address):
            stays = endpoint.cause if endpoint.state == OUT else cause
            self.table.fail(endpoint, 1.0, cause, times)
            assert (endpoint.state, endpoint.cause) == (OUT, max(stays, cause))

    def union(self) -> dict[tuple[str, str], list[Node]]:
        """What each place may be described as: by its number, or as one of its names, by the first source."""
        union: dict[tuple[str, str], list[Node]] = {}
        for slice_ in self.naive:
            by_number = {place: [node] for place, node in slice_.items() if place[1] not in NAMES}
            by_name: dict[tuple[str, str], list[Node]] = {}
            for (key, name), node in slice_.items():
                for address in self.resolved.get(name, ()):
                    by_name.setdefault((key, address), []).append(replace(node, address=address, host=name))
            union = {**by_name, **by_number, **union}
        return union

    @invariant()
    def pools_are_the_union(self) -> None:
        union = self.union()
        seen = {(key, node.address): node for key in self.table.pools for node in self.table.nodes(key)}
        assert seen.keys() == union.keys()
        for place, node in seen.items():
            assert (node, node.load) in [(one, one.load) for one in union[place]]

    @invariant()
    def nothing_is_left_of_a_verb(self) -> None:
        assert not self.table.admitted

    @invariant()
    def sizes_and_rejects_are_exact(self) -> None:
        for feed, slice_, rejected in zip(self.feeds, self.naive, self.rejected, strict=True):
            assert feed.size == len(slice_) == sum(map(len, feed.slices.values()))
            assert set(feed.slices) == {key for key, _ in slice_}
            assert feed.rejected == rejected

    @invariant()
    def names_are_those_in_use(self) -> None:
        uses = {(key, name) for slice_ in self.naive for key, name in slice_ if name in NAMES}
        assert {(key, address) for address, name in self.table.names.items() for key in name.keys} == uses
        assert {(key, address) for key, names in self.table.named.items() for address in names} == uses
        assert all(self.table.named.values()) and set(self.table.names) == set(self.resolved)
        assert {name: list(self.table.targets(name)) for name in self.resolved} == {
            name: list(dict.fromkeys(addresses)) for name, addresses in self.resolved.items()
        }
        assert Counter(self.recorded.names) == self.told

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
            live = live or [m for m in pool.members.values() if m.endpoint.cause == Cause.BROKEN]
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
