"""Telling other routers: those that are not there, where they are, and how they see us. The clock is ours."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from announced import Announced
from discovery.resubscribe import Receiver, told_as
from discovery.resubscribeteller import EVERY, PROBE_EVERY, Teller, Troubles
from discovery.torouter import ECHO_S
from router.address import Inet, Unix
from router.node import Node
from telling import Inner, Telling


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def telling(inner: Inner) -> Iterator[Telling]:
    with Telling(inner) as telling:
        yield telling


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
