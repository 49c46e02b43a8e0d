"""Routers behind routers, with nginx in front and real workers behind, the real fastrouter on either side."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clients import Load, announce, ask, get, request, withdraw
from router.operate import drain, undrain
from scripted import HELLO, ScriptedNode, wait_for
from servers import TESTS, Nginx, Process, Router, Worker, free_address, needs_nginx, router_command
from signed import keys, private

pytestmark = pytest.mark.slow

KEY = "foo.com"
SIGNING_UWSGI = TESTS.parent / "build" / "peers" / "uwsgi" / "bin" / "uwsgi"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pair(stack: ExitStack, outer_real: bool = False, inner_real: bool = False, **options: Any) -> tuple[Router, Router]:
    """(outer, inner); `options` are the inner one's."""
    outer = stack.enter_context(Router(fastrouter=outer_real))
    options.setdefault("resubscribe", [outer.subscriptions])
    return outer, stack.enter_context(Router(fastrouter=inner_real, **options))


def reaches(outer: Router, inner: Router, key: str = KEY) -> str:
    """Waits until both know a node of `key`; returns how the inner one is called."""
    (address,) = outer.wait_for_nodes(key, 1)
    inner.settle()
    return address


def gone(router: Router, key: str = KEY, timeout: float = 30) -> None:
    wait_for(lambda: not router.nodes(key), f"{key} to be gone", timeout)


# Chains.


@needs_nginx
@pytest.mark.parametrize(
    ("outer_real", "inner_real"),
    [(False, True), (True, False), (False, False)],
    ids=["gfrouter, fastrouter", "fastrouter, gfrouter", "gfrouter twice"],
)
def test_a_worker_behind_two_routers(stack: ExitStack, outer_real: bool, inner_real: bool) -> None:
    outer, inner = pair(stack, outer_real, inner_real)
    nginx = stack.enter_context(Nginx(outer.address))
    with Worker(inner.subscriptions) as worker:
        assert reaches(outer, inner) == inner.address
        answer = get(nginx.port)
        assert (answer.status, answer.worker) == (200, worker.name)
        worker.stop()
        gone(outer)
        assert get(nginx.port).status == 502


@pytest.mark.parametrize("outer_real", [True, False], ids=["fastrouter", "gfrouter"])
def test_only_the_last_of_the_nodes_takes_the_key_along(stack: ExitStack, outer_real: bool) -> None:
    outer, inner = pair(stack, outer_real)
    with ScriptedNode() as node:
        announce(inner.subscriptions, KEY, node.address, weight=2)
        announce(inner.subscriptions, KEY, "127.0.0.1:9", weight=3, backup=0)
        wait_for(lambda: [one["weight"] for one in outer.nodes(KEY).values()] == [5], "the sum")
        withdraw(inner.subscriptions, KEY, "127.0.0.1:9")
        wait_for(lambda: [one["weight"] for one in outer.nodes(KEY).values()] == [2], "the sum of the rest")
        inner.settle()
        assert ask(outer.address, request(KEY)) == HELLO
        withdraw(inner.subscriptions, KEY, node.address)
        gone(outer)


