"""The rows of the table of faults (faults.py) that are about nodes."""

import contextlib
import signal
import socket
import time

from clients import announce, request, withdraw
from faults import GET, NODE, POST, Scene, ending, fault, told
from scripted import (
    HELLO,
    Blackhole,
    NodeConnection,
    ScriptedNode,
    answer,
    answer_early,
    answer_slowly,
    answer_then_reset,
    close_after_head,
    close_at_once,
    connect,
    hang,
    listen,
    reset_after_head,
    wait_for,
)
from servers import Worker, free_address

BIG = b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 65536 + b"\r\n\r\nhello"
CUT = HELLO[:-2]


@fault(NODE, "refuses connections", theirs="8 answered", ours="8 answered")
def refuses(scene: Scene) -> str:
    scene.with_address(free_address())
    return scene.gets(8)


@fault(NODE, "takes no connection and refuses none", theirs="3 answered, 3 nothing", ours="6 answered")
def blackhole(scene: Scene) -> str:
    with Blackhole() as hole:
        scene.with_address(hole.address)
        return scene.gets(6)


@fault(NODE, "has a unix socket that is not there", theirs="4 answered, 4 nothing", ours="8 answered")
def no_socket(scene: Scene) -> str:
    scene.with_address(str(scene.folder / "none.sock"))
    return scene.gets(8)


