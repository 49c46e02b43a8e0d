"""All time limits of sessions: one look a second at each of them, so that none costs a request anything.

Limits are exceeded by less than a second, never undercut: time is counted in the engine's `tick`s, which stand still
while the process is stopped.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from router.session import CONNECT, HEAD, RELAY, WAIT, Session
from router.uwsgi import printable

if TYPE_CHECKING:
    from router.engine import Engine


def sweep(engine: Engine) -> None:
    """Once a second: end what has taken too long."""
    engine.tick += 1
    engine.complaints.next_second()
    for fd, session in enumerate(engine.sessions):
        if session is None or fd != session.client_fd:
            continue
        try:
            judge(engine, session, engine.tick - session.tick)
        except Exception:
            engine.fault(session)


def judge(engine: Engine, session: Session, age: int) -> None:
    """End the session if `age` seconds without a sign of life are too many in its state."""
    if session.state == CONNECT:
        if age > engine.connect_timeout:
            engine.unconnected(session, errno.ETIMEDOUT)
    elif session.state == HEAD:
        if age > engine.head_timeout:
            have = len(session.partial or b"")
            engine.refuse(session, "head timeout", f"head not complete after {age - 1} s, {have} bytes came")
    elif age > engine.timeout and session.state in (RELAY, WAIT):
        engine.health.timed_out(session)
        address = printable(session.member.endpoint.address) if session.member else "(none is known)"
        engine.refuse(session, "timeout", f"nothing moved for {engine.timeout} s, at node {address}")
