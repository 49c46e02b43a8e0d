"""The admin API's JSON → lines for people, aligned, within 80 columns unless a name is long. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from router.uwsgi import printable

Json = dict[str, Any]

WIDTH = 80
COLUMN = 30  # characters of a column at most; a first cell that is longer has a line for itself, others move the rest
MOST_OUT = 10  # nodes that are out, or drained, and are listed

OUTCOMES = {
    "node": "goes to a node",
    "wait": "waits",
    "no node": "is refused",
    "unknown key": "is refused",
}


def status_page(said: Json, out: Sequence[Json]) -> list[str]:
    """The process, its routers, its sources, and the nodes that are `out`."""
    lines = [f"gfrouter {said['version']}, pid {said['pid']}, up {duration(said['uptime'])}"]
    lines += [f"  {use}: {', '.join(map(printable, where))}" for use, where in said["addresses"].items() if where]
    if said["warming"]:
        lines.append(f"  warming: requests for unknown keys wait, for {duration(said['warming'])} at most")
    known = f"{number(said['pools'], 'key')}, {number(said['nodes'], 'node')}, {said['out']} of them out"
    lines += ["", f"{known}; {number(said['requests'], 'request')}, {said['in_flight']} in flight", ""]
    lines += table(
        ("router", "pid", "state", "starts", "in flight", "requests"),
        [[one["number"], one["pid"] or "-", one["state"], one["starts"], one["in_flight"], one["requests"]]
         for one in said["processes"]],
    )  # fmt: skip
    lines += ["", *sources_table(said["sources"])]
    lines += _some("out of turn:", [printable(node["address"]) + _until(node["retry_in"]) for node in out])
    lines += _some("drained:", [f"{one['kind']} {printable(one['what'])}" for one in said["drained"]])
    return lines


def _some(head: str, names: Sequence[str]) -> list[str]:
    """A paragraph of them, the first MOST_OUT by name."""
    more = [f"  and {len(names) - MOST_OUT} more"] if len(names) > MOST_OUT else []
    return ["", head, *(f"  {name}" for name in names[:MOST_OUT]), *more] if names else []


def _until(retry_in: float | None) -> str:
    return "" if retry_in is None else f", tried again in {duration(retry_in)}"


def drains_page(said: Json, doing: str) -> list[str]:
    """A line for each of the words, of which `doing` is what was done."""
    return [line for one in said["drains"] for line in textwrap.wrap(_drain(one, doing), WIDTH)]


def _drain(one: Json, doing: str) -> str:
    what = f"{one['kind']} {printable(one['what'])}: {doing}"
    if not one["known"]:
        return f"{what}; nobody knows it now"
    stands_for = "" if one["nodes"] == [one["what"]] else f" ({number(len(one['nodes']), 'node')})"
    in_flight = "not all routers say what is" if one["in_flight"] is None else one["in_flight"]
    return f"{what}{stands_for}, {in_flight} in flight"


def sources_table(sources: Sequence[Json]) -> list[str]:
    """A line for each source, and one below it with its error."""
    if not sources:
        return ["no source of nodes"]
    rows = [
        [one["name"], one["state"], one["keys"], one["nodes"], one["errors"], sum(one["rejected"].values()),
         "-" if one["age"] is None else duration(one["age"])]
        for one in sources
    ]  # fmt: skip
    head, *lines = table(("source", "state", "keys", "nodes", "errors", "dropped", "age"), rows)
    errors = (textwrap.wrap(f"{printable(one['error'])}", WIDTH, initial_indent="    ", subsequent_indent="    ")
              for one in sources)  # fmt: skip
    return [head, *(line for row, error in zip(lines, errors, strict=True) for line in (row, *error))]


def lookup_page(said: Json) -> list[str]:
    """What becomes of a request with this key, its nodes, and what the sources say."""
    reasons = "; ".join(map(printable, said["reasons"]))
    lines = textwrap.wrap(f"{printable(said['key'])}: a request {OUTCOMES[said['outcome']]}: {reasons}", WIDTH)
    if said["nodes"]:
        lines += ["", *table(("node", "next", "weight", "level", "state", "said by"), map(_candidate, said["nodes"]))]
    for one in said["unresolved"]:
        lines += ["", f"{printable(one['address'])} has no address: {printable(one['error'] or 'not looked up yet')}"]
    unable = [one for one in said["sources"] if one["error"]]
    silent = [one["name"] for one in said["sources"] if not one["knows"] and not one["error"]]
    if unable or silent:
        lines.append("")
    for one in unable:
        lines += textwrap.wrap(f"{printable(one['name'])} cannot see: {printable(one['error'])}", WIDTH)
    if silent:
        lines += textwrap.wrap(f"does not know it: {', '.join(map(printable, silent))}", WIDTH)
    return lines


def _candidate(node: Json) -> list[object]:
    state = node["state"] if node["retry_in"] is None else f"out, {duration(node['retry_in'])}"
    state += ", drained" if node["drained"] else ""
    first = node["said"][0] if node["said"] else {}
    address = node["address"] + (f" ({node['host']})" if node["host"] else "")
    by = [one["source"] + _other_than(first, one) for one in node["said"]]
    return [address, "yes" if node["next"] else "no", node["weight"], node["backup"], state, ", ".join(by)]


def _other_than(first: Json, said: Json) -> str:
    """What a source says that does not count, as another one comes first."""
    names = {"weight": "weight", "backup": "level", "modifier1": "modifier1", "modifier2": "modifier2"}
    others = [f"{shown} {said[name]}" for name, shown in names.items() if said[name] != first[name]]
    return f" (overridden: {', '.join(others)})" if others else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Columns, each as wide as its widest cell but no wider than COLUMN. One text a row, of one line or two."""
    cells = [list(head), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [min(max(map(len, column)), COLUMN) for column in zip_longest(*cells, fillvalue="")]
    for row in cells:
        if len(row[0]) > COLUMN:
            row[0] += "\n" + " " * widths[0]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """In the two largest units that matter: `3 s`, `2 min 5 s`, `4 h 7 min`, `12 d 3 h`."""
    left = round(seconds)
    for unit, size, below, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{left} s"
