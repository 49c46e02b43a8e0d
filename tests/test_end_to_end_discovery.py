"""All sources at once, on real servers: what the router has is the union of what they say, whatever becomes of them."""

import json
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from clients import announce, ask, request, withdraw
from consul_server import Consul, needs_consul
from dns_server import Knot, needs_knot, zone
from etcd_server import Etcd, needs_etcd
from scripted import HELLO, ScriptedNode, connect, wait_for
from servers import TESTS, Router, free_address

pytestmark = [pytest.mark.slow, needs_consul, needs_etcd, needs_knot]

KEYS = [f"k{number}.test" for number in range(200)]
HOSTS = range(1, 6)  # 127.0.1.N: with the keys, a thousand nodes
PORT = 2000
WATCHED = KEYS[:60]  # by DNS; every source has some keys that others have as well
WARM_S = 3
CHURN_S = 30
CHANGES_A_SECOND = 25  # of each source, so that the servers and not the test are what is waited for

Place = tuple[str, str]  # key and address


@dataclass
class Told:
    """A server, how it is told of a node and of its end, and what it holds; in the order of the router's sources."""

    name: str
    weight: int  # of each node that it names, so that one sees who describes a node
    keys: list[str]
    add: Callable[[str, str], None]
    remove: Callable[[str, str], None]
    held: set[Place] = field(default_factory=set)

    def churn(self, rng: random.Random, until: float) -> None:
        """Add and remove nodes, about as many as there are."""
        while time.monotonic() < until:
            place = rng.choice(self.keys), address(rng.choice(HOSTS))
            self.turn(place)
            time.sleep(1 / CHANGES_A_SECOND)

    def turn(self, place: Place) -> None:
        """It holds this node now, if it did not; and does not, if it did."""
        if place in self.held:
            self.remove(*place)
            self.held.discard(place)
        else:
            self.add(*place)
            self.held.add(place)

    def clear(self) -> None:
        for place in list(self.held):
            self.turn(place)


def address(host: int) -> str:
    return f"127.0.1.{host}:{PORT}"


