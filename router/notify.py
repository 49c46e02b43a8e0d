"""Tells systemd how the service is, or whoever speaks its protocol: sd_notify(3).

NOTIFY_SOCKET is the datagram socket to tell, a path or @name; without it nothing is told. Over an exec it stays, as the
process does. Nobody who does not listen keeps the router from its work.
"""

from __future__ import annotations

import os
import socket
from time import monotonic_ns

from router.logs import log

VARIABLE = "NOTIFY_SOCKET"


def notify(*lines: str) -> None:
    """Send lines like READY=1, as one message."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), name)
    except (OSError, ValueError) as error:
        log.warning("cannot tell %s: %s", VARIABLE, error)


def ready() -> None:
    notify("READY=1", "STATUS=serving")


def reloading() -> None:
    """Until `ready`; systemd wants to know when that began."""
    notify("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}", "STATUS=starting anew")


def stopping() -> None:
    notify("STOPPING=1", "STATUS=finishing what is in flight")
