"""State → the JSON of the admin API. Pure: admin.py serves it.

Texts are as the table has them, so a byte of a key that is not UTF-8 is a lone surrogate, `\\udcff`. Times are seconds;
what is relative to now says so by its name (`age`, `retry_in`, `uptime`). What is not known, or has no meaning in a
state, is null. New names may come; those that are here stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

from router import __version__
from router.balance import in_turn
from router.drains import NODE, Thing, drained
from router.endpoint import LIVE, OUT, TRIAL, Endpoint
from router.keyrules import NO_RULES, KeyRules
from router.pool import Member, Pool
from router.said import Said, said, sayers
from router.static import RESERVED, TO
from router.stats import Counts, Slot, queued
from router.table import Table

Json = dict[str, Any]

STATES = {LIVE: "live", OUT: "out", TRIAL: "trial"}


@dataclass(frozen=True)
class State:
    """What there is to see of one gfrouter, at one time. `now` is in monotonic, `wall` in unix seconds."""

    table: Table
    slots: Sequence[Slot]
    sources: Sequence[Json]  # how each of them is (sourcestate.py)
    addresses: Mapping[str, Sequence[str]]  # by use
    on_demand: Collection[str]  # those of them that are asked for each key that nobody knows
    stand_ins: Sequence[str]  # keys whose nodes serve one that has none, in turn (static.py)
    pid: int
    began: float  # monotonic seconds
    warming: float  # seconds left
    now: float
    wall: float
    lag: float = 0.0  # seconds by which the supervisor's loop was late, at worst, in the last minute
    receivers: Sequence[Json] = ()  # the routers that are told of us, and how each of them is
    all_counted: bool = True  # has each router process told what it has counted by now?
    rules: KeyRules = NO_RULES

    def shares(self) -> list[Counts]:
        """What each router process has counted."""
        return [slot.counts for slot in self.slots if slot.pid]


# The whole.


def sources(state: State) -> Json:
    return {"sources": list(state.sources)}


def status(state: State) -> Json:
    """The process, what it does, and how much it knows."""
    table, shares = state.table, state.shares()
    return {
        "version": __version__,
        "pid": state.pid,
        "started": int(state.wall - (state.now - state.began)),
        "uptime": int(state.now - state.began),
        "lag": state.lag,
        "addresses": {use: list(addresses) for use, addresses in state.addresses.items()},
        "warming": state.warming,
        "waiting": sum(counts.get("waiting", 0) for counts in shares),
        "queued": sum(queued(counts) for counts in shares),
        "in_flight": sum(counts.get("active", 0) for counts in shares),
        "requests": sum(slot.total()["requests"] for slot in state.slots),
        "pools": len(table.pools.keys() - RESERVED.keys()),
        "nodes": len(table.endpoints),
        "out": sum(turn(endpoint, state.now) == OUT for endpoint in table.out),
        "drained": [{"what": word, "kind": kind} for kind, word in drained(table)],
        "processes": [_process(slot) for slot in state.slots],
        "resubscribe": list(state.receivers),
        **sources(state),
    }


def _process(slot: Slot) -> Json:
    counts = slot.counts
    return {
        "number": slot.number,
        "pid": slot.pid or None,
        "state": "down" if not slot.pid else "cheap" if counts.get("cheap") else "accepting",
        "started": int(slot.last_spawn) or None,
        "starts": slot.spawns,
        "in_flight": counts.get("active", 0),
        "requests": slot.total()["requests"],
        "lag": counts.get("lag", 0.0),
    }


# Pools and nodes.


def pools(state: State) -> Json:
    return {"pools": [_summary(state, pool) for key, pool in state.table.pools.items() if key not in RESERVED]}


def _summary(state: State, pool: Pool) -> Json:
    turns = [turn(member.endpoint, state.now) for member in pool.members.values()]
    return {
        "key": pool.key,
        "algorithm": pool.algorithm,
        "nodes": len(turns),
        "out": turns.count(OUT),
        "drained": pool.drained,
        "queued": sum(counts.get("queued", {}).get(pool.key, 0) for counts in state.shares()),
        "sources": [name for name, _ in said(state.table, pool.key)],
    }


def pool(state: State, key: str) -> Json | None:
    """One key with its nodes; None where nobody knows it."""
    known = state.table.pools.get(key)
    if known is None:
        return None
    words, shares = said(state.table, key), _shares_of(state, key)
    nodes = [_member(state, member, words, shares) for member in known.members.values()]
    return _summary(state, known) | {"nodes": nodes}


def _member(state: State, member: Member, words: Said, shares: list[Json]) -> Json:
    node = member.node
    return {
        **_health(member.endpoint, state.now),
        "host": node.host,
        "weight": node.weight,
        "backup": node.backup,
        "modifier1": node.modifier1,
        "modifier2": node.modifier2,
        "sources": sayers(words, node.address),
        **_counted([(member, shares)]),
    }


def nodes(state: State, wanted: str = "") -> Json:
    """Every address with its keys; `wanted` is a state, and leaves out those in any other."""
    words: dict[str, Said] = {}
    shares: dict[str, list[Json]] = {}
    for key in state.table.pools:
        words[key], shares[key] = said(state.table, key), _shares_of(state, key)
    endpoints = state.table.endpoints.values()
    return {
        "nodes": [
            _endpoint(state, endpoint, words, shares)
            for endpoint in endpoints
            if not wanted or STATES[turn(endpoint, state.now)] == wanted
        ]
    }


def _endpoint(
    state: State,
    endpoint: Endpoint,
    words: Mapping[str, Said],
    shares: Mapping[str, list[Json]],
) -> Json:
    members = sorted(endpoint.members, key=lambda member: member.pool.key)
    names = {name for member in members for name in sayers(words[member.pool.key], endpoint.address)}
    return {
        **_health(endpoint, state.now),
        "keys": [key for member in members if (key := member.pool.key) not in RESERVED],
        "options": [RESERVED[key] for member in members if (key := member.pool.key) in RESERVED],
        "sources": [feed.source for feed in state.table.feeds if feed.source in names],
        **_counted((member, shares[member.pool.key]) for member in members),
    }


def turn(endpoint: Endpoint, now: float) -> int:
    """LIVE, OUT or TRIAL. That a failed node's time is up the routers see for themselves, and need not tell us."""
    return TRIAL if endpoint.state == OUT and endpoint.out_until <= now else endpoint.state


