"""iphash and hash:VAR: the same node for the same word, in each process; who moves; shares; bounds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import packet
from router.balance import is_askable
from router.endpoint import TRYING, Endpoint
from router.hashing import BOUND, PROBES, QUIET, points_of
from router.key import find_var
from router.node import Node
from router.pool import Member, Pool
from router.table import Table
from router.uwsgi import build
from test_least import leave

WORDS = [f"10.{n >> 8}.{n & 255}.9" for n in range(2000)]


def pool_of(algorithm: str, *nodes: Node, limit: int = 0) -> tuple[Table, Pool]:
    table = Table(algorithm=algorithm, limit=limit, randrange=Random(1).randrange)
    table.feed("test").set("foo.com", nodes)
    return table, table.pools["foo.com"]


def nodes(*numbers: int, **said: Any) -> list[Node]:
    return [Node(f"10.0.{n >> 8}.{n & 255}:3031", **said) for n in numbers]


def asks(word: str, name: str = "REMOTE_ADDR") -> Any:
    data = packet([("HTTP_HOST", "foo.com"), (name, word)], 0)
    return SimpleNamespace(head=data, size=len(data))


def picked(pool: Pool, session: Any) -> Any:
    return pool.pick(pool, (), session)


def pick(pool: Pool, word: str, avoid: Sequence[Endpoint] = ()) -> Any:
    return pool.pick(pool, avoid, asks(word))


def owners(pool: Pool) -> dict[str, str]:
    return {word: pick(pool, word).endpoint.address for word in WORDS}


def moved(before: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {word: (before[word], now[word]) for word in before if before[word] != now[word]}


def test_a_word_keeps_its_node() -> None:
    _, pool = pool_of("iphash", *nodes(*range(10)))
    assert owners(pool) == owners(pool)


def test_who_leaves_takes_no_words_along_but_its_own_and_gets_them_back() -> None:
    table, pool = pool_of("iphash", *nodes(*range(10)))
    before = owners(pool)
    gone = nodes(3)[0].address
    table.feeds[0].withdraw("foo.com", gone)
    without = owners(pool)
    assert moved(before, without).keys() == {word for word, owner in before.items() if owner == gone}
    assert len(set(without.values())) == 9
    table.feeds[0].announce("foo.com", nodes(3)[0])
    assert owners(pool) == before


@pytest.mark.parametrize("how", ["out", "drained"])
def test_who_is_out_or_drained_moves_as_one_that_left(how: str) -> None:
    table, pool = pool_of("iphash", *nodes(*range(5)))
    address = nodes(2)[0].address
    _, without = pool_of("iphash", *nodes(0, 1, 3, 4))
    if how == "out":
        table.fail(table.endpoints[address], out_until=30.0)
    else:
        table.drain(([address], ()))
    assert owners(pool) == owners(without)


def test_the_heaviest_moves_no_others_while_it_is_out() -> None:
    table, pool = pool_of("iphash", *nodes(1, 2, 3), *nodes(4, weight=5))
    before = owners(pool)
    heavy = nodes(4)[0].address
    table.fail(table.endpoints[heavy], out_until=30.0)
    assert {was for was, _ in moved(before, owners(pool)).values()} == {heavy}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_the_circle_depends_on_who_is_there_alone(steps: list[tuple[bool, int]]) -> None:
    table, pool = pool_of("iphash", *nodes(99))
    there = {99}
    for comes, number in steps:
        (there.add if comes else there.discard)(number)
        feed = table.feeds[0]
        if comes:
            feed.announce("foo.com", nodes(number)[0])
        else:
            feed.withdraw("foo.com", nodes(number)[0].address)
        if len(there) % 3:
            pick(pool, "10.0.0.1")
    _, fresh = pool_of("iphash", *nodes(*sorted(there, reverse=True)))
    pick(pool, "10.0.0.1")
    pick(fresh, "10.0.0.1")
    assert pool.order.points == fresh.order.points
    assert {p: m.node for p, m in pool.order.owners.items()} == {p: m.node for p, m in fresh.order.owners.items()}


def naive(pool: Pool, word: bytes) -> str:
    """Whose point follows one of the word's places at the smallest distance, by a look at all."""
    digest = hashlib.blake2b(word, digest_size=4 * (PROBES + 1)).digest()
    probes = [int.from_bytes(digest[4 * n : 4 * n + 4], "little") / 2**32 for n in range(PROBES)]
    far = [
        ((point - probe) % 1, member.endpoint.address)
        for member in pool.ring
        for point in points_of(member.endpoint.address)
        for probe in probes
    ]
    return min(far)[1]


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=12), st.lists(st.ip_addresses(v=4).map(str), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_nearest_point_has_the_word(numbers: set[int], words: list[str]) -> None:
    _, pool = pool_of("iphash", *nodes(*numbers))
    for word in words:
        assert pick(pool, word).endpoint.address == naive(pool, word.encode())


def test_another_process_agrees() -> None:
    _, pool = pool_of("hash:HTTP_X_USER", *nodes(*range(20), weight=3), *nodes(77))
    code = """if True:
        import json, sys
        sys.path.append("tests")
        from test_hashing import pool_of, nodes, asks
        _, pool = pool_of("hash:HTTP_X_USER", *nodes(77), *nodes(*range(19, -1, -1), weight=3))
        print(json.dumps([pool.pick(pool, (), asks(f"user{n}", "HTTP_X_USER")).endpoint.address for n in range(200)]))
    """
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
    said = [picked(pool, asks(f"user{n}", "HTTP_X_USER")).endpoint.address for n in range(200)]
    assert json.loads(told.stdout) == said


@pytest.mark.parametrize(("count", "spread"), [(3, 0.20), (10, 0.25), (100, 0.40)])
def test_shares_are_even(count: int, spread: float) -> None:
    """Points are off by 6 %, a tenth more at worst; the rest is chance, of five standard deviations."""
    _, pool = pool_of("iphash", *nodes(*range(count)))
    words = 200 * count
    taken = Counter(pick(pool, f"client {n}").endpoint.address for n in range(words))
    assert len(taken) == count
    assert all(abs(times / 200 - 1) < spread + 5 / 200**0.5 * 0.5 for times in taken.values())


def test_shares_are_those_of_the_weights() -> None:
    """Over 40 pools, so that what a single one is off by evens out."""
    taken: Counter[int] = Counter()
    for n in range(40):
        weights = {10 * n + 1: 1, 10 * n + 2: 2, 10 * n + 3: 7}
        _, pool = pool_of("iphash", *(node for number, w in weights.items() for node in nodes(number, weight=w)))
        taken.update(pick(pool, f"{n} {word}").node.weight for word in range(250))
    for weight, expected in ((1, 1000), (2, 2000), (7, 7000)):
        assert abs(taken[weight] - expected) < 0.08 * expected + 150


def test_backup_levels_are_not_honoured() -> None:
    _, pool = pool_of("iphash", *nodes(1), *nodes(2, backup=1))
    assert set(owners(pool).values()) == {node.address for node in nodes(1, 2)}


def test_one_that_starts_slowly_takes_its_words_one_by_one() -> None:
    _, pool = pool_of("iphash", *nodes(1, 2, 3, 4))
    whole = owners(pool)
    slow = pool.members[nodes(2)[0].address]
    before: set[str] = set()
    for share in (10, 40, 70, 100):
        slow.share = share
        pool.stale = True
        now = owners(pool)
        mine = {word for word, owner in now.items() if owner == slow.endpoint.address}
        assert {was for was, _ in moved(whole, now).values()} <= {slow.endpoint.address}
        assert before <= mine
        assert abs(len(mine) - share / 100 * 500) < 120
        before = mine
    assert now == whole


def test_all_that_start_slowly_together_share_everything() -> None:
    _, pool = pool_of("iphash", *nodes(1, 2))
    whole = owners(pool)
    for member in pool.members.values():
        member.share = 10
    pool.stale = True
    assert owners(pool) == whole


def test_words_that_are_not_there_are_spread() -> None:
    _, pool = pool_of("hash:HTTP_X_USER", *nodes(1, 2, 3))
    for ask in (asks("x", "HTTP_OTHER"), asks("", "HTTP_X_USER"), None):
        taken = Counter(picked(pool, ask).endpoint.address for _ in range(900))
        assert len(taken) == 3 and min(taken.values()) > 200


def test_those_to_avoid_and_those_on_trial() -> None:
    table, pool = pool_of("iphash", *nodes(1, 2, 3))
    first = pick(pool, "10.1.1.1").endpoint
    second = pick(pool, "10.1.1.1", [first]).endpoint
    assert second is not first
    third = pick(pool, "10.1.1.1", [first, second]).endpoint
    assert pick(pool, "10.1.1.1", [first, second, third]) is None
    table.fail(first, out_until=30.0)
    assert pick(pool, "10.1.1.1").endpoint is second
    table.begin_trials(30.0)
    assert pick(pool, "10.1.1.1").endpoint is first
    assert first.state == TRYING
    assert pick(pool, "10.1.1.1").endpoint is second
    table.restore(first)
    assert pick(pool, "10.1.1.1").endpoint is first
    for endpoint in (first, second, third):
        table.fail(endpoint, out_until=99.0)
    assert pick(pool, "10.1.1.1") is None


def hold(pool: Pool, word: str, name: str = "REMOTE_ADDR") -> Any:
    member: Any = pool.pick(pool, (), asks(word, name))
    member.in_flight += 1
    member.endpoint.in_flight += 1
    return member


@pytest.mark.parametrize("algorithm", ["iphash", "hash:REMOTE_ADDR"])
def test_a_limit_sends_words_elsewhere(algorithm: str) -> None:
    _, pool = pool_of(algorithm, *nodes(1, 2, 3), limit=2)
    assert Counter(hold(pool, "10.1.1.1").endpoint.address for _ in range(6)) == {
        node.address: 2 for node in nodes(1, 2, 3)
    }
    assert pick(pool, "10.1.1.1") is None


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    assert owners(pool_of("iphash", *nodes(1, 2, 3), limit=2)[1]) == owners(pool_of("iphash", *nodes(1, 2, 3))[1])


def test_a_hot_word_does_not_drown_its_node() -> None:
    _, pool = pool_of("hash:REMOTE_ADDR", *nodes(*range(10)))
    held = [hold(pool, "10.1.1.1") for _ in range(QUIET)]
    assert len({member.endpoint for member in held}) == 1, "few are not too many"
    held += [hold(pool, "10.1.1.1") for _ in range(200 - QUIET)]
    most = Counter(member.endpoint.address for member in held)
    assert max(most.values()) <= BOUND * 200 / 10 + 1
    for member in held:
        leave(member)
    assert hold(pool, "10.1.1.1") is held[0]


def test_an_address_has_its_node_whatever_it_has_to_do() -> None:
    _, pool = pool_of("iphash", *nodes(*range(10)))
    assert len({hold(pool, "10.1.1.1").endpoint for _ in range(200)}) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=120), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_what_is_in_flight_is_known_and_bounded(steps: list[tuple[int, int]], weight: int) -> None:
    _, pool = pool_of("hash:REMOTE_ADDR", *nodes(1, 2, 3), *nodes(4, weight=weight))
    held: list[Member] = []
    for word, ends in steps:
        held.append(hold(pool, f"10.1.1.{word % 2}"))
        pool.order.look()
        assert pool.order.total == len(held)
        member, share = held[-1], pool.order.weights[held[-1]]
        assert member.endpoint.in_flight <= max(QUIET, BOUND * len(held) * share + 1)
        if ends < 10:
            leave(held.pop(ends % len(held)))
    assert all(is_askable(pool, member.endpoint) for member in pool.ring)


