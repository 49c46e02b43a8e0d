"""One router process: listeners, engine, and the copy of the table that the supervisor keeps up to date.

Executed by the supervisor as `python -P -m router.server FD`, FD being this end of the pair (pair.py); everything else
comes over it. Not monkey-patched (that takes `select.epoll` away), and started deaf to the terminal's signals
(child.py): it ends when it is told to, or when the pair does. A supervisor that is stuck changes nothing here; one that
is gone ends this process after what is in flight.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

import gevent
import gevent.event
import gevent.socket
from gevent.server import StreamServer

from router import stats
from router.budget import Budget
from router.crowd import pause_accepting
from router.deadlines import Limits, end_all, sweep
from router.endpoint import LIVE, OUT, Endpoint
from router.engine import Engine
from router.errors import OFF, Errors
from router.health import Health
from router.keyrules import KeyRules
from router.lag import EVERY, Lag
from router.logfile import reopen
from router.logs import log, log_to
from router.lookups import LOOK_EVERY, NOBODY, Lookups
from router.options import Options
from router.pair import Message, encode, messages, pack_health, take_health, take_loads, unpack_node
from router.postbuffer import BodyRoom
from router.queueing import Queues
from router.relay import resume
from router.session import Detours
from router.static import only_fallback
from router.table import Change, Table
from router.titles import show
from router.waiting import WaitingRoom

LONG_MESSAGE = 0.002  # seconds; after one that took longer, requests have their turn for so long before the next
HEAD_DRAIN = 1  # seconds for a head that has begun when a router stops; web servers send theirs at once


class Acceptor(StreamServer):
    """gevent's server on one listening socket, whose accept step is the engine's: no greenlet a connection."""

    def __init__(self, listener: socket.socket, engine: Engine) -> None:
        listener.setblocking(False)
        super().__init__(listener, handle=lambda *_: None)
        self.engine = engine
        self.accept = listener._accept  # type: ignore[attr-defined]  # without the stdlib's wrapping
        self.family = int(listener.family)

    def _do_read(self) -> None:
        """gevent calls this when the listener is readable."""
        self.take_in()

    def take_in(self) -> bool:
        """Accept what waits. True where more may wait; pauses where the process has no room for more."""
        try:
            return self.engine.accept(self.accept, self.family)
        except OSError as error:
            self.engine.complaints.count("accept", f"accept(): {error.strerror}")
            pause_accepting(self)
            return False


class Router:
    """This process. Built from the supervisor's first message; `run` returns when there is nothing more to do."""

    def __init__(
        self, pair: Any, options: Options, listeners: Sequence[int], on_demand: str, pages: Mapping[str, str]
    ) -> None:
        self.pair = pair
        self.options = options
        self.table = Table(
            on_change=self.on_change,
            on_health=self.on_health,
            on_drain=self.on_drain,
            algorithm=options.algorithm,
            limit=options.max_connections,
        )
        self.feed = self.table.feed("supervisor")
        loop = gevent.get_hub().loop
        rules = KeyRules.of(options)
        wake, wake_room, wake_queues = (loop.timer(0.0) for _ in range(3))
        self.lookups = Lookups(on_demand, timeout=options.lookup_timeout, news=self.on_question)
        self.looks = loop.timer(LOOK_EVERY, LOOK_EVERY)
        self.engine = Engine(
            self.table,
            limits=Limits.of(options),
            errors=None if options.error_pages in ("", OFF) else Errors(int(options.unknown_key_status), pages),
            rules=rules,
            wake=lambda: wake.start(resume, self.engine),
            health=Health(
                self.table,
                gracetime=options.gracetime,
                max_fails=options.max_fails,
                max_ejected=options.max_ejected,
                slow_start=options.slow_start,
                cheap=options.cheap,
                rules=rules,
            ),
            detours=lambda engine: Detours(
                engine,
                max_retries=options.max_retries,
                retry=options.retry,
                budget=Budget(options.retry_budget),
                quiet=options.quiet,
                fallback_on_no_key=options.fallback_on_no_key,
                fallback_key=options.subscription_fallback_key,
            ),
            room=lambda engine: WaitingRoom(
                engine, self.lookups, wake=lambda: wake_room.start(engine.room.serve), rules=rules
            ),
            queues=lambda engine: Queues(
                engine,
                limit=options.max_connections,
                longest=options.max_queue,
                wake=lambda: wake_queues.start(engine.queues.serve),
            ),
            bodies=BodyRoom.of(options),
        )
        self.acceptors = [Acceptor(socket.socket(fileno=fd), self.engine) for fd in listeners]
        self.batches = loop.io(self.engine.fileno(), 1)
        self.sweeps = loop.timer(EVERY, EVERY)
        self.lag = Lag(f"uWSGI fastrouter (pid: {os.getpid()})")
        self.serving = False  # the table is in and nobody has said stop
        self.accepting = False
        self.relayed = False  # health that came from the supervisor is not news to it
        self.health: dict[str, Endpoint] = {}  # whose state the supervisor is to be told
        self.answers: list[Message] = []
        self.news = gevent.event.Event()
        self.stopping = gevent.event.Event()

    def run(self) -> None:
        """Serve until told to stop, then finish what is in flight, within `drain_timeout`."""
        self.batches.start(self.engine.turn)
        self.sweeps.start(self.sweep)
        gevent.spawn(self.write)
        self.stopping.wait()
        for acceptor in self.acceptors:
            acceptor.stop_accepting()
            acceptor.socket.close()
        self.engine.limits.head = min(self.engine.limits.head, HEAD_DRAIN)
        deadline = monotonic() + self.options.drain_timeout
        while self.engine.active and monotonic() < deadline:
            gevent.sleep(0.02)
        end_all(self.engine, self.options.drain_timeout)

    def stop(self, drain: bool) -> None:
        """Accept no more. `drain`: take in first what waits in the backlog, as nobody else will."""
        if self.stopping.is_set():
            return
        if drain and self.accepting:
            for acceptor in self.acceptors:
                while acceptor.take_in():
                    pass
        if self.engine.errors is not None:
            self.engine.errors.stop()
        self.engine.room.stop()  # what waits there, waits for a word that will not come
        self.serving = False
        self.stopping.set()

    def sweep(self) -> None:
        self.lag.note()
        sweep(self.engine)
        self.engine.health.sweep()

    # What the supervisor says.

    def follow(self, orders: Iterable[Message]) -> None:
        """Obey until the supervisor is gone; then others may have the address, so let go of the listeners at once."""
        try:
            for message in orders:
                began = monotonic()
                self.obey(message)
                # Behind the table may be what changed while we started: that comes before the first request.
                if "pools" not in message and monotonic() - began > LONG_MESSAGE:
                    gevent.sleep(LONG_MESSAGE)
        finally:  # a router that obeys no more must not outlive its supervisor
            self.stop(drain=False)

    def obey(self, message: Message) -> None:
        """One message down the pair, in the order of pair.py."""
        if "pools" in message:
            pools = message["pools"].items()
            self.feed.replace({key: [unpack_node(node) for node in nodes] for key, nodes in pools})
        for key, nodes, left in message.get("set", ()):
            for address in left:  # one that is back already starts from zero
                self.feed.withdraw(key, address)
            self.feed.set(key, [unpack_node(node) for node in nodes])
        take_loads(self.feed, message.get("loads", ()))
        self.relayed = True
        take_health(self.table, message.get("out", ()), message.get("live", ()), monotonic())
        self.relayed = False
        if "drained" in message:
            addresses, keys = message["drained"]
            self.table.drain((addresses, keys))
        self.engine.room.deny(message.get("unknown", ()))
        if "warming" in message:
            self.warm(message["warming"])
        self.serving |= "pools" in message
        self.go_cheap_or_not()
        if "log" in message and (reason := reopen(message["log"])):
            log.error("uWSGI fastrouter (pid: %d) cannot open the log file anew: %s", os.getpid(), reason)
        if "count" in message:
            counted = stats.count(self.engine, not self.accepting)
            self.answers.append({"counters": message["count"], "lag": self.lag.worst, **counted})
            self.news.set()
        if "beat" in message:
            self.answers.append({"beaten": message["beat"]})
            self.news.set()
        if message.get("stop"):
            self.stop(drain=True)

    def warm(self, left: float) -> None:
        """Let requests for unknown keys wait for `left` seconds; 0 ends that. A stuck supervisor prolongs nothing."""
        if left > 0:
            self.engine.room.open()
            gevent.spawn_later(left, self.engine.room.close)
        else:
            self.engine.room.close()

    # What happens here.

    def on_change(self, change: Change) -> None:
        self.engine.left_tx += sum(member.tx for member in change.left)
        if change.opened:
            self.engine.room.call(change.key)
        elif self.serving:
            self.engine.health.start_slowly(change.joined)
        self.engine.queues.call()

    def on_drain(self) -> None:
        self.engine.queues.call()

    def on_question(self) -> None:
        """There is a key to ask the supervisor for."""
        self.news.set()
        if not self.looks.active:  # type: ignore[attr-defined]  # all of gevent's watchers have it
            self.looks.start(self.look)

    def look(self) -> None:
        self.engine.room.expire()
        if not self.lookups.open:
            self.looks.stop()

    @property
    def helpless(self) -> bool:
        """True where no node can be asked. Fallback nodes alone help only where they serve keys without nodes, too."""
        serves_some_only = self.options.fallback and not self.options.fallback_on_no_key
        return self.table.empty or bool(serves_some_only and only_fallback(self.table))

    def go_cheap_or_not(self) -> None:
        """Accept while there is a node to ask; a router that is not cheap always accepts."""
        wanted = self.serving and not (self.options.cheap and self.helpless)
        if wanted == self.accepting:
            return
        self.accepting = wanted
        for acceptor in self.acceptors:
            if wanted:
                acceptor.start_accepting()
            else:
                acceptor.stop_accepting()
        if self.options.cheap and self.serving:
            what = "leaving cheap mode..." if wanted else "no more nodes available. Going cheap..."
            log.info("[uWSGI fastrouter pid %d] %s", os.getpid(), what)

    def on_health(self, endpoint: Endpoint) -> None:
        if endpoint.state == LIVE:
            self.engine.health.start_slowly(endpoint.members)
        self.engine.queues.call()
        if self.relayed:
            return
        if endpoint.state in (LIVE, OUT):
            self.health[endpoint.address] = endpoint
            self.news.set()
        self.go_cheap_or_not()

    def write(self) -> None:
        """Tell the supervisor, all that is news at once; while it does not read, the latest replaces the older."""
        while True:
            self.news.wait()
            self.news.clear()
            health, self.health = self.health, {}
            answers, self.answers = self.answers, []
            if health:
                endpoints, now = list(health.values()), monotonic()
                out = [pack_health(endpoint, now) for endpoint in endpoints if endpoint.state == OUT]
                answers.append({"live": [one.address for one in endpoints if one.state == LIVE], "out": out})
            if wanted := self.lookups.take():
                answers.append({"wanted": wanted})
            try:
                self.pair.sendall(b"".join(map(encode, answers)))
            except OSError:
                return  # it is gone, which the reader finds out as well


def main() -> None:
    log_to(sys.stderr)
    pair = gevent.socket.socket(fileno=int(sys.argv[1]))
    orders = messages(pair.recv)
    first = next(orders, None)
    if first is not None:
        show(first.get("title", ""))
        options = Options.from_json(first["options"])
        router = Router(pair, options, first["listeners"], first.get("on_demand", NOBODY), first.get("pages", {}))
        gevent.spawn(router.follow, orders)
        router.run()


if __name__ == "__main__":
    main()
