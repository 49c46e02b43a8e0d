"""The URL of a subscription server: `udp://HOST:PORT`, `unix://PATH` or `fd://N`, and behind its `?` the settings."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from router import url
from router.url import read_settings, setting
from router.values import (
    LARGEST_UID,
    MAX_QUOTA,
    MAX_SECONDS,
    digest_and_folder,
    flag,
    folder_prefix,
    network,
    one_of,
    whole,
)

LARGEST_TOLERANCE = 86_400  # seconds; beyond a day a typing error is likelier than a wish

SCHEMES = ("udp", "unix", "fd")

seconds = whole(1, LARGEST_TOLERANCE, "seconds")

Network = IPv4Network | IPv6Network


def _sign_check(text: str) -> str:
    """DIGEST:DIR, with a digest that can be had."""
    digest, _, _ = digest_and_folder(text).partition(":")
    try:
        from discovery.signing import digest_named
    except ImportError as error:
        raise ValueError(f"signatures need {error.name} (pip install 'gfrouter[sign]' brings it)") from None
    digest_named(digest)
    return text


def _network(text: str) -> Network:
    return ip_network(network(text))


@dataclass(frozen=True)
class Settings:
    """What a subscription's URL may say behind its `?`."""

    # uWSGI's own: its workers announce themselves each 10 s.
    tolerance: int = setting(17, seconds, "SECONDS", "drop a node that has not announced itself for so long")
    tolerance_inactive: int = setting(17, seconds, "SECONDS", "the same for a vassal that has no address")
    quota: int = setting(
        1000, whole(0, MAX_QUOTA), "N",
        "take so many announcements a second from one port, and four times as many from one host; 0 = no limit",
    )  # fmt: skip
    address: str = setting(
        "announced", one_of("announced", "sender"), "WHOSE",
        "where an announcement names no host: announced = this machine, as in uWSGI, sender = the host that sent it",
    )  # fmt: skip
    allow: tuple[Network, ...] = setting((), _network, "CIDR", "take announcements over UDP from this network alone")
    sign_check: str = setting("", _sign_check, "DIGEST:DIR", "take what is signed by the owner of DIR/KEY.pem alone")
    sign_check_tolerance: int = setting(
        86_400, whole(0, MAX_SECONDS, "seconds"), "SECONDS", "how old a signed announcement may be, or how far ahead",
    )  # fmt: skip
    sign_skip_uid: tuple[int, ...] = setting(
        (), whole(1, LARGEST_UID), "UID", "who needs no signature; with use-credentials"
    )
    use_credentials: bool = setting(False, flag, "YES|NO", "have the kernel say who sends, on a unix socket")
    credentials_check: tuple[str, ...] = setting(
        (), folder_prefix, "DIR/", "take what the owner of the file DIR/KEY sends alone; with use-credentials"
    )
    mountpoints: bool = setting(False, flag, "YES|NO", "keys have paths, and DIR/HOST.pem is for all of a host's")


def parse_url(text: str) -> tuple[str, Settings]:
    """(address to bind, settings) of a subscription's URL, else ValueError."""
    parts = url.parse_url(text)
    # As it is written: in an address neither a comma nor a percent sign means anything.
    address = text.partition("://")[2].partition("?")[0].removesuffix("/")
    if parts.scheme not in SCHEMES or not address:
        raise parts.wrong("expected udp://HOST:PORT, unix://PATH or fd://N")
    if parts.scheme == "fd":
        address = f"fd://{address}"
    elif (parts.scheme == "unix") != address.startswith(("/", "@")):
        raise parts.wrong(f"{parts.scheme}:// does not go with {address!r}")
    settings = read_settings(parts, Settings)
    if settings.sign_check and settings.address == "sender":
        raise parts.wrong("address=sender does not go with sign-check: nobody has signed where a datagram comes from")
    return address, settings
