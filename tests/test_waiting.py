"""The waiting room by itself, against a naive model: whoever enters leaves once, and the counts come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.engine import Engine
from router.lookups import ANY, DENIED_FOR, NOBODY, TIMEOUT, UNKNOWN, Lookups
from router.session import Session
from router.waiting import SERVES, WAITING, WaitingRoom

KEYS = st.sampled_from(["a", "b"])
PLACES = 6  # few, so that the model meets a full room
TIME = 3.0  # seconds for a lookup


class Waiter:
    """Stands for a session."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.head, self.size = b"", 0
        self.tries = 0
        self.refusal = ""


class Routes:
    """Stands for the engine: a session whose key is known goes to a node, any other one is asked of the room again."""

    def __init__(self, most: int = 100_000, whom: str = NOBODY) -> None:
        self.pools: dict[str, object] = {}
        self.most = most
        self.ended: list[Waiter] = []  # served or refused
        self.faults = 0
        self.woken = 0
        self.now = 1000.0
        self.lookups = Lookups(whom, timeout=TIME, news=lambda: None, clock=lambda: self.now)
        self.room = WaitingRoom(cast(Engine, self), self.lookups, wake=self.wake)

    @property
    def inside(self) -> list[Waiter]:
        return cast(list[Waiter], list(self.room.waits))

    def wake(self) -> None:
        self.woken += 1

    def route(self, session: Any, head: bytes, size: int) -> None:
        if session.key in self.pools:
            session.tries += 1
            self.ended.append(session)
        elif refusal := self.room.refusal(session.key):
            session.refusal = refusal
            self.ended.append(session)
        else:
            self.room.enter(session, session.key)

    def fault(self, session: Any) -> None:
        self.faults += 1
        self.ended.append(session)

    def come(self, key: str) -> Waiter:
        waiter = Waiter(key)
        self.route(waiter, b"", 0)
        return waiter

    def learn(self, key: str) -> None:
        self.pools[key] = object()
        self.room.call(key)


def test_it_holds_a_thousand_and_never_more_than_half_of_the_sessions() -> None:
    assert (Routes(most=100_000).room.most, Routes(most=25).room.most, Routes(most=1).room.most) == (WAITING, 12, 0)


def test_closed_it_takes_nobody_and_full_it_takes_nobody_more() -> None:
    routes = Routes(most=4)
    assert routes.room.refusal("a") == "unknown key"
    routes.room.open()
    first, _ = routes.come("a"), routes.come("b")
    assert routes.room.refusal("a") == "waiting room full"
    routes.room.forget(cast(Session, first))
    assert routes.room.refusal("a") == ""
    routes.room.close()
    assert routes.room.refusal("a") == "unknown key"


def test_many_that_wait_for_one_key_go_a_few_a_wake_up_and_in_their_order() -> None:
    routes = Routes()
    routes.room.open()
    waiters = [routes.come("a") for _ in range(3 * SERVES + 1)]
    routes.learn("a")
    for served in (SERVES, 2 * SERVES, 3 * SERVES, 3 * SERVES + 1):
        woken = routes.woken
        routes.room.serve()
        assert routes.ended == waiters[:served]
        assert routes.woken == woken + (served < len(waiters))


def test_closing_refuses_a_few_a_wake_up_as_well() -> None:
    routes = Routes()
    routes.room.open()
    for _ in range(SERVES + 1):
        routes.come("a")
    routes.room.close()
    routes.room.serve()
    assert (len(routes.ended), len(routes.room.waits)) == (SERVES, 1)


def test_one_whose_key_was_known_for_a_moment_only_keeps_its_place() -> None:
    routes = Routes(most=2)
    routes.room.open()
    waiter = routes.come("a")
    routes.learn("a")
    del routes.pools["a"]
    routes.room.serve()
    assert waiter in routes.inside
    assert (len(routes.inside), routes.room.waited, routes.ended) == (1, 1, [])
    routes.learn("a")
    routes.room.serve()
    assert (routes.ended, routes.room.found) == ([waiter], 1)