class Servers:
    """All four servers and a file, and the words that name them to a router."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.stack = stack
        hosts = [f"h{host} A 127.0.1.{host}" for host in HOSTS]
        self.knot = stack.enter_context(Knot(zone("test", *hosts)))
        self.consul = stack.enter_context(Consul())
        self.etcd = stack.enter_context(Etcd())
        self.file = folder / "nodes"
        self.file.write_text("")
        self.lines: set[str] = set()

    @property
    def discovery(self) -> list[str]:
        names = ",".join(f"_uwsgi._tcp.{key}" for key in WATCHED)
        return [
            f"dns://{self.knot.place}/{names}?max-ttl=1",
            self.consul.url(),
            f"etcd://{self.etcd.address}",
            f"file://{self.file}",
        ]

    def told(self, router: Router) -> list[Told]:
        """In the order in which the router describes nodes: subscriptions come first."""
        server = router.subscriptions
        return [
            Told(
                "subscription", 5, KEYS,
                lambda key, node: announce(server, key, node, weight=5), lambda key, node: withdraw(server, key, node),
            ),
            Told(
                "dns", 1, WATCHED,
                lambda key, node: self.knot.update("test", add=[srv(key, node)]), self.delete_record,
            ),
            Told("consul", 2, KEYS, self.register, lambda key, node: self.consul.deregister(f"{key}/{node}")),
            Told(
                "etcd", 3, KEYS,
                lambda key, node: void(self.etcd.put(entry(key, node), {"weight": 3})),
                lambda key, node: self.etcd.delete(entry(key, node)),
            ),
            Told(
                "file", 4, KEYS,
                lambda key, node: self.write({*self.lines, f"{key} {node} weight=4"}),
                lambda key, node: self.write(self.lines - {f"{key} {node} weight=4"}),
            ),
        ]  # fmt: skip

    def register(self, key: str, node: str) -> None:
        meta = {"uwsgi-weight": "2"}
        self.consul.register(key, node, ID=f"{key}/{node}", Meta=meta)

    def delete_record(self, key: str, node: str) -> None:
        _, _, kind, data = srv(key, node).split(maxsplit=3)
        self.knot.update("test", delete=[f"_uwsgi._tcp.{key}. {kind} {data}"])

    def write(self, lines: set[str]) -> None:
        self.lines = lines
        new = self.file.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in sorted(lines)))
        new.rename(self.file)


def srv(key: str, node: str) -> str:
    host = node.partition(":")[0].rpartition(".")[2]
    return f"_uwsgi._tcp.{key}. 1 SRV 0 1 {PORT} h{host}.test."


def entry(key: str, node: str) -> str:
    return f"/gfrouter/{quote(key, safe='')}/{quote(node, safe='')}"


def void(_: object) -> None:
    """An answer that nobody needs."""


def union(told: list[Told]) -> dict[Place, tuple[list[str], int]]:
    """Each node → who knows it, in order, and the weight that the first of them gives it."""
    found: dict[Place, tuple[list[str], int]] = {}
    for one in told:
        for place in one.held:
            names, weight = found.get(place, ([], one.weight))
            found[place] = [*names, one.name], weight
    return found


def kind(name: str) -> str:
    """Of a source: the first word of `subscription@127.0.0.1:2626`, `consul://127.0.0.1:8500`, `file:/nodes`."""
    return name.partition("@")[0].partition(":")[0]


def known(router: Router) -> dict[Place, tuple[list[str], int]]:
    return {
        (pool["key"], node["name"]): (list(map(kind, node["sources"])), node["weight"])
        for pool in router.stats()["subscriptions"]
        for node in pool["nodes"]
    }


def counts(where: Path) -> dict[str, int]:
    with connect(str(where)) as sock:
        text = b"".join(iter(lambda: sock.recv(4096), b""))
    said: dict[str, int] = json.loads(text)
    return said


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


def in_parallel(works: list[Callable[[], None]]) -> None:
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def churned(told: list[Told], seconds: float) -> None:
    until = time.monotonic() + seconds
    in_parallel([lambda one=one: one.churn(random.Random(one.name), until) for one in told])  # type: ignore[misc]


def settled(router: Router, told: list[Told]) -> None:
    """Waits until the map is what the servers hold, and says where it differs if it does not become so."""
    differing: list[Any] = []

    def same() -> bool:
        have, want = known(router), union(told)
        differing[:] = [(place, have.get(place), want.get(place)) for place in {*have, *want}
                        if have.get(place) != want.get(place)]  # fmt: skip
        return not differing

    try:
        wait_for(same, "the map to be the union of what the servers hold", 20, sleep=lambda _: time.sleep(0.3))
    except AssertionError as error:
        raise AssertionError(f"{error}; (node, known, held): {differing[:10]}") from None


@pytest.mark.timeout(240)
@pytest.mark.long
def test_after_churn_the_map_is_the_union_of_what_the_servers_hold_and_nothing_leaks(
    servers: Servers, tmp_path: Path
) -> None:
    counted = tmp_path / "counts"
    launcher = (sys.executable, "-P", TESTS / "counted.py", str(counted))
    with (
        ScriptedNode() as node,
        Router(launcher=launcher, discovery=servers.discovery, processes=2) as router,
    ):
        told = servers.told(router)
        steady = Told("subscription", 1, [], void, void)  # type: ignore[arg-type]  # it is never turned
        steady.held.add(("steady.test", node.address))
        announce(router.subscriptions, "steady.test", node.address, weight=1)
        churned(told, WARM_S)  # so that connections and threads are there that are kept for good
        in_parallel([one.clear for one in told])
        settled(router, [steady])
        before, answers = counts(counted), defaultdict[bytes, int](int)
        over = threading.Event()

        def traffic() -> None:
            while not over.wait(0.01):
                answers[ask(router.address, request("steady.test"))] += 1

        def churn() -> None:
            try:
                churned(told, CHURN_S)
            finally:
                over.set()

        in_parallel([traffic, churn])
        settled(router, [*told, steady])
        assert sum(len(one.held) for one in told) > 300
        assert any(len(names) > 2 for names, _ in known(router).values()), "nodes of several sources were among them"
        assert answers.keys() == {HELLO}
        in_parallel([one.clear for one in told])
        settled(router, [steady])
        wait_for(lambda: counts(counted)["greenlets"] <= before["greenlets"] + 3, "the greenlets of before", 15)
        # Of thousands of changes; a lookup that is under way has some for a moment.
        wait_for(lambda: counts(counted)["descriptors"] <= before["descriptors"] + 10, "the descriptors of before", 15)
        after = counts(counted)
        assert after["threads"] <= before["threads"] + 4
        assert after["resident"] < before["resident"] + 30_000
        assert not router.line("internal error|Traceback")


def test_with_every_source_down_it_starts_and_recovers_by_itself(servers: Servers) -> None:
    with ScriptedNode() as node:
        servers.knot.kill()
        servers.consul.kill()
        servers.etcd.kill()
        servers.file.unlink()
        admin = free_address()
        with Router(discovery=servers.discovery, admin=admin, warm_timeout=5) as router:
            line = router.wait_line("warming: requests for unknown keys wait for (.*), up to 5 s")
            assert list(map(kind, line[1].split(", "))) == [
                "subscription", "dns", "consul", "etcd", "file"
            ]  # fmt: skip
            announce(router.subscriptions, "steady.test", node.address)
            assert ask(router.address, request("steady.test")) == HELLO

            def states() -> dict[str, str]:
                return {kind(one["name"]): one["state"] for one in router.stats()["sources"]}

            wait_for(lambda: list(states().values()).count("failing") == 4, "four sources to fail", 20)
            told = servers.told(router)[1:]
            hosts = [f"h{host} A 127.0.1.{host}" for host in HOSTS]
            servers.knot.start(zone("test", *hosts))
            servers.consul.restart()
            servers.etcd.restart()
            for one in told:
                one.turn((KEYS[0], address(1)))
            steady = Told("subscription", 1, [], void, void, {("steady.test", node.address)})  # type: ignore[arg-type]
            wait_for(lambda: "failing" not in states().values(), "all to be seen again", 60)
            settled(router, [*told, steady])
            assert ask(router.address, request("steady.test")) == HELLO
