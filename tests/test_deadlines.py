"""The time limits of sessions, against clients and nodes that drip."""

from __future__ import annotations

import time

import pytest

from clients import ask, read_to_end, request
from one_router import OneRouter
from router.deadlines import Limits
from router.node import Node
from router.options import Options
from scripted import HELLO, ScriptedNode, answer, answer_slowly, connect, ends_in_a_reset, hang

pytestmark = pytest.mark.slow  # each waits for a limit of a second or two

GET = request("foo.com")
DRIP = 0.2  # seconds between two bytes, far below each limit


def drip(router: OneRouter, begin: bytes, rest: bytes) -> tuple[bytes, int]:
    """Sends `begin`, then the rest a byte a moment until there is an answer; that, and the bytes dripped."""
    with connect(router.address) as client:
        client.sendall(begin)
        client.settimeout(DRIP)
        for sent in range(len(rest)):
            client.send(rest[sent : sent + 1])
            try:
                first = client.recv(1000)
            except TimeoutError:
                continue
            return first + read_to_end(client), sent
    raise AssertionError("no limit")


def test_limits_are_those_of_the_options() -> None:
    assert Limits.of(Options()) == Limits(head=10, connect=3, first_byte=60, idle=60, session=0, queue=5)
    assert Limits.of(Options(timeout=4, session_timeout=2, first_byte_timeout=9)) == Limits(2, 3, 9, 4, 2, 5)


def test_a_head_that_drips_is_ended_whatever_the_idle_limit() -> None:
    with OneRouter(error_pages="on", head_timeout=1, timeout=60) as router:
        router.table({})
        answered, _ = drip(router, b"", GET)
        assert answered.startswith(b"HTTP/1.1 400") and b"head timeout" in answered
        assert router.wait_idle()["complaints"] == {"head timeout": 1}


def test_a_body_that_drips_is_no_silence_of_the_node_and_ends_with_the_session() -> None:
    with OneRouter(error_pages="on", first_byte_timeout=1, timeout=60, session_timeout=3) as router:
        with ScriptedNode(hang) as node:
            router.table({"foo.com": [Node(node.address)]})
            answered, sent = drip(router, request("foo.com", method="POST", length=1000), bytes(1000))
            assert answered.startswith(b"HTTP/1.1 504") and b"session timeout" in answered
            assert sent > 5
            router.wait_idle()


def test_an_upload_that_pauses_is_no_silence_of_the_node() -> None:
    with OneRouter(error_pages="on", first_byte_timeout=1, timeout=60) as router:
        with ScriptedNode(answer(HELLO, body=2)) as node:
            router.table({"foo.com": [Node(node.address)]})
            with connect(router.address) as client:
                client.sendall(request("foo.com", method="POST", length=2))
                time.sleep(3)
                client.sendall(b"a")
                time.sleep(3)
                client.sendall(b"b")
                assert read_to_end(client) == HELLO


def test_a_node_has_its_own_limit_for_the_first_byte() -> None:
    with OneRouter(error_pages="on", first_byte_timeout=1, timeout=60) as router:
        with ScriptedNode(hang) as node:
            router.table({"foo.com": [Node(node.address)]})
            assert ask(router.address, GET).startswith(b"HTTP/1.1 504")
            assert router.wait_idle()["complaints"] == {"timeout": 1}


def test_an_answer_that_drips_outlives_the_idle_limit_and_not_that_of_the_session() -> None:
    with OneRouter(error_pages="on", timeout=1, session_timeout=4) as router:
        with ScriptedNode(answer_slowly(bytes(1000), 1, DRIP)) as node:
            router.table({"foo.com": [Node(node.address)]})
            began = time.monotonic()
            with connect(router.address) as client:
                client.sendall(GET)
                assert client.recv(1)
                assert ends_in_a_reset(client)
            assert time.monotonic() - began >= 4
            assert router.wait_idle()["complaints"] == {"session timeout": 1}
