"""Real servers for the tests: the router, uWSGI workers and nginx, each in a session of its own, on free ports.

    with Router(timeout=2) as router, Worker(router.subscriptions) as worker, Nginx(router.address) as nginx:
        router.wait_for_nodes("foo.com", 1); get(nginx.port)          # get and the rest are in clients.py

    Process(*argv)   .pid .lines .line(regex) .wait_line(regex) .stop(signal) .kill()
    Router(**options) .address .subscriptions .stats_address .stats() .pool(key) .wait_for_nodes(key, n) .pids()
    Worker(server)   .address .name       Nginx(router)  .port (buffers bodies)  .streaming_port (does not)

For a node that misbehaves in one exact way, and for `wait_for`, see scripted.py. GFROUTER_TEST_ROUTER=fastrouter puts
the real uWSGI FastRouter in the router's place: the oracle these tests were proven on. A test that it cannot pass is
marked `better(...)`. `Router(fastrouter=True)` is the real one whatever that says, so that like.py may have both. Every
process is ended by its own process group when its `with` ends, whatever happened.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from router.options import TABLE
from scripted import connect, wait_for, wait_frozen

TESTS = Path(__file__).parent
CONTRIB = TESTS.parent / "contrib"
FASTROUTER = os.environ.get("GFROUTER_TEST_ROUTER") == "fastrouter"
UWSGI = Path(sys.executable).with_name("uwsgi")
# The same compiled with TLS, for signed announcements.
SIGNING_UWSGI = TESTS.parent / "build" / "peers" / "uwsgi" / "bin" / "uwsgi"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
# Options without fastrouter- before them, and those that uWSGI does not have.
CORE = {
    "chmod_socket", "chown_socket", "freebind", "ini", "reuse_port", "shared_socket", "stats_http",
    "subscription_tolerance", "subscription_tolerance_inactive", "subscriptions_sign_check",
    "subscriptions_use_credentials", "vacuum",
}  # fmt: skip
OURS_ALONE = {entry.field for entry in TABLE if entry.ours}

NOT_MISSED = 600  # seconds for which a node is not missed that a test has announced once
READINGS = 10  # of the stats, while there are routers that have not answered
NEW_NODE = " => new node: "  # in the log line of an announcement

# Ports come from below the kernel's ephemeral range, so that no outgoing connection takes one between its choice and
# its use, and in blocks, so that no other test process does: several runs may share a machine.
FIRST_PORT, PORTS, BLOCK = 10_000, 22_000, 200

needs_signing = pytest.mark.skipif(
    not SIGNING_UWSGI.exists(), reason="needs a uWSGI with TLS: apt-get install libssl-dev python3-dev; make peers"
)
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not on PATH: apt-get install nginx")

# Words before a command that give it a network of its own: a loopback that takes IPv4 multicast, and m0 for IPv6, where
# the loopback takes none.
OWN_NETWORK = (
    *("unshare", "-n", "sh", "-c"),
    "ip link set lo up multicast on && ip route add 224.0.0.0/4 dev lo && ip link add m0 type veth peer name m1 && "
    "ip link set m0 up && ip link set m1 up && ip address add fe80::1/64 dev m0 nodad && "
    'exec "$@"',
    "sh",
)


def _has_namespaces() -> bool:
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    return subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not _has_namespaces(), reason="needs util-linux, iproute2 and the right to make a network namespace"
)


def better(why: str) -> pytest.MarkDecorator:
    """Marks what the real fastrouter does worse, with the reason; against gfrouter the mark does nothing."""
    return pytest.mark.xfail(FASTROUTER, reason=f"the real fastrouter: {why}", strict=False)


def _claim_block() -> tuple[socket.socket, range]:
    """(what holds the claim, the ports): whoever binds the block's abstract socket owns it until the process ends."""
    for first in range(FIRST_PORT, FIRST_PORT + PORTS, BLOCK):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0gfrouter-test-ports-{first}")
            return claim, range(first, first + BLOCK)
        except OSError:
            claim.close()
    raise AssertionError(f"all {PORTS // BLOCK} blocks of ports are claimed by test processes")


