"""Nodes by DNS, end to end: a real knot or a scripted server, a real router, requests all along."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from clients import Load, ask, request
from dns_server import (
    SERVFAIL,
    Knot,
    ScriptedDns,
    garbage,
    needs_knot,
    nothing,
    records,
    silence,
    zone,
)
from scripted import ScriptedNode, answer, wait_for
from servers import Nginx, Router, Worker, better, free_address, needs_nginx

pytestmark = better("it knows no DNS")

SRV = "_uwsgi._tcp.foo.com SRV"
A = "web.foo.com 60 A 127.0.0.1"


def port(address: str) -> str:
    return address.rpartition(":")[2]


def srv(*addresses: str) -> list[str]:
    """Records of these places of 127.0.0.1."""
    return [f"10 1 {port(address)} web.foo.com." for address in addresses]


def get(router: Router, key: str = "foo.com") -> bytes:
    """The body of the answer; b"" where the request was refused."""
    return ask(router.address, request(key)).rpartition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[ScriptedNode]]:
    """They answer with their numbers."""
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedNode(answer(b"HTTP/1.1 200 OK\r\n\r\n%d" % n))) for n in range(2)]


# Watched.


@needs_knot
@pytest.mark.slow
def test_records_come_and_go(nodes: list[ScriptedNode]) -> None:
    first, second = (port(node.address) for node in nodes)
    with (
        Knot(zone("foo.com", f"_uwsgi._tcp SRV 10 1 {first} web", "web A 127.0.0.1", "web AAAA ::1")) as knot,
        Router(discovery=f"dns://{knot.place}/_uwsgi._tcp.foo.com?family=4") as router,
    ):
        wait_for(lambda: get(router) == b"0", "the first node to be found")
        knot.update("foo.com", add=[f"_uwsgi._tcp 1 SRV 10 1 {second} web"])
        changed = time.monotonic()
        wait_for(lambda: get(router) == b"1", "the second one to be found")
        print(f"added → served: {time.monotonic() - changed:.2f} s with a TTL of 1 s")
        knot.update("foo.com", add=[f"_uwsgi._tcp 1 SRV 20 1 {second} web"], delete=["_uwsgi._tcp"])
        wait_for(lambda: list(router.nodes("foo.com")) == [nodes[1].address], "the first one to be gone")
        assert get(router) == b"1"
        knot.update("foo.com", delete=["_uwsgi._tcp"])
        wait_for(lambda: not get(router), "the second one to be gone")


@needs_knot
@pytest.mark.slow
def test_the_addresses_of_a_name_by_ipv6(nodes: list[ScriptedNode]) -> None:
    with (
        Knot(zone("foo.com", "pool A 127.0.0.1"), "::1") as knot,
        Router(discovery=f"dns://{knot.place}/pool.foo.com?port={port(nodes[0].address)}&key=any%20key") as router,
    ):
        wait_for(lambda: get(router, "any key") == b"0", "the node to be found")


@pytest.mark.slow
def test_what_is_no_answer_changes_nothing(nodes: list[ScriptedNode]) -> None:
    with ScriptedDns() as server:
        server.says[SRV] = good = records(*srv(nodes[0].address), ttl=0, additional=[A])
        with Router(discovery=f"dns://{server.place}/_uwsgi._tcp.foo.com?timeout=1") as router:
            wait_for(lambda: get(router) == b"0", "the node to be found")

            def wait_until_asked(times: int) -> None:
                enough = server.asked[SRV] + times
                wait_for(lambda: server.asked[SRV] >= enough, f"it to be asked {times} times", 20)

            for bad, times in ((SERVFAIL, 2), (garbage(), 1)):
                server.says[SRV] = bad
                wait_until_asked(times)
                assert get(router) == b"0"
            server.says[SRV] = good
            wait_until_asked(1)
            assert list(router.nodes("foo.com")) == [nodes[0].address]
            server.says[SRV] = nothing(ttl=0)
            router.wait_for_nodes("foo.com", 0, 20)


@needs_knot
@needs_nginx
@pytest.mark.slow
def test_no_request_fails_whatever_happens_to_the_server() -> None:
    subscriptions = free_address()  # where nobody listens, so the workers are known by DNS alone
    with (
        Worker(subscriptions) as old,
        Worker(subscriptions) as new,
        Knot(zone("foo.com", f"_uwsgi._tcp SRV 10 1 {port(old.address)} web", "web A 127.0.0.1")) as knot,
        Router(discovery=f"dns://{knot.place}/_uwsgi._tcp.foo.com?timeout=1") as router,
        Nginx(router.address) as nginx,
    ):
        router.wait_for_nodes("foo.com", 1)
        old.wait_line("spawned uWSGI worker 2")
        new.wait_line("spawned uWSGI worker 2")
        with Load(nginx.port, clients=4) as load:
            load.more(20)
            told = 0

            def trouble(text: str) -> None:
                nonlocal told
                told += 1
                wait_for(lambda: sum(text in line for line in router.lines) >= told, f"{text!r} to be told")
                load.more(50)
                assert list(router.nodes("foo.com")) == [old.address]

            knot.freeze()
            trouble("no server answers")
            knot.thaw()
            knot.update("foo.com", add=[f"_uwsgi._tcp 1 SRV 10 1 {port(new.address)} web"])
            router.wait_for_nodes("foo.com", 2)
            knot.update("foo.com", delete=["_uwsgi._tcp"], add=[f"_uwsgi._tcp 1 SRV 10 1 {port(old.address)} web"])
            wait_for(lambda: list(router.nodes("foo.com")) == [old.address], "the new one to be gone")
            knot.kill()
            trouble("no server answers")
            knot.start({})  # it knows no such zone, and says REFUSED
            load.more(50)
            assert list(router.nodes("foo.com")) == [old.address]
            knot.start(zone("foo.com", f"_uwsgi._tcp SRV 10 1 {port(new.address)} web", "web A 127.0.0.1"))
            wait_for(lambda: list(router.nodes("foo.com")) == [new.address], "the new one alone", 40)
            load.more(20, new.name)
        assert load.failures == []
        knot.start(zone("foo.com", "web A 127.0.0.1"))
        router.wait_for_nodes("foo.com", 0, 40)
        knot.start(zone("foo.com", f"_uwsgi._tcp SRV 10 1 {port(old.address)} web", "web A 127.0.0.1"))
        router.wait_for_nodes("foo.com", 1, 40)


# On demand.


@pytest.fixture(scope="module")
def server(nodes: list[ScriptedNode]) -> Iterator[ScriptedDns]:
    """It knows foo.com and h0.foo.com to h9.foo.com, of which the node is the first one."""
    with ScriptedDns() as server:
        for host in ("foo.com", *(f"h{n}.foo.com" for n in range(10))):
            server.says[f"_uwsgi._tcp.{host} SRV"] = records(*srv(nodes[0].address), additional=[A])
        yield server


@contextmanager
def nine_names(server: ScriptedDns) -> Iterator[Router]:
    with Router(discovery=f"dns://{server.place}?max-names=9&timeout=1", processes=2) as router:
        router.wait_line("looking up _uwsgi._tcp.HOST for any host")
        yield router


@pytest.fixture(scope="module")
def router(server: ScriptedDns) -> Iterator[Router]:
    with nine_names(server) as router:
        yield router


def test_the_first_request_for_a_host_waits_and_is_served(router: Router, server: ScriptedDns) -> None:
    assert get(router, "foo.com") == b"0"
    assert get(router, "foo.com") == b"0"
    assert server.asked[SRV] == 1


def test_many_first_requests_at_once_are_one_lookup(router: Router, server: ScriptedDns) -> None:
    with ThreadPoolExecutor(100) as clients:
        answers = list(clients.map(lambda _: get(router, "h1.foo.com"), range(100)))
    assert answers == [b"0"] * 100
    assert server.asked["_uwsgi._tcp.h1.foo.com SRV"] == 1


def test_an_unknown_host_is_refused_at_once_and_not_looked_up_again(router: Router, server: ScriptedDns) -> None:
    begun = time.monotonic()
    for _ in range(5):
        assert get(router, "nobody.foo.com") == b""
    assert time.monotonic() - begun < 10
    assert server.asked["_uwsgi._tcp.nobody.foo.com SRV"] == 1


def test_what_is_no_host_name_is_not_looked_up(router: Router, server: ScriptedDns) -> None:
    before = server.asked.total()
    for key in ("10.0.0.1", "[::1]:80", "a..b", "x" * 255):
        assert get(router, key) == b""
    assert server.asked.total() == before


def test_a_flood_of_unknown_hosts_leaves_the_known_ones_alone(router: Router) -> None:
    assert get(router, "foo.com") == b"0"
    with ThreadPoolExecutor(8) as clients:
        unknown = clients.map(lambda n: get(router, f"u{n}.foo.com"), range(300))
        for _ in range(50):
            assert get(router, "foo.com") == b"0"
        assert set(unknown) == {b""}


def test_hosts_beyond_the_limit_are_refused(server: ScriptedDns) -> None:
    with nine_names(server) as router:
        assert get(router, "foo.com") == b"0"
        assert [get(router, f"h{n}.foo.com") for n in range(10)] == [b"0"] * 8 + [b""] * 2
        router.wait_line("dropped, too many names: 9 are kept, and _uwsgi._tcp.h")
        assert get(router, "foo.com") == b"0"


@pytest.mark.slow
def test_a_server_that_is_silent_costs_the_unknown_hosts_alone(nodes: list[ScriptedNode]) -> None:
    with ScriptedDns() as server, Router(discovery=f"dns://{server.place}?timeout=1") as router:
        server.says[SRV] = records(*srv(nodes[0].address), ttl=0, additional=[A])
        assert get(router) == b"0"
        server.otherwise = server.says[SRV] = silence
        with ThreadPoolExecutor(4) as clients:
            unknown = clients.map(lambda n: get(router, f"u{n}.foo.com"), range(4))
            for _ in range(20):
                assert get(router) == b"0"
            assert set(unknown) == {b""}
        router.wait_line("no server answers, all nodes stay")
        assert get(router) == b"0"
