"""The data plane of one router process, against nodes that answer by script and clients that misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import ask, packet, read_to_end, request
from one_router import OneRouter, health, refused_address
from router.node import Node
from scripted import (
    HELLO,
    Blackhole,
    NodeConnection,
    Script,
    ScriptedNode,
    answer,
    answer_early,
    answer_slowly,
    answer_then_reset,
    close_after_head,
    close_at_once,
    connect,
    freeze,
    hang,
    read_slowly,
    reset_after_head,
    reset_at_once,
    wait_for,
)

GET = request("foo.com")
MIB = 1 << 20


@pytest.fixture(params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Where both the router and its nodes listen: addresses of one kind."""
    numbers = iter(range(100))
    return lambda: "127.0.0.1:0" if request.param == "tcp" else str(tmp_path / f"{next(numbers)}.sock")


def serving(router: OneRouter, *nodes: ScriptedNode | Blackhole | str, **fields: Any) -> None:
    addresses = [node if isinstance(node, str) else node.address for node in nodes]
    router.table({"foo.com": [Node(address, **fields) for address in addresses]})


# The straight path.


def test_head_and_body_go_up_byte_for_byte_and_the_answer_comes_down(place: Callable[[], str]) -> None:
    body = os.urandom(3000)
    with OneRouter(place()) as router, ScriptedNode(answer(HELLO, body=3000), address=place()) as node:
        serving(router, node)
        head = request("foo.com", "/x?y=1", "POST", 3000, HTTP_X="\x00\xff" * 9)
        assert ask(router.address, head, body) == HELLO
        router.wait_idle()
        assert bytes(node.connections[0].received) == head + body


def test_a_head_cut_anywhere_arrives_whole(place: Callable[[], str]) -> None:
    with OneRouter(place()) as router, ScriptedNode(address=place()) as node:
        serving(router, node)
        for cut in (1, 3, 4, 5, 40, len(GET) - 1):
            with connect(router.address) as client:
                client.sendall(GET[:cut])
                time.sleep(0.02)
                client.sendall(GET[cut:])
                assert read_to_end(client) == HELLO
        router.wait_idle()
        assert {connection.head for connection in node.connections} == {GET}


def test_a_head_of_64_kib_that_comes_byte_by_byte_costs_no_square(place: Callable[[], str]) -> None:
    head = packet([("HTTP_HOST", "foo.com"), ("HTTP_COOKIE", "x" * 65_000)])
    with OneRouter(place()) as router, ScriptedNode(address=place()) as node:
        serving(router, node)
        with connect(router.address) as client:
            for start in range(0, len(head), 97):
                client.send(head[start : start + 97])
            assert read_to_end(client) == HELLO
        assert node.connections[0].head == head


def test_modifiers_are_the_nodes_whatever_the_client_sent(place: Callable[[], str]) -> None:
    with OneRouter(place()) as router, ScriptedNode(address=place()) as node:
        serving(router, node, modifier1=5, modifier2=9)
        ask(router.address, packet([("HTTP_HOST", "foo.com")], 7, 8), b"body")
        router.set("foo.com", [Node(node.address)])
        ask(router.address, packet([("HTTP_HOST", "foo.com")], 7, 8))
        first, second = (bytes(connection.received) for connection in node.connections)
        assert first == packet([("HTTP_HOST", "foo.com")], 5, 9) + b"body"
        assert second == packet([("HTTP_HOST", "foo.com")], 0, 0)


def test_counters_are_exact(place: Callable[[], str]) -> None:
    body = b"x" * 5000
    with OneRouter(place()) as router, ScriptedNode(answer(HELLO, body=5000), address=place()) as node:
        serving(router, node)
        head = request("foo.com", "/", "POST", 5000)
        for _ in range(10):
            assert ask(router.address, head, body) == HELLO
        counts = router.wait_idle()
        hits, nodes = counts["pools"]["foo.com"]
        requests, tx, rx, in_flight, failures, notes = nodes[node.address]
        assert (hits, requests, tx, rx, in_flight, failures) == (
            10, 10, 10 * len(HELLO), 10 * (len(head) + 5000), 0, 0,
        )  # fmt: skip
        assert counts["requests"] == 10
        assert notes[0][1] == 0 and abs(notes[0][0] - time.time()) < 60


