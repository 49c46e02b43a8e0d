"""Sockets bound to every form of an address, what is refused and in which words, and what becomes of their files."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from router import net
from router.address import AddressError
from servers import OWN_NETWORK, needs_namespaces

STREAM, DATAGRAM = BOTH = socket.SOCK_STREAM, socket.SOCK_DGRAM
ELSEWHERE = "203.0.113.1:0"  # RFC 5737: an address for documentation, which no machine has


@contextmanager
def bound(address: str, kind: int = STREAM, **how: Any) -> Iterator[socket.socket]:
    with closing(net.bind(address, kind=kind, **how)) as sock:
        yield sock


def refusal(address: str, kind: int = STREAM, **how: Any) -> str:
    with pytest.raises(AddressError) as caught, bound(address, kind, **how):
        pass
    return str(caught.value)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom permissions bind; root, whom they do not, becomes nobody for a moment."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Path]:
    """A folder that anybody may enter, with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="net") as name:
        os.chmod(name, 0o777)  # the tests of permissions need strangers to come this far
        yield Path(name)


# --- binding TCP ------------------------------------------------------------------------------------------


def test_a_listener_accepts_and_says_its_real_port() -> None:
    with bound("127.0.0.1:0") as listener:
        name = net.bound_name(listener)
        host, _, port = name.rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
        with socket.create_connection((host, int(port))):
            assert listener.getsockname() == (host, int(port))


def test_a_listener_has_the_options_that_the_hot_path_counts_on() -> None:
    with bound("127.0.0.1:0", clients_speak_first=True) as listener:
        assert listener.getblocking() is False
        assert listener.get_inheritable() is False
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 1


def test_accepted_sockets_inherit_nodelay() -> None:
    with bound("127.0.0.1:0") as listener, socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"x")
        listener.settimeout(5)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_an_empty_host_is_every_address() -> None:
    with bound(":0") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_prefix_is_the_first_local_address_that_begins_so() -> None:
    with bound("127.*:0") as listener:
        assert listener.getsockname()[0].startswith("127.")


def test_a_prefix_that_no_local_address_has_names_those_there_are() -> None:
    seen = ", ".join(net.local_addresses())
    assert "127.0.0.1" in seen
    assert refusal("255.*:0") == (f"cannot bind '255.*:0': no local IPv4 address begins with 255. (there are: {seen})")


@pytest.mark.parametrize("pattern", ["*:0", "1*2.*:0"])
def test_a_star_stands_at_the_end_of_a_prefix(pattern: str) -> None:
    assert refusal(pattern) == (
        f"cannot bind {pattern!r}: one * stands at the end of a prefix, as in 192.*:0 (all addresses: :PORT)"
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("3031", "cannot bind '3031': a bare number is no address (a port is :3031)"),
        ("127.0.0.1:70000", "cannot bind '127.0.0.1:70000': port 70000 is out of range (0 to 65535)"),
        (
            "=0",
            "cannot bind '=0': =N is the N-th shared socket, which only a listening address of the router can be",
        ),
        (ELSEWHERE, f"cannot bind {ELSEWHERE!r}: it is not an address of this machine"),
        ("[2001:db8::1]:0", "cannot bind '[2001:db8::1]:0': it is not an address of this machine"),
        ("fd://web", "cannot bind 'fd://web': systemd has passed no socket under the name web"),
    ],
)
def test_why_an_address_cannot_be_bound_is_said(address: str, message: str) -> None:
    assert refusal(address) == message


def test_a_port_in_use_is_refused() -> None:
    with bound("127.0.0.1:0") as listener:
        name = net.bound_name(listener)
        assert refusal(name) == f"cannot bind {name!r}: the address is in use by another socket"


def test_a_port_is_free_again_at_once() -> None:
    """SO_REUSEADDR: connections of the last run that linger in TIME_WAIT do not hold up the next."""
    with bound("127.0.0.1:0") as listener:
        name = net.bound_name(listener)
        client = socket.create_connection(listener.getsockname())
        client.sendall(b"x")
        listener.settimeout(5)
        accepted, _ = listener.accept()
        accepted.recv(1)  # closed with bytes unread it would be reset, and not linger
        accepted.close()
        client.close()
    with bound(name) as again:
        assert net.bound_name(again) == name


