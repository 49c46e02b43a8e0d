"""Services of Consul as nodes, kept current by two watches. (`import consul` is python-consul, never this file.)

One watch is on all health checks, one on the catalog's list of services and tags. Each answer names everything, so what
changed is found by comparing. A check that changed has its service read again at once; one of a machine, the services
that are there. One that changed and changed back between two answers shows by its index, and matters where the service
was read in between. The list moves with every change of any instance and does not say which: then all services of ours
are read again, new ones first, at once and after that at most each CATALOG_PACE. So ten thousand services take as many
connections as one. That a machine's address changes neither watch sees: therefore all are read again each REREAD, too.

Invariants: a service is read by one reader at a time, so what is said of it is its latest answer; a key has the nodes
of all services that name it. No service is read before the checks were seen once, so no change falls in between. A
service that cannot be read stays as it was, alone; a watch that fails ends the run. What was read outlives the run, and
the router's restart, so that the next one knows who went meanwhile.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import random
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.pool import Group

from discovery.consulagent import READERS, WAIT, Agent, AgentError, Answer
from discovery.consulentry import (
    CATALOG,
    CHECKS,
    SERVICE,
    Checks,
    Instances,
    Pools,
    Wanted,
    changed_checks,
    read_catalog,
    read_checks,
    read_service,
    written_checks,
)
from discovery.consulplace import TAG, Place, Settings, place_of, refuse_token
from router.address import quoted
from router.feed import Feed
from router.node import Node
from router.source import ENDINGS, wait_before
from router.url import SourceUrl, parse_url, read_settings

# Seconds.
PACE = 0.05  # between two answers of a watch at least: a cluster in turmoil must not cost a core
CATALOG_PACE = 1.0  # between two reads of everything at least
REREAD = 30.0  # give or take a quarter, so that many routers do not come at once

log = logging.getLogger("gfrouter")


class Consul:
    """Services of a Consul cluster, as one of its agents tells them."""

    form = "consul://[HOST[:PORT]]"
    settings = Settings
    on_demand = False

    def __init__(self, url: str, *, environ: Mapping[str, str] = os.environ, wait: float = WAIT) -> None:
        parsed = parse_url(url)
        refuse_token(parsed)
        said = read_settings(parsed, Settings)
        self.place = replace(place_of(parsed, said, environ), dc=said.dc)
        self.name = _name(parsed, self.place)
        self.services = frozenset(said.service)  # none: all with the tag
        self.wanted = Wanted(said.tag or ("" if said.service else TAG), said.warning)
        self.known: dict[str, Instances] = {}  # by service, as read last
        self._wait = wait

    def run(self, feed: Feed) -> None:
        """Keep `feed` current until killed; AgentError where the agent cannot be asked."""
        agent = Agent(self.place, wait=self._wait)
        try:
            _Run(self, agent, feed).run()
        finally:
            agent.close()

    def remember(self) -> dict[str, dict[str, list[str]]]:
        """Service → key → addresses: which of a key's nodes are whose, of which the feed knows nothing."""
        return {
            service: {key: [node.address for node in nodes] for key, nodes in known.pools.items()}
            for service, known in self.known.items()
        }

    def recall(self, slices: Mapping[str, Mapping[str, Node]], memory: object) -> None:
        """These nodes are served from before the start: services are as if read then, on machines that nobody knows."""
        for service, keys in memory.items() if isinstance(memory, dict) else ():
            if isinstance(keys, dict) and (pools := _recalled(slices, keys)):
                self.known[service] = Instances(pools, frozenset())

    def wants(self, service: str, tags: frozenset[str]) -> bool:
        """Whether instances of a service with these tags may be ours."""
        return service in self.services if self.services else self.wanted.tag in tags


def _name(url: SourceUrl, agent: Place) -> str:
    """What we take from where: of the URL's files nobody wants to read in each line, of an agent that only the
    environment names everybody.
    """
    place = url.shown.partition("?")[0].partition("://")[2].strip("/") or f"{agent.host}:{agent.port}"
    what = "&".join(f"{name}={value}" for name, value in url.query if name in ("service", "tag", "dc", "warning"))
    return f"consul@{place}" + (f"?{what}" if what else "")


