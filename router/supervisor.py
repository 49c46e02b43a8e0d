"""The process model: owns the sockets and the table, runs the sources, starts and watches the routers.

Routers are executed afresh (child.py) and get the listening descriptors; the supervisor keeps them open, so a router
that dies costs its own requests and nothing that waits in the backlog.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from math import ceil
from random import random
from time import monotonic, time
from typing import Any

import gevent
import gevent.event
import gevent.subprocess

from router import kernel, net, stats
from router.address import HostName, parse_local
from router.admin import admin_server
from router.child import Child
from router.endpoint import LIVE, OUT, Endpoint
from router.feed import Feed
from router.listened import Listened
from router.logs import log, log_change
from router.options import Options
from router.questions import Questions, is_on_demand, whom
from router.resolver import Resolver
from router.shaping import ShapedFeed
from router.source import Source, supervise
from router.sources import Opened, unique_names
from router.sourcestate import Watched
from router.static import FALLBACK, TO
from router.statsserver import stats_server
from router.table import Change, Table
from router.view import State
from router.watchdog import Watchdog, own

COUNT_WAIT = 0.2  # seconds that a reader of the stats waits for the routers at most
RESPAWN_DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0)  # seconds; for routers that die one after the other
RESPAWN_CALM = 5.0  # seconds; who lived longer is replaced at once
WATCH_EVERY = 1.0  # seconds between two looks at how the sources are
BEAT_EVERY = 1.0  # seconds between two signs of life that a router is asked for
KILL_WAIT = 1.0  # seconds beyond drain-timeout before a router that does not end is killed


class Supervisor:
    """One whole gfrouter. `run` returns when it has stopped: True where SIGHUP asked for a new start.

    `listeners` are those of each router; `addresses` are those to show in the stats; `log_fd` is where the routers
    write their lines.
    """

    def __init__(
        self,
        options: Options,
        listeners: Sequence[Sequence[socket.socket]],
        sources: Sequence[Opened],
        stats_listener: socket.socket | None,
        addresses: Sequence[str],
        log_fd: int,
        admin_listener: socket.socket | None = None,
    ) -> None:
        self.options = without_cheap(options, [one.source for one in sources])
        self.listeners = listeners
        self.log_fd = log_fd
        self.table = Table(
            on_change=self.on_change,
            on_health=self.on_health,
            on_drain=self.on_drain,
            on_spoken=self.on_spoken,
            is_own=net.listens_at(chain.from_iterable(listeners)),
        )
        self.resolver = Resolver(self.table)
        self.table.on_name = self.resolver.notice
        self.sources = [
            Watched(one.source, one.common.feed(self.table, name, options.max_keys, options.max_nodes), one.url)
            for one, name in zip(sources, unique_names(sources), strict=True)
        ]
        self.watchdog = Watchdog()
        on_demand = [one for one in self.sources if is_on_demand(one.source)]
        asked, kind = [one.feed for one in on_demand], whom([one.source for one in on_demand])
        self.questions = Questions(self.table, asked, kind, timeout=options.lookup_timeout)
        self.table.on_answer = self.questions.answered
        self.warm_at = monotonic() + options.warm_timeout  # at the latest
        self.routers: list[Child] = []
        self.slots = [stats.Slot(number) for number in range(1, options.processes + 1)]
        self.addresses = addresses
        self.cwd = working_directory()  # now: a deployment may remove it later
        self.counting = 0
        self.reload = False
        self.stopping = gevent.event.Event()
        self.stats_listener = stats_listener
        self.admin_listener = admin_listener
        self.addresses_by_use = self._addresses_by_use()  # now: a stop closes the listeners, and may take a while
        self.began = monotonic()

    # Life.

    def run(self) -> bool:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            gevent.signal_handler(number, self.stop)
        gevent.signal_handler(signal.SIGHUP, self.start_anew)
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # uWSGI knows them, and tools send them; they must not kill
            signal.signal(number, signal.SIG_IGN)
        if self.stats_listener is not None:
            stats_server(self.stats_listener, self.snapshot, http=self.options.stats_http).start()
        if self.admin_listener is not None:
            admin_server(self.admin_listener, self.look, self.admin_names()).start()
        if self.options.cheap:
            log.info("starting uWSGI fastrouter in cheap mode")
        keepers = [gevent.spawn(self.keep, slot) for slot in self.slots]
        lookers = [gevent.spawn(self.resolver.run), gevent.spawn(self.questions.run)]
        discoveries = [gevent.spawn(self.discover, source) for source in self.sources]
        watchers = [gevent.spawn(self.watch_sources), gevent.spawn(self.watchdog.run)]
        if self.options.harakiri:
            watchers.append(gevent.spawn(self.watch_routers))
        self.watchdog.start()
        gevent.spawn(self.say_who_is_waited_for)  # behind those who have something to say at once
        self.stopping.wait()
        gevent.killall([*lookers, *discoveries], block=False)  # one that does not let go must not keep us
        for router in self.routers:
            router.order(stop=True)
        for listener in chain.from_iterable(self.listeners):
            listener.close()
        gevent.joinall(keepers, timeout=self.options.drain_timeout + KILL_WAIT)
        self.kill_routers()
        gevent.joinall(keepers, timeout=KILL_WAIT)
        gevent.killall(watchers)
        self.watchdog.stop()
        return self.reload

    def stop(self) -> None:
        """End after what is in flight; the second time, at once."""
        self.reload = False
        if self.stopping.is_set():
            log.info("told twice: ending at once")
            self.kill_routers()
            return
        limit = self.options.drain_timeout
        log.info("stopping after what is in flight, within %d s; a second signal ends at once", limit)
        self.stopping.set()

    def start_anew(self) -> None:
        """Stop, and start again. While stopping already, SIGHUP asks for nothing more."""
        if not self.stopping.is_set():
            self.stop()
            self.reload = True

    def kill_routers(self) -> None:
        for router in self.routers:
            router.process.kill()

    def keep(self, slot: stats.Slot) -> None:
        """Keep a router running in this slot: replace it when it dies."""
        number = slot.number
        word = "spawned"
        deaths = 0
        while not self.stopping.is_set():
            try:
                listeners = self.listeners[number - 1]
                router = Child(
                    slot, self.table, self.options, listeners, self.log_fd, self.warming_left, self.questions
                )
            except (OSError, gevent.subprocess.SubprocessError) as error:
                # Short of memory or descriptors, or the interpreter is being replaced: later may be better.
                log.error("cannot start uWSGI fastrouter %d: %s", number, error)
                self.stopping.wait(RESPAWN_DELAYS[-1])
                continue
            self.routers.append(router)
            if self.stopping.is_set():  # since the loop looked: starting a process takes a while
                router.order(stop=True)
            log.info("%s uWSGI fastrouter %d (pid: %d)", word, number, router.pid)
            status = router.process.wait()
            self.routers.remove(router)
            router.end()
            stats.retire(self.table, slot)
            if self.stopping.is_set():
                return
            log.error("uWSGI fastrouter %d (pid: %d) ended with status %d", number, router.pid, status)
            word = "respawned"
            deaths = 0 if monotonic() - router.born > RESPAWN_CALM else deaths + 1
            delay = RESPAWN_DELAYS[min(deaths, len(RESPAWN_DELAYS) - 1)]
            self.stopping.wait(delay * (0.5 + random()))

    def watch_routers(self) -> None:
        """Each second: a router whose loop is stuck for `harakiri` seconds is killed, and so replaced."""
        while True:
            for router in self.routers:
                router.watch(self.options.harakiri)
            gevent.sleep(BEAT_EVERY)

    # Sources.

    def discover(self, source: Watched) -> None:
        """Keep this source running in this greenlet."""
        own(source)
        supervise(source, source.feed, sleep=gevent.sleep)

    def watch_sources(self) -> None:
        """Each second: what could not be seen for too long while we looked is stale."""
        listened = Listened(monotonic, WATCH_EVERY)
        while True:
            now = listened()
            for source in self.sources:
                source.sample()
                if isinstance(source.feed, ShapedFeed):
                    source.feed.age(now)
            gevent.sleep(WATCH_EVERY)

    # Warming: a router ends it by itself when the time is over, and is told when every source has spoken before that.

    def warming_left(self) -> float:
        """Seconds for which a request for an unknown key may still wait for a source to name it."""
        return 0.0 if all(source.feed.spoken for source in self.sources) else max(0.0, self.warm_at - monotonic())

    def say_who_is_waited_for(self) -> None:
        if self.warming_left():
            names = ", ".join(source.name for source in self.sources if not source.feed.spoken)
            log.info("warming: requests for unknown keys wait for %s, up to %d s", names, self.options.warm_timeout)

    def on_spoken(self, _feed: Feed) -> None:
        if not self.warming_left():
            for router in self.routers:
                router.order(warming=0)

    # What changes.

    def on_change(self, change: Change) -> None:
        log_change(change)
        if change.opened:
            self.questions.known(change.key)
        for router in self.routers:
            router.note_change(change)

    def on_health(self, endpoint: Endpoint) -> None:
        if endpoint.state == OUT:
            endpoint.failed_at = time()
        if endpoint.state in (LIVE, OUT):
            for router in self.routers:
                router.note_health(endpoint.address)

    def on_drain(self) -> None:
        for router in self.routers:
            router.note_drain()

    # Stats and the admin API.

    def count(self) -> None:
        """Ask the routers what they have counted; one that does not answer in time is shown as it last told."""
        self.counting += 1
        number, asked = self.counting, list(self.routers)
        gevent.wait([router.ask_counts(number) for router in asked], timeout=COUNT_WAIT)
        for router in asked:
            router.forget_counts(number)

    def look(self, counted: bool) -> State:
        """All that the admin API shows, as it is now; the counters are those of now only where `counted`."""
        if counted:
            self.count()
        return State(
            self.table,
            self.slots,
            sources=[source.row() for source in self.sources],
            addresses=self.addresses_by_use,
            on_demand=[one.name for one in self.sources if is_on_demand(one.source)],
            stand_ins=stand_ins(self.options),
            pid=os.getpid(),
            began=self.began,
            warming=ceil(self.warming_left()),
            now=monotonic(),
            wall=time(),
        )

    def _addresses_by_use(self) -> dict[str, list[str]]:
        listen = [net.bound_name(listener) for listener in self.listeners[0]]
        servers = {"stats": self.stats_listener, "admin": self.admin_listener}
        return {
            "listen": listen,
            "subscriptions": [address for address in self.addresses if address not in listen],
            **{use: [net.bound_name(listener)] for use, listener in servers.items() if listener is not None},
        }

    def admin_names(self) -> list[str]:
        """Host names under which the admin API may be asked: the one that it was given."""
        local = parse_local(self.options.admin) if self.options.admin else None
        return [local.host] if isinstance(local, HostName) else []

    def snapshot(self) -> dict[str, Any]:
        """The stats of now."""
        self.count()
        return stats.snapshot(
            self.table,
            self.slots,
            addresses=self.addresses,
            sources=[source.row() for source in self.sources],
            cwd=self.cwd,
            warming=ceil(self.warming_left()),
            lookups=self.questions.counts(),
            listen_queue=sum(map(kernel.listen_queue, set(chain.from_iterable(self.listeners)))),
            usage=kernel.usage,
        )


def stand_ins(options: Options) -> list[str]:
    """The keys whose nodes serve a key that has none, in the order in which they are asked."""
    fallback = [FALLBACK] if options.fallback_on_no_key else []
    return [*filter(None, [options.subscription_fallback_key]), TO, *fallback]


def without_cheap(options: Options, sources: Sequence[Source]) -> Options:
    """What a router that accepts nothing is never asked for, no source on demand is asked for either."""
    names = ", ".join(source.name for source in sources if is_on_demand(source))
    if not (options.cheap and names):
        return options
    log.warning("cheap mode is off: %s knows a node only when a request has asked for it", names)
    return replace(options, cheap=False)


def working_directory() -> str:
    """Where we were started; empty where that has been removed since."""
    try:
        return os.getcwd()
    except OSError:
        return ""
