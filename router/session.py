"""The crooked paths: a node that cannot be connected to, or that took a request and said nothing.

The engine hands a session over in state DETOUR. A greenlet decides what becomes of it and hands it back with
`engine.connect` or `engine.close`; it relays nothing. The client may leave at any moment, which the engine sees and
ends the session, so whoever has waited looks at the state first.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from router.endpoint import Endpoint
from router.engine import DETOUR, Engine, Session
from router.pool import Member
from router.uwsgi import is_repeatable

log = logging.getLogger("gfrouter")

# Our own trouble, not the node's: it is not marked.
LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
# The backlog of a unix socket is full: the node is alive and busy.
BUSY = errno.EAGAIN
BUSY_WAIT = 0.005  # seconds until nodes that were only busy are asked again


class Detours:
    """Decides what becomes of sessions that cannot go straight.

    A node that refuses is out of turn for `gracetime` seconds. `max_retries` is the number of connects after the first
    one. `retry`: `none` gives up at once, `connect` asks another node where no connection came about, `idempotent`
    does so as well for a GET, HEAD or OPTIONS without body whose node ended the connection and had said nothing.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        gracetime: int,
        max_retries: int,
        retry: str,
        quiet: bool,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Any] = gevent.sleep,
    ) -> None:
        self.engine = engine
        self.gracetime = gracetime
        self.max_retries = 0 if retry == "none" else max_retries
        self.idempotent = retry == "idempotent"
        self.quiet = quiet
        self.clock = clock
        self.sleep = sleep

    # Called by the engine.

    def unconnected(self, session: Session, member: Member, error: int) -> None:
        """No connection to `member` came about; `error` is the errno."""
        gevent.spawn(self._connect_elsewhere, session, member, error)

    def unanswered(self, session: Session, member: Member, why: str) -> None:
        """`member` took the request and ended the connection before its first byte."""
        gevent.spawn(self._ask_elsewhere, session, member, why)

    # In greenlets.

    def _connect_elsewhere(self, session: Session, member: Member, error: int) -> None:
        self._blame(member, error, session.tries - 1)
        session.avoid = (*session.avoid, member.endpoint)
        if session.tries > self.max_retries:
            return self._give_up(session, "unreachable", f"no node of {member.pool.key!r} could be connected to")
        self._connect(session, member, wait=error == BUSY or error in LOCAL)

    def _ask_elsewhere(self, session: Session, member: Member, why: str) -> None:
        self.engine.complaints["unanswered"] += 1
        member.failures += 1
        repeatable = self.idempotent and not session.retried and not session.uploaded
        if not (repeatable and is_repeatable(session.head, session.size)):
            return self.engine.close(session)
        session.retried = True
        session.avoid = (*session.avoid, member.endpoint)
        self._connect(session, member, wait=False)

    def _connect(self, session: Session, member: Member, wait: bool) -> None:
        """The next node of the pool; where only ones that we must `wait` for are left, those again a little later."""
        key = member.pool.key
        chosen = self._pick(session, key)
        if chosen is None and wait and session.state == DETOUR:
            self.sleep(BUSY_WAIT)
            session.avoid = ()
            chosen = self._pick(session, key)
        if chosen is not None:
            self.engine.connect(session, chosen)
        else:
            self._give_up(session, "no node", f"no other node of {key!r} is left to ask")

    def _pick(self, session: Session, key: str) -> Member | None:
        pool = self.engine.pools.get(key)
        # One that is picked must be asked, or a trial would never end: nobody picks for a client that has left.
        return pool.pick(pool, session.avoid) if pool is not None and session.state == DETOUR else None

    def _blame(self, member: Member, error: int, retries: int) -> None:
        """Mark the endpoint, if it was its fault, and say so."""
        endpoint: Endpoint = member.endpoint
        member.failures += 1
        self.engine.complaints["unconnected"] += 1
        if not self.quiet:
            log.warning(
                '[uwsgi-fastrouter] unable to connect() to node "%s" (%d retries): %s',
                endpoint.address, retries, os.strerror(error),
            )  # fmt: skip
        if error != BUSY and error not in LOCAL:
            log.warning("[uwsgi-fastrouter] %s => marking %s as failed", member.pool.key, endpoint.address)
            self.engine.table.fail(endpoint, self.clock() + self.gracetime)

    def _give_up(self, session: Session, kind: str, text: str) -> None:
        if session.state == DETOUR:
            self.engine.refuse(session, kind, text)
