"""Where requests for unknown keys wait: while the router is warming, or while their key is looked up (lookups.py).

After a restart nobody is known until the sources say so, and workers announce themselves each 10 s only. So until the
sources have spoken, a key that nobody serves may be one that nobody has named yet; and it may always be one that a
source on demand finds when it is asked. Its session stays here, without greenlet or timer, what its client sends
meanwhile stays in the kernel, and a session that is called goes the engine's straight way again.

A session waits for its own key and for each that may stand for it (keyrules.py); of these, sources are asked for one.

Invariants: a session is in `waits` while it waits and no longer (the engine calls `forget` wherever it ends one). All
that are called, because their key is known now or because neither warming nor a lookup is a reason to wait any more, go
on by `SERVES` a wake-up; one that has waited for a lookup in vain is refused, and not looked up again. The owner has
`close` called when warming is over, and `expire` some times a second, so nobody waits longer than that.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from router.keyrules import NO_RULES, KeyRules
from router.lookups import TIMEOUT, UNKNOWN, Lookups
from router.session import Session

if TYPE_CHECKING:
    from router.engine import Engine

log = logging.getLogger("gfrouter")

WAITING = 1_000  # sessions, and half of the engine's at most; each holds its head, 1 KiB usually, 128 at most
SERVES = 16  # sessions a wake-up, so that the others are not forgotten; about 1 ms


@dataclass(frozen=True, slots=True)
class Wait:
    """`asked` is the key that is looked up, `keys` all that are of use, the session's own first."""

    asked: str
    keys: tuple[str, ...]


class WaitingRoom:
    """Open while the router is warming; closed, it takes those whose key is looked up.

    The owner has `serve` called soon after `wake` was called.
    """

    def __init__(
        self, engine: Engine, lookups: Lookups, *, wake: Callable[[], None], rules: KeyRules = NO_RULES
    ) -> None:
        self.engine = engine
        self.lookups = lookups
        self.wake = wake
        self.rules = rules
        self.most = min(WAITING, engine.most // 2)  # the other half is for keys that are known
        self.is_open = False
        self.opened_at = 0.0
        self.waits: dict[Session, Wait] = {}  # who waits, and for what
        self.waiting: dict[str, dict[Session, None]] = {}  # by each of the keys, those of them who are not called yet
        self.called: deque[tuple[Session, str]] = deque()  # the others, in turn, and why if they find nobody
        self.vain = ""  # why the session that is being served does not wait once more
        self.waited = 0  # sessions in all while warming
        self.found = 0  # of which so many went on to a node
        self.is_ending = False  # warming is over, and those that waited for it are not all served

    def refusal(self, key: str) -> str:
        """Why nobody may wait for this key, as it is counted; empty where one may."""
        refusal = self.vain or ("" if self.is_open else self.lookups.refusal(self.rules.asked(key)))
        return refusal or ("waiting room full" if len(self.waits) >= self.most else "")

    def open(self) -> None:
        """From now on requests for all unknown keys may wait."""
        self.is_open = True
        self.opened_at = monotonic()

    def close(self) -> None:
        """Warming is over: all are called whose key is not looked up, and refused if it is still unknown."""
        if self.is_open:
            self.is_open = False
            self.is_ending = True
            self._call([one for one, wait in self.waits.items() if wait.asked not in self.lookups.open], UNKNOWN)
            self.wake()

    def stop(self) -> None:
        """Nothing will be known any more: all are called, and refused."""
        self.close()
        self.lookups.stop()
        self._call(list(self.waits), UNKNOWN)

    def enter(self, session: Session, key: str) -> None:
        """The session, which the engine has put into WAIT, waits for `key`."""
        self.waited += self.is_open
        wait = self.waits[session] = Wait(self.rules.asked(key), (key, *self.rules.others(key)))
        self._enlist(session, wait)
        self.lookups.ask(wait.asked)

    def call(self, key: str) -> None:
        """`key` is known."""
        self.lookups.find(key)
        self._call(list(self.waiting.get(key, ())), UNKNOWN)

    def deny(self, keys: Iterable[str]) -> None:
        """The supervisor says that nobody serves these keys, as far as the sources on demand can tell."""
        for key in self.lookups.deny(keys):
            self._call(self._asking(key), UNKNOWN)

    def expire(self) -> None:
        """Give up the lookups that take too long."""
        for key in self.lookups.expire():
            self._call(self._asking(key), TIMEOUT)

    def _asking(self, key: str) -> list[Session]:
        """Who waits for the answer to this question. Others may wait for the same key, and for another answer."""
        return [session for session in self.waiting.get(key, ()) if self.waits[session].asked == key]

    def _call(self, sessions: Sequence[Session], why: str) -> None:
        for session in sessions:
            wait = self.waits[session]
            if session in self.waiting.get(wait.keys[0], ()):  # who is called already is not called twice
                self._strike(session, wait)
                self.called.append((session, why))
        if sessions:
            self.wake()

    def _enlist(self, session: Session, wait: Wait) -> None:
        for key in wait.keys:
            self.waiting.setdefault(key, {})[session] = None

    def _strike(self, session: Session, wait: Wait) -> None:
        for key in wait.keys:
            sessions = self.waiting.get(key, {})
            sessions.pop(session, None)
            if not sessions:
                self.waiting.pop(key, None)

    def forget(self, session: Session) -> None:
        """The session goes on, or ends. One that does not wait is ignored."""
        wait = self.waits.pop(session, None)
        if wait is not None:  # one that has been called is passed over in `serve` if it ends before its turn
            self._strike(session, wait)

    def serve(self) -> None:
        """Send the next few that are called on their way."""
        for _ in range(min(SERVES, len(self.called))):
            session, why = self.called.popleft()
            if session in self.waits:
                self._serve(session, why)
        if self.called:
            self.wake()
        elif self.is_ending:
            self.is_ending = False
            self._say_how_it_went()

    def _serve(self, session: Session, why: str) -> None:
        wait = self.waits[session]
        if self.is_open and self.engine.pools.keys().isdisjoint(wait.keys):
            # Known for a moment only, or found by no lookup: another source may still name it.
            return self._enlist(session, wait)
        self.forget(session)
        self.vain = why
        try:
            self.engine.route(session, session.head, session.size)
        except Exception:
            self.engine.fault(session)
        self.vain = ""
        if self.is_open or self.is_ending:
            self.found += session.tries > 0

    def _say_how_it_went(self) -> None:
        waited = f"{self.waited} requests waited, {self.found} found their node" if self.waited else "no request waited"
        seconds = monotonic() - self.opened_at
        log.info("[uWSGI fastrouter pid %d] warming ended after %.1f s: %s", os.getpid(), seconds, waited)
