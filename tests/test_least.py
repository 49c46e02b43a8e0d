"""lrc, wlrc, load and p2c: who has least to do, as a naive look at all of them says, and turns of equals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.algorithmname import NAMES
from router.algorithms import ALGORITHMS
from router.endpoint import LIVE, OUT, TRIAL, TRYING, Cause, Endpoint
from router.node import Node
from router.pool import Member, Pool
from router.table import Table

LEAST = ("lrc", "wlrc", "load")


def pool_of(algorithm: str, *nodes: Node, limit: int = 0, seed: int = 1) -> tuple[Table, Pool]:
    table = Table(algorithm=algorithm, limit=limit, randrange=Random(seed).randrange)
    table.feed("test").set("foo.com", nodes)
    return table, table.pools["foo.com"]


def ask(pool: Pool, avoid: Sequence[Endpoint] = ()) -> Member:
    """Picks, and connects as the engine does."""
    member = pool.pick(pool, avoid)
    assert member is not None
    member.in_flight += 1
    member.endpoint.in_flight += 1
    return member


def picked(pool: Pool, avoid: Sequence[Endpoint] = ()) -> Endpoint | None:
    member = pool.pick(pool, avoid)
    return member.endpoint if member else None


def leave(member: Member) -> None:
    member.in_flight -= 1
    member.endpoint.in_flight -= 1
    member.endpoint.tell_watchers()


def ports(pool: Pool, number: int) -> Counter[str]:
    """Whom so many requests go to, one after the other."""
    taken: Counter[str] = Counter()
    for _ in range(number):
        member = ask(pool)
        taken[member.endpoint.address] += 1
        leave(member)
    return taken


def test_every_name_has_an_algorithm() -> None:
    assert set(NAMES) == set(ALGORITHMS)


@pytest.mark.parametrize("algorithm", [*NAMES, "hash:HTTP_HOST"])
def test_a_pool_is_made_for_each_algorithm(algorithm: str) -> None:
    _, pool = pool_of(algorithm, Node(":1"))
    assert (pool.algorithm, ports(pool, 3)) == (algorithm, {":1": 3})


@pytest.mark.parametrize("algorithm", [*LEAST, "p2c"])
def test_idle_nodes_share_by_weight(algorithm: str) -> None:
    _, pool = pool_of(algorithm, Node(":1", weight=3), Node(":2", weight=2), Node(":3"))
    taken = ports(pool, 6000)
    if algorithm == "lrc":
        assert taken == {":1": 2000, ":2": 2000, ":3": 2000}
    elif algorithm == "p2c":  # chance: 5 standard deviations
        assert all(abs(taken[f":{n}"] - 1000 * (4 - n)) < 5 * 40 for n in (1, 2, 3))
    else:
        assert taken == {":1": 3000, ":2": 2000, ":3": 1000}


def test_the_one_with_the_fewest_in_flight_is_picked() -> None:
    _, pool = pool_of("lrc", Node(":1"), Node(":2"), Node(":3"))
    first = [ask(pool) for _ in range(9)]
    assert Counter(member.endpoint.address for member in first) == {":1": 3, ":2": 3, ":3": 3}
    for member in first[:2]:
        leave(member)
    assert {ask(pool).endpoint.address, ask(pool).endpoint.address} == {one.endpoint.address for one in first[:2]}


def test_by_weight_a_node_of_three_has_three_times_as_many() -> None:
    _, pool = pool_of("wlrc", Node(":1", weight=3), Node(":2"))
    assert Counter(ask(pool).endpoint.address for _ in range(40)) == {":1": 30, ":2": 10}


def test_load_counts_what_waits_at_a_worker_and_what_it_can_do() -> None:
    table, pool = pool_of("load", Node(":1", cores=4), Node(":2", cores=2, load=6), Node(":3"))
    assert Counter(ask(pool).endpoint.address for _ in range(10)) == {":1": 8, ":3": 2}
    table.feeds[0].announce("foo.com", Node(":2", cores=2, load=0))
    assert Counter(ask(pool).endpoint.address for _ in range(4)) == {":2": 4}
    table.feeds[0].announce("foo.com", Node(":3", cores=100))
    assert {ask(pool).endpoint.address for _ in range(190)} == {":3"}


def test_a_load_that_changes_is_told_of_pools_that_steer_by_it_alone() -> None:
    for algorithm, told in (("load", [":1"]), ("lrc", [])):
        heard: list[Any] = []
        table = Table(algorithm=algorithm, on_change=heard.append)
        feed = table.feed("test")
        feed.announce("foo.com", Node(":1"))
        heard.clear()
        feed.announce("foo.com", Node(":1", load=3))
        feed.announce("foo.com", Node(":1", load=3))
        assert [member.endpoint.address for change in heard for member in change.loads] == told
        assert all(change.only_loads for change in heard)
        assert not table.pools["foo.com"].order


def test_turns_are_not_saved_up_while_one_is_busy() -> None:
    _, pool = pool_of("lrc", Node(":1"), Node(":2"))
    busy = ask(pool)
    ports(pool, 100)
    leave(busy)
    assert ports(pool, 10) == {":1": 5, ":2": 5}


def test_a_ring_that_is_laid_anew_keeps_the_turns() -> None:
    _, pool = pool_of("lrc", *(Node(f":{n}") for n in range(1, 6)))
    taken: Counter[str] = Counter()
    for _ in range(50):
        taken += ports(pool, 1)
        pool.stale = True
    assert set(taken.values()) == {10}


def test_routers_begin_anywhere() -> None:
    first = {pool_of("lrc", *(Node(f":{n}") for n in range(1, 6)), seed=seed)[1] for seed in range(40)}
    assert len({ask(pool).endpoint.address for pool in first}) == 5


@pytest.mark.parametrize("algorithm", [*LEAST, "p2c"])
def test_what_other_keys_have_in_flight_counts(algorithm: str) -> None:
    table, pool = pool_of(algorithm, Node(":1"), Node(":2"))
    table.feeds[0].set("bar.com", [Node(":1")])
    other = [ask(table.pools["bar.com"]) for _ in range(5)]
    assert [ask(pool).endpoint.address for _ in range(5)] == [":2"] * 5
    for member in other:
        leave(member)
    assert [ask(pool).endpoint.address for _ in range(5)] == [":1"] * 5


@pytest.mark.parametrize("algorithm", [*LEAST, "p2c"])
def test_one_that_starts_slowly_gets_its_share(algorithm: str) -> None:
    _, pool = pool_of(algorithm, Node(":1"), Node(":2"))
    pool.members[":2"].share = 10
    pool.stale = True
    taken = ports(pool, 1100)
    assert abs(taken[":2"] - 100) <= (5 * 10 if algorithm == "p2c" else 2)
    held = Counter(ask(pool).endpoint.address for _ in range(110))
    assert abs(held[":2"] - 10) <= (10 if algorithm == "p2c" else 1)


@pytest.mark.parametrize("algorithm", [*LEAST, "p2c"])
def test_backups_trials_and_those_to_avoid(algorithm: str) -> None:
    table, pool = pool_of(algorithm, Node(":1"), Node(":2"), Node(":3", backup=1))
    one, two, three = (table.endpoints[f":{n}"] for n in (1, 2, 3))
    assert set(ports(pool, 30)) == {":1", ":2"}
    assert picked(pool, [one]) is two
    assert pool.pick(pool, [one, two]) is None
    table.fail(one, out_until=30.0)
    assert set(ports(pool, 10)) == {":2"}
    table.begin_trials(30.0)
    taken = [picked(pool) for _ in range(200)]
    assert (taken.count(one), one.state) == (1, TRYING)
    table.release_trial(one)
    assert one.state == TRIAL
    assert [picked(pool) for _ in range(200)].count(one) == 1
    table.restore(one)
    assert set(ports(pool, 30)) == {":1", ":2"}
    for endpoint in (one, two):
        table.fail(endpoint, out_until=99.0)
    assert set(ports(pool, 3)) == {":3"}
    table.fail(three, out_until=99.0)
    assert pool.pick(pool) is None
    table.fail(two, 99.0, Cause.BROKEN)
    assert set(ports(pool, 3)) == {":2"}, "broken is better than nobody"
    table.drain(([":2"], ()))
    assert pool.pick(pool) is None


@pytest.mark.parametrize("algorithm", [*LEAST, "p2c"])
def test_none_gets_more_than_max_connections(algorithm: str) -> None:
    _, pool = pool_of(algorithm, Node(":1", weight=9), Node(":2"), Node(":3"), limit=2)
    held = [ask(pool) for _ in range(6)]
    assert Counter(member.endpoint.in_flight for member in held) == {2: 6}
    assert pool.pick(pool) is None
    leave(held[3])
    assert pool.pick(pool) is held[3]


def test_a_retry_that_meets_a_full_one_goes_to_none_that_it_has_asked() -> None:
    table, pool = pool_of("wlrc", Node(":1", weight=9), Node(":2"), Node(":3"), limit=2)
    held = Counter(ask(pool).endpoint.address for _ in range(4))
    assert held == {":1": 2, ":2": 1, ":3": 1}, "the first one has the least to do by its weight, and is full"
    assert {picked(pool, [table.endpoints[":2"]]) for _ in range(6)} == {table.endpoints[":3"]}


def test_a_full_one_on_trial_is_not_taken() -> None:
    table, pool = pool_of("lrc", Node(":1"), Node(":2"), limit=1)
    table.fail(table.endpoints[":1"], out_until=30.0)
    table.begin_trials(30.0)
    table.endpoints[":1"].in_flight = 1
    table.endpoints[":2"].in_flight = 1
    assert pool.pick(pool) is None
    assert table.endpoints[":1"].state == TRIAL


def test_the_least_of_two_spreads_what_is_held() -> None:
    """With one choice the fullest of 100 nodes of 10 would have 18 or so; with two, 12."""
    _, pool = pool_of("p2c", *(Node(f"127.0.0.1:{n}") for n in range(1, 101)))
    held = Counter(ask(pool).endpoint.address for _ in range(1000))
    assert max(held.values()) <= 13 and min(held.values()) >= 6


def test_pools_that_are_not_asked_cost_a_leave_one_word() -> None:
    table, pool = pool_of("lrc", Node(":1"), Node(":2"))
    table.feeds[0].set("idle.com", [Node(":1"), Node(":2")])
    idle = table.pools["idle.com"]
    leave(ask(idle))
    ports(pool, 500)
    assert len(idle.order.changed) == 2
    assert not any(member in (member.endpoint.watchers or ()) for member in idle.order.changed), "it was told once"
    assert all(len(endpoint.watchers or ()) <= 2 for endpoint in table.endpoints.values())


def test_entries_that_hold_no_longer_do_not_pile_up() -> None:
    table, pool = pool_of("lrc", *(Node(f"127.0.0.1:{n}") for n in range(1, 11)))
    avoid = [table.endpoints["127.0.0.1:1"]]
    for _ in range(10_000):
        leave(ask(pool, avoid))
    assert len(pool.order.heap) < 2000


def test_members_that_left_are_forgotten() -> None:
    table, pool = pool_of("lrc", Node(":1"), Node(":2"))
    held = [ask(pool), ask(pool)]
    table.feeds[0].set("foo.com", [Node(":2")])
    for member in held:
        leave(member)
    assert ports(pool, 3) == {":2": 3}
    assert [member.endpoint.address for member in pool.order.entries] == [":2"]


def naive(pool: Pool, load: Callable[[Member], float], avoid: Sequence[Endpoint]) -> set[str]:
    """Those with the least to do, of all that can be asked."""
    askable = [one for one in pool.ring if one.endpoint.state in (LIVE, TRIAL) and one.endpoint not in avoid]
    least = min(map(load, askable), default=0.0)
    return {one.endpoint.address for one in askable if load(one) == least}


class Against(RuleBasedStateMachine):
    """Two pools that share nodes, by lrc or wlrc, against the naive look."""

    algorithm = "lrc"

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(algorithm=self.algorithm, randrange=lambda n: 0)
        self.feed = self.table.feed("test")
        self.held: list[Member] = []

    @rule(key=st.sampled_from("ab"), weights=st.dictionaries(st.integers(1, 6), st.integers(1, 4), max_size=6))
    def set_nodes(self, key: str, weights: dict[int, int]) -> None:
        self.feed.set(key, [Node(f":{n}", weight=weight, backup=n % 2) for n, weight in weights.items()])

    @rule(key=st.sampled_from("ab"), times=st.integers(1, 9), avoid=st.integers(0, 6))
    def come(self, key: str, times: int, avoid: int) -> None:
        pool = self.table.pools.get(key)
        for _ in range(times if pool else 0):
            assert pool
            if pool.stale:
                pool.lay_ring()
            load = pool.order.load if pool.order else (lambda member: 0.0)
            left = [self.table.endpoints[f":{avoid}"]] if f":{avoid}" in self.table.endpoints else []
            expected = naive(pool, load, left)
            member = pool.pick(pool, left)
            assert member.endpoint.address in expected if member else not expected
            if member:
                if member.endpoint.state == TRYING and member.endpoint.trier is None:
                    member.endpoint.trier = member
                member.endpoint.in_flight += 1
                member.in_flight += 1
                self.held.append(member)

    @rule(at=st.integers(0, 99), goes_well=st.booleans())
    def leave(self, at: int, goes_well: bool) -> None:
        if self.held:
            member = self.held.pop(at % len(self.held))
            leave(member)
            if member.endpoint.trier is member:
                (self.table.restore if goes_well else self.table.release_trial)(member.endpoint)

    @rule(number=st.integers(1, 6), tried=st.booleans())
    def fail(self, number: int, tried: bool) -> None:
        if endpoint := self.table.endpoints.get(f":{number}"):
            self.table.fail(endpoint, 1.0)
            if tried:
                self.table.begin_trial(endpoint)

    @invariant()
    def entries_say_what_there_is_or_less(self) -> None:
        for pool in self.table.pools.values():
            if pool.order and not pool.stale:
                for member, entry in pool.order.entries.items():
                    lighter = member in pool.order.changed
                    assert lighter or entry[0] <= pool.order.load(member)
                    assert lighter or member in (member.endpoint.watchers or ())
        assert all(endpoint.state != OUT or endpoint in self.table.out for endpoint in self.table.endpoints.values())


class AgainstWeighted(Against):
    algorithm = "wlrc"


TestLrc = Against.TestCase
TestWlrc = AgainstWeighted.TestCase
TestLrc.settings = TestWlrc.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
