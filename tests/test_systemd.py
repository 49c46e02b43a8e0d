"""Socket activation: what LISTEN_FDS says, and a whole gfrouter on sockets that somebody else has opened for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients import announce, ask, read_to_end, request
from router import systemd
from router.systemd import Passed, passed_sockets
from scripted import HELLO, ScriptedNode, address_of, connect, family_of, listen, split, wait_for
from servers import FASTROUTER, ROUTER_COMMAND, Process, Router, free_address

pytestmark = pytest.mark.skipif(FASTROUTER, reason="the real fastrouter takes no sockets of systemd")

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
GET = request("foo.com")
ME = 4711

# --- what the environment says ----------------------------------------------------------------------------


@pytest.fixture
def first_fd(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A stream, a datagram, a file and a sequenced socket, on four descriptors in a row; those from 3 on are taken."""
    first = 700
    with (
        socket.socket() as stream,
        socket.socket(type=DATAGRAM) as datagram,
        open(os.devnull) as file,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sequenced,
    ):
        theirs: list[socket.socket | TextIO] = [stream, datagram, file, sequenced]
        fds = [os.dup2(one.fileno(), first + n) for n, one in enumerate(theirs)]
        monkeypatch.setattr(systemd, "FIRST_FD", first)
        yield first
        for fd in fds:
            os.close(fd)


def environ(count: object, names: str | None = None, pid: object = ME) -> dict[str, str]:
    named = {} if names is None else {"LISTEN_FDNAMES": names}
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(count), **named}


def test_the_sockets_come_in_order_with_their_names_and_kinds(first_fd: int) -> None:
    assert passed_sockets(environ(4, "web:sub:log:seq"), ME) == [
        Passed(first_fd, "web", STREAM),
        Passed(first_fd + 1, "sub", DATAGRAM),
        Passed(first_fd + 3, "seq", socket.SOCK_SEQPACKET),
    ]


@pytest.mark.parametrize(("names", "found"), [(None, "unknown"), ("", "unknown"), (":", "unknown"), ("a", "a")])
def test_a_socket_without_a_name_has_the_one_that_systemd_gives_it(first_fd: int, names: str, found: str) -> None:
    assert passed_sockets(environ(2, names), ME) == [
        Passed(first_fd, found, STREAM),
        Passed(first_fd + 1, "unknown", DATAGRAM),
    ]


def test_more_than_there_are_is_as_many_as_there_are(first_fd: int) -> None:
    assert len(passed_sockets(environ(4096), ME)) >= 3


@pytest.mark.parametrize("count", ["", "0", "-1", "+1", " 1", "1.0", "x", "٣", "4097", "9" * 5000])
def test_what_is_no_number_of_sockets_is_none(first_fd: int, count: str) -> None:
    assert passed_sockets(environ(count), ME) == []


@pytest.mark.parametrize("pid", ["", "4712", "04711", "x"])
def test_what_was_passed_to_another_process_is_not_ours(first_fd: int, pid: str) -> None:
    assert passed_sockets(environ(1, pid=pid), ME) == []


def test_without_a_word_nothing_was_passed(first_fd: int) -> None:
    assert passed_sockets({}, ME) == []
    assert passed_sockets({"LISTEN_FDS": "1"}, ME) == []


TEXTS = st.sampled_from(["0", "1", "2", "x", "", ":", "a:b", str(ME), "é"]) | st.text(max_size=5)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"), TEXTS)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_environment_raises_anything(first_fd: int, environ: dict[str, str]) -> None:
    passed_sockets(environ, ME)


def test_asking_leaves_no_descriptor_open(first_fd: int) -> None:
    before = os.listdir("/proc/self/fd")
    passed_sockets(environ(4), ME)
    assert os.listdir("/proc/self/fd") == before
    assert fcntl.fcntl(first_fd, fcntl.F_GETFD) == 0, "still there, and for whoever is executed next"