def test_keys_of_any_bytes_find_their_pool() -> None:
    key = b"f\xff\xc3\xa9"
    with OneRouter() as router, ScriptedNode() as node:
        router.table({key.decode("utf-8", "surrogateescape"): [Node(node.address)]})
        assert ask(router.address, packet([("HTTP_HOST", key)])) == HELLO


def test_nodes_take_turns() -> None:
    with OneRouter() as router, ScriptedNode() as one, ScriptedNode() as two:
        serving(router, one, two)
        for _ in range(10):
            ask(router.address, GET)
        assert (len(one.connections), len(two.connections)) == (5, 5)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 5 * MIB])
@pytest.mark.slow
def test_answers_of_any_size_arrive_whole(place: Callable[[], str], size: int) -> None:
    data = os.urandom(size)
    with OneRouter(place()) as router, ScriptedNode(answer(data), address=place()) as node:
        serving(router, node)
        assert ask(router.address, GET) == data


@pytest.mark.parametrize("size", [1, 64_000, 65_536, 131_072, 5 * MIB])
@pytest.mark.slow
def test_bodies_of_any_size_arrive_whole(place: Callable[[], str], size: int) -> None:
    body = os.urandom(size)
    with OneRouter(place()) as router, ScriptedNode(answer(body=size), address=place()) as node:
        serving(router, node)
        assert ask(router.address, request("foo.com", method="POST", length=size), body) == HELLO
        assert node.connections[0].body == body


@pytest.mark.slow
def test_both_ways_at_once(place: Callable[[], str]) -> None:
    """The real fastrouter stalls here until its time limit."""
    down, up = os.urandom(20 * MIB), os.urandom(20 * MIB)
    with OneRouter(place()) as router, ScriptedNode(answer_early(down), address=place()) as node:
        serving(router, node)
        with connect(router.address) as client:
            sender = threading.Thread(target=client.sendall, args=(request("foo.com", length=20 * MIB) + up,))
            sender.start()
            received = bytearray()
            while len(received) < len(down):
                received += client.recv(1 << 20)
            sender.join()
            wait_for(lambda: len(node.connections[0].body) == len(up), "the upload")
        assert hashlib.sha256(received).digest() == hashlib.sha256(down).digest()
        assert node.connections[0].body == up
        router.wait_idle()


def test_pieces_come_down_as_they_are_sent() -> None:
    with OneRouter() as router, ScriptedNode(answer_slowly(b"abcdef", 1, 0.1)) as node:
        serving(router, node)
        with connect(router.address) as client:
            client.sendall(GET)
            assert client.recv(100) == b"a"
            assert read_to_end(client) == b"bcdef"


# Backpressure.


def test_a_body_that_is_there_at_once_waits_for_a_node_that_does_not_read(place: Callable[[], str]) -> None:
    """More than one read waits behind the head, and the node's buffer is full before its socket is registered."""

    def late(connection: NodeConnection) -> None:
        connection.stopped.wait(0.3)
        connection.read_body(4 * MIB)
        connection.send(HELLO)

    with OneRouter(place()) as router, ScriptedNode(late, address=place()) as node:
        serving(router, node)
        freeze(router.process.pid)
        with connect(router.address) as client:
            head = request("foo.com", method="POST", length=4 * MIB)
            client.setblocking(False)
            sent = client.send(head + bytes(4 * MIB))
            os.kill(router.process.pid, signal.SIGCONT)
            client.settimeout(10)
            client.sendall(bytes(len(head) + 4 * MIB - sent))
            assert read_to_end(client) == HELLO
        assert len(node.connections[0].body) == 4 * MIB


@pytest.mark.slow
def test_256_mib_down_to_a_slow_client_do_not_grow_the_process(place: Callable[[], str]) -> None:
    size = 256 * MIB
    with OneRouter(place()) as router, ScriptedNode(answer(bytes(size)), address=place()) as node:
        serving(router, node)
        ask(router.address, request("nobody.com"))
        before = router.memory()
        with connect(router.address) as client:
            client.sendall(GET)
            time.sleep(0.5)
            received = len(client.recv(1))
            most = router.memory()
            while data := client.recv(8 * MIB):
                received += len(data)
                most = max(most, router.memory())
        assert received == size
        assert most - before < 8 * MIB


