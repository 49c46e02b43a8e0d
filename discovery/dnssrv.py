"""Nodes by DNS: names that are watched, or a name for each host that a client asks for.

Each name is looked up again when its answer's TTL ends, and what it says then replaces what it said. No such name, or
no record, is an answer and removes its nodes; when nobody can be found who knows, they stay, that name's alone, and it
is asked again soon. `turn` begins what is due and never waits; lookups run in greenlets, a few at a time.

On demand, what is not there is remembered as well, in `absent`, for as long as its zone says. The feed tells us when a
key is asked for that is not known, never when a known one is. So after `keep` seconds a key is withdrawn, right after a
lookup, and whoever asks for it while that answer is good gets it from here: a key in use costs one request a moment,
and one out of use is gone.

What is recalled from before the start is as if it had been asked for then, and stays until its very name is answered.

Invariants. A name whose lookup is under way has no due time, so it is never looked up twice at once. All that is kept
is bounded by `max-names` (and who was arriving when that was reached) and MOST_ABSENT, and newcomers have lookups of
their own, so whoever asks for many hosts fills no memory and holds up no name that is known.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from math import inf
from random import random
from time import monotonic

import gevent
from gevent.event import Event
from gevent.pool import Pool

from discovery.dnsclient import Client, Found, LookupFailed, Unreachable
from discovery.dnsname import host_of, within
from discovery.dnsservers import RESOLV_CONF, Servers
from discovery.dnssettings import FAMILIES, Settings, read_url
from router.address import MAX_NAME_CHARS
from router.feed import Feed
from router.node import Node
from router.source import wait_before
from router.uwsgi import printable

LOOKUPS = 16  # at once, of names that are known: each costs 2 ms of CPU, so with answers in 30 ms a core is busy
NEWCOMERS = 32  # at once, of names that are not: more, as clients wait for them, and a stranger's server may be slow
EARLY = 0.1  # of a TTL: lookups come up to so much before its end, at random, so that they do not come all at once
SPELLINGS = 8  # of one host, with a port or in capitals: each is a key of its own, and clients could make thousands
MOST_ABSENT = 10_000  # keys of which it is remembered that there is nothing; 3 MB
FAILED_TTL = 1.0  # seconds for which a failed lookup of a new key answers for the next one
TOLD = 10  # names that fail at once and have a line in the log each; beyond that it would be the server
LONGEST_NAME = 80  # characters of the source's name

log = logging.getLogger("gfrouter")


@dataclass(slots=True)
class Name:
    """One key that is kept up to date, by lookups of `asked`."""

    key: str
    asked: str
    nodes: tuple[Node, ...] = ()
    due: float = 0.0  # monotonic seconds; inf while it is being looked up
    failures: int = 0  # in a row
    wanted_at: float = inf  # when a client asked for it last; watched names are always wanted
    withdrawn: bool = False  # it is out of use, and goes when it is due


@dataclass(frozen=True, slots=True)
class Absent:
    """A key without nodes, until then: for certain, or because of this error."""

    until: float
    error: Exception | None


class Dns:
    """SRV, A and AAAA records: names that are watched, or on demand, without a name, that of each requested host."""

    form = "dns://[SERVER[:PORT][,...]][/NAME[,NAME ...]]"
    settings = Settings

    def __init__(
        self,
        url: str,
        *,
        lookup: Callable[[str], Found] | None = None,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        wanted = read_url(url)
        self.options = wanted.settings
        self.on_demand = not wanted.names
        places, _, path = url.partition("://")[2].partition("?")[0].partition("/")
        self.name = ("dns" + (f"@{places}" if places else "") + (f"/{path}" if path else ""))[:LONGEST_NAME]
        if lookup is None:
            client = Client(
                Servers(wanted.servers, resolv_conf=resolv_conf),
                timeout=self.options.timeout,
                tcp=self.options.protocol == "tcp",
                types=FAMILIES[self.options.family],
            )
            port = self.options.port
            lookup = partial(client.addresses, port=port) if port else client.services
        self.lookup = lookup
        self.clock = clock
        self.random = random
        self.names = {key: Name(key, name) for key, name in wanted.names.items()}
        self.unseen = set(self.names)  # those that have never had an answer
        self.others: list[str] = []  # keys that were recalled, and are none of ours any more
        self.spellings: Counter[str] = Counter()  # how many of the names are looked up as this one
        self.absent: dict[str, Absent] = {}
        self.arriving: set[str] = set()  # keys whose first lookup is under way
        self.due: list[tuple[float, str]] = []  # a heap; what is no longer so is passed over
        self.pool = Pool(LOOKUPS)
        self.newcomers = Pool(NEWCOMERS)
        self.news = Event()
        self.unreachable: Unreachable | None = None  # when a lookup ended last, no server had answered it
        self.failing = 0  # names whose last lookup failed

    def run(self, feed: Feed) -> None:
        """Keep all names up to date until killed; on demand, answer the feed's questions."""
        self._begin(feed)
        asking = gevent.spawn(self._answer, feed) if self.on_demand else None
        if asking is not None:
            asking.link(lambda _: self.news.set())
        try:
            while True:
                wait = self.turn(feed)
                self.news.wait(wait)
                self.news.clear()
                if asking is not None and asking.ready():
                    asking.get()  # raises what ended it
        finally:
            for greenlets in (self.pool, self.newcomers):
                greenlets.kill(block=False)
            if asking is not None:
                asking.kill(block=False)

    def turn(self, feed: Feed) -> float | None:
        """Begin the lookups that are due, as far as there is room. Seconds until the next one; None for "on news"."""
        now = self.clock()
        while self.due and not self.pool.full():
            due, key = self.due[0]
            if due > now:
                return due - now
            heappop(self.due)
            name, absent = self.names.get(key), self.absent.get(key)
            if absent is not None and absent.until == due:
                self._forget(feed, key)
            if name is not None and name.due == due:
                self._refresh(feed, name)
        return None

    def want(self, feed: Feed, key: str) -> None:
        """A client asks for this key, and nobody knows it. Waits where NEWCOMERS are being looked up."""
        now = self.clock()
        name, absent = self.names.get(key), self.absent.get(key)
        if name is not None:
            name.wanted_at = now
            name.withdrawn = False
            self._say(feed, key, name.nodes)
        elif absent is not None and absent.until > now:
            if absent.error is None:
                self._say(feed, key, ())
            else:
                feed.fail(absent.error, key)
        elif key not in self.arriving:
            asked = self._asked(key, feed.reject)
            if asked:
                self.arriving.add(key)
                self._begin_one(self.newcomers, self._arrive, feed, Name(key, asked, wanted_at=now))
            else:
                self._say(feed, key, ())

    # Beginnings.

    def recall(self, slices: Mapping[str, Mapping[str, Node]], _memory: object) -> None:
        """These nodes are served from before the start."""
        now = self.clock()
        for key, nodes in slices.items():
            if self.on_demand and (asked := self._asked(key, lambda reason, detail: None)):
                self.names[key] = Name(key, asked, wanted_at=now)
                self.unseen.add(key)
            if key in self.names:
                self.names[key].nodes = tuple(nodes.values())
            else:
                self.others.append(key)

    def _begin(self, feed: Feed) -> None:
        """All names are due. When each of them has been seen, all is said: on demand now, unless some are recalled."""
        self.due.clear()
        self.absent.clear()
        self.arriving.clear()
        self.names = {key: name for key, name in self.names.items() if not name.withdrawn}
        self.spellings = Counter(name.asked for name in self.names.values())
        for name in self.names.values():
            self._schedule(name, 0.0)
        if self.on_demand:
            log.info("%s: looking up %s.HOST for %s", self.name, self.options.service, self._whom())
            self._say_all(feed)

    def _whom(self) -> str:
        domains = " and ".join(self.options.domain)
        return f"hosts in {domains}" if domains else "any host that a client names (domain=... would be less)"

    def _answer(self, feed: Feed) -> None:
        while True:
            key = feed.wanted()
            if key is not None:
                self.want(feed, key)

    def _asked(self, key: str, reject: Callable[[str, str], None]) -> str:
        """The name to look up for this new key; "" where it is not to be, and `reject` hears why."""
        try:
            host = host_of(key)
        except ValueError as error:
            reject("no host name", str(error))
            return ""
        asked = f"{self.options.service}.{host}"
        if self.options.domain and not any(within(host, domain) for domain in self.options.domain):
            reject("not in the domain", printable(key))
        elif len(asked) > MAX_NAME_CHARS:
            reject("no host name", f"{asked!r} has {len(asked)} characters, but {MAX_NAME_CHARS} is the limit")
        elif len(self.names) >= self.options.max_names:
            reject("too many names", f"{self.options.max_names} are kept, and {asked} would be one more")
        elif self.spellings[asked] >= SPELLINGS:
            reject("too many spellings", f"{SPELLINGS} of {host} are kept, and {key!r} would be one more")
        else:
            return asked
        return ""

    # Lookups.

    def _refresh(self, feed: Feed, name: Name) -> None:
        if name.withdrawn:
            return self._drop(name)
        name.due = inf
        self._begin_one(self.pool, self._look_up, feed, name)

    def _begin_one(self, greenlets: Pool, work: Callable[[Feed, Name], None], feed: Feed, name: Name) -> None:
        """Spawn; it is news when the greenlet has ended and left its pool, as only then there is room for another."""
        greenlets.spawn(work, feed, name).rawlink(lambda _: self.news.set())

    def _arrive(self, feed: Feed, name: Name) -> None:
        """The first lookup of a key that a client waits for."""
        self._look_up(feed, name)
        self.arriving.discard(name.key)

    def _look_up(self, feed: Feed, name: Name) -> None:
        try:
            found = self.lookup(name.asked)
        except Exception as error:  # whatever a strange answer does to us, it costs this name alone
            if not isinstance(error, LookupFailed):
                log.error("%s: looking up %s failed", self.name, name.asked, exc_info=error)
            self._failed(feed, name, error)
        else:
            self._found(feed, name, found)

    def _found(self, feed: Feed, name: Name, found: Found) -> None:
        ttl = min(max(found.ttl, self.options.min_ttl), self.options.max_ttl)
        self.failing -= name.failures > 0
        name.nodes = tuple(replace(node, algorithm=self.options.algorithm) for node in found.nodes)
        name.failures = 0
        self.unseen.discard(name.key)
        feed.set(name.key, name.nodes)
        if self.on_demand and not found.nodes:
            self._drop(name)
            self._remember(feed, name.key, Absent(self.clock() + ttl, None))
        else:
            self.spellings[name.asked] += name.key not in self.names
            self.names[name.key] = name
            if self.clock() - name.wanted_at >= self.options.keep:
                name.withdrawn = True
                feed.set(name.key, ())
            self._schedule(name, ttl * (1 - EARLY * self.random()))
        while self.others:
            if (key := self.others.pop()) not in self.names:
                feed.set(key, ())
        if not feed.spoken:
            self._say_all(feed)
        if self.unreachable:
            self.unreachable = None
            log.info("%s: a server answers again", self.name)
            self._hurry()

    def _drop(self, name: Name) -> None:
        """It is kept up to date no longer, if it was."""
        if self.names.pop(name.key, None) is not None:
            self.spellings[name.asked] -= 1
            if not self.spellings[name.asked]:
                del self.spellings[name.asked]

    def _failed(self, feed: Feed, name: Name, error: Exception) -> None:
        feed.fail(error, name.key)
        if isinstance(error, Unreachable):
            feed.fail(error)  # as that goes for all names
            if not self.unreachable:
                log.warning("%s: no server answers, all nodes stay: %s", self.name, error)
            self.unreachable = error
        if self.on_demand and name.key not in self.names:
            self._remember(feed, name.key, Absent(self.clock() + FAILED_TTL, error))
            return
        name.failures += 1
        self.failing += name.failures == 1
        if name.failures == 1 and not self.unreachable and self.failing <= TOLD:
            log.warning("%s: %s; of %s nodes are kept: %d", self.name, error, name.key, len(name.nodes))
        self._schedule(name, wait_before(name.failures, self.random))

    def _hurry(self) -> None:
        """A server answers again: names that failed meanwhile need not wait."""
        for name in self.names.values():
            if name.failures and name.due != inf:
                self._schedule(name, 0.0)

    def _schedule(self, name: Name, wait: float) -> None:
        name.due = self.clock() + wait
        heappush(self.due, (name.due, name.key))

    # What is remembered.

    def _say_all(self, feed: Feed) -> None:
        """As soon as each name has been seen."""
        if not self.unseen:
            feed.replace({key: name.nodes for key, name in self.names.items() if not name.withdrawn})

    def _say(self, feed: Feed, key: str, nodes: tuple[Node, ...]) -> None:
        """What is known without a lookup, which does not mean that the servers can be reached."""
        feed.set(key, nodes)
        if self.unreachable:
            feed.fail(self.unreachable)

    def _remember(self, feed: Feed, key: str, absent: Absent) -> None:
        """There is nothing for this key. What is too much to remember is looked up again, and costs time alone."""
        if len(self.absent) < MOST_ABSENT or key in self.absent:
            self.absent[key] = absent
            heappush(self.due, (absent.until, key))
        else:
            feed.key_errors.pop(key, None)

    def _forget(self, feed: Feed, key: str) -> None:
        del self.absent[key]
        feed.key_errors.pop(key, None)
