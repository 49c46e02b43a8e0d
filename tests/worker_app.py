"""The application behind the end-to-end tests, run by uWSGI alone (plain WSGI, nothing to install).

Every answer names its worker in X-Worker. `/` says who; `/slow?s=0.02` says it later; `/echo` measures the body it was
sent; `/big?n=N` answers N bytes; `/stream?n=N` yields N pieces without a length; `/chunked` does its own chunking;
`/etag` answers 304 to its ETag; `/header?n=N` sends a header of N bytes; `/cookie` measures the cookie it was sent.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

NAME = os.environ.get("WORKER_NAME", "")
PIECE = 65536
Answer = tuple[str, list[tuple[str, str]], "bytes | Iterator[bytes]"]


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Any:
    query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    status, headers, body = ROUTES[environ["PATH_INFO"]](environ, query)
    if isinstance(body, bytes):
        headers.append(("Content-Length", str(len(body))))
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else body
    start_response(status, [("X-Worker", NAME), *headers])
    return [body] if isinstance(body, bytes) else body


def hello(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    return "200 OK", [("Content-Type", "text/plain")], NAME.encode()


def slow(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    time.sleep(float(query.get("s", "0.02")))
    return hello(environ, query)


def echo(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    digest, length = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(PIECE):
        digest.update(piece)
        length += len(piece)
    return "200 OK", [("Content-Type", "application/json")], _measured(length, digest.hexdigest())


def big(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    size = int(query["n"])
    pieces = (b"x" * min(PIECE, size - start) for start in range(0, size, PIECE))
    return "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))], pieces


def stream(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    return "200 OK", [("Content-Type", "text/plain")], (b"piece %d\n" % n for n in range(int(query["n"])))


def chunked(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    pieces = (b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n")
    return "200 OK", [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")], iter(pieces)


def etag(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    if environ.get("HTTP_IF_NONE_MATCH") == '"v1"':
        return "304 Not Modified", [("ETag", '"v1"')], iter(())
    return "200 OK", [("ETag", '"v1"')], b"version one"


def header(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    return "200 OK", [("X-Long", "h" * int(query["n"]))], b"ok"


def cookie(environ: dict[str, Any], query: dict[str, str]) -> Answer:
    value = environ.get("HTTP_COOKIE", "").encode("latin-1")
    return "200 OK", [], _measured(len(value), hashlib.sha256(value).hexdigest())


def _measured(length: int, sha256: str) -> bytes:
    return json.dumps({"length": length, "sha256": sha256}).encode()


ROUTES: dict[str, Callable[[dict[str, Any], dict[str, str]], Answer]] = {
    "/": hello,
    "/slow": slow,
    "/echo": echo,
    "/big": big,
    "/stream": stream,
    "/chunked": chunked,
    "/etag": etag,
    "/header": header,
    "/cookie": cookie,
}
