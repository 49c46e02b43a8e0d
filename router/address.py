"""The grammar of addresses: one for every option that takes one, and for what workers announce.

    address   = inet / unix / abstract / inherited / shared
    inet      = [ host ] ":" port            127.0.0.1:3031   :3031   [::1]:3031   [fe80::1%eth0]:3031   app.lan:3031
              / prefix "*:" port             192.*:0: the first local IPv4 address that begins so (to bind only)
    unix      = "/" path / text without ":"  /run/app.sock   app.sock: relative to the working directory, as in uWSGI
    abstract  = "@" name                     @app
    inherited = "fd://" ( number / name )    fd://3   fd://web: what systemd passed under that name (to bind only)
    shared    = "=" number                   =0: the N-th shared socket (only as a listening address of the router)

No socket, no state, and no lookup but that of a network interface's number. `parse_node` and `parse_local` differ in
what may stand there and in what an empty host means; everything that is wrong is an AddressError, whose text names the
address and whose `reason` does not, for callers that have named it already.
"""

from __future__ import annotations

import re
import reprlib
import socket
from dataclasses import dataclass
from typing import Any

# sun_path of Linux holds 108 bytes, the last of them a NUL.
MAX_UNIX_PATH_BYTES = 107
# Of the same 108 an abstract name takes one NUL before it and, as uWSGI's has it, one behind it.
MAX_ABSTRACT_BYTES = 106
# RFC 1035, of a whole name and of one label. An underscore is no host name, and yet containers have them.
MAX_NAME_CHARS = 253
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# What systemd allows as FileDescriptorName=: printable ASCII without a colon, 255 at most.
PASSED_NAME = re.compile(r"(?!-)[!-9;-~]{1,255}")

# What most workers announce, `10.0.0.5:3031`, told at one glance: a source may bring tens of thousands at once, and the
# whole grammar takes three times as long. What does not match may well be legal, and no group's address does.
USUAL = re.compile(
    r"((?:22[0-3]|2[01][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3})"
    r":([1-9][0-9]{0,3}|[1-5][0-9]{4})"
)

LEGAL = "HOST:PORT, [IPV6]:PORT, :PORT, 192.*:PORT, a path, @NAME or fd://N"

_short = reprlib.Repr()
_short.maxstring = 160  # a hostile worker may announce an "address" of 4,000 bytes


