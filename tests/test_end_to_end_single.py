"""One configuration for router and worker, with the real uwsgi: who answers, and what becomes of it when things end."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from clients import ask, request
from scripted import connect, freeze, wait_for
from servers import CONTRIB, TESTS, UWSGI, Router, Worker, free_address, router_command
from test_reload import start_anew
from test_single import DOCUMENTED

pytestmark = pytest.mark.slow

GET = request("foo.com")
CLIENTS = 64


class Single(Router):
    """gfrouter with an ini of both; `lines` are added to it, and `ini` may be rewritten."""

    def __init__(self, folder: Path, *lines: str, app: str | Path = TESTS / "worker_app.py", **more: Any) -> None:
        self.file = folder / "site.ini"
        self.addresses = [free_address() for _ in range(3)]
        self.app = app
        self.write(*lines)
        address, subscriptions, stats = self.addresses
        super().__init__(
            *("--drain-timeout", "5"),
            ini=self.file,
            address=address,
            subscriptions=subscriptions,
            stats_address=stats,
            env={"WORKER_NAME": "own", "UWSGI_FASTROUTER_TIMEOUT": "50", **more.pop("env", {})},
            **more,
        )

    def write(self, *lines: str) -> None:
        address, subscriptions, stats = self.addresses
        text = DOCUMENTED.replace("127.0.0.1:3031", address).replace("192.168.0.100:4040", subscriptions)
        text = text.replace("/var/www/myheavyapp.wsgi", str(self.app)).replace("processes = 4", "processes = 2")
        self.file.write_text("\n".join([text, f"fastrouter-stats = {stats}", "disable-logging = true", *lines, ""]))

    def answers(self, key: str = "foo.com", times: int = 1) -> set[str]:
        return {who(ask(self.address, request(key))) for _ in range(times)}

    def beside(self) -> list[dict[str, Any]]:
        found = self.stats()["beside"]
        assert isinstance(found, list)
        return found

    def worker(self, state: str = "running", other_than: int = 0) -> int:
        """Its pid, when it is in this state."""

        def there() -> int:
            row = self.beside()[0]
            return int(row["pid"]) if row["state"] == state and row["pid"] != other_than else 0

        return wait_for(there, f"the worker to be {state}", 30)


def who(answer: bytes) -> str:
    found = re.search(rb"X-Worker: (.*)\r\n", answer)
    return found[1].decode() if found else answer.decode()[-60:]


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def family(pid: int) -> list[int]:
    """The process and those that it has started."""
    with suppress(OSError):
        started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(each for child in started for each in family(int(child)))]
    return []


def wait_gone(pids: Sequence[int]) -> None:
    wait_for(lambda: not any(map(is_alive, pids)), f"{pids} to end", 20)


@contextmanager
def load(address: str, good: Sequence[str] = ("own",), clients: int = CLIENTS) -> Iterator[list[str]]:
    over = threading.Event()
    failed: list[str] = []
    done = [0] * clients

    def client(number: int) -> None:
        while not over.is_set():
            try:
                got = who(ask(address, GET))
            except OSError as error:
                got = repr(error)
            done[number] += 1
            if got not in good:
                failed.append(got)
            over.wait(0.2)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert all(done)


# --- who answers ------------------------------------------------------------------------------------------


def test_the_worker_answers_alone_until_a_node_is_there_and_again_when_it_is_gone(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        assert router.answers("foo.com") == router.answers("bar.com") == {"own"}  # at once: it waited for the worker
        with Worker(router.subscriptions, name="other") as other:
            router.wait_for_nodes("foo.com", 1)
            assert router.answers("foo.com", times=20) == {"other"}
            assert router.answers("bar.com", times=5) == {"own"}
            other.stop(signal.SIGTERM)
        assert router.answers("foo.com", times=20) == {"own"}
        stats = router.stats()
        (node,) = stats["worker_nodes"]
        assert node["hits"] >= 27
        assert stats["cheap"] == 0
        assert router.line("cheap mode is off: the worker beside the router answers what has no other node")


def test_a_node_that_fails_has_the_worker_behind_it(tmp_path: Path) -> None:
    with Single(tmp_path) as router, Worker(router.subscriptions, name="other") as other:
        router.wait_for_nodes("foo.com", 1)
        assert router.answers() == {"other"}
        other.kill()  # it says no farewell
        assert router.answers(times=10) == {"own"}
        assert list(router.pool("foo.com")["nodes"])


def test_where_it_subscribes_itself_it_is_a_backup(tmp_path: Path) -> None:
    key = "subscribe2 = server={},key=foo.com"
    with Single(tmp_path) as router:
        router.write(key.format(router.subscriptions))
        router.send_signal(signal.SIGHUP)
        nodes = router.wait_for_nodes("foo.com", 1)
        assert [node["backup"] for node in nodes.values()] == [1]
        wait_for(lambda: [len(node["sources"]) for node in nodes_of(router)] == [2], "its own announcement", 30)
        assert nodes_of(router)[0]["backup"] == 1
        with Worker(router.subscriptions, name="other"):
            router.wait_for_nodes("foo.com", 2)
            assert router.answers(times=20) == {"other"}
        assert router.answers(times=5) == {"own"}


def nodes_of(router: Router) -> list[dict[str, Any]]:
    nodes = router.pool("foo.com").get("nodes", [])  # none, while a reload exchanges the worker
    assert isinstance(nodes, list)
    return nodes


def test_nothing_of_ours_leaks_into_it(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import os, uwsgi\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [repr([uwsgi.opt['word'], *(name for name in os.environ if 'ROUTER' in name)]).encode()]\n"
    )
    with Single(tmp_path, "word = 50%%25", app=app) as router:
        answer = ask(router.address, GET).partition(b"\r\n\r\n")[2].decode()
        assert answer == "[b'50%25']"
        worker = router.worker()
        inodes = {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")}
        ours = {os.readlink(f"/proc/{router.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{router.pid}/fd")}
        shared = {one for one in inodes & ours if one.startswith("socket:")}
        assert len(shared) == 1  # the private one
        assert os.getsid(worker) != os.getsid(router.pid)
        assert os.stat(router.stats()["worker_nodes"][0]["name"]).st_mode & 0o077 == 0


def test_a_shared_socket_where_the_router_does_not_listen_is_bound_by_the_worker(tmp_path: Path) -> None:
    second = free_address()
    with Single(tmp_path, f"shared-socket = {second}", "socket = =1") as router:
        assert router.answers() == {"own"}
        assert who(ask(second, GET)) == "own"
        worker = router.worker()
        start_anew(router)
        router.worker(other_than=worker)
        assert who(ask(second, GET)) == "own"


def test_the_example_in_contrib(tmp_path: Path) -> None:
    addresses = {"127.0.0.1:3031": free_address(), "127.0.0.1:2626": free_address()}
    for name in ("site.ini", "app.py"):
        text = (CONTRIB / "single" / name).read_text()
        for address, free in addresses.items():
            text = text.replace(f"= {address}", f"= {free}")
        (tmp_path / name).write_text(text)
    address, subscriptions = addresses.values()
    with Router(ini=tmp_path / "site.ini", address=address, subscriptions=subscriptions, cwd=tmp_path) as router:
        assert b"foo.com from this machine, process" in ask(address, GET)
        with Worker(subscriptions, name="other"):
            router.wait_line("foo.com => new node")
            wait_for(lambda: who(ask(address, GET)) == "other", "the node to serve its key")


# --- what becomes of it -----------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_there_again_and_no_request_fails(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        before = router.worker()
        everything = family(before)
        with load(router.address, clients=8) as failed:
            os.kill(before, signal.SIGKILL)
            router.worker(other_than=before)
        wait_gone(everything)
        # Requests that a worker has begun go once more, and all others wait in its queue.
        assert failed == []
        assert router.beside()[0]["restarts"] == 1
        assert router.line(r'"worker" \(pid: \d+\) ended with status -9')


def test_an_application_that_is_broken_costs_no_router(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("import nothing_of_that_name\n")
    with Single(tmp_path, "need-app = true", app=app) as router, Worker(router.subscriptions, key="foo.com", name="o"):
        router.wait_for_nodes("foo.com", 1)
        router.wait_line('throttling "worker" for 1 seconds')
        assert router.answers("foo.com") == {"o"}
        assert ask(router.address, request("bar.com")) == b""
        assert not router.stats().get("worker_nodes")
        app.write_text((TESTS / "worker_app.py").read_text())
        router.worker()
        wait_for(lambda: router.answers("bar.com") == {"own"}, "the mended application", 20)


def test_who_waits_for_a_worker_that_cannot_start_is_let_go(tmp_path: Path) -> None:
    app, go = tmp_path / "app.py", tmp_path / "go"
    app.write_text(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nraise SystemExit(3)\n")
    with Single(tmp_path, "need-app = true", app=app) as router, connect(router.address) as client:
        client.sendall(GET)
        wait_for(lambda: sum(node["ref"] for node in router.stats()["worker_nodes"]) == 1, "it to wait")
        go.touch()
        assert client.recv(1) == b""  # long before the time limit, at which the client would give up


def test_one_that_can_no_more_be_executed_lets_go_of_who_waits(tmp_path: Path) -> None:
    binary = tmp_path / "uwsgi"
    binary.symlink_to(UWSGI)
    (tmp_path / "site").mkdir()
    lines = "fastrouter-worker-binary = ./uwsgi", "chdir = site"  # which is entered after it was looked for
    with Single(tmp_path, *lines, cwd=tmp_path) as router:
        assert router.answers() == {"own"}
        worker = router.worker()
        binary.unlink()
        os.kill(worker, signal.SIGKILL)
        router.wait_line('unable to spawn "worker": .*No such file or directory')
        wait_for(lambda: not router.stats().get("worker_nodes"), "it to be no node")
        assert ask(router.address, GET) == b""
        binary.symlink_to(UWSGI)
        wait_for(lambda: router.answers() == {"own"}, "the program that is there again", 20)


def test_it_ends_with_us_and_what_it_has_begun_is_answered(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        worker = router.worker()
        place = router.stats()["worker_nodes"][0]["name"]
        everything = family(worker)
        assert len(everything) == 3
        with connect(router.address) as client:
            client.sendall(request("foo.com", "/slow?s=1"))
            wait_for(lambda: router.stats()["active_sessions"] == 1, "the request to be under way")
            router.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert who(answer) == "own"
        assert router.wait(20) == 0
        wait_gone(everything)
        assert not os.path.exists(place) and not os.path.exists(place.replace(".sock", ".ini"))


def test_a_terminals_signal_is_one_stop(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        everything = family(router.worker())
        router.send_signal_to_all(signal.SIGINT)
        assert router.wait(20) == 0
        assert not router.line("ended with status")
        wait_gone(everything)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        everything = family(router.worker())
        with connect(router.address) as client:
            client.sendall(request("foo.com", "/slow?s=60"))
            wait_for(lambda: router.stats()["active_sessions"] == 1, "the request to be under way")
            router.send_signal(signal.SIGTERM)
            router.wait_line("stopping after what is in flight")
            router.send_signal(signal.SIGTERM)
            assert router.wait(20) == 0
        wait_gone(everything)
        assert not router.line("does not end within")


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        worker = router.worker()
        everything = family(worker)
        freeze(worker)
        router.send_signal(signal.SIGTERM)
        router.wait_line("does not end within 5 s: killed", timeout=20)
        assert router.wait(20) == 0
        wait_gone(everything)


def test_when_we_are_killed_it_ends_and_the_next_start_clears_up(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        everything = family(router.worker())
        place = router.stats()["worker_nodes"][0]["name"]
        router.send_signal(signal.SIGKILL)
        wait_gone(everything)
        assert os.path.exists(place)
    with Single(tmp_path) as router:
        assert router.answers() == {"own"}
        assert not os.path.exists(place) and not os.path.exists(place.replace(".sock", ".ini"))


# --- a reload ---------------------------------------------------------------------------------------------


def test_reloads_under_load_lose_nothing_and_bring_the_new_configuration(tmp_path: Path) -> None:
    names = ["own", *(f"own{number}" for number in range(2))]
    app = (TESTS / "worker_app.py").read_text()
    with Single(tmp_path) as router:
        pid, worker = router.pid, router.worker()
        with load(router.address, names) as failed:
            for name in names[1:]:
                router.app = tmp_path / f"{name}.py"
                router.app.write_text(app.replace('os.environ.get("WORKER_NAME", "")', repr(name)))
                router.write()
                router.send_signal(signal.SIGHUP)
                wait_for(lambda name=name: router.answers() == {name}, f"{name} to answer", 30)  # type: ignore[misc]
        assert failed == []
        assert router.pid == pid
        assert router.answers(times=5) == {"own1"}
        wait_gone([worker])
        assert len(family(router.worker())) == 3


# In the place of uwsgi: it answers after a while, and notes how many requests it has when it is told to end.
NOTING = """#!{python}
import pathlib, re, signal, socket, sys, threading, time