def test_nodes_of_other_sources_are_told_where_that_is_asked_for(stack: ExitStack, tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    with ScriptedNode() as node:
        nodes.write_text(f"{KEY} {node.address}\n")
        outer, inner = pair(stack, discovery=f"file://{nodes}")
        inner.wait_for_nodes(KEY, 1)
        announce(inner.subscriptions, "bar.com", node.address)
        outer.wait_for_nodes("bar.com", 1)
        assert not outer.nodes(KEY)
        everything = stack.enter_context(
            Router(discovery=f"file://{nodes}", resubscribe=[outer.subscriptions], resubscribe_keys="all")
        )
        reaches(outer, everything)
        assert ask(outer.address, request(KEY)) == HELLO


@pytest.mark.parametrize("form", ["ipv4", "ipv6", "name", "path", "abstract"])
def test_receivers_of_every_form(stack: ExitStack, form: str, tmp_path: Path) -> None:
    server = free_address(form, tmp_path)
    with Router(subscription_server=server, subscriptions=server) as outer, ScriptedNode() as node:
        port = free_address().rpartition(":")[2]
        inner = stack.enter_context(Router(address=f"127.0.0.1:{port}", listen=f":{port}", resubscribe=[server]))
        announce(inner.subscriptions, KEY, node.address)
        address = reaches(outer, inner)
        # Its listening socket has no host: the interface's is told. Of a name's two addresses it is the IPv4 one.
        assert address == (f"[::1]:{port}" if form == "ipv6" else f"127.0.0.1:{port}")
        if form != "ipv6":
            assert ask(outer.address, request(KEY)) == HELLO
        (row,) = inner.stats()["resubscribe"]
        assert (row["receiver"], row["address"], row["keys"], row["error"]) == (server, address, 1, "")
        assert row["sent"] >= 1 and row["failed"] == 0


def test_under_another_name(stack: ExitStack) -> None:
    outer, inner = pair(stack, resubscribe_address="127.0.0.2:77")
    announce(inner.subscriptions, KEY, "127.0.0.1:9")
    assert list(outer.wait_for_nodes(KEY, 1)) == ["127.0.0.2:77"]


@pytest.mark.skipif(not SIGNING_UWSGI.exists(), reason="a uWSGI with TLS is not in build/peers: make peers")
def test_signed_for_a_real_fastrouter_that_checks(stack: ExitStack, tmp_path: Path) -> None:
    address, server, stats = free_address(), free_address(), free_address()
    outer = stack.enter_context(
        Process(
            *(SIGNING_UWSGI, "--master", "--fastrouter", address, "--fastrouter-subscription-server", server),
            *("--fastrouter-stats", stats, "--subscriptions-sign-check", f"SHA256:{keys(tmp_path, KEY)}"),
        )
    )
    outer.wait_line("stats server enabled")
    with ScriptedNode() as node:
        inner = stack.enter_context(Router(resubscribe=[server], resubscribe_sign=f"SHA256:{private(tmp_path)}"))
        announce(inner.subscriptions, KEY, node.address)
        outer.wait_line(f"{KEY} => new node: {inner.address}$")
        inner.settle()
        assert ask(address, request(KEY)) == HELLO
        announce(inner.subscriptions, "bar.com", node.address)
        withdraw(inner.subscriptions, KEY, node.address)
        outer.wait_line(f"{KEY} => marking {inner.address} as failed")
        assert not outer.line("bar.com => new node"), "its key is another one's"


def test_what_cannot_sign_stops_the_start(tmp_path: Path) -> None:
    words = ("--check", "--resubscribe", "127.0.0.1:1", "--resubscribe-sign", f"SHA256:{tmp_path}/none.pem")
    with Process(*router_command(False), *words) as router:
        assert router.wait() == 1
        assert f"gfrouter: resubscribe-sign: {tmp_path}/none.pem: No such file or directory" in router.lines


# What is killed, stopped and reloaded.


@needs_nginx
def test_a_worker_that_is_killed_is_withdrawn_from_both(stack: ExitStack) -> None:
    outer, inner = pair(stack, subscription_tolerance=3)
    nginx = stack.enter_context(Nginx(outer.address))
    with Worker(inner.subscriptions) as one, Worker(inner.subscriptions) as other:
        wait_for(lambda: [node["weight"] for node in outer.nodes(KEY).values()] == [2], "both")
        inner.settle()
        with Load(nginx.port) as load:
            load.more(20)
            one.kill()
            load.more(40)
        assert not load.failures
        other.kill()
        gone(inner)
        gone(outer, timeout=8)


@pytest.mark.parametrize("outer_real", [True, False], ids=["fastrouter", "gfrouter"])
def test_the_outer_one_is_killed_and_told_all_again_by_the_next(stack: ExitStack, outer_real: bool) -> None:
    outer, inner = pair(stack, outer_real)
    with ScriptedNode() as node:
        for number in range(50):
            announce(inner.subscriptions, f"{number}.com", node.address)
        wait_for(lambda: len(outer.stats()["subscriptions"]) == 50, "all of them")
        outer.kill()
        wait_for(lambda: inner.stats()["resubscribe"][0]["error"], "it to be missed", 20)
        inner.wait_line(f"resubscribe {outer.subscriptions}: Connection refused; trying again$")
        again = stack.enter_context(
            Router(address=outer.address, subscriptions=outer.subscriptions, fastrouter=outer_real)
        )
        wait_for(lambda: len(again.stats()["subscriptions"]) == 50, "all of them again", 12)
        inner.settle()
        assert ask(again.address, request("7.com")) == HELLO
        (row,) = inner.stats()["resubscribe"]
        assert (row["keys"], row["error"], row["last_error"]) == (50, "", "Connection refused")


def test_the_inner_one_that_is_killed_expires_and_one_that_stops_takes_leave(stack: ExitStack) -> None:
    outer = stack.enter_context(Router(subscription_tolerance=12))
    first, second = (
        stack.enter_context(Router(resubscribe=[outer.subscriptions], processes=count)) for count in (1, 2)
    )
    with ScriptedNode() as node:
        for inner in (first, second):
            announce(inner.subscriptions, KEY, node.address)
        outer.wait_for_nodes(KEY, 2)
        second.settle()
        first.kill()
        for _ in range(10):
            assert ask(outer.address, request(KEY)) == HELLO
        announce(second.subscriptions, "bar.com", node.address)
        outer.wait_for_nodes("bar.com", 1)
        assert second.stop(signal.SIGTERM) == 0
        assert not outer.nodes("bar.com"), "it has taken leave before it ended"
        wait_for(lambda: not outer.pool(KEY), "the one that was killed to expire", 20)


@needs_nginx
@pytest.mark.parametrize("outer_real", [True, False], ids=["fastrouter", "gfrouter"])
def test_a_reload_costs_no_request_and_takes_nothing_back(stack: ExitStack, outer_real: bool) -> None:
    outer, inner = pair(stack, outer_real, processes=2)
    nginx = stack.enter_context(Nginx(outer.address))
    with ScriptedNode() as node, Worker(inner.subscriptions):
        announce(inner.subscriptions, "bar.com", node.address)
        outer.wait_for_nodes(KEY, 1)
        inner.settle()
        with Load(nginx.port) as load:
            load.more(8)
            before = len(inner.lines)
            inner.send_signal(signal.SIGHUP)
            load.more(64)
            wait_for(lambda: any(line.startswith("telling") for line in inner.lines[before:]), "the new start", 60)
            load.more(64)
        assert load.failures == []
        assert not outer.line(f"marking {inner.address} as failed")
        assert list(outer.nodes("bar.com")) == [inner.address]
        withdraw(inner.subscriptions, "bar.com", node.address)
        gone(outer, "bar.com")


def test_a_drained_key_is_withdrawn_at_once_and_comes_back(stack: ExitStack, tmp_path: Path) -> None:
    admin = str(tmp_path / "admin")
    outer, inner = pair(stack, admin=admin)
    announce(inner.subscriptions, KEY, "127.0.0.1:9")
    outer.wait_for_nodes(KEY, 1)
    assert drain([KEY, "--admin", admin]) == 0
    gone(outer, timeout=8)
    assert undrain([KEY, "--admin", admin]) == 0
    outer.wait_for_nodes(KEY, 1, timeout=8)


# Ways that lead back.


def test_two_that_tell_each_other_forget_a_key_whose_worker_is_gone(stack: ExitStack) -> None:
    servers = [free_address(), free_address()]
    one, other = (
        stack.enter_context(Router(subscriptions=own, resubscribe=[to])) for own, to in (servers, servers[::-1])
    )
    with ScriptedNode() as node:
        announce(one.subscriptions, KEY, node.address)
        assert reaches(other, one) == one.address
        assert list(one.wait_for_nodes(KEY, 1)) == [node.address], "what came from here does not come back"
        assert ask(other.address, request(KEY)) == HELLO
        one.wait_line("dropped, loop: the way of a router leads through us")
        announce(other.subscriptions, KEY, node.address)
        one.wait_for_nodes(KEY, 2)
        for router in (one, other):
            withdraw(router.subscriptions, KEY, node.address)
        for router in (one, other):
            gone(router, timeout=5)


def test_one_that_tells_itself_hears_nothing(stack: ExitStack) -> None:
    server = free_address()
    router = stack.enter_context(Router(subscriptions=server, resubscribe=[server]))
    with ScriptedNode() as node:
        announce(server, KEY, node.address)
        router.wait_line("dropped, loop")
        assert list(router.nodes(KEY)) == [node.address]
        assert ask(router.address, request(KEY)) == HELLO
