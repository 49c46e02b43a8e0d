"""The admin API of a whole router, and its clients: every form of address, its default place, and what can go wrong."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clients import announce, ask, request
from router.ask import NoAnswer
from router.ask import ask as ask_admin
from router.status import lookup, status
from scripted import HELLO, ScriptedNode, connect, hang, listen, wait_for
from servers import FASTROUTER, FORMS, Router, free_address, needs_namespaces, router_command

pytestmark = pytest.mark.skipif(FASTROUTER, reason="the real fastrouter has no admin API")
GET = request("foo.com")
WITH_DEFAULT = ("env", "-u", "GFROUTER_ADMIN")  # words before a command that is to look for the default place


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Router, str]]:
    """A router of two processes, which has answered one request, and its admin API's address."""
    admin = free_address()
    with Router(admin=admin, processes=2) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address, weight=3)
        announce(router.subscriptions, b"\xff.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == HELLO
        router.wait_idle()
        yield router, admin


def gfrouter(*words: str, launcher: Sequence[str] = (), env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """(status, stdout, stderr)"""
    argv = [*launcher, *map(str, router_command(fastrouter=False)), *words]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **(env or {})}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_address_can_be_asked(form: str, tmp_path: Path) -> None:
    admin = free_address(form, tmp_path)
    with Router(admin=admin) as router:
        said = ask_admin(admin, "status")
        assert said["pid"] == router.pid
        assert said["addresses"]["listen"] == [router.address]
        assert said["addresses"]["subscriptions"] == [router.subscriptions]
        assert said["addresses"]["stats"] == [router.stats_address]


def test_off_is_no_api() -> None:
    with Router(admin="off") as router:
        assert not router.line("admin API")


@pytest.mark.slow
def test_status_is_for_people_and_for_programs(served: tuple[Router, str]) -> None:
    router, admin = served
    code, said, errors = gfrouter("status", "--admin", admin)
    assert (code, errors) == (0, "")
    assert said.startswith(f"gfrouter 0.1.0, pid {router.pid}, up ")
    assert re.search(r"\d keys, \d nodes?, 0 of them out; \d+ requests?, 0 in flight", said)
    assert max(map(len, said.splitlines())) <= 80
    code, said, _ = gfrouter("status", "--json", "--admin", admin)
    assert (code, json.loads(said)["pid"]) == (0, router.pid)


def test_lookup_is_for_people_and_for_programs(served: tuple[Router, str], capsys: pytest.CaptureFixture[str]) -> None:
    _, admin = served
    assert lookup(["foo.com", "--admin", admin]) == 0
    assert capsys.readouterr().out.startswith("foo.com: a request goes to a node: 1 node takes a turn\n")
    assert lookup(["\udcff.com", "--json", "--admin", admin]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "\udcff.com"
    assert lookup(["bar.com", "--admin", admin]) == 1
    assert capsys.readouterr().out.startswith("bar.com: a request is refused: no source knows this key\n")


@pytest.mark.slow
def test_the_environment_says_where_as_it_does_for_the_router(served: tuple[Router, str]) -> None:
    assert gfrouter("lookup", "foo.com", env={"GFROUTER_ADMIN": served[1]})[0] == 0
    code, _, errors = gfrouter("lookup", "foo.com", env={"GFROUTER_ADMIN": "off"})
    assert code == 2
    assert "GFROUTER_ADMIN says that it is off" in errors


def test_a_node_that_fails_is_out_until_its_time_is_up() -> None:
    admin, dead = free_address(), free_address()
    with Router(admin=admin, gracetime=100) as router:
        announce(router.subscriptions, "foo.com", dead)
        router.wait_for_nodes("foo.com", 1)
        ask(router.address, GET)
        (node,) = wait_for(lambda: ask_admin(admin, "nodes", {"state": "out"})["nodes"], "the node to be out")
        assert node["address"] == dead
        assert 50 < node["retry_in"] <= 100
        found = ask_admin(admin, "lookup", {"key": "foo.com"})
        assert (found["outcome"], found["nodes"][0]["next"]) == ("no node", False)


def test_a_router_that_stops_still_says_what_it_waits_for() -> None:
    admin = free_address()
    with Router(admin=admin, drain_timeout=60) as router, ScriptedNode(hang) as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        with connect(router.address) as client:
            client.sendall(GET)
            wait_for(lambda: node.connections, "the request")
            router.send_signal(signal.SIGTERM)
            wait_for(lambda: router.line("stopping after what is in flight"), "the stop")
            said = ask_admin(admin, "status")
            assert (said["addresses"]["listen"], said["in_flight"]) == ([router.address], 1)
            router.send_signal(signal.SIGTERM)
            router.wait()


def test_where_no_router_is_a_client_says_where_it_looked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = str(tmp_path / "admin.sock")
    for command in (["status"], ["lookup", "foo.com"]):
        assert {"status": status, "lookup": lookup}[command[0]]([*command[1:], "--admin", place]) == 2
        why = "No such file or directory; --admin ADDRESS names another place"
        assert capsys.readouterr().err == f"gfrouter: no gfrouter answers at {place}: {why}\n"


@pytest.mark.parametrize(
    ("admin", "message"),
    [
        ("127.0.0.1:x", "cannot ask at 127.0.0.1:x: port 'x' is not a number"),
        ("fd://3", "cannot ask at fd://3: port '//3' is not a number"),
        ("no.such.host.invalid:1", "no gfrouter answers at no.such.host.invalid:1: "),
    ],
)
def test_an_address_that_cannot_be_asked_is_named(admin: str, message: str) -> None:
    with pytest.raises(NoAnswer) as error:
        ask_admin(admin, "status")
    assert str(error.value).startswith(message)


def test_another_server_is_no_gfrouter(served: tuple[Router, str]) -> None:
    with pytest.raises(NoAnswer, match=r"is no gfrouter's admin API: it speaks no HTTP$"):
        ask_admin(served[0].stats_address, "status")


def test_the_socket_is_for_this_user_alone_whatever_the_others_are(tmp_path: Path) -> None:
    admin, stats = tmp_path / "admin.sock", str(tmp_path / "stats.sock")
    with Router("--chmod-socket=666", admin=admin, stats_address=stats):
        assert admin.stat().st_mode & 0o777 == 0o600
        assert Path(stats).stat().st_mode & 0o777 == 0o666


def test_an_address_that_was_given_and_cannot_be_bound_stops_the_start(tmp_path: Path) -> None:
    with contextlib.closing(listen("127.0.0.1:0")) as taken:
        admin = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, errors = gfrouter(
            "--listen", free_address(), "--subscription-server", free_address(), "--admin", admin
        )
    assert code == 1
    assert f"cannot bind '{admin}': the address is in use by another socket" in errors


@pytest.mark.slow
def test_sighup_keeps_it_and_a_killed_routers_socket_is_taken_over(tmp_path: Path) -> None:
    admin = str(tmp_path / "admin.sock")
    with Router(admin=admin) as router:
        router.send_signal(signal.SIGHUP)
        wait_for(lambda: len([line for line in router.lines if line.startswith("admin API on")]) == 2, "the new start")
        assert ask_admin(admin, "status")["pid"] == router.pid
    assert Path(admin).exists()
    with Router(admin=admin) as router:
        assert ask_admin(admin, "status")["pid"] == router.pid


# The default place.

OWN_RUN = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh")


@needs_namespaces
@pytest.mark.skipif(os.geteuid() != 0, reason="is root's default place")
@pytest.mark.slow
def test_roots_default_place_serves_one_router_and_the_next_one_starts_without() -> None:
    with Router(launcher=[*WITH_DEFAULT, *OWN_RUN]) as router:
        router.wait_line("^admin API on /run/gfrouter/admin.sock$")
        inside = ("nsenter", "-m", "-t", str(router.pid), *WITH_DEFAULT)
        code, said, _ = gfrouter("status", launcher=inside)
        assert (code, f"pid {router.pid}," in said) == (0, True)
        with Router(launcher=inside) as second:
            second.wait_line(
                "^no admin API, as for its default place: cannot bind '/run/gfrouter/admin.sock': "
                r"the socket is being served by another process \(--admin ADDRESS gives it another one\)$"
            )
            assert f"pid {router.pid}," in gfrouter("status", launcher=inside)[1]
        folder = Path(f"/proc/{router.pid}/root/run/gfrouter")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [file.stat().st_mode & 0o777 for file in folder.iterdir()] == [0o600]
        held = os.open(folder, os.O_RDONLY)
        router.stop(signal.SIGTERM)
        assert os.listdir(held) == []
        os.close(held)


@pytest.fixture
def session() -> Iterator[tuple[dict[str, str], list[str]]]:
    """(environment, words before a command) of a user's session that is not root's; root becomes one in a namespace."""
    become = [] if os.geteuid() else ["unshare", "-U", "--map-user=1000"]
    if become and subprocess.run([*become, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs util-linux and the right to make a user namespace")
    with tempfile.TemporaryDirectory(prefix="gfrouter-", dir="/tmp") as runtime:  # short, for a socket's path
        yield {"XDG_RUNTIME_DIR": runtime}, [*WITH_DEFAULT, *become]


@pytest.mark.slow
def test_in_a_session_the_default_place_is_its_own(session: tuple[dict[str, str], list[str]]) -> None:
    env, launcher = session
    folder = Path(env["XDG_RUNTIME_DIR"]) / "gfrouter"
    with Router(env=env, launcher=launcher) as router:
        router.wait_line(f"^admin API on {folder}/admin.sock$")
        assert f"pid {router.pid}," in gfrouter("status", env=env, launcher=launcher)[1]


def test_a_default_place_that_others_can_write_to_is_not_used(session: tuple[dict[str, str], list[str]]) -> None:
    env, launcher = session
    folder = Path(env["XDG_RUNTIME_DIR"]) / "gfrouter"
    folder.mkdir()
    folder.chmod(0o777)
    with Router(env=env, launcher=launcher) as router:
        router.wait_line(rf"^no admin API, as for its default place: the folder {folder} is writable for others")
        assert list(folder.iterdir()) == []


# Under stress.


@pytest.mark.slow
def test_a_frozen_router_is_told_by_a_clear_word(capsys: pytest.CaptureFixture[str]) -> None:
    admin = free_address()
    with Router(admin=admin) as router:
        router.send_signal(signal.SIGSTOP)
        assert status(["--admin", admin]) == 2
        assert capsys.readouterr().err == f"gfrouter: gfrouter at {admin} does not answer within 5 s\n"


@pytest.mark.slow
def test_a_thousand_silent_connections_hold_up_neither_requests_nor_stats_nor_sources(
    served: tuple[Router, str],
) -> None:
    router, admin = served
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            client = stack.enter_context(connect(admin))
            client.sendall(b"GET /v1/status HTTP/1.1\r\nX: y"[: number % 30])
        announce(router.subscriptions, "new.com", "127.0.0.1:1")
        router.wait_for_nodes("new.com", 1)  # through the stats
        assert ask(router.address, GET) == HELLO
        # All but those of the first few rounds have left by then, or its turn would not have come.
        assert http_get(admin, timeout=60)["pid"] == router.pid
    assert not router.line("Traceback")


@pytest.mark.slow
def test_a_thousand_questions_at_once_are_all_answered(served: tuple[Router, str]) -> None:
    router, admin = served
    clients = []
    for _ in range(1000):
        clients.append(connect(admin, 60))
        clients[-1].sendall(b"GET /v1/lookup?key=foo.com HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answers = {bytes(answer_of(client)[:15]) for client in clients}
    assert answers == {b"HTTP/1.1 200 OK"}
    assert ask(router.address, GET) == HELLO


def http_get(admin: str, timeout: float) -> Any:
    with connect(admin, timeout) as client:
        client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return json.loads(answer_of(client).partition(b"\r\n\r\n")[2])


def answer_of(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))
