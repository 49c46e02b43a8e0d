"""One router process with the test in the supervisor's place: it holds the pair, the listeners and the table.

with OneRouter(timeout=1) as router:
    router.table({"foo.com": [Node(node.address)]})
    ask(router.address, request("foo.com"))
    router.counts()["pools"]["foo.com"]
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clients import request
from router import net
from router.child import deaf
from router.endpoint import Cause
from router.node import Node
from router.options import Options
from router.pair import Decoder, Message, encode, pack_node
from scripted import ScriptedNode, connect, wait_for

END_S = 15  # a router that has not ended by then is broken


def refused_address() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return net.bound_name(listener)


class OneRouter:
    """Executes `router.server` as the supervisor does. `log` holds its lines."""

    def __init__(self, *addresses: str, log: Path | None = None, **options: Any) -> None:
        self.listeners = [net.bind(address, clients_speak_first=True) for address in addresses or ("127.0.0.1:0",)]
        self.address = net.bound_name(self.listeners[0])
        self.pair, theirs = socket.socketpair()
        self.pair.settimeout(END_S)
        self.messages: list[Message] = []
        self._decoder = Decoder()
        self._number = 0
        fds = [theirs.fileno(), *(listener.fileno() for listener in self.listeners)]
        self._log = log or Path(os.devnull)
        with theirs, open(self._log, "wb") as stream:
            argv = [sys.executable, "-P", "-m", "router.server", str(theirs.fileno())]
            self.process = subprocess.Popen(argv, pass_fds=fds, stderr=stream, start_new_session=True, preexec_fn=deaf)
        on_demand = options.pop("on_demand", "")  # for which keys the supervisor is asked
        self.tell(options=Options(**options).to_json(), listeners=fds[1:], on_demand=on_demand)

    @property
    def log(self) -> list[str]:
        return self._log.read_text().splitlines()

    def tell(self, **message: Any) -> None:
        self.pair.sendall(encode(message))

    def table(self, pools: dict[str, list[Node]], out: list[str] | None = None, warming: float = 0) -> None:
        """The whole table; returns when the router accepts (or, in cheap mode, would). `warming` in seconds."""
        packed = {key: [pack_node(node) for node in nodes] for key, nodes in pools.items()}
        self.tell(pools=packed, out=[health(address) for address in out or ()], warming=warming)
        self.counts()

    def set(self, key: str, nodes: list[Node], left: list[str] | None = None) -> None:
        """What the key holds now; returns when the router knows."""
        self.tell(set=[[key, [pack_node(node) for node in nodes], left or []]])
        self.counts()

    def hear(self, word: str) -> Message:
        """The next message that has `word`; those before it are kept in `messages`."""
        while True:
            for index, message in enumerate(self.messages):
                if word in message:
                    return self.messages.pop(index)
            data = self.pair.recv(1 << 16)
            assert data, f"the router ended without saying {word!r}"
            self.messages += self._decoder.feed(data)

    def counts(self) -> dict[str, Any]:
        self._number += 1
        self.tell(count=self._number)
        return self.hear("counters")

    def wait_idle(self) -> dict[str, Any]:
        """The counts when no request is in flight any more; all gauges must be back at zero."""

        wait_for(lambda: self.counts()["active"] == 0, "all sessions to end")
        counts = self.counts()
        for _, nodes in counts["pools"].values():
            assert [in_flight for _, _, _, in_flight, _, _ in nodes.values() if in_flight] == []
        return counts

    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def processor_seconds(self) -> float:
        """CPU time that the process has used."""
        nanoseconds = Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]
        return int(nanoseconds) / 1e9

    def close(self) -> None:
        self.pair.close()
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                name = net.bound_name(listener)
                if name.startswith("/"):
                    os.unlink(name)
            listener.close()
        try:
            self.process.wait(END_S)
        finally:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def health(address: str, seconds: float = 30, cause: Cause = Cause.REFUSED, times: int = 1) -> list[Any]:
    """An endpoint that is out for so long, as it stands in a message."""
    return [address, cause, times, seconds]


def waits(router: OneRouter, count: int = 1) -> None:
    """Until so many requests wait there."""
    wait_for(lambda: router.counts()["waiting"] == count, f"{count} requests to wait")


@contextmanager
def asking(router: OneRouter, *data: bytes) -> Iterator[list[socket.socket]]:
    """A client for each of these, all of which wait."""
    before = router.counts()["waiting"]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(router.address)) for _ in data]
        for client, each in zip(clients, data, strict=True):
            client.sendall(each)
        waits(router, before + len(data))
        yield clients


def forgets_who_leaves(router: OneRouter, node: ScriptedNode, leave: Callable[[socket.socket], object]) -> None:
    """Asserts that clients that leave while they wait for foo.com, at `node`, leave nothing behind and ask nobody."""
    before = router.descriptors()
    with asking(router, *[request("foo.com")] * 5) as clients:
        for client in clients:
            leave(client)
        waits(router, 0)
        assert router.wait_idle()["complaints"] == {}
        assert router.descriptors() == before
    router.set("foo.com", [Node(node.address)])
    router.counts()
    assert node.connections == []
