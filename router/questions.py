"""Which keys clients wait for, and which sources still owe an answer: what lies between the routers and `Feed.wanted`.

A key that several requests or routers ask for is one question, and each source on demand is handed it once. A question
ends when the key has a node, whoever named it; when all these sources have said that they have none or cannot tell; or
when the time is up. Whoever asked hears of the latter two by `tell`, and of a node as of any other change. A node whose
host name is being looked up may still become one: the question stays open for it.

Nothing here waits, except `run`. What is kept is bounded by MOST_OPEN and the time limit, whatever sources do.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

import gevent
from gevent.event import Event

from router.feed import Feed
from router.logs import Complaints
from router.lookups import ANY, HOSTS, NOBODY
from router.options import Options
from router.source import Source
from router.table import Table
from router.uwsgi import printable

MOST_OPEN = 2048  # what eight routers may ask at once (lookups.py); 1 MB
# Seconds beyond the time limit: routers that asked have given up by then, each by its own clock. Those that joined the
# question later are told, as nothing will come of it any more.
GRACE = 0.5
LOOK_EVERY = 0.25  # seconds between two looks at what is open, and whether host names have been resolved

log = logging.getLogger("gfrouter")

Tell = Callable[[str], None]


def whom(sources: Iterable[Source]) -> str:
    """Which keys these sources are asked for, in the words of lookups.py."""
    on_demand = list(filter(is_on_demand, sources))
    if not on_demand:
        return NOBODY
    return ANY if any(getattr(source, "any_key", False) for source in on_demand) else HOSTS


def is_on_demand(source: Source) -> bool:
    """Whether the source answers `Feed.wanted`."""
    return bool(getattr(source, "on_demand", False))


@dataclass(slots=True)
class Question:
    """One key that clients wait for."""

    until: float  # monotonic seconds
    owing: dict[Feed, None]  # who has not answered yet
    tell: dict[Tell, None] = field(default_factory=dict)  # who asked, and hears that there is none


class Questions:
    """What is asked of `feeds`, those of the sources on demand, for `timeout` seconds at most.

    `whom` says for which keys, in the words of lookups.py. The owner has `known` called when a key gets its first node,
    and `answered` by the table's `on_answer`.
    """

    def __init__(
        self,
        table: Table,
        feeds: Sequence[Feed],
        whom: str,
        *,
        timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.table = table
        self.feeds = feeds
        self.whom = whom
        self.timeout = timeout
        self.clock = clock
        self.open: dict[str, Question] = {}  # oldest first
        self.ends: Counter[str] = Counter()  # how the others have ended
        self.asked = 0
        self.complaints = Complaints()
        self.begun = Event()

    def ask(self, key: str, tell: Tell) -> None:
        """A router wants to know who serves `key`; `tell` is called with it if nobody does."""
        if key in self.table.pools:
            return  # the router is about to hear so
        question = self.open.get(key)
        if question is None:
            if len(self.open) >= MOST_OPEN:
                self.ends["refused"] += 1
                return tell(key)
            self.asked += 1
            until = self.clock() + self.timeout + GRACE
            question = self.open[key] = Question(until, dict.fromkeys(self.feeds))
            for feed in self.feeds:
                feed.asked.put(key)
            self.begun.set()
        question.tell[tell] = None

    def known(self, key: str) -> None:
        """`key` has a node."""
        if key in self.open:
            self._end(key, "answered")

    def answered(self, feed: Feed, key: str) -> None:
        """`feed` has said all that it knows of `key`, or that it cannot tell."""
        question = self.open.get(key)
        if question is not None:
            feed.asked.drop(key)
            question.owing.pop(feed, None)
            self._judge(key, question)

    def sweep(self) -> None:
        """End what has been open for too long, and what waited for host names in vain."""
        now = self.clock()
        for key, question in list(self.open.items()):
            if question.until <= now:
                owing = " and ".join(feed.source for feed in question.owing) or "the resolver of host names"
                text = f"{owing} did not say within {self.timeout:g} s who serves {printable(key)}"
                self.complaints.count("lookup timeout", text)
                self._end(key, "timed out")
                self._deny(key, question)
            else:
                self._judge(key, question)

    def run(self) -> None:
        """Sweep while something is open, until killed."""
        second = self.clock()
        while True:
            self.begun.wait()
            self.begun.clear()
            while self.open:
                gevent.sleep(LOOK_EVERY)
                if self.clock() - second >= 1:
                    second = self.clock()
                    self.complaints.next_second()
                self.sweep()
            self.complaints.next_second()  # nothing else would, until a question comes

    def counts(self) -> dict[str, int]:
        """For the stats: all that were asked since the start, and what has become of them."""
        ends = {end.replace(" ", "_"): self.ends[end] for end in ("answered", "unknown", "timed out", "refused")}
        return {"asked": self.asked, "open": len(self.open), **ends}

    def _judge(self, key: str, question: Question) -> None:
        """End it where nothing is to be expected any more."""
        if not question.owing and not self._is_resolving(key):
            self._end(key, "unknown")
            self._deny(key, question)

    def _is_resolving(self, key: str) -> bool:
        """Whether a host name among the nodes of `key` is looked up for the first time."""
        names = [self.table.names[address] for address in self.table.named.get(key, ())]
        return any(not name.addresses and not name.error for name in names)

    def _end(self, key: str, end: str) -> None:
        for feed in self.open.pop(key).owing:
            feed.asked.drop(key)
        self.ends[end] += 1

    def _deny(self, key: str, question: Question) -> None:
        for tell in question.tell:
            tell(key)


def without_cheap(options: Options, sources: Sequence[Source]) -> Options:
    """What a router that accepts nothing is never asked for, no source on demand is asked for either; and a worker of
    our own is asked by nobody but the router.
    """
    if options.cheap and options.worker and options.worker.is_private:
        log.info("cheap mode is off: the worker beside the router answers what has no other node")
        return replace(options, cheap=False)
    names = ", ".join(source.name for source in sources if is_on_demand(source))
    if not (options.cheap and names):
        return options
    log.warning("cheap mode is off: %s knows a node only when a request has asked for it", names)
    return replace(options, cheap=False)
