"""Where requests for unknown keys wait while the router is warming: from its start until its sources have spoken.

After a restart nobody is known until the sources say so, and workers announce themselves each 10 s only. So for a
while a key that nobody serves may be one that nobody has named yet. Its session stays here, without greenlet or timer,
what its client sends meanwhile stays in the kernel, and a session that is called goes the engine's straight way again.

Invariants: a session is in `keys` while it waits and no longer (the engine calls `forget` wherever it ends one). All
that are called, because their key is known now or because warming is over, go on by `SERVES` a wake-up. The owner has
`close` called when the time is over, so nobody waits longer than that.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from router.session import UNKNOWN_KEY, Session

if TYPE_CHECKING:
    from router.engine import Engine

log = logging.getLogger("gfrouter")

WAITING = 1_000  # sessions, and half of the engine's at most; each holds its head, 1 KiB usually, 128 at most
SERVES = 16  # sessions a wake-up, so that the others are not forgotten; about 1 ms


class WaitingRoom:
    """Closed at first, then open until it is closed. The owner has `serve` called soon after `wake` was called."""

    def __init__(self, engine: Engine, *, wake: Callable[[], None]) -> None:
        self.engine = engine
        self.wake = wake
        self.most = min(WAITING, engine.most // 2)  # the other half is for keys that are known
        self.is_open = False
        self.opened_at = 0.0
        self.keys: dict[Session, str] = {}  # who waits, and for which key
        self.waiting: dict[str, dict[Session, None]] = {}  # those of them whose key is not known yet
        self.called: deque[Session] = deque()  # the others, in turn
        self.waited = 0  # sessions in all
        self.found = 0  # of which so many went on to a node

    @property
    def refusal(self) -> str:
        """Why nobody may enter, as it is counted; empty where one may."""
        if not self.is_open:
            return UNKNOWN_KEY
        return "waiting room full" if len(self.keys) >= self.most else ""

    def open(self) -> None:
        """From now on requests for unknown keys may wait."""
        self.is_open = True
        self.opened_at = monotonic()

    def close(self) -> None:
        """No more waiting: all are called, and those whose key is still unknown are refused."""
        if self.is_open:
            self.is_open = False
            for key in list(self.waiting):
                self.call(key)
            self.wake()

    def enter(self, session: Session, key: str) -> None:
        """The session, which the engine has put into WAIT, waits for `key`."""
        self.waited += 1
        self.keys[session] = key
        self.waiting.setdefault(key, {})[session] = None

    def call(self, key: str) -> None:
        """`key` is known, or no longer waited for."""
        sessions = self.waiting.pop(key, None)
        if sessions:
            self.called.extend(sessions)
            self.wake()

    def forget(self, session: Session) -> None:
        """The session goes on, or ends. One that does not wait is ignored."""
        key = self.keys.pop(session, None)
        if key is None or session not in self.waiting.get(key, ()):
            return  # it has been called, and is passed over in `serve` if it ends before its turn
        del self.waiting[key][session]
        if not self.waiting[key]:
            del self.waiting[key]

    def serve(self) -> None:
        """Send the next few that are called on their way."""
        for _ in range(min(SERVES, len(self.called))):
            session = self.called.popleft()
            if session in self.keys:
                self._serve(session)
        if self.called:
            self.wake()
        elif not self.is_open:
            self._say_how_it_went()

    def _serve(self, session: Session) -> None:
        key = self.keys[session]
        if self.is_open and key not in self.engine.pools:  # it was known for a moment only
            self.waiting.setdefault(key, {})[session] = None
            return
        self.forget(session)
        try:
            self.engine.route(session, session.head, session.size)
        except Exception:
            self.engine.fault(session)
        self.found += session.tries > 0

    def _say_how_it_went(self) -> None:
        waited = f"{self.waited} requests waited, {self.found} found their node" if self.waited else "no request waited"
        seconds = monotonic() - self.opened_at
        log.info("[uWSGI fastrouter pid %d] warming ended after %.1f s: %s", os.getpid(), seconds, waited)
