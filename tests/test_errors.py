"""Errors as HTTP responses: which status for what, that HEAD gets no body, that no page is lost, and own pages."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import announce, ask, get, http_request, packet, read_to_end, request
from one_router import OneRouter, asking, refused_address
from router.errors import MAX_PAGE, Errors, body_missing, own_pages
from router.node import Node
from router.session import Session
from scripted import (
    HELLO,
    Script,
    ScriptedNode,
    answer_then_reset,
    close_after_head,
    connect,
    ends_in_a_reset,
    freeze,
    hang,
    reset_after_head,
    wait_for,
    when,
)
from servers import Nginx, Router, needs_nginx

GET = request("foo.com")
HEAD = request("foo.com", method="HEAD")
POST = request("foo.com", method="POST", length=5)
MIB = 1 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[OneRouter]:
    with OneRouter("127.0.0.1:0", error_pages="on", timeout=1, warm_timeout=0) as router:
        yield router


def status(answer: bytes) -> int:
    """Of a response that is whole: its head, and as much body as it says."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Cache-Control"] == "no-store" and headers["Connection"] == "close"
    assert headers["X-Gfrouter-Reason"] and headers["Content-Type"].startswith("text/html")
    assert ("Retry-After" in headers) == (" 503 " in lines[0])
    return int(lines[0].split()[1])


# Which status.


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (packet([("REQUEST_METHOD", "GET")]), 400),
        (struct.pack("<BHB", 0, 5, 0) + b"\xff\xff\xff\xff\xff", 400),
        (b"GET / HTTP/1.1\r\nHost: foo.com\r\n\r\n", 400),
        (request("nobody.com"), 404),
        (request("nobody.com", method="POST", length=3) + b"abc", 404),
    ],
    ids=["no key", "garbage", "HTTP", "unknown key", "unknown key with a body"],
)
def test_what_cannot_be_served_is_said(shared: OneRouter, head: bytes, expected: int) -> None:
    shared.table({})
    assert status(ask(shared.address, head)) == expected
    shared.wait_idle()


@pytest.mark.parametrize(
    ("script", "head", "expected"),
    [(close_after_head, GET, 502), (close_after_head, POST, 502), (reset_after_head, POST, 502)],
    ids=["GET, closed twice", "POST, closed", "POST, reset"],
)
def test_a_node_that_breaks_off_is_a_502(shared: OneRouter, script: Script, head: bytes, expected: int) -> None:
    with ScriptedNode(script) as node:
        shared.table({"foo.com": [Node(node.address)]})
        assert status(ask(shared.address, head)) == expected
        shared.wait_idle()


@pytest.mark.slow
def test_a_node_that_keeps_silent_is_a_504(shared: OneRouter) -> None:
    with ScriptedNode(hang) as node:
        shared.table({"foo.com": [Node(node.address)]})
        assert status(ask(shared.address, GET)) == 504
        assert status(ask(shared.address, POST + b"hello")) == 504
        shared.wait_idle()


def test_nodes_that_nobody_can_connect_to_are_a_503(shared: OneRouter) -> None:
    shared.table({"foo.com": [Node(refused_address())]})
    assert status(ask(shared.address, GET)) == 503  # tried
    assert status(ask(shared.address, GET)) == 503  # marked as failed
    shared.wait_idle()


@pytest.mark.slow
def test_a_head_that_does_not_come_is_a_400(shared: OneRouter) -> None:
    shared.table({})
    with connect(shared.address) as client:
        client.sendall(GET[:-1])
        assert status(read_to_end(client)) == 400
        assert shared.counts()["active"] == 0  # one of many that mean to hold us would send no more for long


def test_the_status_for_unknown_keys_is_an_option_and_no_request_is_at_fault_when_the_router_stops() -> None:
    with OneRouter(error_pages="on", unknown_key_status="503") as router:
        router.table({})
        assert status(ask(router.address, GET)) == 503
    with OneRouter(error_pages="on") as router:
        router.table({}, warming=30)
        with asking(router, GET) as (client,):
            router.tell(stop=True)
            assert status(read_to_end(client)) == 503
    with OneRouter(error_pages="on") as router:
        router.table({})
        with connect(router.address) as client:
            client.sendall(GET[:10])
            wait_for(lambda: router.counts()["active"], "the session")
            router.tell(stop=True)
            assert status(read_to_end(client)) == 503


