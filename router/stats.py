"""State → the JSON that uWSGI's fastrouter shows, with its names. Pure: statsserver.py serves it.

The supervisor knows keys, nodes and announcements; each router knows what it has counted. `count` is one router's share
as it goes over the pair, `retire` keeps the share of a router that has died, `snapshot` adds all of them up. Gauges
(requests in flight) live and die with their router, counters stay. Router processes are shown as uWSGI shows its
workers, which the fastrouter does not do, so that uwsgitop and its like have rows to draw.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from router import __version__
from router.endpoint import OUT, Endpoint
from router.kernel import Usage
from router.key import key_hash
from router.lookups import TOO_MANY
from router.pool import Member
from router.queueing import QUEUE_FULL, QUEUE_TIMEOUT
from router.said import said, sayers_of
from router.static import FALLBACK, OWN, RESERVED, TO
from router.table import Table

if TYPE_CHECKING:
    from router.engine import Engine  # needs select.epoll, which the supervisor's monkey patch takes away

Counts = dict[str, Any]

MORE = ("host", "modifier1", "modifier2", "requests", "tx", "rx", "weight", "backup", "ref", "failcnt", "death_mark")
IDLE = (0,) * 6  # `_added` of a node that no router has counted anything for, as are most of 50,000


@dataclass
class Slot:
    """A place for one router process. It outlives those that fill it one after the other, as a worker of uWSGI does."""

    number: int  # from 1, as the log names it
    pid: int = 0  # 0 while it is empty
    spawns: int = 0
    harakiris: int = 0  # processes that were killed because they were stuck
    last_spawn: float = 0.0  # unix seconds
    last_answer: float = 0.0  # when `counts` came; unix seconds, 0 before the first
    counts: Counts = field(default_factory=dict)  # of its process, as that last told
    past: Counts = field(default_factory=dict)  # `total` of the processes before it

    def fill(self, pid: int, now: float, *, cheap: bool) -> None:
        """A process has been started, which has told nothing yet."""
        self.pid = pid
        self.spawns += 1
        self.last_spawn = now
        self.last_answer = 0.0
        self.counts = {"cheap": cheap}

    def hear(self, counts: Counts, now: float) -> None:
        """Its process has told what it has counted."""
        self.counts = counts
        self.last_answer = now

    def vacate(self) -> None:
        """The process is gone; what it counted stays."""
        self.past = self.total()
        self.pid = 0
        self.counts = {}

    def total(self) -> Counts:
        """`requests`, `tx`, `queued_in_all` and `complaints` of all its processes so far."""
        both = (self.past, self.counts)
        complaints: Counter[str] = Counter()
        for counts in both:
            complaints.update(counts.get("complaints", {}))
        added = {name: sum(counts.get(name, 0) for counts in both) for name in ("requests", "tx", "queued_in_all")}
        return {**added, "complaints": complaints}


def count(engine: Engine, cheap: bool) -> Counts:
    """What one router has counted. Per node: requests, tx, rx, in flight, failures, notes; idle nodes are left out."""
    pools = {}
    tx = engine.left_tx
    for key, pool in engine.pools.items():
        tx += sum(member.tx for member in pool.members.values())
        nodes = {
            address: [m.requests, m.tx, m.rx, m.in_flight, m.failures, list(m.history or ())]
            for address, m in pool.members.items()
            if m.requests or m.failures or m.in_flight
        }
        if nodes or pool.hits:
            pools[key] = [pool.hits, nodes]
    return {
        "active": engine.active,
        "waiting": len(engine.room.waits),
        "queued": {pool.key: len(pool.queue) + len(pool.retries) for pool in engine.queues.pools},
        "queued_in_all": engine.queues.entered,
        "requests": engine.requests,
        "tx": tx,
        "held": engine.bodies.held if engine.bodies else 0,
        "cheap": cheap,
        "complaints": dict(engine.complaints.counted),
        "pools": pools,
    }


def queued(counts: Counts) -> int:
    """Requests that wait for a node with room, in one router."""
    return sum(counts.get("queued", {}).values())


def retire(table: Table, slot: Slot) -> None:
    """The slot's process is gone: keep, in the supervisor's own table and in the slot, what it had last told."""
    for key, (hits, nodes) in slot.counts.get("pools", {}).items():
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
    slot.vacate()


def snapshot(
    table: Table,
    slots: Sequence[Slot],
    *,
    addresses: Sequence[str],
    sources: Iterable[dict[str, Any]],
    cwd: str,
    warming: int,
    lookups: Mapping[str, int],
    listen_queue: int,
    usage: Callable[[int], Usage],
    beside: Iterable[dict[str, Any]] = (),
    receivers: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The whole stats object.

    `sources`: how each of them is (sourcestate.py). `warming`: seconds for which requests for unknown keys may still
    wait. `lookups`: what sources on demand were asked for; what routers refused to ask is added. `listen_queue`:
    connections that wait to be accepted. `usage` looks at a process. `beside`: programs that run beside the routers.
    `receivers`: the routers that are told of us.
    """
    running = [slot for slot in slots if slot.pid]
    shares = [slot.counts for slot in running]
    workers = [_worker(slot, usage(slot.pid)) for slot in running]
    complaints: Counter[str] = Counter()
    for slot in slots:
        complaints.update(slot.total()["complaints"])
    queue = {
        "waiting": sum(queued(counts) for counts in shares),
        "entered": sum(slot.total()["queued_in_all"] for slot in slots),
        "refused": complaints[QUEUE_FULL],
        "timed_out": complaints[QUEUE_TIMEOUT],
    }
    return {
        "version": __version__,
        "listen_queue": listen_queue,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "cwd": cwd,
        "active_sessions": sum(worker["active_sessions"] for worker in workers),
        "fastrouter": list(addresses),
        **_static(table, shares),
        "subscriptions": [_pool(table, key, shares) for key in table.pools if key not in RESERVED],
        "warming": warming,
        "waiting": sum(counts.get("waiting", 0) for counts in shares),
        "queue": queue,
        "lookups": {**lookups, "refused": lookups["refused"] + complaints[TOO_MANY]},
        "cheap": int(bool(shares) and all(counts.get("cheap", False) for counts in shares)),
        "workers": workers,
        "routers": [_router(slot, worker) for slot, worker in zip(running, workers, strict=True)],
        "complaints": dict(complaints),
        "beside": list(beside),
        "sources": list(sources),
        "resubscribe": list(receivers),
        "hosts": [
            {"name": address, "addresses": list(name.addresses), "error": name.error}
            for address, name in table.names.items()
        ],
    }  # fmt: skip