def test_a_fault_ends_one_session_and_the_others_go_on() -> None:
    def faulty(route: Callable[..., None]) -> Callable[..., None]:
        def once(*arguments: Any) -> None:
            routes.route = route  # type: ignore[method-assign]
            raise RuntimeError

        return once

    routes = Routes()
    routes.room.open()
    routes.come("a"), routes.come("a")
    routes.learn("a")
    routes.route = faulty(routes.route)  # type: ignore[method-assign]
    routes.room.serve()
    assert (routes.faults, len(routes.ended), routes.room.found) == (1, 2, 1)


def test_who_has_waited_for_a_lookup_in_vain_is_refused_with_the_reason_and_not_looked_up_again() -> None:
    routes = Routes(whom=ANY)
    denied, late = routes.come("a"), routes.come("b")
    routes.room.deny(["a", "c"])
    routes.now += TIME + DENIED_FOR  # so long that a new one would be looked up
    routes.room.expire()
    routes.now += DENIED_FOR
    routes.room.serve()
    assert [(w, w.refusal) for w in routes.ended] == [(denied, UNKNOWN), (late, TIMEOUT)]
    assert (routes.lookups.open, routes.room.waits) == ({}, {})


def test_while_warming_no_lookup_is_the_last_word_and_afterwards_only_open_ones_are_waited_for() -> None:
    routes = Routes(whom=ANY)
    routes.room.open()
    denied, asked = routes.come("a"), routes.come("b")
    routes.room.deny(["a"])
    routes.room.serve()
    assert routes.inside == [denied, asked]
    routes.room.close()
    routes.room.serve()
    assert (routes.inside, denied.refusal) == ([asked], UNKNOWN)
    routes.learn("b")
    routes.room.serve()
    assert (routes.inside, asked.tries) == ([], 1)


def test_a_stop_calls_all() -> None:
    routes = Routes(whom=ANY)
    waiters = [routes.come(key) for key in "ab"]
    routes.room.stop()
    routes.room.serve()
    assert [(waiter.refusal, waiter in routes.ended) for waiter in waiters] == [(UNKNOWN, True)] * 2
    assert routes.come("c").refusal == UNKNOWN


@pytest.mark.parametrize(
    ("waiters", "line"),
    [
        ("", "warming ended after 0.0 s: no request waited"),
        ("aab", "warming ended after 0.0 s: 3 requests waited, 2 found their node"),
    ],
)
def test_the_end_is_one_line(waiters: str, line: str, caplog: pytest.LogCaptureFixture) -> None:
    routes = Routes()
    routes.room.open()
    for key in waiters:
        routes.come(key)
    routes.learn("a")
    with caplog.at_level("INFO", "gfrouter"):
        for _ in range(3):
            routes.room.close()
            if routes.woken:
                routes.woken = 0
                routes.room.serve()
    assert [record.getMessage().split("] ")[1] for record in caplog.records] == [line]