def test_without_pages_there_is_no_answer() -> None:
    with OneRouter(error_pages="off") as router:
        router.table({})
        assert ask(router.address, GET) == b""


def test_what_a_node_has_seen_is_never_a_503() -> None:
    errors = Errors(404, {})
    assert (errors.status("no node", seen=False), errors.status("no node", seen=True)) == (503, 502)
    assert (errors.status("timeout", seen=False), errors.status("timeout", seen=True)) == (503, 504)
    assert errors.status("unknown key", seen=True) == 502
    assert errors.status("a kind to come", seen=False) == 503


# How it is sent.


@pytest.mark.parametrize("head", [request("no.com", method="HEAD"), b"HEAD / HTTP/1.1\r\n\r\n"], ids=["uwsgi", "HTTP"])
def test_head_gets_no_body(shared: OneRouter, head: bytes) -> None:
    shared.table({})
    answer = ask(shared.address, head)
    assert answer.startswith(b"HTTP/1.1 40") and answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in answer


def test_a_page_reaches_a_client_that_is_still_sending(shared: OneRouter) -> None:
    shared.table({})
    with connect(shared.address) as client:
        client.sendall(request("no.com", method="POST", length=8 * MIB))
        for _ in range(8):
            client.sendall(bytes(MIB))
            time.sleep(0.01)
        assert status(read_to_end(client)) == 404
    shared.wait_idle()


@pytest.mark.parametrize(
    ("data", "client_ready", "waited_for"),
    [(GET, False, False), (GET, True, True), (POST, False, True), (POST + b"hello", False, False)],
    ids=["no body", "more than announced", "no body yet", "all of the body"],
)
def test_a_client_is_waited_for_that_may_have_more_to_send(data: bytes, client_ready: bool, waited_for: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session = Session(ours, ours.fileno(), 0)
        session.head, session.size, session.client_ready = data, len(data.removesuffix(b"hello")), client_ready
        assert Errors(404, {}).send(session, "no node", seen=False) == waited_for


def test_what_is_missing_of_a_body_is_counted_while_it_comes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session = Session(ours, ours.fileno(), 0)
        session.head, session.size = POST + b"he", len(POST)
        assert body_missing(session) == 3
        session.uploaded, session.missing = True, 1  # more has come, and is not kept
        assert body_missing(session) == 1


def test_no_page_follows_the_nodes_first_byte(shared: OneRouter) -> None:
    with ScriptedNode(answer_then_reset(HELLO[:20])) as node:
        shared.table({"foo.com": [Node(node.address)]})
        assert ask(shared.address, GET) == HELLO[:20]


def test_a_unix_socket_gets_pages_as_well(tmp_path: Path) -> None:
    with OneRouter(str(tmp_path / "router.sock"), error_pages="on") as router:
        router.table({})
        assert status(ask(router.address, GET)) == 404


# Own pages.


def test_own_pages_are_read_and_what_is_missing_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_bytes(b"gone \xff")
    (tmp_path / "403.html").write_bytes(b"no page of ours")
    pages = own_pages(str(tmp_path))
    assert list(pages) == ["404"]
    whole, head = Errors(404, pages).response(404, "unknown key")
    assert whole == head + b"gone \xff"
    assert b"503 Service Unavailable" in Errors(404, pages).response(503, "no node")[0]
    assert own_pages("on") == own_pages("off") == own_pages("") == {}


def test_pages_that_cannot_be_read_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"error-pages: .*/nowhere: No such file"):
        own_pages(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"error-pages: .*/file: Not a directory"):
        own_pages(str(tmp_path / "file"))
    (tmp_path / "503.html").write_bytes(bytes(MAX_PAGE + 1))
    with pytest.raises(ValueError, match=r"503\.html: 16385 bytes, more than 16384"):
        own_pages(str(tmp_path))


# With the real nginx.


