"""Shares of several routers, added up to what uWSGI's fastrouter shows."""

import json
from typing import Any

import pytest

from router import stats
from router.feed import Feed
from router.kernel import Usage
from router.key import key_hash
from router.node import Node
from router.sourcestate import Watched
from router.table import Table


def a_table() -> Table:
    table = Table()
    table.feed("subscription").set("foo.com", [Node(":1", weight=2, load=3, last_check=100.5), Node(":2")])
    return table


class Silent:
    name = "silent"

    def run(self, feed: Feed) -> None:
        raise NotImplementedError


def slots(*shares: dict[str, Any]) -> list[stats.Slot]:
    """Slots with the processes 1000, 1001, ..., which were started at 50.5 and have told this at 70.25."""
    made = []
    for number, share in enumerate(shares):
        slot = stats.Slot(number + 1)
        slot.fill(1000 + number, 50.5, cheap=False)
        slot.hear(share, 70.25)
        made.append(slot)
    return made


def of(table: Table, slots: list[stats.Slot]) -> dict[str, Any]:
    found = stats.snapshot(
        table,
        slots,
        addresses=["127.0.0.1:3031"],
        sources=[Watched(Silent(), feed).row() for feed in table.feeds],
        cwd="/",
        warming=7,
        lookups={"asked": 4, "open": 1, "refused": 2},
        listen_queue=3,
        usage=lambda pid: Usage(rss=pid, vsz=2 * pid, running_time=3 * pid),
    )
    return json.loads(json.dumps(found))


def shown(table: Table, *shares: dict[str, Any]) -> dict[str, Any]:
    return of(table, slots(*shares))


def share(
    requests: int, ref: int = 0, notes: tuple[tuple[float, int], ...] = (), cheap: bool = False
) -> dict[str, Any]:
    nodes = {":1": [requests, 10 * requests, 20 * requests, ref, 1, list(notes)]}
    return {
        "active": ref,
        "waiting": 2,
        "queued": {"foo.com": 2},
        "queued_in_all": 5,
        "requests": requests,
        "tx": 10 * requests,
        "cheap": cheap,
        "complaints": {"no key": 2, "internal error": 1},
        "pools": {"foo.com": [requests, nodes]},
    }


@pytest.mark.parametrize(("key", "number"), [("foo.com", 11571), ("", 5381), ("\udcff", 19032)])
def test_djb33x_is_uwsgis(key: str, number: int) -> None:
    """The first as the article shows it; the third is (5381 * 33) ^ 0xFFFFFFFF, as a byte from 0x80 on is signed."""
    assert key_hash(key) == number


def test_shares_add_up() -> None:
    found = shown(a_table(), share(3, ref=1), share(4))
    (pool,) = found["subscriptions"]
    first, second = pool["nodes"]
    assert (pool["key"], pool["hash"], pool["hits"], pool["algo"]) == ("foo.com", 11571, 7, "wrr")
    assert (first["requests"], first["tx"], first["rx"], first["ref"], first["failcnt"]) == (7, 70, 140, 1, 2)
    assert (first["weight"], first["load"], first["last_check"]) == (2, 3, 100)
    assert (second["name"], second["requests"]) == (":2", 0)
    assert found["active_sessions"] == 1
    assert (found["waiting"], found["warming"]) == (4, 7)
    assert found["complaints"] == {"no key": 4, "internal error": 2}
    assert found["listen_queue"] == 3


def test_lookups_are_what_was_asked_and_what_routers_refused_to_ask() -> None:
    first, second = share(1), share(1)
    for each in (first, second):
        each["complaints"] = {"too many lookups": 3}
    assert shown(a_table(), first, second)["lookups"] == {"asked": 4, "open": 1, "refused": 2 + 3 + 3}


def test_the_queue_is_what_waits_now_and_what_has_come_into_it_or_in_vain_since_ever() -> None:
    first, second = slots(share(1), share(1))
    for slot in (first, second):
        slot.counts["complaints"] = {"queue full": 3, "queue timeout": 1}
    first.vacate()
    first.fill(1002, 60.5, cheap=False)
    assert of(a_table(), [first, second])["queue"] == {"waiting": 2, "entered": 10, "refused": 6, "timed_out": 2}


def test_a_router_process_is_shown_as_a_worker() -> None:
    first, second = shown(a_table(), share(3, ref=1), share(4, cheap=True))["workers"]
    assert first == {
        "id": 1, "pid": 1000, "accepting": 1, "requests": 3, "delta_requests": 3, "exceptions": 1, "harakiri_count": 0,
        "signals": 0, "status": "busy", "rss": 1000, "vsz": 2000, "running_time": 3000, "last_spawn": 50,
        "respawn_count": 1, "tx": 30, "avg_rt": 0, "active_sessions": 1,
        "cores": [{"id": 0, "requests": 3, "in_request": 1}],
    }  # fmt: skip
    assert (second["id"], second["status"], second["accepting"], second["cores"][0]["in_request"]) == (2, "cheap", 0, 0)
    (idle,) = shown(a_table(), share(0))["workers"]
    assert (idle["status"], idle["accepting"]) == ("idle", 1)


def test_routers_are_the_same_rows_with_fewer_names() -> None:
    found = shown(a_table(), share(3, ref=1) | {"lag": 0.25}, share(4))
    assert found["routers"] == [
        {"pid": 1000, "active_sessions": 1, "requests": 3, "queued": 2, "lag": 0.25, "last_answer": 70.25},
        {"pid": 1001, "active_sessions": 0, "requests": 4, "queued": 2, "lag": 0.0, "last_answer": 70.25},
    ]


