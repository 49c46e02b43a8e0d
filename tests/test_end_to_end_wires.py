"""Every wire: each way in joined to each way out byte by byte, and the real uWSGI and nginx over the unusual ones."""

import os
import re
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients import announce, ask, get, read_to_end, request, withdraw
from scripted import HELLO, ScriptedNode, address_of, answer, connect, freeze, listen, wait_for
from servers import (
    FASTROUTER,
    FORMS,
    OWN_NETWORK,
    ROUTER_COMMAND,
    Nginx,
    Process,
    Router,
    Worker,
    better,
    free_address,
    needs_namespaces,
    needs_nginx,
)

GET = request("foo.com")
BODY = bytes(range(256)) * 40
ANSWER = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(reversed(range(256))) * 300

# --- every way in with every way out ----------------------------------------------------------------------

WAYS_IN = [*FORMS, *(f"shared {form}" for form in FORMS), "fd", "shared fd"]
WAYS_OUT = FORMS


@dataclass
class Wires:
    """One router that listens in all ways, is announced to in all ways, and has a node at the end of each."""

    router: Router
    ways_in: dict[str, str]
    servers: dict[str, str]
    nodes: dict[str, ScriptedNode]


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wires]:
    folder = tmp_path_factory.mktemp("w")
    inherited = [listen("127.0.0.1:0"), listen("[::1]:0")]
    fds = [sock.fileno() for sock in inherited]
    own = {form: free_address(form, folder) for form in FORMS}
    shared = {form: free_address(form, folder) for form in FORMS}
    servers = {form: free_address(form, folder) for form in FORMS}
    nodes = {form: ScriptedNode(answer(ANSWER, len(BODY)), address=free_address(form, folder)) for form in WAYS_OUT}
    with Router(
        listen=[*own.values(), f"fd://{fds[0]}", *(f"={number}" for number in range(len(shared) + 1))],
        shared_socket=[*shared.values(), f"fd://{fds[1]}"],
        subscription_server=[*servers.values()],
        pass_fds=fds,
    ) as router:
        passed = {"fd": address_of(inherited[0]), "shared fd": address_of(inherited[1])}
        ways_in = own | {f"shared {form}": address for form, address in shared.items()} | passed
        # Announced by another way each, under a key that is the way's name; localhost as the name that it is.
        for form, node in nodes.items():
            node.address = node.address.replace("127.0.0.1", "localhost") if form == "name" else node.address
            announce(servers[form], form, node.address)
        for form in nodes:
            router.wait_for_nodes(form, 1)
        yield Wires(router, ways_in, servers, nodes)
    for node in nodes.values():
        node.stop()
    for sock in inherited:
        sock.close()


@pytest.mark.skipif(FASTROUTER, reason="the real fastrouter knows few of these ways")
@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_every_byte_comes_through_from_every_way_in_to_every_way_out(wires: Wires, way_in: str, way_out: str) -> None:
    head = request(way_out, "/upload", "POST", len(BODY))
    node = wires.nodes[way_out]
    before = len(node.connections)
    assert ask(wires.ways_in[way_in], head, BODY) == ANSWER
    (connection,) = node.connections[before:]
    assert connection.received == head + BODY


@pytest.mark.skipif(FASTROUTER, reason="the real fastrouter knows few of these ways")
@pytest.mark.parametrize("form", FORMS)
def test_a_node_comes_and_goes_by_every_way_of_announcing(wires: Wires, form: str) -> None:
    server, key = wires.servers[form], f"{form}.example.com"
    announce(server, key, wires.nodes[form].address)
    wires.router.wait_for_nodes(key, 1)
    assert ask(wires.ways_in[form], request(key, length=len(BODY)), BODY) == ANSWER
    withdraw(server, key, wires.nodes[form].address)
    wires.router.wait_for_nodes(key, 0)
    wait_for(lambda: ask(wires.ways_in[form], request(key)) == b"", "the router to hear of it")


@pytest.mark.skipif(FASTROUTER, reason="the real fastrouter knows few of these ways")
def test_the_stats_name_every_way(wires: Wires) -> None:
    real = {address.replace("localhost", "127.0.0.1") for address in (*wires.ways_in.values(), *wires.servers.values())}
    assert set(wires.router.stats()["fastrouter"]) == real
    assert {source["name"] for source in wires.router.stats()["sources"]} == {
        f"subscription@{address.replace('localhost', '127.0.0.1')}" for address in wires.servers.values()
    }


@pytest.mark.slow
@better("its lines and its pid are another process's")
@pytest.mark.parametrize("form", FORMS)
def test_the_stats_are_told_on_every_wire(form: str, tmp_path: Path) -> None:
    stats = free_address(form, tmp_path)
    with Router(stats_address=stats) as router:
        assert router.stats()["pid"] == router.pid
        name = re.escape(stats.replace("localhost", "127.0.0.1"))
        assert router.line(rf"^\*\*\* fastrouter stats server enabled on {name} fd: \d+ \*\*\*$")


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@better("gives the mode to the stream sockets alone, and removes nothing")
def test_mode_owner_and_vacuum_are_for_every_file(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("requests", "shared", "stats", "announcements")}
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    with Router(
        "--chmod-socket=660",
        address=str(paths["requests"]),
        subscriptions=str(paths["announcements"]),
        stats_address=str(paths["stats"]),
        shared_socket=str(paths["shared"]),
        listen=[str(paths["requests"]), "=0"],
        chown_socket=f"{owner[0]}:{owner[1]}",
        vacuum=True,
    ) as router:
        for path in paths.values():
            found = path.stat()
            assert stat.S_ISSOCK(found.st_mode)
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, *owner)
        with ScriptedNode() as node:
            announce(router.subscriptions, "foo.com", node.address)
            router.wait_for_nodes("foo.com", 1)
            assert [ask(str(paths[name]), GET) for name in ("requests", "shared")] == [HELLO] * 2
        assert router.stop(signal.SIGTERM) == 0
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_after_a_kill_the_files_that_were_left_are_replaced(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("requests", "announcements", "stats")]
    for _ in range(2):
        with Router(address=paths[0], subscriptions=paths[1], stats_address=paths[2]) as router:
            with ScriptedNode() as node:
                announce(router.subscriptions, "foo.com", node.address)
                router.wait_for_nodes("foo.com", 1)
                assert ask(router.address, GET) == HELLO
            router.kill()
            assert len(list(tmp_path.iterdir())) == 3


