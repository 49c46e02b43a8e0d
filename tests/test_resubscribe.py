"""Telling other routers: what is offered, when it is said, and that nothing goes round for ever. The clock is ours.

The receivers are real subscription servers on loopback, in which a datagram waits when `send` returns.
"""

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from announced import UNSUBSCRIBE, Announced, packet
from discovery.announcement import LARGEST_INT, parse_announcement
from discovery.resubscribe import Receiver, Resubscribe, told_as
from discovery.resubscribeteller import AHEAD, BATCH, EVERY, PAUSE, PROBE_EVERY, Teller, Troubles
from discovery.subscription import LONGEST_ROUTER, MOST_ROUTERS, loop
from discovery.torouter import ECHO_S
from router.address import Inet, Unix
from router.endpoint import Cause
from router.node import Node
from router.resubscribe import Offer, Offers
from router.static import TO
from router.table import Change, Table

OWN = "10.9.9.9:3031"
KEY = "foo.com"


class Inner:
    """A router's table, with one source that takes announcements and one that does not."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changed: list[str] = []
        self.table = Table(on_change=lambda change: self.changed.append(change.key))
        self.workers = self.table.feed("subscription")
        self.others = self.table.feed("consul")
        self.offers = Offers(self.table, [self.workers], lambda: self.now)

    def join(self, address: str = "10.0.0.1:1", key: str = KEY, **said: Any) -> None:
        self.workers.announce(key, Node(address, **said))

    def leave(self, address: str = "10.0.0.1:1", key: str = KEY) -> None:
        self.workers.withdraw(key, address)

    def fail(self, address: str = "10.0.0.1:1", seconds: float = 30.0, cause: Cause = Cause.REFUSED) -> None:
        self.table.fail(self.table.endpoints[address], self.now + seconds, cause)


@pytest.fixture
def inner() -> Inner:
    return Inner()


# What is offered.


def test_an_offer_is_the_sum_of_all_weights(inner: Inner) -> None:
    assert inner.offers.get(KEY) is None and inner.offers.keys() == [] and not inner.offers.knows(KEY)
    inner.join("10.0.0.1:1", weight=3)
    inner.join("10.0.0.2:1", weight=4)
    assert inner.offers.get(KEY) == Offer(7)
    assert inner.offers.keys() == [KEY] and inner.offers.knows(KEY)


def test_of_several_levels_the_first_one_is_offered(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3, backup=2)
    inner.join("10.0.0.2:1", weight=4, backup=1)
    inner.join("10.0.0.3:1", weight=5, backup=1)
    assert inner.offers.get(KEY) == Offer(9, backup=1)


def test_nodes_of_other_sources_are_not_offered_unless_asked_for(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3)
    inner.others.set(KEY, [Node("10.0.0.2:1", weight=4)])
    inner.others.set("bar.com", [Node("10.0.0.2:1")])
    inner.others.set(TO, [Node("10.0.0.3:1")])
    assert inner.offers.get(KEY) == Offer(3)
    assert inner.offers.keys() == [KEY] and inner.offers.get("bar.com") is None and not inner.offers.knows("bar.com")
    everything = Offers(inner.table, [inner.workers, inner.others])
    assert everything.get(KEY) == Offer(7)
    assert everything.keys() == [KEY, "bar.com"], "no key that stands for an option"
    assert everything.get(TO) is None and not everything.knows(TO)


def test_a_node_by_host_name_is_offered_by_its_addresses(inner: Inner) -> None:
    inner.join("app.internal:1", weight=3)
    assert inner.offers.get(KEY) is None, "its address is not known yet"
    inner.table.resolve("app.internal:1", ["10.0.0.1:1", "10.0.0.2:1"])
    assert inner.offers.get(KEY) == Offer(6)


def test_drained_nodes_are_not_offered_nor_drained_keys(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3)
    inner.join("10.0.0.2:1", weight=4)
    inner.table.drain((["10.0.0.1:1"], []))
    assert inner.offers.get(KEY) == Offer(4)
    inner.table.drain(([], [KEY]))
    assert inner.offers.get(KEY) is None and inner.offers.knows(KEY)


def test_a_key_is_offered_while_any_of_its_nodes_can_be_asked(inner: Inner) -> None:
    inner.join("10.0.0.1:1", weight=3)
    inner.join("10.0.0.2:1", weight=4)
    inner.fail("10.0.0.1:1")
    assert inner.offers.get(KEY) == Offer(7), "the one that is out may be back in a moment"
    inner.fail("10.0.0.2:1", cause=Cause.CHECK)
    assert inner.offers.get(KEY) is None
    inner.now += 30.0
    assert inner.offers.get(KEY) == Offer(7), "one of them may be tried again"


def test_broken_nodes_are_asked_where_there_is_no_other(inner: Inner) -> None:
    inner.join()
    inner.fail(cause=Cause.BROKEN)
    assert inner.offers.get(KEY) == Offer(1)


def test_the_shortest_way_to_a_worker_is_offered(inner: Inner) -> None:
    inner.join("10.0.0.1:1", via="b c")
    assert inner.offers.get(KEY) == Offer(1, via="b c")
    inner.join("10.0.0.2:1", via="e", weight=2)
    inner.join("10.0.0.3:1", via="d", weight=3)
    assert inner.offers.get(KEY) == Offer(5, via="d"), "of two that are as short always the same one"
    inner.join("10.0.0.4:1", backup=1)
    assert inner.offers.get(KEY) == Offer(5, via="d"), "it serves when they do not"
    inner.join("10.0.0.5:1", weight=7)
    assert inner.offers.get(KEY) == Offer(7)


# How it is told.


class Telling:
    """A teller, and the router that it tells, whose clocks are that of `inner`; `turn` is what its greenlet does."""

    def __init__(self, inner: Inner, url: str = "udp://127.0.0.1:0", **settings: Any) -> None:
        self.inner = inner
        self.outer = Announced(url, **settings)
        name = self.outer.source.socket.getsockname()
        self.place = Inet(socket.AF_INET, name) if isinstance(name, tuple) else Unix(name.encode())
        self.random = random.Random(1)
        self.teller = self.new_teller()
        self.next = inner.now

    def __enter__(self) -> Self:
        self.outer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.teller._close()
        self.outer.__exit__(kind, error, trace)

    def new_teller(self) -> Teller:
        return Teller("r", self.place, OWN, self.inner.offers, "me", clock=lambda: self.inner.now,
                      random=self.random.random, sleep=lambda seconds: None)  # fmt: skip

    def turn(self) -> int:
        """One turn, and what it has said is taken in; returns how many datagrams that were."""
        self.teller.note(self.inner.changed)
        self.inner.changed.clear()
        before = self.teller.sent
        self.next = self.inner.now + max(PAUSE, self.teller.turn())
        self.take()
        return self.teller.sent - before

    def take(self) -> None:
        self.outer.now = self.inner.now + 4000.0
        for _ in range(3):
            self.outer.source.turn(self.outer.feed)

    def run(self, seconds: float) -> int:
        """Let time pass; returns how many datagrams one turn had at most."""
        end, most = self.inner.now + seconds, 0
        while self.inner.now < end:
            self.inner.now = min(end, max(self.next, self.inner.now + PAUSE), self.inner.now + 1.0)
            most = max(most, self.turn())
        return most

    def weights(self, key: str = KEY) -> list[int]:
        return [node.weight for node in self.outer.nodes(key)]


@pytest.fixture
def telling(inner: Inner) -> Iterator[Telling]:
    with Telling(inner) as telling:
        yield telling


def test_a_pool_that_opens_is_told_at_once_and_once(inner: Inner, telling: Telling) -> None:
    assert telling.turn() == 0
    inner.join(weight=2, modifier1=5, cores=4, load=3)
    assert telling.turn() == 1
    (node,) = telling.outer.nodes()
    assert (node.address, node.weight, node.modifier1, node.cores, node.load, node.backup) == (OWN, 2, 0, 0, 0, 0)
    assert node.via == "me"
    assert telling.turn() == 0


def test_changes_of_one_moment_are_said_once(inner: Inner, telling: Telling) -> None:
    for number in range(1, 6):
        inner.join(f"10.0.0.{number}:1", weight=number)
    assert telling.turn() == 1
    assert telling.weights() == [15]
    inner.join("10.0.0.1:1", weight=1, load=7)
    telling.teller.note([KEY])
    assert telling.turn() == 0, "nothing that is told has changed"
    inner.leave("10.0.0.5:1")
    assert telling.turn() == 1
    assert telling.weights() == [10]


def test_only_when_the_last_node_leaves_the_key_is_withdrawn(inner: Inner, telling: Telling) -> None:
    inner.join("10.0.0.1:1")
    inner.join("10.0.0.2:1")
    telling.turn()
    inner.leave("10.0.0.1:1")
    assert telling.turn() == 1
    assert telling.weights() == [1]
    inner.leave("10.0.0.2:1")
    assert telling.turn() == 1
    assert telling.weights() == []
    assert telling.run(30) == 0, "and never mentioned again"
    assert telling.teller.told == {}


def test_each_key_is_said_again_before_ten_seconds_are_over(inner: Inner, telling: Telling) -> None:
    inner.join()
    telling.turn()
    for _ in range(20):
        begin = inner.now
        while not telling.turn():
            inner.now = telling.next
            assert inner.now - begin <= EVERY
        assert inner.now - begin >= 0.8 * EVERY - 2 * PAUSE


def test_a_sum_beyond_the_field_is_the_most_that_it_holds(inner: Inner, telling: Telling) -> None:
    inner.join("10.0.0.1:1", weight=LARGEST_INT)
    inner.join("10.0.0.2:1", weight=LARGEST_INT)
    telling.turn()
    assert telling.weights() == [LARGEST_INT]


def test_the_level_and_the_way_are_told(inner: Inner, telling: Telling) -> None:
    inner.join(backup=3, via="a b")
    telling.turn()
    (node,) = telling.outer.nodes()
    assert (node.backup, node.via) == (3, "me a b")


def test_failed_nodes_are_withdrawn_at_the_renewal_and_back_at_once(inner: Inner, telling: Telling) -> None:
    inner.join()
    telling.turn()
    inner.fail(seconds=25.0)
    telling.teller.turn()
    assert telling.weights() == [1], "they may be back in a moment"
    telling.run(EVERY)
    assert telling.weights() == []
    inner.join()  # its own word brings it back
    telling.teller.note([KEY])
    telling.turn()
    assert telling.weights() == [1]
    inner.fail(seconds=25.0)
    telling.run(EVERY)
    assert telling.weights() == []
    telling.run(25.0)
    assert telling.weights() == [1], "so that it is tried"


def test_a_key_whose_nodes_have_failed_before_the_start_is_told_when_they_are_tried(inner: Inner) -> None:
    inner.join()
    inner.fail(seconds=15.0)
    with Telling(inner) as telling:
        telling.run(14.0)
        assert telling.weights() == []
        telling.run(EVERY)
        assert telling.weights() == [1]


def test_what_is_known_before_the_start_is_told(inner: Inner) -> None:
    inner.join()
    with Telling(inner) as telling:
        assert telling.turn() == 1
        assert telling.weights() == [1]


class Paced(Teller):
    """Sends nothing, and keeps when each key was said last, and how late that was."""

    def __init__(self, inner: Inner, count: int) -> None:
        for number in range(count):
            inner.join(key=f"{number}.com")
        place = Inet(socket.AF_INET, ("127.0.0.1", 1))
        super().__init__("r", place, OWN, inner.offers, "me", clock=lambda: inner.now)
        self.inner = inner
        self.last: dict[str, float] = {}
        self.longest = 0.0

    def _send(self, key: str, offer: Any) -> None:
        self.sent += 1
        self.longest = max(self.longest, self.inner.now - self.last.get(key, self.inner.now))
        self.last[key] = self.inner.now

    def run_for(self, seconds: float) -> int:
        """The most that one turn has sent."""
        end, most = self.inner.now + seconds, 0
        while self.inner.now < end:
            before = self.sent
            self.inner.now += max(PAUSE, self.turn())
            most = max(most, self.sent - before)
        return most


def test_ten_thousand_keys_never_burst_and_none_expires(inner: Inner) -> None:
    paced = Paced(inner, 10_000)
    assert paced.run_for(18.0) == BATCH
    assert len(paced.last) == 10_000
    inner.join("10.0.0.9:1", key="new.com")
    paced.note(["new.com"])
    paced.turn()
    assert "new.com" in paced.last, "nothing new waits for the renewals"
    assert paced.run_for(30.0) <= BATCH + 1
    assert paced.longest < 14.5


def test_more_keys_than_that_are_said_within_a_round_all_the_same(inner: Inner) -> None:
    paced = Paced(inner, 15_000)
    paced.run_for(20.0)
    assert len(paced.last) == 15_000
    assert paced.run_for(30.0) == 24
    assert paced.longest < 17.0


def test_the_renewals_of_many_keys_spread(inner: Inner) -> None:
    paced = Paced(inner, 1000)
    paced.run_for(60.0)
    moments = sorted(paced.last.values())
    assert moments[-1] - moments[0] > 6.0 and paced.longest <= EVERY + 0.5


def test_renewals_do_not_wait_for_all_that_is_new(inner: Inner, telling: Telling) -> None:
    for number in range(100):
        inner.join(key=f"{number}.com")
    telling.run(1.0)
    inner.now += EVERY
    telling.teller.note([f"{number}.net" for number in range(10_000)])
    for number in range(10_000):
        inner.join(key=f"{number}.net")
    inner.changed.clear()
    telling.run(0.5)
    assert telling.outer.source._heard["99.com", OWN] >= telling.outer.source._listened() - 0.5


def test_a_farewell_takes_everything_back(inner: Inner, telling: Telling) -> None:
    for number in range(40):
        inner.join(key=f"{number}.com")
    telling.run(1.0)
    assert len(telling.outer.table.pools) == 40
    telling.teller.withdraw()
    telling.take()
    assert not telling.outer.table.pools and telling.teller.told == {}


class Op:
    """What may happen to a pool, by name; the address and the weight are small numbers."""

    def __init__(self, telling: Telling) -> None:
        self.inner = telling.inner
        self.telling = telling
        self.known: dict[tuple[str, int], int] = {}

    def join(self, key: str, address: int, weight: int) -> None:
        self.inner.join(f"10.0.0.{address}:1", key, weight=weight)
        self.known[key, address] = weight

    def leave(self, key: str, address: int, weight: int) -> None:
        self.inner.leave(f"10.0.0.{address}:1", key)
        self.known.pop((key, address), None)

    def time(self, key: str, address: int, weight: int) -> None:
        self.telling.run(weight / 2)

    def restart(self, key: str, address: int, weight: int) -> None:
        """As at a reload: another one goes on, which has not said anything yet."""
        self.telling.turn()
        self.telling.teller._close()
        self.telling.teller = self.telling.new_teller()


OPS = st.tuples(
    st.sampled_from(["join", "leave", "time", "restart"]),
    st.sampled_from(["a.com", "b.com"]),
    st.integers(1, 3),
    st.integers(1, 9),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPS, max_size=40))
def test_the_receiver_knows_what_a_naive_model_says(ops: list[tuple[str, str, int, int]]) -> None:
    with Telling(Inner()) as telling:
        op = Op(telling)
        for name, key, address, weight in ops:
            getattr(op, name)(key, address, weight)
        telling.turn()
        for key in ("a.com", "b.com"):
            total = sum(weight for (known, _), weight in op.known.items() if known == key)
            assert telling.weights(key) == ([total] if total else [])
        telling.run(40.0)
        assert len(telling.outer.table.pools) == len({key for key, _ in op.known})


# Receivers that are not there.


def closed_place() -> Inet:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        return Inet(socket.AF_INET, sock.getsockname())


def test_where_nothing_listens_one_datagram_now_and_then_asks(inner: Inner, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(500):
        inner.join(key=f"{number}.com")
    with Telling(inner) as telling:
        telling.teller.place = closed_place()
        telling.run(60.0)
        row = telling.teller.row()
        assert row["error"] == row["last_error"] == "Connection refused"
        assert 25 <= row["failed"] < 70 and row["sent"] < 100
        lines = [line for line in caplog.text.splitlines() if "Connection refused" in line]
        assert len(lines) == 2, "the first and the tenth"
        telling.teller.place = telling.place
        telling.run(PROBE_EVERY + 1.0)
        assert len(telling.outer.table.pools) == 500
        assert telling.teller.row()["error"] == "" and telling.teller.row()["keys"] == 500


def test_what_leaves_while_nothing_listens_is_withdrawn_there_afterwards(inner: Inner, telling: Telling) -> None:
    for number in range(3):
        inner.join(key=f"{number}.com")
    telling.turn()
    assert len(telling.outer.table.pools) == 3
    telling.teller._fail(OSError(111, "Connection refused"))
    for number in range(2):
        inner.leave(key=f"{number}.com")
    telling.run(PROBE_EVERY + 1.0)
    assert list(telling.outer.table.pools) == ["2.com"]
    telling.teller._fail(OSError(111, "Connection refused"))
    inner.leave(key="2.com")
    telling.run(PROBE_EVERY + 1.0)
    assert telling.teller.told == {} and not telling.teller.failures


def test_a_receiver_that_has_forgotten_all_is_told_all(inner: Inner) -> None:
    for number in range(40):
        inner.join(key=f"{number}.com")
    with Telling(inner) as telling:
        telling.run(1.0)
        _, port = telling.outer.source.socket.getsockname()
        first = telling.outer
        first.source.close()
        telling.teller.note(inner.offers.keys())
        inner.join("10.0.0.2:1", key="0.com")
        assert telling.teller.turn() <= ECHO_S, "it is soon known that nobody has heard that"
        telling.teller.turn()
        assert telling.teller.row()["error"] == "Connection refused"
        with Announced(f"udp://127.0.0.1:{port}") as again:
            telling.outer = again
            telling.run(PROBE_EVERY + 1.0)
            assert len(again.table.pools) == 40
        telling.outer = first


def test_a_key_that_joins_at_a_failed_node_is_told_when_that_is_tried(inner: Inner, telling: Telling) -> None:
    inner.join()
    inner.fail(seconds=15.0)
    inner.workers.announce("bar.com", Node("10.0.0.9:1"))
    inner.fail("10.0.0.9:1", seconds=15.0)
    inner.workers.set("baz.com", [Node("10.0.0.9:1")])
    telling.run(1.0)
    assert telling.weights("baz.com") == []
    telling.run(15.0 + EVERY)
    assert telling.weights("baz.com") == [1]


def test_a_unix_socket_that_is_bound_anew_is_told_again(inner: Inner, tmp_path: Path) -> None:
    path = tmp_path / "s"
    inner.join()
    with Telling(inner, f"unix://{path}") as telling:
        telling.turn()
        assert telling.weights() == [1]
        first = telling.outer
        first.source.close()
        path.unlink()
        with Announced(f"unix://{path}") as again:
            telling.outer = again
            telling.run(EVERY + PROBE_EVERY + 1.0)
            assert telling.weights() == [1]
            assert telling.teller.row()["failed"] >= 1
        telling.outer = first


def test_a_full_unix_queue_costs_time_and_no_key(inner: Inner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.torouter.SEND_S", 0.01)
    for number in range(2000):
        inner.join(key=f"{number}.com")
    with Telling(inner, f"unix://{tmp_path / 's'}") as telling:
        while not telling.teller.row()["error"]:
            telling.teller.turn()
        assert telling.teller.row()["error"] == "its queue is full" and not telling.teller.failures
        sent = telling.teller.sent
        for _ in range(50):
            telling.take()
        telling.run(4.0)
        assert len(telling.outer.table.pools) == 2000 and not telling.teller.row()["error"]
        assert telling.teller.sent <= sent + 2000


def test_troubles_are_logged_at_first_and_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    troubles = Troubles("x", lambda: now[0])

    def lines() -> int:
        count = caplog.text.count("\n")
        caplog.clear()
        return count

    for _ in range(9):
        troubles.note("no")
    assert lines() == 1
    troubles.note("no")
    assert lines() == 1
    troubles.over()
    troubles.note("no")
    assert lines() == 0, "it comes and goes"
    troubles.over()
    now[0] += 61
    troubles.note("no")
    assert lines() == 1
    assert troubles.row() == {"failed": 12, "error": "no", "last_error": "no"}


# Where a receiver is, and how it sees us.


@pytest.mark.parametrize(
    ("listening", "address"),
    [
        ("0.0.0.0:80", ":80"),
        ("[::]:80", ":80"),
        (":80", ":80"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[fd00::1]:80", "[fd00::1]:80"),
        ("router.internal:80", "router.internal:80"),
        ("/run/r.sock", "/run/r.sock"),
        ("@r", "@r"),
    ],
)
def test_how_we_call_ourselves(listening: str, address: str) -> None:
    assert told_as(listening) == address


def test_a_relative_path_of_ours_is_told_as_an_absolute_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert told_as("r.sock") == str(tmp_path / "r.sock")


class Looking:
    """A receiver whose lookups are ours, and the tellers that it starts and leaves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, address: str = ":80") -> None:
        self.log: list[str] = []
        self.places: tuple[Any, ...] | OSError = ()
        monkeypatch.setattr(Teller, "start", lambda teller: self.log.append(f"+ {teller.address}"))
        monkeypatch.setattr(Teller, "leave", lambda teller: self.log.append(f"- {teller.address}"))
        monkeypatch.setattr("discovery.resubscribe.gevent.spawn", lambda function: function())
        self.receiver = Receiver("r.internal:2626", address)
        monkeypatch.setattr(self.receiver.where, "now", self.now)
        self.offers = Inner().offers

    def now(self) -> tuple[Any, ...]:
        if isinstance(self.places, OSError):
            raise self.places
        return self.places

    def look(self) -> list[str]:
        self.log.clear()
        self.receiver.look(self.offers)
        return list(self.log)


