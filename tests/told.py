"""A gfrouter whose sources say what the test has them say.

with Told(2, warm_timeout=60) as told:
    told.say(0, "replace", {"foo.com": [node.address]})      told_supervisor.py has the verbs
with Told(2, on_demand=[1]) as told:                         the second one looks up on demand
    told.wanted(1)                                           what its feed asks for next
"""

import json
import socket
import sys
from collections.abc import Sequence
from typing import Any

from clients import read_to_end
from scripted import connect, wait_for
from servers import TESTS, Process, free_address


class Told(Process):
    """A gfrouter with so many sources, which say what the test has them say (told_supervisor.py)."""

    def __init__(self, sources: int, on_demand: Sequence[int] = (), any_key: bool = False, **options: object) -> None:
        self.address, self.stats_address = free_address(), free_address()
        self.sources = [free_address() for _ in range(sources)]
        self._numbers = iter(range(1, 1000))
        what = {
            "address": self.address,
            "stats": self.stats_address,
            "sources": self.sources,
            "on_demand": list(on_demand),
            "any_key": any_key,
            "options": options,
        }
        super().__init__(sys.executable, TESTS / "told_supervisor.py", json.dumps(what))
        self.wait_line("^spawned uWSGI fastrouter 1 ")

    def say(self, source: int, verb: str, *arguments: object) -> None:
        """Lets that source say it; returns when it has."""
        assert self._ask(source, verb, *arguments) is None

    def wanted(self, source: int, timeout: float = 0) -> str | None:
        """What `Feed.wanted` gives that source."""
        return self._ask(source, "wanted", timeout)

    def _ask(self, source: int, *words: object) -> Any:
        with connect(self.sources[source]) as sock:
            sock.sendall(json.dumps(words).encode())
            sock.shutdown(socket.SHUT_WR)
            return json.loads(read_to_end(sock))

    def stats(self) -> dict[str, Any]:
        with connect(self.stats_address) as sock:
            stats = json.loads(read_to_end(sock))
            assert isinstance(stats, dict)
            return stats

    def lookups(self) -> dict[str, int]:
        return dict(self.stats()["lookups"])

    def waits(self, count: int) -> None:
        wait_for(lambda: self.stats()["waiting"] == count, f"{count} requests to wait")
