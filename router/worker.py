"""The worker of a configuration for both: the real uwsgi, beside the routers, on a private unix socket.

We hold that socket, as we hold the routers' listeners, and the worker inherits it. So requests wait in its queue while
the worker starts, is replaced after a crash, or is exchanged at a reload, and none is lost; as with a shared socket of
uWSGI's own. It is a source of nodes as well: the worker stands in for every key that has no other node (static.OWN),
and is a backup in the pools of the keys that it subscribes to.

At a reload the worker of before answers until the routers of before have ended. Then it is no node for a moment, and
requests wait in the routers: uWSGI drops one that it has accepted and not begun when it is told to end.

A worker that ends before it has ever answered uWSGI's ping cannot start: who waits in the queue is let go, and it is
no node until one has answered. Whatever else becomes of it is for the rules that hold for every node.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic

import gevent
import gevent.event
import gevent.socket

from router import kernel, net, single
from router.attached import Askers, Attached, daemon
from router.checks import PING
from router.feed import Feed
from router.folder import absolute
from router.node import Node
from router.options import Options
from router.place import ini_beside
from router.sockets import Sockets
from router.static import OWN

NAME = "worker"
LOOK = 0.2  # seconds between two pings of one that closes them, and between two looks at routers that are to end
IDLE_WAIT = 1.0  # seconds in which one that is to end may answer what it has; the rest it has begun, and it ends it
IDLE_LOOK = 0.01  # seconds between two looks at that
SIGNAL_WAIT = 0.5  # seconds in which its processes have heard that they are to end


class Worker:
    """The program, and the source that names it. `listener` is its private socket, None where it has none.

    Its ini is written to `file` before each start. `mercy` are the seconds in which it may end when it is told to.
    """

    name = NAME

    def __init__(
        self, part: single.Part, binary: str, file: str, listener: socket.socket | None, log_fd: int, mercy: float
    ) -> None:
        self.listener = listener
        self.file = file
        self.text = single.ini(part, listener.fileno() if listener else -1)
        self.serves = True
        self.answered = False  # has the one that runs answered a ping?
        self.pools: Mapping[str, list[Node]] = {}
        if listener is not None:
            node = Node(net.bound_name(listener))
            self.pools = {key: [replace(node, backup=level)] for key, level in part.keys} | {OWN: [node]}
        self.program = Attached(
            NAME,
            "gfrouter-worker",
            [binary, "--ini", file],
            log_fd,
            at_death=signal.SIGTERM,
            mercy=mercy,
            to_group=False,  # uWSGI's processes would end at once, and it is the first one that ends them well
            fds=[listener.fileno()] if listener else [],
            begin=self._begin,
            ended=self._ended,
            give_way=self._give_way,
        )
        self._feed: Feed | None = None
        self._release: Callable[[], None] | None = None  # what ends the wait of requests for this start's worker
        self._looker: gevent.Greenlet[..., None] | None = None

    def run(self, feed: Feed) -> None:
        self._feed = feed
        self._say()
        gevent.event.Event().wait()

    def _give_way(self, askers: Askers) -> None:
        """Returns when nobody asks the worker of the start before: for SIGNAL_WAIT more, or until it has ended."""
        if self.listener is None:
            return
        while askers.before():
            gevent.sleep(LOOK)
        self._release = lambda: askers.hold(0)
        self._serve(False)
        askers.hold(IDLE_WAIT + SIGNAL_WAIT)
        askers.know()
        address, deadline = net.bound_name(self.listener), monotonic() + IDLE_WAIT
        while kernel.connections(address) and monotonic() < deadline:
            gevent.sleep(IDLE_LOOK)
        gevent.spawn_later(SIGNAL_WAIT, self._take_over)

    def _take_over(self) -> None:
        """From now on requests wait in the socket's queue, for the worker of this start."""
        if self._release is not None:
            release, self._release = self._release, None
            self._serve(True)
            release()

    def _begin(self) -> None:
        self._take_over()
        self.answered = self.program.ready = self.listener is None
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(self.text)
        if self.listener is not None:
            self._looker = gevent.spawn(self._look, net.bound_name(self.listener))

    def _ended(self) -> None:
        if self._looker is not None:
            self._looker.kill()
        if not self.answered:
            self._serve(False)
            self._let_go()

    def _look(self, address: str) -> None:
        while not answers_ping(address):
            gevent.sleep(LOOK)
        self.answered = self.program.ready = True
        self._serve(True)

    def _serve(self, value: bool) -> None:
        if self.serves != value:
            self.serves = value
            self._say()

    def _say(self) -> None:
        if self._feed is not None:
            self._feed.replace(self.pools if self.serves else {})

    def _let_go(self) -> None:
        """Close what waits in the queue, which nobody will answer for a while."""
        if self.listener is None:
            return
        os.set_blocking(self.listener.fileno(), False)  # whatever the worker has made of it
        with suppress(OSError):
            while True:
                self.listener.accept()[0].close()


def answers_ping(address: str) -> bool:
    """Ask, and wait for the answer; False where there was none."""
    try:
        with gevent.socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address)
            sock.sendall(bytes([PING, 0, 0, 0]))
            return bool(sock.recv(1))
    except OSError:
        return False


def find_binary(options: Options) -> str:
    """The path of the uwsgi to run, wherever we go to later. ValueError where there is none."""
    assert options.worker is not None
    if options.worker_binary is not None:
        if found := shutil.which(options.worker_binary):
            return absolute(found)
        raise ValueError(f"worker-binary = {options.worker_binary}: no program that can be executed")
    beside = Path(sys.executable).with_name("uwsgi")
    if found := shutil.which(beside) or shutil.which("uwsgi"):
        return absolute(found)
    raise ValueError(
        f"{options.worker.application}: a worker is to run beside the router, and there is no uwsgi at {beside} or on "
        "PATH (pip install uwsgi, or --worker-binary FILE)"
    )


def programs(options: Options, sockets: Sockets, stack: ExitStack, log_fd: int) -> tuple[list[Attached], list[Worker]]:
    """All that is to run beside the routers, and those of it that are nodes. ValueError where it cannot be had."""
    found: dict[str, Attached] = {}
    for command in options.attach_daemon:
        one = daemon(command, log_fd)
        while one.name in found:
            one.name += " "  # the same once more is one more
        found[one.name] = one
    if options.worker is None:
        if any(one.name == NAME for one in sockets.estate.beside):  # it has read its ini, which may hold secrets
            remove(ini_beside(sockets.worker_place()))
        return [*found.values()], []
    place = sockets.worker_place()
    listener = sockets.worker(place) if options.worker.is_private else None
    file = ini_beside(place)
    stack.callback(remove, file)
    worker = Worker(options.worker, find_binary(options), file, listener, log_fd, options.drain_timeout)
    return [worker.program, *found.values()], [worker] if listener else []


def remove(file: str) -> None:
    with suppress(OSError):
        os.unlink(file)
