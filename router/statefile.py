"""The file in which a gfrouter keeps what it knows (saved.py), so that the next start begins with it.

It is written when something has changed or a source was heard, as ages are news, too; each second at most, and less
often where that takes long. The file is replaced as a whole, so a reader finds the old one or the new one, however a
writer ends. It is not forced to the disk: what a power cut costs is a warm start, and what waiting for a disk costs is
the supervisor's time. For that it is written in a thread.

What cannot be used is set aside as FILE.bad, in case the option names somebody's own file, and costs no more than a
line. So does a file that cannot be written, until it can again.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, time
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from router.folder import resolved
from router.handover import HELD_BACK
from router.logs import log
from router.saved import NotOurs, Remembering, restore, save
from router.table import Table
from router.uwsgi import printable

EVERY = 1.0  # seconds between two writes at least
SHARE = 20  # times as long as the supervisor was kept from its work by one write until the next one
LOOK_EVERY = 0.1  # seconds between two looks for news
LAST_WAIT = 2.0  # seconds for the last write at a stop, which a disk may delay
NO_FILE = "it is no regular file"
MOST_BYTES = 1 << 28  # some 1,000,000 nodes; a file of another kind may be of any size


class StateFile:
    """The file `path`, for what `table` and `sources` know. `news` differs from before when that has changed."""

    def __init__(self, path: str, table: Table, sources: Sequence[Remembering], news: Callable[[], Any]) -> None:
        self.path = resolved(path)  # now: what a link names is replaced, not the link, and from anywhere
        self.name = printable(path)
        self._table = table
        self._sources = sources
        self._news = news
        self._kept: Any = None  # the news of the last write
        self._failing = ""
        self._writing = BoundedSemaphore()

    def restore(self) -> None:
        """Begin with what was kept, before any source runs. What is of no use costs a line, or one for each kind."""
        try:
            bring_back(load(self.path), self._table, self._sources, f"state file {self.name}")
        except FileNotFoundError:
            log.info("state file %s: none yet", self.name)
        except OSError as error:
            log.warning("state file %s: ignored: %s", self.name, error.strerror)
        except NotOurs as reason:
            log.warning("state file %s: ignored, and kept as %s.bad: %s", self.name, self.name, reason)
            with suppress(OSError):
                os.replace(self.path, f"{self.path}.bad")

    def run(self) -> None:
        """Keep it up to date, for ever."""
        while True:
            if self._news() == self._kept:
                gevent.sleep(LOOK_EVERY)
            else:
                began = monotonic()
                busy = self.write()
                gevent.sleep(max(EVERY - (monotonic() - began), SHARE * busy))

    def finish(self) -> None:
        """The last write, before an end."""
        gevent.spawn(self.write).join(LAST_WAIT)

    def write(self) -> float:
        """Replace the file by what is known now; returns for how many seconds that kept the process busy."""
        with self._writing:
            began = monotonic()
            self._kept = self._news()
            text = json.dumps(save(self._table, self._sources, now=monotonic(), wall=time()))
            busy = monotonic() - began
            error = gevent.get_hub().threadpool.apply(replace_in_thread, (self.path, text.encode("ascii")))
            if error:
                self._kept = None  # that it could not be written is news
            self._say(error)
        return busy

    def _say(self, error: OSError | None) -> None:
        reason = str(error.strerror) if error else ""
        if reason and reason != self._failing:
            log.error("state file %s: cannot be written: %s", self.name, reason)
        elif self._failing and not reason:
            log.info("state file %s: written again", self.name)
        self._failing = reason


def bring_back(saved: object, table: Table, sources: Sequence[Remembering], where: str) -> None:
    """`restore`, and a line about it. Raises NotOurs."""
    wall = time()
    restored = restore(saved, table, sources, now=monotonic(), wall=wall)
    age = max(0.0, wall - restored.time)
    bad = f"; {restored.dropped} bad entries dropped" if restored.dropped else ""
    log.info(
        "%s: %d nodes of %d keys as of %.0f s ago, until their sources speak%s",
        *(where, restored.nodes, restored.keys, age, bad),
    )


def load(path: str) -> Any:
    """The JSON value in the file. Raises OSError, or NotOurs where there is none."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, NO_FILE)
    if status.st_size > MOST_BYTES:
        raise NotOurs(f"it has {status.st_size} bytes")
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotOurs(f"it is no JSON: {error}" if data else "it is empty") from None


def replace_in_thread(path: str, data: bytes) -> OSError | None:
    """As `replace`, where a signal that comes during an exec is not taken, as it would be lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    return replace(path, data)


def replace(path: str, data: bytes) -> OSError | None:
    """Put `data` in place of the file, or what was there stays and the error is returned: it runs in a thread.

    What a writer that was killed has left is no matter, and nothing is left on a disk that is full.
    """
    new = f"{path}.new"
    try:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            return OSError(errno.EINVAL, NO_FILE)
        _unlink(new)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError as error:
        _unlink(new)
        return error
    return None


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
