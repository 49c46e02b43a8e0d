"""Active checks: the supervisor asks each node again and again how it is, and leaves out who does not answer well.

Each endpoint is asked by itself, whatever keys it serves, at times of its own, so that nodes that came together are not
asked together. A check is done within `health-timeout`, or has failed; at most CHECKS are under way. Where this process
is short of something, nothing has been found out about the node. Sockets are bare and never block.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from _socket import socket as Socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from random import random
from time import monotonic

import gevent
from gevent.pool import Pool
from gevent.socket import wait_read, wait_write

from router.endpoint import LIVE, Cause, Endpoint
from router.logs import Complaints
from router.options import Options
from router.static import RESERVED
from router.table import Table
from router.uwsgi import PacketError, build, printable

CHECKS = 64  # under way; a thousand nodes that hang are asked within 32 s all the same
LOOK_EVERY = 1.0  # seconds between two looks at who is due
JITTER = 0.1  # of the interval, more or less
AGAIN = 0.05  # seconds before the next connect to a unix socket whose backlog is full
MOST_HEAD = 4096  # bytes in which the status line of an answer ends
PING = 100  # modifier1 of uWSGI's ping and of the answer
OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))  # no node's fault

STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3})[ \r\n]")


class Bad(Exception):
    """The node has answered, but not well; the text says how."""


@dataclass(slots=True)
class Checked:
    """What is known of one endpoint."""

    endpoint: Endpoint
    due: float  # monotonic seconds; never while a check is under way
    good: int = 0  # in a row
    bad: int = 0


class Checks:
    """The checks of all endpoints of `table`, as `options` want them. `ask` raises OSError, Bad, gevent.Timeout, or
    PacketError where there is no way to ask.
    """

    def __init__(
        self,
        table: Table,
        options: Options,
        *,
        ask: Callable[[Endpoint], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.table = table
        self.options = options
        self.ask = ask or {"connect": self.connect, "ping": self.ping, "request": self.request}[options.health_check]
        self.clock = clock
        self.known: dict[str, Checked] = {}
        self.pool = Pool(CHECKS)
        self.complaints = Complaints()
        first, _, last = options.health_status.partition("-")
        self.statuses = range(int(first), int(last or first) + 1)
        self.vars = dict(var.split("=", 1) for var in options.health_var)

    def run(self) -> None:
        """Ask whoever is due, until killed."""
        while True:
            self.complaints.next_second()
            self.turn()
            gevent.sleep(LOOK_EVERY)

    def turn(self) -> None:
        """Begin the checks that are due, waiting while too many are under way; forget who has left."""
        now = self.clock() + LOOK_EVERY / 2  # rather too early by half a look than too late by a whole one
        endpoints = self.table.endpoints
        self.known = {
            address: checked for address, checked in self.known.items() if endpoints.get(address) is checked.endpoint
        }
        for address, endpoint in list(endpoints.items()):
            checked = self.known.get(address)
            if checked is None:
                due = now + self.options.health_interval * random()
                self.known[address] = Checked(endpoint, due)
            elif checked.due <= now:
                checked.due = inf
                self.pool.spawn(self.check, checked)

    def check(self, checked: Checked) -> None:
        """One check, and what follows from it."""
        if not checked.endpoint.members:
            return  # it has left since its turn came
        trouble: str | None = ""
        try:
            with gevent.Timeout(self.options.health_timeout):
                self.ask(checked.endpoint)
        except gevent.Timeout:
            trouble = f"no answer within {self.options.health_timeout} s"
        except Bad as error:
            trouble = str(error)
        except PacketError as error:
            trouble = None
            self.complaints.count("check", f"node {printable(checked.endpoint.address)} cannot be asked: {error}")
        except OSError as error:
            trouble = None if error.errno in OURS else error.strerror or type(error).__name__
        checked.due = self.clock() + self.options.health_interval * (1 - JITTER + 2 * JITTER * random())
        if trouble is not None and self.table.endpoints.get(checked.endpoint.address) is checked.endpoint:
            self.judge(checked, trouble)

    def judge(self, checked: Checked, trouble: str) -> None:
        """The endpoint's check went well (no trouble), or did not."""
        endpoint, options = checked.endpoint, self.options
        is_out = endpoint.state != LIVE and endpoint.cause == Cause.CHECK
        checked.good, checked.bad = (0, checked.bad + 1) if trouble else (checked.good + 1, 0)
        name = printable(endpoint.address)
        if not is_out and checked.bad >= options.health_fall:
            self.table.fail(endpoint, inf, Cause.CHECK, times=0)
            self.complaints.count("check", f"node {name} is out, its checks fail: {printable(trouble)}")
        elif is_out and checked.good >= options.health_rise:
            if endpoint.ejected_until > self.clock():
                self.table.fail(endpoint, endpoint.ejected_until, Cause.EJECTED, times=0, firm=True)
                return
            self.table.restore(endpoint, Cause.CHECK)
            self.complaints.count("check", f"node {name} is in turn again, its checks go well")

    # How a node is asked.

    def connect(self, endpoint: Endpoint) -> None:
        """Whether it takes a connection, or the kernel does for it."""
        with connected(endpoint):
            pass

    def ping(self, endpoint: Endpoint) -> None:
        """uWSGI's ping; the answer is a packet with the same modifier, and perhaps a warning that was set there."""
        with connected(endpoint) as sock:
            send(sock, build((), PING))
            said = receive(sock, lambda data: len(data) >= 4)
        if len(said) < 4 or said[0] != PING:
            raise Bad("its answer is no uWSGI's to a ping" if said else "closed without an answer")

    def request(self, endpoint: Endpoint) -> None:
        """A request of one of its keys; the status counts, and the rest of the answer is not waited for."""
        member = min(endpoint.members, key=lambda member: member.pool.key)
        host = {} if member.pool.key in RESERVED else {"HTTP_HOST": member.pool.key}
        said = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/", "PATH_INFO": "/", **host, **self.vars}
        pairs = [
            (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
            for name, value in said.items()
        ]
        packet = build(pairs, member.node.modifier1, member.node.modifier2)
        with connected(endpoint) as sock:
            send(sock, packet)
            head = receive(sock, lambda data: b"\n" in data or len(data) > MOST_HEAD)
        status = STATUS_LINE.match(head)
        if status is None:
            raise Bad("its answer is no HTTP" if head else "closed without an answer")
        if int(status[1]) not in self.statuses:
            raise Bad(f"status {int(status[1])}")


@contextmanager
def connected(endpoint: Endpoint) -> Iterator[Socket]:
    """A connection there; OSError where none comes about."""
    sock = Socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        while number := sock.connect_ex(endpoint.sockaddr):
            if number == errno.EAGAIN:
                gevent.sleep(AGAIN)
                continue
            if number == errno.EINPROGRESS:
                wait_write(sock.fileno())
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))
            break
        yield sock
    finally:
        sock.close()


def send(sock: Socket, data: bytes) -> None:
    while data:
        wait_write(sock.fileno())
        data = data[sock.send(data) :]


def receive(sock: Socket, is_enough: Callable[[bytes], bool]) -> bytes:
    """What comes until it is enough, or to the end."""
    data = b""
    while not is_enough(data):
        wait_read(sock.fileno())
        piece = sock.recv(MOST_HEAD)
        if not piece:
            break
        data += piece
    return data
