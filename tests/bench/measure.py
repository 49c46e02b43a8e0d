"""Measures two routers against each other: processes, pinning, CPU time, the order of the runs.

Both routers run on one CPU, the load generator and the backend (C, compiled here) on another. A start of both
gives QUADS comparisons of four short runs each, A B B A and B A A B in turn, so that a machine that drifts,
or is shared, drifts for both. CPU comes from schedstat in nanoseconds (utime is sampled by ticks), and only
from processes that carry requests. Each process started here lives in a session of its own and is killed with
it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import IO, Any

HERE = Path(__file__).resolve().parent

QUADS = 3  # comparisons for each start: an odd number, and the start's cost of half a second is spread
WARM_SECONDS = 0.25  # thousands of requests: the interpreter has specialised its code, buffers have grown
SETTLE_SECONDS = 0.02  # after a run, for the router to close what the clients have already seen closed
READY_SECONDS = 15.0  # for a router to start and to hear an announcement, on a busy machine
ANNOUNCE_SECONDS = 0.2  # between announcements: a router that starts late need not wait long for the next
LOAD_GRACE_SECONDS = 15.0  # beyond its time; the load generator itself gives up after 10 s without an event
LOG_TAIL_LINES = 12


class BenchError(Exception):
    """The benchmark could not measure; the text says what was missing or what died."""


@dataclass(frozen=True)
class Case:
    """One kind of traffic. Sizes in bytes; buffer_size 0 leaves a fastrouter its default, a page."""

    title: str
    clients: int = 64
    reply: int = 176
    body: int = 0
    nodes: int = 1
    unix: bool = False
    buffer_size: int = 0
    flooded: bool = False  # takes Router.flood_options


@dataclass(frozen=True)
class Router:
    """A router to measure. Its command holds {listen}, {subscription} and {stats} (HOST:PORT) and {unix} (a path).

    carriers says whose CPU is the cost of a request: "children", those of the started process (a fastrouter's
    gateway); "server", those in its tree that run router.server; "any", these or, where none is, the tree; "tree", all.
    """

    name: str
    command: tuple[str, ...]
    carriers: str
    buffer_option: str = ""  # takes Case.buffer_size; "" = it has none
    flood_options: tuple[str, ...] = ()  # its stats on {stats}, and patience with nodes that are announced once

    @property
    def takes_unix(self) -> bool:
        return any("{unix}" in word for word in self.command)

    @property
    def has_stats(self) -> bool:
        return any("{stats}" in word for word in self.command + self.flood_options)


@dataclass(frozen=True)
class Running:
    """A started router, where it listens, and its log."""

    router: Router
    process: subprocess.Popen[bytes]
    log: Path
    listen: str
    subscription: str
    unix: str
    stats: str


@dataclass(frozen=True)
class Run:
    """What one run showed. cpu_us: the router's CPU time for a request; busy: its share of the run's time."""

    errors: int
    first_error: str
    per_second: float
    cpu_us: float
    busy: float
    p50_us: int
    p99_us: int
    slowest_us: int


Pair = tuple[Router, Router]  # A, the measure, and B, the one in question
Quad = tuple[tuple[Run, Run], tuple[Run, Run]]  # one comparison: the two runs of A, the two of B


@dataclass(frozen=True)
class Figure:
    """One quantity of a case: the medians of A, of B, and of B over A, with the extremes of that ratio."""

    a: float
    b: float
    ratio: float
    least: float
    greatest: float

    @classmethod
    def of(cls, quads: list[Quad], quantity: Callable[[Run], float]) -> Figure:
        pairs = [(mean(map(quantity, a)), mean(map(quantity, b))) for a, b in quads]
        ratios = [b / a for a, b in pairs]
        return cls(median(a for a, _ in pairs), median(b for _, b in pairs), median(ratios), min(ratios), max(ratios))

    @property
    def spread(self) -> str:
        return f"{self.ratio:.2f} ({self.least:.2f}-{self.greatest:.2f})"


def tree(root: int) -> list[int]:
    """The process root and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it ended while we looked
                continue
            parent = int(stat.rpartition(")")[2].split()[1])  # the name before it may hold ") "
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += sorted(children.get(pid, []))
    return found


def is_server(pid: int) -> bool:
    try:
        return b"router.server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def carriers(running: Running) -> list[int]:
    """The processes whose CPU is the cost of a request."""
    everyone = tree(running.process.pid)
    if running.router.carriers == "tree":
        return everyone
    if running.router.carriers == "children":
        return everyone[1:]
    servers = [pid for pid in everyone if is_server(pid)]
    return servers if servers or running.router.carriers == "server" else everyone


def cpu_ns(pids: list[int]) -> int:
    """Nanoseconds on a CPU so far, over all threads of these processes."""
    paths = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in paths)


