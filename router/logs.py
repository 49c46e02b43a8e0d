"""The log: one line an event on one stream; uWSGI's own lines where it has any (tools grep for them)."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from router.address import name_of
from router.key import key_hash
from router.logstream import LogStream
from router.static import RESERVED
from router.table import Change
from router.uwsgi import printable

if TYPE_CHECKING:
    from _socket import socket

log = logging.getLogger("gfrouter")

LINES_A_SECOND = 10  # of one kind; of the rest a line says how many there were
LINES_A_CHANGE = 1000  # of one key; 50,000 would keep everybody waiting for whoever reads the log


def log_to(stream: TextIO) -> None:
    """Send all lines to `stream`, bare, as uWSGI does, and what Python and gevent write to standard error, too."""
    lines = sys.stderr = LogStream(stream.fileno(), stream.encoding)
    atexit.register(lines.finish)
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def finish_log() -> None:
    """What is not written yet is, if its reader is there: for an exec, which nothing of the process outlives."""
    if isinstance(sys.stderr, LogStream):
        sys.stderr.finish()


def renew_log() -> None:
    """Another file is open in place of the one that was logged to."""
    if isinstance(sys.stderr, LogStream):
        sys.stderr.renew()


def log_change(change: Change) -> None:
    """What changed in a pool: `foo.com + 10.0.0.5:3031 (consul)`, or uWSGI's lines for its own subscriptions."""
    key = RESERVED.get(change.key) or printable(change.key)
    if change.source.startswith("subscription"):
        who = f"[uwsgi-subscription for pid {os.getpid()}]"
        lines = [f"{who} new pool: {key} (hash key: {key_hash(change.key)})"] if change.opened else []
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
    """What goes wrong with single requests or nodes: counted by kind, logged a few lines a second of each kind."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()  # of this second, left out ones too

    def count(self, kind: str, text: str = "") -> None:
        """One more of `kind` (a few fixed words), and a line where there is a text."""
        self.counted[kind] += 1
        if text:
            self._lines[kind] += 1
            if self._lines[kind] <= LINES_A_SECOND:
                log.warning("[uwsgi-fastrouter] %s", text)

    def next_second(self) -> None:
        """Called once a second."""
        if not self._lines:
            return
        rest = [f"{count - LINES_A_SECOND} of {kind}" for kind, count in self._lines.items() if count > LINES_A_SECOND]
        self._lines.clear()
        if rest:
            log.warning("[uwsgi-fastrouter] more such lines were left out: %s", ", ".join(rest))
