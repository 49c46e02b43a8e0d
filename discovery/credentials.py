"""Who has sent a datagram through a unix socket, as the kernel says it (SCM_CREDENTIALS, unix(7)).

The kernel adds the ids of the process that has sent it, or checks those that it says itself; only root may say others.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

UCRED = struct.Struct("@iII")  # struct ucred: pid, uid, gid
# There is room for one of these and for nothing else, so a descriptor that a sender attaches does not come in.
ROOM = socket.CMSG_SPACE(UCRED.size)
NOBODY = 65_534  # what the kernel gives for an id that it does not know, or that our namespace has no name for


class Credentials(NamedTuple):
    """The ids of a sending process; pid 0 is one of another pid namespace."""

    pid: int
    uid: int
    gid: int


def ask_for(sock: socket.socket) -> None:
    """Have the kernel say who sends, where the socket is a unix one."""
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def receive(sock: socket.socket, size: int) -> tuple[bytes, Any, Credentials | None]:
    """(datagram, its sender as recvfrom says it, whose it is; None where that is not known). Raises as recvmsg does."""
    datagram, ancillary, _, sender = sock.recvmsg(size, ROOM)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == UCRED.size:
            found = Credentials(*UCRED.unpack(data))
            # So does one look that came in before `ask_for`.
            return datagram, sender, None if found == (0, NOBODY, NOBODY) else found
    return datagram, sender, None


def own(key: str, places: Iterable[str], sender: Credentials) -> bool:
    """Whether at one of `places` + key there is a file whose owner and group are the sender's."""
    if "\0" in key or {".", ".."} & set(key.split("/")):  # a key that leads elsewhere
        return False
    for place in places:
        try:
            status = os.stat(os.fsencode(place) + key.encode("utf-8", "surrogateescape"))  # whatever the locale
        except OSError:
            continue
        if (status.st_uid, status.st_gid) == (sender.uid, sender.gid):
            return True
    return False
