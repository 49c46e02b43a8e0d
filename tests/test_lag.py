"""How late a loop is: measured once a second, said once a minute, shown in the stats and by the admin API."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from clients import read_to_end
from one_router import OneRouter
from router.lag import EVERY, LATE, SHOWN, Lag
from scripted import connect, freeze, wait_for
from servers import Router, free_address


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_worst_of_the_last_minute_is_shown() -> None:
    clock = Clock()
    lag = Lag("x", clock)
    seen = []
    for late in (0.0, 0.5, -0.3, 0.25, *[0.0] * SHOWN):
        clock.now += EVERY + late
        lag.note()
        seen.append(lag.worst)
    assert seen[:4] == [0.0, 0.5, 0.5, 0.5]
    assert (seen[SHOWN], seen[SHOWN + 1], seen[-1]) == (0.5, 0.25, 0.0)


def test_a_late_loop_is_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    lag = Lag("the supervisor", clock)
    for _ in range(SHOWN + 1):
        clock.now += EVERY + LATE + 1
        lag.note()
    assert caplog.messages == [f"the supervisor: the loop was {LATE + 1:.1f} s late"] * 2


def test_a_router_tells_how_late_it_was(tmp_path: Path) -> None:
    with OneRouter(log=tmp_path / "log") as router:
        router.table({})
        freeze(router.process.pid)
        time.sleep(EVERY + LATE + 0.2)
        os.kill(router.process.pid, signal.SIGCONT)
        wait_for(lambda: router.counts()["lag"] >= LATE, "the sweep")
        assert [
            line for line in router.log if line.startswith(f"uWSGI fastrouter (pid: {router.process.pid}): the loop")
        ]


@pytest.mark.slow
def test_both_kinds_of_processes_are_shown() -> None:
    admin = free_address()
    with Router(admin=admin) as router:
        router.settle()
        (pid,) = router.pids().values()
        for each in (router.pid, pid):
            freeze(each)
        time.sleep(EVERY + LATE + 0.2)
        for each in (router.pid, pid):
            os.kill(each, signal.SIGCONT)
        wait_for(lambda: router.stats()["routers"][0]["lag"] >= LATE, "the router's sweep")
        with connect(admin) as client:
            client.sendall(b"GET /v1/status HTTP/1.0\r\n\r\n")
            status = json.loads(read_to_end(client).partition(b"\r\n\r\n")[2])
        assert status["lag"] >= LATE
        assert status["processes"][0]["lag"] >= LATE
        router.wait_line("^the supervisor: the loop was")
