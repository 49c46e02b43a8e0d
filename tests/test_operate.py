"""How `gfrouter drain --wait` ends, with a gfrouter that only says what it is told to."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from router import operate
from router.ask import NoAnswer


def said(**in_flight: int) -> dict[str, Any]:
    return {"drains": [{"kind": "node", "what": what, "in_flight": number} for what, number in in_flight.items()]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    answers: list[Any] = []
    monkeypatch.setattr(operate, "ask", lambda admin, what: answers.pop(0))
    monkeypatch.setattr(operate, "LOOK_EVERY", 0.01)
    return answers


def test_it_waits_until_nothing_is_in_flight_at_any_of_its_words(answers: list[Any]) -> None:
    answers += [said(a=0, b=1, others=1), said(a=0, b=0, others=1), "one answer too many"]
    assert operate._finished("", said(a=1, b=0), monotonic() + 10) == said(a=0, b=0)
    assert len(answers) == 1


def test_it_waits_no_longer_than_it_was_told(answers: list[Any]) -> None:
    answers += [said(a=1)] * 1000
    assert operate._finished("", said(a=1), monotonic() + 0.05) == said(a=1)


def test_what_is_drained_no_longer_is_waited_for_no_longer(answers: list[Any]) -> None:
    answers += [said(b=1)]
    with pytest.raises(NoAnswer, match="drained no longer"):
        operate._finished("", said(a=1, b=1), monotonic() + 10)