def test_a_process_that_has_told_nothing_yet_is_shown_too() -> None:
    slot = stats.Slot(1)
    slot.fill(7, 50.5, cheap=True)
    (worker,) = of(a_table(), [slot])["workers"]
    assert (worker["pid"], worker["requests"], worker["status"]) == (7, 0, "cheap")


def test_a_slot_counts_on_when_its_process_is_replaced() -> None:
    table = a_table()
    first, second = slots(share(3, ref=1), share(4))
    stats.retire(table, first)
    found = of(table, [first, second])
    assert [worker["id"] for worker in found["workers"]] == [2], "an empty slot is no process"
    assert (found["active_sessions"], found["complaints"]) == (0, {"no key": 4, "internal error": 2})
    first.fill(2000, 60.0, cheap=False)
    first.hear(share(2), 80.5)
    again = of(table, [first, second])["workers"][0]
    assert (again["pid"], again["respawn_count"], again["last_spawn"]) == (2000, 2, 60)
    assert (again["requests"], again["delta_requests"], again["tx"], again["exceptions"]) == (5, 2, 50, 2)


def test_last_requests_are_those_after_the_announcement() -> None:
    notes = ((99.0, 0), (100.4, 2), (100.6, 3), (101.0, 4))
    assert shown(a_table(), share(5, notes=notes))["subscriptions"][0]["nodes"][0]["last_requests"] == 2
    assert shown(a_table(), share(5, notes=notes[:2]))["subscriptions"][0]["nodes"][0]["last_requests"] == 0


def test_cheap_is_1_when_all_routers_are() -> None:
    assert shown(a_table(), share(0, cheap=True), share(0, cheap=True))["cheap"] == 1
    assert shown(a_table(), share(0, cheap=True), share(0))["cheap"] == 0


def test_what_a_dead_router_counted_stays_and_its_gauges_go() -> None:
    table = a_table()
    stats.retire(table, *slots(share(3, ref=1)))
    node = shown(table, share(4))["subscriptions"][0]["nodes"][0]
    assert (node["requests"], node["tx"], node["ref"], node["failcnt"]) == (7, 70, 0, 2)


def test_what_it_counted_for_nodes_and_keys_that_have_left_is_dropped() -> None:
    table = a_table()
    table.feeds[0].set("foo.com", [Node(":2")])
    stats.retire(table, *slots(share(3)))
    assert shown(table)["subscriptions"][0]["nodes"][0]["requests"] == 0
    table.feeds[0].set("foo.com", [])
    stats.retire(table, *slots(share(3)))
    assert shown(table)["subscriptions"] == []


def test_a_share_of_a_node_that_has_left_meanwhile_is_not_shown() -> None:
    table = a_table()
    table.feeds[0].withdraw("foo.com", ":1")
    (node,) = shown(table, share(3))["subscriptions"][0]["nodes"]
    assert (node["name"], node["requests"]) == (":2", 0)


def test_sources_tell_how_they_are() -> None:
    table = a_table()
    table.feeds[0].reject("bad key")
    table.feeds[0].fail(OSError("gone"))
    (source,) = shown(table)["sources"]
    told = {name: source[name] for name in ("name", "state", "nodes", "error", "errors", "rejected")}
    rejected = {"bad key": 1}
    assert told == {
        "name": "subscription", "state": "failing", "nodes": 2, "error": "gone", "errors": 1, "rejected": rejected,
    }  # fmt: skip


def test_a_node_names_its_sources_in_their_order() -> None:
    table = a_table()
    consul = table.feed("consul")
    consul.set("foo.com", [Node("app.lan:2"), Node(":1", weight=9)])
    table.resolve("app.lan:2", ["10.0.0.1:2"])
    (pool,) = shown(table)["subscriptions"]
    assert {node["name"]: node["sources"] for node in pool["nodes"]} == {
        ":1": ["subscription", "consul"],
        ":2": ["subscription"],
        "10.0.0.1:2": ["consul"],
    }


def test_a_key_of_any_bytes_is_valid_json() -> None:
    table = Table()
    table.feed("subscription").announce(b'"\\\xff'.decode("utf-8", "surrogateescape"), Node(":1"))
    assert shown(table)["subscriptions"][0]["key"] == '"\\\ufffd'


def test_host_names_are_shown_with_what_they_stand_for_and_nodes_with_their_name() -> None:
    table = Table()
    table.feed("consul").set("foo.com", [Node("app.lan:1"), Node(":2")])
    table.resolve("app.lan:1", ["10.0.0.1:1", "[fd00::1]:1"])
    table.names["app.lan:1"].error = "cannot resolve app.lan: try again"
    found = shown(table)
    assert found["hosts"] == [
        {
            "name": "app.lan:1",
            "addresses": ["10.0.0.1:1", "[fd00::1]:1"],
            "error": "cannot resolve app.lan: try again",
        }
    ]
    named = {node["name"]: node["host"] for node in found["subscriptions"][0]["nodes"]}
    assert named == {":2": "", "10.0.0.1:1": "app.lan:1", "[fd00::1]:1": "app.lan:1"}
    assert found["sources"][0]["nodes"] == 2, "as its source said them"
    table.feeds[0].set("foo.com", [])
    assert shown(table)["hosts"] == []
