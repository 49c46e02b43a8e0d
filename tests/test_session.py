"""The crooked paths where no kernel could be asked for the right moment: with an engine of a few lines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import gevent

from clients import request
from router.budget import Budget
from router.session import DETOUR, Detours, Session
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


def test_what_others_spend_while_a_busy_node_is_waited_for_is_spent() -> None:
    asked: list[Session] = []
    member = SimpleNamespace(failures=0, endpoint=object(), pool=SimpleNamespace(key="foo.com"))
    answers = iter([None, member])  # it is busy, and a moment later it is not
    engine = SimpleNamespace(
        requests=0,
        pools={"foo.com": SimpleNamespace(hits=0, pick=lambda pool, avoid: next(answers))},
        complaints=SimpleNamespace(count=lambda kind: None),
        health=SimpleNamespace(unanswered=lambda session, member: None),
        queues=SimpleNamespace(enter=lambda session, pool: False),
        connect=lambda session, member: asked.append(session),
    )
    budget = Budget(20)

    def spend(seconds: float) -> None:
        budget.spent += 5

    detours, session = detoured(engine, budget=budget, sleep=spend)
    session.busy = (cast(Any, object()),)
    detours.unanswered(session, cast(Any, member))
    wait_for(lambda: asked == [session], "the second node", sleep=gevent.sleep)
    assert budget.spent == 6