class AddressError(ValueError):
    """An address that cannot be understood or bound; the text names it and says why, in one line."""

    def __init__(self, address: str, reason: str, doing: str = "") -> None:
        super().__init__(f"{doing}{quoted(address)}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Inet:
    """A numeric IPv4 or IPv6 address and a port. `sockaddr` is what the socket module takes."""

    family: int
    sockaddr: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class HostName:
    """A name that somebody else must resolve, and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a local IPv4 address, and a port."""

    prefix: str
    port: int


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket: its path, or NUL, its abstract name and NUL; as bytes, for a locale must not change them."""

    sockaddr: bytes
    family: int = socket.AF_UNIX


@dataclass(frozen=True, slots=True)
class Inherited:
    """A socket that was passed on to this process, by its descriptor or by the name that systemd gave it."""

    which: int | str


@dataclass(frozen=True, slots=True)
class Shared:
    """The N-th shared socket, counted from 0."""

    number: int


Node = Inet | HostName | Unix
Local = Inet | HostName | Prefix | Unix | Inherited | Shared


def parse_node(text: str) -> Node:
    """Where a worker listens. `:port` means this machine (127.0.0.1), as in uWSGI."""
    if usual := USUAL.fullmatch(text):
        host, digits = usual.groups()
        return Inet(socket.AF_INET, (host, int(digits)))
    try:
        found = _parse(text, any_host="127.0.0.1")
        port = found.sockaddr[1] if isinstance(found, Inet) else found.port if isinstance(found, HostName) else None
        if port == 0:
            raise ValueError("port 0 is out of range (1 to 65535)")
        if isinstance(found, Inet) and is_group(found):
            raise ValueError("nobody can connect to a multicast or broadcast address")
    except ValueError as error:
        raise AddressError(text, str(error)) from None
    return found


def parse_local(text: str) -> Local:
    """What to bind. `:port` means every IPv4 address of this machine, port 0 any free one.

    More forms than a worker's address has, and fewer slips: a bare number or a bare IPv4 address is no path.
    """
    try:
        if not text:
            raise ValueError(f"an address is missing (legal: {LEGAL})")
        if text.isdecimal():
            raise ValueError(f"a bare number is no address (a port is :{text})")
        if re.fullmatch(r"[0-9]+(\.([0-9]+|\*))+", text):
            raise ValueError(f"the port is missing (legal: {text}:PORT)")
        if text.startswith("="):
            return _shared(text.removeprefix("="))
        if text.startswith("fd://"):
            return _inherited(text.removeprefix("fd://"))
        host, colon, port = text.rpartition(":")
        if colon and "*" in host and not text.startswith(("/", "@", "[")):
            return Prefix(_checked_prefix(host), _checked_port(port))
        return _parse(text, any_host="0.0.0.0")
    except ValueError as error:
        raise AddressError(text, str(error)) from None


def is_group(inet: Inet) -> bool:
    """Whether it is no single host's: multicast, or broadcast and what is reserved above it."""
    first = socket.inet_pton(inet.family, inet.sockaddr[0])[0]
    return first >= 224 if inet.family == socket.AF_INET else first == 0xFF


def name_of(sockaddr: Any) -> str:
    """The address of a socket as a worker or nginx would write it; the inverse of parsing. "" for an unnamed one."""
    if isinstance(sockaddr, tuple):
        host, port, *rest = sockaddr
        scope = f"%{rest[1]}" if len(rest) == 2 and rest[1] else ""
        return f"[{host}{scope}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(sockaddr, bytes) and sockaddr.startswith(b"\0"):
        return "@" + sockaddr[1:].removesuffix(b"\0").decode("utf-8", "surrogateescape")
    return sockaddr.decode("utf-8", "surrogateescape") if isinstance(sockaddr, bytes) else str(sockaddr)


def quoted(text: str) -> str:
    """A text from outside for one line of a message, its middle left out where it is long."""
    return _short.repr(text)


def _parse(text: str, any_host: str) -> Node:
    """The forms that a node's address and one to bind have in common; ValueError with the bare reason."""
    if not text:
        raise ValueError("the address is empty")
    if "\0" in text:
        raise ValueError("the address has a NUL byte inside")
    if text.startswith("@"):
        return Unix(_abstract(text.removeprefix("@")))
    if text.startswith("/") or ":" not in text:
        return Unix(_checked_path(text))
    if text.startswith("["):
        return _inet6(text)
    host, _, digits = text.rpartition(":")
    if ":" in host:
        raise ValueError("an IPv6 address stands in brackets, as in [::1]:3031")
    port = _checked_port(digits)
    if not host or _is_ipv4(host):
        return Inet(socket.AF_INET, (host or any_host, port))
    return HostName(_checked_name(host), port)


def _inet6(text: str) -> Inet:
    inside, bracket, rest = text.removeprefix("[").partition("]")
    if not bracket:
        raise ValueError("the closing ] of the IPv6 address is missing")
    if not rest.startswith(":"):
        raise ValueError("after the ] of an IPv6 address stands :PORT")
    host, percent, scope = inside.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except (OSError, UnicodeError):
        raise ValueError(f"{quoted(host)} is not an IPv6 address") from None
    port = _checked_port(rest.removeprefix(":"))
    return Inet(socket.AF_INET6, (host, port, 0, _scope_id(scope)) if percent else (host, port))


def _scope_id(scope: str) -> int:
    if scope.isascii() and scope.isdigit() and len(scope) < 10:
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except (OSError, UnicodeError, ValueError):
        raise ValueError(f"there is no network interface named {quoted(scope)}") from None


def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, UnicodeError):
        return False
    return True


def _checked_name(host: str) -> str:
    if re.fullmatch(r"[0-9.]+", host):
        raise ValueError(f"{quoted(host)} is not an IPv4 address")
    name = host.removesuffix(".")
    if len(name) > MAX_NAME_CHARS or not all(LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{quoted(host)} is neither an IP address nor a host name")
    return host


def _checked_port(port: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"port {quoted(port)} is not a number")
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"port {port[:20]} is out of range (0 to 65535)")
    return int(port)


def _checked_path(path: str) -> bytes:
    data = path.encode("utf-8", "surrogateescape")
    if len(data) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"a unix socket's path of {len(data)} bytes, but {MAX_UNIX_PATH_BYTES} is the limit")
    return data


def _abstract(name: str) -> bytes:
    """The bytes of an abstract socket: uWSGI counts a NUL behind the name, too, so everybody who meets it must."""
    data = name.encode("utf-8", "surrogateescape")
    if not data:
        raise ValueError("the name of the abstract socket is missing after the @")
    if len(data) > MAX_ABSTRACT_BYTES:
        raise ValueError(f"an abstract socket's name of {len(data)} bytes, but {MAX_ABSTRACT_BYTES} is the limit")
    return b"\0" + data + b"\0"


def _checked_prefix(pattern: str) -> str:
    prefix = pattern.removesuffix("*")
    if not prefix or "*" in prefix:
        raise ValueError("one * stands at the end of a prefix, as in 192.*:0 (all addresses: :PORT)")
    if not re.fullmatch(r"[0-9.]+", prefix):
        raise ValueError("before the * stands the beginning of an IPv4 address, as in 192.*:0")
    return prefix


def _inherited(which: str) -> Inherited:
    if which.isascii() and which.isdigit() and len(which) < 8:
        return Inherited(int(which))
    if not PASSED_NAME.fullmatch(which):
        raise ValueError("fd:// wants the number of a descriptor, or the name under which systemd passed it")
    return Inherited(which)


def _shared(number: str) -> Shared:
    if not re.fullmatch(r"[0-9]{1,4}", number):
        raise ValueError("=N wants the number of a shared socket, counted from 0")
    return Shared(int(number))
