"""Addresses: what a text means, and the sockets bound to one.

Pure functions over the standard `socket` module: no gevent, no state, and never a DNS lookup, as a lookup
would block whoever asks. Every failure, of a text or of the kernel, is one AddressError whose text names the
address and the reason. A unix socket file is replaced only when it is proven dead (a connect to it is
refused), and removed only while it is still the very file that was bound; anything else at that path is never
touched.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import reprlib
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any

# sun_path of Linux holds 108 bytes, the last of them a NUL.
MAX_UNIX_PATH_BYTES = 107
# Longer than any burst that a load test showed worth queueing; the kernel cuts at net.core.somaxconn anyway.
DEFAULT_BACKLOG = 4096
# nginx sends its request at once, so a second is only there for clients that connect and stay silent.
DEFER_ACCEPT_SECONDS = 1
# Room for 1,000 workers that announce in the same instant (4,096 bytes at most each); rmem_max may cut it.
DATAGRAM_BUFFER_BYTES = 4 * 1024 * 1024
# How long a unix socket's owner gets to answer "are you there"; a connect on this machine takes microseconds.
PROBE_SECONDS = 1.0

SIOCGIFCONF = 0x8912  # "all IPv4 addresses of this machine", netdevice(7)
IFREQ_BYTES = 40 if struct.calcsize("P") == 8 else 32  # struct ifreq: a name of 16 bytes, then a union

Identity = tuple[int, int]  # st_dev, st_ino

_short = reprlib.Repr()
_short.maxstring = 160  # a hostile worker may announce an "address" of 4,000 bytes


class AddressError(ValueError):
    """An address that cannot be understood or bound; the text names it and says why, in one line."""


def parse_node(text: str) -> tuple[int, Any]:
    """(family, sockaddr) of a worker's address: `ip:port`, `:port` (127.0.0.1) or a unix path.

    A text that begins with `/` or has no `:` is a path, as for uWSGI. AddressError for everything else.
    """
    try:
        family, sockaddr = _parse(text, any_host="127.0.0.1")
        if family == socket.AF_INET and sockaddr[1] == 0:
            raise ValueError("port 0 is out of range (1 to 65535)")
    except ValueError as error:
        raise AddressError(f"{_short.repr(text)}: {error}") from None
    return family, sockaddr


def bind(
    address: str,
    *,
    kind: int = socket.SOCK_STREAM,
    backlog: int | None = None,
    clients_speak_first: bool = False,
) -> socket.socket:
    """A bound, non-blocking, close-on-exec socket; a stream socket listens, too.

    `address`: `ip:port`, `:port` (every address of the machine), `192.*:port` (the first local address that
    begins so), port 0 (any free one, see `bound_name`), or a path. `backlog` as `listen_backlog` takes it.
    Where `clients_speak_first` a TCP connection is accepted only when their first bytes are there.
    The caller owns the socket and, for a path, the file: note `identity()` now, `unlink_own()` at the end.
    """
    try:
        family, sockaddr = _parse_local(address)
        if family == socket.AF_UNIX:
            return _bind_unix(sockaddr, kind, backlog)
        return _bind_inet(sockaddr, kind, backlog, clients_speak_first)
    except (OSError, ValueError) as error:
        raise AddressError(f"cannot bind {_short.repr(address)}: {_reason(error)}") from None


def bound_name(sock: socket.socket) -> str:
    """Where a socket is bound, as a worker or nginx would write it: `127.0.0.1:3031` or the path."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"{name[0]}:{name[1]}"
    return os.fsdecode(name)


def identity(sock: socket.socket) -> Identity | None:
    """Which file a unix socket is, to be asked right after `bind`; None for TCP and UDP, or if it is gone."""
    if sock.family != socket.AF_UNIX:
        return None
    return _file_identity(bound_name(sock))


def unlink_own(path: str, own: Identity) -> bool:
    """Remove the socket file at `path` if it is still the one that `identity` named; True when it did."""
    if _file_identity(path) != own:
        return False
    try:
        os.unlink(path)
    except OSError:  # gone in between, or the folder is no longer ours: nothing that a stop could mend
        return False
    return True


def somaxconn() -> int:
    """The kernel's limit for a listening queue, net.core.somaxconn; its default where that is hidden."""
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return DEFAULT_BACKLOG


def listen_backlog(asked: int | None) -> int:
    """The queue length that listen() really gives; less than `asked` is worth a warning by the caller."""
    return min(DEFAULT_BACKLOG if asked is None else asked, somaxconn())


