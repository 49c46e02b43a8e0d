"""What a router has yet to be told: one message for all that is news, whatever happened since it last read."""

from time import monotonic
from types import SimpleNamespace
from typing import Any

import gevent.event
import pytest

from router import child
from router.child import Child
from router.endpoint import Cause
from router.node import Node
from router.options import Options
from router.pair import unpack_node
from router.stats import Slot
from router.table import Change, Table


class Unread(Child):
    """A child without a process, which has got the table and reads nothing."""

    def __init__(self) -> None:
        self.table = Table(on_change=self.note_change, on_health=lambda endpoint: self.note_health(endpoint.address))
        self.feed = self.table.feed("subscription")
        self.news = gevent.event.Event()
        self.told = True
        self.keys = {}
        self.loads = {}
        self.health = {}
        self.unknown = {}
        self.orders = {}
        self.pid = 7
        self.sending_since = None
        self.killed = False
        self.kills = 0
        self.process = self  # type: ignore[assignment]  # `kill` is all that is asked of it

    def kill(self) -> None:
        self.kills += 1

    def warming_left(self) -> float:
        return 0.0

    def message(self) -> dict[str, Any]:
        return self._news()


@pytest.fixture
def unread() -> Unread:
    return Unread()


def test_each_process_is_told_its_part_of_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    started = SimpleNamespace(pid=7)
    monkeypatch.setattr("gevent.subprocess.Popen", lambda *arguments, **more: started)
    options = Options(max_connections=3, processes=2)
    told = []
    for number in (1, 2):
        made = Child(Slot(number), Table(), options, [], 2, lambda: 0.0, SimpleNamespace(whom=""), {})  # type: ignore[arg-type]
        told.append(Options.from_json(made.hello["options"]).max_connections)
        made.end()
    assert told == [2, 1]


