"""The URL of a subscription server: `udp://HOST:PORT`, `unix://PATH` or `fd://N`, and behind its `?` the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

LARGEST_TOLERANCE = 86_400  # seconds; beyond a day a typing error is likelier than a wish
LARGEST_QUOTA = 1_000_000  # announcements a second; nobody takes in more

SCHEMES = ("udp", "unix", "fd")


@dataclass(frozen=True)
class Settings:
    """What a subscription's URL may say behind its `?`. `address`: `announced`, or `sender` (sender.py)."""

    tolerance: int = 17  # seconds of silence, as in uWSGI, whose workers announce themselves each 10 s
    tolerance_inactive: int = 17  # the same for who has no address
    quota: int = 1000  # announcements a second from one sender; 0 = no limit
    address: str = "announced"


def parse_url(url: str) -> tuple[str, Settings]:
    """(address to bind, settings) of a subscription's URL, else ValueError."""
    wrong = f"subscription url {url!r}"
    scheme, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    address = address.removesuffix("/")
    if scheme not in SCHEMES or not address:
        raise ValueError(f"{wrong}: expected udp://HOST:PORT, unix://PATH or fd://N")
    if scheme == "fd":
        address = f"fd://{address}"
    elif (scheme == "unix") != address.startswith(("/", "@")):
        raise ValueError(f"{wrong}: {scheme}:// does not go with {address!r}")
    return address, _settings(wrong, dict(parse_qsl(query, keep_blank_values=True)))


def _settings(wrong: str, given: dict[str, str]) -> Settings:
    limits = {
        "tolerance": (1, LARGEST_TOLERANCE),
        "tolerance-inactive": (1, LARGEST_TOLERANCE),
        "quota": (0, LARGEST_QUOTA),
    }
    settings = Settings()
    for name, text in given.items():
        if name == "address" and text in ("announced", "sender"):
            settings = replace(settings, address=text)
        elif name == "address":
            raise ValueError(f"{wrong}: address {text!r} is neither announced nor sender")
        elif name not in limits:
            known = ", ".join((*limits, "address"))
            raise ValueError(f"{wrong}: option {name!r} is not known (known: {known})")
        elif not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"{wrong}: {name} {text!r} is not a whole number")
        elif not limits[name][0] <= int(text) <= limits[name][1]:
            raise ValueError(f"{wrong}: {name} {text} is out of range ({limits[name][0]} to {limits[name][1]})")
        else:
            values: dict[str, Any] = {name.replace("-", "_"): int(text)}
            settings = replace(settings, **values)
    return settings
