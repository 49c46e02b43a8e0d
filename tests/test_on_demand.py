"""Keys that are looked up when a request asks for them: from the request to the source and back."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clients import ask, read_to_end, request
from one_router import OneRouter, asking, forgets_who_leaves, waits
from router.lookups import ANY, HOSTS, MOST_OPEN, NOBODY
from router.node import Node
from router.waiting import SERVES
from scripted import HELLO, ScriptedNode, answer, connect, freeze, wait_for
from told import Told

GET = request("foo.com")
LONG = 60  # seconds that no test waits for
MIB = 1 << 20


def flood(address: str, keys: list[str], clients: int = 8) -> None:
    """A request for each of these keys, whatever comes of it."""

    def some(first: int) -> None:
        for key in keys[first::clients]:
            ask(address, request(key))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(some, range(clients)))


# One router.


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_waits_until_its_key_is_found(method: str) -> None:
    body = os.urandom(3 * MIB) if method == "POST" else b""
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router, ScriptedNode(answer(body=len(body))) as node:
        router.table({})
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask, router.address, request("foo.com", "/x", method, len(body)), body)
            assert router.hear("wanted")["wanted"] == ["foo.com"]
            waits(router)
            router.set("foo.com", [Node(node.address)])
            assert asked.result() == HELLO
        assert node.connections[0].body == body
        counts = router.wait_idle()
        assert (counts["waiting"], counts["complaints"]) == (0, {})


def test_many_requests_for_one_key_are_one_question_and_are_all_served() -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router, ScriptedNode() as node:
        router.table({})
        with asking(router, *[GET] * (3 * SERVES + 1)) as clients:
            assert router.hear("wanted")["wanted"] == ["foo.com"]
            assert [message for message in router.messages if "wanted" in message] == []
            router.set("foo.com", [Node(node.address)])
            assert [read_to_end(client) for client in clients] == [HELLO] * len(clients)


def test_a_definite_no_refuses_all_that_wait_and_for_a_moment_all_that_come() -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router:
        router.table({})
        with asking(router, *[GET] * (SERVES + 1)) as clients:
            router.tell(unknown=["foo.com", "bar.com"])
            assert [read_to_end(client) for client in clients] == [b""] * len(clients)
        assert ask(router.address, GET) == b""
        assert router.wait_idle()["complaints"] == {"unknown key": SERVES + 2}
        assert router.hear("wanted")["wanted"] == ["foo.com"]

        def asks_again() -> bool:
            ask_and_leave(router.address)
            router.counts()
            return any("wanted" in message for message in router.messages)

        wait_for(asks_again, "the next question")


def ask_and_leave(address: str) -> None:
    with connect(address) as client:
        client.sendall(GET)


def test_no_request_waits_longer_than_lookup_timeout_though_the_supervisor_is_silent() -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=1) as router:
        router.table({})
        began = time.monotonic()
        with asking(router, GET, GET) as clients:
            assert [read_to_end(client) for client in clients] == [b""] * 2
        assert 1 <= time.monotonic() - began < 8
        assert router.wait_idle()["complaints"] == {"lookup timeout": 2}


@pytest.mark.parametrize("leave", [lambda client: client.close(), lambda client: client.shutdown(socket.SHUT_WR)])
def test_a_client_that_leaves_while_it_waits_is_forgotten(leave: Any) -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router, ScriptedNode() as node:
        router.table({})
        forgets_who_leaves(router, node, leave)


@pytest.mark.parametrize(
    ("whom", "key", "wanted"),
    [
        (NOBODY, b"foo.com", False),
        (HOSTS, b"not a host", False),
        (HOSTS, b"f\xff\xc3", False),
        (HOSTS, b"Foo.com:80", True),
        (ANY, b"f\xff\xc3", True),
    ],
)
def test_only_what_a_source_may_know_is_asked_for(whom: str, key: bytes, wanted: bool) -> None:
    text = key.decode("utf-8", "surrogateescape")
    with OneRouter(on_demand=whom, lookup_timeout=LONG) as router, ScriptedNode() as node:
        router.table({})
        if not wanted:
            assert ask(router.address, request(text)) == b""
            assert router.wait_idle()["complaints"] == {"unknown key": 1}
            assert router.messages == []
        else:
            with asking(router, request(text)) as (client,):
                assert router.hear("wanted")["wanted"] == [text]
                router.set(text, [Node(node.address)])
                assert read_to_end(client) == HELLO


def test_there_are_only_so_many_questions_and_known_keys_are_served_meanwhile() -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router, ScriptedNode() as node:
        router.table({"bar.com": [Node(node.address)]})
        with asking(router, *[request(f"{number}.com") for number in range(MOST_OPEN)]) as clients:
            assert ask(router.address, GET) == b""
            assert ask(router.address, request("bar.com")) == HELLO
            assert router.counts()["complaints"] == {"too many lookups": 1}
            router.tell(unknown=[f"{number}.com" for number in range(MOST_OPEN)])
            assert {read_to_end(client) for client in clients} == {b""}
        with asking(router, GET):
            pass
        router.wait_idle()


def test_while_warming_a_no_is_not_the_last_word_and_a_find_is() -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router, ScriptedNode() as node:
        router.table({}, warming=LONG)
        with asking(router, GET, request("bar.com"), request("late.com")) as (foo, bar, late):
            router.tell(unknown=["bar.com"])
            router.set("foo.com", [Node(node.address)])
            assert read_to_end(foo) == HELLO
            waits(router, 2)
            router.tell(warming=0)
            assert read_to_end(bar) == b""
            waits(router, 1)
            router.set("late.com", [Node(node.address)])
            assert read_to_end(late) == HELLO
        assert router.wait_idle()["complaints"] == {"unknown key": 1}


@pytest.mark.parametrize("how", ["told", "supervisor gone"])
def test_a_stop_refuses_those_that_wait_at_once(how: str) -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG, drain_timeout=LONG) as router:
        router.table({})
        with asking(router, GET) as (client,):
            if how == "told":
                router.tell(stop=True)
            else:
                router.pair.shutdown(socket.SHUT_RDWR)
            assert read_to_end(client) == b""
            assert router.process.wait(10) == 0


def test_a_key_that_was_known_for_a_moment_only_is_refused_and_not_waited_for_again() -> None:
    with OneRouter(on_demand=HOSTS, lookup_timeout=LONG) as router, ScriptedNode() as node:
        router.table({})
        with asking(router, GET) as (client,):
            freeze(router.process.pid)
            packed = [node.address, 1, 0, 0, 0, "", "", ""]
            router.tell(set=[["foo.com", [packed], []]])
            router.tell(set=[["foo.com", [], [node.address]]])
            os.kill(router.process.pid, signal.SIGCONT)
            assert read_to_end(client) == b""
        assert router.wait_idle()["complaints"] == {"unknown key": 1}


# The whole.


def test_a_key_is_looked_up_once_for_all_and_served() -> None:
    with Told(2, on_demand=[0, 1], warm_timeout=0, processes=2, lookup_timeout=LONG) as told, ScriptedNode() as node:
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(ask, told.address, GET) for _ in range(6)]
            assert [told.wanted(0, 10), told.wanted(1, 10)] == ["foo.com"] * 2
            told.waits(6)
            assert (told.wanted(0), told.wanted(1)) == (None, None)
            told.say(0, "set", "foo.com", [])
            told.waits(6)
            told.say(1, "set", "foo.com", [node.address])
            assert [each.result() for each in asked] == [HELLO] * 6
        assert ask(told.address, GET) == HELLO
        stats = told.stats()
        assert (stats["waiting"], stats["complaints"]) == (0, {})
        assert stats["lookups"] == {
            "asked": 1, "open": 0, "answered": 1, "unknown": 0, "timed_out": 0, "refused": 0,
        }  # fmt: skip


@pytest.mark.parametrize("no", [["set", "foo.com", []], ["fail", "SERVFAIL", "foo.com"]])
def test_what_no_source_finds_is_refused_at_once(no: list[Any]) -> None:
    with Told(2, on_demand=[0], warm_timeout=0, lookup_timeout=LONG) as told, ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, told.address, GET)
        assert told.wanted(0, 10) == "foo.com"
        told.say(0, *no)
        assert asked.result() == b""
        assert (told.lookups()["unknown"], told.lookups()["open"]) == (1, 0)
        assert told.stats()["complaints"] == {"unknown key": 1}


def test_a_node_by_host_name_is_waited_for_until_it_is_resolved() -> None:
    with Told(1, on_demand=[0], warm_timeout=0, lookup_timeout=LONG) as told, ThreadPoolExecutor() as pool:
        with ScriptedNode() as node:
            asked = pool.submit(ask, told.address, GET)
            assert told.wanted(0, 10) == "foo.com"
            told.say(0, "set", "foo.com", [f"localhost:{node.address.rpartition(':')[2]}"])
            assert asked.result() == HELLO


def test_while_warming_a_source_on_demand_is_asked_and_other_sources_are_waited_for() -> None:
    with Told(2, on_demand=[1], warm_timeout=LONG, lookup_timeout=LONG) as told, ScriptedNode() as node:
        with ThreadPoolExecutor() as pool:
            found, other = pool.submit(ask, told.address, GET), None
            assert told.wanted(1, 10) == "foo.com"
            told.say(1, "replace", {})
            told.say(1, "set", "foo.com", [node.address])
            assert found.result() == HELLO
            other = pool.submit(ask, told.address, request("bar.com"))
            assert told.wanted(1, 10) == "bar.com"
            told.say(1, "set", "bar.com", [])
            wait_for(lambda: told.lookups()["unknown"], "the no")
            told.waits(1)
            told.say(0, "replace", {"bar.com": [node.address]})
            assert other.result() == HELLO
        assert told.stats()["warming"] == 0, "a source on demand has spoken when it says that it has begun"


@pytest.mark.slow
def test_cheap_mode_is_off_where_a_source_is_on_demand() -> None:
    with Told(2, on_demand=[1], warm_timeout=0, cheap=True) as told, ScriptedNode() as node:
        told.wait_line("^cheap mode is off: told-1 knows a node only when a request has asked for it$")
        assert not told.line("in cheap mode")
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask, told.address, GET)
            assert told.wanted(1, 10) == "foo.com"
            told.say(1, "set", "foo.com", [node.address])
            assert asked.result() == HELLO


def test_bytes_that_are_no_text_reach_a_source_that_wants_any_key() -> None:
    key = "f\udcff \udcc3"
    with Told(1, on_demand=[0], any_key=True, warm_timeout=0, lookup_timeout=LONG) as told, ScriptedNode() as node:
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask, told.address, request(key))
            assert told.wanted(0, 10) == key
            told.say(0, "set", key, [node.address])
            assert asked.result() == HELLO


def test_a_silent_source_costs_lookup_timeout_and_a_line() -> None:
    with Told(1, on_demand=[0], warm_timeout=0, lookup_timeout=1) as told:
        assert ask(told.address, GET) == b""
        told.wait_line(r"^\[uwsgi-fastrouter\] told-0 did not say within 1 s who serves foo\.com$")
        wait_for(lambda: told.lookups()["open"] == 0, "the question to end")
        assert told.lookups()["timed_out"] == 1
        assert told.wanted(0) is None, "nobody waits for it any more"
        assert told.stats()["complaints"] == {"lookup timeout": 1}


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.slow
def test_a_supervisor_that_is_frozen_or_gone_costs_no_more(number: signal.Signals) -> None:
    with Told(1, on_demand=[0], warm_timeout=0, lookup_timeout=1, drain_timeout=1) as told:
        with connect(told.address) as client:
            client.sendall(GET)
            told.waits(1)
            told.send_signal(number)
            assert read_to_end(client) == b""
        if number == signal.SIGSTOP:
            assert ask(told.address, request("bar.com")) == b""
            told.send_signal(signal.SIGCONT)
            wait_for(lambda: told.stats()["complaints"] == {"lookup timeout": 2}, "the counts")
            wait_for(lambda: told.lookups()["open"] == 0, "the questions to end")


@pytest.mark.slow
@pytest.mark.long
def test_a_flood_of_unknown_hosts_costs_little_and_known_keys_are_served() -> None:
    keys = [f"{number}.flood.example" for number in range(20_000)]
    with Told(1, on_demand=[0], warm_timeout=0) as told, ScriptedNode() as node:
        told.say(0, "set", "foo.com", [node.address])
        told.say(0, "answer", {"late.com": [node.address]})
        wait_for(lambda: ask(told.address, GET) == HELLO, "the known key")
        router = int(told.wait_line(r"^spawned uWSGI fastrouter 1 \(pid: (\d+)\)")[1])
        flood(told.address, keys[:2000])
        before = [resident(pid) for pid in (router, told.pid)]
        known: Counter[bytes] = Counter()
        over = threading.Event()

        def ask_known() -> None:
            while not over.is_set():
                known[ask(told.address, GET)] += 1

        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask_known)
            flood(told.address, keys)
            flood(told.address, ["same.example"] * 2000)
            over.set()
            asked.result()
        grown = [resident(pid) - was for pid, was in zip((router, told.pid), before, strict=True)]
        assert max(grown) < 8 * MIB
        assert (set(known), known[HELLO] >= 10) == ({HELLO}, True)
        assert ask(told.address, request("late.com")) == HELLO
        wait_for(lambda: told.lookups()["open"] == 0, "all questions to end")
        stats = told.stats()
        assert (stats["waiting"], stats["active_sessions"]) == (0, 0)
        lookups = stats["lookups"]
        assert lookups["asked"] == lookups["answered"] + lookups["unknown"] + lookups["timed_out"]


@pytest.mark.slow
def test_a_flood_at_a_source_that_is_silent_is_bounded_as_well() -> None:
    with Told(1, on_demand=[0], warm_timeout=0, lookup_timeout=1) as told, ScriptedNode() as node:
        told.say(0, "set", "foo.com", [node.address])
        wait_for(lambda: ask(told.address, GET) == HELLO, "the known key")
        clients = []
        for number in range(2 * MOST_OPEN):
            clients.append(connect(told.address))
            clients[-1].sendall(request(f"{number}.example"))
        assert ask(told.address, GET) == HELLO
        for client in clients:
            assert read_to_end(client) == b""
            client.close()
        wait_for(lambda: told.lookups()["open"] == 0, "all questions to end")
        complaints = told.stats()["complaints"]
        assert complaints["lookup timeout"] + complaints["too many lookups"] == 2 * MOST_OPEN
        assert told.lookups()["refused"] == complaints["too many lookups"]


def resident(pid: int) -> int:
    """Bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")
