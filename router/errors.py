"""What a client gets whose request cannot be served: a small HTTP response, written once for each reason.

The status says what has become of the request, so that a web server in front can decide. 400: it cannot be served as it
is. 404: nobody knows its key. 413: its body is longer than any may be (postbuffer.py). 503: no node has seen it, so it
may go elsewhere. 502 and 504: a node took it, and broke off or kept silent, so it may have had its effect.

A page is one send that is not waited for, before the node's first byte or not at all. Closing on bytes that the client
still sends would reset it and take the page away, so where some may come they are read, for a while (session.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from socket import MSG_DONTWAIT
from struct import pack
from typing import TYPE_CHECKING

from router.lookups import UNKNOWN
from router.uwsgi import PacketError, content_length, iter_vars

if TYPE_CHECKING:
    from router.session import Session

ON, OFF = "on", "off"  # in the place of a folder of own pages
STATUSES = (400, 404, 413, 502, 503, 504)
UNSEEN = (404, 503)  # that say that no node has seen the request
MAX_PAGE = 16_384  # bytes of an own page: what the least send buffer takes at once
RESET = pack("ii", 1, 0)  # as SO_LINGER: closing sends no FIN
RETRY_AFTER = 5  # seconds; a node that restarts announces itself within about so long

HEAD_TIMEOUT, BODY_TIMEOUT = "head timeout", "body timeout"
TOO_LARGE, NO_ROOM, NOT_STORED = "body too large", "no room for body", "body not stored"
# By the kind as which the engine counts it; what is not here has not come to a node, and is a 503.
BY_KIND = {
    "HTTP": 400,
    "invalid packet": 400,
    "no key": 400,
    HEAD_TIMEOUT: 400,
    BODY_TIMEOUT: 400,
    TOO_LARGE: 413,
    "unanswered": 502,
    "retry budget": 502,
    "internal error": 502,
    "timeout": 504,
    "session timeout": 504,
    "drain timeout": 504,
}
WORDS = {"HTTP": "HTTP on a uwsgi socket"}  # where the kind alone would say too little


class Errors:
    """The responses of one router process. `unknown`: the status for a key that nobody knows; `pages`: own ones."""

    def __init__(self, unknown: int, pages: Mapping[str, str]) -> None:
        self.by_kind = {**BY_KIND, UNKNOWN: unknown}
        self.pages = pages
        self.made: dict[tuple[int, str], tuple[bytes, bytes]] = {}  # kinds are a few fixed words

    def stop(self) -> None:
        """The process ends: it hears no more of any node, so that a key is not known here says nothing now, and it
        waits for no head as long as it may take. Both may go elsewhere.
        """
        self.by_kind[UNKNOWN] = self.by_kind[HEAD_TIMEOUT] = self.by_kind[BODY_TIMEOUT] = 503

    def send(self, session: Session, kind: str, seen: bool) -> bool:
        """Send the page for `kind`; `seen`: a node took the request. True where the client may have more to send.

        One that has not sent its head, or its body, in all its time is not waited for: it may be one of many that mean
        to hold us.
        """
        head = session.head or bytes(session.partial or b"")
        whole, headers = self.response(self.status(kind, seen), kind)
        with suppress(OSError):  # it has left
            session.client.send(headers if is_head(head, session.size) else whole, MSG_DONTWAIT)
        return kind not in (HEAD_TIMEOUT, BODY_TIMEOUT) and (session.client_ready or not is_whole(session))

    def status(self, kind: str, seen: bool) -> int:
        status = self.by_kind.get(kind, 503)
        if seen:
            return 502 if status in UNSEEN else status
        return 503 if status == 504 else status

    def response(self, status: int, kind: str) -> tuple[bytes, bytes]:
        """The whole response, and its head alone."""
        made = self.made.get((status, kind))
        if made is None:
            made = self.made[status, kind] = self._make(status, WORDS.get(kind, kind))
        return made

    def _make(self, status: int, reason: str) -> tuple[bytes, bytes]:
        title = f"{status} {HTTPStatus(status).phrase}"
        built_in = f"<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<p>{reason}</p>\n"
        body = self.pages.get(str(status), built_in).encode("utf-8", "surrogateescape")
        lines = [
            f"HTTP/1.1 {title}",
            "Content-Type: text/html; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            "Cache-Control: no-store",
            f"X-Gfrouter-Reason: {reason}",
            *([f"Retry-After: {RETRY_AFTER}"] if status == 503 else []),
        ]
        head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")
        return head + body, head


def is_head(head: bytes, size: int) -> bool:
    """Whether a response to this request has no body; `size` is that of header and vars, 0 where they are not whole."""
    if not size or head.startswith(b"HEAD /"):
        return head.startswith(b"HEAD ")
    try:
        return any(pair == (b"REQUEST_METHOD", b"HEAD") for pair in iter_vars(head, size))
    except PacketError:
        return False


def is_whole(session: Session) -> bool:
    """Whether the head and all of the body that it announces have come."""
    return bool(session.size) and body_missing(session) == 0


def body_missing(session: Session) -> int:
    """Bytes of the announced body that are still to come; below 0 where more came, or nobody can tell."""
    if session.source is not session.client:
        return session.source.missing  # type: ignore[union-attr]
    return body_unsent(session)


def body_unsent(session: Session) -> int:
    """The same, with those of a buffered body that its node has not been sent yet."""
    if session.uploaded:
        return session.missing
    return content_length(session.head, session.size) - (len(session.head) - session.size)


def own_pages(where: str) -> dict[str, str]:
    """The user's pages by status, where the option `error-pages` names a folder. ValueError if it cannot be read."""
    if where in ("", ON, OFF):
        return {}
    folder = Path(where)
    pages = {}
    try:
        names = {entry.name for entry in folder.iterdir()}
        for status in STATUSES:
            if (name := f"{status}.html") in names:
                pages[str(status)] = (folder / name).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ValueError(f"error-pages: {error.filename}: {error.strerror}") from None
    for name, page in pages.items():
        if (size := len(page.encode("utf-8", "surrogateescape"))) > MAX_PAGE:
            raise ValueError(f"error-pages: {folder / name}.html: {size} bytes, more than {MAX_PAGE}")
    return pages
