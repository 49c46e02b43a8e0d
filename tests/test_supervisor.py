"""The process model, seen from outside: what is started, what is replaced, what is left when something ends."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import announce, ask, read_to_end, request, withdraw
from one_router import refused_address
from router.ask import ask as ask_admin
from router.fleet import RESPAWN_DELAYS
from scripted import HELLO, NodeConnection, ScriptedNode, answer, close_after_head, connect, freeze, hang, wait_for
from servers import Process, Router, free_address

GET = request("foo.com")
FREE = ("--listen", "127.0.0.1:0", "--subscription-server", "127.0.0.1:0")


def children(pid: int) -> dict[int, str]:
    """The state (`S`, `Z`, ...) of each child of `pid`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
                if int(parent) == pid:
                    found[int(entry.name)] = state
    return found


@pytest.mark.slow
def test_with_no_option_at_all_it_says_where_it_listens() -> None:
    """Its default ports may be taken on this machine; what it says is the same."""
    with Process(sys.executable, "-m", "router") as process:
        process.wait_line(r"^no address given, listening on 127\.0\.0\.1:3031$")
        process.wait_line(r"^no source of nodes given, taking subscriptions on 127\.0\.0\.1:2626$")


def test_a_source_that_takes_announcements_is_a_source_that_was_given() -> None:
    words = ["--listen", free_address(), "--admin", "off", "--discovery", f"udp://{free_address()}"]
    with Process(sys.executable, "-m", "router", *words) as process:
        process.wait_line("^spawned uWSGI fastrouter 1 ")
        assert not process.line("no source of nodes given")


def test_the_log_of_a_start_is_uwsgis() -> None:
    with Router() as router:
        assert router.line(r"^uWSGI fastrouter bound on 127\.0\.0\.1:\d+ fd \d+$")
        assert router.line(r"^uWSGI fastrouter subscription server bound on 127\.0\.0\.1:\d+ fd \d+$")
        assert router.line(r"^\*\*\* fastrouter stats server enabled on 127\.0\.0\.1:\d+ fd: \d+ \*\*\*$")
        assert router.line(rf"^spawned uWSGI master process \(pid: {router.pid}\)$")
        assert router.line(r"^spawned uWSGI fastrouter 1 \(pid: \d+\)$")


def test_port_0_is_the_real_port_in_log_and_stats() -> None:
    stats = free_address()
    with Router(listen="127.0.0.1:0", subscription_server="127.0.0.1:0", stats=stats, stats_address=stats) as router:
        address = router.wait_line(r"fastrouter bound on (127\.0\.0\.1:\d+) ")[1]
        server = router.wait_line(r"subscription server bound on (127\.0\.0\.1:\d+) ")[1]
        assert router.stats()["fastrouter"] == [address, server]
        with ScriptedNode() as node:
            announce(server, "foo.com", node.address)
            router.wait_for_nodes("foo.com", 1)
            assert ask(address, GET) == HELLO


def test_several_addresses_tcp_and_unix_and_shared_are_one_router(tmp_path: Path) -> None:
    stats, tcp, shared, path = free_address(), free_address(), free_address(), str(tmp_path / "router.sock")
    words = ["--shared-socket", shared, "--listen", tcp, "--listen", path, "--listen", "=0", "--listen", "=0"]
    with Router(*words, stats=stats, stats_address=stats, listen="127.*:0") as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        any_local = router.wait_line(r"fastrouter bound on (127\.0\.0\.1:\d+) ")
        assert any_local
        assert set(router.stats()["fastrouter"]) >= {tcp, path, shared, router.subscriptions}
        for address in (tcp, path, shared):
            assert ask(address, GET) == HELLO


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with Router() as router:
            for pid in (router.pid, router.pids()[1]):
                assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_a_router_that_dies_again_and_again_is_replaced_again_and_again() -> None:
    with Router() as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        seen: set[int] = set()
        for _ in range(3):
            pid = router.pids()[1]
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
            router.wait_line(rf"fastrouter 1 \(pid: {pid}\) ended with status -9")
            wait_for(lambda: router.pids()[1] not in seen, "the next one", timeout=5 + 2 * max(RESPAWN_DELAYS))
        assert len(seen) == 3
        assert ask(router.address, GET) == HELLO
        assert list(children(router.pid)) == [router.pids()[1]]


