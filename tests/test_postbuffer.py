"""Bodies that are read before their request goes to a node, in one router process."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients import ask, packet, post, read_to_end, request
from one_router import OneRouter, asking, refused_address
from router.node import Node
from scripted import (
    HELLO,
    NodeConnection,
    ScriptedNode,
    answer,
    close_after_head,
    connect,
    hang,
    read_slowly,
    reset_after_head,
    wait_for,
)
from servers import Nginx, Router, Worker

SOME = 100_000  # bytes in memory
LARGE = os.urandom(3 << 20)  # more than any turn, and than sockets take at once


def head(length: int, host: str = "foo.com") -> bytes:
    return request(host, method="POST", length=length)


def files(router: OneRouter) -> list[int]:
    """The sizes of the files without a name that the process has open."""
    folder = Path(f"/proc/{router.process.pid}/fd")
    ours = [fd for fd in folder.iterdir() if int(fd.name) > 2]  # the others are whoever runs the tests'
    return [fd.stat().st_size for fd in ours if "(deleted)" in os.readlink(fd)]


def held(router: OneRouter) -> int:
    bytes_: int = router.counts()["held"]
    return bytes_


def idle(router: OneRouter) -> None:
    """Nothing is left, of sessions or of bodies."""
    router.wait_idle()
    assert (held(router), files(router)) == (0, [])


def measured(body: bytes) -> dict[str, Any]:
    """What the worker says of a body."""
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@contextmanager
def sending(router: OneRouter, data: bytes, body: bytes = b"") -> Iterator[socket.socket]:
    """A client whose head, `data`, has come before it sends any of the body."""
    before = router.counts()["active"]
    with connect(router.address) as client:
        client.sendall(data)
        wait_for(lambda: router.counts()["active"] == before + 1, "the head to come")
        client.sendall(body)
        yield client


@pytest.mark.parametrize("size", [1, SOME - 1, SOME, SOME + 1, 65_536, 131_072, len(LARGE)])
def test_the_node_is_asked_when_the_body_is_whole_and_gets_all_of_it(size: int, tmp_path: Path) -> None:
    body = LARGE[:size]
    with OneRouter(post_buffering=SOME, post_buffering_dir=str(tmp_path)) as router, ExitStack() as stack:
        with ScriptedNode(answer(body=size)) as node:
            router.table({"foo.com": [Node(node.address)]})
            client = stack.enter_context(sending(router, head(size), body[:-1]))
            wait_for(lambda: held(router) == size - 1, "all but a byte to be read")
            assert node.connections == []
            assert len(files(router)) == (size > SOME)
            assert list(tmp_path.iterdir()) == []  # it has no name
            client.sendall(body[-1:])
            assert read_to_end(client) == HELLO
            assert bytes(node.connections[0].received) == head(size) + body
        idle(router)


def test_a_body_that_came_with_the_head_and_none_at_all_go_straight_on() -> None:
    with OneRouter(post_buffering=SOME) as router, ScriptedNode(answer(body=5), answer(), answer(body=3)) as node:
        router.table({"foo.com": [Node(node.address)]})
        assert ask(router.address, head(5), b"12345") == HELLO
        assert ask(router.address, request("foo.com")) == HELLO
        # What is not announced is passed on as it comes, as in uWSGI.
        assert ask(router.address, request("foo.com", HTTP_TRANSFER_ENCODING="chunked"), b"0\r\n") == HELLO
        idle(router)


def test_without_the_option_a_body_goes_on_as_it_comes() -> None:
    with OneRouter() as router, ScriptedNode(answer(body=10)) as node:
        router.table({"foo.com": [Node(node.address)]})
        with sending(router, head(10), b"12345") as client:
            wait_for(lambda: node.connections and node.connections[0].body == b"12345", "the first half")
            client.sendall(b"67890")
            assert read_to_end(client) == HELLO


@pytest.mark.parametrize("memory", [4, SOME])
def test_what_comes_behind_the_body_is_passed_on_too(memory: int) -> None:
    with OneRouter(post_buffering=memory) as router, ScriptedNode(answer(body=9)) as node:
        router.table({"foo.com": [Node(node.address)]})
        with sending(router, head(6), b"abc") as client:
            client.sendall(b"def+++")
            assert read_to_end(client) == HELLO
            assert node.connections[0].body == b"abcdef+++"
        idle(router)


@pytest.mark.parametrize("memory", [SOME, len(LARGE)])
def test_a_node_that_reads_slowly_gets_the_whole_body(memory: int) -> None:
    with OneRouter(post_buffering=memory) as router:
        with ScriptedNode(read_slowly(300_000, 0.01, len(LARGE))) as node:
            router.table({"foo.com": [Node(node.address)]})
            assert ask(router.address, head(len(LARGE)), LARGE) == HELLO
            assert node.connections[0].body == LARGE
        idle(router)


def close_after_some(connection: NodeConnection) -> None:
    connection.read_body(len(LARGE) // 2)


@pytest.mark.parametrize("memory", [SOME, len(LARGE)])
def test_with_all_unsent_a_second_node_gets_the_whole_body(memory: int) -> None:
    with OneRouter(post_buffering=memory, retry="all-unsent") as router, ExitStack() as stack:
        bad = stack.enter_context(ScriptedNode(close_after_some))
        good = stack.enter_context(ScriptedNode(answer(body=len(LARGE))))
        router.table({"foo.com": [Node(bad.address), Node(good.address, backup=1)]})
        router.tell(set=[])
        assert ask(router.address, head(len(LARGE)), LARGE) == b""  # a backup is for when all others have failed
        router.table({"foo.com": [Node(bad.address), Node(good.address)]})
        assert [ask(router.address, head(len(LARGE)), LARGE) for _ in range(2)] == [HELLO] * 2
        assert {connection.body == LARGE for connection in good.connections} == {True}
        idle(router)


def test_a_node_that_does_not_take_all_of_a_body_is_not_ejected_for_that() -> None:
    """As without buffers: too large a body is its client's fault."""
    with OneRouter(post_buffering=SOME, max_fails=1) as router, ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(reset_after_head)) for _ in range(2)]
        router.table({"foo.com": [Node(node.address) for node in nodes]})
        body = LARGE * 8  # more than sockets hold
        assert ask(router.address, head(len(body)), body) == b""
        assert router.wait_idle()["complaints"] == {"unanswered": 1}
        assert [message for message in router.messages if "out" in message] == []


