"""When names are looked up, and what becomes of each kind of answer; with a lookup and a clock of the test's own."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from router import kernel, stats
from router.node import Node
from router.resolver import DOUBTFUL, LOOK_EVERY, LOOKUPS, RESOLVE_EVERY, WARNINGS, Resolver
from router.table import Table
from scripted import wait_for

APP = "app.lan:3031"
NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
TRY_AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Names:
    """A table with one feed, a resolver, and what the DNS of this test says: addresses or an error, by host."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.says: dict[str, list[str] | Exception] = {}
        self.asked: list[str] = []
        self.table = Table(on_name=lambda address: self.resolver.notice(address))
        self.resolver = Resolver(self.table, lookup=self.lookup, clock=lambda: self.now)
        self.feed = self.table.feed("consul")

    def lookup(self, host: str, port: int, **hints: Any) -> list[Any]:
        self.asked.append(host)
        # Else each address comes once for each type, and those of a family that the machine does not have come as well.
        assert hints == {"type": socket.SOCK_STREAM, "flags": socket.AI_ADDRCONFIG}
        answer = self.says[host]
        if isinstance(answer, Exception):
            raise answer
        found: list[Any] = []
        for text in answer:
            family = socket.AF_INET6 if ":" in text else socket.AF_INET
            address, _, scope = text.partition("%")
            sockaddr = (address, port, 0, int(scope or 0)) if family == socket.AF_INET6 else (address, port)
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr))
        return found

    def turn(self, later: float = 0.0) -> None:
        """So much later, begin what is due and let it end."""
        self.now += later
        self.resolver.turn()
        self.resolver.pool.join()

    def addresses(self, key: str = "foo.com") -> list[str]:
        return [node.address for node in self.table.nodes(key)]


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    yield names
    names.resolver.pool.kill()


def test_a_new_name_is_looked_up_at_once_and_again_after_30_seconds(names: Names) -> None:
    assert RESOLVE_EVERY == 30.0
    names.says = {"app.lan": ["10.0.0.1"]}
    names.feed.announce("foo.com", Node(APP))
    names.turn()
    assert names.addresses() == ["10.0.0.1:3031"]
    names.says = {"app.lan": ["10.0.0.2"]}
    names.turn(29.9)
    assert names.addresses() == ["10.0.0.1:3031"] and names.asked == ["app.lan"]
    names.turn(0.1)
    assert names.addresses() == ["10.0.0.2:3031"] and names.asked == ["app.lan"] * 2
    names.turn(29.9)
    assert names.asked == ["app.lan"] * 2


def test_each_address_of_a_name_is_a_node_in_the_order_of_the_answer(names: Names) -> None:
    names.says = {"app.lan": ["10.0.0.2", "10.0.0.1", "10.0.0.2"]}
    names.feed.announce("foo.com", Node(APP, weight=2))
    names.turn()
    assert names.table.nodes("foo.com") == [Node(f"10.0.0.{n}:3031", weight=2, host=APP) for n in (2, 1)]


def test_ipv6_addresses_are_nodes_that_an_endpoint_can_be_made_of(names: Names) -> None:
    names.says = {"app.lan": ["fd00::5", "fe80::1%7", "10.0.0.1"]}
    names.feed.announce("foo.com", Node(APP))
    names.turn()
    made = {address: (endpoint.family, endpoint.sockaddr) for address, endpoint in names.table.endpoints.items()}
    assert made == {
        "[fd00::5]:3031": (socket.AF_INET6, ("fd00::5", 3031)),
        "[fe80::1%7]:3031": (socket.AF_INET6, ("fe80::1", 3031, 0, 7)),
        "10.0.0.1:3031": (socket.AF_INET, ("10.0.0.1", 3031)),
    }


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY])
def test_that_there_is_no_such_name_is_an_answer_and_removes_its_nodes(names: Names, code: int) -> None:
    names.says = {"app.lan": ["10.0.0.1", "10.0.0.2"]}
    names.feed.announce("foo.com", Node(APP))
    names.turn()
    names.says = {"app.lan": socket.gaierror(code, "nothing")}
    names.turn(30)
    assert names.addresses() == [] and names.table.endpoints == {}
    assert APP in names.table.names, "it may exist again"
    names.says = {"app.lan": ["10.0.0.3"]}
    names.turn(30)
    assert names.addresses() == ["10.0.0.3:3031"]


