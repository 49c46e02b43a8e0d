"""The URL of a subscription server: `udp://HOST:PORT`, `unix://PATH` or `fd://N`, and behind its `?` the settings."""

from __future__ import annotations

from dataclasses import dataclass

from router import url
from router.url import read_settings, setting
from router.values import MAX_QUOTA, one_of, whole

LARGEST_TOLERANCE = 86_400  # seconds; beyond a day a typing error is likelier than a wish

SCHEMES = ("udp", "unix", "fd")

seconds = whole(1, LARGEST_TOLERANCE, "seconds")


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
    return address, read_settings(parts, Settings)