@pytest.mark.slow
def test_256_mib_up_to_a_slow_node_do_not_grow_the_process(place: Callable[[], str]) -> None:
    size = 256 * MIB
    with OneRouter(place()) as router, ScriptedNode(_take_slowly(size), address=place()) as node:
        serving(router, node)
        ask(router.address, request("nobody.com"))
        before = most = router.memory()
        with connect(router.address) as client:
            client.sendall(request("foo.com", length=size))
            piece = bytes(4 * MIB)
            for _ in range(size // len(piece)):
                client.sendall(piece)
                most = max(most, router.memory())
            assert read_to_end(client) == HELLO
        assert most - before < 8 * MIB


def _take_slowly(size: int) -> Script:
    def script(connection: NodeConnection) -> None:
        head = connection.read_head()
        connection.stopped.wait(0.5)
        left = size - (len(connection.received) - len(head))
        while left > 0 and (data := connection.sock.recv(8 * MIB)):
            left -= len(data)
        connection.send(HELLO)

    return script


def test_a_fast_peer_does_not_starve_the_others() -> None:
    """An endless answer is read as fast as it can be, and small requests go on beside it."""

    def endless(connection: NodeConnection) -> None:
        connection.read_head()
        piece = bytes(MIB)
        while not connection.stopped.is_set():
            connection.send(piece)

    with OneRouter() as router, ScriptedNode(endless) as flood, ScriptedNode() as node:
        router.table({"flood.com": [Node(flood.address)], "foo.com": [Node(node.address)]})
        with connect(router.address) as client:
            client.sendall(request("flood.com"))
            stop = threading.Event()

            def drain() -> None:
                while not stop.is_set():
                    client.recv(MIB)

            reader = threading.Thread(target=drain)
            reader.start()
            for _ in range(50):
                assert ask(router.address, GET) == HELLO
            stop.set()
            reader.join()


# The client leaves.


def test_the_clients_fin_ends_the_session_while_the_node_works(place: Callable[[], str]) -> None:
    with OneRouter(place()) as router, ScriptedNode(hang, address=place()) as node:
        serving(router, node)
        client = connect(router.address)
        client.sendall(GET)
        wait_for(lambda: node.connections, "the node to be asked")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
        wait_for(lambda: node.connections[0].eof, "the node to see the end")
        client.close()
        router.wait_idle()


@pytest.mark.parametrize("sent", [0, 3, 30])
def test_a_client_that_leaves_within_its_head_is_forgotten(place: Callable[[], str], sent: int) -> None:
    with OneRouter(place()) as router, ScriptedNode(address=place()) as node:
        serving(router, node)
        before = router.descriptors()
        for _ in range(5):
            with connect(router.address) as client:
                client.sendall(GET[:sent])
        router.wait_idle()
        assert ask(router.address, GET) == HELLO
        router.wait_idle()
        assert router.descriptors() == before
        assert len(node.connections) == 1


def test_a_client_that_resets_during_its_answer_lets_the_node_go(place: Callable[[], str]) -> None:
    with OneRouter(place()) as router, ScriptedNode(answer(bytes(50 * MIB)), address=place()) as node:
        serving(router, node)
        client = connect(router.address)
        client.sendall(GET)
        client.recv(1000)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        router.wait_idle()


def test_a_client_that_leaves_while_the_node_is_connected_to_is_forgotten() -> None:
    with OneRouter() as router, Blackhole() as hole:
        serving(router, hole)
        with connect(router.address) as client:
            client.sendall(GET)
            wait_for(lambda: router.counts()["active"], "the session")
        router.wait_idle()


# Nodes that cannot be connected to.


def unreachable(kind: str, tmp_path: Path) -> str:
    if kind == "refused":
        return refused_address()
    if kind == "missing unix socket":
        return str(tmp_path / "missing.sock")
    assert kind == "unreachable"
    return "[fe80::1]:9"


@pytest.mark.parametrize("kind", ["refused", "missing unix socket", "unreachable"])
def test_a_node_that_cannot_be_connected_to_is_marked_and_another_one_answers(kind: str, tmp_path: Path) -> None:
    dead = unreachable(kind, tmp_path)
    with OneRouter(log=tmp_path / "log") as router, ScriptedNode() as node:
        serving(router, dead, node)
        body = os.urandom(2000)
        for _ in range(4):
            assert ask(router.address, request("foo.com", method="POST", length=2000), body) == HELLO
        assert {connection.body for connection in node.connections} == {body}
        counts = router.wait_idle()
        assert counts["pools"]["foo.com"][1][dead][4] == 1, "out of turn after the first failure"
        assert [one[0] for one in router.hear("out")["out"]] == [dead]
        assert f"[uwsgi-fastrouter] foo.com => marking {dead} as failed" in router.log
        assert any(f'unable to connect() to node "{dead}" (0 retries): ' in line for line in router.log)


@pytest.mark.slow
def test_a_connect_that_hangs_is_given_up_after_its_own_limit(tmp_path: Path) -> None:
    with OneRouter(connect_timeout=1, log=tmp_path / "log") as router, ScriptedNode() as node, Blackhole() as hole:
        serving(router, hole)
        router.set("foo.com", [Node(hole.address), Node(node.address, backup=1)])
        assert ask(router.address, GET) == HELLO
        router.wait_idle()
        assert any("Connection timed out" in line for line in router.log)


def test_a_full_unix_backlog_is_no_failure_and_another_node_answers(tmp_path: Path) -> None:
    with OneRouter() as router, ScriptedNode() as node:
        busy, waiting = _full_unix(tmp_path / "busy.sock")
        serving(router, str(tmp_path / "busy.sock"), node)
        for _ in range(6):
            assert ask(router.address, GET) == HELLO
        assert not any("out" in message for message in router.messages)
        for sock in (busy, *waiting):
            sock.close()


def test_a_full_unix_backlog_alone_is_asked_again_and_gives_up_in_the_end(tmp_path: Path) -> None:
    with OneRouter(max_retries=2) as router:
        busy, waiting = _full_unix(tmp_path / "busy.sock")
        serving(router, str(tmp_path / "busy.sock"))
        assert ask(router.address, GET) == b""
        counts = router.wait_idle()
        assert counts["complaints"]["unconnected"] == 3
        assert not any("out" in message for message in router.messages)
        for sock in (busy, *waiting):
            sock.close()


def _full_unix(path: Path) -> tuple[socket.socket, list[socket.socket]]:
    busy = socket.socket(socket.AF_UNIX)
    busy.bind(str(path))
    busy.listen(0)
    waiting = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        waiting.append(client)
        if client.connect_ex(str(path)):
            return busy, waiting


def test_a_busy_node_is_asked_again_though_another_one_refused_meanwhile(tmp_path: Path) -> None:
    busy, waiting = _full_unix(tmp_path / "busy.sock")
    with OneRouter(max_retries=60, gracetime=1000) as router:
        serving(router, str(tmp_path / "busy.sock"), refused_address())

        def make_room() -> None:
            """The ones that fill the backlog have left; the one that sends something is the router."""
            time.sleep(0.05)
            busy.settimeout(5)
            while True:
                peer, _ = busy.accept()
                with peer:
                    peer.settimeout(5)
                    if peer.recv(10_000):
                        peer.sendall(HELLO)
                        return

        for sock in waiting:
            sock.close()
        server = threading.Thread(target=make_room)
        server.start()
        assert ask(router.address, GET) == HELLO
        server.join()
        busy.close()
        nodes = router.wait_idle()["pools"]["foo.com"][1]
        assert nodes[str(tmp_path / "busy.sock")][4] == 0, "busy is no failure"


def test_a_node_that_said_nothing_is_not_asked_again_though_the_other_is_busy(tmp_path: Path) -> None:
    busy, waiting = _full_unix(tmp_path / "busy.sock")
    with OneRouter() as router, ScriptedNode(close_after_head) as silent:
        serving(router, silent, str(tmp_path / "busy.sock"))
        for _ in range(4):
            assert ask(router.address, GET) == b""
        assert len(silent.connections) == 4
        for sock in (busy, *waiting):
            sock.close()


@pytest.mark.slow
def test_a_node_that_fails_many_requests_at_once_is_marked_once(tmp_path: Path) -> None:
    with OneRouter(connect_timeout=1, log=tmp_path / "log") as router, Blackhole() as hole:
        serving(router, hole)
        clients = [connect(router.address) for _ in range(50)]
        for client in clients:
            client.sendall(GET)
        for client in clients:
            assert read_to_end(client) == b""
            client.close()
        assert len([line for line in router.log if "marking" in line]) == 1
        assert len(router.log) < 50


def test_lookups_of_retries_count_as_hits() -> None:
    with OneRouter() as router, ScriptedNode() as node:
        serving(router, refused_address())
        router.set("foo.com", [Node(refused_address()), Node(node.address, backup=1)])
        assert ask(router.address, GET) == HELLO
        assert router.wait_idle()["pools"]["foo.com"][0] == 2


def test_max_retries_bounds_the_connects_of_one_request() -> None:
    dead = [refused_address() for _ in range(8)]
    with OneRouter(max_retries=3) as router:
        serving(router, *dead)
        assert ask(router.address, GET) == b""
        counts = router.wait_idle()
        assert counts["complaints"] == {"unconnected": 4, "unreachable": 1}


def test_with_retry_none_one_connect_is_all() -> None:
    with OneRouter(retry="none") as router, ScriptedNode() as node:
        serving(router, refused_address())
        router.set("foo.com", [Node(refused_address()), Node(node.address, backup=1)])
        assert ask(router.address, GET) == b""
        assert ask(router.address, GET) == HELLO
        assert router.wait_idle()["complaints"] == {"unconnected": 1, "unreachable": 1}


@pytest.mark.slow
def test_a_failed_node_is_tried_again_by_one_request_after_gracetime() -> None:
    dead = refused_address()
    with OneRouter(gracetime=1) as router, ScriptedNode() as node:
        serving(router, dead, node)
        for _ in range(4):
            assert ask(router.address, GET) == HELLO
        with ScriptedNode(address=dead) as again:
            wait_for(lambda: ask(router.address, GET) and again.connections, "the trial")
            wait_for(lambda: "live" in str(router.messages) or not router.counts(), "the word that it lives")
            asked = len(again.connections)
            for _ in range(4):
                ask(router.address, GET)
            assert len(again.connections) == asked + 2


def test_word_from_the_supervisor_brings_a_failed_node_back_at_once() -> None:
    dead = refused_address()
    with OneRouter(gracetime=1000) as router:
        serving(router, dead)
        assert ask(router.address, GET) == b""
        assert ask(router.address, GET) == b""
        with ScriptedNode(address=dead) as node:
            router.tell(live=[dead])
            router.counts()
            assert ask(router.address, GET) == HELLO
            router.tell(out=[health(node.address)])
            router.counts()
            assert ask(router.address, GET) == b""
        assert [[one[0] for one in m["out"]] for m in router.messages if m.get("out")] == [[dead]], (
            "no echo of what it was told"
        )


# Nodes that take a request and say nothing.


@pytest.mark.parametrize("script", [close_after_head, reset_after_head, close_at_once, reset_at_once])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.slow
def test_a_bodyless_idempotent_request_goes_once_more_to_another_node(script: Script, method: str) -> None:
    with OneRouter() as router, ScriptedNode(script) as bad, ScriptedNode() as good:
        serving(router, bad, good)
        for _ in range(6):
            assert ask(router.address, request("foo.com", method=method)) == HELLO
        if script is not reset_at_once:  # a reset before the first send looks like a refusal, so it is marked
            assert len(bad.connections) >= 5, "each of these turns was the bad node's first"
        assert len(good.connections) == 6
        assert {connection.head for connection in good.connections} == {request("foo.com", method=method)}
        router.wait_idle()


def test_it_goes_to_a_second_node_but_not_to_a_third() -> None:
    with OneRouter() as router, contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(close_after_head)) for _ in range(3)]
        serving(router, *nodes)
        assert ask(router.address, GET) == b""
        assert sum(len(node.connections) for node in nodes) == 2


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (request("foo.com", method="POST"), b""),
        (request("foo.com", method="PUT", length=3), b"abc"),
        (request("foo.com", length=3), b"abc"),
        (request("foo.com", length=3), b""),
        (request("foo.com"), b"unannounced"),
        (request("foo.com", HTTP_TRANSFER_ENCODING="chunked"), b""),
        (packet([("HTTP_HOST", "foo.com")]), b""),
    ],
)
def test_everything_else_is_never_sent_twice(head: bytes, body: bytes) -> None:
    with OneRouter() as router, ScriptedNode(close_after_head) as one, ScriptedNode(close_after_head) as two:
        serving(router, one, two)
        assert ask(router.address, head, body) == b""
        router.wait_idle()
        assert len(one.connections) + len(two.connections) == 1


