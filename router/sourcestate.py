"""How each source is: what its feed knows, how often it ran, and when it was heard last; `row` tells it.

`Watched` stands between a source and `supervise`: it runs the source and counts the runs. Somebody calls `sample` each
second, as a feed has no clock. The state is one of STATES, the first of them that is true.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, time
from typing import Any

from router.feed import Feed
from router.shaping import ShapedFeed
from router.source import Source

STALE = "stale"  # it could not see for max-stale, and its nodes are out
FAILING = "failing"  # it cannot see; its nodes are in
HELD_BACK = "held back"  # it says fewer than min-nodes nodes, and what it took away is in
STARTING = "starting"  # it has said nothing yet
REMEMBERED = "remembered"  # it has said nothing yet, and what it said to the start before is in
OK = "ok"
STATES = (STALE, FAILING, HELD_BACK, STARTING, REMEMBERED, OK)


class Watched:
    """`source` as it is run and watched. `name` is its unique one, `url` what it was opened by, without a password."""

    def __init__(
        self,
        source: Source,
        feed: Feed,
        url: str = "",
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self.name = feed.source
        self.source = source
        self.feed = feed
        self.url = url
        self.runs = 0
        self.running = False
        self.greenlet: Any = None  # in which it is run
        self._clock = clock
        self._wall = wall
        self._progressed = feed.progressed
        self._heard: float | None = None  # on `_clock`; None for never

    def run(self, feed: Feed) -> None:
        """As a `Source` does."""
        self.runs += 1
        self.running = True
        try:
            self.source.run(feed)
        finally:
            self.running = False

    def sample(self) -> None:
        """Look whether the source has been heard since the last look."""
        if self.feed.progressed != self._progressed:
            self._progressed = self.feed.progressed
            self._heard = self._clock()

    def heard_at(self) -> float | None:
        """Unix seconds when it was heard last; None for never."""
        self.sample()
        if self._heard is None:
            return self.feed.stale_since
        return self._wall() - (self._clock() - self._heard)

    def row(self) -> dict[str, Any]:
        """All of it, for the stats and the admin API.

        `last_success` is in unix seconds and `age` the seconds since then; both are None for never. `stale`: what it
        says is what it said to the start before, and so are these.
        """
        feed = self.feed
        heard = self.heard_at()
        age = None if heard is None else round(max(0.0, self._wall() - heard), 1)
        return {
            "name": self.name,
            "url": self.url,
            "state": state(feed),
            "last_success": None if heard is None else round(heard),
            "age": age,
            "spoken": feed.spoken,
            "stale": feed.stale_since is not None,
            "runs": self.runs,
            "restarts": max(0, self.runs - 1),
            "errors": feed.errors,
            "error": feed.error or "",
            "last_error": feed.last_error,
            "failing_keys": len(feed.key_errors),
            "keys": len(feed.slices),
            "nodes": feed.size,
            "held_back": len(feed.held) if isinstance(feed, ShapedFeed) else 0,
            "stale_keys": len(feed.hidden_keys) if isinstance(feed, ShapedFeed) else 0,
            "rejected": dict(feed.rejected),
        }


def state(feed: Feed) -> str:
    """How the source of this feed is, by one of STATES."""
    shaped = feed if isinstance(feed, ShapedFeed) else None
    if shaped and shaped.hidden:
        return STALE
    if feed.error is not None:
        return FAILING
    if shaped and shaped.held:
        return HELD_BACK
    if feed.progressed:
        return OK
    return STARTING if feed.stale_since is None else REMEMBERED
