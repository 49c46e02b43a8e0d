"""Sockets bound to an address (address.py says what one may be), and what becomes of their files.

Functions over the standard `socket` module: no gevent, no state. Only the binding of a host name looks one up. Every
failure is one AddressError whose text names the address and the reason. A unix socket file is replaced only when it is
proven dead (a connect to it is refused), and removed only while it is still the very file that was bound; anything else
at that path is never touched. It has its owner and mode before it listens.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from router.address import (
    AddressError,
    HostName,
    Inet,
    Inherited,
    Prefix,
    Shared,
    Unix,
    is_group,
    name_of,
    parse_local,
    parse_node,
)
from router.folder import absolute

# Longer than any burst that a load test showed worth queueing; the kernel cuts at net.core.somaxconn anyway.
DEFAULT_BACKLOG = 4096
# nginx sends its request at once, so a second is only there for clients that connect and stay silent.
DEFER_ACCEPT_SECONDS = 1
# Of usual announcements 40,000, each of which the kernel counts as 768 bytes: what comes in 0.4 s of a flood that the
# source has yet to notice (discovery/quota.py). For others than root net.core.rmem_max may cut it.
DATAGRAM_BUFFER_BYTES = 16 * 1024 * 1024

SIOCGIFCONF = 0x8912  # "all IPv4 addresses of this machine", netdevice(7)
IFREQ_BYTES = 40 if struct.calcsize("P") == 8 else 32  # struct ifreq: a name of 16 bytes, then a union
IP_FREEBIND = 15  # ip(7); the socket module has no name for it. It serves IPv6 sockets as well
SO_RCVBUFFORCE = 33  # socket(7), likewise

Identity = tuple[int, int]  # st_dev, st_ino
Owner = tuple[int, int]  # uid, gid; -1 leaves one as it is


def bind(
    address: str,
    *,
    kind: int = socket.SOCK_STREAM,
    backlog: int | None = None,
    clients_speak_first: bool = False,
    mode: int | None = None,
    owner: Owner | None = None,
    freebind: bool = False,
    reuse_port: bool = False,
) -> socket.socket:
    """A bound, non-blocking, close-on-exec socket; a stream socket listens, too.

    `address` is any but a shared or a named one; a datagram socket on a multicast group joins it. `backlog` as
    `listen_backlog` takes it. Where `clients_speak_first` a TCP connection is accepted only when their first bytes are
    there. `mode` and `owner` are for the file of a unix socket, `reuse_port` is for TCP. `fd://N` is duplicated, so the
    original stays open. The caller owns the socket and, for a path, the file: note `identity()` now, `unlink_own()` at
    the end.
    """

    def set_up_inet(sock: socket.socket) -> None:
        if freebind:
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    try:
        match parse_local(address):
            case Inherited(which=int(fd)):
                sock = _inherit(fd, kind)
            case Inherited(which=name):
                raise ValueError(f"systemd has passed no socket under the name {name}")
            case Shared():
                raise ValueError("=N is the N-th shared socket, which only a listening address of the router can be")
            case Unix(sockaddr=sockaddr):
                sock = _bind_unix(sockaddr, kind, mode, owner)
            case Inet(family=family, sockaddr=sockaddr):
                sock = _bind_inet(family, sockaddr, kind, set_up_inet)
            case HostName(host=host, port=port):
                sock = _bind_inet(*_first_of_name(host, port, kind), kind, set_up_inet)
            case Prefix(prefix=prefix, port=port):
                sock = _bind_inet(socket.AF_INET, (_first_local(prefix), port), kind, set_up_inet)
        return _ready(sock, kind, backlog, clients_speak_first)
    except AddressError as error:
        raise AddressError(address, error.reason, "cannot bind ") from None
    except (OSError, ValueError) as error:
        raise AddressError(address, _reason(error), "cannot bind ") from None


def bound_name(sock: socket.socket) -> str:
    """Where a socket is bound, as a worker or nginx would write it: `127.0.0.1:3031`, the path or `@name`."""
    return name_of(sock.getsockname())


def listens_at(listeners: Iterable[socket.socket], home: str = "") -> Callable[[str], bool]:
    """A function that says of a numeric node's address whether one of these sockets listens there.

    What is bound to any address listens at every one of this machine. `home` is the folder in which they were bound,
    where that is another one by now.
    """
    places: set[Any] = set()
    for listener in listeners:
        name = listener.getsockname()
        places.add(name[:2] if isinstance(name, tuple) else absolute(os.path.join(home, os.fsdecode(name))))

    def is_own(address: str) -> bool:
        target = parse_node(address)
        if isinstance(target, Unix):
            return absolute(os.fsdecode(target.sockaddr)) in places
        assert isinstance(target, Inet)
        host, port = target.sockaddr[:2]
        if (host, port) in places or (host == "0.0.0.0" and ("127.0.0.1", port) in places):
            return True
        return (("0.0.0.0", port) in places or ("::", port) in places) and _is_local(target.family, host)

    return is_own


def _is_local(family: int, host: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def identity(sock: socket.socket) -> Identity | None:
    """Which file a unix socket is, to be asked right after `bind`; None where there is none, or it is gone."""
    return _file_identity(bound_name(sock)) if _has_file(sock) else None


def is_there(sock: socket.socket, own: tuple[int, ...]) -> bool:
    """Whether its file is still the one that `identity` named. Where we may not look (any more), it is taken to be."""
    try:
        found = os.lstat(bound_name(sock))
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return (found.st_dev, found.st_ino) == own and stat.S_ISSOCK(found.st_mode)


def unlink_own(path: str | bytes, own: tuple[int, ...]) -> bool:
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


def _ready(sock: socket.socket, kind: int, backlog: int | None, clients_speak_first: bool) -> socket.socket:
    """What a bound socket of either origin still needs."""
    with _closed_on_error(sock):
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            if sock.family != socket.AF_UNIX:
                if clients_speak_first:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_SECONDS)
                # Accepted sockets inherit it, which saves a system call a request.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.listen(listen_backlog(backlog))
        else:
            _widen(sock)
    return sock


def _widen(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, DATAGRAM_BUFFER_BYTES)
    except OSError:  # only for root
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER_BYTES)


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _bind_inet(family: int, sockaddr: Any, kind: int, set_up: Callable[[socket.socket], None]) -> socket.socket:
    if kind == socket.SOCK_STREAM and is_group(Inet(family, sockaddr)):
        raise ValueError("nobody can connect to a multicast or broadcast address")
    sock = socket.socket(family, kind)
    with _closed_on_error(sock):
        set_up(sock)
        group = _membership(family, sockaddr) if kind == socket.SOCK_DGRAM else None
        if group:
            # Each socket of a group gets its own copy. Elsewhere no SO_REUSEADDR on UDP: it would let a second router
            # steal the first one's announcements.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(sockaddr)
        if group:
            sock.setsockopt(*group)
    return sock


def _membership(family: int, sockaddr: Any) -> tuple[int, int, bytes] | None:
    """What joins the multicast group that `sockaddr` is; None for any other address."""
    packed = socket.inet_pton(family, sockaddr[0])
    if family == socket.AF_INET and 224 <= packed[0] <= 239:
        return socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed + socket.inet_aton("0.0.0.0")
    if family == socket.AF_INET6 and packed[0] == 0xFF:
        scope = sockaddr[3] if len(sockaddr) == 4 else 0
        return socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + struct.pack("@I", scope)
    return None


def _first_of_name(host: str, port: int, kind: int) -> tuple[int, Any]:
    """(family, sockaddr) of a host name: IPv4 before IPv6, as uWSGI knows no other."""
    try:
        found = socket.getaddrinfo(host, port, type=kind)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"no address of {host} is known: {getattr(error, 'strerror', None) or error}") from None
    return min(((int(family), sockaddr) for family, *_, sockaddr in found), key=lambda one: one[0] != socket.AF_INET)


def _first_local(prefix: str) -> str:
    """The first local address that begins so."""
    seen = local_addresses()
    for address in seen:
        if address.startswith(prefix):
            return address
    raise ValueError(f"no local IPv4 address begins with {prefix} (there are: {', '.join(seen) or 'none'})")


def _inherit(fd: int, kind: int) -> socket.socket:
    """A socket of our own for the descriptor that we were started with."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        raise ValueError(f"descriptor {fd} is not open") from None
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"descriptor {fd} is not a socket")
    sock = socket.socket(fileno=os.dup(fd))
    with _closed_on_error(sock):
        if sock.type != kind:
            names = {socket.SOCK_STREAM: "a stream socket", socket.SOCK_DGRAM: "a datagram socket"}
            is_one = names.get(sock.type, "another kind of socket")
            raise ValueError(f"descriptor {fd} is {is_one}, where {names[socket.SocketKind(kind)]} is needed")
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise ValueError(f"descriptor {fd} is a socket of family {int(sock.family)}")
        if not _is_bound(sock):
            raise ValueError(f"descriptor {fd} is a socket that is not bound")
        if kind == socket.SOCK_STREAM and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            _refuse_connected(sock, fd)
    return sock


