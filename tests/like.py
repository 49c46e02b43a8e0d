"""One script against both routers, the real uWSGI FastRouter and gfrouter, and what each of them showed.

    @case(2, why=["warming"], differs={"client 1": (CLOSED, A)})      # (the fastrouter's, gfrouter's)
    def a_request_before_the_first_announcement(stage: Stage) -> None:
        stage.start(timeout=2)
        client = stage.send(GET)
        stage.node()
        stage.read(client)

A case is a `Case`: a script that plays on a `Stage`, and the fields in which the two differ on purpose. `observe(case)`
plays it against both at once and gives two observations: flat mappings of a field's name to its value, with addresses,
pids, descriptors and folders replaced by names. Both routers are started for the case alone; nothing is shared.

What is observed without being asked for:
    client N     what the N-th client got: (bytes, how it ended: closed, reset, or open where nothing more came)
    node N       the bytes of each connection to the N-th node: header, vars and body
    stats ...    at the end, with no request in flight: the numbers that are not 0, by the names that 2.0 has (all but
                 `wrr`), of nodes that are not marked as failed
    log ...      how often each line of PROMISED was written; their order is not compared
    router       serves, ended (before its time), or refused (did not start)
A script adds to that with `stage.see(field, value)`. Nodes answer with their letter, so that an order reads ABAB.
"""

import contextlib
import re
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clients import announce, datagram, request, withdraw
from scripted import Script, ScriptedNode, answer, connect, wait_for
from servers import Router, free_address

OPEN_S = 0.4  # a client that is expected to get nothing gets nothing for so long
ANSWER_S = 10  # what is expected to come comes within this, on a busy machine too

Outcome = tuple[bytes, str]
Observation = dict[str, object]

SECTIONS = {
    1: "the packet",
    2: "a request through the router",
    3: "the subscription packet",
    4: "algorithms",
    5: "cheap mode, processes, signals",
    6: "addresses for binding",
    7: "options",
    8: "stats",
    9: "log lines",
    10: "what the seed article wished for",
}

GET = request("foo.com")
CLOSED: Outcome = (b"", "closed")
OPEN: Outcome = (b"", "open")
A: Outcome = (b"A", "closed")
REFUSED: dict[str, tuple[object, object]] = {"router": ("serves", "refused")}  # a start, by gfrouter alone

# The lines that tools look for in uWSGI's log; both routers write others, each its own.
PROMISED = re.compile(
    r"^\[uwsgi-subscription for pid N\] .*(new pool:|=> new node:|=> marking .* as failed|invalid \(sniffed)"
    r"|^\[uwsgi-fastrouter\] (unable to connect\(\) to node|.* => marking .* as failed)"
    r"|^\[uWSGI fastrouter pid N\] (.* => marking .* as failed|leaving cheap mode|no more nodes available)"
    r"|^starting uWSGI fastrouter in cheap mode$|^(re)?spawned uWSGI fastrouter |HARAKIRI ON GATEWAY"
    r"|^uWSGI fastrouter (subscription server )?bound on|^\*\*\* fastrouter stats server enabled on"
)
TOP_FIELDS = ("active_sessions", "fastrouter", "cheap")  # who and where it is are other in each process
POOL_FIELDS = ("hash", "hits")
NODE_FIELDS = (
    *("modifier1", "modifier2", "pid", "uid", "gid", "requests", "last_requests", "tx", "rx"),
    *("cores", "load", "weight", "ref", "failcnt"),
)


class OracleError(Exception):
    """A script does not play on the real fastrouter: a fault of the case, never a difference."""


@dataclass(frozen=True)
class Case:
    """A script, which of SECTIONS it is about, and what its two observations may differ in.

    `differs`: field → (the fastrouter's value, gfrouter's), None where it has no such field; nothing else may differ,
    and this must. `why` names entries of differences.py. A `quick` case is part of `make quick`.
    """

    section: int
    name: str
    script: Callable[["Stage"], None]
    why: Sequence[str] = ()
    differs: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    quick: bool = False


def case(
    section: int,
    *,
    why: Sequence[str] = (),
    differs: Mapping[str, tuple[object, object]] | None = None,
    quick: bool = False,
) -> Callable[[Callable[["Stage"], None]], Case]:
    """Makes a case of a script, which gives it its name."""
    return lambda script: Case(section, script.__name__, script, why, differs or {}, quick)


def cases_of(module: object) -> list[Case]:
    """The cases that a module defines, in its order: those it names, and those in its lists."""
    values = [value if isinstance(value, list) else [value] for value in vars(module).values()]
    return [each for some in values for each in some if isinstance(each, Case)]


