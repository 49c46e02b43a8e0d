"""Which servers are asked: named ones, resolved again and again, or those of resolv.conf."""

import logging
import socket
from pathlib import Path
from typing import Any

import gevent
import pytest
from greenlet import GreenletExit

from discovery.dnsservers import LOOK_AGAIN, LOOK_EVERY, MOST_SERVERS, Place, Servers


class Names:
    """A clock, and what getaddrinfo says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.says: dict[str, list[Any]] = {}

    def clock(self) -> float:
        return self.now

    def lookup(self, host: str, port: int, **_: Any) -> list[Any]:
        if host not in self.says:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(0, 0, 0, "", sockaddr) for sockaddr in self.says[host]]


def from_file(path: Path, names: Names | None = None) -> Servers:
    return Servers(resolv_conf=str(path), clock=(names or Names()).clock)


def test_numeric_addresses_are_taken_as_they_are() -> None:
    assert Servers([("127.0.0.1", 53), ("::1", 5353)])() == [Place("127.0.0.1", 53), Place("::1", 5353)]


def test_names_are_resolved_again_and_stay_where_they_cannot_be() -> None:
    names = Names()
    servers = Servers([("consul", 8600)], clock=names.clock, lookup=names.lookup)
    assert servers() == []
    names.says["consul"] = [("10.0.0.1", 8600), ("fe80::1", 8600, 0, 2)]
    assert servers() == []
    names.now += LOOK_AGAIN
    assert servers() == [Place("10.0.0.1", 8600), Place("fe80::1%2", 8600)]
    names.says["consul"] = [("10.0.0.2", 8600)]
    names.now += LOOK_EVERY
    assert servers() == [Place("10.0.0.2", 8600)]
    del names.says["consul"]
    names.now += LOOK_EVERY
    assert servers() == [Place("10.0.0.2", 8600)]


def test_many_at_once_wait_for_the_first_look() -> None:
    names = Names()
    looked: list[str] = []

    def slow(host: str, port: int, **_: Any) -> list[Any]:
        looked.append(host)
        gevent.sleep(0.01)
        return [(0, 0, 0, "", ("10.0.0.1", port))]

    servers = Servers([("consul", 53)], clock=names.clock, lookup=slow)
    answers = [gevent.spawn(servers) for _ in range(20)]
    assert [answer.get() for answer in answers] == [[Place("10.0.0.1", 53)]] * 20
    assert looked == ["consul"]


def test_a_name_that_cannot_be_resolved_costs_no_other_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    names = Names()
    names.says["good"] = [("10.0.0.1", 53)]
    servers = Servers([("bad", 53), ("good", 53)], clock=names.clock, lookup=names.lookup)
    with caplog.at_level(logging.WARNING, "gfrouter"):
        for _ in range(3):
            assert servers() == [Place("10.0.0.1", 53)]
            names.now += LOOK_EVERY
    (said,) = caplog.messages
    assert said.startswith("dns: cannot resolve the server bad: ")


def test_the_servers_of_resolv_conf(tmp_path: Path) -> None:
    file, names = tmp_path / "resolv.conf", Names()
    file.write_text(
        "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53 # the local one\nnameserver ::1\nnameserver\n"
        "nameserver no.number\noptions rotate timeout:1\n"
    )
    servers = from_file(file, names)
    assert servers() == [Place("127.0.0.53", 53), Place("::1", 53)]
    file.write_text("nameserver 10.0.0.1\n")
    assert servers() == [Place("127.0.0.53", 53), Place("::1", 53)]
    names.now += LOOK_EVERY
    assert servers() == [Place("10.0.0.1", 53)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "No such file or directory"),
        ("", "resolv.conf names no server"),
        ("\0\xff", "resolv.conf names no server"),
    ],
)
def test_a_resolv_conf_without_servers_is_told_and_read_again_soon(
    tmp_path: Path, text: str | None, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, names = tmp_path / "resolv.conf", Names()
    if text is not None:
        file.write_text(text, encoding="latin-1")
    servers = from_file(file, names)
    assert servers() == []
    assert error in caplog.text
    caplog.clear()
    file.write_text("nameserver 10.0.0.1\n")
    names.now += LOOK_AGAIN
    assert servers() == [Place("10.0.0.1", 53)]


def test_a_first_look_that_is_cut_short_is_made_again_soon() -> None:
    """The source's greenlets are killed when it is run afresh."""
    names = Names()
    names.says["dns.lan"] = [("10.0.0.1", 53)]
    looks = iter([GreenletExit, None])

    def lookup(host: str, port: int, **more: Any) -> list[Any]:
        if (end := next(looks)) is not None:
            raise end
        return names.lookup(host, port, **more)

    servers = Servers([("dns.lan", 53)], clock=names.clock, lookup=lookup)
    with pytest.raises(GreenletExit):
        servers()
    names.now += LOOK_AGAIN
    assert servers() == [Place("10.0.0.1", 53)]


def test_there_is_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("".join(f"nameserver 10.0.0.{n}\n" for n in range(MOST_SERVERS + 5)))
    assert len(from_file(file)()) == MOST_SERVERS
