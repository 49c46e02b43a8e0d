"""Interrupts a source that blocks the supervisor's loop: in a C call that gevent does not know, or by never yielding.

A greenlet winds up a timer each BEAT. When it does not come to that, SIGALRM's handler looks each LOOK, wherever the
loop stands. After LOOKS of them in a row the loop is stuck: in a greenlet of a source, or in one that it has spawned,
the handler raises `SourceStuck`, so that `supervise` runs the source afresh; elsewhere it says where that is.

A supervisor that was stopped (SIGSTOP, a paused VM) finds the time over when it goes on: a look that comes late counts
for nothing. Nor does the handler raise inside a verb of a feed, where the table is half-way from one state to the next.
And who yields by `sleep(0)` is not stuck, but keeps timers and sockets waiting, as gevent looks at the time after each
50th callback only: so a look fills these up. Timers outlive an exec: `stop` must be called before.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import Any

import gevent

from router.source import SourceStuck
from router.sourcestate import Watched

BEAT = 0.5  # seconds between two windings
LOOK = 0.2  # seconds after a beat that did not come, and again
LOOKS = 25  # so 5 s; what a source may do in one go (50,000 nodes) takes a tenth of that on a slow machine
BUSY_LOOKS = 5  # the last ones, again, where a verb was being executed
LATE = 0.5  # seconds by which a look is late when we did not run
CALLBACKS = 50  # between two of gevent's looks at the time (CALLBACK_CHECK_COUNT)
TREE = "gfrouter source"  # under which all greenlets of a source find it
VERBS = frozenset(("router.feed", "router.shaping", "router.table"))  # modules

log = logging.getLogger("gfrouter")


class Watchdog:
    """Watches the loop of the main thread, from `start` until `stop`, while `run` runs in a greenlet."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._due = 0.0  # on `_clock`
        self._looks = 0  # in a row, since the loop has moved
        self._nudged = False  # since then

    def start(self) -> None:
        signal.signal(signal.SIGALRM, self._look)
        self._wind(BEAT)

    def stop(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def run(self) -> None:
        """Wind up the timer at each beat, until killed."""
        while True:
            self._looks = 0
            self._wind(BEAT + LOOK)
            gevent.sleep(BEAT)

    def _wind(self, seconds: float) -> None:
        self._due = self._clock() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _look(self, _number: int, frame: FrameType | None) -> None:
        late = self._clock() - self._due > LATE
        self._wind(LOOK)
        self._nudge()
        self._looks += not late
        if self._looks >= LOOKS:
            self._looks = 0
            self._judge(frame)

    def _nudge(self) -> None:
        if not self._nudged:
            self._nudged = True
            run_callback = gevent.get_hub().loop.run_callback
            run_callback(self._moves)
            for _ in range(CALLBACKS):
                run_callback(int)

    def _moves(self) -> None:
        """Whoever had the loop has yielded."""
        self._nudged = False
        self._looks = 0

    def _judge(self, frame: FrameType | None) -> None:
        greenlet, where = gevent.getcurrent(), place(frame)
        source = owner(greenlet)
        if source is None:
            say("the supervisor is stuck at %s", where)
        elif any(module in VERBS for module in modules(frame)):
            say("%s: has the supervisor busy with what it says, at %s", source.name, where)
            self._looks = LOOKS - BUSY_LOOKS
        elif greenlet is not source.greenlet:
            say("%s: stuck at %s", source.name, where)
            if source.running:
                gevent.kill(source.greenlet, SourceStuck(f"stuck at {where}"))
            raise SourceStuck(f"stuck at {where}")
        elif source.running:
            raise SourceStuck(f"stuck at {where}")


def own(source: Watched) -> None:
    """The greenlet that calls, and all that it will spawn, are this source's."""
    source.greenlet = greenlet = gevent.getcurrent()
    if (tree := getattr(greenlet, "spawn_tree_locals", None)) is not None:
        tree[TREE] = source


def owner(greenlet: Any) -> Watched | None:
    """The source whose greenlet this is."""
    tree = getattr(greenlet, "spawn_tree_locals", None) or {}
    found: Watched | None = tree.get(TREE)
    return found


def place(frame: FrameType | None) -> str:
    """Where that is: `recv (/usr/lib/python3/socket.py:12)`."""
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})" if frame else "an unknown place"


def modules(frame: FrameType | None) -> Iterable[str]:
    """Of the code that is being executed there, the innermost first."""
    while frame is not None:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back


def say(*line: object) -> None:
    """A log line; none where the log itself is what was interrupted."""
    with suppress(Exception):
        log.error(*line)
