"""Starting anew in place (SIGHUP, SIGUSR2): clients notice nothing, and what is configured now takes effect."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from clients import announce, ask, request
from router.operate import drain
from scripted import HELLO, NodeConnection, ScriptedNode, answer, wait_for
from servers import Process, Router, free_address, router_command
from test_supervisor import children

GET = request("foo.com")
PAUSE = 0.3  # seconds between two requests of a client: the machine is to start routers meanwhile


def starts(router: Router) -> int:
    return sum("spawned uWSGI fastrouter 1 " in text for text in list(router.lines))


def start_anew(router: Router, number: signal.Signals = signal.SIGHUP) -> None:
    """Returns when there is a new router; those of before may be there, too."""
    before = starts(router)
    router.send_signal(number)
    wait_for(lambda: starts(router) > before, "the new start", 30)


def wait_until_alone(router: Router) -> None:
    wait_for(lambda: len(children(router.pid)) == 1, "the routers of before to end", 30)


@contextmanager
def load(addresses: list[str], clients: int) -> Iterator[list[object]]:
    """So many clients ask, one request after the other; what was no good answer comes into the list."""
    over = threading.Event()
    failed: list[object] = []
    done = [0] * clients

    def client(number: int) -> None:
        while not over.is_set():
            try:
                got: object = ask(addresses[number % len(addresses)], GET)
            except OSError as error:
                got = error
            done[number] += 1
            if got != HELLO:
                failed.append(got)
            over.wait(PAUSE)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert all(done)


@contextmanager
def announcing(server: str, key: str, address: str) -> Iterator[None]:
    over = threading.Event()

    def again() -> None:
        while not over.wait(0.2):
            with suppress(OSError):
                announce(server, key, address)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("cheap", "reloads", "upgrades"), [(False, 20, 5), (True, 2, 1)])
def test_no_get_fails(tmp_path: Path, cheap: bool, reloads: int, upgrades: int) -> None:
    tcp, unix = free_address(), str(tmp_path / "router.sock")
    with ScriptedNode(answer(HELLO)) as node, Router(address=tcp, listen=[tcp, unix], cheap=cheap) as router:
        inode = os.stat(unix).st_ino
        with announcing(router.subscriptions, "foo.com", node.address):
            router.wait_for_nodes("foo.com", 1)
            wait_for(lambda: ask(tcp, GET) == HELLO, "the first answer")
            start_anew(router)
            wait_until_alone(router)
            assert router.stats()["pid"] == router.pid  # it has one more from the first reader on
            idle = descriptors(router.pid)
            with load([tcp, unix], 64) as failed:
                for number in [signal.SIGHUP] * reloads + [signal.SIGUSR2] * upgrades:
                    start_anew(router, number)
                wait_until_alone(router)
            assert failed == []
        assert os.stat(unix).st_ino == inode
        assert router.stats()["pid"] == router.pid
        wait_for(lambda: descriptors(router.pid) <= idle, "no descriptor to be left behind")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
def test_what_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    path, new, address, server, stats = (
        str(tmp_path / "a.sock"),
        tmp_path / "b.sock",
        *(free_address() for _ in range(3)),
    )
    ini = tmp_path / "router.ini"
    with ScriptedNode(answer(HELLO)) as node, ScriptedNode() as other:
        good = f"[gfrouter]\nlisten = {address}\nsubscription-server = {server}\nstats = {stats}\nto = {node.address}\n"
        good += f"listen = {path}\nvacuum = yes\nwarm-timeout = 0\n"
        ini.write_text(good)
        with Router(ini=ini, address=address, subscriptions=server, stats_address=stats) as router:
            bad = {
                "timeout = soon\n": "timeout.*soon",
                "discovery = nowhere://x\n": "nowhere",
                f"error-pages = {tmp_path}/none\n": "error-pages: .*none",
                f"listen = {new}\nlisten = {other.address}\n": f"cannot bind .*{other.address}.*in use",
                f"subscription-server = {new}\nadmin = {node.address}\n": f"cannot bind .*{node.address}.*in use",
            }
            idle = 0
            for more, why in bad.items():
                ini.write_text(good + more)
                router.send_signal(signal.SIGHUP)
                router.wait_line(f"not starting anew, going on as before: gfrouter: .*{why}", timeout=30)
                idle = idle or descriptors(router.pid)
            wait_for(lambda: descriptors(router.pid) == idle, "the checks to leave nothing")
            assert starts(router) == 1
            assert ask(address, GET) == ask(path, GET) == HELLO
            assert not new.exists()
            ini.write_text(good)  # and from here it goes on
            start_anew(router)
            assert ask(address, GET) == ask(path, GET) == HELLO
        assert not other.connections


@pytest.mark.slow
def test_what_is_configured_now_takes_effect(tmp_path: Path) -> None:
    first, second, server, stats = (free_address() for _ in range(4))
    ini = tmp_path / "router.ini"
    with ScriptedNode(answer(HELLO)) as node:
        common = f"[gfrouter]\nsubscription-server = {server}\nstats = {stats}\nto = {node.address}\nlisten = {first}\n"
        common += "warm-timeout = 0\n"
        ini.write_text(common)
        with Router(ini=ini, address=first, subscriptions=server, stats_address=stats) as router:
            ini.write_text(common + f"listen = {second}\nprocesses = 2\n")
            router.send_signal(signal.SIGHUP)
            router.wait_line("spawned uWSGI fastrouter 2 ", timeout=30)
            wait_for(lambda: len(children(router.pid)) == 2, "two routers alone", 30)
            assert ask(first, GET) == ask(second, GET) == HELLO
            ini.write_text(common.replace(f"to = {node.address}\n", "").replace(first, second))
            router.send_signal(signal.SIGHUP)
            router.wait_line(f"no longer bound on {re.escape(first)}", timeout=30)
            wait_for(lambda: len(children(router.pid)) == 1, "one router alone", 30)
            with pytest.raises(ConnectionRefusedError):
                ask(first, GET)
            assert ask(second, GET) != HELLO


@pytest.mark.slow
def test_all_that_is_known_goes_over_also_where_two_signals_come_at_once() -> None:
    admin = free_address()
    options: dict[str, Any] = {"admin": admin, "processes": 2, "warm_timeout": 1}
    with ScriptedNode(answer(HELLO)) as node, ScriptedNode() as drained, Router(**options) as router:
        for one in (node, drained):
            announce(router.subscriptions, "foo.com", one.address)
        router.wait_for_nodes("foo.com", 2)
        assert drain([drained.address, "--admin", admin]) == 0
        router.wait_line("warming ended")
        before = starts(router)
        for _ in range(2):
            router.send_signal(signal.SIGHUP)
            router.send_signal(signal.SIGUSR2)
            wait_for(lambda: "starting anew" in router.lines[-1] or starts(router) > before, "the new start to begin")
        wait_for(lambda: starts(router) >= before + 2 and len(children(router.pid)) == 2, "the second start", 30)
        assert [ask(router.address, GET) for _ in range(10)] == [HELLO] * 10
        assert not drained.connections
        assert not any("new node" in line for line in router.lines[-10:]), "nobody announces anything"
        assert sum(line.startswith("warming: ") for line in router.lines) == 1, "that was over"


@pytest.mark.slow
def test_a_stop_that_comes_with_it_is_a_stop() -> None:
    for pause in (0, 0.5, 1.0):
        with Router() as router:
            router.send_signal(signal.SIGHUP)
            time.sleep(pause)
            router.send_signal(signal.SIGTERM)
            assert router.wait(30) == 0
            assert children(router.pid) == {}


@pytest.mark.slow
def test_what_is_in_flight_ends_well() -> None:
    released = threading.Event()

    def late(connection: NodeConnection) -> None:
        connection.read_head()
        released.wait(20)
        connection.send(HELLO)

    with ScriptedNode(late) as node, Router(to=node.address) as router:
        answers: list[bytes] = []
        client = threading.Thread(target=lambda: answers.append(ask(router.address, GET)))
        client.start()
        wait_for(lambda: node.connections, "the node to be asked")
        for _ in range(2):  # also over one more start
            before = starts(router)
            router.send_signal(signal.SIGHUP)
            wait_for(lambda before=before: starts(router) > before, "the new start", 30)  # type: ignore[misc]
        released.set()
        client.join()
        assert answers == [HELLO]
        wait_for(lambda: len(children(router.pid)) == 1, "the routers of before to end")


def test_check_says_what_is_wrong() -> None:
    with Process(*router_command(False), "--check", "--listen", "127.0.0.1:0") as process:
        assert process.wait() == 0
    with Process(*router_command(False), "--check", "--discovery", "nowhere://x") as process:
        process.wait_line("^gfrouter: .*nowhere")
        assert process.wait() == 1
