"""The admin API's server by itself: paths, refusals, and what a client can cost. The JSON is test_view.py's."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest

from router import admin, net
from router.admin import CLIENTS, admin_server, is_welcome, query_of
from router.view import State
from scripted import wait_for
from test_view import a_table, state

GET = b"GET /v1/status HTTP/1.1\r\n\r\n"


class Served:
    """An admin API in this process, of the table of test_view.py; `looks` counts how often the state was taken."""

    def __init__(self, address: str) -> None:
        self.looks = 0
        self.broken = False
        self.table = a_table()
        self.table.feeds[0].announce("\udcff/x y", self.table.nodes("foo.com")[0])
        self.listener = net.bind(address)
        self.server = admin_server(self.listener, self.look, ["admin.internal"])
        self.server.start()

    def look(self, counted: bool) -> State:
        self.looks += 1
        if self.broken:
            raise ValueError("a fault of ours")
        return state(self.table)

    def connect(self) -> Any:
        client = gevent.socket.socket(self.listener.family)
        client.settimeout(15)
        client.connect(self.listener.getsockname())
        return client

    def raw(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)  # or a body that is announced and does not come would be waited for
            return b"".join(iter(lambda: client.recv(65536), b""))

    def get(self, path: str, host: str = "localhost", method: str = "GET") -> tuple[int, Any, dict[str, str]]:
        """(status, JSON, headers)"""
        return self.answer(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))

    def post(self, verb: str, body: object, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """The same; `body` is JSON, or bytes as they are. A header that is "" is left out."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        usual = {"Host": "localhost", "Content_Type": "application/json", "Content_Length": str(len(data))}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in (usual | headers).items() if value]
        return self.answer("\r\n".join([f"POST /v1/{verb} HTTP/1.1", *lines, "", ""]).encode() + data)

    def answer(self, request: bytes) -> tuple[int, Any, dict[str, str]]:
        said = self.raw(request)
        head, _, body = said.partition(b"\r\n\r\n")
        first, *headers = head.decode().split("\r\n")
        return int(first.split()[1]), json.loads(body), dict(line.split(": ", 1) for line in headers)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served("127.0.0.1:0")
    yield served
    served.server.stop()


@pytest.fixture(autouse=True)
def whole(served: Served) -> None:
    served.looks, served.broken = 0, False


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
def test_the_index_lists_the_paths_and_asks_nobody(served: Served, path: str) -> None:
    status, said, _ = served.get(path)
    assert status == 200
    assert {name.partition("?")[0] for name in said["paths"]} == {
        "/v1/status", "/v1/sources", "/v1/pools", "/v1/pools/KEY", "/v1/nodes", "/v1/lookup", "/v1/drains",
        "/v1/drain", "/v1/undrain", "/v1/eject",
    }  # fmt: skip
    assert served.looks == 0


@pytest.mark.parametrize(
    "name", ["status", "sources", "pools", "nodes", "drains", "lookup?key=foo.com", "pools/foo.com"]
)
def test_each_path_answers(served: Served, name: str) -> None:
    status, said, headers = served.get(f"/v1/{name}")
    assert status == 200
    assert said
    assert headers["Content-Type"] == "application/json"
    assert headers["Connection"] == "close"
    assert not [header for header in headers if header.startswith("Access-Control")]


@pytest.mark.parametrize("path", ["/v1/pools/%FF%2Fx%20y", "/v1/pools/%ff/x%20y", "/v1/lookup?key=%FF/x%20y"])
def test_a_key_of_any_bytes_is_percent_encoded(served: Served, path: str) -> None:
    status, said, _ = served.get(path)
    assert (status, said["key"]) == (200, "\udcff/x y")
    assert said["nodes"]


def test_a_plus_is_a_plus() -> None:
    assert query_of("key=a+b%2B&state=&x") == {"key": "a+b+", "state": "", "x": ""}


