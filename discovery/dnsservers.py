"""Which DNS servers to ask: those that the URL names, or else those of /etc/resolv.conf.

Both may change while we run (a container moves, a network comes up), so names of servers are resolved again, and the
file is read again, every `LOOK_EVERY` seconds. Where that gives nothing, what was known stays.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from gevent.lock import Semaphore

LOOK_EVERY = 30.0  # seconds, as for the host names in nodes' addresses
LOOK_AGAIN = 1.0  # seconds, while none is known
MOST_SERVERS = 16  # to ask one after the other
PORT = 53
RESOLV_CONF = "/etc/resolv.conf"

log = logging.getLogger("gfrouter")


@dataclass(frozen=True, slots=True)
class Place:
    """A server: a numeric address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Servers:
    """Called, gives the servers to ask. `named` are (host, port) pairs; without any, the file `resolv_conf` has them.

    Of that file only the addresses count: its search list is for people who type, and its time-outs are for programs
    that look up one name. `lookup` is called as getaddrinfo is.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, int]] = (),
        *,
        resolv_conf: str = RESOLV_CONF,
        clock: Callable[[], float] = monotonic,
        lookup: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        self.named = named
        self.resolv_conf = resolv_conf
        self.clock = clock
        self.lookup = lookup
        self.known: list[Place] = []
        self.look_at = float("-inf")
        self._looking = Semaphore()
        self.error = ""  # why none was found, or not all; "" for nothing

    def __call__(self) -> list[Place]:
        if self.clock() >= self.look_at or not self.known:
            with self._looking:  # who comes while nothing is known waits for the one that looks
                if self.clock() >= self.look_at:
                    self._look()
        return self.known

    def _look(self) -> None:
        self.look_at = self.clock() + LOOK_EVERY  # first: who comes meanwhile takes what is known
        before, self.error = self.error, ""
        try:
            found = self._places(self.named) if self.named else self._configured()
            self.known = found[:MOST_SERVERS] or self.known
        finally:  # who looks may be killed, as at a new start of the source
            if not self.known:
                self.look_at = self.clock() + LOOK_AGAIN
        if self.error and self.error != before:
            log.warning("dns: %s", self.error)

    def _places(self, named: Iterable[tuple[str, int]], flags: int = 0) -> list[Place]:
        """The numeric addresses of these hosts."""
        found: dict[Place, None] = {}
        for host, port in named:
            try:
                sockaddrs = [each[4] for each in self.lookup(host, port, type=socket.SOCK_DGRAM, flags=flags)]
            except (OSError, UnicodeError) as error:
                self.error = f"cannot resolve the server {host}: {error}"
                continue
            for numeric, number, *rest in sockaddrs:
                scope = f"%{rest[1]}" if len(rest) == 2 and rest[1] else ""
                found[Place(f"{numeric}{scope}", number)] = None
        return list(found)

    def _configured(self) -> list[Place]:
        try:
            lines = Path(self.resolv_conf).read_text(errors="replace").splitlines()
        except OSError as error:
            self.error = f"cannot read {self.resolv_conf}: {error.strerror}"
            return []
        words = [line.split() for line in lines]
        hosts = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        found = self._places([(host, PORT) for host in hosts], socket.AI_NUMERICHOST)
        if not found and not self.error:
            self.error = f"{self.resolv_conf} names no server"
        return found
