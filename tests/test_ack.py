"""What a worker that asks by `notify` is told, where it may listen, and what an ask that cannot be met costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from announced import NODE, UNSUBSCRIBE, Announced, packet
from discovery.ack import MOST_PATH_BYTES, acknowledge
from router.address import AddressError
from servers import TESTS

ACK = f"[subscription ack] foo.com => new node: {NODE}".encode()


@contextmanager
def listening(at: str | bytes | tuple[str, int]) -> Iterator[socket.socket]:
    """A datagram socket there, which never blocks."""
    family = socket.AF_UNIX if not isinstance(at, tuple) else socket.AF_INET6 if ":" in at[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(at)
        sock.setblocking(False)
        yield sock


def told(sock: socket.socket) -> list[bytes]:
    """All that has arrived."""
    found = []
    try:
        while True:
            found.append(sock.recv(65536))
    except BlockingIOError:
        return found


@pytest.fixture
def announced() -> Iterator[Announced]:
    with Announced() as announced:
        yield announced


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


def test_a_path_is_told_that_the_node_is_new_without_a_newline(announced: Announced, path: str) -> None:
    with listening(path) as sock:
        announced.take(packet(notify=path))
        assert told(sock) == [ACK]
        assert announced.feed.rejected == {}


def test_it_is_told_only_when_new(announced: Announced, path: str) -> None:
    with listening(path) as sock:
        announced.take(packet(notify=path), packet(notify=path, weight=2))
        announced.idle(10)
        announced.take(packet(notify=path))
        assert told(sock) == [ACK]
        announced.take(packet(notify=path, key="bar.com"))
        assert told(sock) == [ACK.replace(b"foo", b"bar")], "the same node of another key"
        announced.take(packet(UNSUBSCRIBE, notify=path), packet(UNSUBSCRIBE, notify=path))
        assert told(sock) == []
        announced.take(packet(notify=path))
        assert told(sock) == [ACK]
        announced.idle(18)
        announced.take(packet(notify=path))
        assert told(sock) == [ACK], "and after it had expired"


@pytest.mark.parametrize("end", [b"", b"\0"], ids=["everybodys", "uwsgis"])
def test_an_abstract_name_is_found_with_and_without_a_nul_behind_it(announced: Announced, end: bytes) -> None:
    name = f"gfrouter-test-ack-{os.getpid()}"
    with listening(b"\0" + name.encode() + end) as sock:
        announced.take(packet(notify=f"@{name}"))
        assert told(sock) == [ACK]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_numeric_host_and_port_is_told(announced: Announced, host: str) -> None:
    with listening((host, 0)) as sock:
        port = sock.getsockname()[1]
        announced.take(packet(notify=f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        assert told(sock) == [ACK]


def test_a_port_alone_is_this_machine(announced: Announced) -> None:
    with listening(("127.0.0.1", 0)) as sock:
        announced.take(packet(notify=f":{sock.getsockname()[1]}"))
        assert told(sock) == [ACK]


def test_keys_of_any_bytes_come_back_as_they_were(announced: Announced, path: str) -> None:
    with listening(path) as sock:
        announced.take(packet(notify=path, key=b"caf\xe9"))
        assert told(sock) == [ACK.replace(b"foo.com", b"caf\xe9")]


def a_path_of(size: int, folder: Path) -> str:
    return f"{folder}/{'x' * (size - len(str(folder)) - 1)}"


def test_the_longest_path_is_told_and_a_longer_one_is_not(announced: Announced, tmp_path: Path) -> None:
    """uWSGI's limit, in bytes."""
    assert MOST_PATH_BYTES == 101
    longest, longer = a_path_of(101, tmp_path), a_path_of(102, tmp_path)
    umlauts = f"{tmp_path}/{'ü' * ((104 - len(str(tmp_path))) // 2)}"
    with listening(longest) as sock, listening(longer) as other, listening(umlauts) as third:
        announced.take(packet(notify=longest), packet(key="bar.com", notify=longer), packet(key="b", notify=umlauts))
        assert told(sock) == [ACK]
        assert told(other) == told(third) == []
    assert announced.feed.rejected == {"no acknowledgement": 2}
    assert len(announced.table.pools) == 3


