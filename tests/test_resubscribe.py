"""Telling other routers: what is offered, and when it is said. The clock is ours.

The receivers are real subscription servers on loopback, in which a datagram waits when `send` returns.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.announcement import LARGEST_INT
from discovery.resubscribeteller import BATCH, EVERY, PAUSE, Teller
from router.address import Inet
from router.endpoint import Cause
from router.node import Node
from router.resubscribe import Announcers, Offer, Offers
from router.static import TO
from router.table import Table
from telling import KEY, OWN, Inner, Telling


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def telling(inner: Inner) -> Iterator[Telling]:
    with Telling(inner) as telling:
        yield telling


# What is offered.


def test_an_offer_is_the_sum_of_all_weights(inner: Inner) -> None:
    assert inner.offers.get(KEY) is None and inner.offers.keys() == [] and not inner.offers.knows(KEY)
    inner.join("10.0.0.1:1", weight=3)
    inner.join("10.0.0.2:1", weight=4)
    assert inner.offers.get(KEY) == Offer(7)
    assert inner.offers.keys() == [KEY] and inner.offers.knows(KEY)


def test_of_several_levels_the_first_one_is_offered(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3, backup=2)
    inner.join("10.0.0.2:1", weight=4, backup=1)
    inner.join("10.0.0.3:1", weight=5, backup=1)
    assert inner.offers.get(KEY) == Offer(9, backup=1)


def test_nodes_of_other_sources_are_not_offered_unless_asked_for(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3)
    inner.others.set(KEY, [Node("10.0.0.2:1", weight=4)])
    inner.others.set("bar.com", [Node("10.0.0.2:1")])
    inner.others.set(TO, [Node("10.0.0.3:1")])
    assert inner.offers.get(KEY) == Offer(3)
    assert inner.offers.keys() == [KEY] and inner.offers.get("bar.com") is None and not inner.offers.knows("bar.com")
    everything = Offers(inner.table, [inner.workers, inner.others])
    assert everything.get(KEY) == Offer(7)
    assert everything.keys() == [KEY, "bar.com"], "no key that stands for an option"
    assert everything.get(TO) is None and not everything.knows(TO)


def test_a_node_by_host_name_is_offered_by_its_addresses(inner: Inner) -> None:
    inner.join("app.internal:1", weight=3)
    assert inner.offers.get(KEY) is None, "its address is not known yet"
    inner.table.resolve("app.internal:1", ["10.0.0.1:1", "10.0.0.2:1"])
    assert inner.offers.get(KEY) == Offer(6)


def test_drained_nodes_are_not_offered_nor_drained_keys(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3)
    inner.join("10.0.0.2:1", weight=4)
    inner.table.drain((["10.0.0.1:1"], []))
    assert inner.offers.get(KEY) == Offer(4)
    inner.table.drain(([], [KEY]))
    assert inner.offers.get(KEY) is None and inner.offers.knows(KEY)


def test_a_key_is_offered_while_any_of_its_nodes_can_be_asked(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3)
    inner.join("10.0.0.2:1", weight=4)
    inner.fail("10.0.0.1:1")
    assert inner.offers.get(KEY) == Offer(7), "the one that is out may be back in a moment"
    inner.fail("10.0.0.2:1", cause=Cause.CHECK)
    assert inner.offers.get(KEY) is None
    inner.now += 30.0
    assert inner.offers.get(KEY) == Offer(7), "one of them may be tried again"


def test_broken_nodes_are_asked_where_there_is_no_other(inner: Inner) -> None:
    inner.join()
    inner.fail(cause=Cause.BROKEN)
    assert inner.offers.get(KEY) == Offer(1)


def test_the_shortest_way_to_a_worker_is_offered(inner: Inner) -> None:
    inner.join("10.0.0.1:1", via="b c")
    assert inner.offers.get(KEY) == Offer(1, via="b c")
    inner.join("10.0.0.2:1", via="e", weight=2)
    inner.join("10.0.0.3:1", via="d", weight=3)
    assert inner.offers.get(KEY) == Offer(5, via="d"), "of two that are as short always the same one"
    inner.join("10.0.0.4:1", backup=1)
    assert inner.offers.get(KEY) == Offer(5, via="d"), "it serves when they do not"
    inner.join("10.0.0.5:1", weight=7)
    assert inner.offers.get(KEY) == Offer(7)


# How it is told.


class Noting:
    """An announcer that tells nobody."""

    def __init__(self) -> None:
        self.noted: list[set[str]] = []

    def note(self, keys: Any) -> None:
        self.noted.append(set(keys))


def test_what_changes_while_it_is_held_is_told_afterwards() -> None:
    noting = Noting()
    announcers = Announcers([noting], Table(), "all", [])  # type: ignore[list-item]
    announcers.note(["a.com"])
    announcers.hold(True)
    announcers.note(["b.com", "c.com"])
    announcers.note(["b.com"])
    assert noting.noted == [{"a.com"}]
    announcers.hold(False)
    assert noting.noted == [{"a.com"}, {"b.com", "c.com"}]
    announcers.note(["d.com"])
    assert noting.noted[-1] == {"d.com"}


def test_a_pool_that_opens_is_told_at_once_and_once(inner: Inner, telling: Telling) -> None:
    assert telling.turn() == 0
    inner.join(weight=2, modifier1=5, cores=4, load=3)
    assert telling.turn() == 1
    (node,) = telling.outer.nodes()
    assert (node.address, node.weight, node.modifier1, node.cores, node.load, node.backup) == (OWN, 2, 0, 0, 0, 0)
    assert node.via == "me"
    assert telling.turn() == 0


def test_changes_of_one_moment_are_said_once(inner: Inner, telling: Telling) -> None:
    for number in range(1, 6):
        inner.join(f"10.0.0.{number}:1", weight=number)
    assert telling.turn() == 1
    assert telling.weights() == [15]
    inner.join("10.0.0.1:1", weight=1, load=7)
    telling.teller.note([KEY])
    assert telling.turn() == 0, "nothing that is told has changed"
    inner.leave("10.0.0.5:1")
    assert telling.turn() == 1
    assert telling.weights() == [10]


def test_only_when_the_last_node_leaves_the_key_is_withdrawn(inner: Inner, telling: Telling) -> None:
    inner.join("10.0.0.1:1")
    inner.join("10.0.0.2:1")
    telling.turn()
    inner.leave("10.0.0.1:1")
    assert telling.turn() == 1
    assert telling.weights() == [1]
    inner.leave("10.0.0.2:1")
    assert telling.turn() == 1
    assert telling.weights() == []
    assert telling.run(30) == 0, "and never mentioned again"
    assert telling.teller.told == {}


def test_each_key_is_said_again_before_ten_seconds_are_over(inner: Inner, telling: Telling) -> None:
    inner.join()
    telling.turn()
    for _ in range(20):
        begin = inner.now
        while not telling.turn():
            inner.now = telling.next
            assert inner.now - begin <= EVERY
        assert inner.now - begin >= 0.8 * EVERY - 2 * PAUSE


def test_a_sum_beyond_the_field_is_the_most_that_it_holds(inner: Inner, telling: Telling) -> None:
    inner.join("10.0.0.1:1", weight=LARGEST_INT)
    inner.join("10.0.0.2:1", weight=LARGEST_INT)
    telling.turn()
    assert telling.weights() == [LARGEST_INT]


def test_the_level_and_the_way_are_told(inner: Inner, telling: Telling) -> None:
    inner.join(backup=3, via="a b")
    telling.turn()
    (node,) = telling.outer.nodes()
    assert (node.backup, node.via) == (3, "me a b")


def test_failed_nodes_are_withdrawn_at_the_renewal_and_back_at_once(inner: Inner, telling: Telling) -> None:
    inner.join()
    telling.turn()
    inner.fail(seconds=25.0)
    telling.teller.turn()
    assert telling.weights() == [1], "they may be back in a moment"
    telling.run(EVERY)
    assert telling.weights() == []
    inner.join()  # its own word brings it back
    telling.teller.note([KEY])
    telling.turn()
    assert telling.weights() == [1]
    inner.fail(seconds=25.0)
    telling.run(EVERY)
    assert telling.weights() == []
    telling.run(25.0)
    assert telling.weights() == [1], "so that it is tried"


def test_a_key_whose_nodes_have_failed_before_the_start_is_told_when_they_are_tried(inner: Inner) -> None:
    inner.join()
    inner.fail(seconds=15.0)
    with Telling(inner) as telling:
        telling.run(14.0)
        assert telling.weights() == []
        telling.run(EVERY)
        assert telling.weights() == [1]


def test_what_is_known_before_the_start_is_told(inner: Inner) -> None:
    inner.join()
    with Telling(inner) as telling:
        assert telling.turn() == 1
        assert telling.weights() == [1]


class Paced(Teller):
    """Sends nothing, and keeps when each key was said last, and how late that was."""

    def __init__(self, inner: Inner, count: int) -> None:
        for number in range(count):
            inner.join(key=f"{number}.com")
        place = Inet(socket.AF_INET, ("127.0.0.1", 1))
        super().__init__("r", place, OWN, inner.offers, "me", clock=lambda: inner.now)
        self.inner = inner
        self.last: dict[str, float] = {}
        self.longest = 0.0

    def _send(self, key: str, offer: Any) -> None:
        self.sent += 1
        self.longest = max(self.longest, self.inner.now - self.last.get(key, self.inner.now))
        self.last[key] = self.inner.now

    def run_for(self, seconds: float) -> int:
        """The most that one turn has sent."""
        end, most = self.inner.now + seconds, 0
        while self.inner.now < end:
            before = self.sent
            self.inner.now += max(PAUSE, self.turn())
            most = max(most, self.sent - before)
        return most


def test_ten_thousand_keys_never_burst_and_none_expires(inner: Inner) -> None:
    paced = Paced(inner, 10_000)
    assert paced.run_for(18.0) == BATCH
    assert len(paced.last) == 10_000
    inner.join("10.0.0.9:1", key="new.com")
    paced.note(["new.com"])
    paced.turn()
    assert "new.com" in paced.last, "nothing new waits for the renewals"
    assert paced.run_for(30.0) <= BATCH + 1
    assert paced.longest < 14.5


def test_more_keys_than_that_are_said_within_a_round_all_the_same(inner: Inner) -> None:
    paced = Paced(inner, 15_000)
    paced.run_for(20.0)
    assert len(paced.last) == 15_000
    assert paced.run_for(30.0) == 24
    assert paced.longest < 17.0


def test_the_renewals_of_many_keys_spread(inner: Inner) -> None:
    paced = Paced(inner, 1000)
    paced.run_for(60.0)
    moments = sorted(paced.last.values())
    assert moments[-1] - moments[0] > 6.0 and paced.longest <= EVERY + 0.5


def test_renewals_do_not_wait_for_all_that_is_new(inner: Inner, telling: Telling) -> None:
    for number in range(100):
        inner.join(key=f"{number}.com")
    telling.run(1.0)
    inner.now += EVERY
    telling.teller.note([f"{number}.net" for number in range(10_000)])
    for number in range(10_000):
        inner.join(key=f"{number}.net")
    inner.changed.clear()
    telling.run(0.5)
    assert telling.outer.source._heard["99.com", OWN] >= telling.outer.source._listened() - 0.5


def test_a_farewell_takes_everything_back(inner: Inner, telling: Telling) -> None:
    for number in range(40):
        inner.join(key=f"{number}.com")
    telling.run(1.0)
    assert len(telling.outer.table.pools) == 40
    telling.teller.withdraw()
    telling.take()
    assert not telling.outer.table.pools and telling.teller.told == {}


class Op:
    """What may happen to a pool, by name; the address and the weight are small numbers."""

    def __init__(self, telling: Telling) -> None:
        self.inner = telling.inner
        self.telling = telling
        self.known: dict[tuple[str, int], int] = {}

    def join(self, key: str, address: int, weight: int) -> None:
        self.inner.join(f"10.0.0.{address}:1", key, weight=weight)
        self.known[key, address] = weight

    def leave(self, key: str, address: int, weight: int) -> None:
        self.inner.leave(f"10.0.0.{address}:1", key)
        self.known.pop((key, address), None)

    def time(self, key: str, address: int, weight: int) -> None:
        self.telling.run(weight / 2)

    def restart(self, key: str, address: int, weight: int) -> None:
        """As at a reload: another one goes on, which has not said anything yet."""
        self.telling.turn()
        self.telling.teller._close()
        self.telling.teller = self.telling.new_teller()


OPS = st.tuples(
    st.sampled_from(["join", "leave", "time", "restart"]),
    st.sampled_from(["a.com", "b.com"]),
    st.integers(1, 3),
    st.integers(1, 9),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPS, max_size=40))
def test_the_receiver_knows_what_a_naive_model_says(ops: list[tuple[str, str, int, int]]) -> None:
    with Telling(Inner()) as telling:
        op = Op(telling)
        for name, key, address, weight in ops:
            getattr(op, name)(key, address, weight)
        telling.turn()
        for key in ("a.com", "b.com"):
            total = sum(weight for (known, _), weight in op.known.items() if known == key)
            assert telling.weights(key) == ([total] if total else [])
        telling.run(40.0)
        assert len(telling.outer.table.pools) == len({key for key, _ in op.known})