def test_nodes_may_be_asked_for_by_state(served: Served) -> None:
    assert served.get("/v1/nodes?state=out")[1] == {"nodes": []}
    assert len(served.get("/v1/nodes?state=live")[1]["nodes"]) == 2


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v2/status", 404, "no path '/v2/status' (/v1/ lists them)"),
        ("/v1/none", 404, "no path '/v1/none' (/v1/ lists them)"),
        ("/v1/pools/none", 404, "no source knows the key 'none'"),
        ("/v1/pools/", 404, "no source knows the key ''"),
        ("/v1/lookup", 400, "which key? (lookup?key=KEY)"),
        ("/v1/lookup?key=", 400, "which key? (lookup?key=KEY)"),
        ("/v1/nodes?state=dead", 400, "no state 'dead' (there are: live, out, trial)"),
    ],
)
def test_what_is_not_there_is_named(served: Served, path: str, status: int, error: str) -> None:
    found, said, _ = served.get(path)
    assert (found, said) == (status, {"error": error})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    head = served.raw(f"{method} /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET" in head
    assert served.looks == 0


@pytest.mark.parametrize(
    "host", ["", "localhost", "LOCALHOST:1", "127.0.0.1", "10.0.0.5:9000", "[::1]", "[::1]:9000", "admin.internal:90"]
)
def test_an_address_or_a_name_of_ours_is_a_welcome_host(served: Served, host: str) -> None:
    assert served.get("/v1/status", host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_page_that_names_this_machine_by_its_own_name_is_refused(served: Served, host: str) -> None:
    status, said, _ = served.get("/v1/status", host)
    assert (status, said) == (403, {"error": "the Host header names neither an address nor localhost"})
    assert served.looks == 0


def test_no_host_header_is_welcome() -> None:
    assert is_welcome("", ())


def test_on_a_unix_socket_any_host_will_do(tmp_path: Path) -> None:
    """Only a program of this machine can connect there, and each sends what it likes."""
    served = Served(str(tmp_path / "admin.sock"))
    assert served.get("/v1/status", "whatever")[0] == 200
    served.server.stop()


def test_what_is_drained_is_told_and_gets_requests_again(served: Served) -> None:
    status, said, _ = served.post("drain", {"what": [":1", "bar.com"]})
    assert (status, [(one["kind"], one["what"], one["drained"]) for one in said["drains"]]) == (
        200, [("node", ":1", True), ("key", "bar.com", True)],
    )  # fmt: skip
    assert served.get("/v1/drains")[1] == said
    assert served.get("/v1/lookup?key=bar.com")[1]["reasons"] == ["the key is drained"]
    status, said, _ = served.post("undrain", {"what": [":1", "bar.com"]}, Content_Type="Application/JSON; charset=x")
    assert (status, [one["drained"] for one in said["drains"]]) == (200, [False, False])
    assert served.get("/v1/drains")[1] == {"drains": []}


def test_a_node_is_ejected_for_as_long_as_is_said(served: Served) -> None:
    assert served.post("eject", {"what": [":2"], "seconds": 5})[0] == 200
    assert [one["retry_in"] for one in served.get("/v1/nodes?state=out")[1]["nodes"]] == [5]
    assert served.post("eject", {"what": [":2"]})[0] == 200
    assert [one["retry_in"] for one in served.get("/v1/nodes?state=out")[1]["nodes"]] == [60]
    assert served.post("undrain", {"what": [":2"]})[0] == 200
    assert served.get("/v1/nodes?state=out")[1] == {"nodes": []}


@pytest.mark.parametrize("verb", ["drain", "undrain", "eject"])
def test_what_changes_something_is_a_post(served: Served, verb: str) -> None:
    for method in ("GET", "PUT", "OPTIONS"):
        status, said, headers = served.get(f"/v1/{verb}", method=method)
        assert (status, said, headers["Allow"]) == (405, {"error": "only POST is known here"}, "POST")


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({"Content_Type": ""}, 415, "the body's Content-Type must be application/json"),
        ({"Content_Type": "text/plain"}, 415, "the body's Content-Type must be application/json"),
        ({"Content_Type": "text/plain;application/json"}, 415, "the body's Content-Type must be application/json"),
        ({"Host": "evil.example"}, 403, "the Host header names neither an address nor localhost"),
        ({"Origin": "null"}, 403, "a web page's browser has sent this: it has an Origin header"),
        ({"Content_Length": ""}, 411, "how long is the body? (Content-Length)"),
        ({"Content_Length": "1048577"}, 413, "a body has 1048576 bytes at most"),
        ({"Content_Length": "9" * 30}, 413, "a body has 1048576 bytes at most"),
    ],
)
def test_no_page_has_a_browser_change_anything(
    served: Served, headers: dict[str, str], status: int, error: str
) -> None:
    with contextlib.suppress(ConnectionError):  # closed on a body that had not been read
        found, said, _ = served.post("drain", {"what": [":1"]}, **headers)
        assert (found, said) == (status, {"error": error})
    assert served.get("/v1/drains")[1] == {"drains": []}


