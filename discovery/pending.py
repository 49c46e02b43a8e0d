"""Datagrams that were read and are yet to be acted on. Hosts take turns: nobody waits for all that another has said."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from discovery.credentials import Credentials

Heard = tuple[bytes, Any, Credentials | None]  # a datagram, its sender as recvfrom says it, and whose it is


class Pending:
    """A queue for each host, "" for unix sockets; `len` counts datagrams. A sender is what recvfrom says."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Heard]] = OrderedDict()  # whose turn it is comes first
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, host: str, heard: Heard) -> None:
        self._queues.setdefault(host, deque()).append(heard)
        self._size += 1

    def take(self) -> Heard:
        """The next one. KeyError if there is none."""
        host, queue = self._queues.popitem(last=False)
        taken = queue.popleft()
        self._size -= 1
        if queue:
            self._queues[host] = queue
        return taken

    def drop(self, host: str, port: int) -> int:
        """Drop all that is there from this port of the host, or with port 0 from all of them; how many those were."""
        queue = self._queues.pop(host, deque())
        kept = deque(one for one in queue if port and one[1][1] != port)
        if kept:
            self._queues[host] = kept
        self._size -= len(queue) - len(kept)
        return len(queue) - len(kept)
