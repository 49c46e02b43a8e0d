"""The flood case of `make bench`: what a flood of announcements from one address does to a router's other users.

Both routers of a start are compared quiet, and then again in the same order, with the one that is measured under a
flood. Meanwhile other addresses announce nodes of their own, each once, and the stats tell afterwards which of them are
known. A router keeps what a flood has left, so what it lost and what memory it took is that of all its floods together.
Flooder and others share the CPU of the load generator. The CPU of a request is that of all processes of a router here:
who takes announcements in takes the CPU from who carries requests.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from measure import Bench, BenchError, Case, Figure, Pair, Quad, Run, Running, compare, started, tree

NAME = "flood"  # for --case
CASE = Case("GET, 176 bytes, 64 clients", flooded=True)
RATE = 100_000  # announcements a second: what the project promises to bear
RUN_SECONDS = 0.5  # thousands of requests, so that one bad moment does not make the p99
LEAD_SECONDS = 0.1  # by which a flood is there before the load, and outlasts it
FLOOD_SECONDS = RUN_SECONDS + 2 * LEAD_SECONDS
OTHERS = 50  # announcements of others in a flood, spread over its time
FLOODER, FIRST_OTHER, OTHER_HOSTS = "127.0.0.9", "127.0.0.20", 20  # the others' addresses count up from the first
NUMBERS = 10_000_000  # more than a flood announces: each flood has the next so many, and repeats none
SETTLE_SECONDS = 2.0  # after the last flood, for a router to take in what it has heard
STATS_SECONDS = 30.0  # for a stats server to list hundreds of thousands of keys

# B's p99 over A's under a flood: all clients wait for one CPU, so it is what CPU/request is held to, 1.3, and a margin
# for noise: of two fastrouters on a busy machine single comparisons gave 0.7 to 1.3, their medians 0.96.
P99_LIMIT = 1.5
MEMORY_LIMIT_MB = 32.0  # what the floods may cost: thousands of nodes, not all the hundreds of thousands
RATE_LIMIT = 0.9  # of RATE: a flood below that has proved nothing


@dataclass(frozen=True)
class Toll:
    """What the floods of one start did to one router, beside its speed."""

    megabytes: float  # growth of the resident memory of all its processes, at their peaks
    announced: int  # by others
    lost: int  # of these: not known afterwards
    per_second: float  # announcements that reached it or were dropped on the way: the mean of its floods


@dataclass(frozen=True)
class Start:
    """What one start of both routers showed."""

    quiet: list[Quad]
    flooded: list[Quad]
    tolls: tuple[Toll, Toll]


class Flood:
    """The floods of one router. Made when it has served undisturbed for a while; `toll` ends them."""

    def __init__(self, bench: Bench, running: Running) -> None:
        self._bench, self._running = bench, running
        self._resident = memory_mb(running, "VmRSS")
        self._rates: list[float] = []
        self._others: set[str] = set()  # the keys that others have announced

    def measure(self) -> Run:
        """One run under a flood."""
        first = len(self._rates) * NUMBERS
        flood = self._flooder("flood", first, FLOODER, RATE)
        others = self._flooder("other", first, FIRST_OTHER, OTHERS / FLOOD_SECONDS, "--hosts", str(OTHER_HOSTS))
        with flood as flooder, others as other:
            time.sleep(LEAD_SECONDS)
            run = self._bench.measure(self._running, CASE)
            self._rates.append(printed(flooder)["per_second"])
            sent = printed(other)["sent"]
        self._others |= {f"other-{number:010}.example" for number in range(first, first + sent)}
        return run

    def toll(self) -> Toll:
        time.sleep(SETTLE_SECONDS)
        grown = memory_mb(self._running, "VmHWM") - self._resident  # before the stats, which cost memory, too
        lost = self._others - known_others(self._running.stats)
        return Toll(grown, announced=len(self._others), lost=len(lost), per_second=mean(self._rates))

    @contextmanager
    def _flooder(self, key: str, first: int, source: str, rate: float, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(self._bench.folder / "flood"), "--to", self._running.subscription, "--from", source]
        command += ["--rate", str(rate), "--seconds", str(FLOOD_SECONDS), "--key", key, "--first", str(first), *more]
        with started(command, self._bench.tools_cpu, subprocess.PIPE) as process:
            yield process


def printed(flooder: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a flooder says when it has ended."""
    told, complaint = flooder.communicate(timeout=FLOOD_SECONDS + 10)
    if flooder.returncode:
        raise BenchError(f"a flood ended with {flooder.returncode}: {(complaint or told).decode().strip()}")
    return dict(json.loads(told))


def memory_mb(running: Running, field: str) -> float:
    """Of all the processes of a router: VmRSS, what they hold in memory, or VmHWM, the most that they have held."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in tree(running.process.pid)]
    return sum(int(match[1]) for text in texts if (match := re.search(rf"{field}:\s+(\d+) kB", text))) / 1024


def known_others(stats: str) -> set[str]:
    """The keys of others in a router's stats. Searched for, not parsed: they may be a hundred megabytes."""
    host, _, port = stats.rpartition(":")
    with socket.create_connection((host, int(port)), STATS_SECONDS) as sock:
        text = b"".join(iter(lambda: sock.recv(1 << 20), b""))
    return {key.decode() for key in re.findall(rb'"key": ?"(other-\d+\.example)"', text)}