def _recalled(slices: Mapping[str, Mapping[str, Node]], keys: Mapping[str, Any]) -> Pools:
    """Of the nodes that are served, those at these addresses by key."""
    pools: Pools = {}
    for key, addresses in keys.items():
        mine = {one for one in addresses if isinstance(one, str)} if isinstance(addresses, list) else ()
        if found := [node for address, node in slices.get(key, {}).items() if address in mine]:
            pools[key] = found
    return pools


class _Run:
    """One run: the watches, and the readers to whom they give work."""

    def __init__(self, source: Consul, agent: Agent, feed: Feed) -> None:
        self._source = source
        self._agent = agent
        self._feed = feed
        self._known = source.known
        self._checks: Checks = {}
        self._catalog: dict[str, frozenset[str]] = {}  # services of ours, and their tags
        self._unread: set[str] = set()  # those of them that this run has not read yet
        self._spoken = False  # has this run given all that there is?
        self._due: dict[str, None] = {}
        self._being_read: set[str] = set()
        self._read_since: set[str] = set()  # the checks were seen last
        self._work = Event()
        self._rest = Event()  # nothing is due, nor being read
        self._stale = Event()  # any service may be another than when it was read
        self._failing: dict[str, _Failing] = {}
        self._malformed: dict[str, frozenset[str]] = {}  # by where it was
        self._trouble: AsyncResult[None] = AsyncResult()
        self._greenlets = Group()

    def run(self) -> None:
        """Until killed, or until a watch fails. All that it has started is gone then."""
        checks = self._agent.watch(CHECKS, PACE)
        try:
            self._take_checks(next(checks))
            self._spawn(self._watch_checks, checks)
            self._spawn(self._watch_catalog)
            self._spawn(self._read_all_again)
            for _ in range(READERS):
                self._spawn(self._read_what_is_due)
            self._trouble.get()
        finally:
            self._greenlets.kill()

    def _spawn(self, work: Callable[..., object], *given: Any) -> None:
        self._greenlets.spawn(self._guarded, work, *given)

    def _guarded(self, work: Callable[..., object], *given: Any) -> None:
        """What goes wrong in a greenlet is the run's trouble."""
        try:
            work(*given)
        except ENDINGS:
            raise
        except BaseException as error:
            self._trouble.set_exception(error)

    # The watches.

    def _watch_checks(self, answers: Iterator[Answer]) -> None:
        for answer in answers:
            self._feed.progress()
            if answer.moved:
                self._take_checks(answer)

    def _take_checks(self, answer: Answer) -> None:
        before, (self._checks, malformed) = self._checks, read_checks(answer.data)
        self._reject(CHECKS, malformed)
        _refuse_blindness(answer)
        services, machines = changed_checks(before, self._checks)
        self._make_due({*services, *self._on(machines)}, first=True)
        # Who was read meanwhile may have been read between a change and its undoing, which no status shows.
        if meanwhile := self._read_since | self._being_read:
            services, machines = written_checks(before, self._checks)
            self._make_due(meanwhile & {*services, *self._on(machines)}, first=True)
        self._read_since.clear()

    def _on(self, machines: set[str]) -> Iterator[str]:
        """The services that have something there."""
        return (name for name, known in self._known.items() if machines & known.machines)

    def _watch_catalog(self) -> None:
        for answer in self._agent.watch(CATALOG, PACE):
            self._feed.progress()
            if answer.moved:
                self._take_catalog(answer)

    def _take_catalog(self, answer: Answer) -> None:
        catalog, malformed = read_catalog(answer.data)
        self._reject(CATALOG, malformed)
        ours = {name: tags for name, tags in catalog.items() if self._source.wants(name, tags)}
        if self._known and not ours:
            self._look_whether_we_see()
        before, self._catalog = self._catalog, ours
        if not self._spoken:
            self._unread = (self._unread & self._catalog.keys()) | (self._catalog.keys() - before.keys())
        for service in [service for service in (self._known | self._failing) if service not in self._catalog]:
            self._forget(service)
        self._speak_when_all_is_read()
        fresh = [name for name, tags in self._catalog.items() if before.get(name) != tags]
        self._make_due(fresh, first=True)
        if len(fresh) < len(self._catalog):
            self._stale.set()

    def _read_all_again(self) -> None:
        while True:
            self._stale.wait(REREAD * (0.75 + random() / 2))
            self._stale.clear()
            began = monotonic()
            self._make_due(self._catalog)
            self._rest.wait()
            gevent.sleep(max(CATALOG_PACE, monotonic() - began))  # of many services: half of the time at most

    # The readers.

    def _make_due(self, services: Iterable[str], first: bool = False) -> None:
        due = {service: None for service in services if service in self._catalog}
        self._due = {**due, **self._due} if first else {**self._due, **due}
        self._wake()

    def _wake(self) -> None:
        self._work.set()
        if self._due or self._being_read:
            self._rest.clear()
        else:
            self._rest.set()

    def _read_what_is_due(self) -> None:
        while True:
            service = next((service for service in self._due if service not in self._being_read), None)
            if service is None:
                self._work.clear()
                self._work.wait()
                continue
            del self._due[service]
            self._being_read.add(service)
            try:
                self._read(service)
            finally:
                self._being_read.discard(service)
                self._wake()

    def _read(self, service: str) -> None:
        try:
            answer = self._agent.read(SERVICE + service)
            found = read_service(service, answer.data, self._source.wanted)
        except (AgentError, ValueError) as error:
            if service in self._catalog:
                self._fail(service, error)
            return
        if not answer.data and service in self._known:
            self._look_whether_we_see()
        if service not in self._catalog:
            return  # it went while it was read
        self._recover(service)
        self._reject(SERVICE + service, found.malformed)
        before = self._known.get(service)
        self._known[service] = found
        self._read_since.add(service)
        self._unread.discard(service)
        self._say({**(before.pools if before else {}), **found.pools})
        self._speak_when_all_is_read()

    def _look_whether_we_see(self) -> None:
        """AgentError where what is gone may only be hidden from us, as by a token that has lost its rights."""
        _refuse_blindness(self._agent.read(CHECKS))

    # What is said.

    def _say(self, keys: Iterable[str]) -> None:
        """Give these keys' nodes. Before the first whole look only where one service would hold up all others."""
        if self._spoken or self._failing:
            for key in keys:
                self._feed.set(key, self._nodes(key))

    def _nodes(self, key: str) -> list[Node]:
        return [node for known in self._known.values() for node in known.pools.get(key, ())]

    def _speak_when_all_is_read(self) -> None:
        if not self._spoken and not self._unread:
            self._spoken = True
            keys = {key: None for known in self._known.values() for key in known.pools}
            self._feed.replace({key: self._nodes(key) for key in keys})

    def _forget(self, service: str) -> None:
        """It is not in the catalog any more, or has lost its tag."""
        self._due.pop(service, None)
        self._recover(service)
        self._reject(SERVICE + service, ())
        known = self._known.pop(service, None)
        for key in known.pools if known else ():
            self._feed.set(key, self._nodes(key))

    def _fail(self, service: str, error: Exception) -> None:
        """Its nodes stay as they are, and it is read again after ever longer waits."""
        known = self._known.get(service)
        failing = self._failing.setdefault(
            service, _Failing(tuple(known.pools) if known and known.pools else (service,))
        )
        failing.times += 1
        if failing.times == 1:
            log.warning("%s: service %s cannot be read: %s", self._source.name, quoted(service), error)
        if not self._spoken:
            read = (known for name, known in self._known.items() if name not in self._unread)
            self._say({key: None for known in read for key in known.pools})
        for key in failing.keys:
            self._feed.fail(error, key)
        if not failing.waits:
            failing.waits = True
            self._spawn(self._retry, service, failing)

    def _retry(self, service: str, failing: _Failing) -> None:
        gevent.sleep(wait_before(failing.times))
        failing.waits = False
        self._make_due([service])

    def _recover(self, service: str) -> None:
        """It was read, or went: what was said of its keys holds no longer."""
        failing = self._failing.pop(service, None)
        for key in failing.keys if failing else ():
            self._feed.progress(key)

    def _reject(self, path: str, malformed: Collection[str]) -> None:
        """Tell what is malformed, once and not with each read."""
        before = self._malformed.pop(path, frozenset())
        for text in malformed:
            if text not in before:
                self._feed.reject("malformed entry", text)
        if malformed:
            self._malformed[path] = frozenset(malformed)


def _refuse_blindness(checks: Answer) -> None:
    """Each server has a check of its own, which is hidden from who may not read nodes."""
    if not checks.data:
        raise AgentError(f"{CHECKS}: no check at all; the token lacks node:read, or no server is there yet")


@dataclass
class _Failing:
    """A service that cannot be read: the keys that it has, or most likely has, and how often in a row it failed."""

    keys: tuple[str, ...]
    times: int = 0
    waits: bool = False  # a retry is on its way
