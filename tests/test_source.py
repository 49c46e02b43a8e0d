"""What `supervise` does about a source that fails: it tells the feed, waits ever longer, and keeps the nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
import pytest
from greenlet import GreenletExit
from hypothesis import given
from hypothesis import strategies as st

from router.feed import Feed
from router.node import Node
from router.source import (
    FIRST_WAIT,
    LEAST_WAIT,
    LONGEST_WAIT,
    MOST_LINES,
    REMIND,
    STEADY,
    Source,
    supervise,
    wait_before,
)
from router.table import Table

Run = Callable[[Feed], None]


class Scripted:
    """A source whose n-th run does what the n-th script says; after the last one the greenlet is killed."""

    name = "scripted"

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)

    def run(self, feed: Feed) -> None:
        if not self.runs:
            raise GreenletExit
        self.runs.pop(0)(feed)


class Time:
    """A clock that `sleep` and the scripts move; the waits are kept."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def feed() -> Feed:
    return Table().feed("scripted")


@pytest.fixture
def time() -> Time:
    return Time()


def supervised(source: Source, feed: Feed, time: Time, jitter: float = 1.0) -> list[float]:
    """The waits between the runs of `source`, until it is killed."""
    with pytest.raises(GreenletExit):
        supervise(source, feed, sleep=time.sleep, random=lambda: jitter, clock=lambda: time.now)
    return time.waits


def refused(feed: Feed) -> None:
    raise ConnectionRefusedError(111, "Connection refused")


def announced(feed: Feed) -> None:
    feed.announce("foo.com", Node("10.0.0.5:3031"))
    refused(feed)


def returned(feed: Feed) -> None:
    pass


def test_the_wait_doubles_up_to_the_longest(feed: Feed, time: Time) -> None:
    assert supervised(Scripted(*[refused] * 8), feed, time) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_jitter_is_full_but_for_the_least_wait(feed: Feed, time: Time) -> None:
    assert supervised(Scripted(*[refused] * 8), feed, time, jitter=0.0) == [LEAST_WAIT] * 8


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_any_wait_is_between_its_bounds(attempt: int, jitter: float) -> None:
    assert LEAST_WAIT <= wait_before(attempt, lambda: jitter) <= LONGEST_WAIT
    assert wait_before(1, lambda: jitter) <= FIRST_WAIT


def test_progress_starts_from_the_first_wait_again(feed: Feed, time: Time) -> None:
    assert supervised(Scripted(refused, refused, announced, refused, announced), feed, time) == [
        1,
        2,
        1,
        2,
        1,
    ]


def test_a_source_may_report_progress_without_news(feed: Feed, time: Time) -> None:
    def looked(feed: Feed) -> None:
        feed.progress()
        refused(feed)

    assert supervised(Scripted(refused, refused, looked), feed, time) == [1, 2, 1]


def test_failures_and_rejects_are_no_progress(feed: Feed, time: Time) -> None:
    def failed(feed: Feed) -> None:
        feed.fail("SERVFAIL", "foo.com")
        feed.reject("bad number")
        refused(feed)

    assert supervised(Scripted(failed, failed, failed), feed, time) == [1, 2, 4]


@pytest.mark.parametrize(("ran", "third_wait"), [(STEADY - 1, 4), (STEADY, 1)])
def test_a_long_run_counts_as_progress(feed: Feed, time: Time, ran: float, third_wait: float) -> None:
    def ran_quietly(feed: Feed) -> None:
        time.now += ran
        refused(feed)

    assert supervised(Scripted(refused, refused, ran_quietly), feed, time) == [1, 2, third_wait]


def test_the_feed_is_told_and_keeps_its_nodes(feed: Feed, time: Time) -> None:
    supervised(Scripted(announced), feed, time)
    assert feed.error == "[Errno 111] Connection refused"
    assert feed.errors == 1
    assert list(feed.slices["foo.com"]) == ["10.0.0.5:3031"]


def test_the_error_goes_with_the_next_progress(feed: Feed, time: Time) -> None:
    errors: list[str | None] = []

    def recovers(feed: Feed) -> None:
        errors.append(feed.error)
        feed.announce("foo.com", Node("10.0.0.5:3031"))
        errors.append(feed.error)
        raise GreenletExit

    supervised(Scripted(refused, recovers), feed, time)
    assert errors == ["[Errno 111] Connection refused", None]