@needs_nginx
@pytest.mark.slow
def test_nginx_passes_each_error_on(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text("our own page")
    scripts = {"502.com": close_after_head, "504.com": hang}
    with Router(error_pages=tmp_path, timeout=1) as router, Nginx(router.address) as nginx:
        with ScriptedNode(scripts["502.com"]) as broken, ScriptedNode(scripts["504.com"]) as silent:
            for key, address in (
                ("502.com", broken.address), ("504.com", silent.address), ("503.com", refused_address()),
            ):  # fmt: skip
                announce(router.subscriptions, key, address)
                router.wait_for_nodes(key, 1)
            assert get(nginx.port, host="404.com").body == b"our own page"
            for method in ("GET", "HEAD", "POST"):
                for wanted in (404, 502, 503, 504):
                    answer = http_request(nginx.port, method, "/", f"{wanted}.com")
                    assert (answer.status, bool(answer.body)) == (wanted, method != "HEAD")
                    assert answer.headers["X-Gfrouter-Reason"]


@needs_nginx
@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["no live node", "unknown key"])
def test_nginx_goes_to_the_next_router(known: bool) -> None:
    upstream = "upstream both {{ server {}; server {} backup; }}"
    told = "uwsgi_next_upstream error timeout http_503 http_404;"
    with Router(error_pages="on") as one, Router(error_pages="on") as two, ScriptedNode() as node:
        if known:
            announce(one.subscriptions, "foo.com", refused_address())
            one.wait_for_nodes("foo.com", 1)
        announce(two.subscriptions, "foo.com", node.address)
        two.wait_for_nodes("foo.com", 1)
        with Nginx("both", more=f"{upstream.format(one.address, two.address)} {told}") as nginx:
            assert http_request(nginx.port, "GET", "/").status == 200
            assert http_request(nginx.port, "HEAD", "/").status == 200
        assert len(node.connections) == 2
        wait_for(lambda: one.stats()["complaints"], "the first one to have been asked")


@needs_nginx
@pytest.mark.slow
def test_nginx_goes_nowhere_with_what_a_node_took_whatever_it_was() -> None:
    upstream = "upstream both {{ server {}; server {} backup; }} uwsgi_next_upstream http_503 http_404 non_idempotent;"
    with Router(error_pages="on") as one, Router(error_pages="on") as two:
        with ScriptedNode(close_after_head) as broken, ScriptedNode() as good:
            for router, node in ((one, broken), (two, good)):
                announce(router.subscriptions, "foo.com", node.address)
                router.wait_for_nodes("foo.com", 1)
            announce(two.subscriptions, "bar.com", good.address)
            two.wait_for_nodes("bar.com", 1)
            with Nginx("both", more=upstream.format(one.address, two.address)) as nginx:
                for method in ("GET", "POST"):
                    assert http_request(nginx.port, method, "/", "foo.com").status == 502
                    assert http_request(nginx.port, method, "/", "bar.com").status == 200
            assert len(broken.connections) == len(good.connections) == 2


@pytest.mark.slow
def test_a_folder_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"error-pages: .*nowhere: No such file"):
        Router(error_pages=tmp_path / "nowhere")


def test_a_broken_answer_ends_in_a_reset(shared: OneRouter) -> None:
    with ScriptedNode(answer_then_reset(HELLO)) as node:
        shared.table({"foo.com": [Node(node.address)]})
        with connect(shared.address) as client:
            client.sendall(GET)
            assert ends_in_a_reset(client)


def test_a_reset_that_comes_with_the_last_bytes_is_seen(shared: OneRouter) -> None:
    go = threading.Event()
    with ScriptedNode(when(go, answer_then_reset(HELLO))) as node:
        shared.table({"foo.com": [Node(node.address)]})
        with connect(shared.address) as client:
            client.sendall(GET)
            wait_for(lambda: node.connections and node.connections[0].head == GET, "the node to be asked")
            freeze(shared.process.pid)
            try:
                go.set()
                wait_for(lambda: node.connections[0].sock.fileno() < 0, "the reset")
            finally:
                os.kill(shared.process.pid, signal.SIGCONT)
            assert ends_in_a_reset(client)


def test_a_reset_after_a_body_that_the_node_did_not_read_is_a_good_end(shared: OneRouter) -> None:
    def answer_and_read_nothing(connection: object) -> None:
        connection.sock.recv(len(POST))  # type: ignore[attr-defined]
        connection.sock.sendall(HELLO)  # type: ignore[attr-defined]
        wait_for(lambda: len(connection.sock.recv(100, socket.MSG_PEEK)) == 5, "the body")  # type: ignore[attr-defined]

    with ScriptedNode(answer_and_read_nothing) as node:
        shared.table({"foo.com": [Node(node.address)]})
        with connect(shared.address) as client:
            client.sendall(POST + b"hello")
            assert b"".join(iter(lambda: client.recv(1000), b"")) == HELLO
