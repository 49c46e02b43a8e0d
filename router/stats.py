"""State → the JSON that uWSGI's fastrouter shows, with its names. Pure: the server beside it is in supervisor.py.

The supervisor knows keys, nodes and announcements; each router knows what it has counted. `count` is one router's share
as it goes over the pair, `retire` keeps the share of a router that has died, `snapshot` adds all of them up. Gauges
(requests in flight) live and die with their router, counters stay.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from router import __version__
from router.endpoint import OUT
from router.key import djb33x
from router.pool import Member
from router.table import Feed, Table

if TYPE_CHECKING:
    from router.engine import Engine  # needs select.epoll, which the supervisor's monkey patch takes away

Counts = dict[str, Any]


def count(engine: Engine, cheap: bool) -> Counts:
    """What one router has counted. Per node: requests, tx, rx, in flight, failures, notes; idle nodes are left out."""
    pools = {}
    for key, pool in engine.pools.items():
        nodes = {
            address: [m.requests, m.tx, m.rx, m.in_flight, m.failures, list(m.history or ())]
            for address, m in pool.members.items()
            if m.requests or m.failures or m.in_flight
        }
        if nodes or pool.hits:
            pools[key] = [pool.hits, nodes]
    return {
        "active": engine.active,
        "requests": engine.requests,
        "cheap": cheap,
        "complaints": dict(engine.complaints.counted),
        "pools": pools,
    }


def retire(table: Table, counts: Counts) -> None:
    """Keep in the supervisor's own table what a router had counted when it last told, now that it is gone."""
    for key, (hits, nodes) in counts.get("pools", {}).items():
        pool = table.pools.get(key)
        if pool is None:
            continue
        pool.hits += hits
        for address, (requests, tx, rx, _in_flight, failures, _notes) in nodes.items():
            member = pool.members.get(address)
            if member is not None:
                member.requests += requests
                member.tx += tx
                member.rx += rx
                member.failures += failures


def snapshot(
    table: Table,
    routers: Sequence[tuple[int, Counts]],
    *,
    addresses: Sequence[str],
    sources: Iterable[Feed],
    retired: Mapping[str, int],
    cwd: str,
) -> dict[str, Any]:
    """The whole stats object. `routers` are (pid, last counts); `retired` the complaints counted by those that died."""
    shares = [counts for _, counts in routers]
    complaints = Counter(retired)
    for counts in shares:
        complaints.update(counts.get("complaints", {}))
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "cwd": cwd,
        "active_sessions": sum(counts.get("active", 0) for counts in shares),
        "fastrouter": list(addresses),
        "subscriptions": [_pool(table, key, shares) for key in table.pools],
        "cheap": int(bool(shares) and all(counts.get("cheap", False) for counts in shares)),
        "routers": [
            {"pid": pid, "active_sessions": c.get("active", 0), "requests": c.get("requests", 0)} for pid, c in routers
        ],
        "complaints": dict(complaints),
        "sources": [
            {"name": f.source, "nodes": f.size, "error": f.error or "", "errors": f.errors,
             "rejected": dict(f.rejected)}
            for f in sources
        ],
        "hosts": [
            {"name": address, "addresses": list(name.addresses), "error": name.error}
            for address, name in table.names.items()
        ],
    }  # fmt: skip


def _pool(table: Table, key: str, shares: Sequence[Counts]) -> dict[str, Any]:
    pool = table.pools[key]
    parts = [counts["pools"][key] for counts in shares if key in counts.get("pools", ())]
    return {
        "key": key.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "hash": djb33x(key),
        "hits": pool.hits + sum(hits for hits, _ in parts),
        "sni_enabled": int(any(member.node.sni for member in pool.members.values())),
        "algo": pool.algorithm,
        "nodes": [
            _node(member, [nodes[address] for _, nodes in parts if address in nodes])
            for address, member in pool.members.items()
        ],
    }


def _node(member: Member, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
    node = member.node
    return {
        "name": node.address,
        "host": node.host,
        "vassal": node.vassal,
        "modifier1": node.modifier1,
        "modifier2": node.modifier2,
        "last_check": int(node.last_check),
        "pid": 0,
        "uid": 0,
        "gid": 0,
        "requests": member.requests + sum(part[0] for part in parts),
        "last_requests": sum(_since(part, node.last_check) for part in parts),
        "tx": member.tx + sum(part[1] for part in parts),
        "rx": member.rx + sum(part[2] for part in parts),
        "cores": node.cores,
        "load": node.load,
        "weight": node.weight,
        "backup": node.backup,
        "proto": node.proto,
        "wrr": 0,  # turns left in the real one's burst; a ring has no bursts
        "ref": sum(part[3] for part in parts),
        "failcnt": member.failures + sum(part[4] for part in parts),
        "death_mark": int(member.endpoint.state == OUT),
    }


def _since(part: Sequence[Any], announced: float) -> int:
    """Requests after that time (unix seconds), by a router's notes (Member.note)."""
    return int(part[0]) - next((requests for noted, requests in part[5] if noted >= announced), part[0])