# --- the real uWSGI ---------------------------------------------------------------------------------------


def assert_serves(router: Router, worker: Worker) -> None:
    """The worker is known by the address that it announced itself, answers, and says farewell."""
    router.wait_for_nodes("foo.com", 1)
    assert list(router.nodes("foo.com")) == [worker.address]
    assert ask(router.address, GET).endswith(b"\r\n\r\n" + worker.name.encode())
    worker.send_signal(signal.SIGINT)
    router.wait_for_nodes("foo.com", 0)


@pytest.mark.slow
@pytest.mark.parametrize("form", [pytest.param("ipv6", marks=better("reaches no IPv6 node")), "path", "abstract"])
def test_a_uwsgi_worker_that_listens_there(form: str, tmp_path: Path) -> None:
    with Router() as router, Worker(router.subscriptions, address=free_address(form, tmp_path)) as worker:
        assert_serves(router, worker)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["path", "abstract"])
def test_a_uwsgi_worker_on_the_same_kind_of_name_as_the_router(form: str, tmp_path: Path) -> None:
    address, stats = free_address(form, tmp_path), free_address(form, tmp_path)
    with Router(address=address, stats_address=stats) as router:
        with Worker(router.subscriptions, address=free_address(form, tmp_path)) as worker:
            assert_serves(router, worker)


@pytest.mark.slow
def test_a_uwsgi_worker_that_announces_itself_to_a_path(tmp_path: Path) -> None:
    with Router(subscriptions=str(tmp_path / "announcements")) as router:
        with Worker(router.subscriptions) as worker:
            assert_serves(router, worker)


@pytest.mark.slow
@better("takes no IPv6 address there")
def test_a_uwsgi_worker_that_announces_itself_over_ipv4_to_every_ipv6_address() -> None:
    """uWSGI's workers send over IPv4 alone; a socket on [::] takes that in."""
    server = free_address("ipv6").replace("::1", "::")
    with Router(subscriptions=server) as router, Worker(server.replace("[::]", "127.0.0.1")) as worker:
        assert_serves(router, worker)


@pytest.mark.slow
@needs_namespaces
def test_a_uwsgi_worker_that_announces_itself_to_a_group(tmp_path: Path) -> None:
    """In a network of their own, where multicast stays on the loopback; paths lead there as well."""
    group, path, stats = "225.1.1.1:2626", str(tmp_path / "router"), str(tmp_path / "stats")
    with Router(address=path, subscriptions=group, stats_address=stats, launcher=OWN_NETWORK) as router:
        into = ("nsenter", "-t", str(router.pid), "-n")
        with Worker(group, address=str(tmp_path / "worker"), launcher=into) as worker:
            assert_serves(router, worker)


@pytest.mark.slow
@needs_nginx
@pytest.mark.parametrize("form", ["ipv6", "name", "path"])
def test_nginx_comes_in_there(form: str, tmp_path: Path) -> None:
    with Router(address=free_address(form, tmp_path)) as router, Nginx(router.address) as nginx:
        with Worker(router.subscriptions) as worker:
            router.wait_for_nodes("foo.com", 1)
            assert [get(nginx.port).worker for _ in range(5)] == [worker.name] * 5


# --- a socket for each process ----------------------------------------------------------------------------


@pytest.fixture
def reusing() -> Iterator[Router]:
    with Router(processes=2, reuse_port=True) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        yield router


@pytest.mark.slow
@better("its processes share one socket all the same")
def test_with_reuse_port_each_process_gets_requests_of_its_own(reusing: Router) -> None:
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda _: ask(reusing.address, GET), range(200))) == [HELLO] * 200
    reusing.wait_idle()
    requests = [one["requests"] for one in reusing.stats()["routers"]]
    assert sum(requests) == 200
    assert min(requests) > 20, "the kernel shares them out"


@pytest.mark.slow
@better("a respawned router starts without a map")
def test_with_reuse_port_the_queue_of_a_killed_process_is_its_successors(reusing: Router) -> None:
    first, second = reusing.pids().values()
    freeze(first)
    clients = [connect(reusing.address) for _ in range(60)]
    for client in clients:
        client.sendall(GET)
    os.kill(first, signal.SIGKILL)
    assert [read_to_end(client) for client in clients] == [HELLO] * 60
    for client in clients:
        client.close()
    reusing.wait_idle()
    served = {one["pid"]: one["requests"] for one in reusing.stats()["routers"]}
    assert served.keys() == {reusing.pids()[1], second}
    assert sum(served.values()) == 60
    assert served[reusing.pids()[1]] > 5, "all of these were there before it was"


@pytest.mark.slow
@better("shares every port with everybody, or starts all the same")
def test_with_reuse_port_another_router_is_kept_out_unless_it_asks_for_the_same(reusing: Router) -> None:
    argv = ["--listen", reusing.address, "--subscription-server", free_address()]
    with Process(*ROUTER_COMMAND, *argv) as process:
        assert process.wait() == 1
        assert process.lines[-1].endswith("the address is in use by another socket")