# --- a whole gfrouter -------------------------------------------------------------------------------------

# What systemd does: the sockets on 3 and the descriptors behind it, the environment, and execve in its own place.
LAUNCHER = """
import fcntl, os, sys
fds, names, *argv = sys.argv[1:]
away = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds.split(",")]
for target, fd in enumerate(away, 3):
    os.dup2(fd, target)
os.closerange(3 + len(away), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(away)), LISTEN_FDNAMES=names)
os.execv(argv[0], argv)
"""


class Opened:
    """In systemd's place: sockets that outlive every router, by (name, address or `udp:` and an address)."""

    def __init__(self, *wanted: tuple[str, str]) -> None:
        self.names = [name for name, _ in wanted]
        self.socks = [_open(address) for _, address in wanted]
        self.addresses = [address_of(sock) for sock in self.socks]

    def router(self, **options: Any) -> Router:
        """A gfrouter that is started with them; it is told nothing of addresses that `options` do not say."""
        fds = [sock.fileno() for sock in self.socks]
        launcher = (sys.executable, "-c", LAUNCHER, ",".join(map(str, fds)), ":".join(self.names))
        options = {"listen": None, "subscription_server": None, "stats": None, **options}
        return Router(launcher=launcher, pass_fds=fds, **options)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.socks:
            sock.close()


def _open(address: str) -> socket.socket:
    if not address.startswith("udp:"):
        return listen(address)
    address = address.removeprefix("udp:")
    sock = socket.socket(family_of(address), DATAGRAM)
    sock.bind(split(address))
    return sock


@contextlib.contextmanager
def node(server: str, *addresses: str) -> Iterator[ScriptedNode]:
    """A node of foo.com that is known at all of these addresses."""
    with ScriptedNode() as scripted:

        def served() -> bool:
            announce(server, "foo.com", scripted.address)
            return all(ask(address, GET) == HELLO for address in addresses)

        wait_for(served, f"answers on {addresses}")
        yield scripted


def test_what_was_passed_is_used_where_no_address_is_given() -> None:
    with Opened(("web", "127.0.0.1:0"), ("sub", "udp:127.0.0.1:0")) as opened, opened.router() as router:
        web, sub = opened.addresses
        assert router.line(rf"^uWSGI fastrouter bound on {web} fd \d+$")
        assert router.line(rf"^uWSGI fastrouter subscription server bound on {sub} fd \d+$")
        with node(sub, web):
            pass


@pytest.mark.slow
def test_names_say_what_is_for_what_and_all_sockets_of_a_name_serve(tmp_path: Path) -> None:
    path, stats = str(tmp_path / "web"), str(tmp_path / "stats")
    wanted = (
        ("web", "127.0.0.1:0"), ("sub", "udp:127.0.0.1:0"), ("web", "[::1]:0"), ("stats", stats),
        ("web", path), ("web", f"@gfrouter-test-{os.getpid()}"), ("spare", "127.0.0.1:0"),
    )  # fmt: skip
    options = {"listen": "fd://web", "subscription_server": "fd://sub", "stats": "fd://stats", "vacuum": True}
    with Opened(*wanted) as opened:
        with opened.router(stats_address=stats, **options) as router:
            ipv4, sub, ipv6, _, _, abstract, _ = opened.addresses
            with node(sub, ipv4, ipv6, path, abstract):
                assert router.stats()["fastrouter"] == [ipv4, ipv6, path, abstract, sub]
            assert router.line("^systemd has passed spare as descriptor 9, and no option uses it$")
            router.stop(signal.SIGTERM)
        assert Path(path).is_socket(), "vacuum leaves what is not ours"
        assert Path(stats).is_socket()


