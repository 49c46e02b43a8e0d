"""The admin API: HTTP for operators and their tools, on a socket of its own.

What it answers, view.py says; what a POST changes, drains.py does.

Served by gevent's WSGI server, one request a connection. A client may be slow, silent or broken: it costs one greenlet
of a Crowd for a bounded time, and no line in the log. On TCP a browser may be told by any page to come here,
under a name of that page's own: so only an address, `localhost` or the configured name may stand in its Host header,
and no header lets a page read the answer. What changes something comes as JSON, which no page can have a browser send
elsewhere without asking there first, and with no Origin, which a browser adds.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
from gevent.pywsgi import WSGIHandler, WSGIServer

from router import __version__, drains, view
from router.crowd import Crowd, Reserved
from router.statsserver import encoded
from router.view import State

CLIENTS = 256  # at once; the next one takes the place of the first, in a moment
HEAD_WAIT = 2  # seconds in which the head of a request is whole; clients of this machine send it at once
ANSWER_WAIT = 10  # seconds for the rest: the answer is made in less than one, and 10 MB at the most
MOST_BODY = 1 << 20  # bytes of a POST: 600 keys, however they are escaped
PREFIX = "/v1"
VERBS = {f"{PREFIX}/{verb}": verb for verb in ("drain", "undrain", "eject")}

Query = Mapping[str, str]
Look = Callable[[bool], State]  # the state of now; True asks the routers first what they have counted

log = logging.getLogger("gfrouter")


class Refused(Exception):
    """An answer with another status than 200."""

    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class NotAllowed(Refused):
    """The path takes this method alone."""

    def __init__(self, method: str) -> None:
        super().__init__(HTTPStatus.METHOD_NOT_ALLOWED, f"only {method} is known here")
        self.headers = (("Allow", method),)


def answer(look: Look, path: str, query: Query) -> dict[str, Any]:
    """The JSON at this path; `look` gives the state. Refused for what is not there."""
    if path in ("/", PREFIX, f"{PREFIX}/"):
        return {"version": __version__, "paths": {f"{PREFIX}/{name}": about for name, about in ABOUT.items()}}
    name = path.removeprefix(f"{PREFIX}/")
    if name == path:
        raise Refused(HTTPStatus.NOT_FOUND, f"no path {path!r} ({PREFIX}/ lists them)")
    if name.startswith("pools/"):
        return _found(view.pool(look(True), key := name.removeprefix("pools/")), key)
    match name:
        case "status":
            return view.status(look(True))
        case "sources":
            return view.sources(look(False))
        case "pools":
            return view.pools(look(False))
        case "nodes":
            return view.nodes(look(True), _state_wanted(query))
        case "drains":
            return view.drains(look(True))
        case "lookup" if query.get("key"):
            return view.lookup(look(False), query["key"])
        case "lookup":
            raise Refused(HTTPStatus.BAD_REQUEST, "which key? (lookup?key=KEY)")
    raise Refused(HTTPStatus.NOT_FOUND, f"no path {path!r} ({PREFIX}/ lists them)")


ABOUT = {
    "status": "the process, its routers, how much it knows, its sources",
    "sources": "each source of nodes: its state, errors, and how much it says",
    "pools": "each key: how many nodes, how many of them out, which sources",
    "pools/KEY": "one key with its nodes",
    "nodes": "each address with its keys and sources; ?state=live, out or trial gives those alone",
    "lookup?key=KEY": "what becomes of a request with this key, and why",
    "drains": "what gets no new requests, and how many are still in flight there",
    "drain": 'POST {"what": [ADDRESS or KEY, ...]}: no new requests for these',
    "undrain": 'POST {"what": [ADDRESS or KEY, ...]}: they get requests again, ejected ones too',
    "eject": 'POST {"what": [ADDRESS, ...], "seconds": 60}: these nodes are out for so long',
}


def obey(look: Look, verb: str, body: bytes) -> dict[str, Any]:
    """Do to the words that the JSON in `body` says; gives how they are now. Refused where that cannot be."""
    words, seconds = order_of(body, verb)
    state = look(False)
    try:
        match verb:
            case "drain":
                things = drains.drain(state.table, words)
            case "undrain":
                things = drains.undrain(state.table, words)
            case _:
                things = drains.eject(state.table, words, seconds, state.now)
    except drains.Impossible as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    return view.drains(look(True), dict.fromkeys(things))


def order_of(body: bytes, verb: str) -> tuple[list[str], float]:
    """The words and the seconds that the body of a POST says."""
    known = {"what", "seconds"} if verb == "eject" else {"what"}
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is no JSON") from None
    if not isinstance(said, dict) or not said.keys() <= known:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the body is an object with {' and '.join(sorted(known))} alone")
    words, seconds = said.get("what"), said.get("seconds", drains.EJECT_SECONDS)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise Refused(HTTPStatus.BAD_REQUEST, '"what" is a list of addresses and keys')
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise Refused(HTTPStatus.BAD_REQUEST, '"seconds" is a number')
    return words, seconds


def _found(pool: dict[str, Any] | None, key: str) -> dict[str, Any]:
    if pool is None:
        raise Refused(HTTPStatus.NOT_FOUND, f"no source knows the key {key!r}")
    return pool


def _state_wanted(query: Query) -> str:
    wanted = query.get("state", "")
    if wanted and wanted not in view.STATES.values():
        raise Refused(HTTPStatus.BAD_REQUEST, f"no state {wanted!r} (there are: {', '.join(view.STATES.values())})")
    return wanted


# HTTP.

HEADERS = (
    ("Server", f"gfrouter/{__version__}"),
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
)


def admin_server(listener: socket.socket, look: Look, names: Collection[str] = ()) -> WSGIServer:
    """The server on this socket, to be started; `look` is called for each request that asks for state.

    `names` are host names under which this machine may be asked, beside `localhost`.
    """
    over_tcp = listener.family != socket.AF_UNIX
    hosts = {"localhost", *(name.lower() for name in names)}

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, body, headers = HTTPStatus.OK, {}, list(HEADERS)
        try:
            if over_tcp and not is_welcome(environ.get("HTTP_HOST", ""), hosts):
                raise Refused(HTTPStatus.FORBIDDEN, "the Host header names neither an address nor localhost")
            path = from_latin(environ["PATH_INFO"])
            match environ["REQUEST_METHOD"]:
                case "GET" if path not in VERBS:
                    body = answer(look, path, query_of(environ["QUERY_STRING"]))
                case "POST" if path in VERBS:
                    body = obey(look, VERBS[path], body_of(environ))
                case _:
                    raise NotAllowed("POST" if path in VERBS else "GET")
        except Refused as refused:
            status, body = refused.status, {"error": str(refused)}
            headers += refused.headers
        except Exception as error:
            log.exception("admin API: internal error")
            status, body = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"internal error: {type(error).__name__}"}
        start_response(f"{status.value} {status.phrase}", headers)
        return [encoded(body)]

    # A name of its own, or the server would look up the one of its address.
    return AdminServer(
        listener, application, spawn=Crowd(CLIENTS), log=None, error_log=None, handler_class=Impatient,
        environ={"SERVER_NAME": "gfrouter"},
    )  # fmt: skip


class AdminServer(Reserved, WSGIServer):
    """WSGI, with a descriptor in reserve."""


class Impatient(WSGIHandler):
    """One connection, whose client has HEAD_WAIT for its head and ANSWER_WAIT for the rest, then is dropped."""

    def handle(self) -> None:
        self.patience = gevent.Timeout.start_new(HEAD_WAIT)
        try:
            super().handle()
        except (gevent.Timeout, OSError):
            pass  # too slow, or gone
        finally:
            self.patience.close()

    def read_request(self, raw_requestline: str) -> Any:
        done = super().read_request(raw_requestline)
        self.patience.close()
        self.patience = gevent.Timeout.start_new(ANSWER_WAIT)
        return done

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """What is not our application's: the client was too slow, or has left."""
        self.close_connection = True

    def _handle_client_error(self, ex: Any) -> Any:
        """Garbage is no event."""
        return "400", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def is_welcome(host: str, names: Collection[str]) -> bool:
    """Whether a Host header may be so: absent, an IP address or one of the names, each with or without a port."""
    name = re.sub(r":[0-9]*$", "", host) if not host.endswith("]") else host
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return not name or name.lower() in names
    return True


def body_of(environ: Mapping[str, Any]) -> bytes:
    """The JSON of a POST that no web page has sent."""
    if "HTTP_ORIGIN" in environ:
        raise Refused(HTTPStatus.FORBIDDEN, "a web page's browser has sent this: it has an Origin header")
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body's Content-Type must be application/json")
    size = environ.get("CONTENT_LENGTH", "")
    if not (size.isascii() and size.isdigit()):
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "how long is the body? (Content-Length)")
    if len(size) > 10 or int(size) > MOST_BODY:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {MOST_BODY} bytes at most")
    body: bytes = environ["wsgi.input"].read(int(size))
    return body


def query_of(text: str) -> Query:
    """`NAME=VALUE&...`, percent-decoded; a plus is a plus. Of a name that comes twice the last one counts."""
    pairs = (pair.partition("=") for pair in text.split("&"))
    return {_decoded(name): _decoded(value) for name, _, value in pairs}


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.encode("latin-1")).decode("utf-8", "surrogateescape")


def from_latin(text: str) -> str:
    """A text of WSGI's, where each character is a byte, as the table has texts."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")
