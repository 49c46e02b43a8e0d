"""`gfrouter nodes`: the nodes that a router knows, read from its stats server, as a file of nodes (nodes.py).

The stats of the uWSGI FastRouter and of gfrouter have the same names, so either can be asked; docs/upgrade.md is what
it is for. Nodes that are marked as failed are left out, and the lines are in order: two routers that know the same
nodes give the same text.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from typing import Any

from discovery.nodes import Pools, text_of
from router.address import AddressError, HostName, Unix, parse_node
from router.node import Node
from router.uwsgi import printable

PATIENCE = 5.0  # seconds for each step; gfrouter answers in less than one, even with 50,000 nodes
LARGEST = 256 << 20  # bytes; 50,000 nodes are 25 MiB
HTTP = "http://"
GET = b"GET / HTTP/1.0\r\n\r\n"


class Unread(Exception):
    """The stats cannot be had; the text says where, and why."""


def main(argv: list[str]) -> int:
    """Print the nodes that a router knows, a fastrouter or gfrouter, as a file of nodes."""
    parser = argparse.ArgumentParser(prog="gfrouter nodes", description=main.__doc__)
    parser.add_argument(
        "stats", metavar=f"[{HTTP}]ADDRESS", help=f"its stats server, with {HTTP} where that speaks HTTP (stats-http)"
    )
    address = parser.parse_args(argv).stats
    try:
        print(text_of(pools_of(fetch(address))), end="")
    except Unread as error:
        print(f"gfrouter nodes: {printable(f'{address}: {error}')}", file=sys.stderr)
        return 1
    return 0


def pools_of(data: bytes) -> Pools:
    """Key → live nodes by address, both in order, of stats as they come from the server. `Unread` if they are none."""
    try:
        stats = json.loads(data.decode("utf-8", "surrogateescape"), strict=False)
        said = stats.get("subscriptions", [])
        pools = {pool["key"]: [node_of(one) for one in pool["nodes"] if not one["death_mark"]] for pool in said}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unread(f"no stats of a router: {data[:40]!r}") from None
    return {key: sorted(nodes, key=lambda node: node.address) for key, nodes in sorted(pools.items()) if nodes}


def node_of(said: dict[str, Any]) -> Node:
    """The node that stats show; uWSGI 2.0 does not show its backup level."""
    return Node(
        str(said["name"]),
        weight=max(1, int(said["weight"])),
        backup=int(said.get("backup", 0)),
        modifier1=int(said["modifier1"]),
        modifier2=int(said["modifier2"]),
    )


def fetch(address: str) -> bytes:
    """All that the stats server sends, without headers. `Unread` says why it cannot be had."""
    try:
        with connected(address.removeprefix(HTTP)) as sock:
            if address.startswith(HTTP):
                sock.sendall(GET)
            data = bytearray()
            while piece := sock.recv(65536):
                data += piece
                if len(data) > LARGEST:
                    raise Unread(f"more than {LARGEST} bytes")
    except AddressError as error:
        raise Unread(error.reason) from None
    except TimeoutError:
        spoken = "" if address.startswith(HTTP) else f" (with stats-http, write {HTTP}{address})"
        raise Unread(f"no answer within {PATIENCE:.0f} s{spoken}") from None
    except (OSError, UnicodeError) as error:
        raise Unread(getattr(error, "strerror", None) or str(error)) from None
    return bytes(data) if not address.startswith(HTTP) else bytes(data.partition(b"\r\n\r\n")[2])


def connected(address: str) -> socket.socket:
    target = parse_node(address)
    if isinstance(target, HostName):
        return socket.create_connection((target.host, target.port), PATIENCE)
    sock = socket.socket(socket.AF_UNIX if isinstance(target, Unix) else target.family)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(target.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
