"""The command that `gfrouter announce` wraps: started, told of signals, and its status when it ends.

It stays in our process group and on our terminal, as under `env` or `nice`. It is spawned, not forked: what gevent has
running here must not live on in it. As the first process of a container we are the parent of whatever is orphaned
there, so all that ends is reaped, not this child alone.
"""

from __future__ import annotations

import os
import signal

import gevent
from gevent.event import Event

CANNOT_EXECUTE, NOT_FOUND = 126, 127  # the exit statuses that shells have for it
KILLED = 128  # and what they add to the number of a signal that ended a command
# Python ignores these, and what is ignored stays so in who is executed.
RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


class CannotStart(Exception):
    """The command could not be executed; `status` says so as a shell does."""

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"{command}: {error.strerror}")
        self.status = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE


class Wrapped:
    """A command that runs. `ended` is set when it has, and then `status` is what to exit with."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self.ended = Event()
        self.status = 0
        self._watch = gevent.signal_handler(signal.SIGCHLD, self._reap)
        try:
            self.pid = os.posix_spawnp(command[0], command, os.environ, setsigdef=RESTORED)
        except OSError as error:
            self._watch.cancel()
            raise CannotStart(command[0], error) from None
        self._reap()  # it may have ended before anybody looked

    def send(self, number: int) -> None:
        """Pass a signal on, unless it has ended: its number may be another's by now."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else KILLED - code
                self.ended.set()
