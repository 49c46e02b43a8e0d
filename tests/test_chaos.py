"""Everything at once, at random, against one router: at the end nothing is in flight, open, or out of count.

And no error that says that no node has seen the request is said of one that a node has.
"""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import ask, read_to_end, request
from one_router import OneRouter, refused_address
from router.node import Node
from scripted import (
    HELLO,
    NodeConnection,
    ScriptedNode,
    answer,
    answer_early,
    answer_slowly,
    close_after_head,
    close_at_once,
    connect,
    hang,
    reset_after_head,
    reset_at_once,
)

SESSIONS = 160
CLIENTS = 16


def reset_within_the_answer(connection: NodeConnection) -> None:
    connection.read_head()
    connection.send(b"HTTP/1.1 200")
    connection.reset()


SCRIPTS = [
    answer(), answer(bytes(300_000)), answer_early(bytes(200_000)), answer_slowly(bytes(5000), 1000, 0.01),
    reset_within_the_answer, close_after_head, close_at_once, reset_after_head, reset_at_once, hang,
]  # fmt: skip


def go_on(client: socket.socket, dice: random.Random) -> bytes:
    """Read the answer, or leave: at once, in the middle, with a FIN or a reset. What was read of a whole one."""
    way = dice.choice(["read", "read", "read", "leave", "half-close", "reset", "read a bit"])
    if way == "read":
        return read_to_end(client)
    if way == "half-close":
        client.shutdown(socket.SHUT_WR)
        read_to_end(client)
    elif way == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif way == "read a bit":
        client.recv(dice.randrange(1, 2000))
    return b""


def one_session(address: str, path: str, dice: random.Random) -> tuple[bytes, bytes]:
    """Its head, and the answer if it has waited for that."""
    length = dice.choice([0, 0, 0, 10, 50_000, 1_000_000])
    head = request("foo.com", path, dice.choice(["GET", "POST", "HEAD"]), length)
    data = head + bytes(length)
    data = data[: dice.choice([len(data), len(data), dice.randrange(len(data))])]
    with contextlib.suppress(OSError), connect(address, timeout=5) as client:
        cut = dice.randrange(len(data) + 1)
        client.sendall(data[:cut])
        time.sleep(dice.choice([0, 0, 0.01]))
        client.sendall(data[cut:])
        return head, go_on(client, dice)
    return head, b""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.long
def test_whatever_happens_all_counts_return_to_zero(seed: int, kind: str, tmp_path: Path) -> None:
    print("seed", seed)
    paths = (str(tmp_path / f"{number}.sock") for number in range(100))
    place: Callable[[], str] = (lambda: "127.0.0.1:0") if kind == "tcp" else (lambda: next(paths))
    options: dict[str, Any] = {"timeout": 1, "gracetime": 1, "connect_timeout": 1}
    if seed == 2:
        options |= {"error_pages": "on", "retry": "all-unsent", "max_connections": 2, "max_queue": 3}
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(OneRouter(place(), log=tmp_path / "log", **options))
        shuffled = random.Random(seed)
        nodes = [stack.enter_context(ScriptedNode(*shuffled.choices(SCRIPTS, k=50), address=place())) for _ in range(4)]
        members = [Node(node.address, weight=number + 1) for number, node in enumerate(nodes)]
        members += [Node(refused_address()), Node(str(tmp_path / "missing.sock"))]
        router.table({"foo.com": members})
        nobody = request("nobody.com")
        answered = [(nobody, ask(router.address, nobody))]
        router.wait_idle()
        before = router.descriptors()

        def client(number: int) -> None:
            dice = random.Random(seed * 1000 + number)
            for session in range(SESSIONS // CLIENTS):
                answered.append(one_session(router.address, f"/{number}/{session}", dice))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for number in range(20):  # the membership changes meanwhile
            time.sleep(0.05)
            router.tell(set=[["foo.com", [[m.address, 1, 0, 0, 0, "", "", ""] for m in members[number % 3 :]], []]])
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        router.set("foo.com", [Node(nodes[0].address)], left=[member.address for member in members[1:]])
        router.wait_idle()
        assert router.descriptors() == before
        seen = {connection.head for node in nodes for connection in node.connections}
        unseen = [head for head, page in answered if b"X-Gfrouter" in page and page[9:12] in (b"404", b"503")]
        assert not seen.intersection(unseen)
        assert bool(unseen) == (seed == 2)
        assert not [line for line in router.log if "Traceback" in line or "internal error" in line]
        with ScriptedNode(address=place()) as good:
            router.set("foo.com", [Node(good.address)], left=[nodes[0].address])
            assert ask(router.address, request("foo.com")) == HELLO