def test_what_a_dead_router_had_counted_is_kept_when_it_had_told() -> None:
    with Router() as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        for _ in range(7):
            ask(router.address, GET)
        ask(router.address, request("nobody.com"))
        assert router.pool("foo.com")["hits"] == 7
        os.kill(router.pids()[1], signal.SIGKILL)
        router.wait_line("respawned uWSGI fastrouter 1")
        ask(router.address, GET)
        pool = router.pool("foo.com")
        assert (pool["hits"], pool["nodes"][0]["requests"], pool["nodes"][0]["ref"]) == (8, 8, 0)
        assert router.stats()["complaints"] == {"unknown key": 1}


def test_an_ejection_by_one_router_is_known_to_the_others_and_its_end_as_well() -> None:
    admin = free_address()
    with Router(processes=2, admin=admin, gracetime=3) as router, ScriptedNode() as node:
        with ScriptedNode(*[close_after_head] * 5, answer(HELLO)) as broken:
            for address in (broken.address, node.address):
                announce(router.subscriptions, "foo.com", address)
            router.wait_for_nodes("foo.com", 2)
            first, second = router.pids().values()
            freeze(second)
            for _ in range(10):
                assert ask(router.address, GET) == HELLO
            (out,) = wait_for(lambda: ask_admin(admin, "nodes", {"state": "out"})["nodes"], "the ejection")
            assert (out["address"], out["cause"]) == (broken.address, "broken")
            os.kill(second, signal.SIGCONT)
            router.settle()  # or it would ask the node without knowing that it is out
            wait_for(lambda: ask(router.address, GET) and len(broken.connections) == 6, "its trial")

            def live() -> bool:
                return len(ask_admin(admin, "nodes", {"state": "live"})["nodes"]) == 2

            wait_for(live, "it to be back for all")
            for frozen in (first, second):
                freeze(frozen)
                before = len(broken.connections)
                assert [ask(router.address, GET) for _ in range(6)] == [HELLO] * 6
                assert len(broken.connections) == before + 3
                os.kill(frozen, signal.SIGCONT)


def test_a_failure_in_one_router_is_known_to_the_others_and_to_the_stats() -> None:
    dead = refused_address()
    with Router(processes=2) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", dead)
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 2)
        wait_for(lambda: ask(router.address, GET) and len(router.nodes("foo.com")) == 1, "the mark")
        first, second = router.pids().values()
        for frozen in (first, second):
            freeze(frozen)
            try:
                assert [ask(router.address, GET) for _ in range(6)] == [HELLO] * 6
            finally:
                os.kill(frozen, signal.SIGCONT)
        failures = sum(n["failcnt"] for n in router.pool("foo.com")["nodes"] if n["name"] == dead)
        assert failures <= 2, "one a process at most, where both asked it in the same moment"
        with ScriptedNode(address=dead) as back:
            announce(router.subscriptions, "foo.com", dead)
            router.wait_for_nodes("foo.com", 2)
            wait_for(lambda: ask(router.address, GET) and back.connections, "its turn")


@pytest.mark.slow
def test_a_frozen_router_delays_the_stats_by_little_and_loses_nothing() -> None:
    with Router(processes=2) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        for _ in range(10):
            ask(router.address, GET)
        assert router.pool("foo.com")["hits"] == 10
        frozen = router.pids()[1]
        freeze(frozen)
        assert router.pool("foo.com")["hits"] == 10, "as it last told"
        for number in range(200):
            announce(router.subscriptions, f"{number}.com", node.address)
            withdraw(router.subscriptions, f"{number}.com", node.address)
        announce(router.subscriptions, "last.com", node.address)
        os.kill(frozen, signal.SIGCONT)
        freeze(router.pids()[2])
        wait_for(lambda: ask(router.address, request("last.com")) == HELLO, "the frozen one to learn what it missed")
        os.kill(router.pids()[2], signal.SIGCONT)


