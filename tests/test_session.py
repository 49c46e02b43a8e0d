"""The crooked paths and ends where no kernel could be asked for the right moment: with an engine of a few lines."""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLHUP, EPOLLIN
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest

from clients import request
from router.budget import Budget
from router.deadlines import end_all, waits_for_first_byte
from router.endpoint import LIVE
from router.engine import Engine
from router.errors import Errors
from router.keyrules import NO_RULES
from router.node import Node
from router.session import CLOSED, CONNECT, DETOUR, HEAD, QUEUED, RELAY, WAIT, Detours, Session
from scripted import wait_for

GET = request("foo.com")


def detoured(engine: Any, **options: Any) -> tuple[Detours, Session]:
    session = Session(cast(Any, None), 7, 0)
    session.head, session.size, session.state, session.tries = GET, len(GET), DETOUR, 1
    said: dict[str, Any] = {"max_retries": 3, "retry": "idempotent", "budget": Budget(20), "quiet": True} | options
    return Detours(engine, **said), session


def test_a_fault_beside_the_path_ends_its_session() -> None:
    faults: list[Session] = []
    detours, session = detoured(SimpleNamespace(pools=None, fault=faults.append))
    detours.left_behind(session, "foo.com")
    wait_for(lambda: faults == [session], "the session to be ended", sleep=gevent.sleep)


def busy_for_a_moment(asked: list[Session], meanwhile: Callable[[Session], object], budget: Budget) -> Session:
    """Sends a request on its way whose first node said nothing, and whose second one is busy when it is first asked."""
    member: Any = SimpleNamespace(failures=0, endpoint=object(), pool=SimpleNamespace(key="foo.com"))
    answers = iter([None, member])
    engine = SimpleNamespace(
        requests=0,
        rules=NO_RULES,
        pools={"foo.com": SimpleNamespace(hits=0, pick=lambda pool, avoid, session: next(answers))},
        complaints=SimpleNamespace(count=lambda kind: None),
        health=SimpleNamespace(unanswered=lambda session, member: None),
        queues=SimpleNamespace(enter=lambda session, pool: False),
        connect=lambda session, member: asked.append(session),
        refuse=lambda session, kind, text: refused.append(kind),
        fault=lambda session: refused.append("fault"),
    )
    slept: list[float] = []
    refused: list[str] = []

    def sleep(seconds: float) -> None:
        meanwhile(session)
        slept.append(seconds)

    detours, session = detoured(engine, budget=budget, sleep=sleep)
    session.busy = (cast(Any, object()),)
    detours.unanswered(session, member)
    wait_for(lambda: slept, "the second node", sleep=gevent.sleep)
    assert refused == []
    return session


def test_what_others_spend_while_a_busy_node_is_waited_for_is_spent() -> None:
    asked: list[Session] = []
    budget = Budget(20)

    def spend(session: Session) -> None:
        budget.spent += 5

    session = busy_for_a_moment(asked, spend, budget)
    assert (asked, budget.spent) == ([session], 6)


def test_nobody_is_asked_for_a_client_that_left_while_a_busy_node_was_waited_for() -> None:
    asked: list[Session] = []
    budget = Budget(20)
    busy_for_a_moment(asked, lambda session: setattr(session, "state", CLOSED), budget)
    assert (asked, budget.spent) == ([], 0)


def ending(**more: Any) -> tuple[Any, list[str]]:
    """An engine that does no more than to say which of its ends it came to."""
    came: list[str] = []
    said = {end: lambda session, end=end: came.append(end) for end in ("leave", "detour", "close")}
    detours = SimpleNamespace(unfinished=lambda session: came.append("unfinished"))
    return SimpleNamespace(**said, detours=detours, **more), came


@pytest.mark.parametrize(
    ("missing", "client_ready", "end"), [(0, False, "close"), (0, True, "unfinished"), (1, False, "unfinished")]
)
def test_who_may_still_send_is_not_closed_on(missing: int, client_ready: bool, end: str) -> None:
    engine, came = ending()
    session = Session(cast(Any, None), 7, 0)
    session.missing, session.client_ready = missing, client_ready
    Engine.finish(engine, session)
    assert came[-1] == end