def test_an_ipv6_listener_is_as_any_other() -> None:
    with bound("[::1]:0", clients_speak_first=True) as listener:
        port = listener.getsockname()[1]
        assert net.bound_name(listener) == f"[::1]:{port}"
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 1
        with socket.create_connection(("::1", port)) as client:
            client.sendall(b"x")
            listener.settimeout(5)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert refusal(f"[::1]:{port}") == f"cannot bind '[::1]:{port}': the address is in use by another socket"


def test_every_ipv6_address_takes_ipv4_in_as_well() -> None:
    with bound("[::]:0") as listener:
        for host in ("::1", "127.0.0.1"):
            socket.create_connection((host, listener.getsockname()[1])).close()


def test_an_ipv6_address_with_its_interface() -> None:
    with bound("[::1%lo]:0") as listener:
        assert net.bound_name(listener).startswith("[::1")


@pytest.mark.parametrize("kind", BOTH)
def test_a_host_name_is_looked_up(kind: int) -> None:
    with bound("localhost:0", kind) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_of_a_host_names_addresses_the_first_ipv4_one_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ("::1", 0, 0, 0), ("127.0.0.2", 0), ("127.0.0.3", 0))
    with bound("web.lan:0") as listener:
        assert listener.getsockname()[0] == "127.0.0.2"


def test_a_host_name_of_another_machine_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ("203.0.113.1", 0))
    assert refusal("web.lan:0") == "cannot bind 'web.lan:0': it is not an address of this machine"


def test_a_host_name_with_an_ipv6_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ("::1", 0, 0, 0))
    with bound("web.lan:0") as listener:
        assert listener.getsockname()[0] == "::1"


def test_a_host_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    assert refusal("web.lan:0") == "cannot bind 'web.lan:0': no address of web.lan is known: Name or service not known"


def answers(monkeypatch: pytest.MonkeyPatch, *found: tuple[Any, ...]) -> None:
    """What a lookup gives, in place of a DNS server elsewhere."""

    def getaddrinfo(*_: object, **__: object) -> list[tuple[Any, ...]]:
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET6 if ":" in one[0] else socket.AF_INET, STREAM, 0, "", one) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", [ELSEWHERE, "[2001:db8::1]:0"])
@pytest.mark.parametrize("kind", BOTH)
def test_freebind_binds_what_the_machine_does_not_have_yet(address: str, kind: int) -> None:
    with bound(address, kind, freebind=True) as sock:
        assert net.bound_name(sock).startswith(address.removesuffix("0"))


def test_two_sockets_share_a_port_where_both_ask_for_it() -> None:
    with bound("127.0.0.1:0", reuse_port=True) as first:
        name = net.bound_name(first)
        with bound(name, reuse_port=True) as second:
            assert net.bound_name(second) == name
            assert refusal(name) == f"cannot bind {name!r}: the address is in use by another socket"
    with bound("127.0.0.1:0") as first:
        assert "in use by another socket" in refusal(net.bound_name(first), reuse_port=True)


def test_announcements_are_never_shared_among_sockets() -> None:
    with bound("127.0.0.1:0", DATAGRAM, reuse_port=True) as first:
        assert "in use by another socket" in refusal(net.bound_name(first), DATAGRAM, reuse_port=True)


# --- the queue --------------------------------------------------------------------------------------------


def test_the_queue_is_as_long_as_asked_but_never_longer_than_the_kernel_lets_it() -> None:
    limit = net.somaxconn()
    assert net.listen_backlog(None) == min(4096, limit)
    assert net.listen_backlog(1) == 1
    assert net.listen_backlog(limit + 1) == limit
    assert limit == int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_a_queue_that_is_too_long_is_no_error() -> None:
    with bound("127.0.0.1:0", backlog=10**6) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


# --- UDP --------------------------------------------------------------------------------------------------


