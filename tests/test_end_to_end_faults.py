"""Workers that die, freeze, join and leave while requests run: a GET that nobody began to answer goes to another one.

Behind nginx stand real uWSGI workers under load; the exact misbehaviours (a close, a reset, half an answer) are played
by scripted nodes, asked in raw uwsgi, so that each test can say who saw which request.
"""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import Load, announce, ask, read_to_end, request, withdraw
from scripted import (
    HELLO,
    Blackhole,
    NodeConnection,
    Script,
    ScriptedNode,
    answer,
    answer_early,
    answer_then_reset,
    close_after_head,
    close_at_once,
    connect,
    hang,
    reset_after_head,
    reset_at_once,
    wait_for,
    when,
)
from servers import Nginx, Router, Worker, better, free_address, needs_nginx

pytestmark = pytest.mark.slow  # a router, and often workers, for each test

MIB = 1 << 20
GET = request("foo.com")
OTHER = b"HTTP/1.1 200 OK\r\n\r\nthe other one"


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router
        router.wait_idle()


@contextmanager
def loaded(router: Router) -> Iterator[tuple[Worker, Worker, Load]]:
    """Two workers behind nginx, both answering under load when this yields; the load is stopped at the end."""
    server = router.subscriptions
    with Nginx(router.address) as nginx, Worker(server, name="one") as one, Worker(server, name="two") as two:
        router.wait_for_nodes("foo.com", 2)
        with Load(nginx.port) as load:
            load.more(10, "one")
            load.more(10, "two")
            yield one, two, load


@needs_nginx
@better("an empty reply for each request inside the killed worker")
def test_no_get_fails_when_a_worker_is_killed(router: Router) -> None:
    with loaded(router) as (one, _, load):
        one.kill()
        load.more(100)
        load.stop()
        assert load.failures == []


@needs_nginx
@better("an empty reply for each request inside the killed worker")
def test_a_killed_worker_that_comes_back_is_used_again(router: Router) -> None:
    with loaded(router) as (one, _, load):
        one.kill()
        load.more(50)
        with Worker(router.subscriptions, name="one again", address=one.address):
            # So many resets in a row eject it, if they are read before a connection is refused: for up to 45 s.
            load.more(20, "one again", timeout=60)
        load.more(20, "two")
        load.stop()
        assert load.failures == []


@needs_nginx
@better("an empty reply for each request inside the leaving worker")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_get_fails_when_a_worker_leaves(router: Router, number: signal.Signals) -> None:
    with loaded(router) as (one, _, load):
        one.send_signal(number)
        router.wait_for_nodes("foo.com", 1)
        load.more(100)
        load.stop()
        assert load.failures == []


@needs_nginx
@better("an empty reply for each request inside a leaving worker")
def test_no_get_fails_while_workers_come_and_go(router: Router) -> None:
    # One leaves at a time: a GET is sent once more, not twice, so one that two leaving workers cut in turn may fail.
    with loaded(router) as (one, two, load):
        with Worker(router.subscriptions, name="three") as three:
            load.more(20, "three")
            leave(router, one, load, left=2)
            with Worker(router.subscriptions, name="four"):
                load.more(20, "four")
                leave(router, two, load, left=2)
                leave(router, three, load, left=1)
                load.more(20, "four")
                load.stop()
        assert load.failures == []


@needs_nginx
@pytest.mark.slow
def test_a_frozen_worker_costs_its_requests_the_time_limit_and_the_others_nothing() -> None:
    with Router(timeout=1, gracetime=1) as router, loaded(router) as (one, _, load):
        one.send_signal_to_all(signal.SIGSTOP)
        wait_for(lambda: len(load.failures) >= 4, "nginx to get an answer for what waits in the frozen worker")
        load.more(20, "two")
        one.send_signal_to_all(signal.SIGCONT)
        load.more(20, "one")
        load.stop()
        assert {failure.split()[0] for failure in load.failures} <= {"502", "504"}
        router.wait_idle()


def test_requests_in_flight_of_an_unsubscribed_node_finish(router: Router) -> None:
    released = threading.Event()
    with ScriptedNode(when(released, answer(HELLO))) as node, ThreadPoolExecutor() as pool:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        asked = [pool.submit(ask, router.address, GET) for _ in range(5)]
        wait_for(lambda: len(node.connections) == 5, "five requests at the node")
        withdraw(router.subscriptions, "foo.com", node.address)
        router.wait_line(rf"foo\.com => marking {node.address} as failed")
        assert ask(router.address, GET) == b""
        released.set()
        assert [each.result() for each in asked] == [HELLO] * 5
        assert len(node.connections) == 5
        # The real one drops the empty pool only when a request looks at it.
        wait_for(lambda: not ask(router.address, GET) and not router.pool("foo.com"), "the empty pool to go")


def test_a_node_that_refuses_is_named_marked_and_another_one_answers(router: Router) -> None:
    refused = free_address()
    with beside(router, refused):
        assert asked(router, 10) == {OTHER}
        router.wait_line(rf'unable to connect\(\) to node "{refused}" \(\d+ retries\): Connection refused')
        router.wait_line(rf"\[uwsgi-fastrouter\] foo\.com => marking {refused} as failed")


@better("waits out the whole idle limit, then closes, marks nothing")
def test_a_node_that_swallows_connects_is_left_for_another_one() -> None:
    with Router(connect_timeout=1, timeout=5) as router, Blackhole() as hole, beside(router, hole.address):
        assert asked(router, 10) == {OTHER}
        router.wait_idle()