def test_no_page_follows_a_page() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine, came = ending(errors=Errors(404, {}))
        _, session = detoured(engine)
        session.client = session.source = ours
        for _ in range(2):
            Engine.dismiss(engine, session, "no node")
        assert came == ["leave", "close", "close"]
        assert theirs.recv(10_000).count(b"HTTP/1.1 503 ") == 1


def test_a_connect_has_all_its_time_whatever_went_before() -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        endpoint = SimpleNamespace(
            state=LIVE, trier=None, in_flight=0, family=socket.AF_INET, sockaddr=node.getsockname()
        )
        member = SimpleNamespace(endpoint=endpoint, node=Node(":1"), in_flight=0)
        engine: Any = SimpleNamespace(tick=9, batch=1, own=lambda fd, session: None, send_head=lambda session: False)
        _, session = detoured(engine)
        Engine.connect(engine, session, cast(Any, member))
        assert (session.state, session.tick) == (CONNECT, 9)
        session.node.close()  # type: ignore[union-attr]


def test_a_first_byte_has_all_its_time_however_long_the_connect_took() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine: Any = SimpleNamespace(tick=9, now=0.0, requests=0)
        endpoint = SimpleNamespace(state=LIVE)
        _, session = detoured(engine)
        session.member = cast(Any, SimpleNamespace(endpoint=endpoint, note_due=1.0, requests=0, rx=0))
        session.node, session.up = ours, GET
        assert Engine.send_head(engine, session)
        assert (session.state, session.tick, theirs.recv(10_000)) == (RELAY, 9, GET)


def test_an_event_of_a_socket_that_was_closed_before_its_turn_is_not_its_successors() -> None:
    """The client's event comes first, and in it a node is connected to, with the descriptor of one that has gone."""
    _, session = detoured(None)

    def connect(session: Session, mask: int) -> None:
        session.node_fd, session.batch = 6, engine.batch
        engine.sessions[6] = session

    seen: list[int] = []
    engine: Any = SimpleNamespace(
        sessions=[None] * 7 + [session],
        batch=1,
        epoll=SimpleNamespace(poll=lambda timeout, most: [(7, EPOLLIN), (6, EPOLLHUP)]),
        client_event=connect,
        node_event=lambda session, mask: seen.append(mask),
    )
    Engine.turn(engine)
    assert seen == []
    engine.client_event = lambda session, mask: None  # in the next batch it is its own
    Engine.turn(engine)
    assert seen == [EPOLLHUP]


def test_at_the_end_all_are_told_but_those_who_have_been() -> None:
    told: list[int] = []
    engine: Any = SimpleNamespace(refuse=lambda session, kind, text: told.append(session.client_fd))
    states = {3: HEAD, 4: WAIT, 5: QUEUED, 6: CONNECT, 7: RELAY, 8: DETOUR}
    engine.sessions = [None] * 10
    for fd, state in states.items():
        engine.sessions[fd] = session = Session(cast(Any, None), fd, 0)
        session.state = state
    session.node_fd = 9
    engine.sessions[9] = session
    end_all(engine, 30)
    assert told == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("missing", "up", "client_ready", "expected"),
    [(5, b"", False, False), (5, b"more", False, True), (5, b"", True, True), (0, b"", False, True)],
    ids=["the client's turn", "the node takes no more", "nor will it", "all is sent"],
)
def test_whose_turn_it_is(missing: int, up: bytes, client_ready: bool, expected: bool) -> None:
    _, session = detoured(None)
    session.state, session.uploaded, session.missing = RELAY, True, missing
    session.up, session.client_ready = up, client_ready
    assert waits_for_first_byte(session) == expected
    session.answered = True
    assert not waits_for_first_byte(session)