def test_a_receiver_that_moves_is_told_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Looking(monkeypatch)
    looking.places = OSError("cannot resolve r.internal")
    assert looking.look() == []
    (row,) = looking.receiver.rows()
    assert row == {
        "receiver": "r.internal:2626", "place": "", "address": ":80", "keys": 0, "sent": 0, "failed": 1,
        "error": "cannot resolve r.internal", "last_error": "cannot resolve r.internal",
    }  # fmt: skip
    looking.places = (Inet(socket.AF_INET, ("127.0.0.1", 1)),)
    assert looking.look() == ["+ 127.0.0.1:80"]
    assert looking.look() == []
    assert [row["place"] for row in looking.receiver.rows()] == ["127.0.0.1:1"]
    looking.places = (Inet(socket.AF_INET, ("127.0.0.2", 1)),)
    assert looking.look() == ["- 127.0.0.1:80", "+ 127.0.0.1:80"]
    looking.places = OSError("cannot resolve r.internal")
    assert looking.look() == [], "who was found stays told"
    assert [row["place"] for row in looking.receiver.rows()] == ["127.0.0.2:1", ""]


def test_where_our_own_address_changes_the_old_one_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Looking(monkeypatch)
    own: list[str | None] = ["10.0.0.1:80"]
    looking.places = (Inet(socket.AF_INET, ("127.0.0.1", 1)),)
    monkeypatch.setattr("discovery.ownaddress.own_address", lambda address, place: own[0])
    assert looking.look() == ["+ 10.0.0.1:80"]
    own[0] = "10.0.0.2:80"
    assert looking.look() == ["- 10.0.0.1:80", "+ 10.0.0.2:80"]
    own[0] = None
    assert looking.look() == ["- 10.0.0.2:80"]
    assert looking.receiver.rows()[0]["error"] == "no way leads to 127.0.0.1:1"
    own[0] = "10.0.0.2:80"
    assert looking.look() == ["+ 10.0.0.2:80"]
    assert [row["error"] for row in looking.receiver.rows()] == [""]


