"""The one relay: bytes between a client and its node, both ways at once. Part of the hot path (engine.py).

Each direction holds one chunk at most: it is read only when the one before has been taken, so a slow peer slows the
other one down and costs no memory. Sockets are edge-triggered, so a direction goes on until its source is drained (a
read that returns less than asked), its sink takes no more (then the sink is armed for writing, once and for all), or
its turn is over: `TURN_BYTES`, then the engine's other sessions come first.
"""

from __future__ import annotations

from select import EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from socket import AF_UNIX, MSG_DONTWAIT, MSG_MORE, SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING

from router.errors import RESET
from router.session import BODY, CLOSED, RELAY, Session
from router.uwsgi import content_length

if TYPE_CHECKING:
    from _socket import socket

    from router.engine import Engine
    from router.pool import Member

CHUNK = 65_536  # bytes a read; larger ones bring nothing
TURN_BYTES = 4 * CHUNK  # that one direction of one session moves before the others have their turn
RESUMES = 16  # sessions a wake-up that move their next `TURN_BYTES`, so that the others are not forgotten
LENGTH_VAR = b"\x0e\x00CONTENT_LENGTH"

READ = EPOLLIN | EPOLLRDHUP | EPOLLET
READ_WRITE = READ | EPOLLOUT
LAST = MSG_DONTWAIT | MSG_MORE


def relay_down(engine: Engine, session: Session) -> None:
    """Node to client, until the node has no more, the client takes no more, or the others have waited enough."""
    if session.state != RELAY:
        return
    client = session.client
    recv = session.node.recv  # type: ignore[union-attr]
    member: Member = session.member  # type: ignore[assignment]
    budget = TURN_BYTES
    data = session.down
    while True:
        if not data:
            try:
                data = recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                # After a body this may be the good end of a node that did not read all of it.
                if session.answered and not session.uploaded:
                    return break_off(engine, session)
                data = b""
            if not data:
                return engine.node_ended(session)
            if not session.answered:
                first_byte(session)
                if session.probing or member.endpoint.broken:
                    engine.health.answered(session, member)
            member.tx += len(data)
            drained = len(data) < CHUNK
        else:
            drained = False  # left over from before; whether the node has more, only another read can tell
        # On a unix socket EPOLLRDHUP may be ahead of bytes still to be read; there the EOF is read. A reset is, too.
        ended = session.ended
        last = drained and ended and not ended & EPOLLERR and member.endpoint.family != AF_UNIX
        try:
            sent = client.send(data, LAST if last else MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return engine.close(session)
        if sent < len(data):
            session.down = data[sent:]
            if not session.client_armed:
                session.client_armed = True
                engine.epoll.modify(session.client_fd, READ_WRITE)
            return
        session.down = b""
        if last:
            return engine.finish(session)
        if drained and not ended:
            return
        budget -= sent
        if budget <= 0:
            return cut(engine, session)
        data = b""


def relay_up(engine: Engine, session: Session) -> None:
    """Client to node, likewise. A node that takes no more is still listened to: it may have answered early."""
    if session.state != RELAY:
        return
    peer: socket = session.node  # type: ignore[assignment]
    budget = TURN_BYTES
    while True:
        if session.up:
            try:
                sent = peer.send(session.up)
            except BlockingIOError:
                sent = 0
            except OSError:
                session.deaf, session.up = True, b""
                return
            session.member.rx += sent  # type: ignore[union-attr]
            session.up = session.up[sent:]
            if session.up:
                if not session.node_armed:
                    session.node_armed = True
                    engine.epoll.modify(session.node_fd, READ_WRITE)
                return
            budget -= sent
        if not session.client_ready or session.deaf:
            return
        if budget <= 0:
            return cut(engine, session)
        try:
            session.up = session.source.recv(CHUNK, MSG_DONTWAIT)
        except BlockingIOError:
            session.client_ready = False
            return
        except OSError:
            return engine.close(session)
        if not session.up:
            return engine.close(session)
        count_body(session, len(session.up))
        session.client_ready = len(session.up) == CHUNK


def cut(engine: Engine, session: Session) -> None:
    """The session has had its share; it goes on when the others have had theirs."""
    if not session.resumes:
        session.resumes = True
        if not engine.resumable:
            engine.wake()
        engine.resumable.append(session)


def resume(engine: Engine) -> None:
    """Go on with the sessions whose turn was cut."""
    waiting, engine.resumable = engine.resumable[:RESUMES], engine.resumable[RESUMES:]
    if engine.resumable:
        engine.wake()
    for session in waiting:
        session.resumes = False
        session.tick = engine.tick
        try:
            relay_down(engine, session)
            relay_up(engine, session)
            if session.state == BODY:
                engine.bodies.read(session)  # type: ignore[union-attr]
        except Exception:
            engine.fault(session)


def break_off(engine: Engine, session: Session) -> None:
    """End what is not whole by a reset, lest the client take it for whole: a FIN may be an answer's good end."""
    if session.state != CLOSED:
        session.client.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
        engine.close(session)


def first_byte(session: Session) -> None:
    """The node answers: the request will not be repeated, so its head is needed no more, but for the body's length."""
    session.answered = True
    if not session.uploaded:
        at = session.head.find(LENGTH_VAR, 0, session.size)
        # nginx sends an empty one with each GET: not worth a walk over all vars.
        if at >= 0 and session.head[at + 16 : at + 18] != b"\x00\x00":
            session.missing = content_length(session.head, session.size)
    session.head = b""


def count_body(session: Session, size: int) -> None:
    """Keep count of the body, of which `size` bytes have come: where some are missing at the end, `finish` waits."""
    if not session.uploaded:
        session.uploaded = True
        if session.head:
            session.missing = content_length(session.head, session.size)
    session.missing -= size