def test_returning_counts_as_trouble(feed: Feed, time: Time) -> None:
    assert supervised(Scripted(returned, returned), feed, time) == [1, 2]
    assert feed.error == "source ended"


class Strange(BaseException):
    pass


@pytest.mark.parametrize("trouble", [ValueError("x"), gevent.Timeout(3), MemoryError(), Strange("x")])
def test_any_trouble_is_lived_through(trouble: BaseException, feed: Feed, time: Time) -> None:
    def run(feed: Feed) -> None:
        raise trouble

    assert supervised(Scripted(run, run), feed, time) == [1, 2]
    assert feed.errors == 2


@pytest.mark.parametrize("ending", [GreenletExit, gevent.GreenletExit, KeyboardInterrupt, SystemExit])
def test_what_ends_a_greenlet_or_the_process_is_let_through(
    ending: type[BaseException], feed: Feed, time: Time
) -> None:
    def run(feed: Feed) -> None:
        raise ending

    with pytest.raises(ending):
        supervise(Scripted(run), feed, sleep=time.sleep)
    assert (time.waits, feed.errors) == ([], 0)


def test_a_kill_ends_a_source_that_waits_and_one_that_runs(feed: Feed) -> None:
    class Waits:
        name = "waits"

        def run(self, feed: Feed) -> None:
            gevent.sleep(60)

    for source in Waits(), Scripted(*[refused] * 5):
        greenlet = gevent.spawn(supervise, source, feed, sleep=gevent.sleep, random=lambda: 0.999)
        gevent.sleep(0)
        assert not greenlet.dead
        greenlet.kill(timeout=5)
        assert greenlet.dead


def test_one_line_says_who_failed_why_and_when_it_is_tried_again(
    feed: Feed, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def many_lines(feed: Feed) -> None:
        raise ValueError("first\nsecond\n")

    with caplog.at_level(logging.INFO, "gfrouter"):
        supervised(Scripted(refused, many_lines, returned), feed, time, jitter=0.5)
    assert caplog.messages == [
        "scripted: ConnectionRefusedError: [Errno 111] Connection refused; trying again in 0.6 s",
        "scripted: ValueError: first second; trying again in 1.1 s",
        "scripted: SourceEnded: source ended; trying again in 2.0 s",
    ]


def test_nothing_that_a_source_says_forges_a_line_or_steers_a_terminal(
    feed: Feed, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def run(feed: Feed) -> None:
        feed.reject("bad value", "one\ntwo\x1b[2J")
        raise OSError("three\nfour\x1b[2J")

    supervised(Scripted(run), feed, time)
    assert caplog.messages == [
        r"scripted: dropped, bad value: one\ntwo\x1b[2J",
        r"scripted: OSError: three four\x1b[2J; trying again in 1.0 s",
    ]
    assert feed.error == feed.last_error == r"three\nfour\x1b[2J"


def test_a_source_that_is_down_for_an_hour_does_not_fill_the_log(
    feed: Feed, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gfrouter"):
        supervised(Scripted(*[refused] * 124), feed, time)
    assert 3600 < sum(time.waits) < 3700
    assert len(caplog.messages) == 3600 // REMIND


def test_one_that_works_again_is_told_and_so_is_its_next_trouble(
    feed: Feed, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gfrouter"):
        supervised(Scripted(refused, refused, announced, refused), feed, time)
    trouble = "scripted: ConnectionRefusedError: [Errno 111] Connection refused; trying again in 1.0 s"
    said = [line for line in caplog.messages if line.startswith("scripted:")]
    assert said == [trouble, "scripted: can see again", trouble]


def test_one_that_works_for_moments_only_does_not_fill_the_log(
    feed: Feed, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gfrouter"):
        supervised(Scripted(*[announced] * 300), feed, time)
    assert sum("trying again" in line for line in caplog.messages) == MOST_LINES
    assert sum("can see again" in line for line in caplog.messages) == MOST_LINES


def test_the_traceback_is_there_for_whoever_debugs(feed: Feed, time: Time, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gfrouter"):
        supervised(Scripted(refused), feed, time)
    assert "in refused" in caplog.text