_claim, _block = _claim_block()
_ports = itertools.cycle(_block)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this host that is free for TCP and UDP, and not given out again for a long time."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in itertools.islice(_ports, BLOCK):
        with socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            with contextlib.suppress(OSError):
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tcp.bind((host, port))
                udp.bind((host, port))
                return port
    raise AssertionError(f"no free port in {_block}")


FORMS = ("ipv4", "ipv6", "name", "path", "abstract")


def free_address(form: str = "ipv4", folder: Path | None = None) -> str:
    """One of this form; a path is in `folder`. Its port's number makes an abstract name nobody else's."""
    match form:
        case "ipv4":
            return f"127.0.0.1:{free_port()}"
        case "ipv6":
            return f"[::1]:{free_port('::1')}"
        case "name":
            return f"localhost:{free_port()}"
        case "abstract":
            return f"@gfrouter-test-{free_port()}"
        case "path":
            assert folder
            return str(folder / f"{free_port()}.sock")
    raise AssertionError(form)


def group(leader: int) -> list[int]:
    """The processes of this process group, as they are now."""

    def leader_of(pid: int) -> int:
        with contextlib.suppress(ProcessLookupError):
            return os.getpgid(pid)
        return 0

    return [pid for entry in Path("/proc").glob("[0-9]*") if leader_of(pid := int(entry.name)) == leader]