@pytest.mark.parametrize("text", ["r.sock", "/run/r.sock", "./r.sock"])
def test_a_receiver_without_a_colon_is_a_path_as_in_uwsgi(text: str) -> None:
    receiver = Receiver(text, ":80")
    receiver.where.turn()
    assert receiver.where.now() == (Unix((text if text[0] in "./" else f"./{text}").encode()),)


# Ways that lead back.


def test_a_way_that_leads_through_us_or_is_too_long_is_a_loop() -> None:
    assert loop("", "me") == "" and loop("other", "me") == ""
    assert "through us" in loop("a me b", "me")
    longest = " ".join(map(str, range(MOST_ROUTERS)))
    assert loop(longest, "me") == "" and "routers are on the way" in loop(f"{longest} more", "me")


@pytest.mark.parametrize("way", ["x" * 17, "ok \u00e9", "a\0b"])
def test_what_is_no_word_for_a_router_is_not_passed_on(way: str) -> None:
    assert "no word for a router" in loop(way, "me")


def test_whatever_way_is_taken_the_next_router_can_read_ours(inner: Inner, telling: Telling) -> None:
    with Announced(identity="m" * LONGEST_ROUTER) as announced:
        announced.take(packet(routers=" ".join(str(number) * LONGEST_ROUTER for number in range(MOST_ROUTERS))))
        (node,) = announced.nodes()
    inner.join(via=node.via)
    telling.turn()
    assert len(telling.weights()) == 0 and telling.outer.feed.rejected == {"loop": 1}, "too long, but no bad packet"


