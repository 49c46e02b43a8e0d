"""`make demo`: the article's setup, from the files in contrib/article, on this machine.

gfrouter, two uWSGI workers that announce themselves, and an HTTP front: nginx where it is installed, else uWSGI's own.
It shows who answers, kills a worker under load, counts the GETs that failed, and lets the worker come back. It stays
up until Ctrl-C; with ONCE=1 it ends by itself, with status 0 if everything went as promised and 1 if not.

The files are copied to a temporary folder, with other ports where the article's are taken. Every child runs in a
session of its own, which is killed at the end, however that end comes.
"""

import contextlib
import http.client
import io
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
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ARTICLE = Path(__file__).parent / "article"
BIN = Path(sys.executable).parent
HOST = "foo.com"
CLIENTS = 8
REQUESTS = 100
START_S = 10  # everything here starts within a second; a machine that needs ten has another problem
BAR = 24  # cells of a full bar

TTY = sys.stdout.isatty() and "NO_COLOR" not in os.environ
GREEN, RED, BOLD, DIM, PLAIN = ("\033[32m", "\033[31m", "\033[1m", "\033[2m", "\033[0m") if TTY else [""] * 5


class Failed(Exception):
    """The demo cannot go on, or did not show what it promised; the text says why."""


class Child:
    """A process in a session of its own, what it says in a file."""

    def __init__(self, name: str, folder: Path, *argv: str | Path) -> None:
        self.name, self.log = name, folder / f"{name.replace(' ', '-')}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                cwd=folder,
                env={**os.environ, "WORKER": name.removeprefix("worker ")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to the process and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def until(self, ready: Callable[[], bool]) -> None:
        """Waits for `ready`, or fails with the end of what this child said."""
        end = time.monotonic() + START_S
        while not ready():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > end:
                tail = "\n    ".join(self.log.read_text(errors="replace").splitlines()[-5:])
                raise Failed(f"{self.name} {'ended' if ended else f'is not ready after {START_S} s'}:\n    {tail}")
            time.sleep(0.02)

    def says(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")


class Load:
    """Clients that GET the busy page in a loop, each answer counted by its worker."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: Counter[str] = Counter()
        self.failed = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            worker = get(self.port, "/busy")[0]
            with self._lock:
                self.answers[worker] += 1 if worker else 0
                self.failed += 0 if worker else 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in a pipe, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"\n{BOLD}gfrouter: one front, any number of workers{PLAIN}\n")
    try:
        with ExitStack() as stack:
            try:
                return show(stack)
            finally:  # a second Ctrl-C must not leave children behind
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except Failed as error:
        print(f"\n  {RED}✗ {error}{PLAIN}\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130


def show(stack: ExitStack) -> int:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gfrouter-demo-")))
    ports = {wanted: free(wanted) for wanted in (3031, 2626, 2727, 8080)}
    router, subscriptions, stats, front = ports.values()
    copy_files(folder, ports)

    def start(name: str, *argv: str | Path) -> Child:
        child = Child(name, folder, *argv)
        stack.callback(child.kill)
        return child

    def worker(name: str) -> Child:
        child = start(f"worker {name}", BIN / "uwsgi", "--ini", "worker.ini")
        child.until(lambda: get(front, "/")[0] == name)
        return child

    gfrouter = start("gfrouter", BIN / "gfrouter", "--ini", "router.ini", "--stats", f"127.0.0.1:{stats}")
    gfrouter.until(lambda: gfrouter.says("spawned uWSGI fastrouter 1"))
    point("gfrouter", f"takes requests at 127.0.0.1:{router}, announcements at 127.0.0.1:{subscriptions}")
    http_front = start_front(start, front, router)
    http_front.until(lambda: listens(front))
    point(http_front.name, f"http://127.0.0.1:{front}")
    one, _ = worker("one"), worker("two")
    point("worker one", "announced itself")
    point("worker two", "announced itself")

    curl = f"curl -H 'Host: {HOST}' http://127.0.0.1:{front}/"
    print(f"\n  {DIM}${PLAIN} {curl}\n  {get(front, '/')[1]}")
    spread = Counter(get(front, "/")[0] for _ in range(REQUESTS))
    table(f"{REQUESTS} requests, and who answered", spread)
    if set(spread) != {"one", "two"}:
        raise Failed(f"wanted answers of one and two alone, got {dict(spread)}")

    with Load(front) as load:
        soon(lambda: min(load.answers["one"], load.answers["two"]) >= 50, "both workers to answer under load")
        one.kill()
        killed_at = load.answers.copy()
        soon(lambda: load.answers["two"] >= killed_at["two"] + 200, "the other worker to take over")
    table(f"worker one killed (SIGKILL) under load: {load.answers.total()} GETs, {load.failed} failed", load.answers)
    if load.failed:
        raise Failed(f"{load.failed} GETs failed")

    with Load(front) as load:
        worker("one")
        soon(lambda: load.answers["one"] >= 100, "the new worker to answer")
    table(f"worker one started again, and joined: {load.answers.total()} GETs, {load.failed} failed", load.answers)
    if load.failed:
        raise Failed(f"{load.failed} GETs failed")

    if os.environ.get("ONCE"):
        print(f"\n  {GREEN}✓ everything as promised{PLAIN}\n")
        return 0
    print(f"\n  {BOLD}up until Ctrl-C{PLAIN}")
    for name, text in {
        "page": curl,
        "stats": f"nc 127.0.0.1 {stats}",
        "logs": f"tail -f {folder}/*.log",
        "one more": f"cd {folder} && WORKER=three {BIN / 'uwsgi'} --ini worker.ini",
    }.items():
        print(f"    {name:10} {text}")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    print()
    return 0


def start_front(start: Callable[..., Child], port: int, router: int) -> Child:
    """nginx with the article's configuration; where there is none, or FRONT=uwsgi, uWSGI's HTTP router."""
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if nginx and Path("/etc/nginx/uwsgi_params").exists() and os.environ.get("FRONT") != "uwsgi":
        return start("nginx", nginx, "-p", ".", "-e", "stderr", "-c", "nginx.conf")
    address = f"127.0.0.1:{port}"
    return start("uwsgi http", BIN / "uwsgi", "--master", "--http", address, "--http-to", f"127.0.0.1:{router}")


def copy_files(folder: Path, ports: dict[int, int]) -> None:
    """The article's files, each port in them replaced by the free one that stands in its place."""
    for name in ("router.ini", "worker.ini", "app.py", "nginx.conf"):
        text = (ARTICLE / name).read_text()
        text = re.sub(r":(\d{4})\b", lambda match: f":{ports.get(int(match[1]), match[1])}", text)
        if name == "nginx.conf" and os.getuid() == 0:
            # Started by root it would serve as nobody, who may not enter a temporary folder of root's.
            text = "user root;\n" + text
        (folder / name).write_text(text)


def free(wanted: int) -> int:
    """`wanted` if nobody has it for TCP or UDP, else any free port. ANY_PORTS=1 keeps demos side by side apart."""
    for port in ([] if os.environ.get("ANY_PORTS") else [wanted]) + [0] * 20:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", port))
            udp.bind(tcp.getsockname())
            return int(tcp.getsockname()[1])
    raise Failed(f"port {wanted} is taken, and no other could be had")


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def get(port: int, path: str) -> tuple[str, str]:
    """(the worker that answered, its text); ("", why) when the GET failed."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        client.request("GET", path, headers={"Host": HOST})
        response = client.getresponse()
        text = response.read().decode().strip()
        worker = response.headers.get("X-Worker", "") if response.status == 200 else ""
        return worker, text if worker else f"{response.status} {response.reason}"
    except (OSError, http.client.HTTPException) as error:
        return "", repr(error)
    finally:
        client.close()


def soon(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {START_S} s for {what}")
        time.sleep(0.02)


def point(name: str, text: str) -> None:
    print(f"  {GREEN}✓{PLAIN} {name:12} {text}")


def table(title: str, counts: Counter[str]) -> None:
    """One bar a worker, the longest one full."""
    print(f"\n  {BOLD}{title}{PLAIN}")
    for name, count in sorted(counts.items()):
        bar = "█" * max(1, round(BAR * count / max(counts.values())))
        print(f"    {name:6} {bar:{BAR}} {count:5}")


if __name__ == "__main__":
    sys.exit(main())
