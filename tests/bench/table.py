"""The table case of `make bench`: 10,000 keys and 50,000 nodes, merged in the supervisor and copied to a router.

What a source's word costs in CPU time of this process, without anybody listening to the changes: that is logs and
messages to routers. Python's own garbage collection is in it, but not what making the words has left to collect. What a
real router process takes until it holds the whole table is its own CPU time.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from time import process_time

sys.path.append(str(Path(__file__).parents[1]))  # for one_router, which starts a router as the supervisor does
from one_router import OneRouter
from router.kernel import Usage
from router.node import Node
from router.pool import Pool
from router.stats import snapshot
from router.table import Table

NAME = "table"  # for --case
KEYS, NODES_A_KEY = 10_000, 5
NODES = KEYS * NODES_A_KEY
ROUNDS = 5
ANNOUNCEMENTS = 10_000
PICKS = 200_000
REPLACE_LIMIT_MS = 150.0  # of a replace that changes nothing: what the project promises


@dataclass(frozen=True)
class TableResult:
    """Medians. `_us` and `_ns` are of one, `_ms` of all."""

    announce_known_us: float
    announce_new_us: float
    replace_empty_ms: float
    replace_unchanged_ms: float
    replace_weights_ms: float
    replace_addresses_ms: float
    pick_10_ns: float
    pick_50000_ns: float
    router_ms: float
    stats_ms: float

    def table(self) -> str:
        titles = {
            "announce_known_us": "an announcement that changes nothing, µs",
            "announce_new_us": "an announcement of a new node, µs",
            "replace_empty_ms": "a replace of everything, where nothing was, ms",
            "replace_unchanged_ms": "a replace of everything, nothing changed, ms",
            "replace_weights_ms": "a replace of everything, all weights changed, ms",
            "replace_addresses_ms": "a replace of everything, all addresses changed, ms",
            "pick_10_ns": "a pick from 10 nodes, ns",
            "pick_50000_ns": f"a pick from {NODES:,} nodes of one key, ns",
            "router_ms": "until a router process holds all of it, ms",
            "stats_ms": "the stats of all of it, before they are JSON, ms",
        }
        lines = [f"{KEYS:,} keys, {NODES:,} nodes, CPU time"]
        lines += [f"{titles[f.name]:<56}{getattr(self, f.name):>10,.1f}" for f in fields(self)]
        return "\n".join(lines)

    def faults(self, limited: bool) -> list[str]:
        if not limited or self.replace_unchanged_ms <= REPLACE_LIMIT_MS:
            return []
        took = f"{self.replace_unchanged_ms:.0f} ms"
        return [f"{NAME}: a replace that changes nothing takes {took}, the limit is {REPLACE_LIMIT_MS:.0f} ms"]


def measured() -> TableResult:
    table = Table()
    feed = table.feed("bench")
    feed.replace(pools())
    known = [(key, node) for key, nodes in list(pools().items())[: ANNOUNCEMENTS // NODES_A_KEY] for node in nodes]
    announce_known = timed(lambda: [feed.announce(key, node) for key, node in known]) / len(known)
    new = [(key, Node(f"127.1.{n >> 8}.{n & 255}:1")) for n, (key, _) in enumerate(known)]
    announce_new = timed(lambda: [feed.announce(key, node) for key, node in new]) / len(new)
    feed.replace(pools())
    return TableResult(
        announce_known_us=announce_known * 1e6,
        announce_new_us=announce_new * 1e6,
        replace_empty_ms=median(filled_ms() for _ in range(ROUNDS)),
        replace_unchanged_ms=replaced(table, [{} for _ in range(ROUNDS)]),
        replace_weights_ms=replaced(table, [{"weight": 2 + n} for n in range(ROUNDS)]),
        replace_addresses_ms=replaced(table, [{"port": 2 + n} for n in range(ROUNDS)]),
        pick_10_ns=pick_ns(10),
        pick_50000_ns=pick_ns(NODES),
        router_ms=router_ms(),
        stats_ms=stats_ms(table),
    )


def pools(weight: int = 1, port: int = 1) -> dict[str, list[Node]]:
    return {
        f"{key}.example.com": [
            Node(f"10.{key >> 8}.{key & 255}.{n}:{port}", weight=weight) for n in range(1, 1 + NODES_A_KEY)
        ]
        for key in range(KEYS)
    }


def replaced(table: Table, versions: list[dict[str, int]]) -> float:
    """Milliseconds of one."""
    return median(replace_ms(table, pools(**version)) for version in versions)


def filled_ms() -> float:
    table = Table()
    table.feed("bench")
    return replace_ms(table, pools())


def replace_ms(table: Table, word: dict[str, list[Node]]) -> float:
    gc.collect()
    return timed(lambda: table.feeds[0].replace(word)) * 1e3


def stats_ms(table: Table) -> float:
    def look() -> None:
        snapshot(
            table,
            [],
            addresses=[],
            sources=[],
            cwd=os.sep,
            warming=0,
            lookups={"refused": 0},
            listen_queue=0,
            usage=lambda pid: Usage(),
        )

    return median(timed(look) for _ in range(ROUNDS)) * 1e3


def pick_ns(nodes: int) -> float:
    table = Table()
    table.feed("bench").set("foo.com", [Node(f"10.0.{n >> 8}.{n & 255}:1") for n in range(nodes)])
    pool: Pool = table.pools["foo.com"]
    pool.pick(pool)  # lays the ring

    def some() -> None:
        pick = pool.pick
        for _ in range(PICKS):
            pick(pool)

    return timed(some) / PICKS * 1e9


def router_ms() -> float:
    with OneRouter() as router:
        router.counts()
        began = router.processor_seconds()
        router.table(pools())
        return (router.processor_seconds() - began) * 1e3


def timed(work: Callable[[], object]) -> float:
    began = process_time()
    work()
    return process_time() - began
