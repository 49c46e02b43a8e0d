"""All time limits of sessions: one look a second at each of them, so that none costs a request anything.

Limits are exceeded by less than a second, never undercut: time is counted in the engine's `tick`s, which stand still
while the process is stopped. Two of them count from the session's beginning, whatever moves, so that nobody outlives
them by a byte now and then: that of the head, and that of the whole session. The others count from the last sign of
life: a connect, the node's first byte after all that its client sent, and any movement.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.errors import BODY_TIMEOUT, HEAD_TIMEOUT, body_missing
from router.queueing import QUEUE_TIMEOUT
from router.session import BODY, CONNECT, DETOUR, HEAD, QUEUED, RELAY, WAIT, Session
from router.uwsgi import printable

if TYPE_CHECKING:
    from router.engine import Engine
    from router.options import Options


@dataclass(slots=True)
class Limits:
    """All of them, in whole seconds. `head` may be changed at any time; `session`: 0 for none."""

    head: int
    connect: int
    first_byte: int
    idle: int
    session: int
    queue: int

    @classmethod
    def of(cls, options: Options) -> Limits:
        idle, session = options.timeout, options.session_timeout
        head = min(options.head_timeout, idle, session or idle)
        first_byte = options.first_byte_timeout or idle
        return cls(head, options.connect_timeout, first_byte, idle, session, options.queue_timeout)


def sweep(engine: Engine) -> None:
    """Once a second: end what has taken too long."""
    engine.tick += 1
    engine.complaints.next_second()
    engine.detours.budget.next_second(engine.requests)
    for fd, session in enumerate(engine.sessions):
        if session is None or fd != session.client_fd:
            continue
        try:
            judge(engine, session, engine.tick - session.tick)
        except Exception:
            engine.fault(session)


def judge(engine: Engine, session: Session, age: int) -> None:
    """End the session if `age` seconds without a sign of life are too many in its state, or all its time is over."""
    if session.state == HEAD:
        if age > engine.limits.head:
            have = len(session.partial or b"")
            engine.refuse(session, HEAD_TIMEOUT, f"head not complete after {age - 1} s, {have} bytes came")
    elif session.state not in (BODY, CONNECT, RELAY, WAIT, QUEUED):
        return  # a detour is short, or ends by itself
    elif 0 < engine.limits.session < engine.tick - session.began:
        text = f"not done after {engine.limits.session} s, at node {node_of(session)}"
        engine.refuse(session, "session timeout", text)
    elif session.state == BODY:
        if age > engine.limits.idle:
            engine.refuse(session, BODY_TIMEOUT, f"no more of its body came for {age - 1} s")
    elif session.state == CONNECT:
        if age > engine.limits.connect:
            engine.unconnected(session, errno.ETIMEDOUT)
    elif session.state == QUEUED:
        if age > engine.limits.queue:
            engine.refuse(session, QUEUE_TIMEOUT, f"no node had room for it within {age - 1} s")
    elif age > min(engine.limits.idle, engine.limits.first_byte) and is_too_long(engine, session, age):
        engine.refuse(session, "timeout", f"nothing moved for {age - 1} s, at node {node_of(session)}")


def end_all(engine: Engine, seconds: int) -> None:
    """The process ends, `seconds` after it was told to: who is still here gets an error's page, or a reset if an answer
    has begun, as the kernel would end it by a FIN.
    """
    for fd, session in enumerate(engine.sessions):
        if session is not None and fd == session.client_fd and session.state != DETOUR:
            text = f"not done {seconds} s after the router was told to stop, at node {node_of(session)}"
            engine.refuse(session, "drain timeout", text)


def is_too_long(engine: Engine, session: Session, age: int) -> bool:
    """Whether `age` is, by the limit of whoever it is that the session waits for; a node is told of."""
    if not waits_for_first_byte(session):
        return age > engine.limits.idle
    if age <= engine.limits.first_byte:
        return False
    engine.health.unanswered(session, session.member)  # type: ignore[arg-type]
    return True


def waits_for_first_byte(session: Session) -> bool:
    """Whether it is the node's turn: the client has sent all, or more than the node takes."""
    if session.state != RELAY or session.answered:
        return False
    return bool(session.up) or session.client_ready or body_missing(session) <= 0


def node_of(session: Session) -> str:
    return printable(session.member.endpoint.address) if session.member else "(none yet)"
