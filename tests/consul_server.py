"""A real Consul agent for the tests, and a scripted server that speaks as one does and then does not.

with Consul() as consul:                  a dev agent on free ports of 127.0.0.1, ready when it is made
    consul.register("app", "127.0.0.1:3031", tags=["uwsgi"], check="passing")
    consul.set_check("app:3031", "critical"); consul.maintain("app:3031"); consul.deregister("app:3031")
    consul.url("?service=app")            what gfrouter is told: consul://127.0.0.1:PORT?service=app
    consul.connections(pid)               those that this process has to its HTTP port

Consul(folder)                            a server that keeps its data in `folder`, so that `restart` finds it again
consul.restart()                          another process in its place, at the same ports; a dev agent is empty then
consul.send_signal_to_all(SIGSTOP)        frozen, as any Process

with ScriptedAgent() as agent:            answers of a small catalog, until it is told otherwise
    agent.services["app"] = [entry(...)]; agent.moved()       what it has, and that it has changed
    agent.answers["/v1/catalog/services"] = b"..."            these bytes in place of any answer
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from scripted import wait_for
from servers import TESTS, Process, free_port

PEERS = TESTS.parent / "build" / "peers"
CONSUL = shutil.which("consul", path=f"{PEERS}:{os.environ.get('PATH', '')}")

needs_consul = pytest.mark.skipif(CONSUL is None, reason="consul is neither on PATH nor in build/peers: make peers")


class Consul(Process):
    """One agent, server and client at once. Without a `folder` it is a dev agent, which keeps nothing."""

    def __init__(self, folder: Path | None = None, config: Mapping[str, Any] | None = None, token: str = "") -> None:
        assert CONSUL
        self.port, self.token = free_port(), token
        kind = ["-dev"] if folder is None else ["-server", "-bootstrap-expect", "1", "-data-dir", str(folder)]
        ports = {"server": free_port(), "serf-lan": free_port()}
        self._words = [
            *(CONSUL, "agent", *kind, "-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", "n1"),
            *("-http-port", str(self.port), "-dns-port", "-1", "-grpc-port", "-1", "-serf-wan-port", "-1"),
            *(word for name, port in ports.items() for word in (f"-{name}-port", str(port))),
            *("-log-level", "warn", "-hcl", "performance { raft_multiplier = 1 }"),
            *(("-hcl", json.dumps(config)) if config else ()),
        ]
        self._start()

    def _start(self) -> None:
        super().__init__(*self._words)
        try:
            wait_for(self._leads, "the agent to lead its cluster", 20)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def restart(self) -> None:
        """Killed, and begun again at the same ports."""
        self.kill()
        self._start()

    def url(self, query: str = "", scheme: str = "consul") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{query}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The agent's API: what it answers, as JSON; an AssertionError where it refuses."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"X-Consul-Token": self.token} if self.token else {}
            client.request(method, path, None if body is None else json.dumps(body), headers)
            response = client.getresponse()
            text = response.read()
            assert response.status == 200, f"{method} {path}: {response.status} {text!r}"
            return json.loads(text) if text.strip() else None
        finally:
            client.close()

    def register(self, service: str, address: str, check: str = "", **more: Any) -> str:
        """One instance, `more` as in the API (Tags, Meta, Weights); its id. `check` is a status to begin with."""
        host, _, port = address.rpartition(":")
        identity = f"{service}:{port}"
        checks = {"Check": {"CheckID": identity, "TTL": "1h", "Status": check}} if check else {}
        body = {"ID": identity, "Name": service, "Address": host.strip("[]"), "Port": int(port), "Tags": ["uwsgi"]}
        self.call("PUT", "/v1/agent/service/register", {**body, **checks, **more})
        return identity

    def deregister(self, identity: str) -> None:
        self.call("PUT", f"/v1/agent/service/deregister/{identity}")

    def set_check(self, identity: str, status: str) -> None:
        self.call("PUT", f"/v1/agent/check/update/{identity}", {"Status": status})

    def maintain(self, identity: str = "", on: bool = True) -> None:
        """Puts one instance, or the whole machine, under maintenance, or ends that."""
        what = f"service/maintenance/{identity}" if identity else "maintenance"
        self.call("PUT", f"/v1/agent/{what}?enable={str(on).lower()}")

    def connections(self, pid: int) -> int:
        """Established connections that this process has to its HTTP port.

        From the agent's side a test's own last call may still be among them, and the kernel's list, which changes while
        it is read, may name one twice.
        """
        there = f"0100007F:{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {row[9] for row in rows if row[2] == there and row[3] == "01"}
        return len(inodes & _sockets(pid))

    def _leads(self) -> bool:
        assert self.returncode is None, f"ended ({self.returncode}), saying {self.lines[-5:]}"
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            self.call("GET", "/v1/status/leader")
            # Its own service comes last, when it has taken over the cluster.
            return bool(self.call("GET", "/v1/health/service/consul"))
        return False


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{descriptor}").partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    return found


def entry(address: str, status: str = "passing", written: int = 1, **service: Any) -> dict[str, Any]:
    """One instance as /v1/health/service/NAME has it; `written` is the index at which its check changed last."""
    host, _, port = address.rpartition(":")
    said = {"ID": address, "Address": host, "Port": int(port), "Tags": ["uwsgi"], "Meta": None, **service}
    checks = [{"Node": "n1", "CheckID": f"service:{address}", "Status": status, "ModifyIndex": written}]
    return {"Node": {"Node": "n1", "Address": "127.0.0.1"}, "Service": said, "Checks": checks}


class ScriptedAgent:
    """An HTTP server with Consul's three paths and its blocking queries, over what `services` says.

    `answers` (by path) are bytes of a body, a status, or a whole answer where they begin with `HTTP/`; they stand in
    place of the truth, and a query for them does not block. For a path in `dripping` a blank
    comes each 100 ms in place of an end; a path in `still` never moves; an answer to a path in `held` is made at once,
    and sent when its event is set. `index` is the index that it says; `asked` is every request.
    """

    def __init__(self, port: int = 0) -> None:
        self.services: dict[str, list[Any]] = {}
        self.answers: dict[str, bytes | int] = {}
        self.dripping: set[str] = set()
        self.still: set[str] = set()
        self.held: dict[str, threading.Event] = {}
        self.headers: dict[str, str] = {}
        self.index = 10
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._changed = threading.Condition()
        self._stopped = False
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    agent._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that leaves is none."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, query: str = "") -> str:
        return f"consul://127.0.0.1:{self.port}{query}"

    def moved(self, index: int | None = None) -> None:
        """What it has is another; the index grows by one, or is what is given."""
        with self._changed:
            self.index = self.index + 1 if index is None else index
            self._changed.notify_all()

    def count(self, path: str) -> int:
        """How often `path` was asked for."""
        return sum(1 for asked, _ in list(self.asked) if urlsplit(asked).path == path)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        self.asked.append((handler.path, dict(handler.headers)))
        known = parse_qs(parts.query).get("index", [""])[0]
        with self._changed:
            if known and parts.path not in self.answers:
                self._changed.wait_for(lambda: self._stopped or self._has_moved(parts.path, known), 20)
        answer = self.answers.get(parts.path)
        if isinstance(answer, bytes) and answer.startswith(b"HTTP/"):
            handler.wfile.write(answer)
            handler.close_connection = True
            return
        status = answer if isinstance(answer, int) else 200
        body = answer if isinstance(answer, bytes) else json.dumps(self._truth(parts.path)).encode()
        if parts.path in self.held:
            self.held[parts.path].wait(20)
        handler.send_response(status)
        headers = {
            "X-Consul-Index": str(self.index),
            "Content-Length": str(len(body) + 1000 * (parts.path in self.dripping)),
            **self.headers,
        }
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        while parts.path in self.dripping and not self._stopped:
            handler.wfile.write(b" ")
            time.sleep(0.1)
        handler.wfile.write(body)

    def _has_moved(self, path: str, known: str) -> bool:
        return path not in self.still and str(self.index) != known

    def _truth(self, path: str) -> Any:
        if path == "/v1/catalog/services":
            return {"consul": [], **{name: ["uwsgi"] for name in self.services}}
        if path == "/v1/health/state/any":
            own = {"Node": "n1", "CheckID": "serfHealth", "Status": "passing", "ServiceName": ""}
            entries = [(name, one) for name, found in self.services.items() for one in found if isinstance(one, dict)]
            return [own, *({**check, "ServiceName": name} for name, one in entries for check in one["Checks"])]
        return self.services.get(path.removeprefix("/v1/health/service/"), [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


FREEZE, THAW = signal.SIGSTOP, signal.SIGCONT