def free_address(kind: socket.SocketKind) -> str:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """What is started inside inherits this one CPU, with all the threads and children it will have."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(command: list[str], cpu: int, output: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """A process on cpu, killed at the end: nothing is left to save, and uWSGI takes SIGTERM for a reload."""
    with pinned(cpu):
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Bench:
    """Where it is measured: the folder of compiled tools, sockets and logs, and who runs on which CPU."""

    folder: Path
    router_cpu: int
    tools_cpu: int
    run_seconds: float

    def compile(self) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise BenchError("no C compiler: neither cc nor gcc is on PATH")
        for tool in ("load", "backend", "flood"):
            source = HERE / f"{tool}.c"
            if subprocess.run([compiler, "-O2", "-o", self.folder / tool, source]).returncode:
                raise BenchError(f"{compiler} cannot compile {source}")

    @contextmanager
    def router(self, router: Router, case: Case, slot: str) -> Iterator[Running]:
        """A fresh router that may not serve yet."""
        places = {
            "listen": free_address(socket.SOCK_STREAM),
            "subscription": free_address(socket.SOCK_DGRAM),
            "unix": str(self.folder / f"router-{slot}.sock"),
            "stats": free_address(socket.SOCK_STREAM),
        }
        command = list(router.command)
        if case.buffer_size and router.buffer_option:
            command += [router.buffer_option, str(case.buffer_size)]
        if case.flooded:
            command += router.flood_options
        for name, place in places.items():
            command = [word.replace("{" + name + "}", place) for word in command]
        Path(places["unix"]).unlink(missing_ok=True)
        log = self.folder / f"router-{slot}.log"
        with log.open("wb") as output, started(command, self.router_cpu, output) as process:
            yield Running(router, process, log, **places)

    @contextmanager
    def backend(self, case: Case, subscriptions: list[str]) -> Iterator[None]:
        """The case's nodes, announced to all these subscription servers."""
        for old in self.folder.glob("node.sock*"):
            old.unlink()
        listen = str(self.folder / "node.sock") if case.unix else "127.0.0.1:0"
        command = [str(self.folder / "backend"), "--listen", listen, "--nodes", str(case.nodes)]
        command += ["--reply", str(case.reply), "--interval", str(ANNOUNCE_SECONDS)]
        for address in subscriptions:
            command += ["--announce", address]
        with started(command, self.tools_cpu, subprocess.DEVNULL):
            yield

    def load(self, running: Running, case: Case, *limit: str) -> dict[str, Any]:
        """Runs the load generator to its end and gives what it printed."""
        address = running.unix if case.unix else running.listen
        command = [str(self.folder / "load"), "--connect", address, "--clients", str(case.clients)]
        command += ["--reply", str(case.reply), "--body", str(case.body), *limit]
        patience = self.run_seconds + LOAD_GRACE_SECONDS
        try:
            with pinned(self.tools_cpu):
                done = subprocess.run(command, capture_output=True, timeout=patience)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{running.router.name}: a run did not end within {patience:g} s") from None
        if done.returncode not in (0, 1):  # 1: requests failed, and they are counted in what it printed
            complaint = done.stderr.decode().strip()
            raise BenchError(f"the load generator ended with {done.returncode}: {complaint}")
        return dict(json.loads(done.stdout))

    def wait_until_serving(self, running: Running, case: Case) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while (seen := self.load(running, case, "--requests", "1"))["errors"]:
            status = running.process.poll()
            if status is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            why = f"ended with {status}" if status is not None else f"did not serve: {seen['first_error']}"
            tail = running.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            raise BenchError("\n  ".join([f"{running.router.name} {why}; the end of its log:", *tail]))

    def measure(self, running: Running, case: Case) -> Run:
        name, pids = running.router.name, carriers(running)
        before, start = cpu_ns(pids), time.monotonic()
        seen = self.load(running, case, "--seconds", str(self.run_seconds))
        wall = time.monotonic() - start
        time.sleep(SETTLE_SECONDS)
        if not pids or carriers(running) != pids:
            raise BenchError(f"{name}: processes {pids} before a run, but {carriers(running)} after it")
        if not seen["requests"]:
            raise BenchError(f"{name} answered no request: {seen['first_error']}")
        spent_us = (cpu_ns(pids) - before) / 1000
        return Run(
            errors=seen["errors"],
            first_error=seen["first_error"],
            per_second=seen["requests"] / seen["seconds"],
            cpu_us=spent_us / seen["requests"],
            busy=spent_us / 1e6 / wall,
            p50_us=seen["p50_us"],
            p99_us=seen["p99_us"],
            slowest_us=seen["slowest_us"],
        )

    @contextmanager
    def both(self, pair: Pair, case: Case) -> Iterator[tuple[Running, Running]]:
        """Both routers afresh, warmed."""
        with ExitStack() as stack:
            a = stack.enter_context(self.router(pair[0], case, "a"))
            b = stack.enter_context(self.router(pair[1], case, "b"))
            stack.enter_context(self.backend(case, [a.subscription, b.subscription]))
            for running in (a, b):
                self.wait_until_serving(running, case)
                self.load(running, case, "--seconds", str(WARM_SECONDS))
            yield a, b

    def start_and_compare(self, pair: Pair, case: Case) -> Iterator[Quad]:
        """Both routers afresh, compared QUADS times."""
        with self.both(pair, case) as (a, b):
            yield from compare(a, b, lambda running: self.measure(running, case))


def compare(a: Running, b: Running, run: Callable[[Running], Run]) -> Iterator[Quad]:
    """QUADS comparisons of four runs each, A B B A and B A A B in turn."""
    for number in range(QUADS):
        outer, inner = (b, a) if number % 2 else (a, b)
        o1, i1, i2, o2 = (run(running) for running in (outer, inner, inner, outer))
        yield ((i1, i2), (o1, o2)) if number % 2 else ((o1, o2), (i1, i2))
