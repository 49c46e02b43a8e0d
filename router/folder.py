"""Where we are, and the names of what is there: a deployment may remove that folder while we run.

Then a relative name leads nowhere, and whoever opens it is told so; to make it absolute raises nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


def working_directory() -> str:
    """The path of the present folder; empty where that has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def absolute(path: str) -> str:
    """A name's path from the root; the name as it is where it is relative and the present folder has been removed."""
    return os.path.normpath(os.path.join(working_directory(), path))


def resolved(path: str) -> str:
    """The same, with links followed."""
    path = absolute(path)
    return os.path.realpath(path) if os.path.isabs(path) else path


@dataclass(frozen=True, slots=True)
class Folder:
    """One that is there for us, though it is moved or removed: `fd` is open. `name` is its path; empty: it has none."""

    fd: int
    name: str

    def enter(self) -> None:
        os.fchdir(self.fd)


def present_folder() -> Folder:
    """Where we are."""
    return Folder(os.open(".", os.O_PATH | os.O_CLOEXEC), working_directory())