def test_with_all_unsent_what_came_behind_the_body_is_never_sent_twice() -> None:
    def close_after_nine(connection: NodeConnection) -> None:
        connection.read_body(9)

    with OneRouter(post_buffering=SOME, retry="all-unsent") as router, ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(close_after_nine)) for _ in range(2)]
        router.table({"foo.com": [Node(node.address) for node in nodes]})
        with sending(router, head(6), b"abcdef+++") as client:
            assert read_to_end(client) == b""
        assert sum(len(node.connections) for node in nodes) == 1
        idle(router)


def test_without_it_a_body_goes_to_no_second_node_and_after_a_failed_connect_it_does() -> None:
    with OneRouter(post_buffering=SOME) as router, ExitStack() as stack:
        bad = stack.enter_context(ScriptedNode(close_after_head))
        good = stack.enter_context(ScriptedNode(answer(body=6)))
        router.table({"foo.com": [Node(bad.address)], "bar.com": [Node(refused_address()), Node(good.address)]})
        for host, answered in [("foo.com", b""), ("bar.com", HELLO), ("bar.com", HELLO)]:
            with sending(router, head(6, host), b"abc") as client:
                client.sendall(b"def")
                assert read_to_end(client) == answered
        assert [connection.body for connection in good.connections] == [b"abcdef"] * 2
        idle(router)


