"""Where a target is: its name looked up at once and again every few renewals, in a greenlet of its own.

So no renewal ever waits for a DNS server. A lookup that fails keeps the addresses that the last one gave, even if it is
said now that there is no such name: who is announced there stays so until another place is known. A name means all of
its addresses, a service name (`_gfrouter._udp.example.com`) all addresses of all its targets, whatever their priority:
each may be a router of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from dns.exception import DNSException
from dns.resolver import Resolver
from gevent.event import Event

from router.address import AddressError, HostName, Inet, Unix, name_of, parse_local
from router.key import is_host

Place = Inet | Unix
Look = Callable[[], Sequence[Place]]

# By the usual interval 30 s, which operators are used to as a short TTL; getaddrinfo does not tell the real one.
RENEWALS = 3
LOOK_UP_AGAIN = 5.0  # seconds to the next lookup after one that failed
LEAST_WAIT = 1.0  # seconds between two lookups however many renewals fail
PATIENCE = 5.0  # seconds that a renewal waits for the very first answer
SRV_LIFETIME = 5.0  # seconds for one SRV lookup, all servers together

LEGAL = "HOST:PORT, HOST, [IPV6]:PORT, a path, @NAME, _SERVICE._udp.NAME, consul://..., etcd://..."


class Whereabouts:
    """The places behind some names. `look` gives them, or raises OSError. A renewal is due each `interval`."""

    def __init__(self, look: Look, interval: float, *, sleep: Callable[[float], Any] = gevent.sleep) -> None:
        self.look = look
        self.every = RENEWALS * interval
        self.sleep = sleep
        self.places: tuple[Place, ...] = ()
        self.error = ""
        self._answered = Event()
        self._hurry = Event()

    def run(self) -> None:
        """Keep the places current until killed."""
        while True:
            self.turn()
            self.sleep(LEAST_WAIT)
            self._hurry.wait((LOOK_UP_AGAIN if self.error else self.every) - LEAST_WAIT)
            self._hurry.clear()

    def turn(self) -> None:
        """One lookup."""
        try:
            found = tuple(dict.fromkeys(self.look()))
        except Exception as error:  # whatever a strange answer does to us, later ones may do better
            self.error = getattr(error, "strerror", None) or str(error)
        else:
            self.error = "" if found else "no address is known"
            self.places = found or self.places
        self._answered.set()

    def hurry(self) -> None:
        """What is known seems to be of no use any more: look it up before its time."""
        self._hurry.set()

    def now(self) -> tuple[Place, ...]:
        """All that is known; OSError while nothing is."""
        self._answered.wait(PATIENCE)
        if not self.places:
            raise OSError(self.error or "its name is still being looked up")
        return self.places


def router_at(text: str, port: int) -> Look:
    """The lookup for a router's address as it stands on the command line, else ValueError."""
    if text.startswith(("/", "./", "../", "@")):
        return _looked_up(_parse(text))
    if text.startswith("_"):
        return lambda: of_service(text)
    return _looked_up(_parse(_with_port(text, port)))


def of_hosts(hosts: Iterable[tuple[str, int]]) -> Look:
    """The lookup for a few hosts together: one that is unknown does not hide the others."""
    looks = [_looked_up(_parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")) for host, port in hosts]

    def look() -> list[Place]:
        found: list[Place] = []
        trouble: OSError | None = None
        for one in looks:
            try:
                found += one()
            except OSError as error:
                trouble = error
        if trouble and not found:
            raise trouble
        return found

    return look


def of_name(host: str, port: int) -> list[Place]:
    """All addresses of a host name. Those of a family that this machine does not have are left out, if it has any."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror:  # where there is nothing but a loopback interface, that is said of every name
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except socket.gaierror as error:
            raise OSError(f"cannot resolve {host}: {error.strerror}") from None
    return [Inet(int(family), sockaddr) for family, _, _, _, sockaddr in found]


def of_service(name: str) -> list[Place]:
    """All addresses of all targets of a service name (SRV), but of those that are no host names, as `.` is none."""
    try:
        resolver = Resolver()  # reads /etc/resolv.conf afresh
        resolver.lifetime = SRV_LIFETIME
        answer = resolver.resolve(name, "SRV", search=False)
    except DNSException as error:
        raise OSError(f"cannot resolve {name}: {' '.join(str(error).split())}") from None
    targets = [(record.target.to_text(omit_final_dot=True), record.port) for record in answer]
    return list(of_hosts((host, port) for host, port in targets if is_host(host) and port)())


def shown(place: Place) -> str:
    return name_of(place.sockaddr)


def _looked_up(address: Inet | HostName | Unix) -> Look:
    if isinstance(address, HostName):
        return lambda: of_name(address.host, address.port)
    return lambda: [address]


def _parse(text: str) -> Inet | HostName | Unix:
    found = parse_local(text)
    if not isinstance(found, Inet | HostName | Unix):
        raise ValueError(f"{text!r} is nowhere to announce at (legal: {LEGAL})")
    if (isinstance(found, Inet) and not found.sockaddr[1]) or (isinstance(found, HostName) and not found.port):
        raise AddressError(text, "port 0 is out of range (1 to 65535)")
    return found


def _with_port(text: str, port: int) -> str:
    _, colon, rest = text.rpartition(":")
    return text if colon and "]" not in rest else f"{text}:{port}"
