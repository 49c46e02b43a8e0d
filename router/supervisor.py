"""The process model: owns the sockets and the table, runs the sources, starts and watches the routers.

Routers are executed afresh and get the listening descriptors; the supervisor keeps them open, so a router that dies
costs its own requests and nothing that waits in the backlog. Each `Router` here stands for one such process: what it
has yet to be told is a set of keys, whose present value is sent when it reads, so a stuck router costs no memory.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from math import inf
from random import random
from time import monotonic
from typing import Any

import gevent
import gevent.event
import gevent.pool
import gevent.subprocess
from gevent.server import StreamServer

from router import stats
from router.endpoint import LIVE, OUT, Endpoint
from router.logs import log, log_change
from router.net import bound_name
from router.options import Options
from router.pair import Decoder, Message, encode, pack_node
from router.source import Source, supervise
from router.table import Change, Table

COUNT_WAIT = 0.2  # seconds that a reader of the stats waits for the routers at most
STATS_READERS = 64  # at once; a slow one costs a greenlet
STATS_SEND = 10  # seconds in which a reader takes its stats
RESPAWN_DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0)  # seconds; for routers that die one after the other
RESPAWN_CALM = 5.0  # seconds; who lived longer is replaced at once
KILL_WAIT = 1.0  # seconds beyond drain-timeout before a router that does not end is killed
PAIR_CHUNK = 1 << 18  # bytes


class Router:
    """The supervisor's side of one router process."""

    def __init__(self, supervisor: Supervisor, listeners: Sequence[socket.socket]) -> None:
        self.supervisor = supervisor
        self.pair, theirs = socket.socketpair()
        with theirs:
            fds = [listener.fileno() for listener in listeners]
            self.process = gevent.subprocess.Popen(
                [sys.executable, "-P", "-m", "router.server", str(theirs.fileno())],
                stdin=gevent.subprocess.DEVNULL,
                stdout=supervisor.log_fd,
                stderr=supervisor.log_fd,
                pass_fds=[theirs.fileno(), *fds],
            )
        self.pid: int = self.process.pid
        self.born = monotonic()
        self.counts: stats.Counts = {"cheap": supervisor.options.cheap}  # as it last told
        self.accepting = gevent.event.Event()
        self.news = gevent.event.Event()
        self.told = False  # has it got the table?
        self.keys: dict[str, dict[str, None]] = {}  # keys to send, with the addresses that left them
        self.health: dict[str, None] = {}  # addresses whose state to send
        self.orders: Message = {}
        self.answered: dict[int, gevent.event.Event] = {}
        self.hello = {
            "options": supervisor.options.to_json(),
            "listeners": [[listener.fileno(), bound_name(listener)] for listener in listeners],
        }
        self.greenlets = [gevent.spawn(self.write), gevent.spawn(self.read)]
        self.news.set()

    def note_change(self, change: Change) -> None:
        """Send this key's present value when the router reads."""
        if self.told:
            left = self.keys.setdefault(change.key, {})
            left.update(dict.fromkeys(member.endpoint.address for member in change.left))
            self.news.set()

    def note_health(self, address: str) -> None:
        if self.told:
            self.health[address] = None
            self.news.set()

    def order(self, **orders: Any) -> None:
        self.orders.update(orders)
        self.news.set()

    def ask_counts(self, number: int) -> gevent.event.Event:
        """Ask for the counters as they are when the router reads; the event is set when they are in `counts`."""
        event = self.answered[number] = gevent.event.Event()
        self.order(count=number)
        return event

    def end(self) -> None:
        """The process is gone: nothing more will be said."""
        gevent.killall(self.greenlets)
        self.pair.close()
        for event in self.answered.values():
            event.set()

    def write(self) -> None:
        try:
            self.pair.sendall(encode(self.hello))
            self.told = True  # from here on changes are noted, so nothing falls between the table and the first of them
            self.pair.sendall(encode(self._whole_table()))
            while True:
                self.news.wait()
                self.news.clear()
                self.pair.sendall(encode(self._news()))
        except OSError:
            return  # it has ended; whoever waits for the process sees to it

    def _whole_table(self) -> Message:
        table = self.supervisor.table
        pools = {key: list(map(pack_node, table.nodes(key))) for key in table.pools}
        return {"pools": pools, "out": [endpoint.address for endpoint in table.out]}

    def _news(self) -> Message:
        table = self.supervisor.table
        keys, self.keys = self.keys, {}
        health, self.health = self.health, {}
        message, self.orders = self.orders, {}
        if keys:
            message["set"] = [[key, list(map(pack_node, table.nodes(key))), list(left)] for key, left in keys.items()]
        for name, out in (("out", True), ("live", False)):
            found = [a for a in health if a in table.endpoints and (table.endpoints[a].state == OUT) is out]
            if found:
                message[name] = found
        return message

    def read(self) -> None:
        decoder = Decoder()
        while True:
            try:
                data = self.pair.recv(PAIR_CHUNK)
            except OSError:
                return
            if not data:
                return
            for message in decoder.feed(data):
                self._hear(message)

    def _hear(self, message: Message) -> None:
        table = self.supervisor.table
        for address in message.get("out", ()):
            if endpoint := table.endpoints.get(address):
                table.fail(endpoint, inf)
        for address in message.get("live", ()):
            if endpoint := table.endpoints.get(address):
                table.restore(endpoint)
        if "counters" in message:
            self.counts = message
            for number in [number for number in self.answered if number <= message["counters"]]:
                self.answered.pop(number).set()
        if "accepting" in message:
            self.accepting.set()


