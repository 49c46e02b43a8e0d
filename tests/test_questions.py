"""What routers ask and sources answer: one question a key, whoever asks, and an end to each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router import questions
from router.feed import Feed
from router.lookups import ANY, HOSTS, NOBODY
from router.node import Node
from router.questions import GRACE, Questions, whom
from router.shaping import ShapedFeed
from router.table import Change, Table

TIMEOUT = 3.0
APP = "app.lan:3031"


class Asking:
    """A table with so many sources on demand, one that is not, and routers that keep what they are told."""

    def __init__(self, on_demand: int = 1) -> None:
        self.now = 1000.0
        self.table = Table(on_change=self.on_change)
        self.feeds = [self.table.feed(f"told-{number}") for number in range(on_demand)]
        self.other = self.table.feed("subscription")
        self.questions = Questions(self.table, self.feeds, HOSTS, timeout=TIMEOUT, clock=lambda: self.now)
        self.table.on_answer = self.questions.answered
        self.unknown: list[str] = []  # what the router is told

    def on_change(self, change: Change) -> None:
        if change.opened:
            self.questions.known(change.key)

    def ask(self, key: str = "a") -> None:
        self.questions.ask(key, self.tell)

    def tell(self, key: str) -> None:
        self.unknown.append(key)

    def wanted(self, feed: int = 0) -> list[str]:
        return list(iter(lambda: self.feeds[feed].wanted(0), None))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.questions.sweep()

    @property
    def counts(self) -> dict[str, int]:
        return {end: count for end, count in self.questions.counts().items() if count}


def test_each_source_gets_each_key_once_a_question() -> None:
    asking = Asking(2)
    for key in ("a", "b", "a"):
        asking.ask(key)
    assert [asking.wanted(0), asking.wanted(1)] == [["a", "b"]] * 2
    asking.ask("a")
    assert asking.wanted() == []
    assert asking.counts == {"asked": 2, "open": 2}
    for feed in asking.feeds:
        feed.set("a", ())
    asking.ask("a")
    assert asking.wanted() == ["a"]


@pytest.mark.parametrize("on_demand", [True, False])
def test_a_node_from_whichever_source_ends_it(on_demand: bool) -> None:
    asking = Asking()
    asking.ask()
    (asking.feeds[0] if on_demand else asking.other).announce("a", Node(":1"))
    assert (asking.counts, asking.unknown) == ({"asked": 1, "answered": 1}, [])
    assert asking.wanted() == [], "nobody waits for it any more"


def test_it_is_unknown_when_every_source_on_demand_has_said_so_or_cannot_tell() -> None:
    asking = Asking(3)
    asking.ask()
    asking.feeds[0].set("a", ())
    asking.feeds[0].set("a", ())
    asking.feeds[1].fail("SERVFAIL", "a")
    asking.feeds[2].fail("down")
    asking.other.set("a", ())
    assert asking.counts == {"asked": 1, "open": 1}
    asking.feeds[2].set("a", ())
    assert (asking.counts, asking.unknown) == ({"asked": 1, "unknown": 1}, ["a"])


def test_nodes_that_nobody_could_connect_to_are_none() -> None:
    asking = Asking()
    asking.ask()
    asking.feeds[0].set("a", [Node(":0")])
    assert asking.counts == {"asked": 1, "unknown": 1}


def test_a_host_name_that_is_not_resolved_yet_may_still_become_a_node() -> None:
    asking = Asking()
    asking.ask()
    asking.feeds[0].set("a", [Node(APP)])
    asking.pass_time(1)
    assert asking.counts == {"asked": 1, "open": 1}
    asking.table.resolve(APP, ["127.0.0.1:3031"])
    assert (asking.counts, asking.unknown) == ({"asked": 1, "answered": 1}, [])


def test_a_shaped_source_answers_with_its_nodes_too() -> None:
    """Such a feed is merged when its verb is over; its answer must not come before its node."""
    asking = Asking()
    asking.feeds[0] = shaped = ShapedFeed(asking.table, "shaped", 10, 10, max_stale=60)
    asking.table.feeds.insert(0, shaped)
    asking.questions.feeds = [shaped]
    asking.ask()
    assert asking.wanted() == ["a"]
    shaped.set("a", [Node(":1")])
    assert (asking.unknown, asking.counts) == ([], {"asked": 1, "answered": 1})


def test_a_host_name_that_does_not_resolve_is_no_node() -> None:
    asking = Asking()
    asking.ask()
    asking.feeds[0].set("a", [Node(APP)])
    asking.table.names[APP].error = "cannot resolve"
    asking.table.resolve(APP, [])
    asking.pass_time(0.1)
    assert (asking.counts, asking.unknown) == ({"asked": 1, "unknown": 1}, ["a"])


def test_one_that_nobody_answers_ends_when_its_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking(2)
    asking.ask("a\n")
    asking.feeds[0].set("a\n", ())
    asking.pass_time(TIMEOUT)
    assert asking.counts == {"asked": 1, "open": 1}, "routers have given up before"
    asking.pass_time(GRACE)
    assert (asking.counts, asking.unknown) == ({"asked": 1, "timed_out": 1}, ["a\n"])
    assert asking.wanted(1) == [], "it is not asked any more"
    assert caplog.messages == [r"[uwsgi-fastrouter] told-1 did not say within 3 s who serves a\n"]
    asking.ask("a\n")
    assert asking.wanted(1) == ["a\n"]


def test_a_flood_of_timeouts_is_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking()
    for number in range(100):
        asking.ask(f"{number}.com")
    asking.pass_time(TIMEOUT + GRACE)
    assert (asking.counts["timed_out"], len(caplog.messages)) == (100, 10)


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MOST_OPEN", 2)
    asking = Asking()
    for key in ("a", "b", "c", "b"):
        asking.ask(key)
    assert (asking.counts, asking.unknown) == ({"asked": 2, "open": 2, "refused": 1}, ["c"])


def test_what_has_a_node_already_is_not_asked() -> None:
    asking = Asking()
    asking.other.announce("a", Node(":1"))
    asking.ask()
    assert (asking.counts, asking.unknown, asking.wanted()) == ({}, [], [])


def test_everybody_who_asked_is_told_once() -> None:
    asking = Asking()
    others: list[str] = []
    for _ in range(2):
        asking.ask()
        asking.questions.ask("a", others.append)
    asking.feeds[0].set("a", ())
    assert (asking.unknown, others) == (["a"], ["a"])


class Plain:
    name = "plain"

    def run(self, feed: Feed) -> None: ...


class Dns(Plain):
    on_demand = True


class Odd(Dns):
    any_key = True


def test_whom_sources_are_asked_for() -> None:
    assert [whom([]), whom([Plain()]), whom([Plain(), Dns()]), whom([Dns(), Odd()])] == [NOBODY, NOBODY, HOSTS, ANY]


KEYS = st.sampled_from(["a", "b", "c"])
FEEDS = st.sampled_from([0, 1])
OPEN = 2


class Model(RuleBasedStateMachine):
    """The model: by key, who owes and until when. A question ends once, in one of four ways."""

    def __init__(self) -> None:
        super().__init__()
        self.asking = Asking(2)
        self.owing: dict[str, set[int]] = {}
        self.until: dict[str, float] = {}
        self.ends: Counter[str] = Counter()
        self.told: list[str] = []

    def end(self, key: str, end: str) -> None:
        if key in self.owing:
            del self.owing[key], self.until[key]
            self.ends[end] += 1
            if end != "answered":
                self.told.append(key)

    @rule(key=KEYS)
    def ask(self, key: str) -> None:
        most, questions.MOST_OPEN = questions.MOST_OPEN, OPEN
        self.asking.ask(key)
        questions.MOST_OPEN = most
        if key in self.asking.table.pools or key in self.owing:
            return
        if len(self.owing) == OPEN:
            self.ends["refused"] += 1
            self.told.append(key)
        else:
            self.owing[key] = {0, 1}
            self.until[key] = self.asking.now + TIMEOUT + GRACE
            self.ends["asked"] += 1

    @rule(feed=FEEDS)
    def want(self, feed: int) -> None:
        key = self.asking.feeds[feed].wanted(0)
        assert key is None or feed in self.owing[key]

    @rule(key=KEYS, feed=FEEDS, fails=st.booleans())
    def deny(self, key: str, feed: int, fails: bool) -> None:
        if fails:
            self.asking.feeds[feed].fail("no", key)
        else:
            self.asking.feeds[feed].set(key, ())
        self.owing.get(key, set()).discard(feed)
        if self.owing.get(key) == set():
            self.end(key, "unknown")

    @rule(key=KEYS, feed=FEEDS)
    def find(self, key: str, feed: int) -> None:
        self.asking.feeds[feed].set(key, [Node(":1")])
        self.end(key, "answered")

    @rule(key=KEYS)
    def announce(self, key: str) -> None:
        self.asking.other.announce(key, Node(":2"))
        self.end(key, "answered")

    @rule(key=KEYS)
    def withdraw(self, key: str) -> None:
        self.asking.other.withdraw(key, ":2")

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.asking.pass_time(seconds)
        for key in [key for key, until in self.until.items() if until <= self.asking.now]:
            self.end(key, "timed_out")

    @invariant()
    def agrees(self) -> None:
        found = self.asking.questions
        assert {key: {self.asking.feeds.index(f) for f in q.owing} for key, q in found.open.items()} == self.owing
        assert self.asking.counts == {**{k: v for k, v in self.ends.items() if v}, **self.count_open()}
        assert self.asking.unknown == self.told
        for feed in self.asking.feeds:
            assert set(feed.asked.keys) <= set(self.owing), "what is not open is not handed out"

    def count_open(self) -> dict[str, int]:
        return {"open": len(self.owing)} if self.owing else {}


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase
