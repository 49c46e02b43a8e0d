"""uWSGI's own readers of the stats find what they look for in gfrouter's: what they look for, and how they read it.

- uwsgitop (0.12): lists what it takes from a worker, and here the real one is run, in a terminal of its own.
- contrib/uwsgisubscribers.ru of uWSGI: the one viewer of a fastrouter's stats in its contrib. The other one that reads
  stats, emperormon.ru, is about an emperor's vassals; uwsgi-cache-monitor.py reads a cache's file.
"""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from clients import announce, ask, request
from scripted import HELLO, ScriptedNode, connect, freeze, hang, wait_for
from servers import FASTROUTER, Router, free_address

pytestmark = pytest.mark.skipif(FASTROUTER, reason="the real fastrouter shows no workers, which uwsgitop draws")

GET = request("foo.com")
ASKED = 20
ODD_KEY = 'odd"\\é\udcff'
# What moves the cursor, colours and clears.
CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>78])|[\r\n\t\b\x0f]")
UWSGITOP = Path(sys.executable).with_name("uwsgitop")

# What uwsgitop takes without asking whether it is there, and as what its formats want it.
TOP = {"version": str, "cwd": str, "uid": int, "gid": int, "pid": int, "listen_queue": int, "workers": list}
WORKER = {
    **dict.fromkeys(["id", "pid", "requests", "exceptions", "signals", "avg_rt", "rss", "vsz", "tx"], int),
    **dict.fromkeys(["respawn_count", "harakiri_count", "running_time", "last_spawn"], int),
    "status": str,
    "cores": list,
}
CORE = {"id": int, "requests": int, "in_request": int}
# What uwsgisubscribers.ru takes.
POOL = {"key": str, "hits": int, "nodes": list}
NODE = {"name": str, "load": int, "requests": int, "last_check": int, "failcnt": int}


def read_as_uwsgitop(address: str) -> dict[str, Any]:
    """Pieces of 4,096 bytes, each decoded by itself with what is not UTF-8 left out; http:// by urllib."""
    if address.startswith("http://"):
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address, timeout=10) as response:
            text = response.read().decode("utf8", "ignore")
    else:
        text = ""
        with connect(address) as sock:
            while data := sock.recv(4096):
                text += data.decode("utf8", "ignore")
    found: dict[str, Any] = json.loads(text)
    return found


def read_as_subscribers_ru(address: str) -> dict[str, Any]:
    """All at once: JSON.parse(s.read())."""
    with connect(address) as sock, sock.makefile("rb") as file:
        found: dict[str, Any] = json.loads(file.read())
    return found


def assert_fields(found: dict[str, Any], wanted: Mapping[str, type]) -> None:
    assert {name: type(found.get(name)) for name in wanted} == wanted


class HttpRouter(Router):
    """With `stats-http`, where the suite's own helpers have to ask before they read."""

    def stats(self) -> dict[str, Any]:
        return read_as_uwsgitop(f"http://{self.stats_address}/")


@pytest.fixture(params=["tcp", "unix", "http"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Router, str]]:
    """A router of two processes after `ASKED` requests, and its stats' address as uwsgitop is told it."""
    bound = str(tmp_path / "stats.sock") if request.param == "unix" else free_address()
    over_http = request.param == "http"
    start = HttpRouter if over_http else Router
    with start(processes=2, stats=bound, stats_address=bound, stats_http=over_http) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address, load=3)
        announce(router.subscriptions, ODD_KEY, node.address)
        wait_for(lambda: len(router.stats()["subscriptions"]) == 2, "the nodes")
        for _ in range(ASKED):
            assert ask(router.address, GET) == HELLO
        router.wait_idle()
        yield router, f"http://{bound}/" if over_http else bound


def test_uwsgitop_finds_every_field_that_it_looks_for(served: tuple[Router, str]) -> None:
    router, address = served
    found = read_as_uwsgitop(address)
    assert_fields(found, TOP)
    assert "vassals" not in found, "or uwsgitop would take it for an emperor"
    assert {worker["id"]: worker["pid"] for worker in found["workers"]} == router.pids()
    for worker in found["workers"]:
        assert_fields(worker, WORKER)
        for core in worker["cores"]:
            assert_fields(core, CORE)


def test_what_uwsgitop_shows_is_true(served: tuple[Router, str]) -> None:
    workers = read_as_uwsgitop(served[1])["workers"]
    assert sum(worker["requests"] for worker in workers) == ASKED
    assert sum(core["requests"] for worker in workers for core in worker["cores"]) == ASKED
    assert sum(worker["tx"] for worker in workers) == ASKED * len(HELLO)
    for worker in workers:
        assert (worker["status"], worker["respawn_count"], worker["exceptions"]) == ("idle", 1, 0)
        assert time.time() - 60 < worker["last_spawn"] <= time.time()
        assert 5_000_000 < worker["rss"] < worker["vsz"]
        assert worker["running_time"] > 0