def test_with_retry_connect_a_taken_request_is_never_sent_twice() -> None:
    silent = close_after_head
    with OneRouter(retry="connect") as router, ScriptedNode(silent) as one, ScriptedNode(silent) as two:
        serving(router, one, two)
        assert ask(router.address, GET) == b""
        router.wait_idle()
        assert len(one.connections) + len(two.connections) == 1


def test_after_its_first_byte_an_answer_is_never_begun_again() -> None:
    with OneRouter() as router, ScriptedNode(answer_then_reset(b"HTTP/1.1 200")) as one, ScriptedNode() as two:
        serving(router, one)
        router.set("foo.com", [Node(one.address), Node(two.address, backup=1)])
        assert ask(router.address, GET) == b"HTTP/1.1 200"
        router.wait_idle()
        assert two.connections == []


# Time limits.


@pytest.mark.slow
def test_a_node_that_hangs_is_left_after_the_timeout(place: Callable[[], str]) -> None:
    with OneRouter(place(), timeout=1) as router, ScriptedNode(hang, address=place()) as node:
        serving(router, node)
        began = time.monotonic()
        assert ask(router.address, GET) == b""
        assert time.monotonic() - began >= 1
        assert router.wait_idle()["complaints"] == {"timeout": 1}


@pytest.mark.slow
def test_a_connection_that_moves_outlives_the_timeout() -> None:
    with OneRouter(timeout=1) as router, ScriptedNode(answer_slowly(b"abcdefg", 1, 0.5)) as node:
        serving(router, node)
        assert ask(router.address, GET) == b"abcdefg"