def observe(case: Case) -> tuple[Observation, Observation]:
    """(the fastrouter's, gfrouter's) observation of the case."""
    with ThreadPoolExecutor(2) as both:
        theirs, ours = both.submit(_play, case, True), both.submit(_play, case, False)
        if error := theirs.exception():
            raise OracleError(case.name) from error
        return theirs.result(), ours.result()


def apart(theirs: Observation, ours: Observation) -> dict[str, tuple[object, object]]:
    """Where the two differ, as `Case.differs` says it."""
    fields = {**theirs, **ours}
    return {name: (theirs.get(name), ours.get(name)) for name in fields if theirs.get(name) != ours.get(name)}


def _play(case: Case, fastrouter: bool) -> Observation:
    with Stage(fastrouter) as stage:
        case.script(stage)
        stage.close()
        return stage.seen


class Stage:
    """Where a script plays against one router: it starts things, asks, and notes in `seen` what it sees."""

    def __init__(self, fastrouter: bool) -> None:
        self.fastrouter = fastrouter
        self.seen: Observation = {}
        self.nodes: list[ScriptedNode] = []
        self._clients = 0
        self._names: dict[str, str] = {}
        self._left_out: tuple[str, ...] = ()
        self._router: Router | None = None
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="like-")))
        self.call(str(self.folder), "folder")

    # Starting.

    @property
    def router(self) -> Router:
        assert self._router, "a script begins with stage.start(...)"
        return self._router

    def start(self, *words: str, ini: str = "", section: str = "", **options: Any) -> bool:
        """Starts the router, as servers.Router does; False where it refuses.

        An `ini` is the text of its file; {router}, {subscriptions} and {stats} in it stand for addresses.
        """
        named = {
            "router": options.pop("address", "") or free_address(),
            "subscriptions": options.pop("subscriptions", "") or free_address(),
            "stats": free_address(),
        }
        for name, place in named.items():
            self.call(place, name)
        if "{stats}" in ini or not ini:
            options["stats_address"] = named["stats"]
        if ini:
            file = self.folder / "router.ini"
            file.write_bytes(ini.format(**named).encode())
            options["ini"] = Path(f"{file}{section}")
        try:
            router = Router(
                *words,
                address=named["router"],
                subscriptions=named["subscriptions"],
                fastrouter=self.fastrouter,
                **options,
            )
        except AssertionError as error:
            if "ended (" not in str(error):
                raise
            self.see("router", "refused")
            return False
        self._router = self._stack.enter_context(router)
        self.see("router", "serves")
        return True

    def node(self, *scripts: Script, key: str = "foo.com", address: str = "127.0.0.1:0", **fields: object) -> str:
        """The next node, announced for `key` and known; returns its address. It answers with its letter."""
        where = self.unknown_node(*scripts, address=address)
        self.announce(where, key, **fields)
        return where

    def unknown_node(self, *scripts: Script, address: str = "127.0.0.1:0") -> str:
        """The next node, which the router has not heard of; it may be there before the router."""
        number = len(self.nodes) + 1
        letter = bytes([ord("A") + number - 1])
        node = self._stack.enter_context(ScriptedNode(*scripts or (answer(letter),), address=address))
        self.nodes.append(node)
        self.call(node.address, f"node {number}")
        return node.address

    def dead_address(self, name: str = "dead") -> str:
        """One where nobody listens."""
        self.call(address := free_address(), name)
        return address

    def announce(self, address: str, key: str = "foo.com", **fields: object) -> None:
        """Returns when the router knows."""
        known = address in self.router.nodes(key)
        announce(self.router.subscriptions, key, address, **fields)
        if known:
            self.fence()
        wait_for(lambda: address in self.router.nodes(key), f"{address} to be known for {key}")
        self.router.settle()

    def withdraw(self, address: str, key: str = "foo.com") -> None:
        """Returns when the router knows."""
        withdraw(self.router.subscriptions, key, address)
        wait_for(lambda: address not in self.router.nodes(key), f"{address} to be gone from {key}")
        self.router.settle()

    def say(self, data: bytes) -> None:
        """A datagram to the subscription server; returns when it has been taken."""
        datagram(self.router.subscriptions, data)
        self.fence()

    def fence(self) -> None:
        """Returns when every datagram sent so far has had its effect, and its line in the log: they are taken in order,
        and this one shows.
        """
        last = r"last\.com => new node"
        before = len(self.lines(last))

        def passed() -> bool:
            announce(self.router.subscriptions, "last.com", "127.0.0.1:1")
            with contextlib.suppress(OSError):
                return bool(self.router.pool("last.com"))
            return False

        wait_for(passed, "the last announcement to show in the stats")
        wait_for(lambda: len(self.lines(last)) > before, "the last announcement to show in the log")
        withdraw(self.router.subscriptions, "last.com", "127.0.0.1:1")
        wait_for(lambda: not self.router.pool("last.com"), "the last announcement to be withdrawn")
        self.router.settle()

    # Asking.

    def ask(self, data: bytes = GET, address: str = "", wait: float = ANSWER_S) -> bytes:
        """Sends `data` to the router and notes what became of it; returns the bytes of the answer."""
        return self.read(self.send(data, address), wait)

    def send(self, data: bytes, address: str = "") -> socket.socket:
        """A client that has sent `data`, to be read later."""
        sock = self._stack.enter_context(connect(address or self.router.address))
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        return sock

    def read(self, sock: socket.socket, wait: float = ANSWER_S) -> bytes:
        """Reads a client to its end and notes how that was; what is not there after `wait` does not come."""
        outcome = _read(sock, wait)
        self._clients += 1
        self.see(f"client {self._clients}", outcome)
        return outcome[0]

    def turns(self, count: int, data: bytes = GET) -> str:
        """The letters of the nodes that answer `count` requests, one after the other; "-" for no answer."""
        return "".join(_read(self.send(data), ANSWER_S)[0].decode() or "-" for _ in range(count))

    def wait_to_arrive(self, *requests: bytes) -> None:
        """Returns when these are what the first node has got, on a connection each."""

        def arrived() -> bool:
            return [bytes(each.received) for each in self.nodes[0].connections] == list(requests)

        wait_for(arrived, "the requests to arrive at the node")

    # Seeing.

    def see(self, name: str, value: object) -> None:
        self.seen[self._masked(name)] = self._masked(value)

    def leave_out(self, *beginnings: str) -> None:
        """Fields that begin so depend on chance (gfrouter's turns begin anywhere), or are another case's business."""
        self._left_out += beginnings

    def call(self, text: str, name: str) -> None:
        """Observations say <name> where `text`, an address or a path, stands; the longest text goes first."""
        self._names[text] = f"<{name}>"

    def lines(self, pattern: str) -> list[str]:
        """Lines so far with the pattern in them, masked."""
        return [line for text in list(self.router.lines) if re.search(pattern, line := self._line(text))]

    def close(self) -> None:
        """Notes the stats, ends everything, and notes what is complete only then."""
        if self._router is None:
            return
        if self._router.returncode is not None:
            self.see("router", f"ended with {self._router.returncode}")
        elif "stats server enabled on" in "".join(self._router.lines):
            self._router.wait_idle()
            for name, value in _flat(self._router.stats()):
                if value:
                    self.see(f"stats {name}", value)
        for number, node in enumerate(self.nodes, start=1):
            node.stop()
            self.see(f"node {number}", tuple(bytes(each.received) for each in node.connections))
        self._router.kill()
        lines = Counter(line for text in self._router.lines if PROMISED.search(line := self._line(text)))
        self.seen |= {f"log {line}": times for line, times in lines.items() if "last.com" not in line}
        self.seen = {name: value for name, value in self.seen.items() if not name.startswith(self._left_out)}

    def _line(self, text: str) -> str:
        masked: str = self._masked(text)
        return re.sub(r"\b(pid:?|fd:?) \d+", r"\1 N", masked)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            for text in sorted(self._names, key=len, reverse=True):
                value = value.replace(text, self._names[text])
        if isinstance(value, list | tuple):
            return tuple(map(self._masked, value))
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stack.close()


def _read(sock: socket.socket, wait: float) -> Outcome:
    data, ending = bytearray(), "closed"
    sock.settimeout(wait)
    try:
        while piece := sock.recv(65536):
            data += piece
    except TimeoutError:
        ending = "open"
    except ConnectionError:
        ending = "reset"
    sock.close()
    return bytes(data), ending


def _flat(stats: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The comparable part of a stats object as (name, value)."""
    for name in TOP_FIELDS:
        yield name, stats.get(name)
    for node in stats.get("static_nodes", ()):
        yield from (
            (f"static {node['name']} {name}", value)
            for name, value in (("hits", node["hits"]), ("grace", bool(node["grace"])))
        )
    for pool in stats.get("subscriptions", ()):
        alive = [node for node in pool["nodes"] if not node["death_mark"]]
        if alive:
            yield from ((f"{pool['key']} {name}", pool[name]) for name in POOL_FIELDS)
        for node in alive:
            yield from ((f"{pool['key']} {node['name']} {name}", node[name]) for name in NODE_FIELDS)
