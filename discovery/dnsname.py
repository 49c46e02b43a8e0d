"""Names as DNS has them: what a key or a URL must look like to be asked for. Texts in, texts out; no I/O.

A name here is lower case and has no dot at its end. Only letters, digits, hyphens and underscores are let through: a
key is what any client has written into its request, and no server is to see anything stranger.
"""

from __future__ import annotations

import re

from router.address import LABEL, MAX_NAME_CHARS, quoted

SERVICE = re.compile(r"_[^.]+\._(?:tcp|udp)\.(.+)")
PORT = re.compile(r"(.*):[0-9]{1,5}")


def checked_name(text: str) -> str:
    """The name as it is asked for, else ValueError."""
    name = text.lower().removesuffix(".")
    if not name:
        raise ValueError("a DNS name is missing")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"{quoted(text)}: a name of {len(name)} characters, but {MAX_NAME_CHARS} is the limit")
    if not all(map(LABEL.fullmatch, name.split("."))):
        raise ValueError(f"{quoted(text)} is no DNS name (legal: labels of 1 to 63 letters, digits, - and _)")
    return name


def host_of(key: str) -> str:
    """The host name that a key stands for, its port left out; ValueError where it is none, as an IP address is not."""
    found = PORT.fullmatch(key)
    host = checked_name(found[1] if found else key)
    if host.rpartition(".")[2].isdecimal():  # as no top-level domain is
        raise ValueError(f"{quoted(key)} is no host name but a number")
    return host


def key_of(name: str) -> str:
    """The key that a watched name serves: of `_uwsgi._tcp.HOST` the host, else the name itself."""
    found = SERVICE.fullmatch(name)
    return found[1] if found else name


def within(host: str, domain: str) -> bool:
    """Whether the host is this domain or one below it."""
    return host == domain or host.endswith(f".{domain}")
