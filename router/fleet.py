"""The routers of one supervisor: a process in each slot, replaced when it dies, and what is said to all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import random
from time import monotonic
from typing import Any

import gevent
import gevent.event
import gevent.subprocess

from router import stats
from router.child import Child
from router.logs import log
from router.table import Change, Table

COUNT_WAIT = 0.2  # seconds that a reader of the stats waits for routers that do not answer
COUNT_AGAIN = 5  # times that they are asked, where the table changes each time before they have answered
RESPAWN_DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0)  # seconds; for routers that die one after the other
RESPAWN_CALM = 5.0  # seconds; who lived longer is replaced at once
BEAT_EVERY = 1.0  # seconds between two signs of life that a router is asked for


class Fleet:
    """`start` starts the router of a slot, and raises OSError or SubprocessError where that cannot be done.

    Once `stopping` is set no router is started any more.
    """

    def __init__(
        self,
        slots: Sequence[stats.Slot],
        table: Table,
        start: Callable[[stats.Slot], Child],
        stopping: gevent.event.Event,
    ) -> None:
        self.slots = slots
        self.table = table
        self.routers: list[Child] = []
        self.keepers: list[gevent.Greenlet[..., None]] = []
        self._start = start
        self._stopping = stopping
        self._counting = 0  # the last question's number
        self._changes = 0

    def run(self) -> None:
        """Keep one running in each slot, in greenlets, which end with it once `stopping` is set."""
        self.keepers = [gevent.spawn(self._keep, slot) for slot in self.slots]

    def ready(self) -> bool:
        """Whether all of them accept, or would if they were not cheap."""
        return len(self.routers) == len(self.slots) and all(router.heard for router in self.routers)

    def order(self, **orders: Any) -> None:
        for router in self.routers:
            router.order(**orders)

    def kill(self) -> None:
        for router in self.routers:
            router.process.kill()

    def note_change(self, change: Change) -> None:
        self._changes += 1
        for router in self.routers:
            router.note_change(change)

    def note_health(self, address: str) -> None:
        for router in self.routers:
            router.note_health(address)

    def note_drain(self) -> None:
        for router in self.routers:
            router.note_drain()

    def count(self) -> bool:
        """Ask the routers what they have counted; one that does not answer in time is shown as it last told.

        True where all have answered. Then they know the table as it is now: whoever has seen a node in the stats may
        ask for it at once.
        """
        deadline = monotonic() + COUNT_WAIT
        for _ in range(COUNT_AGAIN):
            changes = self._changes
            if not self._ask_counts(deadline - monotonic()):
                return False
            if changes == self._changes:
                break
        return True

    def _ask_counts(self, wait: float) -> bool:
        self._counting += 1
        number, asked = self._counting, list(self.routers)
        answered = gevent.wait([router.ask_counts(number) for router in asked], timeout=max(wait, 0))
        for router in asked:
            router.forget_counts(number)
        return len(answered) == len(asked)

    def watch(self, harakiri: int) -> None:
        """For ever, each second: a router whose loop is stuck for `harakiri` seconds is killed, and so replaced."""
        while True:
            for router in self.routers:
                router.watch(harakiri)
            gevent.sleep(BEAT_EVERY)

    def _keep(self, slot: stats.Slot) -> None:
        word = "spawned"
        deaths = 0
        while not self._stopping.is_set():
            try:
                router = self._start(slot)
            except (OSError, gevent.subprocess.SubprocessError) as error:
                # Short of memory or descriptors, or the interpreter is being replaced: later may be better.
                log.error("cannot start uWSGI fastrouter %d: %s", slot.number, error)
                self._stopping.wait(RESPAWN_DELAYS[-1])
                continue
            self.routers.append(router)
            if self._stopping.is_set():  # since the loop looked: starting a process takes a while
                router.order(stop=True)
            log.info("%s uWSGI fastrouter %d (pid: %d)", word, slot.number, router.pid)
            status = router.process.wait()
            self.routers.remove(router)
            router.end()
            stats.retire(self.table, slot)
            if self._stopping.is_set():
                return
            log.error("uWSGI fastrouter %d (pid: %d) ended with status %d", slot.number, router.pid, status)
            word = "respawned"
            deaths = 0 if monotonic() - router.born > RESPAWN_CALM else deaths + 1
            delay = RESPAWN_DELAYS[min(deaths, len(RESPAWN_DELAYS) - 1)]
            self._stopping.wait(delay * (0.5 + random()))
