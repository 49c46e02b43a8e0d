"""`make bench`: how much CPU gfrouter spends on a request, beside uWSGI's own fastrouter on the same machine.

Each case is measured over several starts of both routers (measure.py says how). A ratio is B over A within
one comparison; the table shows the medians of all comparisons, and the least and the greatest ratio.
The cases `flood` (flooded.py), `table` (table.py), `picks` (picks.py) and `changes` (changes.py) have tables of their
own. Ends with 1 if a request failed, the headline's CPU ratio passes CPU_LIMIT, or one of these took more than its
limits say, with 2 if it could not measure.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import changes
import flooded
import picks
import table
from flooded import FloodResult
from measure import Bench, BenchError, Case, Figure, Pair, Quad, Router

CPU_LIMIT = 1.3  # gfrouter's CPU per request over the fastrouter's in the headline: what the project promises
ROUNDS = 3  # starts of both routers: one that fell badly in memory is outvoted
RUN_SECONDS = 0.3  # thousands of requests; short, because the order of the runs then cancels more of a drift
STATS_AND_PATIENCE = ("{stats}", "--subscription-tolerance", "600")  # the end of both routers' flood options
BUSY = 0.9  # using less than this share of its CPU, the router was not the limit of the requests/s

HEADLINE = "get"
CASES = {
    HEADLINE: Case("GET, 176 bytes, 64 clients"),
    "clients16": Case("GET, 176 bytes, 16 clients", clients=16),
    "nodes10": Case("GET, 176 bytes, 10 nodes", nodes=10),
    "unix": Case("GET, 176 bytes, unix sockets", unix=True),
    "reply64k": Case("64 KiB reply", reply=65536),
    "reply64k-tuned": Case("64 KiB reply, buffer-size=65536", reply=65536, buffer_size=65536),
    "reply1m": Case("1 MiB reply, 16 clients", clients=16, reply=1 << 20),
    "body64k": Case("64 KiB request body", body=65536),
}


@dataclass(frozen=True)
class Result:
    """What a case showed. Latencies are the load generator's, from connect to EOF, in microseconds."""

    case: str
    cpu_us: Figure
    per_second: Figure
    busy: Figure
    p50_us: Figure
    p99_us: Figure
    errors: int
    first_error: str

    @classmethod
    def of(cls, case: str, quads: list[Quad]) -> Result:
        runs = [run for sides in quads for side in sides for run in side]
        return cls(
            case,
            cpu_us=Figure.of(quads, lambda run: run.cpu_us),
            per_second=Figure.of(quads, lambda run: run.per_second),
            busy=Figure.of(quads, lambda run: run.busy),
            p50_us=Figure.of(quads, lambda run: run.p50_us),
            p99_us=Figure.of(quads, lambda run: run.p99_us),
            errors=sum(run.errors for run in runs),
            first_error=next((run.first_error for run in runs if run.errors), ""),
        )

    def row(self) -> str:
        cpu, rate = self.cpu_us, self.per_second
        rate_a = f"{'>' if self.busy.a < BUSY else ''}{rate.a:,.0f}"
        rate_b = f"{'>' if self.busy.b < BUSY else ''}{rate.b:,.0f}"
        return (
            f"{CASES[self.case].title:<33}{cpu.a:>8.1f}{cpu.b:>8.1f}  {cpu.spread:<17}"
            f"{rate_a:>9}{rate_b:>9}  {rate.spread:<17}{self.errors:>6}"
        )


HEAD = (
    f"{'':<33}{'CPU µs/request':>16}  {'':<17}{'requests/s':>18}\n"
    f"{'':<33}{'A':>8}{'B':>8}  {'B/A':<17}{'A':>9}{'B':>9}  {'B/A':<17}{'errors':>6}"
)


def faults(results: list[Result], limited: bool) -> list[str]:
    """What is wrong with these results, a line each; limited: the headline is held to CPU_LIMIT."""
    found = [f"{r.case}: {r.errors} requests failed, the first: {r.first_error}" for r in results if r.errors]
    for r in results:
        if limited and r.case == HEADLINE and r.cpu_us.ratio > CPU_LIMIT:
            ratio = f"{r.cpu_us.ratio:.3f}"
            found.append(f"{r.case}: CPU/request is {ratio} of the fastrouter's, the limit is {CPU_LIMIT}")
    return found


