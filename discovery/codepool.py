"""The processes that call the user's function (codechild.py): as many as are needed at once, up to a limit.

A process serves one call at a time. One whose call takes too long is killed, one that has ended is left behind, and the
next call has a fresh one: so whatever a function does costs the key that it was called for, and nobody else.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import gevent
import gevent.socket
import gevent.subprocess
from gevent.lock import BoundedSemaphore

from discovery.codechild import ANSWER, NODES, QUESTION, RAISED, START


class CallFailed(Exception):
    """There is no answer for this key."""


class Raised(CallFailed):
    """The function has raised, or gave what is no answer."""


class Unusable(CallFailed):
    """There is no function that could be called."""


class Processes:
    """Calls `function` of `file`, `most` times at once, each for `timeout` seconds at most."""

    def __init__(self, file: str, function: str, *, most: int, timeout: float) -> None:
        self.words = (file, function, str(timeout))
        self.timeout = timeout
        self.room = BoundedSemaphore(most)
        self.idle: list[Process] = []
        self.all: set[Process] = set()

    def call(self, key: bytes) -> bytes | None:
        """What the function gives for this key, None for nothing. Raises CallFailed. Waits for room."""
        with self.room:
            process = self._take()
            try:
                answer = process.ask(key, self.timeout)
            except Raised:
                self.idle.append(process)
                raise
            except BaseException:
                self._end(process)
                raise
            self.idle.append(process)
            return answer

    def check(self) -> None:
        """Have one process ready, or raise Unusable."""
        with self.room:
            self.idle.append(self._take())

    def close(self) -> None:
        """End all of them."""
        for process in list(self.all):
            self._end(process)
        self.idle.clear()

    def _take(self) -> Process:
        while self.idle:
            process = self.idle.pop()
            if process.child.poll() is None:
                return process
            self._end(process)
        process = Process(self.words)
        self.all.add(process)
        try:
            process.begin()
        except BaseException:
            self._end(process)
            raise
        return process

    def _end(self, process: Process) -> None:
        self.all.discard(process)
        process.end()


class Process:
    """One process, and our end of its socket."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.sock, theirs = gevent.socket.socketpair()
        try:
            with theirs:
                self.child = gevent.subprocess.Popen(
                    [sys.executable, "-P", "-m", "discovery.codechild", str(theirs.fileno()), *words],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        except OSError as error:
            self.sock.close()
            raise Unusable(f"cannot be called: {error}") from None

    def begin(self) -> None:
        """Returns when the user's file has been read. Raises Unusable."""
        try:
            self._answer(START)
        except CallFailed as error:
            raise Unusable(str(error)) from None

    def ask(self, key: bytes, timeout: float) -> bytes | None:
        """As `Processes.call`. After anything but Raised the process is of no use."""
        with suppress(OSError):  # it has ended, which its answer tells
            self.sock.sendall(QUESTION.pack(len(key)) + key)
        return self._answer(timeout)

    def end(self) -> None:
        """Now, whatever it does."""
        self.sock.close()
        with suppress(ProcessLookupError):
            self.child.kill()

    def _answer(self, timeout: float) -> bytes | None:
        try:
            with gevent.Timeout(timeout):
                mark, size = ANSWER.unpack(self._receive(ANSWER.size))
                data = self._receive(size)
        except gevent.Timeout:
            raise CallFailed(f"no answer within {timeout:g} s") from None
        except OSError:
            raise CallFailed("its process has ended") from None
        if mark == RAISED:
            raise Raised(data.decode("utf-8", "replace"))
        return data if mark == NODES else None

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise ConnectionError("ended")
            data += piece
        return data