@pytest.mark.slow
def test_many_readers_of_the_stats_that_do_not_read_stall_nobody() -> None:
    with Router() as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        for number in range(2000):
            announce(router.subscriptions, f"{number}.example.com", node.address)
        wait_for(lambda: len(router.stats()["subscriptions"]) == 2001, "all keys")
        idle = [connect(router.stats_address) for _ in range(20)]
        assert len(router.stats()["subscriptions"]) == 2001
        assert ask(router.address, GET) == HELLO
        for client in idle:
            client.close()


@pytest.mark.slow
def test_a_stop_waits_for_what_is_in_flight_no_longer_than_drain_timeout() -> None:
    with Router(drain_timeout=1) as router, ScriptedNode(hang) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        with connect(router.address) as client:
            client.sendall(GET)
            wait_for(lambda: node.connections, "the node to be asked")
            assert router.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_router_that_is_frozen_at_the_stop_is_killed() -> None:
    with Router(drain_timeout=1) as router:
        frozen = router.pids()[1]
        freeze(frozen)
        assert router.stop(signal.SIGTERM) == 0
        assert not Path(f"/proc/{frozen}").exists()


@pytest.mark.slow
def test_a_stop_after_sighup_is_a_stop() -> None:
    with Router(drain_timeout=2) as router, ScriptedNode(hang) as node, in_flight(router, node):
        router.send_signal(signal.SIGHUP)
        router.wait_line("starting anew")
        router.send_signal(signal.SIGTERM)
        assert router.wait() == 0


@pytest.mark.slow
def test_sighup_while_stopping_cuts_nothing() -> None:
    def late(connection: NodeConnection) -> None:
        connection.read_head()
        time.sleep(0.5)
        connection.send(HELLO)

    with Router() as router, ScriptedNode(late) as node, in_flight(router, node) as client:
        router.send_signal(signal.SIGTERM)
        router.wait_line("stopping after what is in flight")
        router.send_signal(signal.SIGHUP)
        assert read_to_end(client) == HELLO
        assert router.wait() == 0


def test_a_signal_that_tools_send_to_a_uwsgi_master_does_not_end_it() -> None:
    with Router() as router:
        router.send_signal(signal.SIGUSR1)
        assert router.stats()["pid"] == router.pid


@pytest.mark.slow
def test_the_terminals_ctrl_c_while_routers_start_is_the_supervisors_alone() -> None:
    """It goes to the whole group, also to routers that Python is still starting."""
    for _ in range(4):
        with Process(sys.executable, "-m", "router", *FREE) as process:
            process.wait_line("^spawned uWSGI fastrouter 1 ")
            process.send_signal_to_all(signal.SIGINT)
            assert process.wait() == 0
            assert not process.line("Traceback|KeyboardInterrupt")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_standard_descriptors_that_came_closed_are_not_taken_by_sockets(closed: str, tmp_path: Path) -> None:
    address, server = free_address(), free_address()
    words = ["--listen", address, "--subscription-server", server, "--warm-timeout", "0"]
    command = [sys.executable, "-P", "-m", "router", *words]
    with Process("sh", "-c", f'exec "$@" {closed}', "sh", *command), ScriptedNode() as node:

        def served() -> bool:
            with contextlib.suppress(OSError):
                announce(server, "foo.com", node.address)
                return ask(address, GET) == HELLO
            return False

        wait_for(served, "an answer")


