"""How late a process's loop is: what is due once a second says when it came.

A loop is late while something keeps it busy (a source, a big table, a machine that is short of cores), and all its
requests wait as long. A process that was stopped finds itself late, too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

EVERY = 1.0  # seconds between two `note`s
SHOWN = 60  # seconds in which the worst is remembered
LATE = 1.0  # seconds which are worth a line: web servers and health checks have begun to notice

log = logging.getLogger("gfrouter")


class Lag:
    """`note` is called by the loop each EVERY; `who` is for the log."""

    def __init__(self, who: str, clock: Callable[[], float] = monotonic) -> None:
        self._who = who
        self._clock = clock
        self._due = clock() + EVERY
        self._seen: deque[float] = deque(maxlen=SHOWN)
        self._silent = 0  # notes for which no further line is due

    def note(self) -> None:
        now = self._clock()
        late = max(0.0, now - self._due)
        self._due = now + EVERY
        self._seen.append(late)
        self._silent -= self._silent > 0
        if late >= LATE and not self._silent:
            self._silent = SHOWN
            log.warning("%s: the loop was %.1f s late", self._who, late)

    @property
    def worst(self) -> float:
        """Seconds, of the last minute."""
        return round(max(self._seen, default=0.0), 3)
