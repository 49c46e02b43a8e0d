"""Announcements to the whole router: acknowledgements, vassals without address, limits and quotas, as options say."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from clients import announce, ask, datagram, packet, request, subscription, withdraw
from scripted import HELLO, ScriptedNode, address_of, family_of, split, wait_for
from servers import FORMS, TESTS, Process, Router, Worker, better, free_address

pytestmark = pytest.mark.slow

NODE = "127.0.0.1:9"  # announced, and never asked
GET = request("foo.com")


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A datagram socket of any form of address, every read of which is bounded."""
    with closing(socket.socket(family_of(address), socket.SOCK_DGRAM)) as sock:
        sock.bind(split(address))
        sock.settimeout(10)
        yield sock


def rejected(router: Router) -> dict[str, int]:
    """What the one source of nodes has dropped, by reason."""
    (source,) = router.stats()["sources"]
    found = source["rejected"]
    assert isinstance(found, dict)
    return found


def keys(router: Router) -> list[str]:
    return [pool["key"] for pool in router.stats()["subscriptions"]]


# Acknowledgements.


def test_a_real_worker_hears_that_its_node_is_new(router: Router, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as sock:
        options = ("--subscription-notify-socket", path, "--subscribe2", f"server={router.subscriptions},key=bar.com")
        with Worker(router.subscriptions, options=options) as worker:
            said = {sock.recv(1024), sock.recv(1024)}
        assert said == {
            f"[subscription ack] {key} => new node: {worker.address}".encode() for key in ("foo.com", "bar.com")
        }


@better("2.0 knows paths alone")
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("path", "name")])
def test_an_acknowledgement_goes_to_names_and_ports_too(router: Router, form: str) -> None:
    address = free_address(form)
    with listening(address) as sock:
        announce(router.subscriptions, "foo.com", NODE, notify=address)
        assert sock.recv(1024) == f"[subscription ack] foo.com => new node: {NODE}".encode()
        announce(router.subscriptions, "foo.com", NODE, notify=address)
        announce(router.subscriptions, "bar.com", NODE, notify=address)
        assert sock.recv(1024).startswith(b"[subscription ack] bar.com"), "the first only once"


@better("counts nothing")
def test_an_ask_for_one_that_cannot_be_met_is_counted_and_the_node_is_served(router: Router) -> None:
    with ScriptedNode() as node:
        for key, notify in (("foo.com", "localhost:1"), ("bar.com", "/nowhere/s"), ("baz.com", "127.0.0.1:x")):
            announce(router.subscriptions, key, node.address, notify=notify)
        wait_for(lambda: len(keys(router)) == 3, "all three")
        assert ask(router.address, GET) == HELLO
        assert rejected(router) == {"no acknowledgement": 3}
        router.wait_line("dropped, no acknowledgement: 'localhost:1': a host name")


# Vassals.


def vassal(router: Router, **fields: str) -> None:
    datagram(router.subscriptions, packet({"key": "foo.com", "vassal": "app.ini", **fields}.items(), 224))


@better("2.0 has no vassals")
def test_a_vassal_is_known_without_an_address_and_asked_when_it_has_one() -> None:
    with (
        ScriptedNode() as node,
        Router(subscription_tolerance_inactive=1) as router,
    ):
        vassal(router)
        router.wait_line("foo.com => new vassal node: app.ini$")
        assert ask(router.address, GET) == b"" and keys(router) == []
        vassal(router, address=node.address)
        router.wait_line(f"foo.com => updated vassal node: app.ini with address {node.address}$")
        wait_for(lambda: ask(router.address, GET) == HELLO, "it to be asked")
        assert router.nodes("foo.com")[node.address]["vassal"] == "app.ini"
        vassal(router, address=node.address, clear="1")
        router.wait_line("foo.com => cleared address for vassal node: app.ini$")
        wait_for(lambda: ask(router.address, GET) == b"", "it to be asked no more")
        router.wait_line(
            r"foo.com => marking vassal app.ini as failed \(no announce received in 1 seconds\)$", timeout=20
        )


# Limits.


