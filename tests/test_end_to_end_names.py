"""Nodes by host name, and whose address it is where an announcement names none: the whole router, asked by clients."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from clients import announce, ask, packet, request, withdraw
from scripted import HELLO, NodeConnection, ScriptedNode, answer, family_of, split, wait_for
from servers import Router, better, free_port

pytestmark = [pytest.mark.slow, better("host names are no node addresses, and a sender's address is not looked at")]

GET = request("foo.com")
ANNOUNCE, WITHDRAW = 0, 1

# Words before a command that give it two files of its own in place of the machine's; "$1" and "$2" are those.
OWN_FILES = (
    *("unshare", *(() if os.geteuid() == 0 else ("-r",)), "-m", "sh", "-c"),
    'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"',
    "sh",
)


def _can_mount() -> bool:
    if not (shutil.which("unshare") and Path("/etc/hosts").exists() and Path("/etc/nsswitch.conf").exists()):
        return False
    argv = [*OWN_FILES, "/etc/hosts", "/etc/nsswitch.conf", "true"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="needs util-linux and the right to make a mount namespace")


class Hosts:
    """What names mean to a router that is started by `launcher`: this file alone is asked."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hosts"
        switch = folder / "nsswitch.conf"
        switch.write_text("hosts: files\n")
        self.launcher = (*OWN_FILES, self.file, switch)
        self.say(localhost=["127.0.0.1"])

    def say(self, **names: list[str]) -> None:
        """In place, as it is this very file that is mounted."""
        self.file.write_text("".join(f"{host} {name}\n" for name, hosts in names.items() for host in hosts))


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def named(connection: NodeConnection) -> None:
    """Answers with the address that it was asked at."""
    connection.read_head()
    connection.send(b"from " + connection.sock.getsockname()[0].encode())