def test_a_second_router_on_the_same_udp_port_is_refused() -> None:
    with bound("127.0.0.1:0", DATAGRAM) as first:
        name = net.bound_name(first)
        message = f"cannot bind {name!r}: the address is in use by another socket"
        assert refusal(name, DATAGRAM) == message
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert first.getblocking() is False


@pytest.mark.parametrize("privileged", [True, False])
def test_a_datagram_socket_has_room_for_a_burst(privileged: bool) -> None:
    """As root more than net.core.rmem_max; the kernel counts its own overhead in."""
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    with nullcontext() if privileged else unprivileged(), bound("127.0.0.1:0", DATAGRAM) as sock:
        forced = may_force_buffers()
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert privileged or not forced
    assert room == 2 * (net.DATAGRAM_BUFFER_BYTES if forced else min(most, net.DATAGRAM_BUFFER_BYTES))


def may_force_buffers() -> bool:
    with socket.socket(type=DATAGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, net.SO_RCVBUFFORCE, 1 << 20)
        except PermissionError:
            return False
    return True


def test_a_datagram_socket_over_ipv6() -> None:
    with bound("[::1]:0", DATAGRAM) as sock, socket.socket(socket.AF_INET6, DATAGRAM) as sender:
        sender.sendto(b"x", sock.getsockname())
        assert sock.recv(10) == b"x"
        assert "in use by another socket" in refusal(net.bound_name(sock), DATAGRAM)


MULTICAST = """
import socket, struct, sys
from contextlib import closing
from router import net

for group, family in (("225.1.1.1:0", socket.AF_INET), ("[ff02::1:2%m0]:0", socket.AF_INET6)):
    first = net.bind(group, kind=socket.SOCK_DGRAM)
    name = net.bound_name(first)
    second = net.bind(name, kind=socket.SOCK_DGRAM)
    with closing(first), closing(second), socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", first.getsockname())
        for sock in (first, second):
            sock.settimeout(5)
            assert sock.recv(10) == b"x"
        print(group, first.getsockname() == second.getsockname())
"""


@needs_namespaces
def test_a_multicast_group_is_joined_and_each_of_its_sockets_gets_every_datagram() -> None:
    argv = [*OWN_NETWORK, sys.executable, "-c", MULTICAST]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == ["225.1.1.1:0 True", "[ff02::1:2%m0]:0 True"], done


@needs_namespaces
def test_a_multicast_group_that_cannot_be_joined_is_no_group() -> None:
    """Without a route to it the kernel knows no interface to join it on; IPv6 names its own."""
    code = "from router import net; net.bind('225.1.1.1:0', kind=2)"
    argv = ["unshare", "-n", sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "cannot bind '225.1.1.1:0': no network interface leads to the group"
    ), done


# --- unix sockets -----------------------------------------------------------------------------------------


