"""Addresses: every form that is understood, every one that is refused and in which words, and real binds."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import net
from router.net import AddressError


@contextmanager
def bound(
    address: str, kind: int = socket.SOCK_STREAM, backlog: int | None = None, clients_speak_first: bool = False
) -> Iterator[socket.socket]:
    sock = net.bind(address, kind=kind, backlog=backlog, clients_speak_first=clients_speak_first)
    with closing(sock):
        yield sock


def refusal(address: str, kind: int = socket.SOCK_STREAM) -> str:
    with pytest.raises(AddressError) as caught, bound(address, kind):
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


# --- addresses of workers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("10.0.0.5:3031", (socket.AF_INET, ("10.0.0.5", 3031))),
        (":3031", (socket.AF_INET, ("127.0.0.1", 3031))),
        ("0.0.0.0:1", (socket.AF_INET, ("0.0.0.0", 1))),
        ("127.0.0.1:65535", (socket.AF_INET, ("127.0.0.1", 65535))),
        ("/run/app.sock", (socket.AF_UNIX, "/run/app.sock")),
        ("/run/a:b.sock", (socket.AF_UNIX, "/run/a:b.sock")),
        ("app.sock", (socket.AF_UNIX, "app.sock")),
        ("3031", (socket.AF_UNIX, "3031")),
        ("/" + "x" * 106, (socket.AF_UNIX, "/" + "x" * 106)),
        ("/run/\udcff.sock", (socket.AF_UNIX, "/run/\udcff.sock")),
    ],
)
def test_a_workers_address_is_ip_and_port_or_a_path(text: str, meaning: tuple[int, object]) -> None:
    assert net.parse_node(text) == meaning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': the address is empty"),
        ("10.0.0.5:0", "'10.0.0.5:0': port 0 is out of range (1 to 65535)"),
        ("10.0.0.5:65536", "'10.0.0.5:65536': port 65536 is out of range (0 to 65535)"),
        ("10.0.0.5:", "'10.0.0.5:': port '' is not a number"),
        ("10.0.0.5:http", "'10.0.0.5:http': port 'http' is not a number"),
        ("10.0.0.5:-1", "'10.0.0.5:-1': port '-1' is not a number"),
        ("10.0.0.5:٣", "'10.0.0.5:٣': port '٣' is not a number"),
        (
            "app:3031",
            "'app:3031': 'app' is not a numeric IPv4 address (host names are not supported yet)",
        ),
        (
            "10.0.0.256:1",
            "'10.0.0.256:1': '10.0.0.256' is not a numeric IPv4 address (host names are not supported yet)",
        ),
        ("[::1]:3031", "'[::1]:3031': IPv6 addresses are not supported yet"),
        ("::1:3031", "'::1:3031': IPv6 addresses are not supported yet"),
        ("@app", "'@app': abstract unix sockets are not supported yet"),
        ("/run/a\0b", r"'/run/a\x00b': the address has a NUL byte inside"),
        (
            "/" + "x" * 107,
            f"'/{'x' * 107}': a unix socket's path of 108 bytes, but 107 is the limit",
        ),
        (
            "/" + "é" * 54,
            f"'/{'é' * 54}': a unix socket's path of 109 bytes, but 107 is the limit",
        ),
    ],
)
def test_what_is_wrong_with_a_workers_address_is_said(text: str, message: str) -> None:
    with pytest.raises(AddressError) as caught:
        net.parse_node(text)
    assert str(caught.value) == message


def test_a_message_on_a_huge_address_stays_short_and_on_one_line() -> None:
    with pytest.raises(AddressError) as caught:
        net.parse_node("10.0.0.5\n" * 400 + ":1")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@given(st.text() | st.from_regex(r"[0-9.]{0,15}:[0-9]{0,7}", fullmatch=True))
def test_no_text_raises_anything_but_an_address_error(text: str) -> None:
    try:
        family, sockaddr = net.parse_node(text)
    except AddressError as error:
        shown = str(error)
    else:
        shown = ""
        assert (family, type(sockaddr)) in ((socket.AF_INET, tuple), (socket.AF_UNIX, str))
    assert shown.isprintable(), "one line, fit for a log"


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
        ("", "cannot bind '': the address is empty"),
        ("3031", "cannot bind '3031': a bare number is no address, :3031 is"),
        ("127.0.0.1:70000", "cannot bind '127.0.0.1:70000': port 70000 is out of range (0 to 65535)"),
        (
            "localhost:0",
            "cannot bind 'localhost:0': 'localhost' is not a numeric IPv4 address (host names are not supported yet)",
        ),
        ("[::1]:0", "cannot bind '[::1]:0': IPv6 addresses are not supported yet"),
        ("@router", "cannot bind '@router': abstract unix sockets are not supported yet"),
        ("fd://3", "cannot bind 'fd://3': fd:// is not supported yet"),
        (
            "=0",
            "cannot bind '=0': =N is the N-th shared socket, which only a listening address of the router can be",
        ),
        ("203.0.113.1:0", "cannot bind '203.0.113.1:0': it is not an address of this machine"),
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
    with bound("127.0.0.1:0", socket.SOCK_DGRAM) as first:
        name = net.bound_name(first)
        message = f"cannot bind {name!r}: the address is in use by another socket"
        assert refusal(name, socket.SOCK_DGRAM) == message
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert first.getblocking() is False


def test_a_datagram_socket_has_room_for_a_burst() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with bound("127.0.0.1:0", socket.SOCK_DGRAM) as sock:
        most = int(Path("/proc/sys/net/core/rmem_max").read_text())
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert room == 2 * min(most, net.DATAGRAM_BUFFER_BYTES)  # the kernel counts its own overhead in
        assert room >= default


def test_multicast_and_unix_datagrams_are_refused(short: Path) -> None:
    assert refusal("225.1.1.1:0", socket.SOCK_DGRAM) == (
        "cannot bind '225.1.1.1:0': multicast groups are not supported yet"
    )
    path = str(short / "s")
    message = f"cannot bind {path!r}: unix datagram sockets are not supported yet"
    assert refusal(path, socket.SOCK_DGRAM) == message


# --- unix sockets -----------------------------------------------------------------------------------------


def test_a_unix_socket_listens_at_its_path(short: Path) -> None:
    path = str(short / "router.sock")
    with bound(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert net.bound_name(listener) == path
        assert listener.getblocking() is False
        assert listener.get_inheritable() is False
        client.connect(path)


def test_the_mode_of_a_unix_socket_is_as_umask_leaves_it(short: Path) -> None:
    was = os.umask(0o027)
    try:
        with bound(str(short / "s")):
            assert stat.S_IMODE(os.stat(short / "s").st_mode) == 0o750
    finally:
        os.umask(was)


def test_a_stale_socket_file_is_replaced(short: Path) -> None:
    path = str(short / "s")
    with bound(path):
        pass
    assert os.path.exists(path)
    with bound(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_that_somebody_serves_is_left_alone(short: Path) -> None:
    path = str(short / "s")
    with bound(path) as listener:
        was = net.identity(listener)
        message = f"cannot bind {path!r}: the socket is being served by another process"
        assert refusal(path) == message
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


def test_a_socket_of_another_type_is_left_alone(short: Path) -> None:
    path = str(short / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert refusal(path) == f"cannot bind {path!r}: the socket is being served by another process"
        assert os.path.exists(path)


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
