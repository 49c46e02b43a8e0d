"""Our own address as others see it, and whether somebody accepts connections there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from discovery.whereabouts import Place
from router.address import HostName, Inet, Unix, name_of, parse_node

CONNECT_S = 1.0  # a worker that takes longer is not known to be there
# What connect() says where there is nobody. Whatever else it says, as that a queue is full, says nothing of the worker.
NOBODY = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR)


def own_address(address: str, place: Place) -> str | None:
    """`address`, in which an empty host becomes that of the interface which leads to `place`; None if none does."""
    if not address.startswith(":"):
        return address
    if isinstance(place, Unix):
        return f"127.0.0.1{address}"
    with socket.socket(place.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(place.sockaddr)  # sends nothing
        except OSError:
            return None
        host, _, *rest = probe.getsockname()
    return name_of((host, int(address[1:]), *rest))


def own_addresses(address: str, places: Iterable[Place]) -> dict[Place, str | None]:
    """Where somebody is → where he finds us; None where no way leads to him.

    Who has addresses of both families must not take us for two nodes: we have an IPv4 address for him then, the only
    kind that a uWSGI worker usually listens at.
    """
    found = {place: own_address(address, place) for place in places}
    if address.startswith(":"):
        others = {place: own for place, own in found.items() if place.family != socket.AF_INET6}
        return others if any(others.values()) else found
    return found


def accepts(address: str) -> bool | None:
    """Whether a connect succeeds; None where that cannot be told."""
    target = parse_node(address)
    try:
        if isinstance(target, HostName):
            socket.create_connection((target.host, target.port), CONNECT_S).close()
        else:
            _connect(target)
    except OSError as error:
        return False if error.errno in NOBODY else None
    return True


def _connect(target: Inet | Unix) -> None:
    with socket.socket(target.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_S)
        sock.connect(target.sockaddr)
