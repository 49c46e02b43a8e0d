"""Announcements as workers send them, and a subscription on a free port whose clock is the test's.

    packet(UNSUBSCRIBE, weight=3)      for foo.com and NODE, unless it says otherwise
    with Announced(tolerance=3) as announced:       on a free UDP port; Announced("unix:///run/x") elsewhere
        announced.take(packet(), ...)  sent, and taken in one turn
        announced.idle(17)             time passes, with a turn each second
        announced.addresses("foo.com")
        announced.another("127.0.0.9") one more sender, bound there

A datagram on loopback is in the receiver's queue when `send` returns, so no test has to wait for it.
"""

import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from discovery.identity import IDENTITY
from discovery.subscription import SWEEP_EVERY, Subscription
from router.node import Node
from router.table import UNLIMITED, Table
from router.uwsgi import build

NODE = "10.0.0.5:3031"
SUBSCRIBE, UNSUBSCRIBE = 0, 1
UNIX_SECONDS = 1_700_000_000


def packet(command: int = SUBSCRIBE, header: int = 224, **fields: str | int | bytes) -> bytes:
    """An announcement of NODE for foo.com; a field of b"" is left out."""
    said = {"key": "foo.com", "address": NODE, **fields}
    vars = [
        (name.encode(), value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape"))
        for name, value in said.items()
        if value != b""
    ]
    return build(vars, header, command)


class Announced:
    """A subscription with a clock of ours, its table and a sender. `settings` are those of its URL, `_` for `-`."""

    def __init__(
        self,
        url: str = "udp://127.0.0.1:0",
        *,
        max_keys: int = UNLIMITED,
        max_nodes: int = UNLIMITED,
        wall: float = UNIX_SECONDS + 0.9,
        identity: str = IDENTITY,
        **settings: Any,
    ) -> None:
        self.now = 5000.0
        self.wall = wall
        query = urlencode({name.replace("_", "-"): value for name, value in settings.items()}, doseq=True)
        self.source = Subscription(f"{url}?{query}", clock=lambda: self.now, wall=lambda: self.wall, identity=identity)
        self.table = Table()
        self.feed = self.table.feed(self.source.name, max_keys, max_nodes)
        self.senders: list[socket.socket] = []
        self.sender = self.another()

    def another(self, host: str = "", to: Any = None) -> socket.socket:
        """One more sender, at `host` and any port where one is given; `to` where the source cannot be reached at
        its own address.
        """
        sender = socket.socket(socket.AF_INET if to else self.source.socket.family, socket.SOCK_DGRAM)
        self.senders.append(sender)
        if host:
            sender.bind((host, 0))
        sender.connect(to or self.source.socket.getsockname())
        return sender

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.sender.send(datagram)

    def take(self, *datagrams: bytes) -> None:
        """Send these and take a turn."""
        self.send(*datagrams)
        self.source.turn(self.feed)

    def idle(self, seconds: float) -> None:
        """Let time pass with a turn each second, as `run` takes them when nobody speaks."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + SWEEP_EVERY)
            self.source.turn(self.feed)

    def nodes(self, key: str = "foo.com") -> list[Node]:
        return self.table.nodes(key)

    def addresses(self, key: str = "foo.com") -> list[str]:
        return [node.address for node in self.nodes(key)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.source.close()
        for sender in self.senders:
            sender.close()
