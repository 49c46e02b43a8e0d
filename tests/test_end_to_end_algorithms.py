"""Algorithms with real requests, through two router processes: where they come from, that all agree, what each does."""

import os
import signal
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from clients import announce, ask, request, withdraw
from one_router import OneRouter
from router.node import Node
from scripted import ScriptedNode, answer, connect, wait_for, when
from servers import Router

pytestmark = pytest.mark.slow  # several processes for each test


def letters(stack: ExitStack, count: int) -> list[ScriptedNode]:
    """Nodes that answer A, B and so on."""
    return [stack.enter_context(ScriptedNode(answer(bytes([ord("A") + n])))) for n in range(count)]


def test_all_router_processes_send_a_client_to_the_same_node_again_after_a_restart() -> None:
    with ExitStack() as stack:
        nodes = letters(stack, 3)
        seen: list[dict[int, set[bytes]]] = []
        for _ in range(2):
            with Router(processes=2, algorithm="iphash") as router:
                for node in nodes:
                    announce(router.subscriptions, "foo.com", node.address)
                router.wait_for_nodes("foo.com", 3)
                router.settle()
                clients = {n: request("foo.com", REMOTE_ADDR=f"10.0.0.{n}") for n in range(40)}
                seen.append({n: {ask(router.address, data) for _ in range(4)} for n, data in clients.items()})
                assert router.pool("foo.com")["algo"] == "iphash"
        assert seen[0] == seen[1]
        assert all(len(answers) == 1 for answers in seen[0].values())
        assert {letter for answers in seen[0].values() for letter in answers} == {b"A", b"B", b"C"}


@pytest.mark.parametrize("algorithm", ["lrc", "wlrc", "p2c", "hash:HTTP_X_USER"])
def test_shares_through_two_processes(algorithm: str) -> None:
    """300 requests without a word to hash, nodes of 1:1:2, 0.001 of chi-square with 2 degrees of freedom."""
    with ExitStack() as stack:
        nodes = letters(stack, 3)
        router = stack.enter_context(Router(processes=2, algorithm=algorithm))
        for node, weight in zip(nodes, (1, 1, 2), strict=True):
            announce(router.subscriptions, "foo.com", node.address, weight=weight)
        router.wait_for_nodes("foo.com", 3)
        router.settle()
        taken = Counter(ask(router.address, request("foo.com")) for _ in range(300))
        expected = {b"A": 100, b"B": 100, b"C": 100} if algorithm == "lrc" else {b"A": 75, b"B": 75, b"C": 150}
        if algorithm.startswith("hash"):  # the points' own unevenness comes on top
            assert all(abs(taken[letter] / number - 1) < 0.5 for letter, number in expected.items())
        else:
            assert sum((taken[letter] - number) ** 2 / number for letter, number in expected.items()) < 13.8


def test_a_pool_has_the_algorithm_that_its_first_announcement_says() -> None:
    with ExitStack() as stack:
        first, second = letters(stack, 2)
        router = stack.enter_context(Router(processes=2, algorithm="lrc"))
        announce(router.subscriptions, "foo.com", first.address, algo="iphash")
        router.wait_for_nodes("foo.com", 1)
        announce(router.subscriptions, "foo.com", second.address, algo="wrr")
        announce(router.subscriptions, "bar.com", second.address)
        announce(router.subscriptions, "baz.com", second.address, algo="fair")
        for key in ("bar.com", "baz.com"):
            router.wait_for_nodes(key, 1)
        router.wait_for_nodes("foo.com", 2)
        router.settle()
        assert [router.pool(key)["algo"] for key in ("foo.com", "bar.com", "baz.com")] == ["iphash", "lrc", "lrc"]
        (source,) = router.stats()["sources"]
        assert source["rejected"] == {"unknown algorithm": 1}
        data = request("foo.com", REMOTE_ADDR="10.0.0.1")
        assert len({ask(router.address, data) for _ in range(20)}) == 1


def test_a_router_that_starts_later_takes_the_algorithm_of_the_pool() -> None:
    """Its first node is another one than that which opened the pool."""
    with ExitStack() as stack:
        nodes = letters(stack, 3)
        router = stack.enter_context(Router(processes=1))
        for node, algo in zip(nodes, ("iphash", "wrr", "wrr"), strict=True):
            announce(router.subscriptions, "foo.com", node.address, algo=algo)
            wait_for(lambda: node.address in router.nodes("foo.com"), "the node to be known")  # noqa: B023
        withdraw(router.subscriptions, "foo.com", nodes[0].address)
        router.wait_for_nodes("foo.com", 2)
        router.settle()
        (pid,) = router.pids().values()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: router.pids() and pid not in router.pids().values(), "another process")
        data = request("foo.com", REMOTE_ADDR="10.0.0.1")
        assert len({ask(router.address, data) for _ in range(12)}) == 1


def test_the_load_that_a_worker_announces_steers_all_processes() -> None:
    with ExitStack() as stack:
        nodes = letters(stack, 2)
        router = stack.enter_context(Router(processes=2, algorithm="load"))
        for node in nodes:
            announce(router.subscriptions, "foo.com", node.address, cores=2, load=0)
        router.wait_for_nodes("foo.com", 2)
        router.settle()
        assert {ask(router.address, request("foo.com")) for _ in range(12)} == {b"A", b"B"}
        for load, busy, free in ((100, 0, b"B"), (0, 1, b"A")):
            announce(router.subscriptions, "foo.com", nodes[0].address, cores=2, load=load)
            announce(router.subscriptions, "foo.com", nodes[1].address, cores=2, load=50)
            wait_for(
                lambda: {ask(router.address, request("foo.com")) for _ in range(12)} == {free},  # noqa: B023
                f"node {busy} to be left alone",
            )
        new = [line for line in router.lines if "new node" in line]
        assert len(new) == 2, "a load is not logged"


def test_a_fresh_table_has_the_loads() -> None:
    with ScriptedNode(answer(b"A")) as busy, ScriptedNode(answer(b"B")) as free, OneRouter(algorithm="load") as router:
        router.table({"foo.com": [Node(busy.address), Node(free.address)]})
        router.tell(loads=[["foo.com", busy.address, 9, 1], ["gone.com", ":1", 1, 1], ["foo.com", ":1", 1, 1]])
        router.counts()
        assert {ask(router.address, request("foo.com")) for _ in range(8)} == {b"B"}


def test_least_requests_go_where_the_answers_are_fast() -> None:
    released: Any = threading.Event()
    with (
        ScriptedNode(when(released, answer(b"A"))) as slow,
        ScriptedNode(answer(b"B")) as fast,
        OneRouter(algorithm="lrc", max_connections=5) as router,
        ExitStack() as stack,
    ):
        router.table({"foo.com": [Node(slow.address), Node(fast.address)]})
        held = []
        while len(slow.connections) < 1:
            held.append(stack.enter_context(connect(router.address)))
            held[-1].sendall(request("foo.com"))
            wait_for(lambda: len(slow.connections) + len(fast.connections) == len(held), "it to arrive")
        assert len(held) <= 2
        assert [ask(router.address, request("foo.com")) for _ in range(50)] == [b"B"] * 50
        released.set()
        router.wait_idle()
        assert {ask(router.address, request("foo.com")) for _ in range(4)} == {b"A", b"B"}
