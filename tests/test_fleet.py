"""The routers of one supervisor, without a process: when they are ready, and when one is started no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import pytest

from router import stats
from router.fleet import COUNT_AGAIN, Fleet
from router.table import Table


class Fake:
    """In place of a Child; its process ends when `ended` is set."""

    pid = 7
    born = 0.0

    def __init__(self, heard: bool = False) -> None:
        self.heard = heard
        self.orders: list[Any] = []
        self.asked: list[int] = []
        self.forgotten: list[int] = []
        self.meanwhile: list[Any] = []
        self.deaf = False
        self.ended = gevent.event.Event()
        self.process = SimpleNamespace(wait=self.ended.wait)

    def order(self, **orders: Any) -> None:
        self.orders.append(orders)

    def note_change(self, change: Any) -> None:
        pass

    def ask_counts(self, number: int) -> gevent.event.Event:
        """Answered when the loop turns, after `meanwhile` has been called; never where `deaf`."""
        self.asked.append(number)
        answered = gevent.event.Event()

        def answer() -> None:
            if self.meanwhile:
                self.meanwhile.pop()()
            answered.set()

        if not self.deaf:
            gevent.spawn(answer)
        return answered

    def forget_counts(self, number: int) -> None:
        self.forgotten.append(number)

    def end(self) -> None:
        pass


def fleet_of(count: int, start: Any = None) -> Fleet:
    return Fleet([stats.Slot(number) for number in range(1, count + 1)], Table(), start, gevent.event.Event())


@pytest.mark.parametrize(
    ("heard", "ready"), [([], False), ([True], False), ([True, False], False), ([True, True], True)]
)
def test_it_is_ready_when_the_router_of_each_slot_accepts(heard: list[bool], ready: bool) -> None:
    fleet = fleet_of(2)
    fleet.routers = [Fake(one) for one in heard]  # type: ignore[misc]
    assert fleet.ready() is ready


def test_one_that_was_started_while_it_stops_is_told_so_and_not_replaced() -> None:
    started: list[Fake] = []

    def start(_slot: stats.Slot) -> Fake:
        started.append(Fake())
        stopping.set()
        return started[0]

    fleet = fleet_of(1, start)
    stopping = fleet._stopping
    fleet.run()
    gevent.sleep(0)
    assert started[0].orders == [{"stop": True}] and len(fleet.routers) == 1
    started[0].ended.set()
    gevent.joinall(fleet.keepers, timeout=10)
    assert fleet.keepers[0].dead and fleet.routers == []
    assert len(started) == 1


def changing(fleet: Fleet) -> Any:
    return lambda: fleet.note_change(SimpleNamespace())  # type: ignore[arg-type]


def test_what_changes_while_the_routers_answer_is_asked_about_again() -> None:
    fleet = fleet_of(2)
    first, second = fakes = [Fake(), Fake()]
    fleet.routers = fakes  # type: ignore[assignment]
    first.meanwhile = [changing(fleet)]
    assert fleet.count()
    assert first.asked == second.asked == first.forgotten == second.forgotten == [1, 2]
    assert fleet.count()
    assert first.asked == second.asked == [1, 2, 3]


def test_a_table_that_never_rests_is_counted_all_the_same() -> None:
    fleet = fleet_of(1)
    fleet.routers = [fake] = [Fake()]  # type: ignore[assignment]
    fake.meanwhile = [changing(fleet)] * 100
    assert fleet.count()
    assert len(fake.asked) == COUNT_AGAIN


def test_a_router_that_does_not_answer_is_not_waited_for_twice() -> None:
    fleet = fleet_of(2)
    fleet.routers = fakes = [Fake(), Fake()]  # type: ignore[assignment]
    fakes[0].meanwhile, fakes[1].deaf = [changing(fleet)], True
    assert not fleet.count()
    assert fakes[0].asked == fakes[1].asked == fakes[1].forgotten == [1]
