"""Which member of a pool takes the next request: whose turn it may be at all, and `wrr`. algorithms.py has all others.

`wrr` walks a ring that is laid out when the membership (or somebody's health) changes, so that a pick is O(1) at any
size (smooth weighted round robin computed at each pick costs 56 µs at 1,000 nodes, the ring 0.2).

The ring: weights are divided by their gcd; member i of weight w stands at the w places (2k+1)/2w of one lap, so its
turns are evenly spread. Where the weights' sum would make a lap longer than `LAP_TURNS`, each lap hands out whole turns
and carries what is left over to the next, so the shares stay exact for any weights.
A walk begins at a random place, or the routers of one supervisor would all send their first request to the same node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from math import gcd
from typing import TYPE_CHECKING, Protocol, TypeVar

from router.endpoint import LIVE, OUT, TRIAL, TRYING, Cause, Endpoint

if TYPE_CHECKING:
    from router.pool import Member, Pool

LAP_TURNS = 2048  # turns in a lap; laying out one takes about 1 ms, so a change never stalls the engine noticeably

T = TypeVar("T")
Pick = Callable[..., "Member | None"]  # takes a pool, the endpoints to avoid, and the session that asks


class Asks(Protocol):
    """What some algorithms look at of a session: the packet, of which header and vars are the first `size` bytes."""

    head: bytes
    size: int


def laps(weighted: Sequence[tuple[T, int]]) -> Iterator[list[T]]:
    """Endless laps over (item, weight ≥ 1) pairs; the items' shares of all turns are exactly their weights'.

    A lap has at most `LAP_TURNS` turns, or somewhat more for each item. Needs one item at least.
    """
    divisor = gcd(*(weight for _, weight in weighted))
    weights = [weight // divisor for _, weight in weighted]
    total = sum(weights)
    limit = max(LAP_TURNS, len(weights))
    if total <= limit:
        lap = _spread(weighted, weights)
        while True:
            yield lap
    credits = [0] * len(weights)
    while True:
        credits = [credit + weight * limit for credit, weight in zip(credits, weights, strict=True)]
        turns = [max(credit, 0) // total for credit in credits]
        credits = [credit - count * total for credit, count in zip(credits, turns, strict=True)]
        richest = sorted(range(len(credits)), key=credits.__getitem__, reverse=True)
        for index in richest[: max(limit - sum(turns), 0)]:
            turns[index] += 1
            credits[index] -= total
        yield _spread(weighted, turns)


def _spread(weighted: Sequence[tuple[T, int]], turns: Sequence[int]) -> list[T]:
    """One lap in which each item has its number of turns, spread evenly."""
    if max(turns) == 1:
        return [item for (item, _), count in zip(weighted, turns, strict=True) if count]
    places = [((2 * k + 1) / count, index) for index, count in enumerate(turns) for k in range(count)]
    return [weighted[index][0] for _, index in sorted(places)]


def _state(member: Member) -> int:
    return member.endpoint.state


def in_turn(
    members: Collection[Member], state: Callable[[Member], int] = _state, *, levels: bool = True
) -> list[Member]:
    """The members that a ring is made of: of those that are not drained, the lowest backup level that has a live one;
    where not `levels`, all are of the same one.

    An endpoint on trial stands in the ring of any level at or above its own: it is tried by one request, and if that
    goes well its level takes over again. Where none is live, the lowest level on trial serves, and beside it those that
    are out as broken, of their lowest level: to be asked is better than to have nobody.
    """
    level_of: Callable[[Member], int] = (lambda member: member.node.backup) if levels else (lambda member: 0)
    willing = [member for member in members if not member.endpoint.drained]
    reachable = [(member, turn) for member in willing if (turn := state(member)) != OUT]
    live = [level_of(member) for member, turn in reachable if turn == LIVE]
    level = min(live or [level_of(member) for member, _ in reachable], default=0)
    ring = [
        member for member, turn in reachable if level_of(member) == level or (level_of(member) < level and turn != LIVE)
    ]
    if live:
        return ring
    broken = [one for one in willing if state(one) == OUT and one.endpoint.cause == Cause.BROKEN]
    level = min((level_of(member) for member in broken), default=0)
    return ring + [member for member in broken if level_of(member) == level]


def lay_turns(pool: Pool) -> None:
    """For `wrr`: its laps. The walk starts anywhere."""
    ring_laps = laps([(member, member.node.weight * member.share) for member in pool.ring])
    first = next(ring_laps)
    pool.lap = len(first)
    pool.turns = chain(islice(first, pool.randrange(pool.lap), None), chain.from_iterable(ring_laps))


def wrr(pool: Pool, avoid: Collection[Endpoint] = (), session: Asks | None = None) -> Member | None:
    """Weighted round robin (the fastrouter's default). None where nobody, or nobody outside `avoid`, can be asked."""
    if pool.stale:
        pool.lay_ring()
    if pool.ring:
        member = next(pool.turns)
        if member.endpoint.state == LIVE and not avoid:
            return member
        return _walk(pool, member, avoid)
    return None


def _walk(pool: Pool, member: Member, avoid: Collection[Endpoint]) -> Member | None:
    """From `member` on, the first one that can be asked; one on trial is taken by the request that finds it."""
    for _ in range(pool.lap):
        endpoint = member.endpoint
        if endpoint not in avoid:
            if endpoint.state == LIVE or (pool.panic and is_in_panic(endpoint)):
                return member
            if endpoint.state == TRIAL:
                endpoint.state = TRYING
                return member
        member = next(pool.turns)
    # Turns are spread, but a lap of a pool with huge weights may leave out its lightest members: ask those too.
    for member in pool.ring:
        endpoint = member.endpoint
        if endpoint not in avoid and is_askable(pool, endpoint):
            if endpoint.state == TRIAL:
                endpoint.state = TRYING
            return member
    return None


def is_askable(pool: Pool, endpoint: Endpoint) -> bool:
    """Whether this one, which stands in the pool's ring, may be asked now."""
    return endpoint.state in (LIVE, TRIAL) or (pool.panic and is_in_panic(endpoint))


def is_in_panic(endpoint: Endpoint) -> bool:
    """Whether it is asked only because its pool has nobody else, also while somebody has it on trial."""
    return endpoint.cause == Cause.BROKEN and endpoint.state in (OUT, TRYING)


def with_room(choose: Pick, limit: int) -> Pick:
    """`choose`, among the endpoints that have fewer than `limit` requests in flight."""

    def choose_with_room(pool: Pool, avoid: Collection[Endpoint] = (), session: Asks | None = None) -> Member | None:
        member = choose(pool, avoid, session)
        if member is None or member.endpoint.in_flight < limit:
            return member
        if member.endpoint.state == TRYING and member.endpoint.trier is None:
            member.endpoint.state = TRIAL  # it is not asked after all
        full = {member.endpoint for member in pool.ring if member.endpoint.in_flight >= limit}
        return choose(pool, full.union(avoid), session)

    return choose_with_room


def behind_queue(choose: Pick) -> Pick:
    """`choose`, but nobody while others wait for the pool's nodes to have room (queueing.py)."""

    def choose_unless_queued(
        pool: Pool, avoid: Collection[Endpoint] = (), session: Asks | None = None
    ) -> Member | None:
        return None if pool.queue else choose(pool, avoid, session)

    return choose_unless_queued