def test_a_unix_socket_listens_at_its_path(short: Path) -> None:
    path = str(short / "router.sock")
    with bound(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert net.bound_name(listener) == path
        assert listener.getblocking() is False
        assert listener.get_inheritable() is False
        client.connect(path)


def test_announcements_come_to_a_path_as_well(short: Path) -> None:
    path = str(short / "s")
    with bound(path, DATAGRAM) as sock, socket.socket(socket.AF_UNIX, DATAGRAM) as sender:
        assert sock.getblocking() is False
        sender.sendto(b"x", path)
        assert sock.recv(10) == b"x"


@pytest.mark.parametrize("kind", BOTH)
def test_an_abstract_socket_has_uwsgis_nul_behind_its_name(kind: int) -> None:
    address = f"@gfrouter-test-{os.getpid()}"
    with bound(address, kind) as sock, socket.socket(socket.AF_UNIX, kind) as client:
        assert sock.getsockname() == b"\0" + address[1:].encode() + b"\0"
        assert net.bound_name(sock) == address
        assert net.identity(sock) is None
        client.connect(sock.getsockname())
        assert refusal(address, kind) == f"cannot bind {address!r}: the address is in use by another socket"
    with bound(address, kind, mode=0o600, owner=(0, 0)):
        pass  # an abstract name has no file, and goes with its socket


def test_the_mode_of_a_unix_socket_is_as_umask_leaves_it(short: Path) -> None:
    was = os.umask(0o027)
    try:
        with bound(str(short / "s")):
            assert stat.S_IMODE(os.stat(short / "s").st_mode) == 0o750
    finally:
        os.umask(was)


@pytest.mark.parametrize("kind", BOTH)
def test_the_mode_of_a_unix_socket_is_the_one_asked_for(short: Path, kind: int) -> None:
    with bound(str(short / "s"), kind, mode=0o606):
        assert stat.S_IMODE(os.stat(short / "s").st_mode) == 0o606


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_a_unix_socket_is_the_one_asked_for(short: Path, kind: int) -> None:
    for owner, is_then in (((7, 8), (7, 8)), ((9, -1), (9, os.getegid())), ((-1, 9), (os.geteuid(), 9))):
        with bound(str(short / "s"), kind, owner=owner, mode=0o660):
            found = os.stat(short / "s")
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (*is_then, 0o660)


def test_a_socket_has_its_owner_and_mode_before_it_listens(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets in while the file is still the old owner's."""
    seen = []

    def chmod(path: bytes, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            seen.append((path, client.connect_ex(path)))

    monkeypatch.setattr(os, "chmod", chmod)
    with bound(str(short / "s"), mode=0o660):
        assert seen == [(bytes(short / "s"), errno.ECONNREFUSED)]


def test_an_owner_that_may_not_be_given_is_said_and_leaves_no_file(short: Path) -> None:
    path = str(short / "s")
    with unprivileged():
        message = f"cannot bind {path!r}: cannot chown it to 0:0: Operation not permitted"
        assert refusal(path, owner=(0, 0)) == message
    assert not os.path.exists(path)


def test_a_mode_that_cannot_be_given_is_said_and_leaves_no_file(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(path: bytes, mode: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    path = str(short / "s")
    monkeypatch.setattr(os, "chmod", chmod)
    assert refusal(path, mode=0o660) == f"cannot bind {path!r}: cannot chmod it to 660: Read-only file system"
    assert not os.path.exists(path)


KINDS = pytest.mark.parametrize(("kind", "before"), [(one, other) for one in BOTH for other in BOTH])


@KINDS
def test_a_stale_socket_file_is_replaced(short: Path, kind: int, before: int) -> None:
    path = str(short / "s")
    with bound(path, before):
        pass
    assert os.path.exists(path)
    with bound(path, kind), socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(path)


@KINDS
def test_a_socket_that_somebody_serves_is_left_alone(short: Path, kind: int, before: int) -> None:
    path = str(short / "s")
    with bound(path, before) as listener:
        was = net.identity(listener)
        assert refusal(path, kind) == f"cannot bind {path!r}: the socket is being served by another process"
        assert net.identity(listener) == was


def test_a_served_socket_with_a_full_queue_is_left_alone(short: Path) -> None:
    path = str(short / "s")
    with bound(path, backlog=1):
        waiting = []
        try:
            while True:  # ends when the queue of two is full
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(path)
        except BlockingIOError:
            assert "is being served by another process" in refusal(path)
        finally:
            for client in waiting:
                client.close()


def test_a_datagram_socket_with_a_full_queue_is_left_alone(short: Path) -> None:
    path = str(short / "s")
    with bound(path, DATAGRAM), socket.socket(socket.AF_UNIX, DATAGRAM) as sender:
        sender.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # ends when the queue is full
                sender.sendto(b"x", path)
        assert "is being served by another process" in refusal(path, DATAGRAM)


def test_what_is_no_socket_is_never_deleted(short: Path) -> None:
    (short / "file").write_text("precious")
    (short / "folder").mkdir()
    (short / "link").symlink_to(short / "s")
    with bound(str(short / "s")):
        for name in ("file", "folder", "link"):
            path = str(short / name)
            assert refusal(path) == f"cannot bind {path!r}: the path exists and is not a socket"
    assert (short / "file").read_text() == "precious"
    assert (short / "folder").is_dir()
    assert (short / "link").is_symlink()


def test_a_missing_folder_is_named(short: Path) -> None:
    path = str(short / "no" / "s")
    assert refusal(path) == f"cannot bind {path!r}: its folder does not exist"
    (short / "no").write_text("")
    assert refusal(path) == f"cannot bind {path!r}: a part of its folder is not a folder"


def test_a_folder_that_cannot_be_written_is_refused(short: Path) -> None:
    (short / "locked").mkdir(mode=0o555)
    path = str(short / "locked" / "s")
    with unprivileged():
        assert refusal(path) == f"cannot bind {path!r}: permission denied"


def test_a_socket_that_may_not_be_asked_is_left_alone(short: Path) -> None:
    path = str(short / "s")
    with bound(path):
        os.chmod(path, 0)
        with unprivileged():
            assert refusal(path) == (
                f"cannot bind {path!r}: the socket exists, and its permissions hide whether it is in use"
            )
        assert os.path.exists(path)


def test_a_path_that_is_too_long_is_refused_with_its_length() -> None:
    path = "/" + "x" * 107
    assert refusal(path) == f"cannot bind {path!r}: a unix socket's path of 108 bytes, but 107 is the limit"


# --- vacuum -----------------------------------------------------------------------------------------------


def test_our_own_socket_file_is_removed_once(short: Path) -> None:
    path = str(short / "s")
    with bound(path) as listener:
        own = net.identity(listener)
    assert own is not None
    assert net.unlink_own(path, own) is True
    assert net.unlink_own(path, own) is False
    assert not os.path.exists(path)


def test_a_socket_that_another_process_bound_since_is_not_removed(short: Path) -> None:
    path = str(short / "s")
    with bound(path) as mine:
        own = net.identity(mine)
        assert own is not None
        os.rename(path, short / "old")  # keeps the inode in use, so that the next one is another
        with bound(path) as theirs:
            assert net.unlink_own(path, own) is False
            assert net.identity(theirs) is not None


def test_a_file_in_the_sockets_place_is_not_removed(short: Path) -> None:
    path = short / "s"
    path.write_text("precious")
    found = os.stat(path)
    assert net.unlink_own(str(path), (found.st_dev, found.st_ino)) is False
    assert path.read_text() == "precious"


def test_tcp_has_no_file_to_remove() -> None:
    with bound("127.0.0.1:0") as listener:
        assert net.identity(listener) is None


# --- passed on --------------------------------------------------------------------------------------------


@contextmanager
def passed(sock: socket.socket, listen: bool = True, at: Any = ("127.0.0.1", 0)) -> Iterator[str]:
    """`fd://N` of a socket that is bound there, as whoever started us has bound it."""
    with sock:
        if at is not None:
            sock.bind(at)
        if listen:
            sock.listen()
        yield f"fd://{sock.fileno()}"


FAMILIES = {
    "ipv4": (socket.AF_INET, ("127.0.0.1", 0)),
    "ipv6": (socket.AF_INET6, ("::1", 0)),
    "abstract": (socket.AF_UNIX, f"\0gfrouter-test-passed-{os.getpid()}"),
}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("form", FAMILIES)
def test_a_socket_that_was_passed_is_ours_and_the_original_stays_open(form: str, kind: int) -> None:
    family, at = FAMILIES[form]
    with passed(socket.socket(family, kind), listen=kind == STREAM, at=at) as address:
        fd = int(address.removeprefix("fd://"))
        for _ in range(2):  # as after a restart by SIGHUP
            with bound(address, kind) as sock:
                assert sock.fileno() != fd
                assert sock.getblocking() is False
                assert sock.get_inheritable() is False
                assert net.identity(sock) is None
                name = sock.getsockname()
            with socket.socket(fileno=os.dup(fd)) as original:
                assert original.getsockname() == name
        if kind == STREAM:
            with socket.socket(family) as client:
                client.connect(name)


def test_a_passed_path_is_named_and_its_file_known(short: Path) -> None:
    path = str(short / "s")
    with passed(socket.socket(socket.AF_UNIX), at=path) as address, bound(address, mode=0o600, owner=(7, 7)) as sock:
        assert net.bound_name(sock) == path
        assert os.stat(path).st_uid == os.geteuid(), "who made it has seen to its owner"


def test_a_passed_socket_that_does_not_listen_yet_listens_then() -> None:
    with passed(socket.socket(), listen=False) as address, bound(address, clients_speak_first=True) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 1


def test_what_is_no_socket_cannot_be_passed(short: Path) -> None:
    with open(short / "file", "w") as file:
        fd = file.fileno()
        assert refusal(f"fd://{fd}") == f"cannot bind 'fd://{fd}': descriptor {fd} is not a socket"
    assert refusal(f"fd://{fd}") == f"cannot bind 'fd://{fd}': descriptor {fd} is not open"
    assert refusal("fd://9999999") == "cannot bind 'fd://9999999': descriptor 9999999 is not open"


def test_a_passed_socket_must_be_of_the_right_kind() -> None:
    for sock, kind, listen, why in (
        (socket.socket(), DATAGRAM, True, "is a stream socket, where a datagram socket is needed"),
        (socket.socket(type=DATAGRAM), STREAM, False, "is a datagram socket, where a stream socket is needed"),
        (sequenced(), STREAM, True, "is another kind of socket, where a stream socket is needed"),
    ):
        at = "\0gfrouter-test-sequenced" if sock.family == socket.AF_UNIX else ("127.0.0.1", 0)
        with passed(sock, listen, at) as address:
            assert refusal(address, kind) == f"cannot bind {address!r}: descriptor {sock.fileno()} {why}"


def sequenced() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
@pytest.mark.parametrize("kind", BOTH)
def test_a_passed_socket_must_be_bound(family: int, kind: int) -> None:
    with passed(socket.socket(family, kind), listen=False, at=None) as address:
        fd = address.removeprefix("fd://")
        assert refusal(address, kind) == f"cannot bind {address!r}: descriptor {fd} is a socket that is not bound"


def test_a_connection_is_no_listening_socket() -> None:
    one, other = socket.socketpair()
    with one, other, bound("127.0.0.1:0") as listener:
        one.bind(f"\0gfrouter-test-pair-{os.getpid()}")
        with socket.create_connection(listener.getsockname()) as client:
            for sock in (one, client):
                fd = sock.fileno()
                message = f"cannot bind 'fd://{fd}': descriptor {fd} is a connection, not a listening socket"
                assert refusal(f"fd://{fd}") == message


def test_a_failed_bind_leaves_no_descriptor_open(short: Path) -> None:
    path = str(short / "s")
    with bound("127.0.0.1:0") as listener, bound(path), passed(socket.socket(), False, None) as unbound:
        with open(os.devnull) as file:
            before = os.listdir("/proc/self/fd")
            for address in (net.bound_name(listener), path, ELSEWHERE, "[::2]:0", unbound, f"fd://{file.fileno()}"):
                refusal(address)
            assert os.listdir("/proc/self/fd") == before


def test_a_relative_path_is_that_of_the_folder_it_was_bound_in(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short)
    with bound("s") as listener:
        monkeypatch.chdir("/")
        assert net.listens_at([listener], str(short))(f"{short}/s")
        assert not net.listens_at([listener], str(short))("/s")


def test_a_listener_on_every_address_listens_at_each_of_this_machine_and_at_no_other() -> None:
    with bound("0.0.0.0:0") as listener, bound("[::1]:0") as six:
        port, port6 = listener.getsockname()[1], six.getsockname()[1]
        is_own = net.listens_at([listener, six])
        for own in (f":{port}", f"127.0.0.1:{port}", f"127.0.0.9:{port}", f"0.0.0.0:{port}", f"[::1]:{port6}"):
            assert is_own(own), own
        for other in (f"192.0.2.1:{port}", f"127.0.0.1:{port % 65535 + 1}", f"127.0.0.1:{port6}", "/run/x", "@x"):
            assert not is_own(other), other


@pytest.mark.parametrize("address", ["225.1.1.1:0", "255.255.255.255:0", "[ff02::1%lo]:0"])
def test_nobody_can_connect_to_a_group(address: str) -> None:
    assert refusal(address) == f"cannot bind {address!r}: nobody can connect to a multicast or broadcast address"
