"""The hot path: accept, read the head, find the key, pick a node, connect, relay. No greenlet, no timer, no exception.

Rule 1: a session changes its state in this file only. Whatever is not straight is handed to `detours` (session.py),
which decides in greenlets and hands the session back by `connect` or `close`. Rule 2: `leave` is the only place where a
node is let go, so that the counts of requests in flight come back to zero.

    HEAD ──head whole──▶ CONNECT ──first send accepted──▶ RELAY ──node's EOF, all flushed──▶ CLOSED
    ├▶ WAIT (waiting.py)  │  ▲                             │  └──the client still sends──▶ DETOUR ──▶ CLOSED
    └▶ QUEUED (queueing.py)  └──────────────── DETOUR ◀────┘
        BODY (postbuffer.py) lies between HEAD and these. The client's EOF, at any moment, ends the session: ──▶ CLOSED

One epoll descriptor of our own holds all sockets, edge-triggered, and gevent's loop watches that one: a single hub
event for a whole batch (3 to 6 µs a request). Sockets are raw and never blocked on; a read that returns less than asked
has drained its socket, so nobody pays for an EAGAIN. With EPOLLRDHUP the read that would return b"" is not needed
either, and MSG_MORE joins the last bytes and the FIN in one packet (2 to 3 µs). Time is counted in `tick`s by a sweep
once a second (a timer a request costs 6.5 µs); a stopped process does not tick, so SIGSTOP ages nobody.
"""

from __future__ import annotations

import errno
import logging
import os
from _socket import socket  # the C type: what the stdlib's subclass adds costs a microsecond a socket
from collections.abc import Callable
from resource import RLIMIT_NOFILE, getrlimit
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from socket import MSG_DONTWAIT, SOCK_NONBLOCK, SOCK_STREAM
from time import time
from typing import Any

from router.deadlines import Limits
from router.endpoint import LIVE, TRYING, Cause
from router.errors import Errors
from router.health import Health
from router.keyrules import KeyRules
from router.logs import Complaints, peer_name
from router.pool import Member
from router.postbuffer import BodyRoom
from router.queueing import Queues
from router.relay import CHUNK, READ, READ_WRITE, break_off, count_body, relay_down, relay_up
from router.session import BODY, CLOSED, CONNECT, DETOUR, HEAD, NO_NODE, RELAY, WAIT, Detours, Session
from router.table import Table
from router.uwsgi import HEADER, PacketError, looks_like_http
from router.waiting import WaitingRoom

log = logging.getLogger("gfrouter")

ACCEPTS = 64  # connections a wake-up, so that those who wait for their answers are not forgotten
EVENTS = 256  # descriptors a batch, for the same reason
SPARE = 32  # descriptors for all that is not a session

SPEAKS_HTTP = "an HTTP request on a uwsgi socket (use uwsgi_pass, not proxy_pass)"
GONE = EPOLLRDHUP | EPOLLHUP | EPOLLERR
NODE_SOCKET = SOCK_STREAM | SOCK_NONBLOCK


