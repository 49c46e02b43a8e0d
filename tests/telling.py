"""A router's table and a teller of it, with our clock, and the real subscription server that is told."""

import random
import socket
from types import TracebackType
from typing import Any, Self

from announced import Announced
from discovery.resubscribeteller import PAUSE, Teller
from router.address import Inet, Unix
from router.endpoint import Cause
from router.node import Node
from router.resubscribe import Offers
from router.table import Table

OWN = "10.9.9.9:3031"
KEY = "foo.com"


class Inner:
    """A router's table, with one source that takes announcements and one that does not."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changed: list[str] = []
        self.table = Table(on_change=lambda change: self.changed.append(change.key))
        self.workers = self.table.feed("subscription")
        self.others = self.table.feed("consul")
        self.offers = Offers(self.table, [self.workers], lambda: self.now)

    def join(self, address: str = "10.0.0.1:1", key: str = KEY, **said: Any) -> None:
        self.workers.announce(key, Node(address, **said))

    def leave(self, address: str = "10.0.0.1:1", key: str = KEY) -> None:
        self.workers.withdraw(key, address)

    def fail(self, address: str = "10.0.0.1:1", seconds: float = 30.0, cause: Cause = Cause.REFUSED) -> None:
        self.table.fail(self.table.endpoints[address], self.now + seconds, cause)


class Telling:
    """A teller, and the router that it tells, whose clocks are that of `inner`; `turn` is what its greenlet does."""

    def __init__(self, inner: Inner, url: str = "udp://127.0.0.1:0", **settings: Any) -> None:
        self.inner = inner
        self.outer = Announced(url, **settings)
        name = self.outer.source.socket.getsockname()
        self.place = Inet(socket.AF_INET, name) if isinstance(name, tuple) else Unix(name.encode())
        self.random = random.Random(1)
        self.teller = self.new_teller()
        self.next = inner.now

    def __enter__(self) -> Self:
        self.outer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.teller._close()
        self.outer.__exit__(kind, error, trace)

    def new_teller(self) -> Teller:
        return Teller("r", self.place, OWN, self.inner.offers, "me", clock=lambda: self.inner.now,
                      random=self.random.random, sleep=lambda seconds: None)  # fmt: skip

    def turn(self) -> int:
        """One turn, and what it has said is taken in; returns how many datagrams that were."""
        self.teller.note(self.inner.changed)
        self.inner.changed.clear()
        before = self.teller.sent
        self.next = self.inner.now + max(PAUSE, self.teller.turn())
        self.take()
        return self.teller.sent - before

    def take(self) -> None:
        self.outer.now = self.inner.now + 4000.0
        for _ in range(3):
            self.outer.source.turn(self.outer.feed)

    def run(self, seconds: float) -> int:
        """Let time pass; returns how many datagrams one turn had at most."""
        end, most = self.inner.now + seconds, 0
        while self.inner.now < end:
            self.inner.now = min(end, max(self.next, self.inner.now + PAUSE), self.inner.now + 1.0)
            most = max(most, self.turn())
        return most

    def weights(self, key: str = KEY) -> list[int]:
        return [node.weight for node in self.outer.nodes(key)]
