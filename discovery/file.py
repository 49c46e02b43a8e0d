"""Nodes from a file, `file:///PATH` (its text: nodes.py), which is looked at twice a second and read when it changes.

Looked at, and not watched by inotify: a look follows whatever the path leads to at the moment, so a file that an editor
or `mv` puts in its place, a symlink that turns elsewhere (as Kubernetes does it), a bind mount and a network's file
system are all the same, and none of them needs a case of its own.

A change is read once two looks in a row have seen the same, so nobody reads what is half written, and a file that is
emptied and written again is not empty for us. It is taken whole or not at all: where a line is wrong, or the path
leads to nothing or to no file, the nodes stay as they were, the feed says why, and the log says it once. The first
reading does not wait unless nodes from before the start are served meanwhile, and is done again when two looks have
seen the same. A file without a line means no nodes.

All that touches the file is done in a thread of its own: a file server that has gone away blocks nothing else.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import unquote

import gevent
from gevent.threadpool import ThreadPool

from discovery.nodes import Pools, Unreadable, parse
from router.feed import Feed
from router.url import parse_url, read_settings
from router.uwsgi import printable

log = logging.getLogger("gfrouter")

LOOK_EVERY = 0.5  # seconds; a change is in service after two looks
SILENT = 10.0  # seconds in which a disk answers; then the operator is told
LARGEST = 32 << 20  # bytes; as many as MOST_NODES lines of a usual length have, twice

Identity = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What the URL may say behind its `?`: nothing of its own."""


class File:
    """Nodes from a file, one a line: KEY ADDRESS [weight=N] [backup=N] [modifier1=N] [modifier2=N] [algorithm=NAME].

    `sleep` takes seconds. `apart(function, path, late=...)` gives what the function gives, without blocking the
    process, and calls `late` each SILENT seconds until it does.
    """

    form = "file:///PATH"
    settings = Settings
    on_demand = False
    kind = "file"
    parse: Callable[[bytes], Pools] = staticmethod(parse)  # what is in the file

    def __init__(
        self,
        url: str,
        *,
        sleep: Callable[[float], Any] = gevent.sleep,
        apart: Callable[..., Any] | None = None,
    ) -> None:
        parsed = parse_url(url)
        read_settings(parsed, Settings)
        self.path = unquote(parsed.path)
        if parsed.places not in ((), ("localhost",)) or not self.path.strip("/") or "\0" in self.path:
            raise parsed.wrong(f"no path of a file (legal: {self.form})")
        self.name = f"{self.kind}@{printable(self.path)}"
        self.sleep = sleep
        self.apart = apart or Apart().call
        self.seen: Identity | None = None  # by the last look
        self.done: Identity | None = None  # what has been read, whatever it held; None while there is nothing to see
        self.trouble = ""  # as it was logged last

    def run(self, feed: Feed) -> NoReturn:
        if feed.stale_since is None:
            self.read(feed)
        while True:
            self.sleep(LOOK_EVERY)
            self.look(feed)

    def look(self, feed: Feed) -> None:
        """One look, and a reading where it has shown the same as the one before and that is news."""
        try:
            now = self.ask(feed, identity)
        except OSError as error:
            self.seen = self.done = None
            return self.fail(feed, describe(error))
        settled = now == self.seen
        self.seen = now
        if settled and now != self.done:
            self.done = self.read(feed)

    def read(self, feed: Feed) -> Identity | None:
        """Read the file, and say what it holds. Gives its identity, None where it could not be read."""
        try:
            now, pools = self.ask(feed, partial(load, parse=self.parse))
        except Wrong as wrong:
            self.fail(feed, str(wrong))
            return wrong.identity
        except OSError as error:
            self.fail(feed, describe(error))
            return None
        if now is None:  # it changed meanwhile; the next looks will tell
            return None
        feed.replace(pools)
        if self.trouble:
            log.info("%s: read again, %d nodes for %d keys", self.name, sum(map(len, pools.values())), len(pools))
        self.trouble = ""
        return now

    def fail(self, feed: Feed, reason: str) -> None:
        """The nodes stay. Said once in the log, and by the feed for as long as it is so."""
        if feed.error != reason:
            feed.fail(reason)
        if reason != self.trouble:
            log.warning("%s: %s; the nodes stay as they are", self.name, reason)
        self.trouble = reason

    def ask(self, feed: Feed, function: Callable[[str], T]) -> T:
        """What `function` says of the path, whenever that is."""

        def late() -> None:
            self.done = None  # to be read again, so that it is seen that it can be
            self.fail(feed, f"no answer for {SILENT:.0f} s")

        return cast(T, self.apart(function, self.path, late=late))


class Apart:
    """A thread for what may block, which is started when it is first needed."""

    def __init__(self) -> None:
        self.pool: ThreadPool | None = None

    def call(self, function: Callable[..., T], *args: Any, late: Callable[[], None]) -> T:
        """What `function` gives, or its error; `late` is called each SILENT seconds until then."""
        if self.pool is None:
            self.pool = ThreadPool(1)
        result = self.pool.spawn(_outcome, function, *args)
        while not result.ready():
            result.wait(SILENT)
            if not result.ready():
                late()
        outcome = result.get()
        assert outcome is not None  # it is ready
        value, error = outcome
        if error is not None:
            raise error
        return cast(T, value)


class Wrong(Exception):
    """What is there can be seen, and is no file of nodes; `identity` is what it is until it changes."""

    def __init__(self, identity: Identity, reason: str) -> None:
        super().__init__(reason)
        self.identity = identity


# In the thread.


def _outcome(function: Callable[..., T], *args: Any) -> tuple[T | None, Exception | None]:
    """(what it gives, its error): gevent would write an error that leaves a thread into the log."""
    try:
        return function(*args), None
    except Exception as error:
        return None, error


def identity(path: str) -> Identity:
    """What changes with the file's content, or with what the path leads to. OSError where there is nothing."""
    return _identity(os.stat(path))


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(path: str, parse: Callable[[bytes], Pools]) -> tuple[Identity | None, Pools]:
    """(identity, what the file says by `parse`, or Unreadable); the former is None where the file changed meanwhile.
    Raises Wrong, OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a FIFO must not block us
    try:
        found = os.fstat(fd)
        before = _identity(found)
        if not stat.S_ISREG(found.st_mode):
            raise Wrong(before, "a directory, and no file" if stat.S_ISDIR(found.st_mode) else "not a regular file")
        if found.st_size > LARGEST:
            raise Wrong(before, f"{found.st_size} bytes, but {LARGEST} is the limit")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(LARGEST)
        if _identity(os.fstat(fd)) != before:
            return None, {}
    finally:
        os.close(fd)
    try:
        return before, parse(data)
    except Unreadable as error:
        raise Wrong(before, str(error)) from None


def describe(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