@fault(NODE, "has a unix socket whose queue is full", theirs="4 answered, 4 nothing", ours="8 answered")
def full_queue(scene: Scene) -> str:
    with listen(str(scene.folder / "full.sock"), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        scene.with_address(full.getsockname())
        return scene.gets(8)


@fault(NODE, "has an IPv6 address", theirs="4 nothing", ours="4 answered")
def ipv6(scene: Scene) -> str:
    scene.begin()
    with ScriptedNode(answer(HELLO), address="[::1]:0") as node:
        scene.announce(node.address)
        return scene.gets(4)


@fault(NODE, "announces a host name", theirs="4 nothing", ours="4 answered")
def host_name(scene: Scene) -> str:
    scene.begin()
    node = scene.unknown_node(answer(HELLO))
    announce(scene.router.subscriptions, "foo.com", f"localhost:{node.rpartition(':')[2]}")
    scene.fence()
    time.sleep(0.5)
    return scene.gets(4)


@fault(NODE, "closes each connection at once", theirs="4 answered, 4 nothing", ours="8 answered")
def closes(scene: Scene) -> str:
    scene.with_nodes(close_at_once)
    return scene.gets(8)


@fault(NODE, "resets each connection, having read nothing", theirs="4 answered, 4 nothing", ours="8 answered")
def resets(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:
        connection.stopped.wait(0.1)  # a reset that is faster than the request is a failed connect to the real one
        connection.reset()

    scene.with_nodes(script)
    return scene.gets(8)


@fault(NODE, "reads the request and closes", theirs="4 answered, 4 nothing", ours="8 answered")
def closes_after_head(scene: Scene) -> str:
    scene.with_nodes(close_after_head)
    return scene.gets(8)


@fault(NODE, "reads a POST and resets", theirs="4 answered, 4 nothing", ours="6 answered, 2 502")
def resets_after_post(scene: Scene) -> str:
    scene.with_nodes(reset_after_head)
    return scene.gets(8, POST)


@fault(NODE, "takes requests and hangs", theirs="4 answered, 4 nothing", ours="6 answered, 2 504")
def hangs(scene: Scene) -> str:
    scene.with_nodes(hang)
    return scene.gets(8)


@fault(NODE, "is stopped (SIGSTOP)", theirs="4 answered, 4 nothing", ours="6 answered, 2 504")
def stopped(scene: Scene) -> str:
    scene.begin()
    with Worker(scene.router.subscriptions, options=("--stats", free_address())) as worker:
        wait_for(lambda: worker.address in scene.router.nodes("foo.com"), "the worker to be known")
        scene.node(answer(HELLO))
        worker.send_signal_to_all(signal.SIGSTOP)
        try:
            return told(outcome.replace("cut short", "answered") for outcome in (scene.outcome() for _ in range(8)))
        finally:
            worker.send_signal_to_all(signal.SIGCONT)


@fault(NODE, "takes POSTs and hangs", theirs="4 answered, 4 nothing", ours="6 answered, 2 504")
def hangs_on_posts(scene: Scene) -> str:
    scene.with_nodes(hang)
    return scene.gets(8, POST)


@fault(NODE, "is slow, and good", theirs="16 answered", ours="16 answered")
def slow(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:
        connection.read_head()
        connection.stopped.wait(0.5)
        connection.send(HELLO)

    scene.with_nodes(script)
    return scene.at_once(16)


@fault(NODE, "sends its answer a byte at a time", theirs="2 answered", ours="2 answered")
def drips(scene: Scene) -> str:
    scene.with_nodes(answer_slowly(HELLO, 8, 0.1), good=0)
    return scene.gets(2)


@fault(NODE, "answers garbage", theirs="4 cut short", ours="4 cut short")
def garbage(scene: Scene) -> str:
    scene.with_nodes(answer(b"\x00\xff garbage"), good=0)
    return scene.gets(4)


@fault(NODE, "resets in the middle of its answer", theirs="4 cut short", ours="4 reset")
def truncated(scene: Scene) -> str:
    scene.with_nodes(answer_then_reset(CUT), good=0)
    return scene.gets(4)


@fault(NODE, "closes in the middle of its answer", theirs="4 cut short", ours="4 cut short")
def closed_early(scene: Scene) -> str:
    scene.with_nodes(answer(CUT), good=0)
    return scene.gets(4)


@fault(NODE, "hangs in the middle of its answer", theirs="2 cut short", ours="2 reset")
def hangs_in_answer(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:
        connection.read_head()
        connection.send(CUT)
        hang(connection)

    scene.with_nodes(script, good=0)
    return scene.gets(2)


@fault(NODE, "answers with 64 KiB of headers", theirs="1 answered", ours="1 answered")
def huge_headers(scene: Scene) -> str:
    scene.with_nodes(answer(BIG), good=0)
    with connect(scene.router.address) as client:
        client.sendall(GET)
        got = b"".join(iter(lambda: client.recv(65536), b""))
    return "1 answered" if got == BIG else "1 cut short"


@fault(NODE, "answers before it has read the body of 20 MB", theirs="1 answered", ours="1 answered")
def early(scene: Scene) -> str:
    scene.with_nodes(answer_early(HELLO), good=0)
    return scene.gets(1, request("foo.com", method="POST", length=20_000_000) + b"b" * 20_000_000)


@fault(NODE, "closes while a body is sent to it", theirs="2 answered, 2 nothing", ours="2 answered, 2 502")
def closes_in_body(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:
        connection.read_head()
        connection.stopped.wait(0.1)  # as above

    scene.with_nodes(script, good=0)
    scene.node(answer(HELLO, body=4_000_000))
    return scene.gets(4, request("foo.com", method="POST", length=4_000_000) + b"b" * 4_000_000)


@fault(NODE, "all refuse connections", theirs="4 nothing", ours="4 503")
def all_refuse(scene: Scene) -> str:
    scene.with_address(free_address(), good=0)
    return scene.gets(4)


@fault(NODE, "all hang", theirs="8 nothing", ours="8 504")
def all_hang(scene: Scene) -> str:
    scene.with_nodes(hang, good=0)
    return scene.at_once(8)


@fault(
    NODE,
    "comes back where all had refused, and announces itself",
    theirs="2 nothing, then 4 answered",
    ours="2 503, then 4 answered",
)
def back(scene: Scene) -> str:
    address = free_address()
    scene.with_address(address, good=0)
    first = scene.gets(2)
    with ScriptedNode(answer(HELLO), address=address):
        announce(scene.router.subscriptions, "foo.com", address)
        scene.fence()
        return f"{first}, then {scene.gets(4)}"


@fault(
    NODE,
    "comes back where all had refused, and says nothing",
    theirs="2 nothing, then 4 nothing",
    ours="2 503, then 4 answered",
)
def back_silently(scene: Scene) -> str:
    address = free_address()
    scene.with_address(address, good=0)
    first = scene.gets(2)
    with ScriptedNode(answer(HELLO), address=address):
        time.sleep(2.5)
        return f"{first}, then {scene.gets(4)}"


@fault(NODE, "leaves, and another server takes its address", theirs="2 answered, 2 400", ours="2 answered, 2 400")
def reused(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:  # a web server, to which a uwsgi packet is a bad request
        connection.read()
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    scene.with_nodes(script, good=1)
    return scene.gets(4)


@fault(NODE, "says farewell while it works", theirs="1 answered", ours="1 answered")
def farewell(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:
        connection.read_head()
        connection.stopped.wait(1.0)
        connection.send(HELLO)

    scene.with_nodes(script, good=0)
    with connect(scene.router.address) as client:
        client.sendall(GET)
        wait_for(lambda: scene.nodes[0].connections, "the request to arrive")
        withdraw(scene.router.subscriptions, "foo.com", scene.nodes[0].address)
        return told([ending(client)])
