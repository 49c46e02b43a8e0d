"""JSON over HTTP to one of several servers, for Consul's agent API and etcd's gateway. Blocks only its own greenlet.

Each call has a connection of its own and is over within its time limit, whatever the server does. The place that
answered last is asked first; where one cannot be reached the next one is asked, and whatever a server has answered is
the answer.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any

import gevent

from discovery.announcetarget import Trouble, reason
from discovery.whereabouts import Place, Whereabouts, of_hosts, shown

CONNECT_S = 2.0
CALL_S = 5.0  # all of it, at one place, where nothing else is said
LARGEST = 1 << 20  # bytes of an answer; what we ask for has a hundred
SHOWN = 200  # characters of what a server complains of


class Refused(Trouble):
    """The server has answered with another status than 200."""

    def __init__(self, place: str, status: int, said: str) -> None:
        super().__init__(f"{place}: HTTP {status}: {said}")
        self.status = status


class HttpJson:
    """`hosts` are (host, port), any of which will do; `tls` is what to check their certificates by."""

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        every: float,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        timeout: float = CALL_S,
    ) -> None:
        self.tls = tls
        self.server_name = server_name
        self.timeout = timeout
        self.last: Place | None = None
        self.names: dict[Place, str] = {}  # which host each place was found for
        self.where = Whereabouts(self._look, every)
        self._looks = [(host, of_hosts([(host, port)])) for host, port in hosts]

    def places(self) -> list[Place]:
        """Where to ask, in this order."""
        return sorted(self.where.now(), key=lambda place: place != self.last)

    def call(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """What the server answers, None for nothing. Trouble where it is no 200, or none can be asked."""
        troubles = []
        for place in self.places():
            try:
                with gevent.Timeout(self.timeout, TimeoutError(f"no answer in {self.timeout:.0f} s")):
                    status, data = self._ask(place, method, path, json.dumps(body).encode(), headers or {})
            except (OSError, HTTPException) as error:
                troubles.append(f"{shown(place)}: {reason(error) if error.args else type(error).__name__}")
                continue
            self.last = place
            if status != 200:
                raise Refused(shown(place), status, " ".join(data.decode(errors="replace").split())[:SHOWN])
            return self._read(place, data)
        raise Trouble("; ".join(troubles))

    def _ask(self, place: Place, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        host = self.server_name or self.names.get(place, "localhost")
        connection = HTTPConnection(host, place.sockaddr[1])
        connection.sock = sock = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_S)
            sock.connect(place.sockaddr)
            sock.settimeout(self.timeout)
            if self.tls:
                connection.sock = self.tls.wrap_socket(sock, server_hostname=host)
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read(LARGEST)
        finally:
            connection.close()

    def _look(self) -> list[Place]:
        """All places of all hosts: one that is unknown hides no other."""
        found: dict[Place, str] = {}
        trouble: OSError | None = None
        for host, look in self._looks:
            try:
                found.update(dict.fromkeys(look(), host))
            except OSError as error:
                trouble = error
        if trouble and not found:
            raise trouble
        self.names = found or self.names
        return list(found)

    def _read(self, place: Place, data: bytes) -> Any:
        try:
            return json.loads(data) if data.strip() else None
        except ValueError:
            raise Trouble(f"{shown(place)}: its answer is no JSON") from None


def tls_of(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """TLS by these files: who signs the server's certificate, and ours. ValueError where they cannot be used."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, key or None)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"the files of TLS cannot be used: {error}") from None
    return context
