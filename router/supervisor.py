"""The process model: owns the sockets and the table, runs the sources, starts and watches the routers.

Routers are executed afresh (child.py) and get the listening descriptors; the supervisor keeps them open, so a router
that dies costs its own requests and nothing that waits in the backlog.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from math import ceil
from time import monotonic, time
from typing import Any

import gevent
import gevent.event

from router import kernel, net, notify, stats
from router.address import HostName, parse_local
from router.admin import admin_server
from router.attached import Askers, Attachments
from router.checks import Checks
from router.child import Child
from router.endpoint import LIVE, OUT, Endpoint
from router.errors import own_pages
from router.feed import Feed
from router.fleet import Fleet
from router.folder import working_directory
from router.handover import Estate, Held, Old, execute, let_signals_through, signals_held_back, why_not
from router.keyrules import KeyRules
from router.lag import EVERY, Lag
from router.listened import Listened
from router.logfile import LogFile
from router.logs import log, log_change
from router.mappers import stand_ins
from router.options import Options
from router.predecessors import KILL_WAIT, Predecessors
from router.questions import Questions, is_on_demand, whom, without_cheap
from router.report import Reporter
from router.resolver import Resolver
from router.resubscribe import Announcer, Announcers
from router.saved import NotOurs, save
from router.shaping import ShapedFeed
from router.source import supervise
from router.sources import Opened, unique_names
from router.sourcestate import Watched
from router.statefile import StateFile, bring_back
from router.statsserver import stats_server
from router.table import Change, Table
from router.view import State
from router.watchdog import Watchdog, own

READY_LOOK = 0.02  # seconds between two looks at whether the new routers accept
READY_WAIT = 10.0  # seconds for that, before a version that does not get so far may be replaced by another one


class Supervisor:
    """One whole gfrouter. `run` returns when it has stopped.

    `listeners` are those of each router; `addresses` are those to show in the stats; `log_fd` is where the routers
    write their lines. `estate` was left by the start before this one, and `held` is to be left to the next one, as are
    the descriptors that we were `given`. `beside` are the programs that run beside the routers, `announcers` tell other
    routers what this one serves.
    ValueError where the folder of error pages cannot be read.
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
        estate: Estate | None = None,
        held: Sequence[Held] = (),
        given: Sequence[int] = (),
        log_file: LogFile | None = None,
        on_ready: Callable[[], None] = lambda: None,
        beside: Attachments | None = None,
        announcers: Sequence[Announcer] = (),
    ) -> None:
        self.options = without_cheap(options, [one.source for one in sources])
        self.pages = own_pages(options.error_pages)
        self.listeners = listeners
        self.log_fd = log_fd
        self.estate = estate or Estate()
        self.table = Table(
            on_change=self.on_change,
            on_health=self.on_health,
            on_drain=self.on_drain,
            on_spoken=self.on_spoken,
            is_own=net.listens_at(chain.from_iterable(listeners), self.estate.home.name if self.estate.home else ""),
            algorithm=options.algorithm,
        )
        self.resolver = Resolver(self.table)
        self.table.on_name = self.resolver.notice
        self.sources = [
            Watched(one.source, one.common.feed(self.table, name, options.max_keys, options.max_nodes), one.url)
            for one, name in zip(sources, unique_names(sources), strict=True)
        ]
        self.watchdog = Watchdog()
        self.lag = Lag("the supervisor")
        on_demand = [one for one in self.sources if is_on_demand(one.source)]
        asked, kind = [one.feed for one in on_demand], whom([one.source for one in on_demand])
        self.questions = Questions(self.table, asked, kind, timeout=options.lookup_timeout)
        self.table.on_answer = self.questions.answered
        self.warm_at, self.held_until = monotonic() + options.warm_timeout, 0.0  # at the latest
        self.slots = [stats.Slot(number) for number in range(1, options.processes + 1)]
        self.addresses = addresses
        self.cwd = working_directory()  # now: a deployment may remove it later
        self.reload = gevent.event.Event()
        self.stopping = gevent.event.Event()
        self.fleet = Fleet(self.slots, self.table, self.start_router, self.stopping)
        self.changes = 0  # so many, of everything that a start remembers of the one before
        self.state_file = (
            StateFile(options.state_file, self.table, self.sources, self.news) if options.state_file else None
        )
        self.held = held
        self.given = given
        self.announcers = Announcers(announcers, self.table, options.resubscribe_keys, self.sources)
        self.predecessors = Predecessors(self.estate.routers)
        self.beside = beside or Attachments()
        self.stats_listener = stats_listener
        self.admin_listener = admin_listener
        self.addresses_by_use = self._addresses_by_use()  # now: a stop closes the listeners, and may take a while
        self.began = monotonic()
        self.log_file = log_file
        self.on_ready = on_ready
        self.reporter = Reporter(self.snapshot)

    # Life.

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            gevent.signal_handler(number, self.stop)
        for number in (signal.SIGHUP, signal.SIGUSR2):
            gevent.signal_handler(number, self.reload.set)
        gevent.signal_handler(signal.SIGUSR1, self.reporter.ask)
        let_signals_through()
        self.begin_with_what_was_known()
        if self.stats_listener is not None:
            stats_server(self.stats_listener, self.snapshot, http=self.options.stats_http).start()
        if self.admin_listener is not None:
            admin_server(self.admin_listener, self.look, self.admin_names()).start()
        if self.options.cheap:
            log.info("starting uWSGI fastrouter in cheap mode")
        self.fleet.run()
        self.beside.run(Askers(lambda: bool(self.predecessors.alive), self.hold, self.fleet.count))
        lookers = [gevent.spawn(self.resolver.run), gevent.spawn(self.questions.run)]
        if self.options.health_check != "none":
            lookers.append(gevent.spawn(Checks(self.table, self.options).run))
        self.announcers.start()
        discoveries = [gevent.spawn(self.discover, source) for source in self.sources]
        watches: list[Callable[[], None]] = [self.watch_sources, self.watchdog.run, self.succeed, self.reporter.run]
        if self.options.harakiri:
            watches.append(partial(self.fleet.watch, self.options.harakiri))
        if self.state_file is not None:
            watches.append(self.state_file.run)
        if self.log_file is not None:
            watches.append(partial(self.log_file.run, self.fleet.order))
        watchers = [gevent.spawn(watch) for watch in watches]
        self.watchdog.start()
        gevent.spawn(self.say_who_is_waited_for)  # behind those who have something to say at once
        self.stopping.wait()
        notify.stopping()
        self.announcers.withdraw()  # while we still accept what they send
        gevent.killall([*lookers, *discoveries], block=False)  # one that does not let go must not keep us
        self.fleet.order(stop=True)
        self.predecessors.stop(self.options.drain_timeout)
        if self.state_file is not None:
            self.state_file.finish()
        for listener in chain.from_iterable(self.listeners):
            listener.close()
        keepers = [*self.fleet.keepers, *self.predecessors.greenlets]
        gevent.joinall(keepers, timeout=self.options.drain_timeout + KILL_WAIT)
        self.kill_routers()
        gevent.joinall(keepers, timeout=KILL_WAIT)
        self.beside.stop()  # which nobody asks any more
        gevent.killall(watchers)
        self.watchdog.stop()

    def stop(self) -> None:
        """End after what is in flight; the second time, at once."""
        if self.stopping.is_set():
            log.info("told twice: ending at once")
            self.kill_routers()
            self.beside.kill()
            return
        limit = self.options.drain_timeout
        log.info("stopping after what is in flight, within %d s; a second signal ends at once", limit)
        self.stopping.set()

    def succeed(self) -> None:
        """Let the routers of the start before end when ours accept; from then on, start anew whenever that is asked."""
        if self.estate.again:
            self.reload.set()
        patience = monotonic() + READY_WAIT
        while not self.fleet.ready():
            self.fleet.count()
            if self.reload.is_set() and monotonic() > patience:
                self.start_anew()
            gevent.sleep(READY_LOOK)
        notify.ready()
        self.on_ready()
        self.predecessors.stop(self.options.drain_timeout)
        while True:
            self.reload.wait()
            self.start_anew()

    def begin_with_what_was_known(self) -> None:
        """To the start before this one, of which its routers may still serve, or to one that left a file."""
        if self.estate.resumed:
            try:
                bring_back(self.estate.state, self.table, self.sources, "handed over")
            except NotOurs as reason:  # as a start of another version wrote it
                log.error("what the start before knew is of no use: %s", reason)
        elif self.state_file is not None:
            self.state_file.restore()

    def start_anew(self) -> None:
        """Execute gfrouter in our place, if it would start. While stopping already, there is nothing more to do."""
        log.info("starting anew, when the configuration is checked")
        self.reload.clear()
        nothing = save(Table(), (), now=monotonic(), wall=time())
        if (
            reason := why_not(Estate([*self.held], state=nothing, home=self.estate.home), self.given)
        ) and not self.stopping.is_set():
            log.error("not starting anew, going on as before: %s", reason)
            return
        with self.beside.gate, signals_held_back():
            if self.stopping.is_set():
                return
            notify.reloading()
            self.watchdog.stop()
            execute(self.estate_left())
            self.watchdog.start()
            notify.ready()

    def estate_left(self) -> Estate:
        routers = [Old(one.pid, one.pair.fileno(), midway=one.is_midway()) for one in self.fleet.routers]
        state = save(self.table, self.sources, now=monotonic(), wall=time())
        waited_for = self.waited_for() if self.warming_left() else []
        spoken = [one.name for one in self.sources if one not in waited_for]
        routers += self.predecessors.bequests()
        again, beside = self.reload.is_set(), self.beside.bequests()
        return replace(
            self.estate, held=[*self.held], routers=routers, state=state, spoken=spoken, again=again, beside=beside
        )

    def kill_routers(self) -> None:
        self.predecessors.kill()
        self.fleet.kill()

    def start_router(self, slot: stats.Slot) -> Child:
        return Child(
            slot,
            self.table,
            self.options,
            self.listeners[slot.number - 1],
            self.log_fd,
            self.warming_left,
            self.questions,
            self.pages,
        )

    # Sources.

    def discover(self, source: Watched) -> None:
        """Keep this source running in this greenlet."""
        own(source)
        supervise(source, source.feed, sleep=gevent.sleep)

    def watch_sources(self) -> None:
        """Each second: what could not be seen for too long while we looked is stale. And is our loop late?"""
        listened = Listened(monotonic, EVERY)
        while True:
            self.lag.note()
            now = listened()
            for source in self.sources:
                source.sample()
                if isinstance(source.feed, ShapedFeed):
                    source.feed.age(now)
            gevent.sleep(EVERY)

    # Warming: a router ends it by itself when the time is over, and is told when every source has spoken before that.

    def warming_left(self) -> float:
        """Seconds for which a request for an unknown key may still wait for a source to name it."""
        return max(0.0, (self.warm_at if self.waited_for() else self.held_until) - monotonic())

    def hold(self, seconds: float) -> None:
        """Let requests for unknown keys wait for so long, as if we were warming; 0 ends it."""
        self.held_until = monotonic() + seconds
        self.fleet.order(warming=self.warming_left())
        self.announcers.hold(seconds > 0)

    def waited_for(self) -> list[Watched]:
        """The sources that have not given all that they can see, and for which the start before waited, too. Nobody
        waits where a worker of our own serves what has no other node.
        """
        if self.options.worker and self.options.worker.is_private:
            return []
        return [one for one in self.sources if not one.feed.spoken and one.name not in self.estate.spoken]

    def say_who_is_waited_for(self) -> None:
        if self.warming_left():
            names = ", ".join(source.name for source in self.waited_for())
            log.info("warming: requests for unknown keys wait for %s, up to %d s", names, self.options.warm_timeout)

    def on_spoken(self, _feed: Feed) -> None:
        if not self.warming_left():
            self.fleet.order(warming=0)

    # What changes.

    def news(self) -> tuple[int, ...]:
        """What is another one when there is something new to remember."""
        return (self.changes, *(one.feed.progressed for one in self.sources))

    def on_change(self, change: Change) -> None:
        self.changes += 1
        log_change(change)
        if change.opened:
            self.questions.known(change.key)
        self.fleet.note_change(change)
        self.announcers.note([change.key])

    def on_health(self, endpoint: Endpoint) -> None:
        self.changes += 1
        if endpoint.state == OUT:
            endpoint.failed_at = time()
        if endpoint.state in (LIVE, OUT):
            self.fleet.note_health(endpoint.address)
        self.announcers.note_health(endpoint)

    def on_drain(self) -> None:
        self.changes += 1
        self.fleet.note_drain()
        self.announcers.note(list(self.table.pools))

    # Stats and the admin API.

    def look(self, counted: bool) -> State:
        """All that the admin API shows, as it is now; the counters are those of now only where `counted`."""
        all_counted = counted and self.fleet.count()
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
            lag=self.lag.worst,
            all_counted=all_counted,
            rules=KeyRules.of(self.options),
            receivers=self.announcers.rows(),
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
        self.fleet.count()
        return stats.snapshot(
            self.table,
            self.slots,
            addresses=self.addresses,
            sources=[source.row() for source in self.sources],
            receivers=self.announcers.rows(),
            cwd=self.cwd,
            warming=ceil(self.warming_left()),
            lookups=self.questions.counts(),
            listen_queue=sum(map(kernel.listen_queue, set(chain.from_iterable(self.listeners)))),
            usage=kernel.usage,
            beside=self.beside.rows(),
        )