@pytest.mark.slow
def test_a_head_that_drips_is_closed_after_the_timeout(tmp_path: Path) -> None:
    with OneRouter(timeout=1, log=tmp_path / "log") as router, ScriptedNode() as node:
        serving(router, node)
        with connect(router.address) as client:
            client.settimeout(0.2)
            sent, got = 0, b"nothing yet"
            while got and sent < len(GET):
                with contextlib.suppress(TimeoutError):
                    try:
                        client.send(GET[sent : sent + 1])
                        sent += 1
                        got = client.recv(1)
                    except ConnectionError:  # a byte that met the close
                        got = b""
        assert got == b""
        assert ask(router.address, GET) == HELLO
        assert any("head not complete after 1 s" in line for line in router.log)


@pytest.mark.slow
def test_a_stopped_process_ages_nobody() -> None:
    with OneRouter(timeout=3) as router, ScriptedNode(hang) as node:
        serving(router, node)
        with connect(router.address) as client:
            client.sendall(GET)
            wait_for(lambda: node.connections, "the node to be asked")
            freeze(router.process.pid)
            time.sleep(5)
            os.kill(router.process.pid, signal.SIGCONT)
            assert router.counts()["active"] == 1
            node.connections[0].send(HELLO)
            assert client.recv(1000) == HELLO


