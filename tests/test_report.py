"""What SIGUSR1 writes: all that fits, in a bounded number of lines, however often it is asked for."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from clients import announce, ask, request
from router.report import END, MOST_LINES, lines
from scripted import ScriptedNode, wait_for
from servers import Router, free_address
from test_logfile import children

GET = request("foo.com")


def worker(number: int, requests: int) -> dict[str, Any]:
    return {"id": number, "pid": 100 + number, "requests": requests, "active_sessions": 1, "status": "busy"}


def node(name: str, mark: int = 0) -> dict[str, Any]:
    return {"name": name, "requests": 4, "tx": 5, "rx": 6, "ref": 7, "failcnt": 8, "death_mark": mark}


def stats(*pools: dict[str, Any]) -> dict[str, Any]:
    return {
        "pid": 9, "active_sessions": 2, "waiting": 3, "queue": {"waiting": 4}, "complaints": {"no key": 5},
        "workers": [worker(1, 10), worker(2, 20)], "subscriptions": list(pools),
        "static_nodes": [{"name": "10.0.0.9:1", "hits": 1, "grace": 1700000000}, {"name": "b", "hits": 2, "grace": 0}],
    }  # fmt: skip


def test_all_of_a_small_router_is_shown() -> None:
    pool = {"key": "foo com", "hits": 3, "nodes": [node("10.0.0.5:3031"), node(":1", 1)]}
    assert lines(stats(pool)) == [
        "*** stats of uWSGI fastrouter (pid: 9) ***",
        "\tworkers total requests: 30",
        "\tactive sessions: 2 waiting: 3 queued: 4",
        "\tworker 1 (pid: 101) requests: 10 active sessions: 1 status: busy",
        "\tworker 2 (pid: 102) requests: 20 active sessions: 1 status: busy",
        "\tno key: 5",
        "\tstatic 10.0.0.9:1 hits: 1 (failed)",
        "\tstatic b hits: 2",
        "\tkey foo com hits: 3 nodes: 2",
        "\t\tnode 10.0.0.5:3031 requests: 4 tx: 5 rx: 6 in flight: 7 failures: 8",
        "\t\tnode :1 requests: 4 tx: 5 rx: 6 in flight: 7 failures: 8 (failed)",
        END,
    ]


@pytest.mark.parametrize("pools", [10, 5000])
def test_of_a_large_one_the_rest_is_counted(pools: int) -> None:
    many = [{"key": f"{number}.com", "hits": 0, "nodes": [node(":1")] * 100} for number in range(pools)]
    shown = lines(stats(*many))
    assert len(shown) == MOST_LINES + 2
    assert shown[-2:] == [f"\t({8 + pools * 101 - MOST_LINES} more lines)", END]


def test_the_signal_asks_for_it_and_many_of_them_for_few(caplog: pytest.LogCaptureFixture) -> None:
    with Router(processes=2) as router, ScriptedNode() as first:
        announce(router.subscriptions, "foo.com", first.address)
        router.wait_for_nodes("foo.com", 1)
        ask(router.address, GET)
        router.wait_idle()
        router.send_signal(signal.SIGUSR1)
        router.wait_line("workers total requests: 1")
        router.wait_line(f"node {first.address} requests: 1 ")
        router.wait_line(END)
        pids = children(router.pid)
        for _ in range(50):
            router.send_signal(signal.SIGUSR1)
            for pid in pids:
                for number in (signal.SIGUSR1, signal.SIGUSR2):  # as killall sends it to all
                    os.kill(pid, number)
        wait_for(lambda: router.lines.count(END) >= 2, "the next one")
        assert router.lines.count(END) <= 5
        assert children(router.pid) == pids
        assert router.stats()["pid"] == router.pid


@pytest.mark.slow
def test_one_that_comes_while_it_starts_anew_ends_nothing() -> None:
    with Router(address=free_address()) as router:
        router.send_signal(signal.SIGHUP)
        while not router.line("of before .* has ended"):
            router.send_signal(signal.SIGUSR1)
            time.sleep(0.01)
        assert router.stats()["pid"] == router.pid
