"""gfrouter announce at gfrouter and at the real fastrouter: names, addresses that change, wrapped commands, signals."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from announcer import Announce
from clients import Load, ask, request
from lan import Lan, needs_lan
from scripted import HELLO, ScriptedNode, answer, split, wait_for
from servers import FASTROUTER, TESTS, UWSGI, Nginx, Router, free_address, needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.skipif(FASTROUTER, reason="each test names the routers that it is about")]

GET = request("foo.com")
# A command that says of each signal that it came, and ends at TERM with status 5.
SAYS = ("sh", "-c", "trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; trap 'echo got INT' INT; trap 'echo got QUIT' "
        "QUIT; trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.1; done")  # fmt: skip


def uwsgi(address: str, name: str, **env: str) -> tuple[str | Path, ...]:
    """A worker that announces nothing itself."""
    return (
        *("env", f"WORKER_NAME={name}", UWSGI, "--master", "--die-on-term", "--need-app", "--disable-logging"),
        *("--processes", "2", "--threads", "2", "--socket", address, "--wsgi-file", TESTS / "worker_app.py"),
    )


@pytest.fixture(scope="module", params=["gfrouter", "fastrouter"])
def router(request: pytest.FixtureRequest) -> Iterator[Router]:
    with Router(fastrouter=request.param == "fastrouter", subscription_tolerance=2) as router:
        yield router


def gone(router: Router, key: str = "foo.com") -> None:
    wait_for(lambda: not router.nodes(key), f"the nodes of {key} to leave", timeout=20)


# At a router.


def test_a_wrapped_worker_is_served_and_leaves_before_it_stops(router: Router) -> None:
    port = split(router.subscriptions)[1]
    address = free_address()
    words = ("--to", f"localhost:{port}", "--address", f":{split(address)[1]}", "--weight", "3")
    with Announce(*words, command=uwsgi(address, "one")) as worker:
        worker.wait_line("waiting for 127.0.0.1:[0-9]+ to accept connections")
        worker.joined(address)
        (node,) = router.wait_for_nodes("foo.com", 1).values()
        assert (node["name"], node["weight"]) == (address, 3)
        assert b"one" in ask(router.address, GET)
        assert worker.stop(signal.SIGTERM, timeout=20) == 0
        left = next(n for n, line in enumerate(worker.lines) if f"foo.com - {address}" in line)
        stopped = next(n for n, line in enumerate(worker.lines) if "killing workers" in line)
        assert left < stopped
    gone(router)


@needs_nginx
@pytest.mark.long
def test_a_rolling_restart_under_traffic_loses_no_get() -> None:
    with ExitStack() as stack, Router() as router, Nginx(router.address) as nginx:

        def start(name: str) -> Announce:
            address = free_address()
            words = ("--to", router.subscriptions, "--address", address)
            return stack.enter_context(Announce(*words, command=uwsgi(address, name)))

        olds = [start("one"), start("two")]
        router.wait_for_nodes("foo.com", 2)
        with Load(nginx.port) as load:
            load.more(20)
            for old, name in zip(olds, ("three", "four"), strict=True):
                start(name).joined()
                load.more(10, name)
                assert old.stop(signal.SIGTERM, timeout=20) == 0
                load.more(50)
        assert load.failures == []
        assert set(load.answers) == {"one", "two", "three", "four"}


def test_a_process_beside_us_is_announced_until_a_signal(router: Router) -> None:
    with ScriptedNode(answer(HELLO)) as node:
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            with Announce("--to", router.subscriptions, "--address", node.address) as announce:
                router.wait_for_nodes("foo.com", 1)
                assert ask(router.address, GET) == HELLO
                announce.joined()
                assert announce.stop(number) == 0
                assert announce.line(f"foo.com - {node.address}")
            gone(router)


def test_who_is_killed_is_missed_after_the_tolerance(router: Router) -> None:
    with ScriptedNode(answer(HELLO)) as node:
        with Announce("--to", router.subscriptions, "--address", node.address, "--interval", "1") as announce:
            router.wait_for_nodes("foo.com", 1)
            announce.kill()
        if "uwsgi" in router.argv[0]:  # it looks at the time only when it is asked
            wait_for(lambda: ask(router.address, GET) == b"", "the node to be missed", timeout=30)
        gone(router)


def test_who_was_frozen_comes_back_at_once(router: Router) -> None:
    with ScriptedNode(answer(HELLO)) as node:
        with Announce("--to", router.subscriptions, "--address", node.address, "--interval", "1") as announce:
            router.wait_for_nodes("foo.com", 1)
            announce.send_signal(signal.SIGSTOP)
            wait_for(lambda: ask(router.address, GET) == b"", "the node to be missed", timeout=30)
            announce.send_signal(signal.SIGCONT)
            router.wait_for_nodes("foo.com", 1)
            assert announce.stop(signal.SIGTERM) == 0
        gone(router)


def test_a_worker_that_accepts_no_more_is_withdrawn_and_comes_back(router: Router) -> None:
    address = free_address()
    with Announce("--to", router.subscriptions, "--address", address, "--interval", "1") as announce:
        announce.wait_line(f"waiting for {address} to accept")
        for _ in range(2):
            with ScriptedNode(answer(HELLO), address=address):
                router.wait_for_nodes("foo.com", 1)
            gone(router)
        assert len([line for line in announce.lines if "waiting for" in line]) == 2


def test_a_router_that_restarts_is_told_again_and_the_trouble_said_once() -> None:
    subscriptions = free_address()

    def wait_said(text: str, times: int) -> None:
        wait_for(lambda: len([line for line in announce.lines if text in line]) == times, f"{text}, {times} times")

    with ScriptedNode(answer(HELLO)) as node:
        with Announce("--to", subscriptions, "--address", node.address, "--interval", "1") as announce:
            announce.wait_line("Connection refused; trying again")
            for times in (1, 2):
                with Router(subscriptions=subscriptions) as router:
                    router.wait_for_nodes("foo.com", 1)
                    wait_said("all is well again", times)
                wait_said("Connection refused", times + 1)


def test_two_routers_are_told_and_one_that_is_down_holds_up_nobody(tmp_path: Path) -> None:
    down = str(tmp_path / "nobody.sock")
    path = str(tmp_path / "router.sock")
    with ScriptedNode(answer(HELLO)) as node, Router() as one, Router(subscriptions=path) as two:
        words = [word for to in (down, one.subscriptions, path) for word in ("--to", to)]
        with Announce(*words, "--address", node.address) as announce:
            one.wait_for_nodes("foo.com", 1)
            two.wait_for_nodes("foo.com", 1)
            announce.wait_line(f"{down}: No such file or directory; trying again")
            assert announce.stop(signal.SIGTERM) == 0
        gone(one)
        gone(two)


# A wrapped command.


def test_signals_reach_the_command_and_only_those_that_stop_it_withdraw(router: Router) -> None:
    with ScriptedNode() as node:
        words = ("--to", router.subscriptions, "--address", node.address)
        with Announce(*words, command=SAYS) as announce:
            announce.joined()
            announce.wait_line("^ready$")
            for number, name in (signal.SIGHUP, "HUP"), (signal.SIGUSR1, "USR1"):
                announce.send_signal(number)
                announce.wait_line(f"^got {name}$")
            router.wait_for_nodes("foo.com", 1)
            assert announce.line("foo.com - ") is None
            assert announce.stop(signal.SIGTERM) == 5
            said = [line for line in announce.lines if line == "got TERM" or "foo.com - " in line]
            assert said[-1] == "got TERM" and len(said) == 2
        gone(router)


def test_the_second_signal_does_not_wait_for_the_drain(router: Router) -> None:
    with ScriptedNode() as node:
        words = ("--to", router.subscriptions, "--address", node.address, "--drain", "100")
        with Announce(*words, command=SAYS) as announce:
            announce.joined()
            announce.send_signal(signal.SIGINT)
            announce.left()
            gone(router)
            announce.send_signal(signal.SIGTERM)
            assert announce.wait() == 5
            assert announce.line("got INT") is None


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("/nowhere/to/be/found",), 127),
        (("/",), 126),
    ],
)
def test_the_commands_status_is_ours(command: tuple[str, ...], status: int) -> None:
    with Announce("--to", free_address(), "--address", free_address(), command=command) as announce:
        assert announce.wait(20) == status
        if status in (126, 127):
            assert announce.lines == [f"[gfrouter announce] {command[0]}: {os.strerror(2 if status == 127 else 13)}"]


def test_a_command_that_ends_by_itself_is_withdrawn(router: Router) -> None:
    with ScriptedNode() as node:
        words = ("--to", router.subscriptions, "--address", node.address)
        with Announce(*words, command=("sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.1; done")) as announce:
            router.wait_for_nodes("foo.com", 1)
            announce.joined()
            announce.send_signal(signal.SIGUSR1)
            assert announce.wait() == 3
        gone(router)


def test_the_keys_of_a_terminal_reach_the_command_once(router: Router) -> None:
    """They go to all in the foreground, so passing them on would be a second time."""
    keys, tty = os.openpty()
    with ScriptedNode() as node:
        words = (
            "--key",
            "foo.com",
            "--to",
            router.subscriptions,
            "--address",
            node.address,
            "--drain",
            "0",
            "--",
            *SAYS,
        )
        argv = ("setsid", "--ctty", "--wait", sys.executable, "-P", "-m", "router", "announce", *words)
        child = subprocess.Popen(argv, stdin=tty, stdout=tty, stderr=tty)
        try:
            seen = b""

            def read_until(text: bytes) -> None:
                nonlocal seen
                while text not in seen:
                    assert select.select([keys], [], [], 20)[0], seen
                    seen += os.read(keys, 4096)

            read_until(b"foo.com + ")
            os.write(keys, b"\x03")
            read_until(b"foo.com - ")
            read_until(b"got INT")
            gone(router)
            os.write(keys, b"\x1c")
            read_until(b"got QUIT")
            assert seen.count(b"got INT") == 1
        finally:
            for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
                os.kill(int(pid), signal.SIGTERM)
            assert child.wait(20) == 5
            os.close(keys)
            os.close(tty)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    launcher = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    command = ("sh", "-c", "kill -HUP $$; kill -HUP $PPID; echo alive; sleep 0.5; exit 4")
    with Announce("--to", free_address(), "--address", ":9", launcher=launcher, command=command) as announce:
        assert announce.wait() == 4
        assert "alive" in announce.lines


def test_a_command_gets_no_signal_that_python_ignores() -> None:
    """A broken pipe ends what Python starts only if it is told so."""
    command = ("grep", "SigIgn", "/proc/self/status")
    with Announce("--to", free_address(), "--address", ":9", command=command) as announce:
        assert announce.wait() == 0
        mask = int(announce.wait_line(r"SigIgn:\s*([0-9a-f]+)")[1], 16)
        assert not mask & (1 << (signal.SIGPIPE - 1))


def _can_be_first() -> bool:
    words = ("unshare", "-p", "-f", "--mount-proc", "true")
    return bool(shutil.which("unshare")) and subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_be_first(), reason="needs util-linux and the right to make a pid namespace")
def test_the_first_process_of_a_container_reaps_orphans_and_hears_signals(router: Router) -> None:
    orphans = "for i in 1 2 3 4 5; do sh -c 'sleep 0.1 &'; done; sleep 1; "
    count = "echo pid $PPID zombies $(cat /proc/[0-9]*/status | grep -c '^State:.Z'); "
    command = ("sh", "-c", f"{orphans}{count}trap 'exit 6' TERM; while :; do sleep 0.1; done")
    with ScriptedNode() as node:
        words = ("--to", router.subscriptions, "--address", node.address)
        launcher = ("unshare", "-p", "-f", "--mount-proc", "--kill-child")
        with Announce(*words, command=command, launcher=launcher) as announce:
            announce.wait_line("^pid 1 zombies 0$")
            router.wait_for_nodes("foo.com", 1)
            (first,) = Path(f"/proc/{announce.pid}/task/{announce.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert announce.wait() == 6
            assert announce.line("foo.com - ")
        gone(router)


# In a network, with names.


class InLan:
    """A router that is asked over unix sockets from here, on a machine of the network."""

    def __init__(self, lan: Lan, folder: Path, name: str = "router") -> None:
        self.host = lan.host(name)
        self.router = Router(
            address=str(folder / f"{name}.sock"),
            stats_address=str(folder / f"{name}.stats"),
            subscriptions="0.0.0.0:2626",
            launcher=self.host.launcher,
        )

    def __enter__(self) -> Router:
        return self.router.__enter__()

    def __exit__(self, *args: object) -> None:
        self.router.__exit__(None, None, None)


SERVE = (sys.executable, "-c", "import socket, time\ns = socket.create_server(('', 3031))\ntime.sleep(600)")


@needs_lan
def test_our_own_address_is_followed_when_it_changes(tmp_path: Path) -> None:
    with Lan(tmp_path) as lan, InLan(lan, tmp_path) as router:
        worker = lan.host("worker")
        words = ("--to", "router", "--address", ":3031", "--interval", "5")
        with Announce(*words, command=SERVE, launcher=worker.launcher) as announce:
            assert list(router.wait_for_nodes("foo.com", 1)) == [f"{worker.address}:3031"]
            worker.run(*["ip", "address", "add", "10.77.0.99/24", "dev", "eth0"])
            worker.run(*f"ip address del {worker.address}/24 dev eth0".split())
            worker.run(*["ip", "address", "replace", "10.77.0.99/24", "dev", "eth0"])
            wait_for(lambda: list(router.nodes("foo.com")) == ["10.77.0.99:3031"], "the new address", timeout=20)
            announce.left(f"{worker.address}:3031")
            worker.run(*["ip", "link", "set", "eth0", "down"])
            announce.wait_line("Network is unreachable; trying again", timeout=20)
            worker.run(*["ip", "link", "set", "eth0", "up"])
            announce.wait_line("all is well again", timeout=20)
            assert announce.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        gone(router)


@needs_lan
def test_a_machine_without_a_network_announces_itself_when_it_has_one(tmp_path: Path) -> None:
    with Lan(tmp_path) as lan, InLan(lan, tmp_path) as router:
        worker = lan.host("worker")
        worker.run(*["ip", "link", "set", "eth0", "down"])
        words = ("--to", "router", "--address", ":3031")
        with Announce(*words, command=SERVE, launcher=worker.launcher) as announce:
            announce.wait_line("Network is unreachable; trying again")
            worker.run(*["ip", "link", "set", "eth0", "up"])
            assert list(router.wait_for_nodes("foo.com", 1, timeout=30)) == [f"{worker.address}:3031"]
            announce.joined()


@needs_lan
@pytest.mark.long
def test_a_routers_name_is_followed_to_another_machine_and_to_several(tmp_path: Path) -> None:
    with Lan(tmp_path) as lan, InLan(lan, tmp_path, "one") as one, InLan(lan, tmp_path, "two") as two:
        worker = lan.host("worker")
        words = ("--to", "router.internal:2626", "--address", ":3031", "--interval", "1")
        with Announce(*words, command=SERVE, launcher=worker.launcher) as announce:
            announce.wait_line("cannot resolve router.internal: ")
            lan.say(**{"router.internal": lan.hosts["one"]})
            one.wait_for_nodes("foo.com", 1, timeout=20)
            lan.say(**{"router.internal": lan.hosts["two"]})
            two.wait_for_nodes("foo.com", 1, timeout=45)
            gone(one)
            lan.say(**{"router.internal": f"{lan.hosts['one']} {lan.hosts['two']}"})
            one.wait_for_nodes("foo.com", 1, timeout=45)
            assert len(two.nodes("foo.com")) == 1
            assert announce.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        gone(one)
        gone(two)
