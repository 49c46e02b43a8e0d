"""What slow or many clients can cost the supervisor's servers: so many places, and no client its answer.

Where all places are taken, whoever has one for the longest time loses it to the next client, after a MOMENT in which
any honest one has its answer. And when the process is out of descriptors, each server has one in reserve, so that it
still answers one client after the other, which is how an operator learns of it.
"""

from __future__ import annotations

import errno
import os
from resource import RLIMIT_NOFILE, getrlimit
from time import monotonic
from typing import Any

import gevent
import gevent.pool
from gevent.server import StreamServer

MOMENT = 0.5  # seconds that a place is one's own; the counters of a router that is stuck are waited for for 0.2
SHARE = 8  # the places of a server take this part of the descriptors; sources and routers need some, too
LEAST_PLACES = 2
ACCEPTS = 1  # in a row: a client has begun before it can lose its place, so it is closed in good order
ACCEPT_PAUSE = 0.1  # seconds without accepting when the process is out of descriptors or memory
NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Crowd(gevent.pool.Pool):
    """The greenlets of clients: at most `most`, and fewer where the process may have few descriptors."""

    def __init__(self, most: int) -> None:
        super().__init__(max(LEAST_PLACES, min(most, getrlimit(RLIMIT_NOFILE)[0] // SHARE)))
        self._came: dict[Any, float] = {}  # monotonic seconds; the first to come first

    def add(self, greenlet: Any, *args: Any, **more: Any) -> None:
        super().add(greenlet, *args, **more)
        self._came[greenlet] = monotonic()
        greenlet.rawlink(lambda done: self._came.pop(done, None))

    def full(self) -> bool:
        """The server asks before it accepts, and when that is so, again as soon as there is a place."""
        if not super().full():
            return False
        self.make_room()
        return True

    def make_room(self) -> None:
        """The first one to come goes when its moment is over."""
        if self._came:
            first, came = next(iter(self._came.items()))
            gevent.spawn_later(max(0.0, came + MOMENT - monotonic()), first.kill, block=False)


class Reserved(StreamServer):
    """A server with one more descriptor than there are. To be mixed into one whose `pool` is a Crowd."""

    max_accept = ACCEPTS
    reserve: int | None = None

    def do_read(self) -> Any:
        """Accept one client."""
        self.refill()
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        if self.reserve is None:
            return self.pause()
        os.close(self.reserve)
        self.reserve = None
        try:
            return super().do_read()
        except OSError:
            return self.pause()

    def pause(self) -> None:
        """Until a client has gone, or a while has passed."""
        assert isinstance(self.pool, Crowd)
        self.pool.make_room()
        pause_accepting(self)

    def do_close(self, *client: Any) -> None:
        """A client is done. The descriptor that it gives back is for the reserve, if that is used, and for no other."""
        super().do_close(*client)
        self.loop.run_callback(self.refill)

    def refill(self) -> None:
        if self.reserve is None and not self.closed:
            self.reserve = spare()

    def close(self) -> None:
        super().close()
        if self.reserve is not None:
            os.close(self.reserve)
            self.reserve = None


def pause_accepting(server: Any) -> None:
    """Let clients of gevent's `server` wait in the backlog for ACCEPT_PAUSE, as the process has no room for them."""
    server.stop_accepting()
    server._timer = server.loop.timer(ACCEPT_PAUSE)
    server._timer.start(server.start_accepting)


def spare() -> int | None:
    """A descriptor for nothing, while there is one."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
