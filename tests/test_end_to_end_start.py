"""Starts that cannot work end with one clear line and harm nobody; a unix socket is taken over only from the dead."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from clients import announce, ask, request
from scripted import HELLO, ScriptedNode, listen
from servers import FASTROUTER, ROUTER_COMMAND, Process, Router, as_words, better, free_address

GET = request("foo.com")
BETTER = better("starts all the same, or does more harm than refusing")


def assert_refuses(options: Mapping[str, object], pattern: str) -> None:
    """A start with these options ends by itself with 1, and its last line, the only complaint, says why."""
    with Process(*ROUTER_COMMAND, *as_words(options)) as process:
        status = process.wait()
        assert status != 0
        if not FASTROUTER:
            assert status == 1
            assert re.search(pattern, process.lines[-1]), process.lines
            assert process.line("Traceback") is None


def assert_serves(router: Router) -> None:
    with ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == HELLO


@pytest.mark.parametrize(
    "option",
    ["listen", "shared_socket", pytest.param("subscription_server", marks=BETTER), pytest.param("stats", marks=BETTER)],
)
@pytest.mark.slow
def test_an_address_in_use_is_named_and_its_owner_goes_on(option: str) -> None:
    with Router() as first:
        taken = first.subscriptions if option == "subscription_server" else first.address
        options = {"listen": free_address(), "subscription_server": free_address(), option: taken}
        assert_refuses(options, rf"cannot bind '{taken}': the address is in use by another socket")
        assert_serves(first)


@pytest.mark.slow
@BETTER
@pytest.mark.parametrize("option", ["listen", "shared_socket", "subscription_server", "stats"])
@pytest.mark.parametrize("form", ["ipv6", "path", "abstract"])
def test_so_it_is_on_every_wire(option: str, form: str, tmp_path: Path) -> None:
    address, server = free_address(form, tmp_path), free_address(form, tmp_path)
    with Router(address=address, subscriptions=server) as first:
        taken = server if option == "subscription_server" else address
        options = {"listen": free_address(), "subscription_server": free_address(), option: taken}
        why = "the socket is being served by another process" if form == "path" else "the address is in use by another"
        assert_refuses(options, re.escape(f"cannot bind '{taken}': {why}"))
        assert_serves(first)


@BETTER
def test_a_unix_socket_path_that_holds_a_file_is_refused_and_the_file_kept(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    assert_refuses({"listen": str(precious)}, "precious.*: the path exists and is not a socket")
    assert precious.read_text() == "data"


@BETTER
@pytest.mark.slow
def test_a_unix_socket_that_is_served_is_refused_and_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "router.sock")
    with Router(address=path) as first:
        assert_refuses({"listen": path}, r"router\.sock.*: the socket is being served by another process")
        assert_serves(first)


def test_a_unix_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "router.sock")
    listen(path).close()
    with Router(address=path) as router:
        assert_serves(router)


def test_a_unix_socket_path_without_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "router.sock"
    assert_refuses({"listen": str(path)}, r"router\.sock.*: its folder does not exist")


def test_a_unix_socket_path_that_cannot_be_written_is_refused() -> None:
    # sysfs makes no files for anybody, not even for root.
    assert_refuses({"listen": "/sys/gfrouter.sock"}, "cannot bind '/sys/gfrouter.sock': (permission|Operation not)")


@better("leaves them there")
@pytest.mark.slow
def test_vacuum_removes_the_sockets_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "router.sock"
    with Router(address=str(path), vacuum=True) as router:
        assert path.is_socket()
        router.stop()
        assert not path.exists()


def test_an_ini_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert_refuses({"ini": tmp_path / "no.ini"}, r"cannot read .*no\.ini.*: No such file or directory")


def test_an_ini_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert_refuses({"ini": tmp_path}, f"cannot read .*{tmp_path}.*: Is a directory")


def test_an_ini_that_is_no_ini_is_named(tmp_path: Path) -> None:
    file = tmp_path / "picture.ini"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert_refuses({"ini": file}, r"picture\.ini")


def test_an_option_that_nobody_knows_is_named_with_the_nearest() -> None:
    assert_refuses({"subscripton_server": "127.0.0.1:0"}, "--subscripton-server.*--subscription-server")


MALFORMED = {
    "127.0.0.1:port": "port 'port' is not a number",
    "127.0.0.1": "the port is missing (legal: 127.0.0.1:PORT)",
    "1.2.3.400:80": "'1.2.3.400' is not an IPv4 address",
    "::1:80": "an IPv6 address stands in brackets, as in [::1]:3031",
    "[::1]": "after the ] of an IPv6 address stands :PORT",
    "[::g]:80": "'::g' is not an IPv6 address",
    "a..b:80": "'a..b' is neither an IP address nor a host name",
    "192.*.*:80": "one * stands at the end of a prefix, as in 192.*:0 (all addresses: :PORT)",
    "@": "the name of the abstract socket is missing after the @",
    "fd://": "fd:// wants the number of a descriptor, or the name under which systemd passed it",
}


@BETTER
@pytest.mark.parametrize(
    ("option", "address"),
    [
        ("listen", "127.0.0.1:port"),
        ("stats", "[::g]:80"),
        *(pytest.param("subscription_server", one, marks=pytest.mark.slow) for one in MALFORMED),
    ],
)
def test_an_address_that_cannot_be_parsed_is_named(option: str, address: str) -> None:
    flag = "--" + option.replace("_", "-")
    assert_refuses({option: address}, re.escape(f"{flag} {address}: {MALFORMED[address]}"))


@pytest.mark.slow
@BETTER
@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("listen", "fd://9999", "cannot bind 'fd://9999': descriptor 9999 is not open"),
        ("listen", "fd://1", "cannot bind 'fd://1': descriptor 1 is not a socket"),
        ("listen", "fd://3", "cannot bind 'fd://3': descriptor 3 is not open"),
        ("subscription_server", "fd://web", "systemd has passed no datagram socket under that name (it has passed:"),
        ("listen", "203.0.113.1:80", "cannot bind '203.0.113.1:80': it is not an address of this machine"),
        ("stats", "=0", "--stats =0: =N means a shared socket, which only a listening address can be"),
        ("chown_socket", "no-such-user", "--chown-socket no-such-user: there is no user named 'no-such-user'"),
    ],
)
def test_what_cannot_be_had_is_named(option: str, value: str, why: str) -> None:
    options = {"listen": free_address(), "subscription_server": free_address(), option: value}
    assert_refuses(options, re.escape(why))
