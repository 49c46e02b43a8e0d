"""Going to the background: a session of its own, with a parent that waits until the daemon serves, or says why not.

This is done before anything runs in the process but its main greenlet, as neither threads nor gevent's loop outlive a
fork. The parent hears over a pipe: first the daemon's pid, then READY, or what has stopped it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from select import POLLIN
from time import monotonic
from typing import NoReturn

from gevent import monkey

from router import notify
from router.logstream import out_of_the_way

READY = b"READY"
WAIT = 60.0  # seconds; routers start in a tenth of one, and on a machine that boots in ten times that
LISTEN_PID = "LISTEN_PID"  # whom systemd has passed its sockets to


class Launcher:
    """Whoever waits for this process to serve, at the other end of the pipe `fd`; None where nobody does."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd

    def ready(self) -> None:
        self._say(READY)

    def failed(self, reason: str) -> None:
        self._say(reason.encode(errors="backslashreplace"))

    def _say(self, text: bytes) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):  # it has left
                os.write(fd, text)
            os.close(fd)


def refuse(environ: Mapping[str, str], pid: int) -> None:
    """ValueError where whoever started us takes the end of this process for the end of the service."""
    if pid == 1:
        raise ValueError("daemonize: the first process of a container cannot go to the background, leave that out")
    if notify.VARIABLE in environ:
        raise ValueError(f"daemonize: whoever set {notify.VARIABLE} supervises this process, leave that out")


def detach(environ: MutableMapping[str, str], log: int | None, said_in: str) -> Launcher:
    """Go on as a daemon, with the descriptor `log` as its standard output and error, if there is one.

    Returns there only. The process that called it ends: with 0 when the daemon serves, else with 1 and what has stopped
    that one on its standard error; `said_in` is the file that says more. Then there is no daemon.
    """
    reader, writer = map(out_of_the_way, os.pipe())
    fork = monkey.get_original("os", "fork")  # gevent's own begins a loop
    own_sockets = environ.get(LISTEN_PID) == str(os.getpid())
    child = fork()
    if child:
        os.close(writer)
        os.waitpid(child, 0)
        _wait(reader, said_in)
    os.close(reader)
    os.setsid()
    if daemon := fork():
        os.write(writer, b"%d\n" % daemon)
        os._exit(0)
    if own_sockets:
        environ[LISTEN_PID] = str(os.getpid())
    _standard(os.open(os.devnull, os.O_RDONLY), 0)
    if log is not None:
        os.dup2(log, 1)
        _standard(log, 2)
    return Launcher(writer)


def _standard(fd: int, standard: int) -> None:
    os.dup2(fd, standard)
    os.close(fd)


def _wait(reader: int, said_in: str) -> NoReturn:
    """End as the daemon begins."""
    said, over = b"", False
    until = monotonic() + WAIT
    poll = monkey.get_original("select", "poll")()
    poll.register(reader, POLLIN)
    try:
        while not over and (left := until - monotonic()) > 0 and poll.poll(left * 1000):
            piece = os.read(reader, 1 << 16)
            said += piece
            over = not piece
    finally:
        number, _, said = said.partition(b"\n")
        if number and not over:  # nobody waits for it any more, so it must not come up later
            with suppress(OSError):
                os.kill(int(number), signal.SIGTERM)
    if said == READY:
        raise SystemExit(0)
    print(said.decode(errors="replace") or f"gfrouter: no daemon has come up; {said_in} says more", file=sys.stderr)
    raise SystemExit(1)