def _worker(slot: Slot, usage: Usage) -> dict[str, Any]:
    """A router process by uWSGI's names for a worker. It is one event loop, so it has one core."""
    active = slot.counts.get("active", 0)
    cheap = slot.counts.get("cheap", False)
    total = slot.total()
    return {
        "id": slot.number,
        "pid": slot.pid,
        "accepting": int(not cheap),
        "requests": total["requests"],
        "delta_requests": slot.counts.get("requests", 0),
        "exceptions": total["complaints"]["internal error"],
        "harakiri_count": slot.harakiris,
        "signals": 0,
        "status": "busy" if active else "cheap" if cheap else "idle",
        "rss": usage.rss,
        "vsz": usage.vsz,
        "running_time": usage.running_time,
        "last_spawn": int(slot.last_spawn),
        "respawn_count": slot.spawns,
        "tx": total["tx"],
        "avg_rt": 0,  # the hot path takes no time of single requests
        "active_sessions": active,
        "cores": [{"id": 0, "requests": total["requests"], "in_request": int(active > 0)}],
    }


def _router(slot: Slot, worker: Mapping[str, Any]) -> dict[str, Any]:
    """The same process in few words, how late it was, and when it was heard: one that is stuck does not answer."""
    few = {name: worker[name] for name in ("pid", "active_sessions", "requests")}
    lag = slot.counts.get("lag", 0.0)
    return {**few, "queued": queued(slot.counts), "lag": lag, "last_answer": slot.last_answer}


