"""The JSON of the stats server: every field of uWSGI's, of the right type, and exact right after a known load."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import Load, announce, ask, request, withdraw
from scripted import HELLO, ScriptedNode, answer, connect, hang, wait_for
from servers import FASTROUTER, Nginx, Router, Worker, better, free_address, needs_nginx

GET = request("foo.com")
TOP = {
    "version": str,
    "pid": int,
    "uid": int,
    "gid": int,
    "cwd": str,
    "active_sessions": int,
    "fastrouter": list,
    "subscriptions": list,
    "cheap": int,
}
POOL = {"key": str, "hash": int, "hits": int, "nodes": list}
NODE = {
    "name": str,
    **dict.fromkeys(["modifier1", "modifier2", "last_check", "pid", "uid", "gid", "requests"], int),
    **dict.fromkeys(["last_requests", "tx", "rx", "cores", "load", "weight", "wrr", "ref", "failcnt"], int),
    "death_mark": int,
}
if not FASTROUTER:  # 2.1 adds these
    POOL |= {"sni_enabled": int, "algo": str}
    NODE |= {"vassal": str, "backup": int, "proto": str}


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router


def assert_fields(found: dict[str, object], wanted: dict[str, type]) -> None:
    """Every wanted field is there with exactly its type: a bool is no unsigned integer to a reader of uWSGI's."""
    assert {name: type(found.get(name)) for name in wanted} == wanted
    assert all(value >= 0 for name in wanted if isinstance(value := found[name], int))


def test_every_field_of_uwsgis_is_there_with_its_type(router: Router) -> None:
    announce(router.subscriptions, "foo.com", "127.0.0.1:1")
    router.wait_for_nodes("foo.com", 1)
    stats = router.stats()
    assert_fields(stats, TOP)
    assert_fields(stats["subscriptions"][0], POOL)
    assert_fields(stats["subscriptions"][0]["nodes"][0], NODE)


def test_the_top_says_whose_stats_these_are(router: Router) -> None:
    stats = router.stats()
    assert stats["fastrouter"] == [router.address, router.subscriptions]
    assert (stats["uid"], stats["gid"], stats["cwd"]) == (os.getuid(), os.getgid(), os.getcwd())
    assert (stats["active_sessions"], stats["subscriptions"], stats["cheap"]) == (0, [], 0)


def test_a_node_is_what_its_announcement_says(router: Router) -> None:
    announce(router.subscriptions, "foo.com", "127.0.0.1:1", modifier1=5, modifier2=6, cores=7, load=8, weight=9)
    (node,) = router.wait_for_nodes("foo.com", 1).values()
    wanted = {"name": "127.0.0.1:1", "modifier1": 5, "modifier2": 6, "cores": 7, "load": 8, "weight": 9}
    assert wanted.items() <= node.items()
    assert time.time() - 10 < node["last_check"] <= time.time()


def test_weight_0_counts_as_1(router: Router) -> None:
    announce(router.subscriptions, "foo.com", "127.0.0.1:1", weight=0)
    assert [node["weight"] for node in router.wait_for_nodes("foo.com", 1).values()] == [1]


@pytest.mark.parametrize(
    ("key", "number"),
    [("foo.com", 11571), ("a", 46534), ("example.org:8080", 63798), ("x" * 255, 33392), ("é.fr", 2467)],
)
def test_hash_is_djb33x_modulo_65535(router: Router, key: str, number: int) -> None:
    announce(router.subscriptions, key, "127.0.0.1:1")
    router.wait_for_nodes(key, 1)
    assert router.pool(key)["hash"] == number  # as the real fastrouter says it


def test_counts_are_exact_after_a_known_load(router: Router) -> None:
    post = request("foo.com", method="POST", length=5) + b"12345"
    with ScriptedNode(answer(HELLO)) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert [ask(router.address, GET) for _ in range(20)] == [HELLO] * 20
        router.wait_idle()
        stats = router.nodes("foo.com")[node.address]
        assert (stats["requests"], stats["tx"], stats["rx"]) == (20, 20 * len(HELLO), 20 * len(GET))
        node.scripts = (answer(HELLO, body=5),)
        assert ask(router.address, post) == HELLO
        router.wait_idle()
        stats = router.nodes("foo.com")[node.address]
        assert (stats["requests"], stats["tx"], stats["rx"]) == (21, 21 * len(HELLO), 20 * len(GET) + len(post))
        assert (router.pool("foo.com")["hits"], stats["ref"], stats["failcnt"]) == (21, 0, 0)


