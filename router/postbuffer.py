"""Bodies that are whole before their request goes to a node: read here, in memory or in a file, then sent by the relay.

The engine hands a session over, in state BODY, whose head is whole and whose body is not; it comes back by
`engine.route` and goes the straight way, to a node that is chosen only then. What has come is a `Body`, which stands in
the client's place as the session's `source`: the relay reads it as it would the client, and behind the last byte the
client itself, as more may come than was announced. A request that goes to a second node begins again at the first byte.

Reading has no greenlet: it goes on when the client has sent more, `TURN_BYTES` a turn. Memory and file are given back
by `close`, which the engine calls in the place of the client's own. A file has no name (O_TMPFILE), so none is left
behind, and its writes wait for the disk as all writes do where the page cache is full.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from socket import MSG_DONTWAIT
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from router.errors import NO_ROOM, NOT_STORED, TOO_LARGE
from router.relay import CHUNK, TURN_BYTES, cut
from router.session import BODY, Session
from router.uwsgi import content_length

if TYPE_CHECKING:
    from _socket import socket

    from router.engine import Engine
    from router.options import Options


class Body:
    """What follows a head, up to the announced length. It has as much of a socket as the relay uses."""

    def __init__(self, room: BodyRoom, client: socket, missing: int, file: IO[bytes]) -> None:
        self.room = room
        self.client = client
        self.missing = missing  # bytes that are still to come
        self.file = file
        self.size = 0  # bytes that are kept

    def write(self, data: bytes) -> None:
        """Keep these too. OSError where there is no room for them."""
        self.missing -= len(data)
        self.size += len(data)
        self.room.held += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self.file.write(rest) :]

    def rewind(self) -> None:
        """The next `recv` begins with the first byte."""
        self.file.seek(0)

    def recv(self, size: int, flags: int) -> bytes:
        """The next bytes of it, then those that the client has sent behind it. As a socket, it gives less than `size`
        only where there is no more now.
        """
        data = self.file.read(size)
        if not data:
            return self.client.recv(size, flags)
        if len(data) < size:
            with suppress(BlockingIOError):
                data += self.client.recv(size - len(data), flags)
        return data

    def drop(self) -> None:
        """Give memory or file back."""
        self.file.close()
        self.room.held -= self.size
        self.size = 0

    def close(self) -> None:
        """The session ends."""
        self.client.close()
        self.drop()


class BodyRoom:
    """Reads the bodies of one router process. `memory`: bytes of one that is kept in memory, where it is not longer;
    `folder`: where files are; `limit`: bytes of all bodies that are here at a time, 0 for any number.
    """

    def __init__(self, engine: Engine, *, memory: int, folder: str, limit: int) -> None:
        self.engine = engine
        self.memory = memory
        self.folder = folder or os.environ.get("TMPDIR") or "/tmp"
        self.limit = limit
        self.held = 0  # bytes

    @classmethod
    def of(cls, options: Options) -> Callable[[Engine], BodyRoom] | None:
        """What makes the room of an engine; None where bodies are passed on as they come."""
        if not options.post_buffering:
            return None
        return lambda engine: cls(
            engine,
            memory=options.post_buffering,
            folder=options.post_buffering_dir,
            limit=options.post_buffering_limit,
        )

    def takes(self, session: Session, key: bytes) -> bool:
        """Whether the session's body is to be read first; then that has begun, and may be done already."""
        if session.source is not session.client:
            return False
        length = content_length(session.head, session.size)
        missing = length - (len(session.head) - session.size)
        if missing <= 0 or self.engine.detours.is_in_vain(session, str(key, "utf-8", "surrogateescape")):
            return False
        if self.limit and length > self.limit:
            self.engine.refuse(session, TOO_LARGE, f"a body of {length} bytes, and {self.limit} may be here at a time")
            return True
        try:
            file = BytesIO() if length <= self.memory else TemporaryFile(buffering=0, dir=self.folder)  # noqa: SIM115
        except OSError as error:
            self._not_stored(session, error)
            return True
        session.source = Body(self, session.client, missing, file)
        session.state = BODY
        session.tick = self.engine.tick
        if session.client_ready:
            self.read(session)
        return True

    def read(self, session: Session) -> None:
        """Take what the client has sent; when that is all, the session goes on."""
        body: Body = session.source  # type: ignore[assignment]
        session.tick = self.engine.tick
        budget = TURN_BYTES
        while body.missing:
            if budget <= 0:
                return cut(self.engine, session)
            try:
                data = session.client.recv(min(CHUNK, body.missing), MSG_DONTWAIT)
            except BlockingIOError:
                session.client_ready = False
                return
            except OSError:
                data = b""
            if not data:
                return self.engine.close(session)
            if self.limit and self.held + len(data) > self.limit:
                body.drop()
                text = f"{self.limit} bytes of bodies are here, and no room for more"
                return self.engine.refuse(session, NO_ROOM, text)
            try:
                body.write(data)
            except OSError as error:
                body.drop()
                return self._not_stored(session, error)
            budget -= len(data)
        body.rewind()
        session.client_ready = True  # there is something to relay: the body
        self.engine.route(session, session.head, session.size)

    def _not_stored(self, session: Session, error: OSError) -> None:
        self.engine.refuse(
            session, NOT_STORED, f"its body cannot be kept in {self.folder}: {os.strerror(error.errno or 0)}"
        )
