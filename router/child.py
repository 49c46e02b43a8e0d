"""The supervisor's side of one router process: what it has yet to be told, and what it has said.

What is to be told is a set of keys and of addresses, whose present state is sent when the router reads: a stuck router
costs little memory, and one that is stuck while everything changes is killed, for a fresh one gets the whole table.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic, time
from typing import Any

import gevent
import gevent.event
import gevent.subprocess

from router.algorithmname import LOAD
from router.endpoint import OUT
from router.options import Options
from router.pair import Message, encode, messages, pack_health, pack_loads, pack_pool, take_findings
from router.pool import Member
from router.questions import Questions
from router.queueing import share
from router.stats import Slot
from router.table import Change, Table
from router.titles import routers_title

log = logging.getLogger("gfrouter")

SET_NODES = 1000  # in one message: a router takes them in within 15 ms, which requests can wait
SET_PAUSE = 0.001  # seconds between two such; a wait of nothing would leave sockets unserved
# Said after all keys that have changed: whoever waits for one of them must not be refused, nor the counters come of a
# router that does not know what they are shown beside.
LATE = ("warming", "count")
UNSENT_KEYS = 100_000  # that changed and were not read; about 20 MB
START_BEATS = 30  # in which a process answers for the first time, on a machine that is busy with many such
STUCK = 5.0  # seconds without reading, after which so many are too many; all sources may say theirs in one go


def deaf() -> None:
    """In the new process: what a terminal sends to the whole group must not meet a router that is still starting.

    Nor must what is sent to all processes of that name, and asks the supervisor for something.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