def _health(endpoint: Endpoint, now: float) -> Json:
    at = turn(endpoint, now)
    return {
        "address": endpoint.address,
        "state": STATES[at],
        "cause": None if at == LIVE else endpoint.cause.name.lower(),
        "retry_in": round(endpoint.out_until - now, 1) if at == OUT and not isinf(endpoint.out_until) else None,
        "drained": endpoint.drained,
    }


def _shares_of(state: State, key: str) -> list[Json]:
    """By address, what each router process has counted for the nodes of this key."""
    return [counts["pools"][key][1] for counts in state.shares() if key in counts.get("pools", ())]


def _counted(members: Iterable[tuple[Member, list[Json]]]) -> Json:
    in_flight = requests = failures = 0
    for member, shares in members:
        requests += member.requests
        failures += member.failures
        for share in shares:
            if counts := share.get(member.node.address):
                requests += counts[0]
                in_flight += counts[3]
                failures += counts[4]
    return {"in_flight": in_flight, "requests": requests, "failures": failures}


# What gets no new requests.


def drains(state: State, things: Iterable[Thing] | None = None) -> Json:
    """These, or all that are drained. `in_flight` is null while a router process does not say what it has."""
    return {"drains": [_drain(state, thing) for thing in (drained(state.table) if things is None else things)]}


def _drain(state: State, thing: Thing) -> Json:
    kind, word = thing
    table = state.table
    if kind == NODE:
        addresses = [address for address in table.targets(word) if address in table.endpoints]
        members = [member for address in addresses for member in table.endpoints[address].members]
        is_known = word in table.endpoints or word in table.names
    else:
        pool = table.pools.get(word)
        members = list(pool.members.values()) if pool else []
        addresses = [member.endpoint.address for member in members]
        is_known = pool is not None
    counted = _counted((member, _shares_of(state, member.pool.key)) for member in members)
    return {
        "what": word,
        "kind": kind,
        "drained": word in table.drained[0 if kind == NODE else 1],
        "known": is_known,
        "nodes": addresses,
        "in_flight": counted["in_flight"] if state.all_counted else None,
    }


