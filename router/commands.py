"""What `gfrouter` does beside routing: `gfrouter NAME ...`, where NAME is an entry of the group `gfrouter.commands`.

An entry is a function that takes the words behind its name, as `main(argv: list[str])`, and gives the exit status; the
first line of its docstring is its line in `gfrouter --help`. None is imported before it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

from router.entry import beside

Command = Callable[[list[str]], int]

GROUP = "gfrouter.commands"
INTERRUPTED = 130  # the exit status that a shell gives to what Ctrl-C has ended
READER_GONE = 141  # and to what wrote to a reader that had left, as `head` does


def installed() -> list[EntryPoint]:
    """The entry points of all commands, by name."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def named(argv: Sequence[str]) -> EntryPoint | None:
    """The command that the first word is exactly the name of. An option, or a file of options, is none."""
    if not argv or not argv[0].isidentifier():  # spares the usual start the search among all that is installed
        return None
    return next((entry for entry in installed() if entry.name == argv[0]), None)


def run(entry: EntryPoint, argv: list[str]) -> int:
    """The exit status of the command with these words behind its name."""
    try:
        command: Command = entry.load()
    except ImportError as error:
        print(f"gfrouter: the command {entry.name} cannot be loaded: {error}", file=sys.stderr)
        return 1
    try:
        return printing(lambda: command(argv))
    except KeyboardInterrupt:
        return INTERRUPTED


def printing(work: Callable[[], int]) -> int:
    """The exit status of something that writes to standard output, where a reader may leave."""
    try:
        status = work()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return READER_GONE
    return status


def help_text(width: int = 80) -> str:
    """Its part of `gfrouter --help`: each command and what it does."""
    lines = [line for entry in installed() for line in beside(f"  {entry.name}", _summary(entry), width)]
    return "\n".join(["Commands (gfrouter COMMAND --help says more):", *lines]) + "\n"


def _summary(entry: EntryPoint) -> str:
    try:
        return (entry.load().__doc__ or "").strip().partition("\n")[0]
    except Exception as error:  # whatever a third party's module does when it is imported, there is help
        return f"(cannot be loaded: {error})"
