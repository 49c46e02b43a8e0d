"""Several router processes under one supervisor: all know every node, none is missed when it dies, all end in order."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from clients import Load, announce, ask, request
from scripted import HELLO, NodeConnection, ScriptedNode, answer, freeze, wait_for
from servers import Nginx, Router, Worker, better, needs_nginx

pytestmark = pytest.mark.slow  # several processes for each test

GET = request("foo.com")


@pytest.fixture
def router() -> Iterator[Router]:
    with Router(processes=2) as router:
        yield router


@contextmanager
def served(router: Router) -> Iterator[ScriptedNode]:
    with ScriptedNode(answer(HELLO)) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        yield node


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """What runs inside this can only be the work of other processes."""
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_each_router_process_knows_every_node(router: Router) -> None:
    with served(router):
        for pid in router.pids().values():
            with frozen(pid):
                assert [ask(router.address, GET) for _ in range(10)] == [HELLO] * 10


def test_a_router_process_that_was_frozen_learns_what_it_missed(router: Router) -> None:
    first, second = router.pids().values()
    with frozen(first), ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        wait_for(lambda: ask(router.address, GET) == HELLO, "the other process to learn it")
        os.kill(first, signal.SIGCONT)
        with frozen(second):
            wait_for(lambda: ask(router.address, GET) == HELLO, "the frozen process to learn it")


@better("only the first process counts in stats")
def test_stats_of_all_processes_add_up_exactly(router: Router) -> None:
    with served(router) as node, ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: ask(router.address, GET), range(400)))
        assert answers == [HELLO] * 400
        router.wait_idle()
        stats = router.nodes("foo.com")[node.address]
        assert (stats["requests"], stats["tx"], stats["rx"]) == (400, 400 * len(HELLO), 400 * len(GET))
        assert router.pool("foo.com")["hits"] == 400


@needs_nginx
@better("a respawned router starts without a map")
def test_a_killed_router_process_costs_no_more_than_its_requests_in_flight(router: Router) -> None:
    server = router.subscriptions
    with Nginx(router.address) as nginx, Worker(server, name="one"), Worker(server, name="two"):
        router.wait_for_nodes("foo.com", 2)
        with Load(nginx.port) as load:
            load.more(50)
            killed = router.pids()[1]
            os.kill(killed, signal.SIGKILL)
            router.wait_line(r"respawned uWSGI fastrouter 1 \(pid: \d+\)")
            load.more(100)
            lost = len(load.failures)
            load.more(100)
            load.stop()
        assert router.pids()[1] != killed
        assert lost <= load.clients
        assert load.failures[lost:] == []
        with frozen(router.pids()[2]):
            assert b"200 OK" in ask(router.address, GET)


@better("the only process has no map until the next announcement")
def test_a_replaced_router_process_has_the_whole_map_before_it_accepts() -> None:
    with Router() as router, served(router), ThreadPoolExecutor(8) as clients:
        for index in range(200):
            announce(router.subscriptions, f"{index}.foo.com", "127.0.0.1:9")
        router.wait_for_nodes("199.foo.com", 1)
        os.kill(router.pids()[1], signal.SIGKILL)
        # These wait in the backlog of the listener, which the supervisor keeps open, for the next process.
        assert list(clients.map(lambda _: ask(router.address, GET), range(20))) == [HELLO] * 20
        router.wait_line(r"respawned uWSGI fastrouter 1 ")


def test_routers_go_on_while_the_supervisor_is_frozen(router: Router) -> None:
    with served(router), frozen(router.pid):
        assert [ask(router.address, GET) for _ in range(20)] == [HELLO] * 20


@better("routers whose master is gone go on for ever")
def test_routers_without_a_supervisor_finish_their_requests_and_end(router: Router) -> None:
    with in_flight(router) as (node, asked, release):
        router.send_signal(signal.SIGKILL)
        wait_for(lambda: not connects(router.address), "the listener to close")
        release()
        assert asked() == HELLO
        wait_for(lambda: not any(alive(pid) for pid in router.pids().values()), "the routers to end")
        assert len(node.connections) == 1


@better("2.0 takes SIGTERM for a reload, and INT cuts what is in flight")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_lets_requests_in_flight_finish(router: Router, number: signal.Signals) -> None:
    with in_flight(router) as (_, asked, release):
        router.send_signal(number)
        wait_for(lambda: not connects(router.address), "the listener to close")
        release()
        assert asked() == HELLO
        assert router.wait() == 0


def test_a_second_signal_ends_at_once(router: Router) -> None:
    with in_flight(router) as (_, asked, _release):
        router.send_signal(signal.SIGINT)
        if not_yet_gone := router.returncode is None:
            wait_for(lambda: not connects(router.address), "the listener to close")
        if not_yet_gone and router.returncode is None:
            router.send_signal(signal.SIGINT)
        router.wait(5)
        assert asked() == b""


@contextmanager
def in_flight(router: Router) -> Iterator[tuple[ScriptedNode, Callable[[], bytes], Callable[[], None]]]:
    """A request that its node holds: (node, the answer once there is one, what lets the node answer HELLO)."""
    released = threading.Event()

    def held(connection: NodeConnection) -> None:
        connection.read_head()
        released.wait(10)
        connection.send(HELLO)

    with ScriptedNode(held) as node, ThreadPoolExecutor() as client:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        asked = client.submit(ask, router.address, GET)
        wait_for(lambda: node.connections and node.connections[0].head == GET, "the request at its node")
        try:
            yield node, asked.result, released.set
        finally:
            released.set()


def connects(address: str) -> bool:
    try:
        ask(address, b"", timeout=0.2)
    except TimeoutError:
        return True
    except ConnectionRefusedError:
        return False
    return True


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
