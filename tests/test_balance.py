"""Turns: shares exact for any weights, evenly spread, levels and trials honoured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain, islice
from math import gcd
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.balance import LAP_TURNS, laps, wrr
from router.endpoint import LIVE, TRIAL, TRYING, Endpoint
from router.node import Node
from router.pool import Pool
from router.table import Table

T = TypeVar("T")
weights = st.lists(st.integers(min_value=1, max_value=10**9), min_size=1, max_size=12)


def turns(weighted: Sequence[tuple[T, int]], number: int) -> list[T]:
    return list(islice(chain.from_iterable(laps(weighted)), number))


def pool_of(*nodes: Node) -> tuple[Table, Pool]:
    table = Table(randrange=lambda n: 0)
    table.feed("test").set("foo.com", nodes)
    return table, table.pools["foo.com"]


def picks(pool: Pool, number: int, avoid: Collection[Endpoint] = ()) -> list[str | None]:
    members = [pool.pick(pool, avoid) for _ in range(number)]
    return [member.endpoint.address if member else None for member in members]


def test_equal_weights_take_turns() -> None:
    assert turns([("a", 7), ("b", 7), ("c", 7)], 7) == list("abcabca")


def test_turns_of_heavy_items_are_spread() -> None:
    assert turns([("a", 3), ("b", 1)], 8) == list("aabaaaba")
    assert turns([("a", 5), ("b", 1), ("c", 1)], 7) == list("aaabcaa")


@given(st.lists(st.integers(min_value=1, max_value=100), min_size=1, max_size=12))
def test_a_lap_gives_every_item_exactly_its_weight(numbers: list[int]) -> None:
    divisor = gcd(*numbers)
    lap = sum(numbers) // divisor
    assert Counter(turns(list(enumerate(numbers)), lap)) == {i: w // divisor for i, w in enumerate(numbers)}


@given(weights, st.integers(min_value=1, max_value=6))
@settings(max_examples=50, deadline=None)
def test_shares_are_exact_for_any_weights(numbers: list[int], number_of_laps: int) -> None:
    """After any whole number of laps nobody is more than a turn away from its share, however long it goes on."""
    taken: Counter[int] = Counter()
    length = 0
    for lap in islice(laps(list(enumerate(numbers))), number_of_laps):
        assert len(lap) <= LAP_TURNS + len(numbers)
        taken.update(lap)
        length += len(lap)
    for item, weight in enumerate(numbers):
        assert abs(taken[item] * sum(numbers) - length * weight) <= len(numbers) * sum(numbers)


def test_the_lightest_of_a_heavy_pool_gets_its_turn() -> None:
    heavy = turns([("a", 100_000), ("b", 1)], 3 * 100_001)
    assert 2 <= heavy.count("b") <= 4


@given(st.integers(min_value=1, max_value=40))
def test_same_weights_at_any_size_are_one_turn_each(size: int) -> None:
    assert sorted(turns([(i, 10) for i in range(size)], size)) == list(range(size))


def test_a_pool_of_a_thousand_walks_a_ring_of_its_members_only() -> None:
    _, pool = pool_of(*(Node(f"127.0.0.1:{port}", weight=port % 3 + 1) for port in range(1, 1001)))
    assert len(set(picks(pool, 3 * LAP_TURNS))) == 1000
    assert pool.lap <= LAP_TURNS


def test_an_empty_pool_has_nobody() -> None:
    table, pool = pool_of(Node(":1"))
    table.feeds[0].set("foo.com", [])
    assert picks(pool, 1) == [None]


def test_a_walk_begins_where_the_dice_say() -> None:
    table = Table(randrange=lambda n: n - 1)
    table.feed("test").set("foo.com", [Node(":1"), Node(":2"), Node(":3")])
    assert picks(table.pools["foo.com"], 4) == [":3", ":1", ":2", ":3"]


def test_an_endpoint_that_is_out_gets_no_turn_and_the_others_share_exactly() -> None:
    table, pool = pool_of(Node(":1"), Node(":2"), Node(":3"))
    table.fail(table.endpoints[":2"], out_until=30.0)
    assert Counter(picks(pool, 8)) == {":1": 4, ":3": 4}


def test_with_all_out_there_is_nobody() -> None:
    table, pool = pool_of(Node(":1"), Node(":2"))
    for endpoint in table.endpoints.values():
        table.fail(endpoint, out_until=30.0)
    assert picks(pool, 2) == [None, None]


def test_one_on_trial_gets_one_request_until_that_has_ended() -> None:
    table, pool = pool_of(Node(":1"), Node(":2"))
    table.fail(table.endpoints[":2"], out_until=30.0)
    table.begin_trials(29.9)
    assert Counter(picks(pool, 4)) == {":1": 4}
    table.begin_trials(30.0)
    assert table.endpoints[":2"].state == TRIAL
    assert Counter(picks(pool, 4)) == {":1": 3, ":2": 1}
    assert table.endpoints[":2"].state == TRYING
    table.release_trial(table.endpoints[":2"])
    assert Counter(picks(pool, 4)) == {":1": 3, ":2": 1}
    table.restore(table.endpoints[":2"])
    assert table.endpoints[":2"].state == LIVE
    assert Counter(picks(pool, 4)) == {":1": 2, ":2": 2}


def test_backups_serve_while_nobody_before_them_lives() -> None:
    table, pool = pool_of(Node(":1"), Node(":2", backup=1), Node(":3", backup=2), Node(":4", backup=1))
    assert set(picks(pool, 4)) == {":1"}
    table.fail(table.endpoints[":1"], out_until=30.0)
    assert Counter(picks(pool, 4)) == {":2": 2, ":4": 2}
    table.fail(table.endpoints[":2"], out_until=40.0)
    table.fail(table.endpoints[":4"], out_until=40.0)
    assert set(picks(pool, 4)) == {":3"}
    table.begin_trials(30.0)
    assert Counter(picks(pool, 6)) == {":1": 1, ":3": 5}, "one tries, the others go where it is safe"
    table.restore(table.endpoints[":1"])
    assert set(picks(pool, 4)) == {":1"}


def test_those_to_avoid_are_not_picked() -> None:
    table, pool = pool_of(Node(":1"), Node(":2"))
    assert set(picks(pool, 4, avoid=[table.endpoints[":1"]])) == {":2"}
    assert picks(pool, 2, avoid=list(table.endpoints.values())) == [None, None]


def test_avoiding_the_heaviest_finds_the_lightest_at_once() -> None:
    table, pool = pool_of(Node(":1", weight=1_000_000), Node(":2"))
    assert picks(pool, 1, avoid=[table.endpoints[":1"]]) == [":2"]


@pytest.mark.parametrize("name", ["", "lrc2", "WRR"])
def test_an_unknown_algorithm_is_the_default(name: str) -> None:
    table, pool = pool_of(Node(":1", algorithm=name))
    assert pool.algorithm == "wrr"
    assert pool.pick is wrr
    assert table.feeds[0].rejected["unknown algorithm"] == bool(name)
