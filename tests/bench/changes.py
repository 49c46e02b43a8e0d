"""The changes case of `make bench`: how soon a request is steered by what has changed in a registry.

Real registries, each with a router of its own, and two nodes of one key: one stays, the other comes and goes. Time
runs from the beginning of the call that makes the change until the first request that is answered by the node that has
come, or by the other one in the turn of the node that has gone. Requests follow one another, each on a connection of
its own. Before each change there is a quiet while, of random length where a source looks at intervals: so what it waits
for the next look is in the figures as it is in life. A registry that is not installed is left out.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import BenchError

sys.path.append(str(Path(__file__).parents[1]))  # for the servers of the tests
from clients import announce, ask, request, withdraw
from consul_server import CONSUL, Consul
from dns_server import KNOT, Knot, zone
from etcd_server import ETCD, Etcd
from scripted import ScriptedNode, answer, wait_for
from servers import Router

NAME = "changes"  # for --case
ROUNDS = 15  # of each change, so that the median is one of them
KEY = "foo.com"
STAYS, COMES = b"HTTP/1.1 200 OK\r\n\r\nstays", b"HTTP/1.1 200 OK\r\n\r\ncomes"
BETWEEN_SECONDS = 0.002  # requests, so that the clients leave the CPU to the others; as fine as the figures are
GONE_ANSWERS = 4  # in a row by the node that stays: with two nodes in turn, the other one is gone
PATIENCE_SECONDS = 15.0  # a change that takes longer is lost

# What the project promises, in milliseconds.
CHECK_LIMIT_MS = 100.0  # of etcd and of Consul's checks
REGISTRATION_LIMIT_MS = 200.0
TTL_SECONDS = 1
DNS_LIMIT_MS = (TTL_SECONDS + 1) * 1e3
MAINTENANCE_LIMIT_MS = 500.0

FOO = ["uwsgi", f"uwsgi-key={KEY}"]


@dataclass(frozen=True)
class Change:
    title: str
    make: Callable[[], object]
    limit_ms: float | None = None


@dataclass(frozen=True)
class Swing:
    """A node comes, and goes again. `quiet`: the least and the greatest time before either, in seconds."""

    comes: Change
    goes: Change
    quiet: tuple[float, float] = (0.05, 0.15)


@dataclass(frozen=True)
class Row:
    """Of one change, in milliseconds."""

    title: str
    median_ms: float
    greatest_ms: float
    limit_ms: float | None

    @classmethod
    def of(cls, change: Change, seconds: list[float]) -> Row:
        return cls(change.title, median(seconds) * 1e3, max(seconds) * 1e3, change.limit_ms)


@dataclass(frozen=True)
class ChangesResult:
    rows: list[Row]

    def table(self) -> str:
        lines = [f"{f'from a change to the request, {ROUNDS} times, ms':<50}{'median':>9}{'greatest':>10}{'limit':>9}"]
        for row in self.rows:
            limit = "" if row.limit_ms is None else f"{row.limit_ms:,.0f}"
            lines.append(f"{row.title:<50}{row.median_ms:>9,.1f}{row.greatest_ms:>10,.1f}{limit:>9}".rstrip())
        return "\n".join(lines)

    def faults(self, limited: bool) -> list[str]:
        return [
            f"{NAME}: {row.title}: {row.median_ms:.0f} ms in the median, the limit is {row.limit_ms:.0f} ms"
            for row in self.rows
            if limited and row.limit_ms is not None and row.median_ms > row.limit_ms
        ]


class Scene:
    """A router and the two nodes, of which one comes and goes."""

    def __init__(self, router: Router, stays: ScriptedNode, comes: ScriptedNode) -> None:
        self.router = router
        self.stays = stays.address
        self.comes = comes.address

    def measure(self, swing: Swing) -> list[Row]:
        wait_for(lambda: self._answer() == STAYS, "the node that stays", PATIENCE_SECONDS)
        came, gone = [], []
        for _ in range(ROUNDS):
            time.sleep(random.uniform(*swing.quiet))
            came.append(self._seconds(swing.comes, COMES, 1))
            time.sleep(random.uniform(*swing.quiet))
            gone.append(self._seconds(swing.goes, STAYS, GONE_ANSWERS))
        return [Row.of(swing.comes, came), Row.of(swing.goes, gone)]

    def _seconds(self, change: Change, wanted: bytes, times: int) -> float:
        """Until the first of so many answers in a row as they are `wanted`."""
        began = time.monotonic()
        change.make()
        in_a_row, first = 0, 0.0
        while in_a_row < times:
            if self._answer() != wanted:
                in_a_row = 0
            else:
                first = first if in_a_row else time.monotonic()
                in_a_row += 1
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise BenchError(f"{NAME}: {change.title}: nothing seen of it for {PATIENCE_SECONDS:g} s")
            time.sleep(BETWEEN_SECONDS)
        return first - began

    def _answer(self) -> bytes:
        return ask(self.router.address, request(KEY))


@contextmanager
def scene(url: str | None, stays: ScriptedNode, comes: ScriptedNode) -> Iterator[Scene]:
    with Router(discovery=url, admin="off") as router:
        yield Scene(router, stays, comes)


def of_etcd(stays: ScriptedNode, comes: ScriptedNode) -> Iterator[list[Row]]:
    name = f"/gfrouter/{KEY}/"
    with Etcd() as etcd, scene(f"etcd://{etcd.address}", stays, comes) as it:
        etcd.put(name + it.stays)
        yield it.measure(
            Swing(
                Change("etcd: put", lambda: etcd.put(name + it.comes), CHECK_LIMIT_MS),
                Change("etcd: delete", lambda: etcd.delete(name + it.comes), CHECK_LIMIT_MS),
            )
        )
        leases: list[str] = []

        def put_with_lease() -> None:
            leases.append(etcd.grant(600))
            etcd.put(name + it.comes, lease=leases[-1])

        yield it.measure(
            Swing(
                Change("etcd: lease granted, and put with it", put_with_lease, CHECK_LIMIT_MS),
                Change("etcd: lease revoked", lambda: etcd.revoke(leases[-1]), CHECK_LIMIT_MS),
            )
        )


def of_consul(stays: ScriptedNode, comes: ScriptedNode) -> Iterator[list[Row]]:
    with Consul() as consul, scene(consul.url(), stays, comes) as it:
        consul.register("app", it.stays, check="passing", Tags=FOO)

        def register(check: str = "") -> str:
            return consul.register("app", it.comes, check, Tags=FOO)

        identity = register("critical")
        yield it.measure(
            Swing(
                Change("Consul: check passing", lambda: consul.set_check(identity, "passing"), CHECK_LIMIT_MS),
                Change("Consul: check critical", lambda: consul.set_check(identity, "critical"), CHECK_LIMIT_MS),
            )
        )
        consul.set_check(identity, "passing")
        consul.maintain(identity)
        yield it.measure(
            Swing(
                Change("Consul: maintenance ends", lambda: consul.maintain(identity, on=False), MAINTENANCE_LIMIT_MS),
                Change("Consul: maintenance begins", lambda: consul.maintain(identity), MAINTENANCE_LIMIT_MS),
            )
        )
        consul.deregister(identity)
        for how, check in (("with a check", "passing"), ("without a check", "")):
            yield it.measure(
                Swing(
                    Change(f"Consul: registration {how}", lambda check=check: register(check), REGISTRATION_LIMIT_MS),  # type: ignore[misc]
                    Change(f"Consul: deregistration {how}", lambda: consul.deregister(identity), REGISTRATION_LIMIT_MS),
                    quiet=(1.1, 1.3),  # the catalog is read at once, and then not again for a second
                )
            )


def of_dns(stays: ScriptedNode, comes: ScriptedNode) -> Iterator[list[Row]]:
    def srv(node: ScriptedNode) -> str:
        return f"10 1 {node.address.rpartition(':')[2]} web.{KEY}."

    records = (f"_uwsgi._tcp {TTL_SECONDS} SRV {srv(stays)}", "web A 127.0.0.1")
    with Knot(zone(KEY, *records)) as knot, scene(f"dns://{knot.place}/_uwsgi._tcp.{KEY}", stays, comes) as it:
        added, deleted = f"_uwsgi._tcp {TTL_SECONDS} SRV {srv(comes)}", f"_uwsgi._tcp SRV {srv(comes)}"
        yield it.measure(
            Swing(
                Change("DNS, a TTL of 1 s: record added", lambda: knot.update(KEY, add=[added]), DNS_LIMIT_MS),
                Change("DNS, a TTL of 1 s: record deleted", lambda: knot.update(KEY, delete=[deleted]), DNS_LIMIT_MS),
                quiet=(0.0, TTL_SECONDS),
            )
        )


def of_file(stays: ScriptedNode, comes: ScriptedNode) -> Iterator[list[Row]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "nodes"

        def write(*nodes: ScriptedNode) -> None:
            fresh = path.with_suffix(".new")
            fresh.write_text("".join(f"{KEY} {node.address}\n" for node in nodes))
            fresh.replace(path)

        write(stays)
        with scene(f"file://{path}", stays, comes) as it:
            yield it.measure(
                Swing(
                    Change("file: line added", lambda: write(stays, comes)),
                    Change("file: line deleted", lambda: write(stays)),
                    quiet=(0.0, 1.0),
                )
            )


def of_subscription(stays: ScriptedNode, comes: ScriptedNode) -> Iterator[list[Row]]:
    with scene(None, stays, comes) as it:
        server = it.router.subscriptions
        announce(server, KEY, it.stays)
        yield it.measure(
            Swing(
                Change("uWSGI: announced", lambda: announce(server, KEY, it.comes)),
                Change("uWSGI: withdrawn", lambda: withdraw(server, KEY, it.comes)),
            )
        )


REGISTRIES = {
    "etcd": (of_etcd, ETCD),
    "consul": (of_consul, CONSUL),
    "knot": (of_dns, KNOT),
    "file": (of_file, "always there"),
    "subscription": (of_subscription, "always there"),
}


def measured() -> ChangesResult:
    rows = []
    for name, (registry, there) in REGISTRIES.items():
        if there is None:
            print(f"{NAME}: left out, {name} is not installed", file=sys.stderr)
            continue
        # What the servers said goes to stdout when they end, for pytest to show beside a failure.
        with ExitStack() as stack, redirect_stdout(io.StringIO()):
            stays = stack.enter_context(ScriptedNode(answer(STAYS)))
            comes = stack.enter_context(ScriptedNode(answer(COMES)))
            for some in registry(stays, comes):
                rows += some
    return ChangesResult(rows)
