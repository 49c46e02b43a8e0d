"""What SIGUSR1 writes into the log: sums, router processes, keys and their nodes, in a bounded number of lines.

The head is uWSGI's own; what follows there are its workers and their applications, here what a router has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import gevent
import gevent.event

from router.logs import log
from router.uwsgi import printable

MOST_LINES = 200
PAUSE = 1.0  # seconds between two of them; signals that come meanwhile are one
END = "-----------------"

Stats = Mapping[str, Any]


class Reporter:
    """`snapshot` gives the stats of now (stats.py)."""

    def __init__(self, snapshot: Callable[[], Stats]) -> None:
        self._snapshot = snapshot
        self._asked = gevent.event.Event()

    def ask(self) -> None:
        """A signal has come."""
        self._asked.set()

    def run(self) -> None:
        """Report whenever that is asked, for ever."""
        while True:
            self._asked.wait()
            self._asked.clear()
            log.info("%s", "\n".join(lines(self._snapshot())))
            gevent.sleep(PAUSE)


def lines(stats: Stats) -> list[str]:
    """The report, of MOST_LINES at the most, a note of what was left out and the end."""
    total, queued = sum(worker["requests"] for worker in stats["workers"]), stats["queue"]["waiting"]
    head = [
        f"*** stats of uWSGI fastrouter (pid: {stats['pid']}) ***",
        f"\tworkers total requests: {total}",
        f"\tactive sessions: {stats['active_sessions']} waiting: {stats['waiting']} queued: {queued}",
    ]
    rest = _lines(stats)
    shown = [*head, *islice(rest, MOST_LINES - len(head))]
    more = sum(1 for _ in rest)
    return [*shown, *([f"\t({more} more lines)"] if more else []), END]


def _lines(stats: Stats) -> Iterator[str]:
    for worker in stats["workers"]:
        yield (
            f"\tworker {worker['id']} (pid: {worker['pid']}) requests: {worker['requests']} "
            f"active sessions: {worker['active_sessions']} status: {worker['status']}"
        )
    for kind, times in stats["complaints"].items():
        yield f"\t{kind}: {times}"
    for node in stats.get("static_nodes", ()):
        yield f"\tstatic {printable(node['name'])} hits: {node['hits']}{' (failed)' if node['grace'] else ''}"
    for pool in stats["subscriptions"]:
        yield f"\tkey {printable(pool['key'])} hits: {pool['hits']} nodes: {len(pool['nodes'])}"
        for node in pool["nodes"]:
            yield (
                f"\t\tnode {printable(node['name'])} requests: {node['requests']} tx: {node['tx']} rx: {node['rx']} "
                f"in flight: {node['ref']} failures: {node['failcnt']}{' (failed)' if node['death_mark'] else ''}"
            )
