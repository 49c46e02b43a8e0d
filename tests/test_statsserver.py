"""The stats server by itself: what is answered to whom, and what a reader can cost. The JSON is test_stats.py's."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from router import net, statsserver
from router.statsserver import HEAD_BYTES, READERS, stats_server
from scripted import wait_for

SNAPSHOT = {"key": '"\\\ufffd\x00é'}
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n"
# To the byte what the fastrouter sends (2.0.30), but for the length, which it leaves out.
HEADERS = (
    b"HTTP/1.0 200 OK\r\n"
    b"Connection: close\r\n"
    b"Access-Control-Allow-Origin: *\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"\r\n"
)
BAD = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Served:
    """A stats server in this process; `calls` counts the snapshots that were taken."""

    def __init__(self, http: bool, snapshot: dict[str, Any]) -> None:
        self.calls = 0
        self.taken = snapshot
        self.listener = net.bind("127.0.0.1:0")
        self.server = stats_server(self.listener, self.snapshot, http=http)
        self.server.start()

    def snapshot(self) -> dict[str, Any]:
        self.calls += 1
        return self.taken

    def connect(self) -> Any:
        client = gevent.socket.create_connection(self.listener.getsockname())
        client.settimeout(10)
        return client

    def ask(self, request: bytes, *, end: bool = False) -> bytes:
        """What is answered; `end`: the reader sends no more after that."""
        with self.connect() as client:
            client.sendall(request)
            if end:
                client.shutdown(socket.SHUT_WR)
            return read(client)


def read(client: Any) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture
def http() -> Iterator[Served]:
    served = Served(True, SNAPSHOT)
    yield served
    served.server.stop()


@pytest.fixture
def plain() -> Iterator[Served]:
    served = Served(False, SNAPSHOT)
    yield served
    served.server.stop()


def whole(answer: bytes) -> bool:
    headers, _, text = answer.partition(b"\r\n\r\n")
    return headers + b"\r\n\r\n" == HEADERS % len(text) and json.loads(text) == SNAPSHOT


def test_without_http_nothing_is_read_and_nothing_but_json_is_sent(plain: Served) -> None:
    with plain.connect() as client:
        assert json.loads(read(client)) == SNAPSHOT


@pytest.mark.parametrize(
    "request_",
    [
        GET,
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /any/page?query HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\n\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nCookie: \xff\x00" + 20_000 * b"x" + b"\r\n\r\n",
    ],
)
def test_a_request_is_answered_with_uwsgis_headers_and_a_length(http: Served, request_: bytes) -> None:
    assert whole(http.ask(request_))


def test_a_request_may_come_byte_by_byte(http: Served) -> None:
    with http.connect() as client:
        for byte in GET:
            client.sendall(bytes([byte]))
            gevent.sleep(0)
        assert whole(read(client))


def test_a_reader_that_ends_after_the_first_line_is_answered(http: Served) -> None:
    assert whole(http.ask(b"GET / HTTP/1.0\r\n", end=True))


def test_head_is_answered_without_the_json(http: Served) -> None:
    assert http.ask(GET.replace(b"GET", b"HEAD")) == HEADERS % len(json.dumps(SNAPSHOT, indent=1))


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_garbage_gets_a_400_and_costs_no_snapshot(http: Served, garbage: bytes) -> None:
    assert http.ask(garbage) == BAD
    assert http.calls == 0


@pytest.mark.parametrize("part", [b"", b"G", b"GET / HTTP/1.1"])
def test_a_reader_that_leaves_early_costs_no_snapshot(http: Served, part: bytes) -> None:
    assert http.ask(part, end=True) == (BAD if part else b"")
    assert http.calls == 0


def test_a_head_without_end_is_read_no_further_than_its_limit(http: Served) -> None:
    """That it is answered, though closing on what is unread may take the answer away, is as good as a refusal."""
    with http.connect() as client:
        client.sendall((b"GET / HTTP/1.1\r\n" + (HEAD_BYTES + 1000) * b"x")[:HEAD_BYTES])
        assert whole(read(client))


def test_a_head_that_never_ends_is_closed_in_time_though_bytes_go_on_coming(
    http: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsserver, "HEAD_WAIT", 0.1)
    with http.connect() as client:

        def drip() -> None:
            with contextlib.suppress(OSError):  # closed
                for byte in b"GET / HTTP/1.1\r\nX: " + 2000 * b"x":
                    client.sendall(bytes([byte]))
                    gevent.sleep(0.005)

        drops = gevent.spawn(drip)
        with contextlib.suppress(ConnectionError):  # closed on a byte that had not been read
            assert client.recv(100) == b""
        drops.kill()
    assert http.calls == 0


def test_more_silent_readers_than_places_keep_one_that_speaks_waiting_for_a_moment_only(
    http: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsserver, "HEAD_WAIT", 3600)
    silent = [http.connect() for _ in range(READERS + 10)]
    assert whole(http.ask(GET))
    for client in silent:
        client.close()


@pytest.mark.parametrize("over_http", [False, True])
def test_a_reader_that_does_not_read_loses_its_place(over_http: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statsserver, "SEND_WAIT", 0.1)
    served = Served(over_http, {"key": "x" * 20_000_000})  # more than all buffers between the two
    with served.connect() as client:
        client.sendall(GET)
        wait_for(lambda: served.calls, "the reader's turn", sleep=gevent.sleep)
        pool = served.server.pool
        assert pool is not None
        wait_for(lambda: pool.free_count() == READERS, "its end", sleep=gevent.sleep)
    served.server.stop()
