"""The stats server: one JSON object a connection, then close. What is in it, stats.py says.

With `stats-http` a request is read first, and the JSON comes after the headers that uWSGI sends, and a length. Of the
request only its first line matters; what its head says, and which page it asks for, is all the same. A reader may be
slow, silent or broken: it costs one place of a Crowd, for a bounded time.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import gevent

from router.crowd import Crowd, Reserved

READERS = 64  # at once; the next one takes the place of the first, in a moment
SEND_WAIT = 10  # seconds in which a reader takes its stats
HEAD_WAIT = 4  # seconds in which the head of a request is whole, as uWSGI's socket-timeout
HEAD_BYTES = 32_768  # of a head; what a browser sends with all its cookies is less
CHUNK = 4096

REQUEST_LINE = re.compile(rb"([A-Z]+) [^ \r\n]+ HTTP/1\.[0-9]\r?\n")
HEAD_END = re.compile(rb"\r?\n\r?\n")

ANSWER = (
    "HTTP/1.0 200 OK\r\n"
    "Connection: close\r\n"
    "Access-Control-Allow-Origin: *\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: {}\r\n"
    "\r\n"
)
NO_REQUEST = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def stats_server(listener: socket.socket, snapshot: Callable[[], dict[str, Any]], *, http: bool) -> Reserved:
    """The server on this socket, to be started; `snapshot` is called for each reader."""

    def take_in(client: Any, _address: Any) -> None:
        with contextlib.suppress(OSError):  # the reader has left, or does not read
            (serve_http if http else serve)(client, snapshot)

    return Reserved(listener, take_in, spawn=Crowd(READERS))


def serve(client: Any, snapshot: Callable[[], dict[str, Any]]) -> None:
    send(client, encoded(snapshot()))


def serve_http(client: Any, snapshot: Callable[[], dict[str, Any]]) -> None:
    head = gevent.with_timeout(HEAD_WAIT, read_head, client, timeout_value=b"")
    if not head:  # it has left, or been silent for too long
        return
    request = REQUEST_LINE.match(head)
    if request is None:
        return send(client, NO_REQUEST)
    text = encoded(snapshot())
    headers = ANSWER.format(len(text)).encode()
    send(client, headers if request[1] == b"HEAD" else headers + text)


def read_head(client: Any) -> bytes:
    """What comes until an empty line, the reader's EOF or `HEAD_BYTES`."""
    head = b""
    while len(head) < HEAD_BYTES and not HEAD_END.search(head):
        data = client.recv(CHUNK)
        if not data:
            break
        head += data
    return head


def encoded(snapshot: dict[str, Any]) -> bytes:
    """JSON with a line for each member, and for each element of a list of objects.

    To read, and yet by json's C encoder, which knows no `indent`: at 50,000 pools that is 5 times as fast.
    """
    members = [f"{json.dumps(name)}: {_lines(value)}" for name, value in snapshot.items()]
    return ("{\n" + ",\n".join(members) + "\n}\n").encode()


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return json.dumps(value)
    return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"


def send(client: Any, data: bytes) -> None:
    client.settimeout(SEND_WAIT)
    client.sendall(data)