def test_a_node_is_chosen_when_the_body_is_whole_and_one_that_has_left_is_not_missed() -> None:
    with OneRouter(post_buffering=SOME) as router, ScriptedNode(answer(body=6)) as node:
        router.table({"foo.com": [Node(refused_address())]})
        with sending(router, head(6), b"abc") as client:
            router.set("foo.com", [Node(node.address)])
            client.sendall(b"def")
            assert read_to_end(client) == HELLO
        assert router.wait_idle()["complaints"] == {}


def test_a_body_takes_no_nodes_room_until_it_is_whole() -> None:
    with OneRouter(post_buffering=SOME, max_connections=1) as router, ScriptedNode(answer(), answer(body=6)) as node:
        router.table({"foo.com": [Node(node.address)]})
        with sending(router, head(6), b"abc") as client:
            assert ask(router.address, request("foo.com")) == HELLO
            client.sendall(b"def")
            assert read_to_end(client) == HELLO
        idle(router)


def test_a_key_that_nobody_knows_is_refused_before_its_body_and_one_that_may_come_is_not() -> None:
    with OneRouter(post_buffering=SOME, error_pages="on") as router, ScriptedNode(answer(body=6)) as node:
        router.table({})
        with connect(router.address) as client:
            client.sendall(head(6))
            assert client.recv(1000).startswith(b"HTTP/1.1 404 ")
        router.table({}, warming=60)
        with asking(router, head(6) + b"abcdef") as (client,):
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(client) == HELLO
        idle(router)


@pytest.mark.parametrize("memory", [1, SOME])
def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(memory: int) -> None:
    with OneRouter(post_buffering=memory) as router, ScriptedNode(hang) as node:
        router.table({"foo.com": [Node(node.address)]})
        before = router.descriptors()
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(sending(router, head(SOME), b"x" * 5000))
            wait_for(lambda: held(router) == 20 * 5000, "all of it to come")
        idle(router)
        assert router.descriptors() == before
        with sending(router, head(10), b"x" * 4) as client:
            client.sendall(b"x" * 6)
            wait_for(lambda: node.connections and len(node.connections[0].body) == 10, "the node to have it")
        idle(router)


@pytest.mark.parametrize("memory", [1, SOME])
def test_a_client_that_stalls_is_refused_after_the_time_limit(memory: int) -> None:
    with OneRouter(post_buffering=memory, timeout=1, error_pages="on") as router, ScriptedNode() as node:
        router.table({"foo.com": [Node(node.address)]})
        with sending(router, head(10)) as client:
            client.sendall(b"x")
            assert read_to_end(client).startswith(b"HTTP/1.1 400 ")
        assert router.wait_idle()["complaints"] == {"body timeout": 1}
        assert node.connections == []
        idle(router)


def test_one_that_drips_ends_with_the_sessions_time() -> None:
    with OneRouter(post_buffering=SOME, timeout=60, session_timeout=1) as router, ScriptedNode() as node:
        router.table({"foo.com": [Node(node.address)]})
        ended = threading.Event()
        with sending(router, head(SOME)) as client:

            def drip() -> None:
                while not ended.wait(0.05):
                    client.send(b"x")

            dripping = threading.Thread(target=drip)
            dripping.start()
            wait_for(lambda: router.counts()["complaints"] == {"session timeout": 1}, "the time to be over")
            ended.set()
            dripping.join()
        idle(router)


