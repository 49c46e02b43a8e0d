"""A clock that stands still while this process does: what could not be heard then must not count as silence."""

from __future__ import annotations

from collections.abc import Callable

LATE = 2.0  # seconds by which a reading may come late before we say that nobody was listening


class Listened:
    """Seconds for which we have listened: a monotonic clock, less the time when nobody did.

    It expects to be read once in `every` seconds. A reading that comes more than LATE after that (SIGSTOP, a
    paused VM, a blocked loop) moves it on as far as it was expected and no further; so every deadline moves
    by the lateness.
    """

    def __init__(self, clock: Callable[[], float], every: float) -> None:
        self._clock = clock
        self._every = every
        self._lost = 0.0
        self._expected = clock() + every

    def __call__(self) -> float:
        now = self._clock()
        late = now - self._expected
        if late > LATE:
            self._lost += late
        self._expected = now + self._every
        return now - self._lost
