"""The stream of the log's lines, which never waits for whoever reads it.

Standard error is a pipe, a terminal or a socket whose reader may be stuck, and other processes have the same open file:
to set O_NONBLOCK on that would change it for all of them. So what can be opened anew by its name in /proc is, as an
open file of ours that does not block; a socket is asked not to wait by each send; and where neither is to be had (the
pipe is another user's, since we have dropped privileges) each write says so. A regular file has no reader. No thread:
a line is out when the call that logs it returns, as nothing waits in between, so none is late at a crash or out of
order with what is answered.

What does not fit into the pipe is kept, in order, up to MOST_BYTES; what comes then is dropped and counted, and a line
says how many were, where they would have stood. Writes are of whole lines and PIPE_BUF at the most where that can be:
such a one is not mixed with those of the other processes.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from _socket import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from functools import partial
from select import PIPE_BUF, POLLOUT
from socket import MSG_DONTWAIT
from time import monotonic
from typing import Any

import gevent
from gevent import monkey

MOST_BYTES = 1 << 20  # kept for a reader that is slow: some 10,000 lines
RETRY = 0.2  # seconds between two looks at whether the reader is back
FIRST_FD = 64  # beyond those that are passed to a process by number
FINISH_WAIT = 1.0  # seconds for the rest at the end

DROPPED = "*** %d log lines dropped here: nobody read them ***\n"

Send = Callable[[bytes], int]  # what has been sent of it; BlockingIOError where it would wait


class LogStream(io.TextIOBase):
    """Writes to the open file `fd`, which must stay open. After one `write` the rest goes out by itself."""

    def __init__(self, fd: int, encoding: str = "utf-8") -> None:
        self._fd = fd
        self._encoding = encoding
        self._send, self._let_go = sender(fd)
        self._pending: deque[bytes] = deque()
        self._size = 0  # of what is pending
        self._dropped = 0  # lines after those
        self._timer: Any = None

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode(self._encoding, "backslashreplace")
        if self._dropped:
            self.flush()
        if self._dropped or self._size + len(data) > MOST_BYTES:
            self._dropped += text.count("\n")
        else:
            self._pending.extend(pieces(data))
            self._size += len(data)
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what can be written without waiting."""
        try:
            while self._pending:
                piece = self._pending[0]
                sent = self._send(piece)
                self._size -= sent
                self._pending.popleft()
                if sent < len(piece):
                    self._pending.appendleft(piece[sent:])
            if self._dropped:
                self._send((DROPPED % self._dropped).encode())
                self._dropped = 0
        except BlockingIOError:
            self._look_again()
        except OSError:  # the reader has closed it, or the disk is full: the next line tries again
            self._dropped += sum(piece.count(b"\n") for piece in self._pending)
            self._pending.clear()
            self._size = 0
        else:
            self._look_no_more()

    def finish(self) -> None:
        """The process ends, or is to become another one: what is pending has a moment to be read."""
        until = monotonic() + FINISH_WAIT
        self.flush()
        while self._pending and (left := until - monotonic()) > 0:
            wait_writable(self._fd, min(left, RETRY))
            self.flush()

    def close(self) -> None:
        """Let go of what is ours; the open file stays."""
        if not self.closed:
            super().close()
            self._look_no_more()
            self._let_go()

    def renew(self) -> None:
        """Another file has been opened as the same descriptor; what is pending goes there."""
        self._let_go()
        self._send, self._let_go = sender(self._fd)
        self.flush()

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(RETRY, RETRY, ref=False)
            self._timer.start(self.flush)

    def _look_no_more(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None


def sender(fd: int) -> tuple[Send, Callable[[], None]]:
    """How to write there without waiting, and what to do when nothing more is to be written."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind):
        return partial(os.write, fd), nothing
    if stat.S_ISSOCK(kind):
        sock = socket(fileno=os.dup(fd))
        return lambda data: sock.send(data, MSG_DONTWAIT), sock.close
    with suppress(OSError):
        own = out_of_the_way(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
        return partial(os.write, own), partial(os.close, own)
    return partial(write_now, fd), nothing


def out_of_the_way(fd: int) -> int:
    """The same open file as another descriptor: a low one that nobody passed (`fd://3`) must not be found open."""
    try:
        return fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD)
    except OSError:
        return os.dup(fd)  # so few are allowed
    finally:
        os.close(fd)


def nothing() -> None:
    pass


def write_now(fd: int, data: bytes) -> int:
    """Write to an open file that blocks. Where the kernel cannot be told not to wait, it is asked before; in between
    another process may take the room.
    """
    try:
        return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # as on a pipe before Linux 6.4, and on a terminal
            raise
    if not wait_writable(fd, 0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(fd, data)


def wait_writable(fd: int, seconds: float) -> bool:
    """Whether it is, within this time, for which the whole process waits."""
    poll = monkey.get_original("select", "poll")()
    poll.register(fd, POLLOUT)
    return bool(poll.poll(seconds * 1000))


def pieces(data: bytes) -> Iterator[bytes]:
    """Each is whole lines, where a line is no longer than PIPE_BUF."""
    start = 0
    while len(data) - start > PIPE_BUF:
        end = data.rfind(b"\n", start, start + PIPE_BUF) + 1 or start + PIPE_BUF
        yield data[start:end]
        start = end
    yield data[start:]
