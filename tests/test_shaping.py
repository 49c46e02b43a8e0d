"""What a URL says of how to treat its source: keys rewritten, removals held back, what is stale hidden; and a model."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.feed import Feed
from router.node import Node
from router.shaping import ShapedFeed
from router.sources import Common
from router.table import UNLIMITED, Table

ONE, TWO, THREE, FOUR = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"


def shaped(table: Table, **common: object) -> ShapedFeed:
    feed = Common(**common).feed(table, "consul", UNLIMITED, UNLIMITED)  # type: ignore[arg-type]
    assert isinstance(feed, ShapedFeed)
    return feed


def nodes(*addresses: str) -> list[Node]:
    return [Node(address) for address in addresses]


def seen(table: Table) -> dict[str, set[str]]:
    return {key: {node.address for node in table.nodes(key)} for key in table.pools}


@pytest.fixture
def table() -> Table:
    return Table()


def test_without_settings_it_is_a_plain_feed_in_the_order_of_the_sources(table: Table) -> None:
    feeds = [Common(name="a").feed(table, "a", 5, 6), shaped(table, min_nodes=1), Common().feed(table, "b", 5, 6)]
    assert [type(feed) for feed in feeds] == [Feed, ShapedFeed, Feed] and table.feeds == feeds
    assert feeds[0].shown is feeds[0].slices and (feeds[0].max_keys, feeds[0].max_nodes) == (5, 6)


# Keys.


def test_keys_that_match_as_a_whole_are_rewritten_and_the_others_stay(table: Table) -> None:
    feed = shaped(table, key_match=r"(?P<app>\w+)-prod", key_to=r"\g<app>.com")
    feed.replace({"foo-prod": nodes(ONE), "foo-prod-2": nodes(TWO), "bar": nodes(THREE)})
    assert seen(table) == {"foo.com": {ONE}, "foo-prod-2": {TWO}, "bar": {THREE}}
    assert set(feed.slices) == {"foo-prod", "foo-prod-2", "bar"}, "a source reads its own word"


def test_several_keys_become_one_and_removing_one_keeps_the_others_nodes(table: Table) -> None:
    feed = shaped(table, key_match="(blue|green)", key_to="foo.com")
    feed.set("blue", [Node(ONE, weight=2), Node(TWO)])
    feed.set("green", [Node(ONE, weight=3), Node(THREE)])
    assert seen(table) == {"foo.com": {ONE, TWO, THREE}}
    assert table.nodes("foo.com")[0].weight == 2, "as the first of them says"
    feed.set("blue", [])
    assert seen(table) == {"foo.com": {ONE, THREE}}
    assert table.nodes("foo.com")[0].weight == 3
    feed.withdraw("green", ONE)
    feed.withdraw("green", THREE)
    assert seen(table) == {} and feed.shown == {} and feed._sayers == {}


def test_an_announcement_under_a_rewritten_key_brings_an_endpoint_back(table: Table) -> None:
    feed = shaped(table, key_match="blue", key_to="foo.com")
    feed.announce("blue", Node(ONE))
    table.fail(table.endpoints[ONE], 1.0)
    assert feed.announce("blue", Node(ONE))
    assert not table.out


# The guard.


def test_a_mass_removal_is_held_back_until_the_source_says_as_many_again(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    feed = shaped(table, min_nodes=2)
    feed.replace({"foo.com": nodes(ONE, TWO), "bar.com": nodes(THREE)})
    feed.replace({})
    assert seen(table) == {"foo.com": {ONE, TWO}, "bar.com": {THREE}} and len(feed.held) == 3
    feed.set("bar.com", nodes(FOUR))
    assert seen(table) == {"foo.com": {ONE, TWO}, "bar.com": {THREE, FOUR}}, "additions go in"
    feed.announce("foo.com", Node(ONE))
    assert seen(table) == {"foo.com": {ONE}, "bar.com": {FOUR}} and not feed.held
    assert caplog.messages == [
        "consul: says 0 nodes, which is below min-nodes=2: 3 that are gone are held back",
        "consul: says 2 nodes again: 2 that were held back are gone",
    ]


def test_a_source_that_stays_below_the_least_has_no_more_held_back_than_it_may_say(table: Table) -> None:
    feed = Common(min_nodes=9).feed(table, "told", max_keys=10, max_nodes=3)
    for port in range(1, 10):
        feed.set("foo.com", nodes(f":{port}"))
    assert len(seen(table)["foo.com"]) == 4


def test_what_is_exchanged_for_as_many_is_no_mass_removal(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    feed = shaped(table, min_nodes=2)
    feed.replace({"foo.com": nodes(ONE, TWO)})
    feed.replace({"bar.com": nodes(THREE, FOUR)})
    assert seen(table) == {"bar.com": {THREE, FOUR}} and not caplog.messages


def test_a_removal_that_stays_above_the_least_is_none_of_the_guards(table: Table) -> None:
    feed = shaped(table, min_nodes=2)
    feed.set("foo.com", nodes(ONE, TWO, THREE))
    feed.withdraw("foo.com", ONE)
    assert seen(table) == {"foo.com": {TWO, THREE}}
    feed.withdraw("foo.com", TWO)
    assert seen(table) == {"foo.com": {TWO, THREE}}


def test_a_held_node_that_another_source_describes_is_the_other_ones_too(table: Table) -> None:
    feed, other = shaped(table, min_nodes=1), table.feed("etcd")
    feed.set("foo.com", [Node(ONE, weight=2)])
    other.set("foo.com", [Node(ONE, weight=5)])
    feed.replace({})
    assert table.nodes("foo.com") == [Node(ONE, weight=2)]
    feed.replace({"bar.com": nodes(TWO)})
    assert table.nodes("foo.com") == [Node(ONE, weight=5)]


def test_a_host_name_that_moves_from_one_key_to_another_in_one_verb_is_kept(table: Table) -> None:
    feed = shaped(table, min_nodes=1)
    feed.replace({"foo.com": nodes("app.lan:1")})
    table.resolve("app.lan:1", [ONE])
    feed.replace({"bar.com": nodes("app.lan:1")})
    assert seen(table) == {"bar.com": {ONE}}


# Staleness.


def test_a_source_that_cannot_see_for_too_long_is_taken_out_and_comes_back(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    feed = shaped(table, max_stale=10, min_nodes=1)
    feed.replace({"foo.com": nodes(ONE, TWO)})
    feed.age(0)
    feed.fail("down")
    for now in range(100, 110):
        feed.age(now)
        feed.fail("still down")
        assert seen(table) == {"foo.com": {ONE, TWO}}
    feed.age(110)
    feed.age(111)
    assert seen(table) == {} and feed.hidden and feed.size == 2
    feed.fail("still down")
    feed.age(200)
    feed.announce("foo.com", Node(THREE))
    assert seen(table) == {"foo.com": {ONE, TWO, THREE}} and not feed.hidden
    assert caplog.messages == [
        "consul: could not see for 10 s (still down): its 2 nodes are taken out",
        "consul: can see again: its 2 nodes are back",
    ]


def test_progress_alone_brings_back_what_was_stale_and_starts_the_time_anew(table: Table) -> None:
    feed = shaped(table, max_stale=10)
    feed.set("foo.com", nodes(ONE))
    feed.fail("down")
    feed.age(0)
    feed.age(10)
    assert seen(table) == {}
    feed.progress()
    assert seen(table) == {"foo.com": {ONE}}
    feed.fail("down")
    feed.age(11)
    feed.age(20)
    assert seen(table) == {"foo.com": {ONE}}
    feed.age(21)
    assert seen(table) == {}


def test_one_key_grows_stale_alone(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    feed = shaped(table, max_stale=10)
    feed.replace({"foo.com": nodes(ONE), "bar.com": nodes(TWO)})
    feed.fail("SERVFAIL", "foo.com")
    for now in (0, 9):
        feed.age(now)
        feed.set("bar.com", nodes(TWO))
    feed.age(10)
    assert seen(table) == {"bar.com": {TWO}} and list(feed.hidden_keys) == ["foo.com"]
    feed.set("foo.com", nodes(THREE))
    assert seen(table) == {"foo.com": {THREE}, "bar.com": {TWO}} and not feed.hidden_keys
    assert caplog.messages == ["consul: could not see 'foo.com' for 10 s (SERVFAIL): its 1 nodes are taken out"]


def test_a_source_that_had_nothing_to_say_loses_nothing_and_says_nothing(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    feed = shaped(table, max_stale=1)
    feed.fail("down")
    feed.fail("down", "foo.com")
    for now in range(5):
        feed.age(now)
    assert not caplog.messages and not feed.hidden_keys


# The model.

KEYS = st.sampled_from(["a1", "a2", "b"])
ADDRESSES = st.sampled_from([ONE, TWO, THREE, "app.lan:1"])
NODES = st.builds(Node, address=ADDRESSES, weight=st.integers(1, 2))
LEAST = 2
STALE = 3


class Shaped(RuleBasedStateMachine):
    """Random verbs and ages, against a naive slice that is shown anew from scratch each time.

    `a1` and `a2` are one key to the table. The name `app.lan` has no address yet.
    """

    @initialize(rewriting=st.booleans(), least=st.sampled_from([0, LEAST]))
    def start(self, rewriting: bool, least: int) -> None:
        logging.disable(logging.WARNING)
        self.table = Table()
        keys = {"key_match": "a.", "key_to": "A"} if rewriting else {}
        self.feed = shaped(self.table, min_nodes=least, max_stale=STALE, **keys)
        self.key: Callable[[str], str] = lambda key: "A" if rewriting and key != "b" else key
        self.least = least
        self.said: dict[tuple[str, str], Node] = {}
        self.places: set[tuple[str, str]] = set()  # shown
        self.now = 0
        self.blind: int | None = None
        self.blind_keys: dict[str, int] = {}
        self.hidden = False
        self.hidden_keys: set[str] = set()

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    def visible(self) -> set[tuple[str, str]]:
        if self.hidden:
            return set()
        return {(self.key(key), address) for key, address in self.said if key not in self.hidden_keys}

    def after(self, key: str | None, every_key: bool = False) -> None:
        """A verb of the source that said something of `key`, or of all keys."""
        self.blind, self.hidden = None, False
        for seen in [*self.blind_keys] if every_key else [key]:
            self.blind_keys.pop(seen or "", None)
            self.hidden_keys.discard(seen or "")
        kept = self.places if len(self.said) < self.least else set()
        self.places = self.visible() | kept

    @rule(key=KEYS, some=st.lists(NODES, max_size=3))
    def set(self, key: str, some: list[Node]) -> None:
        self.feed.set(key, some)
        self.said = {place: node for place, node in self.said.items() if place[0] != key}
        self.said |= {(key, node.address): node for node in some}
        self.after(key)

    @rule(pools=st.dictionaries(KEYS, st.lists(NODES, max_size=3), max_size=3))
    def replace(self, pools: dict[str, list[Node]]) -> None:
        self.feed.replace(pools)
        self.said = {(key, node.address): node for key, some in pools.items() for node in some}
        self.after(None, every_key=True)

    @rule(key=KEYS, node=NODES)
    def announce(self, key: str, node: Node) -> None:
        assert self.feed.announce(key, node)
        self.said[key, node.address] = node
        self.after(key)

    @rule(key=KEYS, address=ADDRESSES)
    def withdraw(self, key: str, address: str) -> None:
        self.feed.withdraw(key, address)
        self.said.pop((key, address), None)
        self.after(key)

    @rule()
    def progress(self) -> None:
        self.feed.progress()
        self.after(None)

    @rule(key=st.none() | KEYS)
    def fail(self, key: str | None) -> None:
        self.feed.fail("down", key)
        if key is None:
            self.blind = self.now + 1 if self.blind is None else self.blind  # as the next age will see it
        else:
            self.blind_keys.setdefault(key, self.now + 1)

    @rule()
    def age(self) -> None:
        self.now += 1
        self.feed.age(self.now)
        if self.blind is not None and self.now - self.blind >= STALE and not self.hidden:
            self.hidden = True
            self.places = set()
        for key, since in self.blind_keys.items():
            known = any(place[0] == key for place in self.said) or any(
                place[0] == self.key(key) for place in self.places - self.visible()
            )
            if self.now - since >= STALE and key not in self.hidden_keys and known:
                self.hidden_keys.add(key)
                self.places = {p for p in self.places if p[0] != self.key(key)} | self.visible()

    @invariant()
    def what_is_shown_is_what_the_naive_one_shows(self) -> None:
        shown = {(key, address) for key, said in self.feed.shown.items() for address in said}
        assert shown == self.places
        assert set(self.feed.held) == self.places - self.visible()
        assert self.feed.size == len(self.said) and (self.feed.hidden, set(self.feed.hidden_keys)) == (
            self.hidden,
            self.hidden_keys,
        )
        for key, said in self.feed.shown.items():
            for address, node in said.items():
                words = [
                    word for (k, a), word in self.said.items()
                    if (self.key(k), a) == (key, address) and k not in self.hidden_keys
                ]  # fmt: skip
                assert node in words or (key, address) in self.feed.held

    @invariant()
    def the_table_has_it(self) -> None:
        named = {"app.lan:1"}
        assert {(key, a) for key, addresses in seen(self.table).items() for a in addresses} == {
            place for place in self.places if place[1] not in named
        }
        assert set(self.table.named) == {key for key, address in self.places if address in named}
        if not self.hidden and len(self.said) >= self.least:
            assert not self.feed.held


TestShaped = Shaped.TestCase
TestShaped.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