def start_and_flood(bench: Bench, pair: Pair) -> Start:
    bench = replace(bench, run_seconds=RUN_SECONDS)
    whole = (replace(pair[0], carriers="tree"), replace(pair[1], carriers="tree"))
    with bench.both(whole, CASE) as (a, b):
        quiet = list(compare(a, b, lambda running: bench.measure(running, CASE)))
        of_a, of_b = Flood(bench, a), Flood(bench, b)
        flooded = list(compare(a, b, lambda running: (of_a if running is a else of_b).measure()))
        return Start(quiet, flooded, (of_a.toll(), of_b.toll()))


@dataclass(frozen=True)
class FloodResult:
    """What the case showed. Figures by name, quiet and flooded; the tolls of A and of B."""

    quiet: dict[str, Figure]
    flooded: dict[str, Figure]
    tolls: tuple[Toll, Toll]
    errors: tuple[int, int]
    first_error: str

    @classmethod
    def of(cls, starts: list[Start]) -> FloodResult:
        quiet = [quad for start in starts for quad in start.quiet]
        flooded = [quad for start in starts for quad in start.flooded]
        of_a, of_b = ([run for quad in quiet + flooded for run in quad[side]] for side in (0, 1))
        return cls(
            quiet={name: Figure.of(quiet, quantity) for name, (_, quantity) in QUANTITIES.items()},
            flooded={name: Figure.of(flooded, quantity) for name, (_, quantity) in QUANTITIES.items()},
            tolls=(together([start.tolls[0] for start in starts]), together([start.tolls[1] for start in starts])),
            errors=(sum(run.errors for run in of_a), sum(run.errors for run in of_b)),
            first_error=next((run.first_error for run in of_a + of_b if run.errors), ""),
        )

    def table(self) -> str:
        rows = [f"{f'flood of {RATE:,}/s, {CASE.title}':<50}{'A':>9}{'B':>9}  B/A"]
        for name, (title, _) in QUANTITIES.items():
            for state, figure in (("quiet", self.quiet[name]), ("flooded", self.flooded[name])):
                rows.append(f"{f'  {title}, {state}':<50}{figure.a:>9,.1f}{figure.b:>9,.1f}  {figure.spread}")
        a, b = self.tolls
        rows.append(f"{'  growth of memory, MB':<50}{a.megabytes:>9,.1f}{b.megabytes:>9,.1f}")
        rows.append(f"{f'  lost announcements of others, of {b.announced}':<50}{a.lost:>9,}{b.lost:>9,}")
        rows.append(f"{'  announcements/s that the flood reached':<50}{a.per_second:>9,.0f}{b.per_second:>9,.0f}")
        rows.append(f"{'  errors':<50}{self.errors[0]:>9,}{self.errors[1]:>9,}")
        return "\n".join(rows)

    def faults(self, limited: bool) -> list[str]:
        """What is wrong, a line each; limited: B is held to the limits."""
        failed, found = sum(self.errors), []
        if failed:
            found.append(f"{NAME}: {failed} requests failed, the first: {self.first_error}")
        slow = min(toll.per_second for toll in self.tolls)
        if slow < RATE_LIMIT * RATE:
            found.append(f"{NAME}: the flood reached only {slow:,.0f} announcements/s, not {RATE:,}")
        if not limited:
            return found
        toll, ratio = self.tolls[1], self.flooded["p99"].ratio
        if ratio > P99_LIMIT:
            found.append(f"{NAME}: p99 is {ratio:.3f} of the flooded fastrouter's, the limit is {P99_LIMIT}")
        if toll.lost:
            found.append(f"{NAME}: {toll.lost} of {toll.announced} announcements of others are lost")
        if toll.megabytes > MEMORY_LIMIT_MB:
            found.append(f"{NAME}: memory grew by {toll.megabytes:.1f} MB, the limit is {MEMORY_LIMIT_MB:g}")
        return found


QUANTITIES: dict[str, tuple[str, Callable[[Run], float]]] = {
    "p50": ("p50 ms", lambda run: run.p50_us / 1000),
    "p99": ("p99 ms", lambda run: run.p99_us / 1000),
    "slowest": ("slowest ms", lambda run: run.slowest_us / 1000),
    "per_second": ("requests/s", lambda run: run.per_second),
    "cpu": ("CPU µs/request", lambda run: run.cpu_us),
}


def together(tolls: list[Toll]) -> Toll:
    """Of several starts: the greatest growth, all the announcements of others, the mean rate."""
    return Toll(
        megabytes=max(toll.megabytes for toll in tolls),
        announced=sum(toll.announced for toll in tolls),
        lost=sum(toll.lost for toll in tolls),
        per_second=mean(toll.per_second for toll in tolls),
    )
