"""JSON over HTTP to one of several servers, for Consul's agent API and etcd's gateway. Blocks only its own greenlet.

Each call has a connection of its own and is over within CALL_S, whatever the server does. The place that answered last
is asked first; where one cannot be reached the next one is asked, and whatever a server has answered is the answer.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any

import gevent

from discovery.announcetarget import Trouble, reason
from discovery.whereabouts import Place, Whereabouts, shown

CONNECT_S = 2.0
CALL_S = 5.0  # all of it, at one place
LARGEST = 1 << 20  # bytes of an answer; what we ask for has a hundred
SHOWN = 200  # characters of what a server complains of


class Refused(Trouble):
    """The server has answered with another status than 200."""

    def __init__(self, place: str, status: int, said: str) -> None:
        super().__init__(f"{place}: HTTP {status}: {said}")
        self.status = status


class HttpJson:
    """`host` is the server's name for its certificate and the Host header, `tls` what to check that by."""

    def __init__(self, where: Whereabouts, host: str, tls: ssl.SSLContext | None = None) -> None:
        self.where = where
        self.host = host
        self.tls = tls
        self.last: Place | None = None

    def places(self) -> list[Place]:
        """Where to ask, in this order."""
        return sorted(self.where.now(), key=lambda place: place != self.last)

    def call(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """What the server answers, None for nothing. Trouble where it is no 200, or none can be asked."""
        troubles = []
        for place in self.places():
            try:
                with gevent.Timeout(CALL_S, TimeoutError(f"no answer in {CALL_S:.0f} s")):
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
        connection = HTTPConnection(self.host)
        connection.sock = sock = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_S)
            sock.connect(place.sockaddr)
            sock.settimeout(CALL_S)
            if self.tls:
                connection.sock = self.tls.wrap_socket(sock, server_hostname=self.host)
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read(LARGEST)
        finally:
            connection.close()

    def _read(self, place: Place, data: bytes) -> Any:
        try:
            return json.loads(data) if data.strip() else None
        except ValueError:
            raise Trouble(f"{shown(place)}: its answer is no JSON") from None