class Process:
    """A child in its own session; a thread collects what it writes to stdout and stderr, line by line."""

    def __init__(
        self,
        *argv: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.lines: list[str] = []
        self._child = subprocess.Popen(
            self.argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            encoding="utf-8",
            errors="backslashreplace",
        )
        self.pid = self._child.pid
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def line(self, pattern: str) -> re.Match[str] | None:
        """The first line so far in which `pattern` is found."""
        return next((match for text in list(self.lines) if (match := re.search(pattern, text))), None)

    def wait_line(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Waits for such a line; fails at once when the process ends without it."""

        def found() -> re.Match[str] | None:
            if self._child.poll() is not None:
                self._reader.join(1)
                assert self.line(pattern), f"ended ({self.returncode}) without {pattern!r}, saying {self.lines[-5:]}"
            return self.line(pattern)

        match = wait_for(found, f"the line {pattern!r} of {self.argv[:4]}", timeout)
        assert match
        return match

    def wait_listens(self, port: int) -> None:
        """Waits until connects to this port of 127.0.0.1 succeed; for a server that logs nothing when it is ready."""

        def listens() -> bool:
            assert self.returncode is None, f"ended ({self.returncode}), saying {self.lines[-5:]}"
            with contextlib.suppress(OSError), connect(f"127.0.0.1:{port}"):
                return True
            return False

        wait_for(listens, f"{self.argv[0]} to listen on port {port}")

    @property
    def returncode(self) -> int | None:
        return self._child.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """To the first process alone, as an operator's kill does. SIGSTOP: it has stopped when this returns."""
        self._child.send_signal(number)
        if number == signal.SIGSTOP:
            wait_frozen(self.pid)

    def send_signal_to_all(self, number: signal.Signals) -> None:
        """To each process of the session's first group. SIGSTOP: they have stopped when this returns."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
            if number == signal.SIGSTOP:
                for pid in group(self.pid):
                    wait_frozen(pid)

    def wait(self, timeout: float = 30) -> int:
        """The exit status, once it has ended by itself."""
        status = self._child.wait(timeout)
        self._reader.join(timeout)
        return status

    def stop(self, number: signal.Signals = signal.SIGINT, timeout: float = 30) -> int:
        """Asks it to end, waits, and takes what it left behind along. Returns the exit status."""
        self.send_signal(number)
        try:
            return self._child.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole session, frozen ones too."""
        self.send_signal_to_all(signal.SIGKILL)
        self.wait()

    def _collect(self) -> None:
        assert self._child.stdout
        with self._child.stdout as output:
            for text in output:
                self.lines.append(text.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.kill()
        # pytest shows this beside a failed test and drops it otherwise.
        print(f"--- {' '.join(self.argv)} (pid {self.pid}, status {self.returncode})", *self.lines, sep="\n")


class Router(Process):
    """gfrouter with plain options: `Router(timeout=2, processes=2, cheap=True)`, a list repeats an option.

    A request for an unknown key is refused at once, unless a `warm_timeout` is given; who has announced itself once is
    not missed, unless a `subscription_tolerance` is given; and there is no admin API unless `admin` says where
    (conftest.py sets GFROUTER_ADMIN=off). With `ini` nothing is added to
    what the file says; tell its addresses by `address=` and so on. An option that is None is left out. `launcher` are
    words before the command, of something that executes it in its own place.
    """

    def __init__(
        self,
        *words: str | Path,
        ini: Path | None = None,
        address: str = "",
        subscriptions: str = "",
        stats_address: str = "",
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        launcher: Sequence[str | Path] = (),
        pass_fds: Sequence[int] = (),
        fastrouter: bool = FASTROUTER,
        **options: object,
    ) -> None:
        self.address = address or free_address()
        self.subscriptions = subscriptions or free_address()
        self.stats_address = stats_address or free_address()
        if ini:
            words = ("--ini", ini, *words)
        else:
            options = {
                "listen": self.address,
                "subscription_server": self.subscriptions,
                "stats": self.stats_address,
                "warm_timeout": 0,
                "subscription_tolerance": NOT_MISSED,
                **options,
            }
        has_stats = bool(stats_address or (not ini and options["stats"]))
        self._settles = has_stats and not fastrouter
        argv = (*launcher, *router_command(fastrouter), *words, *as_words(options, fastrouter))
        super().__init__(*argv, cwd=cwd, env=env, pass_fds=pass_fds)
        try:
            for slot in range(1, int(str(options.get("processes", 1))) + 1):
                self.wait_line(rf"spawned uWSGI fastrouter {slot} ")
            if has_stats:
                self.wait_line("stats server enabled on")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def wait_line(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """As any Process'. A new node is served when the line has come: the routers know it a moment later."""
        match = super().wait_line(pattern, timeout)
        if NEW_NODE in match.string:
            self.settle()
        return match

    def settle(self) -> None:
        """Waits until each router process has taken in all that has changed so far, where that can be known."""
        if self._settles:
            wait_for(lambda: self._read(time.time())[1], "the routers to take in what has changed")

    def stats(self) -> dict[str, Any]:
        """One reading of the stats server, from routers that know all that it shows: they are served at once.

        On a busy machine they may take longer than a reading waits for them, so it is read again. Those that are frozen
        never answer, and the last reading is returned.
        """
        began = time.time()
        for _ in range(READINGS):
            stats, counted = self._read(began)
            if counted:
                break
        return stats

    def _read(self, since: float) -> tuple[dict[str, Any], bool]:
        """One reading, and whether all routers have answered since then. Who starts anew just now is asked again."""
        text = b""
        for _ in range(3):
            with connect(self.stats_address) as sock:
                text = b"".join(iter(lambda: sock.recv(65536), b""))
            if text:
                break
        stats = json.loads(text)
        assert isinstance(stats, dict)
        return stats, all(router["last_answer"] >= since for router in stats.get("routers", ()))

    def pool(self, key: str) -> dict[str, Any]:
        """The stats of one key, {} while nobody has announced it."""
        pools = self.stats().get("subscriptions", [])
        return next((pool for pool in pools if pool["key"] == key), {})

    def nodes(self, key: str) -> dict[str, dict[str, Any]]:
        """The live nodes of one key, by address."""
        return {node["name"]: node for node in self.pool(key).get("nodes", []) if not node["death_mark"]}

    def wait_for_nodes(self, key: str, count: int, timeout: float = 30) -> dict[str, dict[str, Any]]:
        """Waits until exactly `count` nodes of `key` are alive in stats, and the routers know; returns them."""
        wait_for(lambda: len(self.nodes(key)) == count, f"{count} nodes of {key}", timeout)
        self.settle()
        return self.nodes(key)

    def wait_idle(self) -> None:
        """Waits until no request is in flight anywhere: every gauge back at zero."""

        def idle() -> bool:
            stats = self.stats()
            refs = [node["ref"] for pool in stats.get("subscriptions", ()) for node in pool["nodes"]]
            return stats["active_sessions"] == 0 and not any(refs)

        wait_for(idle, "active_sessions and every ref to be 0")

    def pids(self) -> dict[int, int]:
        """Slot (from 1), in order → the pid of the router process that the log named last for it."""
        found = (re.search(r"spawned uWSGI fastrouter (\d+) \(pid: (\d+)\)", text) for text in list(self.lines))
        return dict(sorted((int(match[1]), int(match[2])) for match in found if match))


class Worker(Process):
    """A uWSGI worker with worker_app.py that subscribes `key`; it answers under `name` (its address by default).

    `launcher` as for a Router. `sign`: DIGEST:PRIVATE.pem, for which `needs_signing` is needed.
    """

    def __init__(
        self,
        server: str,
        key: str = "foo.com",
        name: str = "",
        address: str = "",
        processes: int = 2,
        threads: int = 2,
        options: tuple[str, ...] = (),
        launcher: Sequence[str | Path] = (),
        sign: str = "",
    ) -> None:
        self.address = address or free_address()
        self.name = name or self.address
        signed = f",sign={sign}" if sign else ""
        super().__init__(
            *launcher,
            *(SIGNING_UWSGI if sign else UWSGI, "--master", "--die-on-term", "--need-app", "--disable-logging"),
            *("--processes", str(processes), "--threads", str(threads)),
            *("--buffer-size", "65535"),  # uWSGI's own default, a page, is too small for a 32 KiB cookie
            *("--socket", self.address, "--subscribe2", f"server={server},key={key}{signed}", *options),
            *("--wsgi-file", TESTS / "worker_app.py"),
            env={"WORKER_NAME": self.name},
        )


class Nginx(Process):
    """nginx in front of a router, without privileges and with all its files in a folder of its own.

    `more` is configuration for its http block; `router` may be an upstream of that.
    """

    def __init__(self, router: str, more: str = "") -> None:
        assert NGINX
        self.port, self.streaming_port = free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="gfrouter-nginx-")
        folder = Path(self._folder.name)
        config = (TESTS / "nginx.conf.in").read_text()
        unix = "unix:" if router.startswith("/") else ""
        for name, value in {
            "ROUTER": f"{unix}{router}",
            "MORE": more,
            "STREAMING_PORT": self.streaming_port,
            "PORT": self.port,
        }.items():
            config = config.replace(f"@{name}@", str(value))
        (folder / "nginx.conf").write_text(config)
        super().__init__(NGINX, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf")
        self.wait_listens(self.streaming_port)

    def kill(self) -> None:
        super().kill()
        self._folder.cleanup()


def router_command(fastrouter: bool) -> list[str | Path]:
    return [UWSGI, "--master"] if fastrouter else [sys.executable, "-P", "-m", "router"]


ROUTER_COMMAND = router_command(FASTROUTER)  # of the router under test


def as_words(options: Mapping[str, object], fastrouter: bool = FASTROUTER) -> list[str]:
    """`{"timeout": 2, "cheap": True}` as the words of a command line, in the spelling of the router under test."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or (fastrouter and name in OURS_ALONE):
            continue
        if not fastrouter or name in CORE:
            flag = "--" + name.replace("_", "-")
        else:
            flag = "--fastrouter" if name == "listen" else "--fastrouter-" + name.replace("_", "-")
        for each in value if isinstance(value, list) else [value]:
            words += [flag] if each is True else [flag, str(each)]
    return words
