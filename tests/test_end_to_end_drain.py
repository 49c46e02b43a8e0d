"""Nodes that are drained, withdrawn or ejected while requests are in flight: the commands against a whole router."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from clients import announce, ask, read_to_end, request, withdraw
from router.ask import ask as ask_admin
from router.operate import STILL_IN_FLIGHT, drain, eject, undrain
from scripted import HELLO, ScriptedNode, answer, connect, freeze, wait_for, when
from servers import FASTROUTER, Router, free_address

pytestmark = pytest.mark.skipif(FASTROUTER, reason="the real fastrouter has no admin API")
GET = request("foo.com")


class Scene:
    """A router of two processes; foo.com has a node that holds its requests until `release`, and one that does not."""

    def __init__(self, router: Router, admin: str) -> None:
        self.router, self.admin = router, admin
        self.release = threading.Event()
        self.slow = ScriptedNode(when(self.release, answer()))
        self.quick = ScriptedNode()

    def fill(self) -> None:
        announce(self.router.subscriptions, "foo.com", self.slow.address)
        self.router.wait_for_nodes("foo.com", 1)

    def join(self) -> None:
        announce(self.router.subscriptions, "foo.com", self.quick.address)
        self.router.wait_for_nodes("foo.com", 2)

    def command(self, main: object, *words: str) -> int:
        assert callable(main)
        status: int = main([*words, "--admin", self.admin])
        return status

    def pids(self) -> set[int]:
        """Those of both router processes."""

        def found() -> set[int]:
            return {row["pid"] for row in self.router.stats()["routers"] if row["pid"]}

        wait_for(lambda: len(found()) == 2, "two routers to run")
        return found()

    def asked(self) -> int:
        """Requests that the quick node got of ten."""
        before = len(self.quick.connections)
        assert all(ask(self.router.address, GET) == HELLO for _ in range(10))
        return len(self.quick.connections) - before


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Router, str]]:
    admin = free_address()
    with Router(admin=admin, processes=2) as router:
        yield router, admin


@pytest.fixture
def scene(served: tuple[Router, str]) -> Iterator[Scene]:
    scene = Scene(*served)
    with scene.slow, scene.quick:
        scene.fill()
        yield scene
        scene.release.set()
        for node in (scene.slow, scene.quick):
            withdraw(scene.router.subscriptions, "foo.com", node.address)
        scene.router.wait_for_nodes("foo.com", 0)


def test_a_drained_node_finishes_its_requests_and_gets_no_new_ones(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    address = scene.slow.address
    with connect(scene.router.address) as client:
        client.sendall(GET)
        wait_for(lambda: scene.slow.connections, "the request")
        scene.join()
        assert scene.command(drain, address, "--wait", "0.1") == STILL_IN_FLIGHT
        assert capsys.readouterr().out == f"node {address}: drained, 1 in flight\n"
        scene.router.settle()
        assert scene.asked() == 10
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(scene.command, drain, address, "--wait")
            scene.release.set()
            assert read_to_end(client) == HELLO
            assert waiting.result(30) == 0
    assert capsys.readouterr().out == f"node {address}: drained, 0 in flight\n"
    announce(scene.router.subscriptions, "foo.com", address)
    assert scene.asked() == 10, "an announcement ends no drain"
    assert scene.command(undrain, address, "--json") == 0
    assert json.loads(capsys.readouterr().out)["drains"][0]["drained"] is False
    scene.router.settle()
    assert scene.asked() < 10
    scene.router.wait_line(f"^node {address} is drained no longer$")


def test_a_node_that_unsubscribes_finishes_its_requests(scene: Scene) -> None:
    with connect(scene.router.address) as client:
        client.sendall(GET)
        wait_for(lambda: scene.slow.connections, "the request")
        scene.join()
        withdraw(scene.router.subscriptions, "foo.com", scene.slow.address)
        scene.router.wait_for_nodes("foo.com", 1)
        assert scene.asked() == 10
        scene.release.set()
        assert read_to_end(client) == HELLO


def test_a_drained_key_is_refused_until_it_is_undrained(scene: Scene) -> None:
    scene.release.set()
    assert scene.command(drain, "foo.com") == 0
    scene.router.settle()
    assert ask(scene.router.address, GET) != HELLO
    assert ask_admin(scene.admin, "lookup", {"key": "foo.com"})["reasons"] == ["the key is drained"]
    assert scene.command(undrain, "foo.com") == 0
    scene.router.settle()
    assert ask(scene.router.address, GET) == HELLO


def test_a_router_process_that_comes_later_knows_what_is_drained(scene: Scene) -> None:
    scene.join()
    assert scene.command(drain, scene.slow.address) == 0
    before = scene.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not scene.pids() & before, "both to be replaced")
    scene.router.settle()
    assert scene.asked() == 10
    assert scene.command(undrain, scene.slow.address) == 0


def test_an_ejected_node_is_tried_by_one_request_in_each_router_when_its_time_is_up(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.join()
    assert scene.command(eject, scene.slow.address, "--for", "1") == 0
    assert capsys.readouterr().out == f"node {scene.slow.address}: ejected for 1 s, 0 in flight\n"
    scene.router.settle()
    with ExitStack() as stack:

        def tried() -> int:
            client = stack.enter_context(connect(scene.router.address))
            client.sendall(GET)
            return len(scene.slow.connections)

        for trials, frozen in enumerate(scene.pids(), 1):
            freeze(frozen)
            try:
                wait_for(lambda trials=trials: tried() == trials, "the other one's trial")  # type: ignore[misc]
            finally:
                os.kill(frozen, signal.SIGCONT)
        for _ in range(3):
            scene.asked()  # all of them are answered
        assert len(scene.slow.connections) == 2
        scene.release.set()
        wait_for(lambda: scene.asked() < 10, "the node to be in turn again")


def test_what_cannot_be_done_is_said_in_a_line(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert scene.command(eject, "nobody.com") == 2
    assert capsys.readouterr().err == f"gfrouter: gfrouter at {scene.admin} refuses: nobody knows 'nobody.com'\n"