@better("keeps whatever comes")
def test_beyond_the_limits_the_rest_is_dropped_until_there_is_room() -> None:
    server = free_address()

    def refresh(kept: list[str]) -> None:
        for key in kept:
            announce(server, key, node.address)

    with (
        ScriptedNode() as node,
        Router(
            subscription_server=server, subscriptions=server, max_keys=10, max_nodes=20, subscription_tolerance=3
        ) as (router),
    ):
        first = [f"{number}.com" for number in range(10)]
        refresh([*first, "one.more", "and.another"])
        wait_for(lambda: rejected(router) == {"too many keys": 2}, "the two that were too many")
        assert keys(router) == first
        for number in range(15):
            announce(server, first[0], f"127.0.0.1:{number + 1}", backup=1)
        wait_for(lambda: rejected(router).get("too many nodes"), "the limit of nodes")
        assert rejected(router) == {"too many keys": 2, "too many nodes": 5}
        router.wait_line("dropped, too many keys: 10 are kept, and 'one.more' would be one more$")
        assert ask(router.address, request(first[0])) == HELLO

        def only_refreshed() -> bool:
            refresh(first[5:])
            return keys(router) == first[5:]

        wait_for(only_refreshed, "those that fell silent to expire", timeout=20)
        refresh(["one.more"])
        wait_for(lambda: "one.more" in keys(router), "room for one more")
        assert ask(router.address, request("one.more")) == HELLO
        withdraw(server, "one.more", node.address)
        wait_for(lambda: "one.more" not in keys(router), "it to leave")


@better("has no quota")
def test_a_quota_drops_what_one_sender_says_beyond_it_and_nothing_of_others() -> None:
    with Router(subscription_quota=10) as router, ExitStack() as stack:
        to = split(router.subscriptions)
        loud, other = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
        for number in range(200):
            loud.sendto(subscription(f"{number}.loud.com", NODE), to)
        other.sendto(subscription("foo.com", NODE), to)
        router.wait_for_nodes("foo.com", 1)
        router.wait_line(rf"127.0.0.1 port {address_of(loud).rpartition(':')[2]} floods")
        wait_for(lambda: sum(rejected(router).values()) + len(keys(router)) == 201, "all to be read or dropped")
        assert 1 <= len(keys(router)) <= 21  # the burst, less what was not acted on yet, and a second of slow reading
        for number in range(50):
            loud.sendto(subscription(f"{number}.again.com", NODE), to)
        wait_for(lambda: rejected(router).get("dropped by the kernel", 0) >= 50, "the kernel's count")
        assert not [key for key in keys(router) if key.endswith("again.com")]


FLOOD = """
import socket, sys, time
from clients import subscription

packets = [subscription(f"{n}.flood.com", "127.0.0.1:9") for n in range(5000)]
with socket.socket(type=socket.SOCK_DGRAM) as sender:
    sender.bind(("127.0.0.9", 0))
    end = time.monotonic() + 4
    print("flooding", flush=True)
    while time.monotonic() < end:
        for packet in packets:
            sender.sendto(packet, ("127.0.0.1", int(sys.argv[1])))
"""


@better("takes the whole flood in, and loses what others say meanwhile")
def test_a_flood_costs_no_request_and_no_announcement_of_others(router: Router) -> None:
    with ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        port = router.subscriptions.rpartition(":")[2]
        with Process(sys.executable, "-c", FLOOD, port, env={"PYTHONPATH": str(TESTS)}) as flood:
            flood.wait_line("flooding")
            router.wait_line("127.0.0.9 port [0-9]+ floods")
            for number in range(50):
                announce(router.subscriptions, f"{number}.others.com", node.address)
                assert ask(router.address, GET) == HELLO
            assert flood.wait(20) == 0
        others = {f"{number}.others.com" for number in range(50)}
        wait_for(lambda: others <= set(keys(router)), "all others")
        assert len(keys(router)) < 8000, "no more than its quota of 4 seconds and what it had saved up"


@pytest.mark.parametrize("form", ["as bound", "port", "any", "path", "name"])
def test_a_node_at_the_routers_own_address_is_dropped(form: str, tmp_path: Path) -> None:
    """Each request for it would be sent round until descriptors run out."""
    path = str(tmp_path / "r")
    with Router("--listen", path) as router, ScriptedNode() as node:
        port = router.address.rpartition(":")[2]
        own = {"as bound": router.address, "port": f":{port}", "any": f"0.0.0.0:{port}", "path": path}
        announce(router.subscriptions, "loop.com", own.get(form, f"localhost:{port}"))
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, request("loop.com")) == b""
        assert ask(router.address, GET) == HELLO
        assert not router.pool("loop.com")
        assert rejected(router) == ({} if form == "name" else {"own address": 1})
