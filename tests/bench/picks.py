"""The picks case of `make bench`: what each algorithm takes to pick from 10, 100 and 1,000 nodes.

CPU time of this process, of one request: a pick, and what the end of the request costs its pool. 64 requests are in
flight all the while, as lrc and its like are cheaper where nothing is. `laid` is a pick after a node has come or gone,
which lays the ring anew. Nothing of the engine or a socket is in it: a whole request takes about 35 µs.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for clients
from clients import request
from router.algorithmname import NAMES
from router.node import Node
from router.pool import Pool
from router.table import Table

NAME = "picks"  # for --case
SIZES = (10, 100, 1000)
ALGORITHMS = (*NAMES, "hash:REMOTE_ADDR")
IN_FLIGHT = 64
REQUESTS = 20_000
ROUNDS = 5
LAYS = 20
LAY_LIMIT_MS = 15.0  # at 1,000 nodes: what a message of so many nodes takes a router as well (child.py)


@dataclass(frozen=True)
class Row:
    """Of one algorithm, by SIZES: µs a request, and ms where the ring is laid anew."""

    algorithm: str
    pick_us: tuple[float, ...]
    laid_ms: tuple[float, ...]


@dataclass(frozen=True)
class PicksResult:
    rows: list[Row]

    def table(self) -> str:
        sizes = "".join(f"{size:>9,}" for size in SIZES)
        lines = [f"{'a pick from so many nodes, µs; laid anew, ms':<46}{sizes}{sizes}"]
        for row in self.rows:
            picks = "".join(f"{us:>9.2f}" for us in row.pick_us)
            lines.append(f"{row.algorithm:<46}{picks}" + "".join(f"{ms:>9.2f}" for ms in row.laid_ms))
        return "\n".join(lines)

    def faults(self, limited: bool) -> list[str]:
        return [
            f"{NAME}: {row.algorithm} lays {SIZES[-1]:,} nodes in {row.laid_ms[-1]:.1f} ms, limit {LAY_LIMIT_MS:.0f}"
            for row in self.rows
            if limited and row.laid_ms[-1] > LAY_LIMIT_MS
        ]


def measured() -> PicksResult:
    return PicksResult([row_of(algorithm) for algorithm in ALGORITHMS])


def row_of(algorithm: str) -> Row:
    pools = [pool_of(algorithm, size) for size in SIZES]
    return Row(
        algorithm,
        tuple(median(pick_us(pool) for _ in range(ROUNDS)) for _, pool in pools),
        tuple(median(laid_ms(table, pool) for _ in range(LAYS)) for table, pool in pools),
    )


def pool_of(algorithm: str, size: int) -> tuple[Table, Pool]:
    table = Table(algorithm=algorithm)
    table.feed("bench").set("foo.com", [Node(f"10.0.{n >> 8}.{n & 255}:1", cores=4) for n in range(size)])
    return table, table.pools["foo.com"]


def asks(number: int) -> Any:
    data = request("foo.com", REMOTE_ADDR=f"10.1.{number >> 8 & 255}.{number & 255}")
    return SimpleNamespace(head=data, size=len(data))


def pick_us(pool: Pool) -> float:
    """Microseconds a request, and nothing else: the loop is measured without them and taken off."""
    sessions = [asks(number) for number in range(1000)]
    busy: deque[Any] = deque()
    began = process_time()
    for number in range(REQUESTS):
        member: Any = pool.pick(pool, (), sessions[number % 1000])
        member.endpoint.in_flight += 1
        busy.append(member)
        if len(busy) > IN_FLIGHT:
            endpoint = busy.popleft().endpoint
            endpoint.in_flight -= 1
            if endpoint.watchers:
                endpoint.tell_watchers()
    took = process_time() - began
    while busy:
        endpoint = busy.popleft().endpoint
        endpoint.in_flight -= 1
        endpoint.tell_watchers()
    return (took - loop_seconds(pool, sessions)) / REQUESTS * 1e6


def loop_seconds(pool: Pool, sessions: list[Any]) -> float:
    member = next(iter(pool.members.values()))

    def pick(pool: Pool, avoid: tuple[()], session: Any) -> Any:
        return member

    busy: deque[Any] = deque()
    began = process_time()
    for number in range(REQUESTS):
        pick(pool, (), sessions[number % 1000])
        member.endpoint.in_flight += 1
        busy.append(member)
        if len(busy) > IN_FLIGHT:
            endpoint = busy.popleft().endpoint
            endpoint.in_flight -= 1
    took = process_time() - began
    member.endpoint.in_flight -= len(busy)
    return took


def laid_ms(table: Table, pool: Pool) -> float:
    """Milliseconds of a pick after one node has gone and another one has come."""
    feed, ask = table.feeds[0], asks(1)
    pool.pick(pool, (), ask)
    node = next(iter(pool.members.values())).node
    feed.withdraw("foo.com", node.address)
    feed.announce("foo.com", Node(f"10.9.9.9:{len(pool.members) + feed.progressed}", cores=4))
    began = process_time()
    pool.pick(pool, (), ask)
    return (process_time() - began) * 1e3
