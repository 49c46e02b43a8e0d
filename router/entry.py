"""One row of the table of options, and how `--help` prints it.

`option()` writes a row as the default of a dataclass field, so that a field's name and type, which the rest
of the program and mypy see, stand beside its spellings, its reader and its help. `rows()` gives them back.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence, Set
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
    `plain`: its spellings on the command line and in [gfrouter]; `uwsgi`: those in uWSGI's own configuration. `ours`:
    uWSGI has nothing like it.
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
    ours: bool

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
    ours: bool = False,
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
        "ours": ours,
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
                lines += _lines_of(entry, plain, width)
        lines += [""]
    return lines


def typed(entry: Entry, plain: Set[str]) -> list[str]:
    """Its spellings for the command line, the first one to be preferred.

    `plain`: all plain spellings; a uWSGI one that is also another option's is not for the command line.
    """
    others = [name for name in (*entry.plain[1:], *entry.uwsgi) if name in entry.plain or name not in plain]
    return list(dict.fromkeys([entry.plain[0], *others]))


def default_of(default: Any) -> str:
    """A default as it would be written; "" where it is nothing, off, or said in the help."""
    if default in (None, False, ()):
        return ""
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def beside(left: str, text: str, width: int, more: Sequence[str] = ()) -> list[str]:
    """The lines of a name with its explanation beside it, and `more` lines under that."""
    right = [*textwrap.wrap(text, max(width - HELP_COLUMN, LEAST_HELP_WIDTH)), *more]
    first = [left] if len(left) >= HELP_COLUMN else [f"{left:{HELP_COLUMN}}{right.pop(0)}"]
    return first + [" " * HELP_COLUMN + line for line in right]


def _lines_of(entry: Entry, plain: Set[str], width: int) -> list[str]:
    default = default_of(entry.default)
    text = f"{entry.help} (default: {default})" if default else entry.help
    also = [f"--{name}" for name in typed(entry, plain)[1:]]
    only_there = [name for name in entry.uwsgi if name in plain and name not in entry.plain]
    more = textwrap.wrap(f"also {', '.join(also)}", max(width - HELP_COLUMN, LEAST_HELP_WIDTH)) if also else []
    more += [f"in [uwsgi]: {name}" for name in only_there]
    value = f"[={entry.metavar}]" if entry.value_is_optional else f" {entry.metavar}"
    return beside(f"  --{entry.plain[0]}{value}".rstrip(), text, width, more)