@contextmanager
def nodes(port: int, *hosts: str) -> Iterator[None]:
    """A node at this port of each host, which says which one it is."""
    with ExitStack() as stack:
        for host in hosts:
            stack.enter_context(ScriptedNode(named, address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        yield


def answers(router: Router, key: str = "foo.com") -> set[str]:
    """Who answers, of a few times the nodes."""
    return {ask(router.address, request(key)).decode().removeprefix("from ") for _ in range(12)}


def say(router: Router, host: str, address: str, command: int = ANNOUNCE, key: str = "foo.com") -> None:
    """Announce or withdraw `address` as a process at `host` does."""
    port = split(router.subscriptions)[1]
    fields = packet([("key", key), ("address", address)], 224, command)
    with socket.socket(family_of(f"[{host}]:1" if ":" in host else host), socket.SOCK_DGRAM) as sender:
        sender.bind((host, 0))
        sender.sendto(fields, ("::1" if ":" in host else "127.0.0.1", port))


# Names.


def test_localhost_is_a_node() -> None:
    with ScriptedNode(answer(HELLO)) as node, Router() as router:
        port = split(node.address)[1]
        announce(router.subscriptions, "foo.com", f"localhost:{port}", weight=3)
        wait_for(lambda: f"127.0.0.1:{port}" in router.nodes("foo.com"), "the name to be resolved")
        shown = router.nodes("foo.com")[f"127.0.0.1:{port}"]
        assert (shown["host"], shown["weight"]) == (f"localhost:{port}", 3)
        assert [ask(router.address, GET) for _ in range(5)] == [HELLO] * 5
        withdraw(router.subscriptions, "foo.com", f"localhost:{port}")
        wait_for(lambda: router.pool("foo.com") == {} and router.stats()["hosts"] == [], "the name to go")


@needs_mounts
@pytest.mark.long
def test_requests_follow_a_name_whose_addresses_change_within_thirty_seconds(hosts: Hosts) -> None:
    """In every key; the one that stays keeps what was counted for it."""
    port = free_port()
    hosts.say(**{"app.lan": ["127.0.0.2", "127.0.0.3"]})
    with (
        nodes(port, "127.0.0.2", "127.0.0.3", "127.0.0.4"),
        Router(launcher=hosts.launcher) as router,
    ):
        announce(router.subscriptions, "foo.com", f"app.lan:{port}")
        announce(router.subscriptions, "bar.com", f"app.lan:{port}")
        router.wait_for_nodes("foo.com", 2)
        assert answers(router) == answers(router, "bar.com") == {"127.0.0.2", "127.0.0.3"}
        asked = router.nodes("foo.com")[f"127.0.0.3:{port}"]["requests"]
        assert router.stats()["hosts"] == [
            {"name": f"app.lan:{port}", "addresses": [f"127.0.0.2:{port}", f"127.0.0.3:{port}"], "error": ""}
        ]
        hosts.say(**{"app.lan": ["127.0.0.3", "127.0.0.4"]})
        announce(router.subscriptions, "foo.com", f"app.lan:{port}")  # no reason to look it up before its time
        assert set(router.nodes("foo.com")) == {f"127.0.0.2:{port}", f"127.0.0.3:{port}"}
        both = {f"127.0.0.3:{port}", f"127.0.0.4:{port}"}
        wait_for(lambda: set(router.nodes("foo.com")) == both, "the next lookup", timeout=40)
        assert set(router.nodes("bar.com")) == both
        wait_for(lambda: answers(router) == {"127.0.0.3", "127.0.0.4"}, "the router process to hear of it")
        assert answers(router, "bar.com") == {"127.0.0.3", "127.0.0.4"}
        assert router.nodes("foo.com")[f"127.0.0.3:{port}"]["requests"] > asked


@needs_mounts
def test_a_name_that_is_unknown_is_said_once_and_asked_again_when_it_is_new(hosts: Hosts) -> None:
    port = free_port()
    name = f"app.lan:{port}"
    with nodes(port, "127.0.0.2"), Router(launcher=hosts.launcher) as router:
        announce(router.subscriptions, "foo.com", name)
        router.wait_line(f"^{name}: cannot resolve app.lan: ")
        (shown,) = router.stats()["hosts"]
        assert (shown["name"], shown["addresses"]) == (name, []) and "cannot resolve" in shown["error"]
        assert ask(router.address, GET) == b""
        hosts.say(**{"app.lan": ["127.0.0.2"]})
        withdraw(router.subscriptions, "foo.com", name)
        announce(router.subscriptions, "foo.com", name)
        router.wait_for_nodes("foo.com", 1)
        wait_for(lambda: ask(router.address, GET) == b"from 127.0.0.2", "an answer")


@needs_mounts
def test_one_dead_address_of_a_name_costs_no_request(hosts: Hosts) -> None:
    port = free_port()
    hosts.say(**{"app.lan": ["127.0.0.2", "127.0.0.3"]})
    with nodes(port, "127.0.0.3"), Router(launcher=hosts.launcher, gracetime=2) as router:
        announce(router.subscriptions, "foo.com", f"app.lan:{port}")
        wait_for(lambda: len(router.pool("foo.com").get("nodes", ())) == 2, "both addresses")
        assert answers(router) == {"127.0.0.3"}
        router.wait_for_nodes("foo.com", 1)
        announce(router.subscriptions, "foo.com", f"app.lan:{port}")  # who says so may be the other one
        with nodes(port, "127.0.0.2"):
            wait_for(lambda: answers(router) == {"127.0.0.2", "127.0.0.3"}, "the one that is tried after gracetime")


@needs_mounts
def test_an_ipv6_address_of_a_name_is_asked(hosts: Hosts) -> None:
    port = free_port("::1")
    hosts.say(**{"six.lan": ["::1"]})
    with nodes(port, "::1"), Router(launcher=hosts.launcher) as router:
        announce(router.subscriptions, "foo.com", f"six.lan:{port}")
        assert list(router.wait_for_nodes("foo.com", 1)) == [f"[::1]:{port}"]
        assert answers(router) == {"::1"}


def test_a_numeric_ipv6_node_is_asked(hosts: Hosts) -> None:
    port = free_port("::1")
    with nodes(port, "::1"), Router() as router:
        announce(router.subscriptions, "foo.com", f"[::1]:{port}")
        router.wait_for_nodes("foo.com", 1)
        assert answers(router) == {"::1"}


# Whose address.


@pytest.mark.parametrize("said", ["", "0.0.0.0", "[::]"])
@pytest.mark.parametrize("host", ["127.0.0.9", "::1"])
def test_a_worker_in_a_container_is_asked_where_it_announced_itself_from(host: str, said: str) -> None:
    port = free_port(host)
    server = f"[::1]:{free_port('::1')}" if ":" in host else f"127.0.0.1:{free_port()}"
    with (
        nodes(port, host),
        Router(subscription_server=server, subscription_address="sender", subscriptions=server) as (router),
    ):
        say(router, host, f"{said}:{port}")
        node = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert list(router.wait_for_nodes("foo.com", 1)) == [node]
        assert answers(router) == {host}
        say(router, host, f"{said}:{port}", WITHDRAW)
        wait_for(lambda: router.pool("foo.com") == {}, "it to leave")


def test_both_kinds_of_senders_are_told_apart_on_one_socket() -> None:
    port, server = free_port(), f"[::]:{free_port('::')}"
    with (
        nodes(port, "127.0.0.9", "127.0.0.10", "::1"),
        Router(subscription_server=server, subscription_address="sender", subscriptions=server) as router,
    ):
        for host in ("127.0.0.9", "127.0.0.10", "::1"):
            say(router, host, f":{port}")
        assert set(router.wait_for_nodes("foo.com", 3)) == {f"127.0.0.9:{port}", f"127.0.0.10:{port}", f"[::1]:{port}"}
        assert answers(router) == {"127.0.0.9", "127.0.0.10", "::1"}
        say(router, "127.0.0.10", f":{port}", WITHDRAW)
        router.wait_for_nodes("foo.com", 2)
        assert answers(router) == {"127.0.0.9", "::1"}


@pytest.mark.parametrize("said", ["", "0.0.0.0"])
def test_unless_told_so_it_is_asked_on_this_machine(said: str) -> None:
    port = free_port()
    with ScriptedNode(answer(HELLO), address=f"127.0.0.1:{port}"), nodes(port, "127.0.0.9"), Router() as router:
        say(router, "127.0.0.9", f"{said}:{port}")
        assert list(router.wait_for_nodes("foo.com", 1)) == [f"{said}:{port}"]
        assert [ask(router.address, GET) for _ in range(5)] == [HELLO] * 5


def test_a_host_that_is_named_is_asked_whoever_sent_it() -> None:
    port = free_port()
    with nodes(port, "127.0.0.9", "127.0.0.2"), Router(subscription_address="sender") as router:
        say(router, "127.0.0.9", f"127.0.0.2:{port}")
        router.wait_for_nodes("foo.com", 1)
        assert answers(router) == {"127.0.0.2"}
