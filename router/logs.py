"""The log: one line an event on one stream, uWSGI's own lines where it has any (tools grep for them), else the delta."""

from __future__ import annotations

import logging
import os
from typing import TextIO

from router.stats import djb33x
from router.table import Change

log = logging.getLogger("gfrouter")


def log_to(stream: TextIO) -> None:
    """Send all lines to `stream`, bare, as uWSGI does."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def log_change(change: Change) -> None:
    """What changed in a pool: `foo.com + 10.0.0.5:3031 (consul)`, or uWSGI's lines for its own subscriptions."""
    who = f"[uwsgi-subscription for pid {os.getpid()}]"
    subscribed = change.source.startswith("subscription")
    if change.opened and subscribed:
        log.info("%s new pool: %s (hash key: %d)", who, change.key, djb33x(change.key))
    for member in change.joined:
        if subscribed:
            log.info("%s %s => new node: %s", who, change.key, member.endpoint.address)
        else:
            log.info("%s + %s (%s)", change.key, member.endpoint.address, change.source)
    if not subscribed:
        for member in change.left:
            log.info("%s - %s (%s)", change.key, member.endpoint.address, change.source)
