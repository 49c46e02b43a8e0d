"""Keeps the host names in a table's node addresses resolved: each at once, and again every 30 seconds.

An answer replaces what was known of the name. That there is no such name is an answer; a time-out or a server's failure
is none, and leaves the name's nodes as they are. Lookups run in the greenlets of the supervisor, a few at a time, so a
DNS server that is slow holds up other names and nothing else. Routers only ever see numeric addresses.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from gevent.event import Event
from gevent.pool import Pool

from router.address import HostName, name_of, parse_node
from router.table import Name, Table
from router.uwsgi import printable

RESOLVE_EVERY = 30.0  # seconds: what operators are used to as a short TTL; getaddrinfo does not tell the real one
LOOK_EVERY = 1.0  # seconds between two looks at which names are due
LOOKUPS = 8  # at once; fewer than the threads in which gevent runs them, so that others find one free

# What getaddrinfo says where the name is known not to exist, or to have no address. Everything else may pass.
NOTHING = frozenset((socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY))

log = logging.getLogger("gfrouter")


class Resolver:
    """Looks up the host names of `table`, whose `on_name` is `notice`. `lookup` is called as getaddrinfo is."""

    def __init__(
        self,
        table: Table,
        *,
        lookup: Callable[..., list[Any]] = socket.getaddrinfo,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.table = table
        self.lookup = lookup
        self.clock = clock
        self.pool = Pool(LOOKUPS)
        self.news = Event()

    def notice(self, _address: str) -> None:
        """There is a new name in the table."""
        self.news.set()

    def run(self) -> None:
        """Look up whatever is due, until killed."""
        while True:
            self.turn()
            self.news.wait(LOOK_EVERY)
            self.news.clear()

    def turn(self) -> None:
        """Begin the lookups that are due; waits only where too many are under way."""
        now = self.clock()
        for address, name in [one for one in self.table.names.items() if one[1].due <= now]:
            name.due = inf
            self.pool.spawn(self._look_up, address, name)

    def _look_up(self, address: str, name: Name) -> None:
        found, error = self._addresses(address)
        if self.table.names.get(address) is not name:  # it has been dropped meanwhile
            return
        if error and error != name.error:
            kept = f", its {len(name.addresses)} addresses stay" if found is None and name.addresses else ""
            log.warning("%s: %s%s", printable(address), error, kept)
        name.error = error
        name.due = self.clock() + RESOLVE_EVERY
        if found is not None:
            self.table.resolve(address, found)

    def _addresses(self, address: str) -> tuple[list[str] | None, str]:
        """The numeric addresses, None where that cannot be told; and what is wrong, "" for nothing."""
        target = parse_node(address)
        assert isinstance(target, HostName)
        try:
            found = self.lookup(target.host, target.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            return ([] if error.errno in NOTHING else None), f"cannot resolve {target.host}: {error.strerror}"
        except (OSError, UnicodeError, RuntimeError) as error:  # the last where no thread can be started for it
            return None, f"cannot resolve {target.host}: {error}"
        return [name_of(sockaddr) for _, _, _, _, sockaddr in found], ""
