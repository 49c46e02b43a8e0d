"""A router whose loop is stuck is killed and replaced; a supervisor that was itself stopped kills nobody."""

import signal
import time

import pytest

from clients import announce, ask, request
from router import child, stats
from router.child import Child
from scripted import HELLO, ScriptedNode, freeze, wait_for
from servers import Router

GET = request("foo.com")


class Watched(Child):
    """A child without a process, that was asked for nothing yet."""

    def __init__(self) -> None:
        self.slot = stats.Slot(1)
        self.pid = 7
        self.beat = self.beaten = self.kills = 0
        self.killed = False
        self.asked: list[int] = []
        self.process = self  # type: ignore[assignment]  # `kill` is all that is asked of it

    def kill(self) -> None:
        self.kills += 1

    def order(self, **orders: int) -> None:
        self.asked.append(orders["beat"])


def test_one_that_answers_is_left_alone() -> None:
    watched = Watched()
    for _ in range(100):
        watched.watch(2)
        watched.beaten = watched.asked[-1]
    assert watched.kills == 0


def test_one_that_answers_no_more_is_killed_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.watch(2)
    watched.beaten = 1
    kills = []
    for _ in range(10):
        watched.watch(2)
        kills.append(watched.kills)
    assert kills == [0, 0, 0, *[1] * 7], "more than 2 beats, each asked for a second after the one before"
    assert caplog.messages == ["*** HARAKIRI ON GATEWAY uWSGI fastrouter 1 (pid: 7) ***"]
    assert watched.slot.harakiris == 1


def test_one_that_is_still_starting_has_more_time() -> None:
    watched = Watched()
    for _ in range(child.START_BEATS + 1):
        watched.watch(1)
    assert watched.kills == 0
    watched.watch(1)
    assert watched.kills == 1


@pytest.mark.slow
def test_a_stuck_router_is_replaced_and_a_stopped_supervisor_kills_nobody() -> None:
    with Router(harakiri=3) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        pid = router.pids()[1]
        time.sleep(1.5)  # so that a beat has been answered, and the next one is on its way
        router.send_signal(signal.SIGSTOP)
        time.sleep(6)  # longer than harakiri: that is what this is about
        router.send_signal(signal.SIGCONT)
        assert ask(router.address, GET) == HELLO
        time.sleep(1.5)
        assert (router.pids()[1], router.line("HARAKIRI")) == (pid, None)
        freeze(pid)
        router.wait_line(rf"^\*\*\* HARAKIRI ON GATEWAY uWSGI fastrouter 1 \(pid: {pid}\) \*\*\*$", timeout=20)
        wait_for(lambda: router.pids()[1] != pid, "the next one")
        assert ask(router.address, GET) == HELLO
        (worker,) = router.stats()["workers"]
        assert (worker["harakiri_count"], worker["respawn_count"]) == (1, 2)
