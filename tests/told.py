"""A real gfrouter process whose sources are told what to say, and how to misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Sequence
from typing import Any

from clients import read_to_end
from scripted import connect, wait_for
from servers import TESTS, Process, free_address


class Told(Process):
    """A gfrouter with so many sources, which say what the test has them say (told_supervisor.py).

    `common`: what their URLs would say of how to treat them, for the first ones.
    """

    def __init__(self, sources: int, *, common: Sequence[dict[str, object]] = (), **options: object) -> None:
        self.address, self.stats_address = free_address(), free_address()
        self.sources = [free_address() for _ in range(sources)]
        self._numbers = iter(range(1, 1000))
        what: dict[str, object] = {
            "address": self.address,
            "stats": self.stats_address,
            "sources": self.sources,
            "options": options,
        }
        what["common"] = [*common, *[{}] * (sources - len(common))]
        super().__init__(sys.executable, TESTS / "told_supervisor.py", json.dumps(what))
        self.wait_line("^spawned uWSGI fastrouter 1 ")

    def say(self, source: int, verb: str, *arguments: object) -> None:
        """Has that source say it; returns when it has."""
        with connect(self.sources[source]) as sock:
            sock.sendall(json.dumps([verb, *arguments]).encode())
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b"said"

    def tell(self, source: int, verb: str, *arguments: object) -> None:
        """Have that source do what has no end, or a bad one; returns when it has closed the connection or is at it."""
        with connect(self.sources[source]) as sock:
            sock.sendall(json.dumps([verb, *arguments]).encode())
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(0.2)
            with contextlib.suppress(OSError):
                sock.recv(1)

    def source(self, number: int) -> dict[str, Any]:
        """How that source is, as the stats tell it."""
        found: dict[str, Any] = self.stats()["sources"][number]
        return found

    def stats(self) -> dict[str, Any]:
        with connect(self.stats_address) as sock:
            stats = json.loads(read_to_end(sock))
            assert isinstance(stats, dict)
            return stats

    def waits(self, count: int) -> None:
        wait_for(lambda: self.stats()["waiting"] == count, f"{count} requests to wait")