def told(message: dict[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
    """Key → (the nodes it holds, who has left), by address."""
    return {key: ([unpack_node(n).address for n in nodes], left) for key, nodes, left in message.get("set", ())}


def test_a_key_is_told_once_as_it_is_now(unread: Unread) -> None:
    for port in (1, 2, 3):
        unread.feed.announce("foo.com", Node(f":{port}"))
    unread.feed.withdraw("foo.com", ":2")
    assert told(unread.message()) == {"foo.com": ([":1", ":3"], [":2"])}
    assert unread.message() == {}


def test_one_that_left_and_came_back_is_told_as_both(unread: Unread) -> None:
    unread.feed.announce("foo.com", Node(":1"))
    unread.message()
    unread.feed.withdraw("foo.com", ":1")
    unread.feed.announce("foo.com", Node(":1"))
    assert told(unread.message()) == {"foo.com": ([":1"], [":1"])}


def test_a_key_that_is_gone_is_told_as_empty(unread: Unread) -> None:
    unread.feed.announce("foo.com", Node(":1"))
    unread.message()
    unread.feed.withdraw("foo.com", ":1")
    assert told(unread.message()) == {"foo.com": ([], [":1"])}


def test_health_is_told_as_it_is_now(unread: Unread) -> None:
    unread.feed.announce("foo.com", Node(":1"))
    unread.feed.announce("foo.com", Node(":2"))
    unread.message()
    for address in (":1", ":2"):
        unread.table.fail(unread.table.endpoints[address], out_until=30.0)
    unread.feed.announce("foo.com", Node(":1"))
    message = unread.message()
    ((address, cause, times, _),) = message["out"]
    assert (address, cause, times, message["live"]) == (":2", Cause.REFUSED, 1, [":1"])


def test_what_is_drained_is_told(unread: Unread) -> None:
    unread.table.drain(((":1",), ("foo.com",)))
    unread.note_drain()
    assert unread.message() == {"drained": [[":1"], ["foo.com"]]}


def test_a_failed_node_that_moves_to_another_key_is_told_to_be_in_turn_again(unread: Unread) -> None:
    """The router may hear of the new key before it hears that the old one is gone, and keep its endpoint, still out."""
    unread.feed.announce("old.com", Node(":1"))
    unread.table.fail(unread.table.endpoints[":1"], out_until=30.0)
    unread.message()
    unread.feed.withdraw("old.com", ":1")
    unread.feed.announce("new.com", Node(":1"))
    assert unread.message()["live"] == [":1"]


def test_announcements_that_change_nothing_are_not_told(unread: Unread) -> None:
    unread.feed.announce("foo.com", Node(":1", load=1, last_check=100))
    unread.message()
    unread.feed.announce("foo.com", Node(":1", load=2, last_check=110))
    assert unread.message() == {} and not unread.keys


def test_before_the_table_was_sent_nothing_is_noted(unread: Unread) -> None:
    unread.told = False
    unread.feed.announce("foo.com", Node(":1"))
    assert unread.message() == {}


@pytest.mark.parametrize(("reads", "kills"), [(True, 0), (False, 1)])
def test_one_that_reads_nothing_while_everything_changes_is_killed_once(
    unread: Unread, monkeypatch: pytest.MonkeyPatch, reads: bool, kills: int
) -> None:
    monkeypatch.setattr(child, "UNSENT_KEYS", 10)
    unread.sending_since = None if reads else monotonic() - child.STUCK
    for number in range(10):
        unread.note_change(Change(f"{number}.com", "subscription"))
    assert unread.kills == 0
    for key in ("one.more", "and.another"):
        unread.note_change(Change(key, "subscription"))
    assert unread.kills == kills


def test_a_huge_change_is_told_in_messages_that_a_router_takes_in_soon_and_health_last(unread: Unread) -> None:
    pools = {f"{key}.com": [Node(f"10.0.{key}.{n}:1") for n in range(100)] for key in range(50)}
    unread.feed.replace(pools)
    unread.table.fail(unread.table.endpoints["10.0.0.0:1"], 1.0)
    messages = [unread.message()]
    while unread.keys:
        messages.append(unread.message())
    told = [key for message in messages for key, _, _ in message["set"]]
    assert sorted(told) == sorted(pools)
    assert max(sum(len(nodes) for _, nodes, _ in message["set"]) for message in messages) <= child.SET_NODES
    assert ["out" in message for message in messages] == [False] * (len(messages) - 1) + [True]


def test_a_key_of_more_nodes_than_a_message_has_goes_whole(unread: Unread) -> None:
    count = 2 * child.SET_NODES
    unread.feed.set("foo.com", [Node(f"10.0.{n >> 8}.{n & 255}:1") for n in range(count)])
    unread.feed.set("bar.com", [Node(":1")])
    (first,) = unread.message()["set"]
    assert (first[0], len(first[1])) == ("foo.com", count)
    assert [key for key, _, _ in unread.message()["set"]] == ["bar.com"]


def test_warming_ends_and_counters_are_asked_for_when_all_keys_of_a_huge_change_are_told(unread: Unread) -> None:
    """A request that waits for a key of the last message must not be refused by the first."""
    unread.feed.replace({f"{n}.com": [Node(":1"), Node(":2")] for n in range(child.SET_NODES)})
    unread.order(warming=0, count=1)
    messages = [unread.message()]
    while unread.keys:
        messages.append(unread.message())
    assert [("warming" in message, "count" in message) for message in messages] == [
        *[(False, False)] * (len(messages) - 1),
        (True, True),
    ]
    assert len(messages) > 2


def test_a_key_that_is_known_by_now_is_not_told_as_unknown(unread: Unread) -> None:
    unread.note_unknown("foo.com")
    unread.note_unknown("bar.com")
    unread.feed.announce("foo.com", Node(":1"))
    assert unread.message()["unknown"] == ["bar.com"]


def test_loads_are_told_one_by_one_and_of_a_new_key_all() -> None:
    unread = Unread()
    unread.table.algorithm = "load"
    unread.feed.set("foo.com", [Node(":1", load=3, cores=2), Node(":2")])
    unread.feed.set("bar.com", [Node(":1", algorithm="wrr")])
    message = unread.message()
    assert sorted(message["loads"]) == [["foo.com", ":1", 3, 2], ["foo.com", ":2", 0, 0]]
    for load in (4, 5):
        unread.feed.announce("foo.com", Node(":2", load=load))
        unread.feed.announce("bar.com", Node(":1", load=load, algorithm="wrr"))
    assert unread.message() == {"loads": [["foo.com", ":2", 5, 0]]}
    unread.feed.announce("foo.com", Node(":2", load=6))
    unread.feed.withdraw("foo.com", ":2")
    assert unread.message()["loads"] == [["foo.com", ":1", 3, 2]]
    assert unread._whole_table()["loads"] == [["foo.com", ":1", 3, 2]]


def test_each_node_is_told_with_the_algorithm_of_its_pool() -> None:
    unread = Unread()
    unread.feed.announce("foo.com", Node(":1", algorithm="lrc"))
    unread.feed.announce("foo.com", Node(":2"))
    unread.feed.announce("bar.com", Node(":3"))
    unread.feed.announce("bar.com", Node(":4", algorithm="lrc"))
    told = {key: [unpack_node(node).algorithm for node in nodes] for key, nodes, _ in unread.message()["set"]}
    assert told == {"foo.com": ["lrc", "lrc"], "bar.com": ["", ""]}