def fastrouter(name: str = "fastrouter") -> Router:
    uwsgi = Path(sys.executable).parent / "uwsgi"
    if not uwsgi.exists():
        raise BenchError(f"no {uwsgi}: install pyuwsgi beside this python")
    options = "--fastrouter {listen} --fastrouter {unix} --fastrouter-subscription-server {subscription}"
    command, flood = (str(uwsgi), "--master", *options.split()), ("--fastrouter-stats-server", *STATS_AND_PATIENCE)
    return Router(name, command, "children", "--fastrouter-buffer-size", flood)


def gfrouter() -> Router:
    options = "-m router --listen {listen} --listen {unix} --subscription-server {subscription}"
    command, flood = (sys.executable, *options.split()), ("--stats", *STATS_AND_PATIENCE)
    return Router("gfrouter", command, "server", flood_options=flood)


def parse_arguments() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help=f"only the headline, {HEADLINE}")
    everything = [*CASES, flooded.NAME, table.NAME, picks.NAME, changes.NAME]
    parser.add_argument("--case", action="append", choices=everything, help="only this case; repeatable")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"starts of both routers ({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=RUN_SECONDS, help=f"of a single run ({RUN_SECONDS})")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--self-check", action="store_true", help="two fastrouters: shows the noise")
    side.add_argument(
        "--candidate",
        metavar="CMD",
        help="in place of gfrouter: a command with {listen}, {subscription} and, where it can, {unix} and {stats}",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error(f"--rounds {arguments.rounds} and --seconds {arguments.seconds:g} must be above zero")
    arguments.cases = arguments.case or ([HEADLINE] if arguments.quick else everything)
    return arguments


def pair_of(arguments: argparse.Namespace) -> Pair:
    if arguments.self_check:
        return fastrouter(), fastrouter("fastrouter again")
    if arguments.candidate:
        return fastrouter(), Router("candidate", tuple(shlex.split(arguments.candidate)), "any")
    return fastrouter(), gfrouter()


def run_cases(bench: Bench, pair: Pair, arguments: argparse.Namespace) -> Iterator[Result]:
    for name, case in ((name, CASES[name]) for name in arguments.cases if name in CASES):
        if case.unix and not pair[1].takes_unix:
            print(f"{name}: left out, the command has no {{unix}}", file=sys.stderr)
            continue
        rounds = range(arguments.rounds)
        yield Result.of(name, [quad for _ in rounds for quad in bench.start_and_compare(pair, case)])


def run_flood(bench: Bench, pair: Pair, arguments: argparse.Namespace) -> FloodResult | None:
    if flooded.NAME not in arguments.cases:
        return None
    if not pair[1].has_stats:
        print(f"{flooded.NAME}: left out, the command has no {{stats}}", file=sys.stderr)
        return None
    return FloodResult.of([flooded.start_and_flood(bench, pair) for _ in range(arguments.rounds)])


def main() -> int:
    arguments = parse_arguments()
    pair, cpus = pair_of(arguments), sorted(os.sched_getaffinity(0))
    if len(cpus) == 1:
        print("only one CPU: load and backend take theirs from the routers", file=sys.stderr)
    if not arguments.json:
        print(f"A = {pair[0].name}, B = {pair[1].name}, on CPU {cpus[0]}; load and backend on {cpus[-1]}.")
        print(f"Medians (least-greatest). >: the router used under {BUSY:.0%} of its CPU.\n")
        if set(arguments.cases) & set(CASES):
            print(HEAD, flush=True)
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder), cpus[0], cpus[-1], arguments.seconds)
        bench.compile()
        for result in run_cases(bench, pair, arguments):
            results.append(result)
            if not arguments.json:
                print(result.row(), flush=True)
        flood = run_flood(bench, pair, arguments)
    tables = table.measured() if table.NAME in arguments.cases else None
    picked = picks.measured() if picks.NAME in arguments.cases else None
    changed = changes.measured() if changes.NAME in arguments.cases else None
    if not results and not flood and not tables and not picked and not changed:
        raise BenchError("no case was measured")
    limited = pair[1].name == "gfrouter"
    found = faults(results, limited)
    parts = [part for part in (flood, tables, picked, changed) if part]
    for part in parts:
        found += part.faults(limited)
    if arguments.json:
        shown: dict[str, Any] = {
            "routers": [asdict(router) for router in pair],
            "results": [asdict(r) for r in results],
        }
        others = {flooded.NAME: flood, table.NAME: tables, picks.NAME: picked, changes.NAME: changed}
        shown |= {name: part and asdict(part) for name, part in others.items()}
        print(json.dumps({**shown, "faults": found}, indent=1))
    else:
        for part in parts:
            print(f"\n{part.table()}")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
