"""What a source of nodes is, and what keeps it running: `Source` is the contract, `supervise` the retry loop.

A source knows how to look; it does not know how to fail. It raises on any trouble and is run afresh by
`supervise`, which tells the feed, waits longer each time, and starts from the shortest wait again once the
source has made progress. So no source holds retry logic, and a failing one never takes a node away: the feed
keeps what it said last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from greenlet import GreenletExit

from router.uwsgi import printable

if TYPE_CHECKING:
    from router.feed import Feed
    from router.node import Node

# Seconds. The n-th wait in a row is drawn from LEAST_WAIT to FIRST_WAIT * 2**(n-1), at most LONGEST_WAIT:
# full jitter, so that a thousand routers do not come back to a restarted Consul in step.
LEAST_WAIT = 0.1  # a source that fails at once must not eat a core
FIRST_WAIT = 1.0  # most troubles are a restart of the other side, which takes about that long
LONGEST_WAIT = 30.0  # the longest that an operator should wait to see his repair work
# Seconds. A source may have nothing to say for hours, so to have run this long counts as progress, too.
STEADY = 60.0

# A side that is down for days must not fill the log: what was said once is said again after so many seconds, and of a
# source that fails in ever other ways, or works for a moment in between, MOST_LINES lines are written meanwhile.
REMIND = 600.0
MOST_LINES = 10

# These end a greenlet or the process on purpose; nobody may live on through them. `gevent.Timeout` is a
# BaseException as well, and is a trouble like any other.
ENDINGS = (GreenletExit, KeyboardInterrupt, SystemExit)

log = logging.getLogger("gfrouter")


class Source(Protocol):
    """A place that says which nodes serve which key: announcements, DNS, Consul, etcd, a file.

    A source may start to look when it is made, as by binding a socket, so that what can never work stops the
    start; it writes to no feed before `run`. It should first give all that it can see, and then each change;
    it need not make sure that a change is one. One that can see all at once gives that by `feed.replace`, even
    if it is nothing: it has spoken then, and a router that is warming waits for it no longer. One that hears of
    one node after the other never says that, and is waited for until `warm-timeout`. One object is run by one
    greenlet at a time, and may be run again after it has raised: what it must remember from one run to the next,
    it keeps itself.

    One that can only look a key up when somebody asks for it has `on_demand = True`, in its class or itself. It begins
    with `feed.replace({})`, takes keys from `feed.wanted()`, and answers each. It is asked for keys that are host names
    (`foo.com`, `foo.com:8080`), or, with `any_key = True` as well, for whatever a client has written.

    After a restart the feed serves what it served before, until the source speaks. Where the first full word is a
    `replace`, that is all there is to it; see `Recalling` for the others.
    """

    name: str
    """Unique among the sources of one router, and shown in logs and stats."""

    def run(self, feed: Feed) -> None:
        """Keep `feed` current until killed; raise on any trouble.

        The feed belongs to this source alone, and outlives each run of it. Returning counts as trouble too.
        What was said stays in service until it is taken back, so do not withdraw anything on the way out: a
        source that cannot see has not seen the nodes go. `feed.fail(error, key)` is for trouble with one key
        among many that work. It is killed by GreenletExit and must let it pass.
        """


class Recalling(Source, Protocol):
    """A source that has to do with what its feed serves from before this start; either method is optional.

    It must where it gives no full word by `replace`: it has not said these nodes in this life, and whatever it neither
    confirms nor takes back in time is served for ever. It may where it can tell more by what it remembers, or where its
    first full word would come before it has seen what became of those nodes.
    """

    def remember(self) -> Any:
        """What `recall` gets at the next start, beside the nodes: a value for JSON, as large as the feed at most.

        It is asked for again and again, from any greenlet, and must not wait.
        """

    def recall(self, slices: Mapping[str, Mapping[str, Node]], memory: object) -> None:
        """Before the first `run`, where a former state was found: the feed serves `slices`, key → address → node.

        `memory` is what `remember` gave; or anything else, as another version or anybody may have written it. What is
        wrong with it is dropped, entry by entry, and raises nothing. Nothing is said to the feed here.
        """


class SourceEnded(Exception):
    """A source returned from `run`, which none should."""


class SourceStuck(BaseException):
    """A source has kept everybody else waiting, and was interrupted; no `except Exception` of its own can stop that."""


def supervise(
    source: Source,
    feed: Feed,
    *,
    sleep: Callable[[float], Any],
    random: Callable[[], float] = random,
    clock: Callable[[], float] = monotonic,
    log: logging.Logger = log,
) -> NoReturn:
    """Run `source` for ever, again and again, in the greenlet that calls; ends only by being killed.

    `sleep` takes seconds (`gevent.sleep`), `random` gives 0 up to 1, `clock` monotonic seconds.
    """
    failures = 0
    told: list[str] = []  # since `telling`; "" stands for a trouble that was over
    telling = clock()
    while True:
        began, progressed = clock(), feed.progressed
        try:
            source.run(feed)
            error: BaseException = SourceEnded("source ended")
        except ENDINGS:
            raise
        except BaseException as trouble:
            error = trouble
        if feed.progressed != progressed or clock() - began >= STEADY:
            failures = 0
            told = ["" for _ in told]
        failures += 1
        feed.fail(error)
        wait = wait_before(failures, random)
        if clock() - telling >= REMIND:
            told, telling = [], clock()
        if (text := describe(error)) not in told and len(told) < MOST_LINES:
            told.append(text)
            feed.complained = True
            log.warning("%s: %s; trying again in %.1f s", feed.source, text, wait)
        log.debug("%s failed here:", feed.source, exc_info=error)
        with suppress(SourceStuck):  # meant for the run that is over
            sleep(wait)


def wait_before(attempt: int, random: Callable[[], float] = random) -> float:
    """Seconds to wait before the next attempt, after `attempt` failures in a row (1 or more)."""
    doublings = min(attempt - 1, 32)  # by then long at LONGEST_WAIT, and never an OverflowError
    ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2.0**doublings)
    return LEAST_WAIT + random() * (ceiling - LEAST_WAIT)


def describe(error: BaseException) -> str:
    """One line: `ConnectionRefusedError: [Errno 111] Connection refused`."""
    return printable(" ".join(f"{type(error).__name__}: {error}".rstrip(": ").split()))
