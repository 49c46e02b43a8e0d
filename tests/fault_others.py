"""The rows of the table of faults (faults.py) that are about clients, announcements and processes."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from clients import announce, datagram, packet, request
from faults import CLIENT, GET, LIMIT, PATIENCE, PROCESS, SOURCE, Scene, ending, fault, told
from scripted import (
    HELLO,
    NodeConnection,
    ScriptedNode,
    answer,
    connect,
    hang,
    wait_for,
)
from servers import UWSGI

BIG = b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 65536 + b"\r\n\r\nhello"
CUT = HELLO[:-2]

# Clients.


@fault(CLIENT, "leaves while the node works", theirs="the node is let go", ours="the node is let go")
def leaves(scene: Scene) -> str:
    scene.with_nodes(hang, good=0)
    with connect(scene.router.address) as client:
        client.sendall(GET)
        wait_for(lambda: scene.nodes[0].connections, "the request to arrive")
    wait_for(lambda: scene.nodes[0].connections[0].eof, "the node to be let go")
    scene.router.wait_idle()
    return "the node is let go"


@fault(
    CLIENT,
    "sends a byte of its head now and then",
    theirs="is served for as long as it likes",
    ours="is closed after the time limit",
)
def loris(scene: Scene) -> str:
    scene.with_nodes(good=1)
    with connect(scene.router.address, 0.5) as client:
        for byte in GET[:16]:
            with contextlib.suppress(TimeoutError):
                with contextlib.suppress(ConnectionError):  # the byte met the close
                    client.sendall(bytes([byte]))
                    client.recv(1000)
                return "is closed after the time limit"
    return "is served for as long as it likes"


@fault(CLIENT, "sends nothing", theirs="1 nothing", ours="1 400")
def silent(scene: Scene) -> str:
    scene.with_nodes(good=1)
    with connect(scene.router.address, PATIENCE) as client:
        client.sendall(GET[:2])
        return told([ending(client)])


@fault(CLIENT, "sends a packet that is none", theirs="2 nothing", ours="2 400")
def malformed(scene: Scene) -> str:
    scene.with_nodes(good=1)
    return scene.gets(2, struct.pack("<BHB", 0, 8, 0) + b"\xff" * 8)


@fault(CLIENT, "speaks HTTP to the uwsgi port", theirs="2 nothing", ours="2 400")
def http(scene: Scene) -> str:
    scene.with_nodes(good=1)
    return scene.gets(2, b"GET / HTTP/1.1\r\nHost: foo.com\r\n\r\n")


@fault(CLIENT, "sends no key", theirs="2 nothing", ours="2 400")
def no_key(scene: Scene) -> str:
    scene.with_nodes(good=1)
    return scene.gets(2, packet([("REQUEST_METHOD", "GET")]))


@fault(CLIENT, "asks for a key that nobody serves", theirs="2 nothing", ours="2 404")
def unknown(scene: Scene) -> str:
    scene.with_nodes(good=1)
    return scene.gets(2, request("nobody.com"))


@fault(CLIENT, "sends 60 KB of headers", theirs="2 answered", ours="2 answered")
def huge_request(scene: Scene) -> str:
    scene.with_nodes(good=1)
    return scene.gets(2, request("foo.com", HTTP_COOKIE="c" * 60_000))


@fault(CLIENT, "does not read its answer of 8 MB for longer than the time limit", theirs="1 cut short", ours="1 reset")
def unread(scene: Scene) -> str:
    scene.with_nodes(answer(HELLO + b"b" * 8_000_000), good=0)
    with connect(scene.router.address) as client:
        client.sendall(GET)
        time.sleep(LIMIT + 2.5)
        return told([ending(client)])


@fault(CLIENT, "are 500 that say nothing, beside one that asks", theirs="4 answered", ours="4 answered")
def many_idle(scene: Scene) -> str:
    scene.with_nodes(good=1)
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(connect(scene.router.address)).sendall(b"\0")
        return scene.gets(4)


@fault(CLIENT, "leaves in the middle of its upload", theirs="the node is let go", ours="the node is let go")
def leaves_in_upload(scene: Scene) -> str:
    scene.with_nodes(hang, good=0)
    with connect(scene.router.address) as client:
        client.sendall(request("foo.com", method="POST", length=1_000_000) + b"b" * 100_000)
        wait_for(lambda: scene.nodes[0].connections, "the request to arrive")
    wait_for(lambda: scene.nodes[0].connections[0].eof, "the node to be let go")
    scene.router.wait_idle()
    return "the node is let go"


@fault(CLIENT, "closes its half of the connection after the request", theirs="1 nothing", ours="1 nothing")
def half_closes(scene: Scene) -> str:
    def script(connection: NodeConnection) -> None:  # time enough to see that the client has closed
        connection.read_head()
        connection.stopped.wait(1)
        connection.send(HELLO)

    scene.with_nodes(script, good=0)
    with connect(scene.router.address, PATIENCE) as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        return told([ending(client)])


# Announcements.


@fault(SOURCE, "are garbage, 500 datagrams of it", theirs="4 answered", ours="4 answered")
def garbage_datagrams(scene: Scene) -> str:
    scene.with_nodes(good=1)
    for number in range(500):
        datagram(scene.router.subscriptions, os.urandom(number % 200))
    return scene.gets(4)


@fault(SOURCE, "come from 500 nodes at once", theirs="4 answered", ours="4 answered")
def mass_rejoin(scene: Scene) -> str:
    scene.with_nodes(good=1)
    for number in range(500):
        announce(scene.router.subscriptions, f"{number}.com", f"127.0.0.1:{20_000 + number}")
    scene.fence()
    return scene.gets(4)


@fault(SOURCE, "stop, and the node with them", theirs="1 answered, then forgotten", ours="1 answered, then forgotten")
def silence(scene: Scene) -> str:
    scene.begin(subscription_tolerance=1)
    with ScriptedNode(answer(HELLO)) as node:
        scene.announce(node.address)
        first = scene.gets(1)
    time.sleep(3.5)
    scene.gets(1)  # the fastrouter notices by a request only
    return f"{first}, then {'known' if scene.router.nodes('foo.com') else 'forgotten'}"


@fault(SOURCE, "name a key twice, at two addresses of one node", theirs="4 answered", ours="4 answered")
def moved(scene: Scene) -> str:
    scene.with_nodes(good=1)
    address = scene.nodes[-1].address
    announce(scene.router.subscriptions, "foo.com", address, weight=2)
    scene.fence()
    return scene.gets(4)


# Processes.


@fault(PROCESS, "the router process is killed", theirs="2 answered, then 4 nothing", ours="2 answered, then 4 answered")
def killed(scene: Scene) -> str:
    scene.with_nodes(good=1)
    before = scene.gets(2)
    os.kill(scene.router.pids()[1], signal.SIGKILL)
    scene.router.wait_line("respawned uWSGI fastrouter 1 ")
    wait_for(lambda: connects(scene), "the router to listen")
    return f"{before}, then {scene.gets(4)}"


@fault(
    PROCESS, "all of it is stopped for longer than nodes may be silent (SIGSTOP)", theirs="4 nothing", ours="4 answered"
)
def paused(scene: Scene) -> str:
    scene.begin(subscription_tolerance=4)
    scene.node(answer(HELLO))
    scene.router.send_signal_to_all(signal.SIGSTOP)
    time.sleep(5.5)
    scene.router.send_signal_to_all(signal.SIGCONT)
    return scene.gets(4)


@fault(
    PROCESS,
    "the configuration is read again (SIGHUP)",
    theirs="2 answered, then 4 nothing",
    ours="2 answered, then 4 answered",
)
def reloaded(scene: Scene) -> str:
    # pyuwsgi would execute the interpreter again, whose first word is its own script.
    again = scene.folder / "uwsgi"
    again.write_text(f'#!/bin/sh\nshift\nexec {UWSGI} "$@"\n')
    again.chmod(0o700)
    scene.begin(*(("--binary-path", str(again)) if scene.fastrouter else ()))
    scene.node(answer(HELLO))
    before = scene.gets(2)
    scene.router.send_signal(signal.SIGHUP)
    time.sleep(3)
    return f"{before}, then {scene.gets(4)}"


@fault(PROCESS, "the supervisor is stopped (SIGSTOP)", theirs="4 answered", ours="4 answered")
def supervisor_stopped(scene: Scene) -> str:
    scene.with_nodes(good=1)
    scene.router.send_signal(signal.SIGSTOP)
    seen = scene.gets(4)
    scene.router.send_signal(signal.SIGCONT)
    return seen


@fault(PROCESS, "descriptors are exhausted by clients that say nothing", theirs="2 answered", ours="2 answered")
def no_descriptors(scene: Scene) -> str:
    scene.begin(launcher=("sh", "-c", 'ulimit -n 100; exec "$@"', "sh"))
    scene.node(answer(HELLO))
    with contextlib.ExitStack() as stack:
        for _ in range(120):
            stack.enter_context(connect(scene.router.address)).sendall(b"\0")
        return told(scene.outcome(patience=25) for _ in range(2))


@fault(
    PROCESS,
    "everything is killed (SIGKILL) and started again",
    theirs="2 answered, then 4 nothing",
    ours="2 answered, then 4 answered",
)
def restarted(scene: Scene) -> str:
    state = scene.folder / "state"
    scene.begin(state_file=state)
    scene.node(answer(HELLO))
    before = scene.gets(2)
    wait_for(lambda: scene.fastrouter or (state.exists() and b"foo.com" in state.read_bytes()), "the state")
    scene.router.kill()
    scene.start_again(state_file=state)
    return f"{before}, then {scene.gets(4)}"


@fault(
    PROCESS,
    "the clock is put forward by a day",
    theirs="2 answered, then 4 nothing",
    ours="2 answered, then 4 answered",
)
def clock_jump(scene: Scene) -> str:
    """A library before the C library's adds to what the time is: so many seconds as a file has bytes."""
    library, ahead = scene.folder / "ahead.so", scene.folder / "ahead"
    ahead.touch()
    compiled = ["cc", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("clock_ahead.c")), "-ldl"]
    subprocess.run(compiled, check=True)
    scene.begin(env={"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(ahead)})
    scene.node(answer(HELLO))
    before = scene.gets(2)
    os.truncate(ahead, 86_400)
    return f"{before}, then {scene.gets(4)}"


def connects(scene: Scene) -> bool:
    with contextlib.suppress(OSError), connect(scene.router.address):
        return True
    return False