class Room(RuleBasedStateMachine):
    """The model: a list of those who wait. Whoever is known at a wake-up goes; at the end all go."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = Routes(most=2 * PLACES)
        self.inside: list[Waiter] = []
        self.came = self.left = self.entered = 0
        self.routes.room.open()

    @rule(key=KEYS)
    def come(self, key: str) -> None:
        waits = self.routes.room.is_open and key not in self.routes.pools and len(self.inside) < PLACES
        waiter = self.routes.come(key)
        self.came += 1
        if waits:
            self.inside.append(waiter)
            self.entered += 1
        assert (waiter in self.routes.ended) is not waits

    @rule(at=st.integers(0, 1000))
    def leave(self, at: int) -> None:
        if self.inside:
            waiter = self.inside.pop(at % len(self.inside))
            self.routes.room.forget(cast(Session, waiter))
            self.left += 1

    @rule(key=KEYS)
    def learn(self, key: str) -> None:
        self.routes.learn(key)

    @rule(key=KEYS, for_a_moment=st.booleans())
    def unlearn(self, key: str, for_a_moment: bool) -> None:
        if for_a_moment:
            self.routes.learn(key)
        self.routes.pools.pop(key, None)

    @precondition(lambda self: self.came > 15)  # earlier there would be nobody to speak of
    @rule()
    def close(self) -> None:
        self.routes.room.close()

    @rule()
    def serve(self) -> None:
        """All that is due, however many wake-ups that takes; a further one changes nothing."""
        while self.routes.woken:
            self.routes.woken = 0
            self.routes.room.serve()
        stay = [w for w in self.inside if self.routes.room.is_open and w.key not in self.routes.pools]
        assert all(waiter in self.routes.ended for waiter in self.inside if waiter not in stay)
        self.inside = stay

    @invariant()
    def counts(self) -> None:
        room = self.routes.room
        assert set(self.routes.inside) == set(self.inside)
        assert len(self.routes.ended) == len(set(self.routes.ended)) == self.came - self.left - len(self.inside)
        assert sum(map(len, room.waiting.values())) + len([w for w, _ in room.called if w in room.waits]) == len(
            room.waits
        )
        assert all(room.waiting.values())
        assert room.waited == self.entered >= room.found


Room.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestRoom = Room.TestCase


class LookingUp(RuleBasedStateMachine):
    """The model: by key until when its lookup is open, or was in vain. Whoever waits has an open one, or is called."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = Routes(most=2 * PLACES, whom=ANY)
        self.inside: list[Waiter] = []
        self.called: set[Waiter] = set()
        self.open: dict[str, float] = {}
        self.denied: dict[str, float] = {}
        self.came = self.left = 0

    def end(self, key: str) -> None:
        if self.open.pop(key, None) is not None:
            self.called |= {waiter for waiter in self.inside if waiter.key == key}

    @rule(key=KEYS)
    def come(self, key: str) -> None:
        may = key in self.open or self.denied.get(key, 0) <= self.routes.now
        waits = key not in self.routes.pools and may and len(self.inside) < PLACES
        waiter = self.routes.come(key)
        self.came += 1
        assert (waiter in self.routes.ended) is not waits
        if waits:
            self.inside.append(waiter)
            self.open.setdefault(key, self.routes.now + TIME)

    @rule(at=st.integers(0, 1000))
    def leave(self, at: int) -> None:
        if self.inside:
            waiter = self.inside.pop(at % len(self.inside))
            self.routes.room.forget(cast(Session, waiter))
            self.left += 1

    @rule(key=KEYS)
    def learn(self, key: str) -> None:
        self.routes.learn(key)
        self.end(key)
        self.denied.pop(key, None)

    @rule(key=KEYS)
    def unlearn(self, key: str) -> None:
        self.routes.pools.pop(key, None)

    @rule(key=KEYS)
    def deny(self, key: str) -> None:
        self.routes.room.deny([key])
        if key in self.open:
            self.end(key)
            self.denied[key] = self.routes.now + DENIED_FOR

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.routes.now += seconds
        self.routes.room.expire()
        for key in [key for key, until in self.open.items() if until <= self.routes.now]:
            self.end(key)
            self.denied[key] = self.routes.now + DENIED_FOR

    @rule()
    def serve(self) -> None:
        while self.routes.woken:
            self.routes.woken = 0
            self.routes.room.serve()
        self.inside = [waiter for waiter in self.inside if waiter not in self.called]
        self.called.clear()

    @invariant()
    def agrees(self) -> None:
        assert set(self.routes.inside) == set(self.inside)
        assert self.routes.lookups.open == self.open
        assert all(waiter in self.called or waiter.key in self.open for waiter in self.inside)
        assert len(self.routes.ended) == len(set(self.routes.ended)) == self.came - self.left - len(self.inside)


LookingUp.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLookingUp = LookingUp.TestCase
