"""Keeps the host names in a table's node addresses resolved: each at once, and again every 30 seconds.

An answer replaces what was known of the name. That there is no such name is an answer; a time-out or a server's failure
is none, and leaves the name's nodes as they are. Lookups run in the greenlets of the supervisor, a few at a time, so a
DNS server that is slow holds up other names and nothing else. Addresses of a family that this machine does not have are
left out. Routers only ever see numeric addresses.
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
WARNINGS = 10  # a second
DOUBTFUL = 4  # lookups at once of names whose last one failed: those may wait for their time-out again
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
        self.doubtful = 0  # lookups under way of names whose last one failed
        self.news = Event()
        self.second = self.warnings = 0

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
        """Begin the lookups that are due, new names first, as far as there is room for them. Never waits."""
        now = self.clock()
        due = [(name.due, address) for address, name in self.table.names.items() if name.due <= now]
        for _, address in sorted(due):
            if self.pool.full():
                return  # whichever lookup ends first is followed by the next turn
            name = self.table.names[address]
            if name.error and self.doubtful >= DOUBTFUL:
                continue
            name.due = inf
            self.doubtful += bool(name.error)
            self.pool.spawn(self._look_up, address, name)

    def _look_up(self, address: str, name: Name) -> None:
        doubtful = bool(name.error)
        found, error = self._addresses(address)
        self.doubtful -= doubtful
        self.news.set()
        if self.table.names.get(address) is not name:  # it has been dropped meanwhile
            return
        if error and error != name.error:
            kept = f", its {len(name.addresses)} addresses stay" if found is None and name.addresses else ""
            self._warn(f"{printable(address)}: {error}{kept}")
        name.error = error
        name.due = self.clock() + RESOLVE_EVERY
        if found is not None:
            self.table.resolve(address, found)

    def _warn(self, text: str) -> None:
        """A line, of which there are `WARNINGS` a second at most: names come from strangers."""
        second = int(self.clock())
        if second != self.second:
            self.second, self.warnings = second, 0
        self.warnings += 1
        if self.warnings <= WARNINGS:
            log.warning("%s", text)

    def _addresses(self, address: str) -> tuple[list[str] | None, str]:
        """The numeric addresses, None where that cannot be told; and what is wrong, "" for nothing."""
        target = parse_node(address)
        assert isinstance(target, HostName)
        try:
            found = self.lookup(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except socket.gaierror as error:
            return ([] if error.errno in NOTHING else None), f"cannot resolve {target.host}: {error.strerror}"
        except (OSError, UnicodeError, RuntimeError) as error:  # the last where no thread can be started for it
            return None, f"cannot resolve {target.host}: {error}"
        return [name_of(sockaddr) for _, _, _, _, sockaddr in found], ""
