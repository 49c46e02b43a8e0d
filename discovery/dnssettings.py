"""The URL of a DNS source, `dns://[SERVER[:PORT][,...]]/[NAME[,NAME ...]]`, and behind its `?` the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from dns.rdatatype import RdataType

from discovery.dnsname import checked_name, key_of
from discovery.dnsservers import PORT
from router.algorithmname import algorithm_name
from router.url import SourceUrl, parse_url, read_settings, setting
from router.values import one_of, whole

MOST_NAMES = 1_000_000  # more do not fit into one process
LONGEST_TIMEOUT = 60  # seconds; nobody waits longer for a lookup
DAY = 86_400  # seconds

FAMILIES = {"any": (RdataType.A, RdataType.AAAA), "4": (RdataType.A,), "6": (RdataType.AAAA,)}


def _service(text: str) -> str:
    name = checked_name(text)
    if name.count(".") != 1 or not all(label.startswith("_") for label in name.split(".")):
        raise ValueError("no service (legal: _NAME._tcp)")
    return name


@dataclass(frozen=True)
class Settings:
    """What the URL may say behind its `?`."""

    key: str = setting(
        "", str, "KEY", "the key that a watched name serves (default: HOST of _SERVICE._tcp.HOST, else the name)"
    )
    port: int = setting(
        0, whole(1, 65535), "PORT", "the watched names are hosts, whose A and AAAA records are nodes at this port"
    )
    service: str = setting(
        "_uwsgi._tcp", _service, "_NAME._tcp", "on demand, what is looked up of a host: the SRV records of SERVICE.HOST"
    )
    domain: tuple[str, ...] = setting(
        (), checked_name, "DOMAIN", "on demand, look up only hosts in this domain; repeatable (default: all)"
    )
    max_names: int = setting(
        10_000, whole(1, MOST_NAMES), "N", "on demand, keep so many names; further ones are refused"
    )
    keep: int = setting(
        3600, whole(1, DAY, "seconds"), "SECONDS", "on demand, keep a name up to date so long after it was asked for"
    )
    min_ttl: int = setting(1, whole(1, DAY, "seconds"), "SECONDS", "take a shorter TTL for this one")
    max_ttl: int = setting(300, whole(1, DAY, "seconds"), "SECONDS", "take a longer TTL for this one")
    timeout: int = setting(5, whole(1, LONGEST_TIMEOUT, "seconds"), "SECONDS", "give a lookup so long")
    protocol: str = setting(
        "udp", one_of("udp", "tcp"), "udp|tcp", "udp = TCP only for what does not fit, tcp = always TCP"
    )
    family: str = setting("any", one_of(*FAMILIES), "any|4|6", "take nodes with IPv4 addresses, IPv6 addresses, or any")
    algorithm: str = setting("", algorithm_name, "NAME", "how the nodes take turns (default: as the option says)")


ON_DEMAND = ("service", "domain", "max-names", "keep")
WATCHED = ("key", "port")


@dataclass(frozen=True)
class Wanted:
    """What the URL asks for. `names` is key → the name to watch, empty for lookups on demand."""

    servers: tuple[tuple[str, int], ...]
    names: Mapping[str, str]
    settings: Settings


def read_url(text: str) -> Wanted:
    """The URL understood, else ValueError that names what is wrong."""
    url = parse_url(text)
    settings = read_settings(url, Settings)
    if url.user or url.password:
        raise url.wrong("a DNS server asks for no user")
    if settings.min_ttl > settings.max_ttl:
        raise url.wrong(f"min-ttl={settings.min_ttl} is more than max-ttl, {settings.max_ttl}")
    names = _names(url, settings.key)
    for name, _ in url.query:
        if name in (ON_DEMAND if names else WATCHED):
            when = "without a name behind the /" if names else "with a name, as in dns://SERVER/NAME"
            raise url.wrong(f"{name} goes with a URL {when}")
    return Wanted(tuple(url.hosts(PORT)), names, settings)


def _names(url: SourceUrl, key: str) -> dict[str, str]:
    path = unquote(url.path.removeprefix("/"))
    names: dict[str, str] = {}
    for text in path.split(",") if path else ():
        try:
            name = checked_name(text)
        except ValueError as error:
            raise url.wrong(str(error)) from None
        mine = key or key_of(name)
        if names.setdefault(mine, name) != name:
            raise url.wrong(f"{names[mine]} and {name} both serve the key {mine!r} (give each a source of its own)")
    return names
