"""The log: one line an event on one stream; uWSGI's own lines where it has any (tools grep for them)."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from router.address import name_of
from router.key import djb33x
from router.table import Change
from router.uwsgi import printable

if TYPE_CHECKING:
    from _socket import socket

log = logging.getLogger("gfrouter")

LINES_A_SECOND = 10  # about single requests; under a flood the rest is counted only
LINES_A_CHANGE = 1000  # of one key; 50,000 would keep everybody waiting for whoever reads the log


def log_to(stream: TextIO) -> None:
    """Send all lines to `stream`, bare, as uWSGI does."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def log_change(change: Change) -> None:
    """What changed in a pool: `foo.com + 10.0.0.5:3031 (consul)`, or uWSGI's lines for its own subscriptions."""
    key = printable(change.key)
    if change.source.startswith("subscription"):
        who = f"[uwsgi-subscription for pid {os.getpid()}]"
        lines = [f"{who} new pool: {key} (hash key: {djb33x(change.key)})"] if change.opened else []
        lines += [f"{who} {key} => new node: {printable(member.endpoint.address)}" for member in change.joined]
        # What leaves by its own word or by silence has been logged by the source, and what its name takes away has not.
        gone = change.left if change.name else ()
        lines += [f"{key} - {printable(member.endpoint.address)} ({change.name})" for member in gone]
    else:
        lines = [f"{key} + {printable(member.endpoint.address)} ({change.source})" for member in change.joined]
        lines += [f"{key} - {printable(member.endpoint.address)} ({change.source})" for member in change.left]
    if len(lines) > LINES_A_CHANGE:
        lines[LINES_A_CHANGE:] = [f"{key}: {len(lines) - LINES_A_CHANGE} more lines of this kind"]
    if lines:  # as one record: a record and its flush cost more than a line
        log.info("%s", "\n".join(lines))


def peer_name(client: socket) -> str:
    """Who it is, for a log line."""
    try:
        return name_of(client.getpeername()) or "on a unix socket"
    except OSError:
        return "(gone)"


class Complaints:
    """What goes wrong with single requests in a router: counted by kind, logged a few lines a second."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._lines = 0

    def count(self, kind: str, text: str = "") -> None:
        """One more of `kind` (a few fixed words), and a line where there is a text."""
        self.counted[kind] += 1
        if text:
            self._lines += 1
            if self._lines <= LINES_A_SECOND:
                log.warning("[uwsgi-fastrouter] %s", text)

    def next_second(self) -> None:
        self._lines = 0
