"""The processes, and the configuration itself: a part of the table in options.py."""

from __future__ import annotations

from dataclasses import dataclass

from router.entry import option
from router.values import (
    MAX_PROCESSES,
    file_name,
    flag,
    seconds,
    whole,
)

PROCESS = "Processes"
CONFIGURATION = "Configuration"


@dataclass(frozen=True)
class ProcessOptions:
    processes: int = option(
        1, whole(0, MAX_PROCESSES), PROCESS, "N",
        "run so many router processes",
        plain="processes workers", zero_is_default=True,
    )  # fmt: skip
    drain_timeout: int = option(
        30, seconds, PROCESS, "SECONDS",
        "give the requests in flight so long when stopping",
        plain="drain-timeout", ours=True,
    )  # fmt: skip
    state_file: str | None = option(
        None, file_name, PROCESS, "FILE",
        "keep what is known of the nodes here, and begin with it at the next start",
        plain="state-file", ours=True,
    )  # fmt: skip
    harakiri: int = option(
        0, seconds, PROCESS, "SECONDS",
        "kill a router process that is stuck for so long; 0 = never",
        plain="harakiri",
    )  # fmt: skip
    check: bool = option(
        False, flag, CONFIGURATION, "",
        "say of each setting what becomes of it, and end: status 0 where all of it can be used",
        plain="check", ours=True,
    )  # fmt: skip
    ini: tuple[str, ...] = option(
        (), file_name, CONFIGURATION, "FILE[:SECTION]",
        "read a configuration: its sections [uwsgi] and [gfrouter], or the one named; repeatable",
        plain="ini", uwsgi="ini",
    )  # fmt: skip
    strict: bool = option(
        False, flag, CONFIGURATION, "",
        "refuse unknown names in a configuration, which are placeholders otherwise",
        plain="strict", uwsgi="strict",
    )  # fmt: skip