# How a request would go.


def lookup(state: State, key: str) -> Json:
    """What becomes of a request with this key, and why: `outcome` is `node`, `wait`, `no node` or `unknown key`.

    Where the options make another key of a request's host and path, `key` may be these.
    """
    table = state.table
    typed, key = key, state.rules.key_of(key)
    asked, outcome, reasons = _outcome(state, key)
    if key != typed:
        reasons = [f"its key is {key}", *reasons]
    words = said(table, asked)
    members = list(table.pools[asked].members.values()) if asked in table.pools else []
    next_ones = {id(member) for member in _next(state, asked)}
    return {
        "key": typed,
        "outcome": outcome,
        "reasons": reasons,
        "algorithm": table.pools[asked].algorithm if asked in table.pools else None,
        "nodes": [_candidate(state, member, id(member) in next_ones, words) for member in members],
        "unresolved": [
            {"address": name, "error": table.names[name].error, "sources": sayers(words, name)}
            for name in table.named.get(key, ())
            if not table.names[name].addresses
        ],
        "sources": [
            {"name": feed.source, "knows": key in feed.shown, "error": feed.key_errors.get(key) or feed.error or ""}
            for feed in table.feeds
        ],
    }


def _next(state: State, key: str) -> list[Member]:
    """The nodes of this key that may get the next request."""
    pool = state.table.pools.get(key)
    if pool is None or pool.drained:
        return []
    return in_turn(pool.members.values(), lambda member: turn(member.endpoint, state.now), levels=pool.levels)


def _outcome(state: State, key: str) -> tuple[str, str, list[str]]:
    """(the key whose nodes are asked, what becomes of the request, and why)."""
    if count := len(_next(state, key)):
        return key, "node", [f"{count} node{'s take' if count > 1 else ' takes'} a turn"]
    if known := key in state.table.pools:
        outcome, why = "no node", _why_nobody(state.table.pools[key])
    else:
        outcome, why = "unknown key", "no source knows this key"
    for other in state.rules.others(key):
        if _next(state, other):
            return other, "node", [why, f"the nodes of key {other} serve it"]
    if not known:
        what = "it" if (asked := state.rules.asked(key)) == key else asked
        waits = [f"{name} is asked for {what}, and the request waits for the answer" for name in state.on_demand]
        if state.warming:
            silent = [feed.source for feed in state.table.feeds if not feed.spoken]
            waits.append(f"still warming: it waits up to {state.warming:.0f} s for {', '.join(silent)}")
        if waits:
            return key, "wait", waits
    for other in state.stand_ins:
        if not (known and other == TO) and _next(state, other):
            named = f"option {RESERVED[other]}" if other in RESERVED else f"key {other}"
            return other, "node", [why, f"the nodes of {named} serve it"]
    return key, outcome, [why]


def _why_nobody(pool: Pool) -> str:
    if pool.drained:
        return "the key is drained"
    left = [member for member in pool.members.values() if not member.endpoint.drained]
    if not left:
        return "every node of this key is drained"
    others = " that is not drained" if len(left) < len(pool.members) else ""
    return f"every node of this key{others} has failed, and is tried again when its time is up"


def _candidate(state: State, member: Member, is_next: bool, words: Said) -> Json:
    """One node of the key: may the next request get it, and what each source says of it."""
    node, address = member.node, member.endpoint.address
    return {
        **_health(member.endpoint, state.now),
        "host": node.host,
        "next": is_next,
        "weight": node.weight,
        "backup": node.backup,
        "said": list(_said_of(address, words)),
    }


def _said_of(address: str, words: Said) -> Iterator[Json]:
    """The first one describes the node; the others are the reason why it stays when that one lets go of it."""
    describes = True
    for name, nodes in words:
        if node := nodes.get(address):
            yield {
                "source": name,
                "describes": describes,
                "weight": node.weight,
                "backup": node.backup,
                "modifier1": node.modifier1,
                "modifier2": node.modifier2,
            }
            describes = False