class Engine:
    """All sessions of one router process. Not thread-safe, never blocks. `errors`: what is said in place of nothing.

    The owner has `turn` called when the descriptor `fileno()` is readable, `accept` when a listener is, `resume`
    (relay.py) soon after `wake` was called, and `sweep` (deadlines.py) once a second.
    """

    def __init__(
        self,
        table: Table,
        *,
        limits: Limits,
        errors: Errors | None,
        rules: KeyRules,
        wake: Callable[[], None],
        health: Health,
        detours: Callable[[Engine], Detours],
        room: Callable[[Engine], WaitingRoom],
        queues: Callable[[Engine], Queues],
        bodies: Callable[[Engine], BodyRoom] | None,
    ) -> None:
        self.table, self.pools = table, table.pools
        self.limits = limits
        self.errors = errors
        self.rules = rules
        self.find_key = rules.finder()
        self.wake = wake
        self.health = health
        self.detours = detours(self)
        self.active = 0  # sessions
        self.most = max(1, (getrlimit(RLIMIT_NOFILE)[0] - SPARE) // (3 if bodies else 2))  # each needs so many, or less
        self.room = room(self)
        self.queues = queues(self)
        self.queued = self.queues.waiting
        self.bodies = bodies and bodies(self)
        self.requests = self.left_tx = 0  # that reached a node; bytes that came from nodes which have left since
        self.complaints = Complaints()
        self.tick = 0
        self.now = time()
        self.batch = 1
        self.resumable: list[Session] = []
        self.sessions: list[Session | None] = [None] * 1024  # by descriptor, of either side
        self.epoll = epoll()
        self.fileno = self.epoll.fileno
        self.register = self.epoll.register

    # The straight path, top down.

    def accept(self, accept: Callable[[], tuple[int, Any]], family: int) -> bool:
        """Take in what waits at a listener of this family; `accept` is its `_accept`. True where more may wait.

        Raises OSError where the process is out of descriptors or memory.
        """
        self.now = time()
        for _ in range(ACCEPTS):
            if self.active >= self.most:  # what is accepted must find room for its node as well
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            try:
                fd, _address = accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EINTR, errno.EPROTO):
                    continue  # this client left while it waited
                raise
            session = Session(socket(family, SOCK_STREAM, 0, fd), fd, self.tick)
            self.active += 1
            self.own(fd, session)
            try:
                self.read_head(session, registered=False)
            except Exception:
                self.fault(session)
        return True

    def read_head(self, session: Session, registered: bool = True) -> None:
        """Read until header and vars are whole, then route. With TCP_DEFER_ACCEPT one read at once is all it takes."""
        try:
            data = session.client.recv(CHUNK, MSG_DONTWAIT)
        except BlockingIOError:
            if not registered:
                self.register(session.client_fd, READ)
            return
        except OSError:
            data = b""
        if not data:
            return self.close(session)
        if not registered:
            self.register(session.client_fd, READ)
        if session.partial is not None:
            session.partial += data
        head = data if session.partial is None else session.partial
        if len(head) >= HEADER:
            size = HEADER + head[1] + (head[2] << 8)
            if len(head) >= size:
                session.head = bytes(head)  # no copy on the straight path
                session.size = size
                session.partial = None
                session.client_ready = len(data) == CHUNK
                return self.route(session, session.head, size)
        if session.partial is None:
            session.partial = bytearray(data)
        if looks_like_http(head):
            return self.refuse(session, "HTTP", SPEAKS_HTTP)
        if len(data) == CHUNK:
            self.read_head(session)

    def route(self, session: Session, head: bytes, size: int) -> None:
        """Header and vars are whole: find the key, its pool, and a node."""
        try:
            key = self.find_key(head, size)
        except PacketError as error:
            if looks_like_http(head):
                return self.refuse(session, "HTTP", SPEAKS_HTTP)
            return self.refuse(session, "invalid packet", str(error))
        if not key:
            return self.refuse(session, "no key", "no UWSGI_FASTROUTER_KEY, HTTP_HOST or SERVER_NAME in the vars")
        if self.bodies is not None and self.bodies.takes(session, key):
            return
        pool = self.pools.get(str(key, "utf-8", "surrogateescape"))
        if pool is None:
            return self.unknown(session, key)
        pool.hits += 1
        if (member := pool.pick(pool, (), session)) is None:
            if self.queues.enter(session, pool):
                return
            return self.detours.nowhere(session, NO_NODE)
        self.connect(session, member)

    def connect(self, session: Session, member: Member) -> None:
        """Ask this node. What can be sent is sent at once: on the straight path it has been connected by then."""
        endpoint = member.endpoint
        node = member.node
        head = session.head
        session.member = member
        session.state = CONNECT
        session.tick = self.tick
        session.tries += 1
        session.probing = endpoint.state != LIVE
        if endpoint.state == TRYING and endpoint.trier is None:
            endpoint.trier = session
        member.in_flight += 1
        endpoint.in_flight += 1
        if head[0] != node.modifier1 or head[3] != node.modifier2:
            head = b"%c%b%c%b" % (node.modifier1, head[1:3], node.modifier2, head[4:])
        session.up = head
        try:
            session.node = peer = socket(endpoint.family, NODE_SOCKET)
        except OSError as error:
            return self.unconnected(session, error.errno or 0)
        error_number = peer.connect_ex(endpoint.sockaddr)
        if error_number and error_number != errno.EINPROGRESS:
            return self.unconnected(session, error_number)
        session.node_fd = fd = peer.fileno()
        self.own(fd, session)
        session.batch = self.batch
        if self.send_head(session):
            self.register(fd, READ_WRITE if session.node_armed else READ)
            if session.client_ready:
                relay_up(self, session)

    def send_head(self, session: Session) -> bool:
        """The first send, which also tells how the connect went. False where it failed."""
        up = session.up
        try:
            sent = session.node.send(up)  # type: ignore[union-attr]
        except BlockingIOError:  # still connecting: wait until it can be written to
            session.node_armed = True
            return True
        except OSError as error:
            self.unconnected(session, error.errno or 0)
            return False
        member: Member = session.member  # type: ignore[assignment]
        if member.note_due <= self.now:
            member.note(self.now)
        member.requests += 1
        member.rx += sent
        self.requests += 1
        if member.endpoint.state != LIVE:
            self.table.restore(member.endpoint, Cause.REFUSED)
        session.state = RELAY
        session.tick = self.tick
        if len(session.head) > session.size:
            count_body(session, len(session.head) - session.size)
        if sent == len(up):
            session.up = b""
        else:
            session.up = up[sent:]
            session.node_armed = True
        return True

    def turn(self) -> None:
        """One batch of events."""
        sessions = self.sessions
        self.batch = batch = self.batch + 1
        self.now = time()
        for fd, mask in self.epoll.poll(0, EVENTS):
            session = sessions[fd]
            if session is None or (fd == session.node_fd and session.batch == batch):
                continue  # the event of a socket that was closed in this batch, whose descriptor may have a new owner
            try:
                if fd == session.node_fd:
                    self.node_event(session, mask)
                else:
                    self.client_event(session, mask)
            except Exception:
                self.fault(session)

    def node_event(self, session: Session, mask: int) -> None:
        session.ended |= mask & GONE
        if session.state == RELAY:
            session.tick = self.tick
            if mask & EPOLLOUT and session.up:
                relay_up(self, session)
            if mask & ~EPOLLOUT:
                relay_down(self, session)
        elif session.state == CONNECT and self.send_head(session):
            if session.client_ready:
                relay_up(self, session)
            if mask & ~EPOLLOUT:
                relay_down(self, session)

    def client_event(self, session: Session, mask: int) -> None:
        if mask & GONE:
            self.close(session)
        elif session.state == HEAD:
            self.read_head(session)
        else:
            session.client_ready |= bool(mask & EPOLLIN)
            if session.state == RELAY:
                session.tick = self.tick
                if mask & EPOLLOUT and session.down:
                    relay_down(self, session)
                if session.client_ready:
                    relay_up(self, session)
            elif session.state == BODY:
                self.bodies.read(session)  # type: ignore[union-attr]

    # Ends.

    def unknown(self, session: Session, key: bytes) -> None:
        """Nobody serves this key. Another one may stand for it; where somebody may serve it soon, it waits for that."""
        name = str(key, "utf-8", "surrogateescape")
        if self.rules.has_others and self.detours.stands_in(session, name):
            return
        if refusal := self.room.refusal(name):
            return self.detours.nowhere(session, refusal)
        session.state = WAIT
        self.room.enter(session, name)

    def node_ended(self, session: Session) -> None:
        """The node's EOF or reset. Before its first byte it may be another node's turn."""
        if session.answered:
            self.finish(session)
        else:
            self.detours.unanswered(session, self.detour(session))

    def unconnected(self, session: Session, error: int) -> None:
        self.detours.unconnected(session, self.detour(session), error)

    def finish(self, session: Session) -> None:
        """All is answered. Closing on a client that still sends would reset it and might take the answer away."""
        if session.missing == 0 and not session.client_ready:
            return self.close(session)
        self.detour(session)
        self.detours.unfinished(session)

    def detour(self, session: Session) -> Member:
        """Let the node go, which is returned; the session is the detours' from here on."""
        member: Member = session.member  # type: ignore[assignment]
        self.leave(session)
        session.state = DETOUR
        return member

    def refuse(self, session: Session, kind: str, text: str = "") -> None:
        """End without an answer, but for an error's page; counted by `kind`, and logged where there is a text."""
        self.complaints.count(kind, text and f"client {peer_name(session.client)}: {text}")
        self.dismiss(session, kind)

    def dismiss(self, session: Session, kind: str) -> None:
        """Let the client know, as far as it can be known, that this is no answer: by a page, or by a reset."""
        if session.answered:
            return break_off(self, session)
        if self.errors is None or session.state == CLOSED:
            return self.close(session)
        seen = session.state == RELAY or session.retried
        self.leave(session)
        session.state = DETOUR
        session.answered = True
        if self.errors.send(session, kind, seen):
            self.detours.unfinished(session)
        else:
            self.close(session)

    def fault(self, session: Session) -> None:
        """A fault of ours ends one session. Let out, it would end the whole batch, and gevent would call us no more."""
        log.exception("[uwsgi-fastrouter] internal error")
        self.refuse(session, "internal error")

    def leave(self, session: Session) -> None:
        """Let the node go, or the place in the waiting room or a queue."""
        member = session.member
        if member is None:
            self.queues.forget(session)
            return self.room.forget(session)
        session.member = None
        member.in_flight -= 1
        member.endpoint.in_flight -= 1
        if member.endpoint.watchers:
            member.endpoint.tell_watchers()
        if self.queued:
            self.queues.free(member.endpoint)
        if session.probing and member.endpoint.trier is session:
            self.table.release_trial(member.endpoint)
        if session.node_fd >= 0:
            self.sessions[session.node_fd] = None
            session.node_fd = -1
        if session.node is not None:
            session.node.close()
            session.node = None
        session.up = b""
        session.ended = 0
        session.node_armed = session.deaf = False

    def close(self, session: Session) -> None:
        """End the session, in whatever state it is."""
        if session.state == CLOSED:
            return
        self.sessions[session.client_fd] = None
        session.source.close()  # first, as it flushes what MSG_MORE held back
        self.leave(session)
        session.state = CLOSED
        session.head = session.down = b""
        self.active -= 1

    # Beside the path.

    def own(self, fd: int, session: Session) -> None:
        try:
            self.sessions[fd] = session
        except IndexError:
            self.sessions.extend([None] * fd)
            self.sessions[fd] = session