def test_last_requests_counts_from_the_last_announcement(router: Router) -> None:
    with ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        for _ in range(3):
            ask(router.address, GET)
        router.wait_idle()
        assert router.nodes("foo.com")[node.address]["last_requests"] == 3
        announce(router.subscriptions, "foo.com", node.address)
        wait_for(lambda: router.nodes("foo.com")[node.address]["last_requests"] == 0, "last_requests to restart")
        assert router.nodes("foo.com")[node.address]["requests"] == 3


def test_what_is_in_flight_shows_and_returns_to_zero(router: Router) -> None:
    with ScriptedNode(hang) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        clients = [connect(router.address) for _ in range(3)]
        for client in clients:
            client.sendall(GET)
        wait_for(lambda: router.nodes("foo.com")[node.address]["ref"] == 3, "three requests in flight")
        assert router.stats()["active_sessions"] == 3
        for client in clients:
            client.close()
        router.wait_idle()


def test_a_refused_connect_counts_as_a_failure_and_no_request(router: Router) -> None:
    refused = free_address()
    announce(router.subscriptions, "foo.com", refused)
    router.wait_for_nodes("foo.com", 1)
    with ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 2)
        assert {ask(router.address, GET) for _ in range(4)} == {HELLO}
        router.wait_idle()
        stats = {each["name"]: each for each in router.pool("foo.com")["nodes"]}
        assert stats[node.address]["requests"] == 4
        # The real one has dropped the refused node by now; where it stays, it has failed and answered nothing.
        assert refused not in stats or (stats[refused]["failcnt"] >= 1 and stats[refused]["requests"] == 0)


def test_cheap_is_1_while_no_node_is_known() -> None:
    with Router(cheap=True) as router:
        assert router.stats()["cheap"] == 1
        router.wait_line("starting uWSGI fastrouter in cheap mode")
        with ScriptedNode() as node:
            announce(router.subscriptions, "foo.com", node.address)
            router.wait_line(r"\[uWSGI fastrouter pid \d+\] leaving cheap mode\.\.\.")
            wait_for(lambda: router.stats()["cheap"] == 0, "cheap to be 0")
            assert ask(router.address, GET) == HELLO
            withdraw(router.subscriptions, "foo.com", node.address)
            router.wait_line(r"\[uWSGI fastrouter pid \d+\] no more nodes available\. Going cheap\.\.\.")
            wait_for(lambda: router.stats()["cheap"] == 1, "cheap to be 1 again")


@needs_nginx
@pytest.mark.slow
def test_counts_of_real_workers_add_up_to_what_the_clients_saw(router: Router) -> None:
    server = router.subscriptions
    with Nginx(router.address) as nginx, Worker(server, name="one") as one, Worker(server, name="two") as two:
        router.wait_for_nodes("foo.com", 2)
        with Load(nginx.port, "/", clients=4) as load:
            load.more(200)
        router.wait_idle()
        nodes = router.nodes("foo.com")
        assert load.failures == []
        assert nodes[one.address]["requests"] == load.answers["one"]
        assert nodes[two.address]["requests"] == load.answers["two"]
        assert abs(load.answers["one"] - load.answers["two"]) <= 1
        assert router.pool("foo.com")["hits"] == load.done


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_stats_http_answers_a_request_with_uwsgis_headers(kind: str, tmp_path: Path) -> None:
    stats = free_address() if kind == "tcp" else str(tmp_path / "stats.sock")
    headers = (
        b"HTTP/1.0 200 OK\r\nConnection: close\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: application/json\r\n"
    )
    with Router(stats=stats, stats_http=True) as router, connect(stats) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(headers)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["pid"] in (router.pid, *router.pids().values())


@better("does not escape: invalid JSON")
def test_keys_with_quotes_are_valid_json(router: Router) -> None:
    key = 'foo"\\.com'
    announce(router.subscriptions, key, "127.0.0.1:1")
    assert router.wait_for_nodes(key, 1)