def test_a_name_that_was_not_passed_ends_the_start_with_one_line() -> None:
    with Opened(("web", "127.0.0.1:0")) as opened:
        fds = [opened.socks[0].fileno()]
        launcher = (sys.executable, "-c", LAUNCHER, str(fds[0]), "web")
        with Process(*launcher, *ROUTER_COMMAND, "--listen", "fd://wbe", pass_fds=fds) as process:
            assert process.wait() == 1
            assert process.lines[-1] == (
                "gfrouter: cannot bind 'fd://wbe': systemd has passed no stream socket under that name "
                "(it has passed: web (stream))"
            )


@pytest.mark.slow
def test_after_sighup_the_passed_sockets_still_serve() -> None:
    with Opened(("web", "127.0.0.1:0"), ("sub", "udp:127.0.0.1:0")) as opened, opened.router() as router:
        web, sub = opened.addresses
        for _ in range(2):
            with node(sub, web):
                router.lines.clear()
                router.send_signal(signal.SIGHUP)
                router.wait_line("^spawned uWSGI fastrouter 1 ")
        with node(sub, web):
            assert router.returncode is None


@pytest.mark.slow
def test_the_queue_of_a_passed_socket_survives_a_kill() -> None:
    with Opened(("web", "127.0.0.1:0"), ("sub", "udp:127.0.0.1:0")) as opened:
        web, sub = opened.addresses
        with opened.router() as router, node(sub, web):
            router.send_signal_to_all(signal.SIGKILL)
            router.wait()
        with ScriptedNode() as scripted:
            waiting = [connect(web) for _ in range(20)]
            for client in waiting:
                client.sendall(GET)
            announce(sub, "foo.com", scripted.address)  # waits in the socket as well
            with opened.router(cheap=True):  # accepts nothing before the node is known
                assert [read_to_end(client) for client in waiting] == [HELLO] * 20
            for client in waiting:
                client.close()


# Who opens the sockets: ourselves as above, and systemd's own tool where it is installed.
OPENERS = ["", *filter(None, [shutil.which("systemd-socket-activate")])]


@contextlib.contextmanager
def activated(opener: str, names: Sequence[str], addresses: Sequence[str], *options: str) -> Iterator[Process]:
    """A gfrouter with listening sockets of these names, which may be started by the first connection only."""
    if opener:
        sockets = [word for address in addresses for word in ("-l", address)]
        with Process(opener, *sockets, f"--fdname={':'.join(names)}", *ROUTER_COMMAND, *options) as process:
            process.wait_line(rf"Listening on {addresses[-1]} as \d+")
            yield process
    else:
        with Opened(*zip(names, addresses, strict=True)) as opened:
            fds = [sock.fileno() for sock in opened.socks]
            launcher = (sys.executable, "-c", LAUNCHER, ",".join(map(str, fds)), ":".join(names))
            with Process(*launcher, *ROUTER_COMMAND, *options, pass_fds=fds) as process:
                yield process


@pytest.mark.slow
@pytest.mark.parametrize("opener", OPENERS)
def test_who_wakes_it_up_is_served_and_so_is_everybody_after(opener: str, tmp_path: Path) -> None:
    web, web6, path, stats = free_address(), free_address("ipv6"), str(tmp_path / "web"), free_address()
    server = free_address()
    options = ("--listen", "fd://web", "--stats", "fd://stats", "--subscription-server", server, "--warm-timeout", "0")
    more = ("--error-pages", "off")  # the one of systemd passes no environment on
    with activated(opener, ["web"] * 3 + ["stats"], [web, web6, path, stats], *options, *more) as process:
        with connect(web) as first:
            first.sendall(request("nobody.com"))
            process.wait_line(r"^spawned uWSGI fastrouter 1 \(pid: \d+\)")
            assert read_to_end(first) == b""
        with node(server, web, web6, path):
            process.lines.clear()
            process.send_signal(signal.SIGHUP)
            process.wait_line("^spawned uWSGI fastrouter 1 ")
        with node(server, web, web6, path):
            assert b'"foo.com"' in ask(stats, b"")
