"""`gfrouter nodes`: what a router's stats say, as a file of nodes."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import announce
from discovery.fromstats import Unread, fetch, main, pools_of
from router.node import Node
from scripted import ScriptedNode, wait_for
from servers import FORMS, Router, free_address

NODE = {"name": "10.0.0.5:1", "modifier1": 0, "modifier2": 0, "weight": 1, "death_mark": 0}


def stats(*nodes: dict[str, object], key: str = "foo.com") -> bytes:
    return json.dumps({"subscriptions": [{"key": key, "nodes": [NODE | node for node in nodes]}]}).encode()


@contextmanager
def saying(data: bytes) -> Iterator[str]:
    """The address of a server that says this to the first one who connects, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"{host}:{port}"
        thread.join(5)


def test_nodes_are_those_that_live_in_order() -> None:
    dead = {"name": "10.0.0.4:1", "death_mark": 1}
    found = pools_of(stats({"weight": 3, "modifier1": 7}, {"name": "/run/a.sock", "backup": 1, "weight": 0}, dead))
    assert found == {"foo.com": [Node("/run/a.sock", backup=1), Node("10.0.0.5:1", weight=3, modifier1=7)]}
    assert pools_of(stats({"death_mark": 1})) == {}
    assert pools_of(b'{"version":"2.0.31"}') == {}


def test_a_key_that_is_no_utf8_stays_what_it_is() -> None:
    assert list(pools_of(stats({}, key="KEY").replace(b"KEY", b"\xff\x01"))) == ["\udcff\x01"]


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"HTTP/1.0 400", b"[]", b'{"subscriptions":3}', b'{"subscriptions":[{"key":"a"}]}', b"[" * 100_000),
        *(stats({"weight": None}), stats({"weight": "x"}), stats({"modifier1": []})),
    ],
)
def test_what_is_no_stats_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Unread, match="no stats of a router: b"):
        pools_of(data)


def test_why_it_cannot_be_read_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = free_address()
    assert main([nobody]) == 1
    with saying(b"SSH-2.0\r\n") as other:
        assert main([other]) == 1
    assert main(["10.0.0.5"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == (
        "",
        [
            f"gfrouter nodes: {nobody}: Connection refused",
            f"gfrouter nodes: {other}: no stats of a router: b'SSH-2.0\\r\\n'",
            "gfrouter nodes: 10.0.0.5: No such file or directory",
        ],
    )


def test_more_than_stats_can_be_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.fromstats.LARGEST", 10)
    with saying(b"x" * 11) as address, pytest.raises(Unread, match="more than 10 bytes"):
        fetch(address)


def test_a_server_that_waits_for_a_request_is_asked_with_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.fromstats.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unread) as caught:
            fetch(address)
    assert str(caught.value) == f"no answer within 0 s (with stats-http, write http://{address})"


@pytest.mark.parametrize(("form", "http"), [("ipv4", True), *((form, False) for form in FORMS)])
def test_of_a_router_that_runs(form: str, http: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = free_address(form, tmp_path)
    with Router(stats=address, stats_http=http or None) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address, weight=2, modifier2=9)
        announce(router.subscriptions, "a b", "10.0.0.5:1")

        def said() -> list[str]:
            assert main([f"http://{address}" if http else address]) == 0
            return capsys.readouterr().out.splitlines()

        expected = ["a%20b 10.0.0.5:1", f"foo.com {node.address} weight=2 modifier2=9"]
        wait_for(lambda: said() == expected, "both nodes")