def _static(table: Table, shares: Sequence[Counts]) -> dict[str, Any]:
    """The nodes that the options name, where they do: `static_nodes` is uWSGI's list, of the option `to`."""
    found = {}
    for key, name in ((TO, "static_nodes"), (FALLBACK, "fallback_nodes"), (OWN, "worker_nodes")):
        if any(key in feed.shown for feed in table.feeds):
            parts, sayers = _parts(key, shares), sayers_of(said(table, key))
            members = table.pools[key].members.values() if key in table.pools else ()
            found[name] = [_static_node(member.endpoint, _of_node(member, parts, sayers)) for member in members]
    return found


def _static_node(endpoint: Endpoint, node: dict[str, Any]) -> dict[str, Any]:
    """uWSGI's three fields, the grace being the time at which it failed, and more of a node's beside them."""
    grace = int(endpoint.failed_at) if endpoint.state == OUT else 0
    return {"name": node["name"], "hits": node["requests"], "grace": grace} | {name: node[name] for name in MORE}


def _pool(table: Table, key: str, shares: Sequence[Counts]) -> dict[str, Any]:
    pool = table.pools[key]
    sayers = sayers_of(said(table, key))
    parts = _parts(key, shares)
    return {
        "key": key.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "hash": key_hash(key),
        "hits": pool.hits + sum(hits for hits, _ in parts),
        "sni_enabled": int(any(member.node.sni for member in pool.members.values())),
        "algo": pool.algorithm,
        "nodes": [_of_node(member, parts, sayers) for member in pool.members.values()],
    }


def _parts(key: str, shares: Sequence[Counts]) -> list[Any]:
    """What the routers have counted for the key: each its hits, and its counters by address."""
    return [counts["pools"][key] for counts in shares if key in counts.get("pools", ())]


def _of_node(member: Member, parts: Sequence[Any], sayers: Callable[[str], list[str]]) -> dict[str, Any]:
    address = member.endpoint.address
    own = [nodes[address] for _, nodes in parts if address in nodes]
    return _node(member, _added(own, member.node.last_check) if own else IDLE, sayers(address))


def _added(parts: Sequence[Sequence[Any]], announced: float) -> tuple[int, ...]:
    """One node's share in all routers: requests, those since it was announced, tx, rx, in flight, failures."""
    requests, tx, rx, in_flight, failures = (sum(part[index] for part in parts) for index in range(5))
    return requests, sum(_since(part, announced) for part in parts), tx, rx, in_flight, failures


def _node(member: Member, counted: tuple[int, ...], sources: list[str]) -> dict[str, Any]:
    node = member.node
    requests, last_requests, tx, rx, in_flight, failures = counted
    return {
        "name": node.address,
        "host": node.host,
        "vassal": node.vassal,
        "modifier1": node.modifier1,
        "modifier2": node.modifier2,
        "last_check": int(node.last_check),
        "pid": node.pid,
        "uid": node.uid,
        "gid": node.gid,
        "requests": member.requests + requests,
        "last_requests": last_requests,
        "tx": member.tx + tx,
        "rx": member.rx + rx,
        "cores": node.cores,
        "load": node.load,
        "weight": node.weight,
        "backup": node.backup,
        "proto": node.proto,
        "wrr": 0,  # turns left in the real one's burst; a ring has no bursts
        "ref": in_flight,
        "failcnt": member.failures + failures,
        "death_mark": int(member.endpoint.state == OUT),
        "sources": sources,
    }


def _since(part: Sequence[Any], announced: float) -> int:
    """Requests after that time (unix seconds), by a router's notes (Member.note)."""
    return int(part[0]) - next((requests for noted, requests in part[5] if noted >= announced), part[0])