@pytest.mark.parametrize(
    "trouble",
    [
        TRY_AGAIN,
        socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"),
        socket.gaierror(socket.EAI_SYSTEM, "System error"),
        socket.gaierror(-12345, "an error of tomorrow"),
        TimeoutError("timed out"),
        OSError(24, "Too many open files"),
        UnicodeError("label empty or too long"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
def test_any_other_trouble_is_no_answer_and_keeps_them(
    names: Names, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    names.says = {"app.lan": ["10.0.0.1", "10.0.0.2"]}
    names.feed.announce("foo.com", Node(APP))
    names.turn()
    names.says = {"app.lan": trouble}
    for _ in range(3):
        names.turn(30)
    assert names.addresses() == ["10.0.0.1:3031", "10.0.0.2:3031"]
    assert names.asked == ["app.lan"] * 4, "it is asked again all the same"
    (line,) = caplog.messages
    assert line.startswith(f"{APP}: cannot resolve app.lan: ") and line.endswith(", its 2 addresses stay")


def test_an_error_is_shown_in_the_stats_and_logged_when_it_changes(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    def shown() -> Any:
        found = stats.snapshot(
            names.table,
            [],
            addresses=[],
            sources=[],
            cwd="/",
            warming=0,
            lookups={"refused": 0},
            listen_queue=0,
            usage=kernel.usage,
        )
        return json.loads(json.dumps(found))["hosts"]

    names.feed.announce("foo.com", Node(APP))
    assert shown() == [{"name": APP, "addresses": [], "error": ""}]
    for answer, times in ((TRY_AGAIN, 3), (["10.0.0.1"], 2), (TRY_AGAIN, 1), (NO_SUCH_NAME, 2)):
        names.says = {"app.lan": answer}
        for _ in range(times):
            names.turn(30)
        error = f"cannot resolve app.lan: {answer.strerror}" if isinstance(answer, socket.gaierror) else ""
        there = [] if answer is NO_SUCH_NAME else names.table.targets(APP)
        assert shown() == [{"name": APP, "addresses": list(there), "error": error}]
    temporary = f"{APP}: cannot resolve app.lan: Temporary failure in name resolution"
    assert caplog.messages == [
        temporary,
        f"{temporary}, its 1 addresses stay",
        f"{APP}: cannot resolve app.lan: Name or service not known",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_dropped_name_is_looked_up_no_more(names: Names) -> None:
    names.says = {"app.lan": ["10.0.0.1"], "db.lan": ["10.0.0.2"]}
    names.feed.set("foo.com", [Node(APP), Node("db.lan:3031")])
    names.turn()
    names.feed.withdraw("foo.com", APP)
    names.turn(30)
    assert names.asked == ["app.lan", "db.lan", "db.lan"]


class Slow(Names):
    """Names whose lookups take until the test lets them go on."""

    def __init__(self) -> None:
        super().__init__()
        self.going_on = gevent.event.Event()

    def lookup(self, host: str, port: int, **hints: Any) -> list[Any]:
        found = super().lookup(host, port, **hints)
        if host.startswith("slow"):
            self.going_on.wait()
        return found


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.resolver.pool.kill()


def test_one_that_goes_and_comes_back_while_it_is_looked_up_gets_the_later_answer(slow: Slow) -> None:
    slow.says = {"slow.lan": ["10.0.0.1"]}
    slow.feed.announce("foo.com", Node("slow.lan:3031"))
    slow.resolver.turn()
    gevent.sleep(0)  # the lookup has its answer, and waits
    slow.feed.withdraw("foo.com", "slow.lan:3031")
    slow.feed.announce("bar.com", Node("slow.lan:3031"))
    slow.says = {"slow.lan": ["10.0.0.2"]}
    slow.going_on.set()
    slow.resolver.pool.join()
    assert slow.table.endpoints == {}, "the first answer was for a name that has gone"
    slow.turn()
    assert slow.addresses("foo.com") == [] and slow.addresses("bar.com") == ["10.0.0.2:3031"]


def test_one_that_goes_while_it_is_looked_up_leaves_nothing(slow: Slow) -> None:
    slow.says = {"slow.lan": ["10.0.0.1"]}
    slow.feed.announce("foo.com", Node("slow.lan:3031"))
    slow.resolver.turn()
    gevent.sleep(0)
    slow.feed.withdraw("foo.com", "slow.lan:3031")
    slow.going_on.set()
    slow.resolver.pool.join()
    assert (slow.table.names, slow.table.pools) == ({}, {})


def test_a_name_is_not_looked_up_twice_at_once(slow: Slow) -> None:
    slow.says = {"slow.lan": ["10.0.0.1"]}
    slow.feed.announce("foo.com", Node("slow.lan:3031"))
    for _ in range(3):
        slow.now += 100
        slow.resolver.turn()
        gevent.sleep(0)
    assert slow.asked == ["slow.lan"]
    slow.going_on.set()
    slow.resolver.pool.join()
    slow.turn(29.9)
    assert slow.asked == ["slow.lan"], "30 s from the answer, not from the question"
    slow.turn(0.1)
    assert slow.asked == ["slow.lan"] * 2


def test_slow_lookups_hold_up_nobody_while_there_are_fewer_than_so_many(slow: Slow) -> None:
    hosts = [f"slow{number}.lan" for number in range(LOOKUPS - 1)]
    slow.says = {host: ["10.0.0.1"] for host in [*hosts, "app.lan"]}
    slow.feed.set("slow.com", [Node(f"{host}:3031") for host in hosts])
    slow.resolver.turn()
    slow.feed.announce("foo.com", Node(APP))
    slow.resolver.turn()
    gevent.sleep(0)
    assert slow.addresses() == ["10.0.0.1:3031"] and slow.addresses("slow.com") == []


def test_more_of_them_hold_up_other_names_and_nothing_else(slow: Slow) -> None:
    """`run`, as in the supervisor: it notices a new name at once, and never has more than LOOKUPS under way."""
    hosts = [f"slow{number}.lan" for number in range(LOOKUPS + 3)]
    slow.says = {host: ["10.0.0.1"] for host in [*hosts, "app.lan"]}
    running = gevent.spawn(slow.resolver.run)
    gevent.sleep(0)
    slow.feed.set("slow.com", [Node(f"{host}:3031") for host in hosts])
    wait_for(lambda: len(slow.asked) == LOOKUPS, "as many lookups as may be", sleep=gevent.sleep)
    slow.feed.announce("foo.com", Node(APP))
    for _ in range(10):
        gevent.sleep(0.001)
    assert len(slow.asked) == LOOKUPS and slow.addresses() == []
    slow.going_on.set()
    wait_for(lambda: slow.addresses() == ["10.0.0.1:3031"], "the other name", sleep=gevent.sleep)
    assert sorted(slow.asked) == sorted([*hosts, "app.lan"])
    running.kill()


def test_names_whose_lookup_failed_leave_room_for_the_others(slow: Slow) -> None:
    hosts = [f"slow{number}.lan" for number in range(2 * LOOKUPS)]
    slow.says = {"app.lan": ["10.0.0.1"], **dict.fromkeys(hosts, socket.gaierror(socket.EAI_AGAIN, "later"))}
    slow.going_on.set()
    slow.feed.set("slow.com", [Node(f"{host}:3031") for host in hosts])
    for _ in range(2):
        slow.turn()
    assert {name.error for name in slow.table.names.values()} == {f"cannot resolve {host}: later" for host in hosts}
    slow.going_on.clear()
    slow.now += 30
    slow.resolver.turn()
    assert len(slow.resolver.pool) == slow.resolver.doubtful == DOUBTFUL
    slow.feed.announce("foo.com", Node(APP))
    slow.resolver.turn()
    gevent.sleep(0)
    assert slow.addresses() == ["10.0.0.1:3031"]
    slow.going_on.set()
    slow.resolver.pool.join()
    assert slow.resolver.doubtful == 0


def test_strangers_names_fill_no_log(names: Names, caplog: pytest.LogCaptureFixture) -> None:
    hosts = [f"app{number}.lan" for number in range(2 * WARNINGS)]
    names.says = {host: socket.gaierror(socket.EAI_NONAME, "unknown") for host in hosts}
    names.feed.set("foo.com", [Node(f"{host}:3031") for host in hosts])
    for _ in range(10):
        names.turn()
    assert len(names.asked) == 2 * WARNINGS and len(caplog.messages) == WARNINGS
    names.now += 1
    names.says["late.lan"] = socket.gaierror(socket.EAI_NONAME, "unknown")
    names.feed.announce("foo.com", Node("late.lan:3031"))
    names.turn()
    assert caplog.messages[-1] == "late.lan:3031: cannot resolve late.lan: unknown"


def test_run_looks_up_a_new_name_long_before_its_next_look(names: Names) -> None:
    names.says = {"app.lan": ["10.0.0.1"]}
    running = gevent.spawn(names.resolver.run)
    gevent.sleep(0)
    names.feed.announce("foo.com", Node(APP))
    wait_for(lambda: names.addresses(), "the name", timeout=LOOK_EVERY / 2, sleep=gevent.sleep)
    running.kill()


def test_the_systems_own_lookup_is_read_right() -> None:
    """Without a script: names that need no DNS."""
    table = Table()
    table.feed("consul").announce("foo.com", Node("localhost:3031"))
    resolver = Resolver(table)
    resolver.turn()
    resolver.pool.join()
    assert set(table.endpoints) <= {"127.0.0.1:3031", "[::1]:3031"} and "127.0.0.1:3031" in table.endpoints