def test_a_file_that_cannot_grow_ends_its_request_and_no_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options: dict[str, Any] = {"post_buffering": 1000, "post_buffering_dir": str(tmp_path), "error_pages": "on"}
    with OneRouter(log=log, **options) as router, ScriptedNode(answer(body=SOME // 2)) as node:
        router.table({"foo.com": [Node(node.address)]})
        resource.prlimit(router.process.pid, resource.RLIMIT_FSIZE, (SOME, SOME))
        with sending(router, head(3 * SOME)) as client:
            client.sendall(b"x" * 2 * SOME)
            assert read_to_end(client).startswith(b"HTTP/1.1 503 ")
            assert (held(router), files(router)) == (0, [])  # though the client is still here
        assert router.wait_idle()["complaints"] == {"body not stored": 1}
        idle(router)
        assert node.connections == []
        assert ask(router.address, head(SOME // 2), b"x" * (SOME // 2)) == HELLO
        (line,) = [line for line in router.log if "body cannot be kept" in line]
        assert line.endswith(f"its body cannot be kept in {tmp_path}: File too large")


def test_a_folder_that_is_gone_ends_those_requests_that_need_it(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with OneRouter(post_buffering=10, post_buffering_dir=str(folder)) as router, ScriptedNode(answer(body=10)) as node:
        router.table({"foo.com": [Node(node.address)]})
        with connect(router.address) as client:
            client.sendall(head(11))
            assert read_to_end(client) == b""
        assert router.wait_idle()["complaints"] == {"body not stored": 1}
        assert ask(router.address, head(10), b"0123456789") == HELLO


def test_one_body_beyond_the_limit_is_too_large_and_all_together_have_no_more_room() -> None:
    with OneRouter(post_buffering=10, post_buffering_limit=1000, error_pages="on") as router:
        with ScriptedNode(answer(body=1000)) as node:
            router.table({"foo.com": [Node(node.address)]})
            with connect(router.address) as client:
                client.sendall(head(1001))
                assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
            router.wait_idle()
            with sending(router, head(1000)) as first, sending(router, head(1000)) as second:
                first.sendall(b"x" * 600)
                wait_for(lambda: held(router) == 600, "the first part")
                second.sendall(b"y" * 600)
                assert read_to_end(second).startswith(b"HTTP/1.1 503 ")
                first.sendall(b"x" * 400)
                assert read_to_end(first) == HELLO
            assert router.wait_idle()["complaints"] == {"body too large": 1, "no room for body": 1}
            idle(router)


@pytest.mark.parametrize("length", [b"", b"many", b"-5", b"9" * 30])
def test_a_length_that_is_no_number_is_none(length: bytes) -> None:
    with OneRouter(post_buffering=SOME) as router, ScriptedNode(answer()) as node:
        router.table({"foo.com": [Node(node.address)]})
        assert ask(router.address, packet([("HTTP_HOST", "foo.com"), ("CONTENT_LENGTH", length)])) == HELLO


def test_many_clients_at_once_each_get_their_answer() -> None:
    def echo(connection: NodeConnection) -> None:
        connection.send(connection.read_body(SOME)[:8])

    with OneRouter(post_buffering=SOME // 2) as router, ScriptedNode(echo) as node, ThreadPoolExecutor(16) as pool:
        router.table({"foo.com": [Node(node.address)]})
        bodies = [b"%08d" % number + b"x" * (SOME - 8) for number in range(48)]
        answers = list(pool.map(lambda body: ask(router.address, head(SOME), body), bodies))
        assert answers == [body[:8] for body in bodies]
        idle(router)


def test_memory_is_given_back() -> None:
    with OneRouter(post_buffering=1) as router, ScriptedNode(answer(body=len(LARGE))) as node:
        router.table({"foo.com": [Node(node.address)]})
        ask(router.address, head(len(LARGE)), LARGE)
        before = router.memory()
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(sending(router, head(len(LARGE) + 1), LARGE))
            wait_for(lambda: held(router) == 10 * len(LARGE), "all of them to come")
            assert router.memory() - before < len(LARGE)  # they are in files
        idle(router)


@pytest.mark.slow
def test_behind_nginx_a_real_worker_is_free_until_the_body_is_whole() -> None:
    with Router(post_buffering=10_000) as router, Worker(router.subscriptions) as worker:
        router.wait_line(f"=> new node: {worker.address}")
        with Nginx(router.address) as nginx:
            for size in (1, 9_999, 10_001, len(LARGE)):
                answered = post(nginx.streaming_port, "/echo", LARGE[:size])
                assert (answered.status, json.loads(answered.body)) == (200, measured(LARGE[:size]))