def test_a_node_that_turns_into_a_loop_leaves() -> None:
    with Announced(identity="me") as announced:
        announced.take(packet(routers="other"))
        assert [node.via for node in announced.nodes()] == ["other"]
        announced.take(packet(routers="other me"))
        assert announced.nodes() == []
        assert announced.feed.rejected == {"loop": 1}
        announced.take(packet(routers="x" * 256))
        assert announced.feed.rejected == {"loop": 1, "bad routers": 1}
        announced.take(packet(routers="other"), packet(UNSUBSCRIBE, routers="other me"))
        assert announced.nodes() == [], "a farewell is one whatever its way"


class Mesh:
    """Routers of which each tells those that `edges` say, and a worker where one has joined."""

    def __init__(self, stack: ExitStack, edges: dict[str, str]) -> None:
        self.now = 1000.0
        self.routers = {name: stack.enter_context(Announced(identity=name)) for name in edges}
        self.tellers: list[tuple[str, Teller]] = []
        self.queue: dict[str, list[str]] = {name: [] for name in edges}
        for name, others in edges.items():
            one = self.routers[name]
            one.table.on_change = self.noting(name)
            offers = Offers(one.table, [one.feed], lambda: self.now)
            for other in others:
                place = Inet(socket.AF_INET, self.routers[other].source.socket.getsockname())
                teller = Teller(other, place, f"10.0.0.{ord(name)}:1", offers, name, clock=lambda: self.now)
                stack.callback(teller._close)
                self.tellers.append((name, teller))

    def noting(self, name: str) -> Callable[[Change], None]:
        def note(change: Change) -> None:
            for who, teller in self.tellers:
                if who == name:
                    teller.note([change.key])

        return note

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            for _, teller in self.tellers:
                teller.turn()
            for one in self.routers.values():
                one.now = self.now + 4000.0
                one.source.turn(one.feed)

    def sent(self) -> int:
        return sum(teller.sent for _, teller in self.tellers)

    def worker(self, name: str, join: bool = True) -> None:
        said = {} if join else {"command": UNSUBSCRIBE}
        self.routers[name].send(packet(address=f"10.1.1.{ord(name)}:1", **said))

    def known(self) -> dict[str, list[str]]:
        return {
            name: sorted(chr(int(address.split(":")[0].rsplit(".", 1)[1])) for address in one.addresses())
            for name, one in self.routers.items()
        }