# An early end.


@pytest.mark.parametrize("size", [4 * MIB, 64 * MIB])
def test_an_answer_that_comes_before_the_body_is_whole_reaches_the_client(size: int) -> None:
    """The node answers by the head and closes; a client that goes on sending must still be able to read that."""

    def too_large(connection: NodeConnection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 413 Too Large\r\n\r\n")
        connection.sock.shutdown(socket.SHUT_WR)
        connection.read_to_end()

    with OneRouter() as router, ScriptedNode(too_large) as node:
        serving(router, node)
        with connect(router.address) as client:
            client.sendall(request("foo.com", method="POST", length=size))
            client.sendall(bytes(size))
            assert read_to_end(client) == b"HTTP/1.1 413 Too Large\r\n\r\n"
        router.wait_idle()


def test_an_answer_by_the_head_alone_reaches_a_client_that_has_yet_to_send_its_body(place: Callable[[], str]) -> None:
    refused = b"HTTP/1.1 401 Unauthorized\r\n\r\n"
    with OneRouter(place()) as router, ScriptedNode(answer(refused), address=place()) as node:
        serving(router, node)
        with connect(router.address) as client:
            client.sendall(request("foo.com", method="POST", length=200_000))
            time.sleep(0.1)
            for _ in range(4):
                client.sendall(bytes(50_000))
            assert read_to_end(client) == refused
        router.wait_idle()


def test_an_answer_reaches_a_client_that_sends_more_than_it_announced(place: Callable[[], str]) -> None:
    data = os.urandom(3 * MIB)

    def deaf(connection: NodeConnection) -> None:
        connection.read_body(11)  # it is sending too much by now
        connection.send(data)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.read_to_end()

    with OneRouter(place()) as router, ScriptedNode(deaf, address=place()) as node:
        serving(router, node)
        with connect(router.address) as client:
            client.sendall(request("foo.com", method="POST", length=10) + bytes(10))
            client.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                client.sendall(bytes(8 * MIB))
            client.settimeout(10)
            assert read_to_end(client) == data


@pytest.mark.slow
@pytest.mark.long
def test_a_client_that_never_stops_sending_after_its_answer_is_cut_off() -> None:
    with OneRouter() as router, ScriptedNode(answer(HELLO, body=1)) as node:
        serving(router, node)
        with connect(router.address) as client:
            client.sendall(request("foo.com", length=1 << 30) + b"x")
            client.settimeout(20)
            assert read_to_end(client) == HELLO

            def cut_off() -> bool:
                try:
                    return not client.send(b"x")
                except OSError:
                    return True

            wait_for(cut_off, "the end", timeout=20, sleep=lambda _: time.sleep(0.3))
        router.wait_idle()


# Malformed.


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (packet([("REQUEST_METHOD", "GET")]), "no UWSGI_FASTROUTER_KEY, HTTP_HOST or SERVER_NAME in the vars"),
        (b"\0\0\0\0", "no UWSGI_FASTROUTER_KEY, HTTP_HOST or SERVER_NAME in the vars"),
        (packet([("HTTP_HOST", "k" * 256)]), "no UWSGI_FASTROUTER_KEY, HTTP_HOST or SERVER_NAME in the vars"),
        (struct.pack("<BHB", 0, 6, 0) + b"\x00\x00\x02\x00ab", "key of length 0 at offset 4"),
        (struct.pack("<BHB", 0, 5, 0) + b"\x09\x00abc", "var at offset 4: key length 9 runs 6 bytes past the end"),
        (struct.pack("<BHB", 0, 2, 0) + b"\x09\x00", "2 stray bytes after the last var"),
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request on a uwsgi socket (use uwsgi_pass, not proxy_pass)"),
    ],
)
def test_a_malformed_request_is_closed_with_one_clear_line(tmp_path: Path, data: bytes, line: str) -> None:
    with OneRouter(log=tmp_path / "log") as router, ScriptedNode() as node:
        serving(router, node)
        assert ask(router.address, data) == b""
        assert ask(router.address, GET) == HELLO
        router.wait_idle()
        assert len(node.connections) == 1
        assert [text.partition(": ")[2] for text in router.log] == [line]