@pytest.mark.parametrize("served", ["tcp", "unix"], indirect=True)
def test_uwsgisubscribers_finds_every_field_that_it_looks_for(served: tuple[Router, str]) -> None:
    pools = {pool["key"]: pool for pool in read_as_subscribers_ru(served[1])["subscriptions"]}
    assert set(pools) == {"foo.com", ODD_KEY.replace("\udcff", "\ufffd")}
    for pool in pools.values():
        assert_fields(pool, POOL)
        for node in pool["nodes"]:
            assert_fields(node, NODE)
    (node,) = pools["foo.com"]["nodes"]
    assert (pools["foo.com"]["hits"], node["requests"], node["load"], node["failcnt"]) == (ASKED, ASKED, 3, 0)


def test_a_worker_is_busy_while_a_request_is_in_flight() -> None:
    with Router() as router, ScriptedNode(hang) as node, connect(router.address) as client:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        client.sendall(GET)
        wait_for(lambda: router.stats()["workers"][0]["status"] == "busy", "the worker to be busy")
        assert router.stats()["workers"][0]["cores"][0]["in_request"] == 1


def test_a_worker_is_cheap_while_no_node_is_known() -> None:
    with Router(cheap=True) as router:
        assert [(w["status"], w["accepting"]) for w in router.stats()["workers"]] == [("cheap", 0)]


@pytest.mark.parametrize("reuse_port", [False, True])
def test_what_no_router_accepts_is_in_the_listen_queue(reuse_port: bool) -> None:
    """Once, though both routers share a socket, and whole, though each has its own."""
    with Router(processes=2, reuse_port=reuse_port) as router:
        assert router.stats()["listen_queue"] == 0
        for pid in router.pids().values():
            freeze(pid)
        clients = [connect(router.address) for _ in range(5)]
        for client in clients:
            client.sendall(GET)
        wait_for(lambda: router.stats()["listen_queue"] == 5, "five that wait")
        for client in clients:
            client.close()


def test_a_worker_that_was_replaced_counts_on() -> None:
    with Router() as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        for _ in range(5):
            ask(router.address, GET)
        (before,) = router.stats()["workers"]
        os.kill(before["pid"], signal.SIGKILL)
        router.wait_line("respawned uWSGI fastrouter 1")
        ask(router.address, GET)
        (after,) = router.stats()["workers"]
        assert (before["requests"], before["respawn_count"]) == (5, 1)
        assert (after["requests"], after["delta_requests"], after["respawn_count"]) == (6, 1, 2)
        assert after["tx"] == 6 * len(HELLO)
        assert after["pid"] == router.pids()[1] != before["pid"]


class Terminal:
    """A program in a terminal of its own, 50 lines of 200 columns, and what it has written there."""

    def __init__(self, *argv: str | Path) -> None:
        self.master, theirs = pty.openpty()
        self.output = b""
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "LINES": "50", "COLUMNS": "200", "no_proxy": "127.0.0.1"},
        )
        os.close(theirs)

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def shows(self, pattern: str) -> bool:
        """Whether a screen so far had this, with blanks between its columns."""
        with contextlib.suppress(OSError):  # the program has ended
            while select.select([self.master], [], [], 0.01)[0]:
                self.output += os.read(self.master, 65536)
        return bool(re.search(pattern, CONTROL.sub(" ", self.output.decode("utf-8", "replace"))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        print(f"--- {self.process.args!r}, status {self.process.returncode}", self.output, sep="\n")


@pytest.mark.slow
def test_the_real_uwsgitop_draws_our_router_processes(served: tuple[Router, str]) -> None:
    router, address = served
    if not UWSGITOP.exists():
        pytest.skip("no uwsgitop beside this python (pip install uwsgitop)")
    requests = {worker["id"]: worker["requests"] for worker in router.stats()["workers"]}
    with Terminal(sys.executable, UWSGITOP, address) as terminal:
        wait_for(lambda: terminal.shows(rf"masterpid: {router.pid}\b"), "the supervisor")
        assert terminal.shows(rf" req: {ASKED} .* lq: 0 ")
        for slot, pid in router.pids().items():
            counts = rf"\b{slot} +[0-9.]+ +{pid} +{requests[slot]} +[0-9]+ +0 +0"
            assert terminal.shows(rf"{counts} +idle +0ms +[0-9.]+M +[0-9.]+M +[0-9.]+K? +1 +0 +[0-9.]+ +[0-9:]{{8}}")
        most = max(requests, key=lambda slot: requests[slot])  # a core without requests is left out
        terminal.press("a")  # each core in place of its worker
        wait_for(lambda: terminal.shows(rf"\b{most}:0 +[0-9.]+ +{router.pids()[most]} +{requests[most]} "), "its core")
        terminal.press("a")  # each core below its worker
        wait_for(lambda: terminal.shows(rf" :0 +[0-9.]+ +- +{requests[most]} "), "its core below it")
        terminal.press("q")
        wait_for(lambda: terminal.shows("") and terminal.process.poll() is not None, "its end")
        assert terminal.process.returncode == 0
