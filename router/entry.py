"""One row of the table of options, and how `--help` prints it.

`option()` writes a row as the default of a dataclass field, so that a field's name and type, which the rest
of the program and mypy see, stand beside its spellings, its reader and its help. `rows()` gives them back.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

# The column in which the explanations of --help begin, and the least width that they keep.
HELP_COLUMN = 30
LEAST_HELP_WIDTH = 40

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One option.

    `read` turns a text into the value; its ValueError says what is wrong and what is legal.
    `plain`: its spellings on the command line and in [gfrouter]; `uwsgi`: those in uWSGI's own configuration.
    """

    field: str
    default: Any
    read: Callable[[str], Any]
    group: str
    metavar: str
    help: str
    plain: tuple[str, ...]
    uwsgi: tuple[str, ...]
    zero_is_default: bool
    value_is_optional: bool

    @property
    def is_flag(self) -> bool:
        return self.default is False

    @property
    def notation(self) -> str:
        """As getopt writes it: "" for a flag, "=" where a value must follow, "?" where one may, as --name=value."""
        return "" if self.is_flag else "?" if self.value_is_optional else "="

    @property
    def repeatable(self) -> bool:
        return isinstance(self.default, tuple)


def option(
    default: T,
    read: Callable[[str], Any],
    group: str,
    metavar: str,
    help: str,
    *,
    plain: str,
    uwsgi: str | None = None,
    zero_is_default: bool = False,
    value_is_optional: bool = False,
) -> T:
    """One row; without `uwsgi` its spellings there are the plain ones with `fastrouter-` before them."""
    names = plain.split()
    row = {
        "read": read,
        "group": group,
        "metavar": metavar,
        "help": help,
        "plain": tuple(names),
        "uwsgi": tuple(f"fastrouter-{name}" for name in names) if uwsgi is None else tuple(uwsgi.split()),
        "zero_is_default": zero_is_default,
        "value_is_optional": value_is_optional,
    }
    return dataclasses.field(default=default, metadata=row)


def rows(table: type) -> list[Entry]:
    """The rows of a dataclass whose fields are written with `option`."""
    return [Entry(f.name, f.default, **f.metadata) for f in dataclasses.fields(table) if f.metadata]


def help_of(entries: Sequence[Entry], width: int) -> list[str]:
    """The lines of --help for these rows, group by group."""
    plain = {name for entry in entries for name in entry.plain}
    lines: list[str] = []
    for group in dict.fromkeys(entry.group for entry in entries):
        lines += [f"{group}:"]
        for entry in entries:
            if entry.group == group:
                lines += _lines_of(entry, plain, max(width - HELP_COLUMN, LEAST_HELP_WIDTH))
        lines += [""]
    return lines


def _lines_of(entry: Entry, plain: set[str], width: int) -> list[str]:
    """`plain`: all plain spellings; a uWSGI one that is also another option's is not for the command line."""
    text = entry.help
    if entry.default not in (None, False, ()):
        text += f" (default: {', '.join(entry.default) if entry.repeatable else entry.default})"
    others = dict.fromkeys((*entry.plain, *entry.uwsgi))
    also = [f"--{name}" for name in others if name in entry.plain[1:] or name not in plain]
    only_there = [name for name in entry.uwsgi if name in plain and name not in entry.plain]
    right = textwrap.wrap(text, width)
    right += textwrap.wrap(f"also {', '.join(also)}", width) if also else []
    right += [f"in [uwsgi]: {name}" for name in only_there]
    value = f"[={entry.metavar}]" if entry.value_is_optional else f" {entry.metavar}"
    left = f"  --{entry.plain[0]}{value}".rstrip()
    if len(left) >= HELP_COLUMN:
        return [left, *(" " * HELP_COLUMN + line for line in right)]
    return [f"{left:{HELP_COLUMN}}{right[0]}", *(" " * HELP_COLUMN + line for line in right[1:])]
