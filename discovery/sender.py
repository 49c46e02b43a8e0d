"""Who sent a datagram. A sender here is what recvfrom says: (host, port, ...), or a unix socket's path, or nothing."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from discovery.announcement import Announcement
from router.address import AddressError, Inet, name_of, parse_node
from router.uwsgi import printable


def from_sender(said: Announcement, sender: Any) -> Announcement:
    """The announcement with its sender's host where it names none, or any: so that of a container says where it is."""
    try:
        target = parse_node(said.address)
    except AddressError:
        return said  # it will be refused by whoever uses it
    if not isinstance(target, Inet) or not isinstance(sender, tuple):
        return said
    host = target.sockaddr[0]
    if not said.address.startswith(":") and any(socket.inet_pton(target.family, host)):
        return said
    host, _ = host_and_port(sender)
    return replace(said, address=name_of((host, target.sockaddr[1], *sender[2:])))


def host_and_port(sender: Any) -> tuple[str, int]:
    """Who sent a datagram; an IPv4 host that came through an IPv6 socket is itself. "" for a unix socket."""
    if not isinstance(sender, tuple):
        return "", 0
    host = sender[0]
    return (host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host), sender[1]


def shown(sender: Any) -> str:
    if isinstance(sender, tuple):
        return name_of((*host_and_port(sender), *sender[2:]))
    return printable(name_of(sender)) if sender else "a unix socket"
