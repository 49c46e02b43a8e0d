"""The sockets that systemd passed to this process, or whoever speaks its protocol: sd_listen_fds(3).

LISTEN_PID is the process that they are meant for, LISTEN_FDS their number from descriptor 3 on, and LISTEN_FDNAMES
their names, separated by colons; several may have one name, as all sockets of a unit do.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_FD = 3  # SD_LISTEN_FDS_START
MOST_FDS = 4096  # a number beyond is no count of sockets
NAMELESS = "unknown"  # what systemd itself calls a socket without a name


@dataclass(frozen=True, slots=True)
class Passed:
    """One socket that was passed: its descriptor, its name and its type (SOCK_STREAM or SOCK_DGRAM, or another)."""

    fd: int
    name: str
    kind: int


def passed_sockets(environ: Mapping[str, str], pid: int) -> list[Passed]:
    """The sockets that were passed to process `pid`, in order; what is no socket is left out."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not re.fullmatch("[0-9]{1,5}", count) or int(count) > MOST_FDS:
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(int(count)):
        name = names[index] if index < len(names) and names[index] else NAMELESS
        kind = _kind_of(FIRST_FD + index)
        if kind is not None:
            found.append(Passed(FIRST_FD + index, name, kind))
    return found


def _kind_of(fd: int) -> int | None:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    kind = sock.type
    sock.detach()  # or it would close what is not its own
    return kind
