"""What a source on demand serves: keys that a client has asked for, until they have been out of use for a while.

The feed tells us when a key is asked for that is not known, never when a known one is. So a key is withdrawn `keep`
seconds after it was asked for, and whoever asks for it then has it back a moment later: a key in use costs one request
that moment, and one out of use is gone.

Clients invent keys. Where there is no room for one more, the key that was asked for longest ago makes room, so a flood
of them keeps nobody out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.address import HostName, parse_node
from router.feed import Feed
from router.node import Node

NAMES = 500  # keys whose nodes are host names: half of what a table keeps, as each is looked up again and again


class Kept:
    """The keys of one feed, each with the time at which it was asked for, the first to be asked for first."""

    def __init__(self, keep: float, clock: Callable[[], float]) -> None:
        self.keep = keep
        self.clock = clock
        self.asked: dict[str, float] = {}
        self.named: dict[str, None] = {}  # those with a host name

    def begin(self, feed: Feed) -> None:
        """Nothing is known yet, and that is all there is to say."""
        self.asked.clear()
        self.named.clear()
        feed.replace({})

    def add(self, feed: Feed, key: str, nodes: Sequence[Node]) -> None:
        """`key` was asked for, and has these nodes. What the feed takes is kept. AddressError for a wrong address."""
        named = any(isinstance(parse_node(node.address), HostName) for node in nodes)
        self._forget(key)
        while self.asked and (len(self.asked) >= feed.max_keys or feed.size + len(nodes) > feed.max_nodes):
            self.drop(feed, next(iter(self.asked)))
        while named and len(self.named) >= NAMES:
            self.drop(feed, next(iter(self.named)))
        feed.set(key, nodes)
        if key in feed.slices:
            self.asked[key] = self.clock()
            if named:
                self.named[key] = None

    def drop(self, feed: Feed, key: str) -> None:
        """It is served no longer."""
        self._forget(key)
        feed.set(key, ())

    def expire(self, feed: Feed) -> float | None:
        """Drop those whose time is up. Seconds until the next one's is; None where there is none."""
        now = self.clock()
        while self.asked:
            key, asked = next(iter(self.asked.items()))
            if asked + self.keep > now:
                return asked + self.keep - now
            self.drop(feed, key)
        return None

    def _forget(self, key: str) -> None:
        self.asked.pop(key, None)
        self.named.pop(key, None)