class Supervisor:
    """One whole gfrouter. `run` returns when it has stopped: True where SIGHUP asked for a new start."""

    def __init__(
        self,
        options: Options,
        listeners: Sequence[socket.socket],
        sources: Sequence[Source],
        stats_listener: socket.socket | None,
        log_fd: int,
    ) -> None:
        self.options = options
        self.listeners = listeners
        self.sources = sources
        self.log_fd = log_fd
        self.table = Table(on_change=self.on_change, on_health=self.on_health)
        self.feeds = [self.table.feed(source.name) for source in sources]
        self.routers: list[Router] = []
        self.retired: Counter[str] = Counter()
        self.addresses = [bound_name(listener) for listener in listeners]
        self.addresses += [source.address for source in sources if hasattr(source, "address")]
        self.counting = 0
        self.reload = False
        self.stopping = gevent.event.Event()
        self.stats_listener = stats_listener

    # Life.

    def run(self) -> bool:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            gevent.signal_handler(number, self.stop)
        gevent.signal_handler(signal.SIGHUP, self.start_anew)
        if self.stats_listener is not None:
            StreamServer(self.stats_listener, self.serve_stats, spawn=gevent.pool.Pool(STATS_READERS)).start()
        if self.options.cheap:
            log.info("starting uWSGI fastrouter in cheap mode")
        keepers = [gevent.spawn(self.keep, number) for number in range(1, self.options.processes + 1)]
        discoveries = [
            gevent.spawn(supervise, source, feed, sleep=gevent.sleep)
            for source, feed in zip(self.sources, self.feeds, strict=True)
        ]
        self.stopping.wait()
        gevent.killall(discoveries)
        for router in self.routers:
            router.order(stop=True)
        for listener in self.listeners:
            listener.close()
        gevent.joinall(keepers, timeout=self.options.drain_timeout + KILL_WAIT)
        self.kill_routers()
        gevent.joinall(keepers, timeout=KILL_WAIT)
        return self.reload

    def stop(self) -> None:
        """End after what is in flight; the second time, at once."""
        if self.stopping.is_set():
            log.info("told twice: ending at once")
            self.kill_routers()
            return
        limit = self.options.drain_timeout
        log.info("stopping after what is in flight, within %d s; a second signal ends at once", limit)
        self.stopping.set()

    def start_anew(self) -> None:
        self.reload = not self.stopping.is_set()
        self.stop()

    def kill_routers(self) -> None:
        for router in self.routers:
            router.process.kill()

    def keep(self, number: int) -> None:
        """Keep the router `number` running: replace it when it dies."""
        word = "spawned"
        deaths = 0
        while not self.stopping.is_set():
            router = Router(self, self.listeners)
            self.routers.append(router)
            log.info("%s uWSGI fastrouter %d (pid: %d)", word, number, router.pid)
            status = router.process.wait()
            self.routers.remove(router)
            router.end()
            if self.stopping.is_set():
                return
            log.error("uWSGI fastrouter %d (pid: %d) ended with status %d", number, router.pid, status)
            stats.retire(self.table, router.counts)
            self.retired.update(router.counts.get("complaints", {}))
            word = "respawned"
            deaths = 0 if monotonic() - router.born > RESPAWN_CALM else deaths + 1
            delay = RESPAWN_DELAYS[min(deaths, len(RESPAWN_DELAYS) - 1)]
            self.stopping.wait(delay * (0.5 + random()))

    # What changes.

    def on_change(self, change: Change) -> None:
        log_change(change)
        for router in self.routers:
            router.note_change(change)

    def on_health(self, endpoint: Endpoint) -> None:
        if endpoint.state in (LIVE, OUT):
            for router in self.routers:
                router.note_health(endpoint.address)

    # Stats.

    def snapshot(self) -> dict[str, Any]:
        """The stats of now; a router that does not answer in time is shown as it last told."""
        self.counting += 1
        gevent.wait([router.ask_counts(self.counting) for router in self.routers], timeout=COUNT_WAIT)
        return stats.snapshot(
            self.table,
            [(router.pid, router.counts) for router in self.routers],
            addresses=self.addresses,
            sources=self.feeds,
            retired=self.retired,
        )

    def serve_stats(self, client: Any, _address: Any) -> None:
        """One JSON object a connection, then close."""
        text = json.dumps(self.snapshot(), indent=1)
        client.settimeout(STATS_SEND)
        with contextlib.suppress(OSError):  # the reader has left, or does not read
            client.sendall(text.encode())