TROUBLES = {
    "/nowhere/at/all": "[Errno 2] No such file or directory",
    "@gfrouter-test-nobody": "[Errno 111] Connection refused",
    "localhost:2626": "'localhost:2626': a host name; notify takes a path, @NAME or a numeric IP:PORT",
    "127.0.0.1:0": "'127.0.0.1:0': port 0 is out of range (1 to 65535)",
    "127.0.0.1:http": "'127.0.0.1:http': port 'http' is not a number",
    "@": "'@': the name of the abstract socket is missing after the @",
    "/" + "x" * 107: "the middle is left out: a unix socket's path of 108 bytes, but 107 is the limit",
    "/run/\0/x": "'/run/\\x00/x': the address has a NUL byte inside",
    "255.255.255.255:9": "'255.255.255.255:9': nobody can connect to a multicast or broadcast address",
}


@pytest.mark.parametrize("notify", TROUBLES)
def test_an_ask_that_cannot_be_met_is_counted_and_costs_nothing_else(
    announced: Announced, caplog: pytest.LogCaptureFixture, notify: str
) -> None:
    announced.take(packet(notify=notify), packet(key="bar.com"))
    assert announced.feed.rejected == {"no acknowledgement": 1}
    assert announced.addresses() == announced.addresses("bar.com") == [NODE]
    (line,) = caplog.messages
    assert line.startswith(f"{announced.source.name}: dropped, no acknowledgement: ")
    assert line.endswith(TROUBLES[notify].rpartition("left out: ")[2])
    announced.take(packet(notify=notify))
    assert announced.feed.rejected == {"no acknowledgement": 1}, "asked once, as it is new once"


def test_a_receiver_with_a_full_queue_or_of_another_kind_does_not_hold_us_up(announced: Announced, path: str) -> None:
    with listening(path) as sock, socket.socket(socket.AF_UNIX) as stream:
        announced.take(*(packet(key=f"{number}.com", notify=path) for number in range(600)))
        for _ in range(20):
            announced.source.turn(announced.feed)
        taken = len(told(sock))
        assert 0 < taken < 600
        assert announced.feed.rejected == {"no acknowledgement": 600 - taken}
        stream.bind(f"{path}.stream")
        stream.listen()
        announced.take(packet(notify=f"{path}.stream"))
        assert announced.feed.rejected == {"no acknowledgement": 601 - taken}
    assert len(announced.table.pools) == 601


def test_nobody_who_is_dropped_is_told(path: str) -> None:
    with Announced(max_nodes=1) as announced, listening(path) as sock:
        announced.take(packet(), packet(address="10.0.0.6:3031", notify=path), packet(address="x:y", notify=path))
        assert told(sock) == []


def test_a_vassal_is_told_when_it_has_an_address(announced: Announced, path: str) -> None:
    with listening(path) as sock:
        announced.take(packet(vassal="app.ini", address=b"", notify=path))
        assert told(sock) == []
        announced.take(packet(vassal="app.ini", notify=path))
        assert told(sock) == [ACK]


def test_with_the_senders_address_it_is_told_that_one(path: str) -> None:
    with Announced(address="sender") as announced, listening(path) as sock:
        announced.take(packet(address=":3031", notify=path))
        assert told(sock) == [ACK.replace(NODE.encode(), b"127.0.0.1:3031")]


def test_a_host_name_is_refused_without_a_lookup() -> None:
    with pytest.raises(AddressError, match="a host name"):
        acknowledge("localhost:2626", "foo.com", NODE)


PATCHED = """
from gevent import monkey
monkey.patch_all()

import socket, sys
from announced import Announced, packet

path = sys.argv[1]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full, Announced() as announced:
    full.bind(path)
    for number in range(40):
        announced.take(packet(key=f"{number}.com", notify=path))
    print(len(announced.table.pools), announced.feed.rejected["no acknowledgement"] > 0)
"""


def test_in_the_supervisor_where_sockets_are_gevents_a_full_queue_is_counted_as_well(path: str) -> None:
    argv, env = [sys.executable, "-c", PATCHED, path], {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=env)
    assert done.stdout == "40 True\n", done
