"""One request: its state, and the crooked paths where it cannot go straight.

The engine hands a session over in state DETOUR where a node cannot be connected to, took the request and said nothing,
or answered before it had the whole body. A greenlet decides what becomes of the session and hands it back with
`engine.connect` or `engine.close`; it relays nothing. The client may leave at any moment; the engine sees that and ends
the session, so whoever has waited looks at the state first. Where a key has no node, that is decided at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from socket import MSG_DONTWAIT, SHUT_WR
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent

from router.budget import Budget
from router.endpoint import Endpoint
from router.errors import body_unsent
from router.lookups import UNKNOWN
from router.static import FALLBACK, OWN, RESERVED, TO
from router.uwsgi import content_length, is_repeatable, printable

if TYPE_CHECKING:
    from _socket import socket

    from router.engine import Engine
    from router.keyrules import KeyRules
    from router.pool import Member, Pool
    from router.postbuffer import Body

HEAD, BODY, WAIT, QUEUED, CONNECT, RELAY, DETOUR, CLOSED = range(8)  # engine.py draws the ways between them

# Not the node's fault, which is not marked: the backlog of its unix socket is full, or the trouble is our own.
PASSING = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
BUSY_WAIT = 0.005  # seconds until nodes that were only busy are asked again

NO_NODE = "no node"  # why a request is refused whose key's nodes have all failed

LINGER = 10.0  # seconds in which a client must see that its answer is complete; nginx gives as much or more
LINGER_WAIT = 0.02  # seconds between two looks whether it has sent more
LINGER_CHUNK = 262_144  # bytes a look


class Session:
    """One request: a client's connection, and the node's while there is one."""

    __slots__ = (
        "answered", "avoid", "batch", "began", "busy", "client", "client_armed", "client_fd", "client_ready", "deaf",
        "down", "ended", "head", "member", "missing", "node", "node_armed", "node_fd", "partial", "probing", "resumes",
        "retried", "size", "source", "state", "tick", "tries", "up", "uploaded",
    )  # fmt: skip

    def __init__(self, client: socket, client_fd: int, tick: int) -> None:
        self.client = client
        self.source: socket | Body = client  # of the rest of the body: the client, or what was read of it before
        self.client_fd = client_fd
        self.state = HEAD
        self.began = tick
        self.tick = tick  # of the last sign of life; in HEAD and CONNECT, of the beginning
        self.partial: bytearray | None = None  # what has come of a head that is not whole
        self.head = b""  # all bytes up to the vars' end and beyond; kept until the node's first byte
        self.size = 0  # of header and vars: where the body begins in `head`
        self.member: Member | None = None
        self.node: socket | None = None
        self.node_fd = -1
        self.batch = 0  # in which the node's descriptor was registered
        self.up = b""  # bytes the node has not taken yet
        self.down = b""  # bytes the client has not taken yet
        self.client_ready = False  # the client may have more to read
        self.client_armed = False  # registered for writing as well
        self.node_armed = False
        self.ended = 0  # the node has sent all it will: the bits of epoll that say so
        self.deaf = False  # the node reads no more
        self.uploaded = False  # the client has sent some of a body
        self.missing = 0  # bytes of the announced body that are still to come; below 0, more came than announced
        self.answered = False  # the node's first byte has come
        self.tries = 0  # connects so far
        self.probing = False  # its node was not live when it was asked: its answer shows how that is
        self.retried = False  # it went to a second node after a first one took it and said nothing
        self.avoid: tuple[Endpoint, ...] = ()  # endpoints that were asked in vain
        self.busy: tuple[Endpoint, ...] = ()  # those of them that may have room a moment later
        self.resumes = False  # stands in the engine's list of those whose turn was cut


class Detours:
    """Decides what becomes of sessions that cannot go straight.

    `max_retries` is the number of connects after the first one. `retry`: `none` gives up at once, `connect` asks
    another node where no connection came about, `idempotent` does so as well for a GET, HEAD or OPTIONS without body
    whose node ended the connection and had said nothing, `all-unsent` for all other requests too of whose body no more
    was sent than can be sent again; those that a node took within `budget`, as a failed connect is work for nobody.

    Where the pool has nobody left to ask, the other keys of the request (keyrules.py) and `fallback_key` take their
    turn; then, and for the last of the retries, the worker of our own and the fallback nodes; the worker also where a
    key has no node at all, and with `fallback_on_no_key` these as well.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_retries: int,
        retry: str,
        budget: Budget,
        quiet: bool,
        fallback_on_no_key: bool = False,
        fallback_key: str = "",
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Any] = gevent.sleep,
    ) -> None:
        self.engine = engine
        self.max_retries = 0 if retry == "none" else max_retries
        self.idempotent = retry == "idempotent"
        self.all_unsent = retry == "all-unsent"
        self.budget = budget
        self.quiet = quiet
        self.fallback_on_no_key = fallback_on_no_key
        self.fallback_key = fallback_key
        self.clock = clock
        self.sleep = sleep

    # Called by the engine.

    def nowhere(self, session: Session, refusal: str) -> None:
        """The session's key has no node, for the reason `refusal`: ask one that the options name for that."""
        if not any(self._goes_to(session, key) for key in self._stand_ins(session, refusal)):
            there = refusal == UNKNOWN and (TO in self.engine.pools or OWN in self.engine.pools)
            self.engine.refuse(session, NO_NODE if there else refusal)

    def stands_in(self, session: Session, key: str) -> bool:
        """Whether another key stands for the session's own `key`, which nobody knows: it serves it, or could if not all
        its nodes had failed.
        """
        known = False
        for other in self.engine.rules.others(key):
            if self._goes_to(session, other):
                return True
            known = known or other in self.engine.pools
        if known:
            self.nowhere(session, NO_NODE)
        return known

    def is_in_vain(self, session: Session, key: str) -> bool:
        """Whether the session, of this key, would be refused by now."""
        keys = (key, *self.engine.rules.others(key), *self._stand_ins(session, UNKNOWN))
        return self.engine.pools.keys().isdisjoint(keys) and bool(self.engine.room.refusal(key))

    def left_behind(self, session: Session, key: str) -> None:
        """It has waited for room at a node of `key`, and none of them can be asked any more."""
        if session.tries == 0:
            return self.engine.route(session, session.head, session.size)
        session.state = DETOUR
        self._begin(self._connect, session, key)

    def unconnected(self, session: Session, member: Member, error: int) -> None:
        """No connection to `member` came about; `error` is the errno."""
        self._begin(self._connect_elsewhere, session, member, error)

    def unanswered(self, session: Session, member: Member) -> None:
        """`member` took the request and ended the connection before its first byte. Where it has not had all of the
        body that may be its client's fault: too big, or not sent in time.
        """
        if body_unsent(session) <= 0:
            self.engine.health.unanswered(session, member)
        self._begin(self._ask_elsewhere, session, member)

    def unfinished(self, session: Session) -> None:
        """The answer is complete, and the client has more of its body to send."""
        self._begin(self._let_finish, session)

    # In greenlets.

    def _begin(self, way: Callable[..., object], session: Session, *rest: Any) -> None:
        gevent.spawn(self._go, way, session, *rest)

    def _go(self, way: Callable[..., object], session: Session, *rest: Any) -> None:
        try:
            way(session, *rest)
        except Exception:  # let out, it would end the greenlet, and nobody would ever end the session
            self.engine.fault(session)

    def _connect_elsewhere(self, session: Session, member: Member, error: int) -> None:
        self._blame(session, member, error)
        session.avoid = (*session.avoid, member.endpoint)
        if error in PASSING:
            session.busy = (*session.busy, member.endpoint)
        if session.tries > self.max_retries:
            text = f"no node of {self._asked_key(session, member.pool.key)!r} could be connected to"
            return self._give_up(session, "unreachable", text)
        self._connect(session, member.pool.key)

    def _ask_elsewhere(self, session: Session, member: Member) -> None:
        self.engine.complaints.count("unanswered")
        member.failures += 1
        spent = session.retried or session.tries > self.max_retries
        if session.state != DETOUR or spent or not self._is_repeatable(session):
            return self.engine.dismiss(session, "unanswered")
        if not self.budget.is_open(self.engine.requests):
            return self.engine.refuse(session, "retry budget", "too many requests of late went to a second node")
        session.retried = True
        session.uploaded, session.missing = False, 0  # the body is counted anew, as it is sent anew
        if session.source is not session.client:
            session.source.rewind()  # type: ignore[union-attr]
            session.client_ready = True
        session.avoid = (*session.avoid, member.endpoint)
        if self._connect(session, member.pool.key):  # in which others may have spent some of it
            self.budget.spent += 1

    def _is_repeatable(self, session: Session) -> bool:
        head, size = session.head, session.size
        if not self.all_unsent:
            return self.idempotent and not session.uploaded and is_repeatable(head, size)
        if not session.uploaded or content_length(head, size) - session.missing == len(head) - size:
            return True
        return session.source is not session.client and session.missing >= 0  # below, more came than was read before

    def _let_finish(self, session: Session) -> None:
        """Take what the client still sends: closing on unread bytes would reset it, and might take the answer away."""
        with suppress(OSError):
            session.client.shutdown(SHUT_WR)
        deadline = self.clock() + LINGER
        while session.state == DETOUR and self.clock() < deadline:
            try:
                if not session.client.recv(LINGER_CHUNK, MSG_DONTWAIT):
                    break
            except BlockingIOError:
                self.sleep(LINGER_WAIT)
            except OSError:
                break
            else:
                self.sleep(0)
        self.engine.close(session)

    def _connect(self, session: Session, key: str) -> bool:
        """The next node of the key's pool; where only ones that were busy are left, those again a little later. False
        where none is left.
        """
        if self._goes_on(session, key):
            return True
        if session.busy and session.state == DETOUR:
            self.sleep(BUSY_WAIT)
            session.avoid = tuple(endpoint for endpoint in session.avoid if endpoint not in session.busy)
            session.busy = ()
            if self._goes_on(session, key):
                return True
        self._give_up(session, NO_NODE, f"no other node of {self._asked_key(session, key)!r} is left to ask")
        return False

    def _goes_on(self, session: Session, key: str) -> bool:
        # One that is picked must be asked, or a trial would never end: nobody picks for a client that has left.
        if session.state != DETOUR:
            return False
        last = session.tries == self.max_retries  # a large pool that dies as a whole must leave one try to a fallback
        own = (OWN, FALLBACK)
        keys = (*own, key) if last else (key, *self._other_keys(session), self.fallback_key, *own)
        return any(self._goes_to(session, each) for each in keys)

    def _goes_to(self, session: Session, key: str) -> bool:
        """Ask the next node of the key's pool that the session has not asked yet, or wait until one has room. False
        where there is none.
        """
        pool = self.engine.pools.get(key)
        if pool is None:
            return False
        pool.hits += 1
        member = pool.pick(pool, session.avoid, session)
        if member is None:
            if self.engine.queues.enter(session, pool):
                return True
            if key == FALLBACK:
                member = self._failed(session, pool)
        if member is None:
            return False
        self.engine.connect(session, member)
        return True

    def _failed(self, session: Session, pool: Pool) -> Member | None:
        """A fallback node that has failed. It is asked again where no other is left: it is the last resort, and one
        that is back serves at once.
        """
        for member in pool.members.values():
            endpoint = member.endpoint
            if endpoint not in session.avoid and not endpoint.drained and self.engine.queues.has_room(endpoint):
                return member
        return None

    def _asked_key(self, session: Session, key: str) -> str:
        return asked_key(session, key, self.engine.rules)

    def _other_keys(self, session: Session) -> Iterator[str]:
        rules = self.engine.rules
        return rules.others(own_key(session, rules)) if rules.has_others else iter(())

    def _stand_ins(self, session: Session, refusal: str) -> Iterator[str]:
        """Whose nodes serve a key without any; `to` is for keys that nobody knows, whatever became of known ones."""
        if refusal == NO_NODE:  # for a key that nobody knows, `stands_in` has asked them
            yield from self._other_keys(session)
        if refusal in (UNKNOWN, NO_NODE):
            yield self.fallback_key
        if refusal == UNKNOWN:
            yield TO
        yield OWN
        if self.fallback_on_no_key:
            yield FALLBACK

    def _blame(self, session: Session, member: Member, error: int) -> None:
        """Say so, and mark the endpoint if it was its fault and nobody has done so yet."""
        address = printable(member.endpoint.address)
        unable = f'unable to connect() to node "{address}" ({session.tries - 1} retries): {os.strerror(error)}'
        self.engine.complaints.count("unconnected", "" if self.quiet else unable)
        if error in PASSING:
            return
        member.failures += 1
        self.engine.health.refused(session, member)

    def _give_up(self, session: Session, kind: str, text: str) -> None:
        if session.state == DETOUR:
            self.engine.refuse(session, kind, text)


def asked_key(session: Session, key: str, rules: KeyRules) -> str:
    """The key that a request which went to a node of `key` is for."""
    if not session.head:  # the client has left
        return RESERVED.get(key, key)
    return own_key(session, rules)


def own_key(session: Session, rules: KeyRules) -> str:
    """The key of a session that has its head."""
    return str(rules.finder()(session.head, session.size), "utf-8", "surrogateescape")
