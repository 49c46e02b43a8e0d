"""uWSGI's `use-code-string`: a Python function of the user's gives the node of a key. `code:///FILE?function=NAME`.

uWSGI calls it for each request, inside its loop. Here it is called in processes of its own (codepool.py), when a key is
asked for that is not known, and again each `ttl` seconds for as long as the key is kept (kept.py). What it says takes
the place of what it said; where it raises, hangs or cannot be called, the nodes stay, and it is called again, later
each time.

Calls for new keys and for known ones have processes of their own, so those that hang on one side never hold up the
other. A new key for which the call has failed is answered so for a while, so asking again and again takes no process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from random import random
from time import monotonic
from urllib.parse import unquote

import gevent
from gevent.event import Event
from gevent.pool import Pool

from discovery.codepool import CallFailed, Processes, Raised, Unusable
from discovery.kept import Kept
from discovery.mapvalue import nodes_of
from router.feed import Feed
from router.node import Node
from router.source import wait_before
from router.url import parse_url, read_settings, setting
from router.uwsgi import printable
from router.values import whole

DAY = 86_400  # seconds
MOST_PROCESSES = 64  # 10 MB each
REFRESHING = 4  # one process in so many is for keys that are known
PAUSE = 0.005  # seconds after each such call: many keys with a short ttl must not take a core
MOST_FAILING = 1000  # new keys of which it is remembered that the call has failed
LONGEST_NAME = 80  # characters of the source's name


def function(text: str) -> str:
    """A name in Python."""
    if not text.isidentifier():
        raise ValueError("no name of a function")
    return text


@dataclass(frozen=True)
class Settings:
    """What the URL may say behind its `?`."""

    function: str = setting("", function, "NAME", "the function: it takes a key and gives ADDRESS[,MODIFIER1] or None")
    ttl: int = setting(1, whole(1, DAY, "seconds"), "SECONDS", "call it again so long after it was called for a key")
    keep: int = setting(60, whole(1, DAY, "seconds"), "SECONDS", "keep a key so long after it was asked for")
    timeout: int = setting(2, whole(1, DAY, "seconds"), "SECONDS", "end a call that takes so long")
    processes: int = setting(8, whole(2, MOST_PROCESSES), "N", "call it so many times at once, at most")


class Code:
    """Nodes for any key as a Python function gives them (uWSGI's use-code-string).

    `call` gives what the function says of a key in bytes, or CallFailed.
    """

    form = "code:///FILE?function=NAME"
    settings = Settings
    on_demand = True
    any_key = True

    def __init__(
        self,
        url: str,
        *,
        call: Callable[[bytes], bytes | None] | None = None,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
    ) -> None:
        parsed = parse_url(url)
        self.options = read_settings(parsed, Settings)
        self.file = unquote(parsed.path)
        if parsed.places not in ((), ("localhost",)) or not self.file.strip("/") or "\0" in self.file:
            raise parsed.wrong(f"no path of a file (legal: {self.form})")
        if not self.options.function:
            raise parsed.wrong(f"the function is missing (legal: {self.form})")
        self.name = f"code@{printable(self.file)}"[:LONGEST_NAME]
        self.clock = clock
        self.random = random
        self.kept = Kept(self.options.keep, clock)
        self.processes = Processes(
            self.file, self.options.function, most=self.options.processes, timeout=self.options.timeout
        )
        self.call = call or self.processes.call
        refreshing = max(1, self.options.processes // REFRESHING)
        self.known = Pool(refreshing)
        self.new = Pool(self.options.processes - refreshing)
        self.due: list[tuple[float, str]] = []  # a heap; what is no longer so is passed over
        self.times: dict[str, float] = {}  # known key → when it is due; not while it is being called for
        self.failures: dict[str, int] = {}  # known key → in a row
        self.failing: dict[str, tuple[float, int, CallFailed]] = {}  # new key → until when, how often, and why
        self.news = Event()

    def run(self, feed: Feed) -> None:
        """Answer the feed's questions, and keep what is known current, until killed."""
        try:
            self.processes.check()
            self.begin(feed)
            asking = gevent.spawn(self._answer, feed)
            asking.link(lambda _: self.news.set())
            try:
                while True:
                    self.news.wait(self.turn(feed))
                    self.news.clear()
                    if asking.ready():
                        asking.get()  # raises what ended it
            finally:
                asking.kill(block=False)
        finally:
            for greenlets in (self.known, self.new):
                greenlets.kill(block=False)
            self.processes.close()

    def begin(self, feed: Feed) -> None:
        """Nothing is known."""
        for memory in (self.due, self.times, self.failures, self.failing):
            memory.clear()
        self.kept.begin(feed)

    def turn(self, feed: Feed) -> float | None:
        """Begin the calls for known keys that are due, as far as there is room. Seconds until there is something to do;
        None for "on news".
        """
        wait = self.kept.expire(feed)
        now = self.clock()
        while self.due and not self.known.full():
            due, key = self.due[0]
            if due > now:
                return due - now if wait is None else min(wait, due - now)
            heappop(self.due)
            if self.times.get(key) != due:
                continue
            del self.times[key]
            if key in self.kept.asked:
                self._begin(self.known, self._refresh, feed, key)
            else:
                self.failures.pop(key, None)
        return wait

    def want(self, feed: Feed, key: str) -> None:
        """A client asks for this key, and nobody knows it. Waits while as many as may be are being called for."""
        failing = self.failing.get(key)
        if failing is not None and failing[0] > self.clock():
            feed.fail(failing[2], key)
        else:
            self._begin(self.new, self._arrive, feed, key)

    def _answer(self, feed: Feed) -> None:
        while True:
            key = feed.wanted()
            if key is not None:
                self.want(feed, key)

    def _begin(self, greenlets: Pool, work: Callable[[Feed, str], None], feed: Feed, key: str) -> None:
        """Spawn; it is news when the greenlet has ended and left its pool, as only then there is room for another."""
        greenlets.spawn(work, feed, key).rawlink(lambda _: self.news.set())

    def _arrive(self, feed: Feed, key: str) -> None:
        """The call for a key that a client waits for."""
        try:
            nodes = self._nodes(feed, key)
        except CallFailed as error:
            before = self.failing.pop(key, None)
            times = before[1] + 1 if before else 1
            self.failing[key] = self.clock() + wait_before(times, self.random), times, error
            if len(self.failing) > MOST_FAILING:
                del self.failing[next(iter(self.failing))]
            feed.fail(error, key)
        else:
            self.failing.pop(key, None)
            self.kept.add(feed, key, nodes)
            self._schedule(key, self.options.ttl)

    def _refresh(self, feed: Feed, key: str) -> None:
        """The call for a key that is known."""
        try:
            nodes = self._nodes(feed, key)
        except CallFailed as error:
            if key in self.kept.asked:
                feed.fail(error, key)
                self.failures[key] = times = self.failures.get(key, 0) + 1
                self._schedule(key, max(self.options.ttl, wait_before(times, self.random)))
        else:
            self.failures.pop(key, None)
            if not nodes:
                self.kept.drop(feed, key)
            elif key in self.kept.asked:
                feed.set(key, nodes)
                self._schedule(key, self.options.ttl)
        gevent.sleep(PAUSE)

    def _schedule(self, key: str, wait: float) -> None:
        if key in self.kept.asked:
            self.times[key] = due = self.clock() + wait
            heappush(self.due, (due, key))

    def _nodes(self, feed: Feed, key: str) -> list[Node]:
        """What the function says; none where that is no node. CallFailed where it does not say."""
        try:
            value = self.call(key.encode("utf-8", "surrogateescape"))
            return nodes_of(value.decode("utf-8", "surrogateescape")) if value else []
        except Unusable as error:
            feed.fail(error)
            raise
        except Raised as error:
            feed.reject("function raised", f"{key}: {error}")
            raise
        except CallFailed as error:
            feed.reject("call failed", f"{key}: {error}")
            raise
        except ValueError as error:
            feed.reject("bad node address", f"{key}: {error}")
            return []