def test_an_http_post_is_named_as_such_though_it_is_longer_than_its_datasize(tmp_path: Path) -> None:
    with OneRouter(log=tmp_path / "log") as router:
        router.table({})
        assert ask(router.address, b"POST / HTTP/1.1\r\n\r\n" + bytes(30_000)) == b""
        router.wait_idle()
        assert "an HTTP request on a uwsgi socket (use uwsgi_pass, not proxy_pass)" in router.log[0]


def test_a_flood_of_malformed_requests_writes_a_few_lines_only(tmp_path: Path) -> None:
    with OneRouter(log=tmp_path / "log") as router:
        router.table({})
        for _ in range(200):
            ask(router.address, b"\0\0\0\0")
        counts = router.wait_idle()
        assert counts["complaints"] == {"no key": 200}
        assert len(router.log) < 100


@pytest.mark.parametrize("pools", [{}, {"bar.com": [Node("127.0.0.1:9")]}])
def test_an_unknown_key_is_closed_without_an_answer(pools: dict[str, list[Node]]) -> None:
    with OneRouter() as router:
        router.table(pools)
        assert ask(router.address, GET) == b""
        assert router.wait_idle()["complaints"] == {"unknown key": 1}


def test_a_read_slowly_node_gets_everything() -> None:
    size = 2 * MIB
    with OneRouter() as router, ScriptedNode(read_slowly(65_536, 0.001, size)) as node:
        serving(router, node)
        assert ask(router.address, request("foo.com", length=size), bytes(size)) == HELLO
        assert len(node.connections[0].body) == size