# The var.


@pytest.mark.parametrize(
    ("vars_", "value"),
    [
        ([("REMOTE_ADDR", "1.2.3.4"), ("HTTP_HOST", "foo.com")], b"1.2.3.4"),
        ([("REMOTE_ADDR", "1.2.3.4"), ("REMOTE_ADDR", "5.6.7.8")], b"5.6.7.8"),
        ([("HTTP_REMOTE_ADDR", "1.2.3.4")], b""),
        ([("REMOTE_ADDR", "")], b""),
        ([("REMOTE_ADDR", "1.2.3.4"), ("HTTP_X", "\x0b\0REMOTE_ADDR\x07\0" + "6.6.6.6")], b"1.2.3.4"),
        ([("X" * 300, "y"), ("REMOTE_ADDR", "1.2.3.4")], b"1.2.3.4"),
        ([("REMOTE_ADDR", "x" * 700)], b"x" * 700),
    ],
)
def test_a_var_is_found(vars_: list[tuple[str, str]], value: bytes) -> None:
    data = packet(vars_, 0)
    assert find_var(data + b"\x0b\0REMOTE_ADDR\x01\0b", len(data), b"REMOTE_ADDR") == value


names = st.sampled_from([b"A", b"AB", b"REMOTE_ADDR", b"X" * 260])
values = st.binary(max_size=20) | st.just(b"\x01\0A\x01\0B") | st.just(b"v" * 300)


@given(st.lists(st.tuples(names, values), max_size=8))
def test_a_var_is_what_the_walk_over_all_says(pairs: list[tuple[bytes, bytes]]) -> None:
    data = build(pairs)
    for name in (b"A", b"AB", b"REMOTE_ADDR"):
        assert find_var(data, len(data), name) == dict(pairs).get(name, b"")


def test_a_malformed_packet_whose_key_is_forced_has_no_vars() -> None:
    for data in (b"\0\x20\0\0\x01\0a\xff\0\x0b\0REMOTE_ADDR\x01\0b", b"\0\x0e\0\0\x0b\0REMOTE_ADDR\x01"):
        assert find_var(data, len(data), b"REMOTE_ADDR") == b""