name, has = pathlib.Path("name").read_text(), [0]
def answer(sock):
    head = sock.recv(65536)
    if head[:1] not in b"d":  # the ping's modifier, or nothing
        has[0] += 1
        time.sleep(0.1)
        has[0] -= 1
    if head:
        sock.sendall(f"HTTP/1.1 200 OK\\r\\nX-Worker: {{name}}\\r\\n\\r\\n".encode())
    sock.close()
def end(*_):
    with open("ends", "a") as file:
        file.write(f"{{name}} {{has[0]}}\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
ini = pathlib.Path(sys.argv[2]).read_text()
with socket.socket(fileno=int(re.search("fd://([0-9]+)", ini)[1])) as listener:
    listener.settimeout(0.1)  # so that signals are seen
    while True:
        try:
            threading.Thread(target=answer, args=(listener.accept()[0],)).start()
        except TimeoutError:
            pass
"""


def test_a_worker_is_asked_for_nothing_when_a_reload_tells_it_to_end(tmp_path: Path) -> None:
    binary, name = tmp_path / "uwsgi", tmp_path / "name"
    binary.write_text(NOTING.format(python=sys.executable))
    binary.chmod(0o755)
    name.write_text("0")
    with Single(tmp_path, f"fastrouter-worker-binary = {binary}", cwd=tmp_path) as router:
        router.worker()
        with load(router.address, "012", 16) as failed:
            for number in "12":
                name.write_text(number)
                router.send_signal(signal.SIGHUP)
                wait_for(lambda number=number: router.answers() == {number}, f"{number} to answer", 30)  # type: ignore[misc]
        assert failed == []
        assert (tmp_path / "ends").read_text() == "0 0\n1 0\n"


def test_a_reload_that_takes_the_worker_away_ends_it_and_one_that_brings_it_back_starts_it(tmp_path: Path) -> None:
    with Single(tmp_path) as router:
        everything = family(router.worker())
        ini = Path(router.stats()["worker_nodes"][0]["name"]).with_suffix(".ini")
        assert ini.stat().st_mode & 0o077 == 0
        text = router.file.read_text()
        router.file.write_text(re.sub(r"(?m)^socket = =0$", "", text))
        router.send_signal(signal.SIGHUP)
        wait_gone(everything)
        wait_for(lambda: router.beside() == [], "nothing to be beside it")
        assert not ini.exists()
        router.file.write_text(text)
        router.send_signal(signal.SIGHUP)
        wait_for(lambda: router.answers() == {"own"}, "the worker to answer", 30)


# --- what cannot be ---------------------------------------------------------------------------------------


def command(file: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    argv = [*map(str, router_command(False)), "--ini", str(file), *words]
    env = {**os.environ, "PATH": path or os.environ["PATH"]}
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.mark.parametrize("words", [(), ("--check",)])
def test_without_a_uwsgi_there_is_no_start(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "site.ini"
    address = free_address()
    text = DOCUMENTED.replace("127.0.0.1:3031", address).replace("192.168.0.100:4040", free_address())
    file.write_text(f"{text}fastrouter-worker-binary = /nowhere/uwsgi\n")
    done = command(file, *words)
    assert done.returncode == 1
    assert "worker-binary = /nowhere/uwsgi: no program that can be executed" in done.stderr