MESHES = {
    "two": {"A": "B", "B": "A"},
    "ring of three": {"A": "B", "B": "C", "C": "A"},
    "three": {"A": "BC", "B": "AC", "C": "AB"},
    "four": {"A": "BCD", "B": "ACD", "C": "ABD", "D": "ABC"},
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("where", ["A", "all"])
def test_a_key_does_not_outlive_its_workers_by_going_round(mesh: str, where: str) -> None:
    with ExitStack() as stack:
        routers = Mesh(stack, MESHES[mesh])
        homes = list(routers.routers) if where == "all" else [where]
        for home in homes:
            routers.worker(home)
        routers.run(2.0)
        assert all(routers.known().values()), "each of them has a way"
        calm = routers.sent()
        routers.run(5.0)
        assert routers.sent() == calm, "nothing goes on by itself"
        for home in homes:
            routers.worker(home, join=False)
        routers.run(3.0)
        assert not any(routers.known().values())


def test_two_that_tell_each_other_do_not_send_back_what_came_from_there() -> None:
    with ExitStack() as stack:
        routers = Mesh(stack, MESHES["two"])
        for _ in range(3):
            routers.worker("A")
            routers.run(10.0)
        assert routers.known() == {"A": ["A"], "B": ["A"]}
        assert routers.routers["A"].feed.rejected["loop"] >= 3
        routers.worker("B")
        routers.run(1.0)
        assert routers.known() == {"A": ["A", "B"], "B": ["A", "B"]}


def test_a_datagram_of_ours_is_one_of_uwsgis_with_one_field_more(inner: Inner) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        inner.join(weight=3)
        place = Inet(socket.AF_INET, sock.getsockname())
        teller = Teller("r", place, OWN, inner.offers, "me", clock=lambda: inner.now)
        teller.turn()
        said = parse_announcement(data := sock.recv(4096))
        assert data[0] == 224 and said.subscribe and (said.key, said.address, said.weight) == (KEY, OWN, 3)
        teller.withdraw()
        said = parse_announcement(sock.recv(4096))
        assert not said.subscribe and (said.key, said.address, said.routers) == (KEY, OWN, "")


# Signed.


def test_each_datagram_is_signed_with_another_second(inner: Inner) -> None:
    signed: list[tuple[str, bool, int]] = []

    def sign(datagram: bytes, second: int) -> bytes:
        said = parse_announcement(datagram)
        signed.append((said.key, said.subscribe, second))
        return datagram

    with Telling(inner) as telling:
        telling.teller = Teller("r", telling.place, OWN, inner.offers, "me", sign, wall=lambda: 1700.5,
                                clock=lambda: inner.now)  # fmt: skip
        inner.join()
        inner.join(key="bar.com")
        telling.turn()
        inner.leave()
        telling.turn()
        inner.join()
        telling.turn()
        assert signed == [
            (KEY, True, 1700), ("bar.com", True, 1700), (KEY, False, 1701), (KEY, True, 1703)
        ], "a farewell says a second more than it is signed with"  # fmt: skip


def test_seconds_never_run_ahead_of_the_clock(inner: Inner) -> None:
    """Who is ahead is refused as from the future, or, after a restart, as what was said before."""
    stamps: list[tuple[int, int]] = []
    wall = 1700

    def sign(datagram: bytes, second: int) -> bytes:
        stamps.append((second - wall, parse_announcement(datagram).weight))
        return datagram

    with Telling(inner) as telling:
        telling.teller = Teller("r", telling.place, OWN, inner.offers, "me", sign, wall=lambda: wall,
                                clock=lambda: inner.now)  # fmt: skip
        for weight in range(1, 101):
            inner.join(weight=weight)
            inner.now += PAUSE
            telling.turn()
        assert max(ahead for ahead, _ in stamps) <= AHEAD
        wall, inner.now = wall + AHEAD, inner.now + AHEAD
        telling.turn()
        assert stamps[-1][1] == 100, "the last one is said when its second has come"
        inner.leave()
        for _ in range(AHEAD + 1):
            wall, inner.now = wall + 1, inner.now + 1
            telling.turn()
        assert stamps[-1][1] == 0 and telling.weights() == [], "so is the farewell"
        for _ in range(AHEAD + 1):
            wall, inner.now = wall + 1, inner.now + 1
            telling.turn()
        assert not telling.teller._seconds, "nothing is kept of a key that is gone"


@pytest.mark.parametrize("word", ["SHA256:/nowhere/k.pem", "NONE:/nowhere/k.pem"])
def test_what_cannot_sign_is_refused_by_name(word: str) -> None:
    with pytest.raises(ValueError, match=r"^resubscribe-sign: "):
        Resubscribe(["127.0.0.1:1"], ":80", word)