def local_addresses() -> list[str]:
    """The IPv4 addresses of this machine, by interface, loopback first as the kernel lists them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        size = struct.unpack_from("i", fcntl.ioctl(sock, SIOCGIFCONF, struct.pack("iP", 0, 0)))[0]
        room = array.array("B", bytes(size))
        answer = fcntl.ioctl(sock, SIOCGIFCONF, struct.pack("iP", size, room.buffer_info()[0]))
    used = struct.unpack_from("i", answer)[0]
    # After the name come family (2 bytes), port (2) and the address (4).
    return [socket.inet_ntoa(room[at + 20 : at + 24].tobytes()) for at in range(0, used, IFREQ_BYTES)]


def _parse(text: str, any_host: str) -> tuple[int, Any]:
    """(family, sockaddr); ValueError with the bare reason. An empty host is `any_host`."""
    if not text:
        raise ValueError("the address is empty")
    if "\0" in text:
        raise ValueError("the address has a NUL byte inside")
    if text.startswith("@"):
        raise ValueError("abstract unix sockets are not supported yet")
    if text.startswith("/") or ":" not in text:
        return socket.AF_UNIX, _checked_path(text)
    host, _, port = text.rpartition(":")
    if ":" in host:
        raise ValueError("IPv6 addresses are not supported yet")
    return socket.AF_INET, (_checked_host(host or any_host), _checked_port(port))


def _parse_local(text: str) -> tuple[int, Any]:
    """As `_parse`, for an address to bind: more forms, and a bare number is no path but a slip."""
    if text.startswith("="):
        raise ValueError("=N is the N-th shared socket, which only a listening address of the router can be")
    if text.startswith("fd://"):
        raise ValueError("fd:// is not supported yet")
    if text.isdecimal():
        raise ValueError(f"a bare number is no address, :{text} is")
    host, colon, port = text.rpartition(":")
    if colon and "*" in host and not text.startswith("/"):
        text = f"{_first_local(host)}:{port}"
    return _parse(text, any_host="0.0.0.0")


def _checked_path(path: str) -> str:
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"a unix socket's path of {size} bytes, but {MAX_UNIX_PATH_BYTES} is the limit")
    return path


def _checked_host(host: str) -> str:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, UnicodeError):
        reason = f"{_short.repr(host)} is not a numeric IPv4 address (host names are not supported yet)"
        raise ValueError(reason) from None
    return host


def _checked_port(port: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"port {_short.repr(port)} is not a number")
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"port {port[:20]} is out of range (0 to 65535)")
    return int(port)


def _first_local(pattern: str) -> str:
    """The first local address that begins like `192.*`."""
    prefix = pattern.removesuffix("*")
    if not prefix or "*" in prefix:
        raise ValueError("one * stands at the end of a prefix, as in 192.*:0 (all addresses: :PORT)")
    seen = local_addresses()
    for address in seen:
        if address.startswith(prefix):
            return address
    raise ValueError(f"no local IPv4 address begins with {prefix} (there are: {', '.join(seen) or 'none'})")


def _bind_inet(sockaddr: tuple[str, int], kind: int, backlog: int | None, clients_speak_first: bool) -> socket.socket:
    if kind == socket.SOCK_DGRAM and 224 <= int(sockaddr[0].partition(".")[0]) <= 239:
        raise ValueError("multicast groups are not supported yet")

    def set_up(sock: socket.socket) -> None:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if clients_speak_first:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_SECONDS)
            # Accepted sockets inherit it, which saves a system call a request.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            # No SO_REUSEADDR: on UDP it would let a second router steal the first one's announcements.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER_BYTES)
        sock.bind(sockaddr)

    return _listening(socket.AF_INET, kind, backlog, set_up)


def _bind_unix(path: str, kind: int, backlog: int | None) -> socket.socket:
    if kind != socket.SOCK_STREAM:
        raise ValueError("unix datagram sockets are not supported yet")
    _clear_stale(path)
    return _listening(socket.AF_UNIX, kind, backlog, lambda sock: sock.bind(path))


def _listening(family: int, kind: int, backlog: int | None, set_up: Callable[[socket.socket], None]) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        set_up(sock)
        if kind == socket.SOCK_STREAM:
            sock.listen(listen_backlog(backlog))
    except BaseException:
        sock.close()
        raise
    return sock


def _clear_stale(path: str) -> None:
    """Make way for a bind: remove a socket file that nobody serves. ValueError when it must stay."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ValueError("the path exists and is not a socket")
    if _is_served(path):
        raise ValueError("the socket is being served by another process")
    # Whoever bound it anew since the question was asked keeps it, and the bind below then says "in use".
    unlink_own(path, (found.st_dev, found.st_ino))


def _is_served(path: str) -> bool:
    """Whether a process listens on a unix socket; only a refused connect proves that none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except PermissionError:
            raise ValueError("the socket exists, and its permissions hide whether it is in use") from None
        except OSError:  # a full queue, or a socket of another type: somebody holds it
            return True
    return True


def _file_identity(path: str) -> Identity | None:
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def _reason(error: OSError | ValueError) -> str:
    """Why a bind failed, in words that name the remedy where the kernel's own do not."""
    if not isinstance(error, OSError):
        return str(error)
    known = {
        errno.EADDRINUSE: "the address is in use by another socket",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "permission denied",
        errno.ENOENT: "its folder does not exist",
        errno.ENOTDIR: "a part of its folder is not a folder",
    }
    return known.get(error.errno or 0) or error.strerror or str(error)
