"""The clients of the end-to-end tests: HTTP through nginx, raw uwsgi and subscription packets to the router.

    get(port, path) -> Answer                        an HTTP request through nginx (`post`, `http` for the rest)
    ask(address, request("foo.com", "/"), body)      a raw uwsgi request; the bytes of the answer to EOF
    announce(server, "foo.com", "127.0.0.1:3031", weight=3)    what a worker sends; withdraw(...) its farewell
    with Load(port) as load: load.more(50)           GETs in a loop, every answer counted, every failure kept

Packets are built here from the protocol's text, not by the router's codec, so that neither proves the other by itself.
"""

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from scripted import connect, family_of, split, wait_for


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def worker(self) -> str:
        """Who answered, as worker_app.py says it; "" where nginx answered in its place."""
        return self.headers.get("X-Worker", "")


def http_request(
    port: int,
    method: str,
    path: str,
    host: str = "foo.com",
    body: bytes | Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30,
) -> Answer:
    """One request on a connection of its own. A pieced body needs its Content-Length among the headers."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        client.request(method, path, body, {"Host": host, "Connection": "close", **(headers or {})})
        response = client.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        client.close()


def get(port: int, path: str = "/", host: str = "foo.com", headers: dict[str, str] | None = None) -> Answer:
    return http_request(port, "GET", path, host, headers=headers)


def post(port: int, path: str, body: bytes | Iterable[bytes], headers: dict[str, str] | None = None) -> Answer:
    return http_request(port, "POST", path, body=body, headers=headers)


def packet(fields: Iterable[tuple[str | bytes, str | bytes]], modifier1: int = 0, modifier2: int = 0) -> bytes:
    """A uwsgi packet of these vars in this order."""
    pairs = b"".join(_sized(name) + _sized(value) for name, value in fields)
    return struct.pack("<BHB", modifier1, len(pairs), modifier2) + pairs


def request(key: str, path: str = "/", method: str = "GET", length: int = 0, **more: str) -> bytes:
    """The head of a request as nginx would send it, without its body."""
    fields = {
        "QUERY_STRING": path.partition("?")[2],
        "REQUEST_METHOD": method,
        "CONTENT_LENGTH": str(length or ""),
        "REQUEST_URI": path,
        "PATH_INFO": path.partition("?")[0],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": key,
        **more,
    }
    return packet(fields.items())


def ask(address: str, head: bytes, body: bytes = b"", timeout: float = 20) -> bytes:
    """Sends head and body to a uwsgi port and reads to the end; b"" also where the connection was reset."""
    with connect(address, timeout) as sock:
        try:
            sock.sendall(head + body)
            return read_to_end(sock)
        except ConnectionError:
            return b""


def read_to_end(sock: socket.socket) -> bytes:
    """Everything until EOF; a reset after some bytes counts as the end."""
    data = bytearray()
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return bytes(data)


def subscription(key: str | bytes, address: str | bytes, **fields: object) -> bytes:
    """What a worker sends to be found: modifier1, modifier2, cores, load, weight, backup ... as more fields."""
    more = [(name, str(value)) for name, value in fields.items()]
    return packet([("key", key), ("address", address), *more], 224)


def announce(server: str, key: str | bytes, address: str | bytes, **fields: object) -> None:
    datagram(server, subscription(key, address, **fields))


def withdraw(server: str, key: str | bytes, address: str | bytes) -> None:
    datagram(server, packet([("key", key), ("address", address)], 224, 1))


def datagram(server: str, data: bytes) -> None:
    """To any form of address that scripted.py's `split` knows."""
    with socket.socket(family_of(server), socket.SOCK_DGRAM) as sock:
        sock.sendto(data, split(server))


class Load:
    """`clients` threads that GET `path` in a loop until stopped; a failure is anything but a 200 from a worker.

    The default path takes 20 ms, so that at any moment most clients have a request inside a worker: a worker that
    dies always has some in flight.
    """

    def __init__(self, port: int, path: str = "/slow?s=0.02", clients: int = 8) -> None:
        self.port, self.path, self.clients = port, path, clients
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        return self.answers.total() + len(self.failures)

    def more(self, count: int, worker: str = "", timeout: float = 30) -> None:
        """Waits until `count` further requests have ended, or until `worker` has answered so many more."""

        def now() -> int:
            return self.answers[worker] if worker else self.done

        target = now() + count
        wait_for(lambda: now() >= target, f"{count} more answers {worker and 'of ' + worker}", timeout)

    def stop(self) -> None:
        """Lets every client finish the request it is in."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                answer = get(self.port, self.path)
                failure = "" if answer.status == 200 and answer.worker else f"{answer.status} {answer.body[:60]!r}"
            except (OSError, http.client.HTTPException) as error:
                failure = repr(error)
            with self._lock:
                if failure:
                    self.failures.append(failure)
                else:
                    self.answers[answer.worker] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()


def _sized(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return struct.pack("<H", len(data)) + data
