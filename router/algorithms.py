"""The algorithms by name. Plain functions in a map: one that lays a pool's ring out, and one that picks from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from router.algorithmname import LOAD, hashed_var
from router.balance import Pick, lay_turns, wrr
from router.hashing import circle, hashed_by
from router.least import (
    announced_load,
    lay_weights,
    least,
    p2c,
    ranking,
    requests,
    same_turns,
    weighted_requests,
    weighted_turns,
)

if TYPE_CHECKING:
    from router.pool import Pool

MOST_NAMES = 256  # kept: announcements may invent vars


@dataclass(frozen=True)
class Algorithm:
    """`lay` is called with a pool whose ring is new, and not empty; `pick` as all of them are (balance.py). Where not
    `levels`, backup nodes are nodes like all others.
    """

    pick: Pick
    lay: Callable[[Pool], None]
    levels: bool = True


ALGORITHMS = {
    "wrr": Algorithm(wrr, lay_turns),
    "lrc": Algorithm(least, ranking(requests, same_turns)),
    "wlrc": Algorithm(least, ranking(weighted_requests, weighted_turns)),
    "iphash": Algorithm(hashed_by(b"REMOTE_ADDR"), circle(bounded=False), levels=False),
    "p2c": Algorithm(p2c, lay_weights),
    LOAD: Algorithm(least, ranking(announced_load, weighted_turns)),
}


@lru_cache(MOST_NAMES)
def algorithm(name: str) -> Algorithm:
    """The one with this name. KeyError where there is none."""
    if var := hashed_var(name):
        return Algorithm(hashed_by(var.encode()), circle(bounded=True), levels=False)
    return ALGORITHMS[name]
