"""The benchmark's own programs, run without a router: load generator and backend against each other, and the flooder.

What they count must be right before a router is measured with them: every good reply, every bad one, every datagram.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery.announcement import Announcement, parse_announcement
from flooder import compiled


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the three programs."""
    return compiled(tmp_path_factory.mktemp("bench"))


@pytest.fixture(params=["127.0.0.1:0", "unix"])
def node(request: pytest.FixtureRequest, tools: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the second of a backend's two nodes."""
    listen = str(tmp_path / "node") if request.param == "unix" else request.param
    command = [tools / "backend", "--listen", listen, "--nodes", "2", "--reply", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as backend:
        assert backend.stdout is not None
        yield json.loads(backend.stdout.readline())["nodes"][1]
        backend.kill()


def load(tools: Path, node: str, *options: str) -> dict[str, Any]:
    command = [str(tools / "load"), "--connect", node, "--requests", "200", *options]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=60).stdout))


@pytest.mark.parametrize("body", [0, 100_000])
@pytest.mark.slow
def test_every_request_gets_the_whole_reply(tools: Path, node: str, body: int) -> None:
    seen = load(tools, node, "--reply", "1000", "--body", str(body))
    assert (seen["requests"], seen["errors"], seen["first_error"]) == (200, 0, "")


def test_a_reply_of_another_length_is_an_error(tools: Path, node: str) -> None:
    seen = load(tools, node, "--reply", "1001", "--clients", "1")
    assert (seen["requests"], seen["errors"]) == (0, 1)
    assert seen["first_error"] == "wrong bytes in the reply after 0 of 1001 bytes"


def test_the_slowest_request_is_told(tools: Path, node: str) -> None:
    seen = load(tools, node, "--reply", "1000")
    assert 0 < seen["p50_us"] <= seen["p99_us"] <= seen["slowest_us"] <= seen["seconds"] * 1e6


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Takes what a flooder sends; its buffer holds some 200 announcements."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        yield server


def flood(tools: Path, server: socket.socket, *options: str) -> dict[str, Any]:
    host, port = server.getsockname()
    command = [str(tools / "flood"), "--to", f"{host}:{port}", *options]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=60).stdout))


Heard = tuple[Announcement, tuple[str, int]]


def taken(server: socket.socket) -> list[Heard]:
    """What is in the queue, with its senders; a datagram on loopback is there once it was sent."""
    found: list[Heard] = []
    while True:
        try:
            datagram, sender = server.recvfrom(65536)
        except BlockingIOError:
            return found
        found.append((parse_announcement(datagram), sender))


def test_a_flood_is_announcements_of_as_many_nodes(tools: Path, server: socket.socket) -> None:
    told = flood(tools, server, "--rate", "1000", "--seconds", "0.15", "--from", "127.0.0.9")
    found = taken(server)
    assert (told["sent"], told["failed"], len(found)) == (150, 0, 150)
    assert [said.key for said, _ in found] == [f"flood-{number:010}.example" for number in range(150)]
    assert len({said.address for said, _ in found}) == 150
    assert {(said.subscribe, said.cores, said.load, said.weight) for said, _ in found} == {(True, 1, 0, 1)}
    assert {host for _, (host, _) in found} == {"127.0.0.9"}
    assert len({sender for _, sender in found}) == 1


def test_a_flood_goes_round_its_keys_but_never_its_nodes(tools: Path, server: socket.socket) -> None:
    flood(tools, server, "--rate", "1000", "--seconds", "0.1", "--keys", "3", "--key", "other")
    found = [said for said, _ in taken(server)]
    assert {said.key for said in found} == {f"other-000000000{number}.example" for number in range(3)}
    assert len({said.address for said in found}) == len(found) == 100


def test_a_flood_counts_from_where_it_is_told(tools: Path, server: socket.socket) -> None:
    flood(tools, server, "--rate", "100", "--seconds", "0.02")
    flood(tools, server, "--rate", "100", "--seconds", "0.02", "--first", "8999999999")
    found = [said for said, _ in taken(server)]
    assert [said.key[6:16] for said in found] == ["0000000000", "0000000001", "8999999999", "9000000000"]
    assert len({said.address for said in found}) == 4


def test_a_flood_comes_from_as_many_hosts_and_ports_as_are_asked_for(tools: Path, server: socket.socket) -> None:
    flood(tools, server, "--rate", "100", "--seconds", "0.12", "--from", "127.0.0.20", "--hosts", "3", "--ports", "2")
    senders = [sender for _, sender in taken(server)]
    assert len(set(senders)) == 6
    assert {host for host, _ in senders} == {"127.0.0.20", "127.0.0.21", "127.0.0.22"}


def test_where_nobody_listens_announcements_fail(tools: Path, server: socket.socket) -> None:
    server.connect(("127.0.0.1", 9))  # takes datagrams of this sender alone
    told = flood(tools, server, "--rate", "100", "--seconds", "0.1")
    assert told["sent"] + told["failed"] == 10
    assert told["failed"] >= 1  # every other one: the refusal of one is told to the next


@pytest.mark.parametrize("target", ["192.0.2.1:2626", "10.0.0.5:2626", "0.0.0.0:2626", "/run/router.sock"])
def test_nothing_is_sent_off_this_machine(tools: Path, target: str) -> None:
    command = [str(tools / "flood"), "--to", target, "--rate", "1", "--seconds", "0.001"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"--to {target} is not on 127.0.0.0/8: this floods no machine but its own\n"
