"""A client that leaves, in each phase of a request: its node is let go at once, nothing stays behind, others go on."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from clients import announce, ask, get, request
from scripted import (
    HELLO,
    NodeConnection,
    Script,
    ScriptedNode,
    answer,
    answer_slowly,
    close_after_head,
    connect,
    hang,
    wait_for,
)
from servers import Nginx, Router, needs_nginx

MIB = 1 << 20
HTTP = b"%s / HTTP/1.1\r\nHost: foo.com\r\nContent-Length: %d\r\n\r\n"
Way = tuple[str, bytes, bytes]  # where a client connects, and how it starts a GET and a POST of 10 MiB there


@pytest.fixture(params=["raw", pytest.param("nginx", marks=needs_nginx)])
def way(request: pytest.FixtureRequest, router: Router) -> Iterator[Way]:
    """Straight to the router, and through nginx, which leaves when its client leaves."""
    if request.param == "raw":
        yield router.address, GET, POST
        return
    with Nginx(router.address) as nginx:
        yield f"127.0.0.1:{nginx.streaming_port}", HTTP % (b"GET", 0), HTTP % (b"POST", 10 * MIB)


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router


GET = request("foo.com")
POST = request("foo.com", method="POST", length=10 * MIB)


@contextmanager
def node_of(router: Router, script: Script) -> Iterator[ScriptedNode]:
    with ScriptedNode(script, answer()) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        yield node


def first_connection(node: ScriptedNode) -> NodeConnection:
    """The node's end of the request, once the whole head is there."""
    wait_for(lambda: node.connections and len(node.connections[0].head) > 4, "the node to get the head")
    return node.connections[0]


def assert_let_go(router: Router, node: ScriptedNode) -> None:
    """The node has seen the end, no gauge is left up, and a request right after is served."""
    wait_for(lambda: node.connections[0].eof, "the node to see the end of the connection")
    router.wait_idle()
    assert ask(router.address, GET) == HELLO


@pytest.mark.parametrize("sent", [b"", GET[:1], GET[:3], GET[:4], GET[:-1]], ids=lambda sent: f"{len(sent)} bytes")
def test_leaving_before_the_head_is_whole_disturbs_nothing(router: Router, sent: bytes) -> None:
    with node_of(router, answer()) as node:
        with connect(router.address) as client:
            client.sendall(sent)
        router.wait_idle()
        assert ask(router.address, GET) == HELLO
        assert len(node.connections) == 1


def test_leaving_during_the_upload_ends_it_at_the_node(router: Router, way: Way) -> None:
    address, _, post = way
    with node_of(router, hang) as node:
        with connect(address) as client:
            client.sendall(post + bytes(MIB))
            connection = first_connection(node)
            wait_for(lambda: len(connection.body) == MIB, "the node to get what was sent")
        assert_let_go(router, node)
        assert len(connection.body) == MIB


def test_leaving_while_the_node_works_ends_it_there(router: Router, way: Way) -> None:
    address, get_request, _ = way
    with node_of(router, hang) as node:
        with connect(address) as client:
            client.sendall(get_request)
            first_connection(node)
        assert_let_go(router, node)


def test_leaving_during_the_answer_ends_it_at_the_node(router: Router, way: Way) -> None:
    address, get_request, _ = way
    endless = answer_slowly(HELLO + bytes(MIB), piece=1024, pause=0.005)
    with node_of(router, until_refused(endless)) as node:
        with connect(address) as client:
            client.sendall(get_request)
            assert client.recv(16)
        assert_let_go(router, node)


def test_a_reset_is_a_way_to_leave(router: Router) -> None:
    with node_of(router, hang) as node:
        client = connect(router.address)
        client.sendall(GET)
        first_connection(node)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert_let_go(router, node)


def test_a_client_that_stops_reading_and_leaves_is_let_go(router: Router) -> None:
    with node_of(router, until_refused(answer_slowly(bytes(50 * MIB), piece=MIB, pause=0))) as node:
        with connect(router.address) as client:
            client.sendall(GET)
            assert client.recv(16)
        assert_let_go(router, node)


def test_a_half_close_ends_the_session_even_while_the_node_works(router: Router) -> None:
    with node_of(router, hang) as node, connect(router.address) as client:
        client.sendall(GET)
        first_connection(node)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert_let_go(router, node)


def test_many_leave_at_once_and_the_rest_are_served(router: Router) -> None:
    with node_of(router, hang) as node:
        node.scripts = (hang,) * 50 + (answer(),)
        clients = [connect(router.address) for _ in range(50)]
        for client in clients:
            client.sendall(GET)
        wait_for(lambda: len(node.connections) == 50, "50 requests at the node")
        wait_for(lambda: all(connection.head for connection in node.connections), "their heads")
        assert router.nodes("foo.com")[node.address]["ref"] == 50
        for client in clients:
            client.close()
        assert_let_go(router, node)
        wait_for(lambda: all(connection.eof for connection in node.connections[:50]), "50 ends at the node")


@needs_nginx
def test_nginx_answers_502_when_the_node_says_nothing(router: Router) -> None:
    with node_of(router, close_after_head) as node, Nginx(router.address) as nginx:
        node.scripts = (close_after_head,)  # the repetition of a GET meets the same
        assert get(nginx.port).status == 502
        router.wait_idle()


def until_refused(script: Callable[[NodeConnection], None]) -> Script:
    """Plays `script`, and takes a refused send for the end of the connection, as a read would show it."""

    def play(connection: NodeConnection) -> None:
        try:
            script(connection)
        except ConnectionError:
            connection.eof = True

    return play