@better("a missing unix socket closes without mark or retry")
def test_a_missing_unix_socket_is_left_for_another_node(router: Router, tmp_path: Path) -> None:
    missing = str(tmp_path / "gone.sock")
    with beside(router, missing):
        assert asked(router, 10) == {OTHER}
        router.wait_line(rf'unable to connect\(\) to node "{missing}" \(\d+ retries\): No such file or directory')


@better("a full backlog closes without retry")
def test_a_full_unix_backlog_is_left_for_another_node(router: Router, tmp_path: Path) -> None:
    full = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(full)
        listener.listen(0)
        waiting.connect(full)
        with beside(router, full):
            assert asked(router, 10) == {OTHER}


def test_when_every_node_refuses_the_connection_is_closed(router: Router) -> None:
    for _ in range(3):
        announce(router.subscriptions, "foo.com", free_address())
    router.wait_for_nodes("foo.com", 3)
    assert ask(router.address, GET) == b""


@better("closes with 0 bytes")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("script", [close_after_head, reset_after_head, close_at_once, reset_at_once])
def test_a_bodyless_request_that_its_node_dropped_goes_to_another_one(
    router: Router, script: Script, method: str
) -> None:
    with ScriptedNode(script) as dropping, beside(router, dropping.address):
        assert asked(router, 4, method) == {OTHER}
        assert dropping.connections


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_may_have_had_an_effect_is_never_sent_twice(router: Router, method: str) -> None:
    assert_goes_once(router, close_after_head, request("foo.com", method=method), b"")


def test_a_get_with_a_body_is_never_sent_twice(router: Router) -> None:
    assert_goes_once(router, close_after_head, request("foo.com", length=5) + b"12345", b"")


def test_a_get_that_has_been_answered_in_part_is_never_sent_twice(router: Router) -> None:
    assert_goes_once(router, answer_then_reset(HELLO[:20]), GET, HELLO[:20])


@better("sends nothing twice")
def test_a_dropped_get_goes_once_more_and_not_again(router: Router) -> None:
    with ScriptedNode(close_after_head) as one, ScriptedNode(close_after_head) as two:
        with ScriptedNode(close_after_head) as three:
            nodes = (one, two, three)
            for node in nodes:
                announce(router.subscriptions, "foo.com", node.address)
            router.wait_for_nodes("foo.com", 3)
            assert ask(router.address, GET) == b""
            assert sorted(len(node.connections) for node in nodes) == [0, 1, 1]


def test_a_silent_node_is_given_up_after_the_time_limit() -> None:
    with Router(timeout=1) as router, ScriptedNode(hang) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == b""
        wait_for(lambda: node.connections[0].eof, "the node to see the end of the connection")
        router.wait_idle()


@better("half duplex: both sides wait for each other until the time limit")
def test_a_node_may_answer_20_mib_while_it_is_sent_20_mib(router: Router) -> None:
    body, early = bytes(20 * MIB), HELLO + bytes(20 * MIB)

    def both_ways(connection: NodeConnection) -> None:
        sender = threading.Thread(target=connection.send, args=(early,))
        connection.read_head()
        sender.start()
        sender.join()  # reads nothing before everything is sent
        connection.read_body(len(body))

    with ScriptedNode(both_ways) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert exchange(router.address, request("foo.com", method="POST", length=len(body)), body) == early
        assert len(node.connections[0].body) == len(body)


def test_an_answer_before_the_end_of_the_body_reaches_the_client(router: Router) -> None:
    with ScriptedNode(answer_early(HELLO)) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        with connect(router.address) as client:
            client.sendall(request("foo.com", method="POST", length=1000) + b"the first half")
            assert client.recv(len(HELLO), socket.MSG_WAITALL) == HELLO


def leave(router: Router, worker: Worker, load: Load, left: int) -> None:
    """Stops a worker as an operator would, and waits until what it was doing is done elsewhere."""
    worker.send_signal(signal.SIGINT)
    router.wait_for_nodes("foo.com", left)
    load.more(50)


@contextmanager
def beside(router: Router, address: str) -> Iterator[ScriptedNode]:
    """The pool of foo.com: the node at `address`, and one that always answers OTHER."""
    with ScriptedNode(answer(OTHER)) as node:
        announce(router.subscriptions, "foo.com", address)
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 2)
        yield node


def asked(router: Router, times: int, method: str = "GET") -> set[bytes]:
    """The distinct answers to `times` requests, one after the other: both nodes get their turns."""
    return {ask(router.address, request("foo.com", method=method)) for _ in range(times)}


def assert_goes_once(router: Router, script: Script, packet: bytes, expected: bytes) -> None:
    """Asks until the scripted node has had its turn; its client got `expected`, and the other node nothing of it."""
    with ScriptedNode(script) as dropping, beside(router, dropping.address) as other:
        answers = []
        while not dropping.connections:
            answers.append(ask(router.address, packet))
        assert answers[-1] == expected
        assert len(other.connections) == len(answers) - 1
        router.wait_idle()
        assert len(dropping.connections) == 1


def exchange(address: str, head: bytes, body: bytes) -> bytes:
    """Sends and reads at once, each in its own thread, as a client that is ready for an early answer."""
    with connect(address) as sock, ThreadPoolExecutor() as pool:
        sent = pool.submit(sock.sendall, head + body)
        answered = read_to_end(sock)
        sent.result()
        return answered
