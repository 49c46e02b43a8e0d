"""Requests that may go to another node once one took them and said nothing."""

from contextlib import ExitStack

import pytest

from clients import ask, read_to_end, request
from one_router import OneRouter, refused_address
from router.budget import LEAST, WINDOW
from router.node import Node
from scripted import HELLO, NodeConnection, ScriptedNode, answer, answer_slowly, close_after_head, connect, wait_for

GET = request("foo.com")


def serving(router: OneRouter, *nodes: ScriptedNode) -> None:
    router.table({"foo.com": [Node(node.address) for node in nodes]})


def close_after_three(connection: NodeConnection) -> None:
    connection.read_body(3)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (request("foo.com", method="POST"), b""),
        (request("foo.com", method="POST", length=3), b"abc"),
        (request("foo.com", HTTP_TRANSFER_ENCODING="chunked"), b"3\r\nabc\r\n"),
        (GET, b""),
    ],
)
def test_with_all_unsent_what_was_sent_with_the_head_is_sent_once_more(head: bytes, body: bytes) -> None:
    good_answer = answer(body=len(body))
    with OneRouter(retry="all-unsent") as router, ScriptedNode(close_after_head) as bad:
        with ScriptedNode(good_answer) as good:
            serving(router, bad, good)
            for _ in range(4):
                assert ask(router.address, head, body) == HELLO
            assert bad.connections
            assert {bytes(one.received) for one in good.connections} == {head + body}
            router.wait_idle()


def test_with_all_unsent_the_rest_of_a_body_goes_to_the_second_node_only() -> None:
    head = request("foo.com", method="POST", length=6)
    with OneRouter(retry="all-unsent") as router, ScriptedNode(close_after_three) as one:
        with ScriptedNode(answer(body=6)) as two:
            serving(router, one, two)
            for _ in range(2):  # one of them meets the bad node first
                with connect(router.address) as client:
                    client.sendall(head + b"abc")
                    wait_for(lambda: any(c.body == b"abc" and not c.eof for c in two.connections), "the second node")
                    client.sendall(b"def")
                    assert client.recv(1000) == HELLO
            assert {bytes(c.body) for c in two.connections} == {b"abcdef"}


def test_with_all_unsent_the_rest_of_a_body_is_still_awaited_when_both_nodes_have_broken_off() -> None:
    """What was sent twice counts once: to close on what is still to come might take the page away."""
    head = request("foo.com", method="POST", length=6)
    with OneRouter(retry="all-unsent", error_pages="on") as router, ExitStack() as stack:
        serving(router, *(stack.enter_context(ScriptedNode(close_after_three)) for _ in range(2)))
        with connect(router.address) as client:
            client.sendall(head + b"abc")
            assert read_to_end(client).startswith(b"HTTP/1.1 502 ")
            assert router.counts()["active"] == 1
        router.wait_idle()


def test_with_all_unsent_a_body_that_was_relayed_further_is_never_sent_twice() -> None:
    head = request("foo.com", method="POST", length=6)

    def close_after_six(connection: NodeConnection) -> None:
        connection.read_body(6)

    with OneRouter(retry="all-unsent") as router, ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(close_after_six)) for _ in range(2)]
        serving(router, *nodes)
        with connect(router.address) as client:
            client.sendall(head + b"abc")
            wait_for(lambda: any(c.body == b"abc" for node in nodes for c in node.connections), "the first part")
            client.sendall(b"def")
            assert client.recv(1000) == b""
        router.wait_idle()
        assert sum(len(node.connections) for node in nodes) == 1


def test_with_all_unsent_it_goes_to_a_second_node_but_not_to_a_third() -> None:
    with OneRouter(retry="all-unsent") as router, ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(close_after_head)) for _ in range(3)]
        serving(router, *nodes)
        assert ask(router.address, request("foo.com", method="POST")) == b""
        assert sum(len(node.connections) for node in nodes) == 2


def test_a_second_node_that_answers_in_pieces_is_not_taken_for_ended_as_the_first_one_has() -> None:
    with OneRouter() as router, ScriptedNode(close_after_head) as bad:
        with ScriptedNode(answer_slowly(HELLO, 10, 0.05)) as good:
            serving(router, bad, good)
            assert [ask(router.address, GET) for _ in range(2)] == [HELLO] * 2  # one of them meets the bad node first
            assert bad.connections


def test_connects_and_second_nodes_together_are_bounded_by_max_retries() -> None:
    with OneRouter(max_retries=1) as router, ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(close_after_head)) for _ in range(2)]
        backups = [Node(node.address, backup=1) for node in nodes]
        router.table({"foo.com": [Node(refused_address()), *backups]})
        assert ask(router.address, GET) == b""
        assert router.wait_idle()["complaints"] == {"unconnected": 1, "unanswered": 1}
        assert sum(len(node.connections) for node in nodes) == 1


def test_beyond_the_budget_a_request_that_was_taken_does_not_go_twice() -> None:
    """Both nodes break off, so each request wants a second one; connects that fail cost nothing of it."""
    count = 2 * LEAST * WINDOW
    with OneRouter(retry_budget=20, max_fails=0) as router, ExitStack() as stack:
        nodes = [stack.enter_context(ScriptedNode(close_after_head)) for _ in range(2)]
        serving(router, *nodes)
        for _ in range(count):
            assert ask(router.address, GET) == b""
        complaints = router.wait_idle()["complaints"]
        asked = sum(len(node.connections) for node in nodes)
        assert complaints["unanswered"] == asked
        assert count * 0.2 < asked - count <= count * 0.2 + 2 * LEAST * WINDOW
        assert complaints["retry budget"] == 2 * count - asked
