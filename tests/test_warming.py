"""Warming: for a while after the start a request for a key that nobody has named yet waits, and is served if it may."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clients import announce, ask, get, post, read_to_end, request
from one_router import OneRouter, asking, forgets_who_leaves, health, refused_address, waits
from router.node import Node
from router.pair import encode, pack_node
from router.waiting import SERVES
from scripted import HELLO, ScriptedNode, answer, connect, freeze, wait_for
from servers import Nginx, Router, Worker, better, needs_nginx
from told import Told

GET = request("foo.com")
LONG = 60  # seconds of warming that no test waits for
MIB = 1 << 20


# One router.


@pytest.mark.parametrize("place", ["tcp", "unix"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_for_an_unknown_key_waits_until_it_is_known(place: str, method: str, tmp_path: Path) -> None:
    body = os.urandom(3000) if method == "POST" else b""
    head = request("foo.com", "/x", method, len(body))
    address = "127.0.0.1:0" if place == "tcp" else str(tmp_path / "router.sock")
    with OneRouter(address) as router, ScriptedNode(answer(HELLO, body=len(body))) as node:
        router.table({}, warming=LONG)
        with asking(router, head + body) as (client,):
            assert router.counts()["active"] == 1
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(client) == HELLO
        counts = router.wait_idle()
        assert bytes(node.connections[0].received) == head + body
        assert (counts["waiting"], counts["complaints"], counts["pools"]["foo.com"][0]) == (0, {}, 1)


def test_a_body_that_comes_while_its_request_waits_arrives_whole_and_stays_in_the_kernel() -> None:
    body = os.urandom(20 * MIB)
    with OneRouter() as router, ScriptedNode(answer(body=len(body))) as node, ThreadPoolExecutor() as pool:
        router.table({}, warming=LONG)
        with asking(router, request("foo.com", method="POST", length=len(body))) as (client,):
            before = router.memory()
            client.settimeout(0.2)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < len(body):
                    sent += client.send(body[sent : sent + MIB])
            assert 0 < sent < len(body), "it waits for somebody to read it"
            assert router.memory() - before < MIB
            client.settimeout(20)
            rest = pool.submit(client.sendall, body[sent:])
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(client) == HELLO
            rest.result()
        assert node.connections[0].body == body


def test_a_head_of_many_pieces_and_bytes_behind_it_wait_as_well() -> None:
    with OneRouter() as router, ScriptedNode(answer(body=5)) as node:
        router.table({}, warming=LONG)
        with connect(router.address) as client:
            head = request("foo.com", method="POST", length=5)
            client.sendall(head[:50])
            wait_for(lambda: router.counts()["active"], "the session")
            client.sendall(head[50:] + b"ab")
            waits(router)
            client.sendall(b"cde")
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(client) == HELLO
        assert node.connections[0].body == b"abcde"


def test_no_request_waits_longer_than_its_time_limit() -> None:
    with OneRouter(timeout=1) as router:
        router.table({}, warming=LONG)
        assert ask(router.address, GET) == b""
        assert router.wait_idle()["complaints"] == {"timeout": 1}


def test_known_keys_are_served_and_dead_ones_refused_meanwhile() -> None:
    dead = refused_address()
    with OneRouter() as router, ScriptedNode() as node:
        router.table({"bar.com": [Node(node.address)], "dead.com": [Node(dead)]}, out=[dead], warming=LONG)
        with asking(router, GET):
            assert ask(router.address, request("bar.com")) == HELLO
            assert ask(router.address, request("dead.com")) == b""
            assert router.counts()["complaints"] == {"no node": 1}


def test_a_key_whose_only_node_is_out_of_turn_is_known() -> None:
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, GET) as (client,):
            router.tell(set=[["foo.com", [pack_node(Node(node.address))], []]], out=[health(node.address)])
            assert read_to_end(client) == b""
        assert router.wait_idle()["complaints"] == {"no node": 1}


def test_a_node_that_refuses_one_that_waited_is_left_for_another() -> None:
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, GET) as (client,):
            router.set("foo.com", [Node(refused_address()), Node(node.address, backup=1)])
            assert read_to_end(client) == HELLO


def test_many_that_wait_for_one_key_are_all_served() -> None:
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, *[GET] * (10 * SERVES + 1)) as clients:
            router.set("foo.com", [Node(node.address)])
            assert [read_to_end(client) for client in clients] == [HELLO] * len(clients)
        assert router.wait_idle()["pools"]["foo.com"][0] == len(clients)


def test_a_key_that_was_known_for_a_moment_only_is_waited_for_again() -> None:
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, GET) as (client,):
            known = encode({"set": [["foo.com", [pack_node(Node(node.address))], []]]})
            router.pair.sendall(known + encode({"set": [["foo.com", [], [node.address]]]}))
            waits(router)
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(client) == HELLO


@pytest.mark.slow
def test_it_ends_by_itself_while_the_supervisor_is_silent(tmp_path: Path) -> None:
    with OneRouter(log=tmp_path / "log") as router, ScriptedNode() as node:
        began = time.monotonic()
        router.table({}, warming=1.5)
        with asking(router, GET, request("bar.com"), request("bar.com")) as (served, *refused):
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(served) == HELLO
            assert [read_to_end(client) for client in refused] == [b"", b""]
            assert time.monotonic() - began >= 1.5
        assert ask(router.address, request("bar.com")) == b""
        assert router.wait_idle()["complaints"] == {"unknown key": 3}
        (line,) = router.log
        ended = re.fullmatch(r"\[uWSGI fastrouter pid (\d+)\] warming ended after (\S+) s: (.*)", line)
        assert ended and int(ended[1]) == router.process.pid and float(ended[2]) >= 1.5
        assert ended[3] == "3 requests waited, 1 found their node"


def test_it_ends_when_the_supervisor_says_so(tmp_path: Path) -> None:
    """What the same message names is served; the rest is refused, then and later."""
    with OneRouter(log=tmp_path / "log") as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, GET, request("bar.com")) as (named, unknown):
            router.tell(set=[["foo.com", [pack_node(Node(node.address))], []]], warming=0)
            assert read_to_end(named) == HELLO
            assert read_to_end(unknown) == b""
        assert ask(router.address, request("bar.com")) == b""
        router.tell(warming=0)
        assert router.wait_idle()["complaints"] == {"unknown key": 2}
        assert len(router.log) == 1


def test_a_router_that_is_not_warming_refuses_at_once_and_says_nothing(tmp_path: Path) -> None:
    with OneRouter(log=tmp_path / "log") as router:
        router.table({}, warming=0)
        assert ask(router.address, GET) == b""
        assert router.wait_idle()["complaints"] == {"unknown key": 1}
        assert router.log == []


@pytest.mark.parametrize("leave", [lambda client: client.close(), lambda client: client.shutdown(socket.SHUT_WR)])
def test_a_client_that_leaves_while_it_waits_is_forgotten(leave: Any) -> None:
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        forgets_who_leaves(router, node, leave)


def test_a_client_that_resets_or_leaves_between_call_and_turn_is_forgotten() -> None:
    """The word and the resets are there in the same moment, in either order."""
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, *[GET] * (3 * SERVES)) as clients:
            freeze(router.process.pid)
            for client in clients[::2]:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            router.tell(set=[["foo.com", [pack_node(Node(node.address))], []]])
            os.kill(router.process.pid, signal.SIGCONT)
            assert [read_to_end(client) for client in clients[1::2]] == [HELLO] * (len(clients) // 2)
        assert router.wait_idle()["waiting"] == 0


def test_no_more_wait_than_half_of_what_the_router_can_take(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
    try:
        router = OneRouter()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with router, ScriptedNode() as node:
        router.table({"bar.com": [Node(node.address)]}, warming=LONG)
        with asking(router, *[GET] * 12) as (one, *others):
            assert [ask(router.address, GET) for _ in range(3)] == [b""] * 3
            assert ask(router.address, request("bar.com")) == HELLO
            assert router.counts()["complaints"] == {"waiting room full": 3}
            one.close()
            waits(router, 11)
            with asking(router, GET) as (late,):
                router.set("foo.com", [Node(node.address)])
                assert [read_to_end(client) for client in (*others, late)] == [HELLO] * 12
        router.wait_idle()


@pytest.mark.parametrize("how", ["told", "supervisor gone"])
def test_a_stop_refuses_those_that_wait_at_once(how: str) -> None:
    with OneRouter(drain_timeout=LONG) as router:
        router.table({}, warming=LONG)
        with asking(router, GET) as (client,):
            if how == "told":
                router.tell(stop=True)
            else:
                router.pair.shutdown(socket.SHUT_RDWR)
            assert read_to_end(client) == b""
            assert router.process.wait(10) == 0


def test_a_stop_takes_in_the_backlog_and_lets_nobody_wait() -> None:
    with OneRouter(drain_timeout=LONG) as router, ScriptedNode() as node:
        router.table({"bar.com": [Node(node.address)]}, warming=LONG)
        with asking(router):
            freeze(router.process.pid)
            with connect(router.address) as unknown, connect(router.address) as known:
                unknown.sendall(GET)
                known.sendall(request("bar.com"))
                router.tell(stop=True)
                os.kill(router.process.pid, signal.SIGCONT)
                assert (read_to_end(unknown), read_to_end(known)) == (b"", HELLO)
        assert router.process.wait(10) == 0


def test_a_cheap_router_that_knows_a_node_lets_other_keys_wait() -> None:
    with OneRouter(cheap=True) as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        router.set("bar.com", [Node(node.address)])
        with asking(router, GET) as (client,):
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(client) == HELLO


def test_whatever_clients_and_keys_do_nothing_is_left_in_the_end() -> None:
    chance = random.Random(7)
    keys = [f"{number}.com" for number in range(6)]
    with OneRouter() as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        before = router.descriptors()
        known: set[str] = set()
        clients: list[tuple[str, socket.socket]] = []
        for _ in range(300):
            key = chance.choice(keys)
            action = chance.random()
            if action < 0.6:
                clients.append((key, connect(router.address)))
                clients[-1][1].sendall(request(key))
            elif action < 0.8 and clients:
                clients.pop(chance.randrange(len(clients)))[1].close()
            elif key in known:
                known.discard(key)
                router.set(key, [], left=[node.address])
            elif len(known) < 2:
                known.add(key)
                router.set(key, [Node(node.address)])
        assert router.counts()["waiting"] > 0
        for key in keys[:3]:
            router.set(key, [Node(node.address)])
        for key, client in clients:
            if key in keys[:3]:
                assert read_to_end(client) == HELLO
        router.tell(warming=0)
        for _, client in clients:
            assert read_to_end(client) in (b"", HELLO)
            client.close()
        counts = router.wait_idle()
        assert (counts["active"], counts["waiting"]) == (0, 0)
        assert router.descriptors() == before


# The supervisor.


def test_warming_is_told_in_log_and_stats_and_ends_when_every_source_has_spoken() -> None:
    with Told(2, warm_timeout=LONG) as told, ScriptedNode() as node, connect(told.address) as client:
        told.wait_line(r"^warming: requests for unknown keys wait for told-0, told-1, up to 60 s$")
        client.sendall(GET)
        told.waits(1)
        assert 0 < told.stats()["warming"] <= LONG
        told.say(0, "replace", {})
        told.say(0, "replace", {})
        told.say(1, "announce", "bar.com", node.address)
        told.say(1, "set", "bar.com", [node.address])
        told.say(1, "withdraw", "bar.com", node.address)
        told.say(1, "fail", "cannot see")
        assert told.stats()["warming"] > 0, "one that has not given all that it sees has not spoken"
        told.waits(1)
        told.say(1, "replace", {"foo.com": [node.address]})
        assert read_to_end(client) == HELLO
        told.wait_line(r"\] warming ended after \d+\.\d s: 1 requests waited, 1 found their node$")
        assert ask(told.address, request("bar.com")) == b""
        assert (told.stats()["warming"], told.stats()["waiting"]) == (0, 0)
        assert told.stats()["complaints"] == {"unknown key": 1}


@pytest.mark.slow
def test_one_that_has_not_spoken_is_waited_for_no_longer_than_warm_timeout() -> None:
    with Told(1, warm_timeout=4) as told, connect(told.address) as client:
        client.sendall(GET)
        told.waits(1)
        assert read_to_end(client) == b""
        told.wait_line(r"\] warming ended after \d+\.\d s: 1 requests waited, 0 found their node$")
        wait_for(lambda: told.stats()["warming"] == 0, "the end in the stats")


@pytest.mark.parametrize(("sources", "seconds"), [(0, LONG), (1, 0)])
@pytest.mark.slow
def test_without_sources_or_with_0_nobody_waits(sources: int, seconds: int) -> None:
    with Told(sources, warm_timeout=seconds) as told:
        assert ask(told.address, GET) == b""
        assert told.stats()["warming"] == 0
        assert told.stats()["complaints"] == {"unknown key": 1}
        assert not told.line("warming")


@pytest.mark.slow
def test_a_respawned_router_warms_as_long_as_is_left() -> None:
    with Told(1, warm_timeout=LONG) as told, ScriptedNode() as node, ThreadPoolExecutor() as pool:
        pid = told.wait_line(r"^spawned uWSGI fastrouter 1 \(pid: (\d+)\)")[1]
        with connect(told.address) as lost:
            lost.sendall(GET)
            told.waits(1)
            os.kill(int(pid), signal.SIGKILL)
            assert read_to_end(lost) == b""
        told.wait_line("^respawned uWSGI fastrouter 1 ")
        asked = pool.submit(ask, told.address, GET)
        told.waits(1)
        told.say(0, "replace", {"foo.com": [node.address]})
        assert asked.result() == HELLO
        pid = told.wait_line(r"^respawned uWSGI fastrouter 1 \(pid: (\d+)\)")[1]
        os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: len([line for line in told.lines if line.startswith("respawned")]) == 2, "the third")
        assert ask(told.address, request("bar.com")) == b""


@pytest.mark.slow
def test_routers_end_it_by_themselves_while_the_supervisor_is_frozen() -> None:
    with Told(1, warm_timeout=4) as told, connect(told.address) as client:
        client.sendall(GET)
        told.waits(1)
        told.send_signal(signal.SIGSTOP)
        try:
            assert read_to_end(client) == b""
            told.wait_line(r"\] warming ended after \d+\.\d s: 1 requests waited, 0 found their node$")
        finally:
            told.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_stop_ends_those_that_wait_at_once(number: signal.Signals) -> None:
    with Told(1, warm_timeout=LONG, drain_timeout=LONG) as told, connect(told.address) as client:
        client.sendall(GET)
        told.waits(1)
        told.send_signal(number)
        assert read_to_end(client) == b""
        assert told.wait() == 0


# A restart under workers that run.


@needs_nginx
@better("an empty reply until the worker announces itself again")
@pytest.mark.slow
def test_after_a_restart_a_request_waits_for_its_worker_to_announce_itself() -> None:
    with Router(warm_timeout=LONG) as first, ScriptedNode() as node, Nginx(first.address) as nginx:
        announce(first.subscriptions, "foo.com", node.address)
        first.wait_for_nodes("foo.com", 1)
        assert get(nginx.port).body == b"hello"
        first.kill()
        with Router(**addresses(first), warm_timeout=LONG) as again, ThreadPoolExecutor() as pool:
            asked = [pool.submit(get, nginx.port), pool.submit(post, nginx.port, "/", b"x" * 100_000)]
            wait_for(lambda: again.stats()["waiting"] == 2, "both to wait")
            announce(again.subscriptions, "foo.com", node.address)
            assert [each.result().status for each in asked] == [200, 200]
            again.wait_idle()
            assert again.stats()["complaints"] == {}


@needs_nginx
@pytest.mark.slow
@better("an empty reply until the worker announces itself again")
def test_after_a_crash_under_a_real_worker_no_request_fails() -> None:
    """A worker announces itself at its start, a second later, and each 10 s: what is asked at once waits for that."""
    with Router() as first, Worker(first.subscriptions, name="one") as worker, Nginx(first.address) as nginx:
        heard = first.wait_for_nodes("foo.com", 1)[worker.address]["last_check"]
        wait_for(lambda: first.nodes("foo.com")[worker.address]["last_check"] > heard, "its second word")
        first.kill()
        with Router(**addresses(first), warm_timeout=20) as again, ThreadPoolExecutor() as pool:
            asked = [pool.submit(get, nginx.port), pool.submit(post, nginx.port, "/echo", b"x" * 100_000)]
            assert [(each.result().status, each.result().worker) for each in asked] == [(200, "one")] * 2
            again.wait_idle()


def addresses(router: Router) -> dict[str, Any]:
    """Those of `router`, for the one that comes after it."""
    return {
        "address": router.address,
        "subscriptions": router.subscriptions,
        "stats_address": router.stats_address,
    }