class Child:
    """One router process, started in `slot` when this is made. OSError where that cannot be done.

    `warming_left` gives the seconds for which a request for an unknown key may still wait. `questions` takes the keys
    for which the router asks; `pages` are the user's own for errors, by status.
    """

    def __init__(
        self,
        slot: Slot,
        table: Table,
        options: Options,
        listeners: Sequence[socket.socket],
        log_fd: int,
        warming_left: Callable[[], float],
        questions: Questions,
        pages: Mapping[str, str],
    ) -> None:
        self.slot = slot
        self.table = table
        self.questions = questions
        self.warming_left = warming_left
        self.pair, theirs = socket.socketpair()
        fds = [listener.fileno() for listener in listeners]  # now: a stop may close them while the process starts
        with theirs:
            self.process = gevent.subprocess.Popen(
                [sys.executable, "-P", "-m", "router.server", str(theirs.fileno())],
                stdin=gevent.subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=[theirs.fileno(), *fds],
                preexec_fn=deaf,
            )
        self.pid: int = self.process.pid
        self.born = monotonic()
        slot.fill(self.pid, time(), cheap=options.cheap)
        self.news = gevent.event.Event()
        self.told = False  # has it got the table?
        self.sending_since: float | None = None  # monotonic seconds; None while it has read all that was sent
        self.killed = False
        self.heard = False  # has it told anything after its table?
        self.beat = 0  # the last one that was asked for
        self.beaten = 0  # the last one that was answered
        self.keys: dict[str, dict[str, None]] = {}  # keys to send, with the addresses that left them
        self.loads: dict[Member, None] = {}  # whose load to send
        self.health: dict[str, None] = {}  # addresses whose state to send
        self.unknown: dict[str, None] = {}  # keys that it has asked for and nobody serves
        self.orders: Message = {}
        self.answered: dict[int, gevent.event.Event] = {}
        limit = share(options.max_connections, slot.number, options.processes)
        own = dataclasses.replace(options, max_connections=limit)
        self.hello: Message = {"options": own.to_json(), "listeners": fds, "on_demand": questions.whom}
        self.hello["pages"] = dict(pages)
        self.hello["title"] = routers_title(options, slot.number)
        self.greenlets = [gevent.spawn(self._talk, self.write), gevent.spawn(self._talk, self.read)]
        self.news.set()

    def note_change(self, change: Change) -> None:
        """Send this key's present value when the router reads."""
        if not self.told:
            return
        self.loads.update(dict.fromkeys(change.loads))
        if change.only_loads:
            self.news.set()
        else:
            left = dict.fromkeys(member.endpoint.address for member in change.left)
            self.keys.setdefault(change.key, {}).update(left)
            self.health.update(left)  # one that is back, here or under another key, is in turn again
            self.news.set()
            if len(self.keys) > UNSENT_KEYS and self._is_stuck() and not self.killed:
                log.error("uWSGI fastrouter (pid: %d) has not read %d changes: killed", self.pid, len(self.keys))
                self.killed = True
                self.process.kill()

    def note_health(self, address: str) -> None:
        if self.told:
            self.health[address] = None
            self.news.set()

    def note_unknown(self, key: str) -> None:
        """Nobody serves this key, for which the router has asked."""
        self.unknown[key] = None
        self.news.set()

    def note_drain(self) -> None:
        if self.told:
            self.order(drained=drained(self.table))

    def order(self, **orders: Any) -> None:
        self.orders.update(orders)
        self.news.set()

    def watch(self, most: int) -> None:
        """Once a second: ask for a sign of life, and kill the process after `most` in a row that did not come.

        Beats are counted, not seconds: a supervisor that was stopped or late has asked for none meanwhile, and reads
        the answers that wait for it before it asks for the next one.
        """
        allowed = most if self.beaten else max(most, START_BEATS)
        if self.beat - self.beaten > allowed and not self.killed:
            log.error("*** HARAKIRI ON GATEWAY uWSGI fastrouter %d (pid: %d) ***", self.slot.number, self.pid)
            self.slot.harakiris += 1
            self.killed = True
            self.process.kill()
        self.beat += 1
        self.order(beat=self.beat)

    def ask_counts(self, number: int) -> gevent.event.Event:
        """Ask for the counters as they are when the router reads; the event is set when they are in the slot.

        Whoever has waited long enough says so by `forget_counts`.
        """
        event = self.answered[number] = gevent.event.Event()
        self.order(count=number)
        return event

    def forget_counts(self, number: int) -> None:
        self.answered.pop(number, None)

    def end(self) -> None:
        """The process is gone: nothing more will be said."""
        gevent.killall(self.greenlets)
        self.pair.close()
        for event in self.answered.values():
            event.set()

    def _talk(self, work: Callable[[], None]) -> None:
        """Do `work` while the process lives; a fault of ours must leave no router that nobody speaks with."""
        try:
            work()
        except OSError:
            return  # it has ended; whoever waits for the process sees to it
        except Exception:
            log.exception("uWSGI fastrouter (pid: %d): internal error, killed", self.pid)
            self.process.kill()

    def write(self) -> None:
        self._send(self.hello)
        self.told = True  # from here on changes are noted, so nothing falls between the table and the first of them
        self._send(self._whole_table())
        while True:
            self.news.wait()
            self.news.clear()
            self._send(self._news())
            if self.keys:
                self.news.set()
                gevent.sleep(SET_PAUSE)

    def _send(self, message: Message) -> None:
        data = encode(message)
        self.sending_since = monotonic()
        self.pair.sendall(data)
        self.sending_since = None

    def is_midway(self) -> bool:
        """Whether it has not been sent all that was begun, or nothing yet: another message would be misunderstood."""
        return not self.told or self.sending_since is not None

    def _is_stuck(self) -> bool:
        return self.sending_since is not None and monotonic() - self.sending_since >= STUCK

    def _whole_table(self) -> Message:
        table = self.table
        pools = {key: pack_pool(table, key) for key in table.pools}
        now = monotonic()
        return {
            "pools": pools,
            "loads": pack_loads(self._loads_of(table.pools)),
            "out": [pack_health(endpoint, now) for endpoint in table.out],
            "drained": drained(table),
            "warming": self.warming_left(),
        }

    def _news(self) -> Message:
        table = self.table
        keys = self._next_keys()
        health: dict[str, None] = {}
        message, self.orders = self.orders, {}
        if self.keys:
            self.orders = {word: message.pop(word) for word in LATE if word in message}
        else:  # what is out or in turn must be there before that is said of it
            health, self.health = self.health, {}
        unknown, self.unknown = [key for key in self.unknown if key not in table.pools], {}
        if unknown:
            message["unknown"] = unknown
        if keys:
            message["set"] = [[key, pack_pool(table, key), list(left)] for key, left in keys.items()]
        loads, self.loads = dict.fromkeys(self._loads_of(keys)) | self.loads, {}
        if known_loads := [member for member in loads if member in member.endpoint.members]:
            message["loads"] = pack_loads(known_loads)
        known = [endpoint for address in health if (endpoint := table.endpoints.get(address))]
        if out := [pack_health(endpoint, monotonic()) for endpoint in known if endpoint.state == OUT]:
            message["out"] = out
        if live := [endpoint.address for endpoint in known if endpoint.state != OUT]:
            message["live"] = live
        return message

    def _loads_of(self, keys: Iterable[str]) -> Iterator[Member]:
        """The members of those of these keys that steer by load: a node's own list does not hold it."""
        for key in keys:
            pool = self.table.pools.get(key)
            if pool is not None and pool.algorithm == LOAD:
                yield from pool.members.values()

    def _next_keys(self) -> dict[str, dict[str, None]]:
        """Those to be sent next, with all that has left them: SET_NODES, or one key."""
        keys: dict[str, dict[str, None]] = {}
        nodes = 0
        while self.keys and nodes < SET_NODES:
            key = next(iter(self.keys))
            left = keys[key] = self.keys.pop(key)
            pool = self.table.pools.get(key)
            nodes += 1 + len(left) + (len(pool.members) if pool else 0)
        return keys

    def read(self) -> None:
        for message in messages(self.pair.recv):
            self._hear(message)

    def _hear(self, message: Message) -> None:
        take_findings(self.table, message.get("out", ()), message.get("live", ()), monotonic())
        for key in message.get("wanted", ()):
            self.questions.ask(key, self.note_unknown)
        self.beaten = message.get("beaten", self.beaten)
        if "counters" in message:
            self.heard = True
            self.slot.hear(message, time())
            for number in [number for number in self.answered if number <= message["counters"]]:
                self.answered.pop(number).set()


def drained(table: Table) -> list[list[str]]:
    """All that is, as it stands in a message: a router knows no host names."""
    return [list(table.drained_addresses), list(table.drained[1])]