@pytest.mark.slow
def test_a_router_that_cannot_be_started_is_started_later(tmp_path: Path) -> None:
    """As while the interpreter is replaced: the wrapper that stands for it is away for a moment."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    code = "import sys; sys.executable = sys.argv.pop(1); from router.__main__ import run; run()"
    address, server = free_address(), free_address()
    words = ["--listen", address, "--subscription-server", server]
    with Process(sys.executable, "-c", code, python, *words) as process, ScriptedNode() as node:
        first = process.wait_line(r"^spawned uWSGI fastrouter 1 \(pid: (\d+)\)")[1]
        announce(server, "foo.com", node.address)
        wait_for(lambda: ask(address, GET) == HELLO, "the first one to serve")
        python.rename(tmp_path / "away")
        os.kill(int(first), signal.SIGKILL)
        process.wait_line("^cannot start uWSGI fastrouter 1: ")
        (tmp_path / "away").rename(python)
        process.wait_line("^respawned uWSGI fastrouter 1 ")
        assert ask(address, GET) == HELLO


@pytest.mark.slow
def test_stats_are_told_though_the_working_directory_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    with Router(cwd=folder) as router:
        folder.rmdir()
        assert router.stats()["cwd"] == str(folder)
        router.send_signal(signal.SIGHUP)
        wait_for(lambda: len([text for text in router.lines if "stats server enabled" in text]) == 2, "the new start")
        assert router.stats()["cwd"] == ""


@contextlib.contextmanager
def in_flight(router: Router, node: ScriptedNode) -> Iterator[socket.socket]:
    """A request that its node has got and not answered."""
    announce(router.subscriptions, "foo.com", node.address)
    router.wait_for_nodes("foo.com", 1)
    with connect(router.address) as client:
        client.sendall(GET)
        wait_for(lambda: node.connections, "the node to be asked")
        yield client


def _subscribed(router: Router, address: str) -> bool:
    announce(router.subscriptions, "foo.com", address)
    with contextlib.suppress(OSError, ValueError):
        return len(router.nodes("foo.com")) == 1
    return False


def test_a_folder_with_a_router_py_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "router.py").write_text("raise SystemExit('this is not gfrouter')\n")
    with Router(cwd=tmp_path) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == HELLO


def _can_unshare() -> bool:
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    return subprocess.run(["unshare", "-fp", "--mount-proc", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="needs util-linux and the right to make a PID namespace")
@pytest.mark.slow
def test_as_pid_1_it_reaps_orphans_and_logs_to_stdout() -> None:
    command = [sys.executable, "-P", "-m", "router", *FREE]
    unshare = subprocess.Popen(
        ["unshare", "-fp", "--mount-proc", "--kill-child", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: any(len(children(pid)) == 1 for pid in children(unshare.pid)), "the router process")
        (init,) = children(unshare.pid)
        orphans = ["nsenter", "-t", str(init), "-p", "sh", "-c", "sleep 2 & sleep 2 & sleep 2 & exit 0"]
        subprocess.run(orphans, check=True)
        wait_for(lambda: len(children(init)) > 1, "the orphans to be its children")
        wait_for(lambda: len(children(init)) == 1, "the orphans to be reaped")
        os.kill(init, signal.SIGTERM)
        out, err = unshare.communicate(timeout=10)
    finally:
        unshare.kill()
        unshare.wait()
    assert unshare.returncode == 0
    assert "spawned uWSGI master process (pid: 1)" in out
    assert "spawned uWSGI fastrouter 1 (pid: " in out
    assert err == ""


@pytest.mark.slow
@pytest.mark.long
def test_a_supervisor_that_was_stopped_for_20_seconds_loses_nobody() -> None:
    with Router(subscription_tolerance=17) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        router.send_signal(signal.SIGSTOP)
        time.sleep(20)
        router.send_signal(signal.SIGCONT)
        time.sleep(2.2)  # two sweeps
        assert list(router.nodes("foo.com")) == [node.address]
        assert ask(router.address, GET) == HELLO


@pytest.mark.slow
def test_a_supervisor_that_was_stopped_longer_than_the_tolerance_loses_nobody() -> None:
    with Router(subscription_tolerance=3) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        announce(router.subscriptions, "foo.com", node.address)
        router.send_signal(signal.SIGSTOP)
        time.sleep(5)
        awake = time.monotonic()
        router.send_signal(signal.SIGCONT)
        router.wait_line(rf"foo\.com => marking {node.address} as failed \(no announce received in 3 seconds\)")
        assert time.monotonic() - awake > 1.5  # the time that it slept through does not count as silence
        wait_for(lambda: ask(router.address, GET) == b"", "the router to hear of it")
