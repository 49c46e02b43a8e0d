"""A router's questions: keys that its clients ask for and nobody serves, for which the supervisor is to look.

A key is one question, however many requests wait for it (waiting.py), and none while the answer to the last one is
fresh: the sources remember what there is not, so a second here is enough to keep a flood of requests for one unknown
key from the supervisor. A flood of many keys ends at MOST_OPEN, and what is no host name costs nobody anything. Time is
told by `clock`; a supervisor that is stuck prolongs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from router.key import is_host

MOST_OPEN = 256  # at once; a source looks a few dozen up at a time, and whoever stands behind 256 gives up anyway
DENIED_FOR = 1.0  # seconds
MOST_DENIED = 4096  # keys, 1 MB; a flood of other keys that gets one out sooner pays for it with a place in MOST_OPEN
LOOK_EVERY = 0.1  # seconds between two looks whether one has taken too long, while any is open

# What `whom` may be: which keys the sources on demand are asked for.
NOBODY, HOSTS, ANY = "", "hosts", "any"

UNKNOWN = "unknown key"
TIMEOUT = "lookup timeout"
TOO_MANY = "too many lookups"


class Lookups:
    """`whom`: NOBODY, HOSTS or ANY; `timeout` in seconds. `news` is called when there is something to `take`."""

    def __init__(
        self, whom: str, *, timeout: float, news: Callable[[], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self.whom = whom
        self.timeout = timeout
        self.news = news
        self.clock = clock
        self.open: dict[str, float] = {}  # key → when it is given up, the first to be given up first
        self.untold: dict[str, None] = {}  # those of them that the supervisor has not been told
        self.denied: dict[str, tuple[float, str]] = {}  # key → until when, and why; the first to end first

    def refusal(self, key: str) -> str:
        """Why it is no use to wait for this key, as it is counted; "" where there is or may be a question."""
        if self.whom == NOBODY or (self.whom == HOSTS and not is_host(key)):
            return UNKNOWN
        if key in self.open:
            return ""
        until, why = self.denied.get(key, (0.0, ""))
        if until > self.clock():
            return why
        return TOO_MANY if len(self.open) >= MOST_OPEN else ""

    def ask(self, key: str) -> None:
        """Somebody waits for this key: have it looked up, if that is of use and not done yet."""
        if key not in self.open and not self.refusal(key):
            self.open[key] = self.clock() + self.timeout
            self.untold[key] = None
            self.news()

    def take(self) -> list[str]:
        """What is to be asked of the supervisor, once. While it does not read, what is given up is never asked."""
        keys, self.untold = list(self.untold), {}
        return keys

    def find(self, key: str) -> None:
        """It is known now."""
        self._close(key)
        self.denied.pop(key, None)

    def deny(self, keys: Iterable[str]) -> list[str]:
        """Nobody serves these keys, says the supervisor; those of them whose question is closed by that."""
        closed = [key for key in keys if key in self.open]
        for key in closed:
            self._deny(key, UNKNOWN)
        return closed

    def expire(self) -> list[str]:
        """The keys whose time is up."""
        now = self.clock()
        closed = []
        for key, until in self.open.items():
            if until > now:
                break
            closed.append(key)
        for key in closed:
            self._deny(key, TIMEOUT)
        return closed

    def stop(self) -> None:
        """Nothing is asked any more."""
        self.whom = NOBODY
        self.open.clear()
        self.untold.clear()

    def _close(self, key: str) -> None:
        self.open.pop(key, None)
        self.untold.pop(key, None)

    def _deny(self, key: str, why: str) -> None:
        self._close(key)
        now = self.clock()
        self.denied.pop(key, None)  # so that it stands at the end
        self.denied[key] = now + DENIED_FOR, why
        while len(self.denied) > MOST_DENIED or next(iter(self.denied.values()))[0] <= now:
            del self.denied[next(iter(self.denied))]
