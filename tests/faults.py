"""What goes wrong, and what becomes of requests then: each fault against both routers, by one script.

    @fault(NODE, "takes the request and hangs", theirs="4 answered, 4 nothing", ours="8 answered")
    def hangs(scene: Scene) -> str:
        scene.nodes_of(hang)
        return scene.gets(8)

A script plays on a `Scene` (a Stage of like.py with one router, real or ours) and returns what it saw in a few words,
the same ones for both: how many requests were `answered`, got `nothing`, an error's status, an answer `cut short` (a
clean end) or `reset`, or are still `waiting` after the time limit. test_faults.py holds both against the table, and
docs/faults.md is made from it. Time limits are 2 s for both.
"""

import contextlib
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from clients import announce, request
from like import Stage
from scripted import HELLO, Script, answer, connect

NODE, CLIENT, SOURCE, PROCESS = "Nodes", "Clients", "Announcements", "Processes"
LIMIT = 2  # seconds: every time limit of both routers
PATIENCE = 8  # seconds; who has nothing by then waits for ever
GET = request("foo.com")
POST = request("foo.com", method="POST", length=5) + b"hello"
STATUS = re.compile(rb"HTTP/1\.1 ([45][0-9]{2}) ")

OURS: dict[str, Any] = {
    "error_pages": "on", "connect_timeout": 1, "first_byte_timeout": LIMIT, "head_timeout": LIMIT, "max_fails": 2,
    "warm_timeout": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and in a few words what comes of it at the real fastrouter and at ours."""

    group: str
    what: str
    theirs: str
    ours: str
    script: Callable[["Scene"], str]


FAULTS: list[Fault] = []


def fault(group: str, what: str, *, theirs: str, ours: str) -> Callable[[Callable[["Scene"], str]], None]:
    """Adds a row to the table."""
    return lambda script: FAULTS.append(Fault(group, what, theirs, ours, script))


def play(each: Fault) -> tuple[str, str]:
    """What is seen of it at the real fastrouter, and at ours."""

    def at(fastrouter: bool) -> str:
        with Scene(fastrouter) as scene:
            return each.script(scene)

    with ThreadPoolExecutor(2) as both:
        theirs, ours = both.map(at, (True, False))
    return theirs, ours


class Scene(Stage):
    """One router, its nodes, and requests whose outcomes are told in words."""

    def begin(self, *words: str, **options: Any) -> None:
        self.start(*words, timeout=LIMIT, **OURS, **options)

    def with_nodes(self, *scripts: Script, good: int = 1) -> None:
        """The router with a node that plays `scripts`, if there are any, and so many good ones."""
        self.begin()
        if scripts:
            self.node(*scripts)
        for _ in range(good):
            self.node(answer(HELLO))

    def with_address(self, address: str, good: int = 1) -> None:
        """The router with a node that is announced at this address, and good ones."""
        self.begin()
        announce(self.router.subscriptions, "foo.com", address)
        for _ in range(good):
            self.node(answer(HELLO))
        self.fence()

    def gets(self, count: int, data: bytes = GET) -> str:
        """So many requests, one after the other."""
        return told(self.outcome(data) for _ in range(count))

    def at_once(self, count: int, data: bytes = GET) -> str:
        """So many requests at the same time."""
        with ThreadPoolExecutor(count) as pool:
            return told(pool.map(lambda _: self.outcome(data), range(count)))

    def outcome(self, data: bytes = GET, patience: float = PATIENCE) -> str:
        try:
            client = connect(self.router.address, patience)
        except ConnectionRefusedError:
            return "refused"
        with client:
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
            return ending(client)

    def start_again(self, **options: Any) -> None:
        """Another router at the addresses of the one before, which is gone."""
        before = self.router
        self.start(address=before.address, subscriptions=before.subscriptions, timeout=LIMIT, **OURS, **options)


def ending(client: socket.socket) -> str:
    """How it goes on with a client that has sent what it sends."""
    got, end = bytearray(), "cut short"
    try:
        while piece := client.recv(65536):
            got += piece
    except TimeoutError:
        return "waiting"
    except ConnectionError:
        end = "reset"
    if got == HELLO:
        return "answered"
    if not got:
        return "nothing"
    status = STATUS.match(got)
    return status[1].decode() if status else end


def told(outcomes: Iterable[str]) -> str:
    """`6 answered, 2 nothing`: what is good first."""
    counted = Counter(outcomes)
    return ", ".join(f"{counted[word]} {word}" for word in sorted(counted, key=lambda word: (word != "answered", word)))
