"""How many requests may go to a second node after a first one took them: so few that an overload is never doubled.

In each window of WINDOW seconds it is a share of the first requests that reached a node in it, and LEAST a second
beside that, so that where little is asked every failed request finds its next node. The window moves by whole seconds,
with the engine's sweep; a process that is stopped moves nothing.
"""

from __future__ import annotations

from collections import deque

WINDOW = 10  # seconds; long enough for a few requests a second to make a share, short enough to forget a burst
LEAST = 10  # a second


class Budget:
    """`percent` of the requests may go twice; 0 is no limit. `spent`: how many did, in all; counted by the owner."""

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self.spent = 0
        # At the beginning of each of the last seconds: (requests in all, second ones of them).
        self._seconds: deque[tuple[int, int]] = deque([(0, 0)], maxlen=WINDOW)

    def next_second(self, requests: int) -> None:
        """A second is over; `requests` have reached a node in all, the second ones among them."""
        self._seconds.append((requests, self.spent))

    def is_open(self, requests: int) -> bool:
        """Whether one more may go to a second node; `requests` as above."""
        asked, spent = self._seconds[0]
        seconds = self.spent - spent
        first = requests - asked - seconds
        return not self.percent or seconds < LEAST * WINDOW + first * self.percent // 100