def _is_bound(sock: socket.socket) -> bool:
    name = sock.getsockname()
    return bool(name[1]) if isinstance(name, tuple) else bool(name)


def _refuse_connected(sock: socket.socket, fd: int) -> None:
    try:
        sock.getpeername()
    except OSError:
        return
    raise ValueError(f"descriptor {fd} is a connection, not a listening socket")


def _bind_unix(sockaddr: bytes, kind: int, mode: int | None, owner: Owner | None) -> socket.socket:
    path = None if sockaddr.startswith(b"\0") else sockaddr  # an abstract one has no file
    if path is not None:
        _clear_stale(path, kind)
    sock = socket.socket(socket.AF_UNIX, kind)
    with _closed_on_error(sock):
        sock.bind(sockaddr)
        if path is not None:
            _give_away(path, mode, owner)
    return sock


def _give_away(path: bytes, mode: int | None, owner: Owner | None) -> None:
    """Owner and mode of a socket's file; a file that cannot have them is removed again."""
    try:
        if owner is not None:
            what = f"chown it to {owner[0]}:{owner[1]}"
            os.chown(path, *owner, follow_symlinks=False)
        if mode is not None:
            what = f"chmod it to {mode:03o}"
            os.chmod(path, mode)
    except OSError as error:
        os.unlink(path)
        raise ValueError(f"cannot {what}: {error.strerror}") from None


def _has_file(sock: socket.socket) -> bool:
    return sock.family == socket.AF_UNIX and isinstance(sock.getsockname(), str)


def _clear_stale(path: bytes, kind: int) -> None:
    """Make way for a bind: remove a socket file that nobody serves. ValueError when it must stay."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ValueError("the path exists and is not a socket")
    if is_served(path, kind):
        raise ValueError("the socket is being served by another process")
    # Whoever bound it anew since the question was asked keeps it, and the bind below then says "in use".
    unlink_own(path, (found.st_dev, found.st_ino))


def is_served(path: bytes, kind: int) -> bool:
    """Whether a process holds a unix socket; only a refused connect proves that none does."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except PermissionError:
            raise ValueError("the socket exists, and its permissions hide whether it is in use") from None
        except OSError:  # a full queue, or a socket of another type: somebody holds it
            return True
    return True


def _file_identity(path: str | bytes) -> Identity | None:
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
        errno.ENODEV: "no network interface leads to the group",
        errno.EACCES: "permission denied",
        errno.ENOENT: "its folder does not exist",
        errno.ENOTDIR: "a part of its folder is not a folder",
    }
    return known.get(error.errno or 0) or error.strerror or str(error)