@pytest.mark.parametrize(
    ("verb", "body", "error"),
    [
        ("drain", b"", "the body is no JSON"),
        ("drain", b"{", "the body is no JSON"),
        ("drain", b"\xff", "the body is no JSON"),
        ("drain", b"[" * 100_000, "the body is no JSON"),
        ("drain", [":1"], "the body is an object with what alone"),
        ("drain", {"what": [":1"], "seconds": 5}, "the body is an object with what alone"),
        ("eject", {"what": [":1"], "for": 5}, "the body is an object with seconds and what alone"),
        ("drain", {}, '"what" is a list of addresses and keys'),
        ("drain", {"what": []}, '"what" is a list of addresses and keys'),
        ("drain", {"what": ":1"}, '"what" is a list of addresses and keys'),
        ("drain", {"what": [":1", 1]}, '"what" is a list of addresses and keys'),
        (
            "drain", {"what": [":1", ""]},
            "'' is neither a node's address nor a key: it has 0 bytes, and a key has 1 to 255",
        ),
        ("drain", {"what": ["\ud800"]}, "'\\ud800' is neither a node's address nor a key: it is no text"),
        ("undrain", {"what": [":9"]}, "nobody knows ':9'"),
        ("eject", {"what": [":1", "foo.com"]}, "'foo.com' is a key, and nodes alone are ejected"),
        ("eject", {"what": [":1"], "seconds": True}, '"seconds" is a number'),
        ("eject", {"what": [":1"], "seconds": "5"}, '"seconds" is a number'),
        ("eject", {"what": [":1"], "seconds": 0}, "a node is ejected for 1 to 86400 seconds"),
        ("eject", b'{"what": [":1"], "seconds": NaN}', "a node is ejected for 1 to 86400 seconds"),
        ("eject", {"what": [":1"], "seconds": 10**400}, "a node is ejected for 1 to 86400 seconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_obeyed_is_refused_and_changes_nothing(
    served: Served, verb: str, body: object, error: str
) -> None:
    status, said, _ = served.post(verb, body)
    assert (status, said) == (400, {"error": error})
    assert served.get("/v1/drains")[1] == {"drains": []}
    assert served.get("/v1/nodes?state=out")[1] == {"nodes": []}


def test_a_fault_of_ours_is_a_500_and_no_end(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.broken = True
    status, said, _ = served.get("/v1/status")
    assert (status, said) == (500, {"error": "internal error: ValueError"})
    assert "admin API: internal error" in caplog.text
    served.broken = False
    assert served.get("/v1/status")[0] == 200


GARBAGE = [
    b"garbage\r\n\r\n",
    b"GET /v1/status HTTP/1\r\n\r\n",
    b"GET /v1/status HTTP/x.y\r\n\r\n",
    b"POST /v1/status\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nX: " + 70_000 * b"x" + b"\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\n" + 200 * b"X: y\r\n" + b"\r\n",
    b"GET /" + 9_000 * b"x" + b" HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_gets_a_400_and_not_a_word_in_the_log(
    served: Served, garbage: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    said = b""
    with contextlib.suppress(ConnectionError):  # closed on what had not been read
        said = served.raw(garbage)
    assert said[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 414", b"")
    assert served.looks == 0
    assert capfd.readouterr() == ("", "")
    assert served.get("/v1/status")[0] == 200


def test_a_client_that_leaves_at_any_point_costs_nothing(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    for end in range(len(GET)):
        with served.connect() as client:
            client.sendall(GET[:end])
    assert served.get("/v1/status")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_more_silent_clients_than_places_keep_one_that_speaks_waiting_for_a_moment_only(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "HEAD_WAIT", 3600)
    silent = [served.connect() for _ in range(CLIENTS + 10)]
    assert served.get("/v1/status")[0] == 200
    for client in silent:
        client.close()


def test_a_head_that_drips_is_dropped_in_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "HEAD_WAIT", 0.1)
    with served.connect() as client:

        def drip() -> None:
            with contextlib.suppress(OSError):  # closed
                for byte in b"GET /v1/status HTTP/1.1\r\nX: " + 2000 * b"x":
                    client.sendall(bytes([byte]))
                    gevent.sleep(0.005)

        drops = gevent.spawn(drip)
        with contextlib.suppress(ConnectionError):
            assert client.recv(100) == b""
        drops.kill()
    assert served.looks == 0


def test_a_body_that_drips_is_dropped_in_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ANSWER_WAIT", 0.1)
    with served.connect() as client:
        client.sendall(b"GET /v1/status HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while client.recv(65536):
                pass
    wait_for_places(served)


def test_a_client_that_does_not_read_loses_its_place(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ANSWER_WAIT", 0.1)
    monkeypatch.setattr(admin, "encoded", lambda body: 20_000_000 * b"x")  # more than all buffers between the two
    with served.connect() as client:
        client.sendall(GET)
        wait_for(lambda: served.looks, "its turn", sleep=gevent.sleep)
        wait_for_places(served)


def wait_for_places(served: Served) -> None:
    pool = served.server.pool
    assert pool is not None
    wait_for(lambda: pool.free_count() == CLIENTS, "every place to be free", sleep=gevent.sleep)
