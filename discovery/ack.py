"""The acknowledgement that a worker may ask for by `notify`: one datagram, when its node is new. Never blocks.

`notify` is a unix datagram socket's path, as in uWSGI, and here `@name` and a numeric `ip:port`, too. A host name is
refused, as a lookup would block everybody else's announcements.
"""

from __future__ import annotations

import socket

from router.address import AddressError, HostName, Unix, parse_node

MOST_PATH_BYTES = 101  # of a unix path; uWSGI takes no more


def acknowledge(notify: str, key: str, address: str) -> None:
    """Tell who listens at `notify` that `address` is a new node of `key`. OSError or AddressError where that fails."""
    target = parse_node(notify)
    if isinstance(target, HostName):
        raise AddressError(notify, "a host name; notify takes a path, @NAME or a numeric IP:PORT")
    text = f"[subscription ack] {key} => new node: {address}".encode("utf-8", "surrogateescape")
    with socket.socket(target.family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)  # gevent waits on a socket that is merely opened so
        if isinstance(target, Unix) and target.sockaddr.startswith(b"\0"):
            _to_abstract(sock, text, target.sockaddr)
        elif isinstance(target, Unix) and len(target.sockaddr) > MOST_PATH_BYTES:
            raise AddressError(notify, f"a path of {len(target.sockaddr)} bytes, but {MOST_PATH_BYTES} is the limit")
        else:
            sock.sendto(text, target.sockaddr)


def _to_abstract(sock: socket.socket, text: bytes, name: bytes) -> None:
    """uWSGI's own abstract names have a NUL behind them, those of everybody else have none."""
    try:
        sock.sendto(text, name)
    except ConnectionRefusedError:
        sock.sendto(text, name.removesuffix(b"\0"))
