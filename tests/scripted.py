"""A node that answers by script, and places that do not answer at all, for tests that need one exact misbehaviour.

    with ScriptedNode(close_at_once, answer(HELLO)) as node:     # the n-th connection gets the n-th script,
        ...node.address...                                       # the last script serves all further ones
        node.connections[0].received                             # every byte the router sent to it

    ScriptedNode(*scripts, address="127.0.0.1:0")   or [::1]:0, a unix path, @name; `.address` is the real one
    NodeConnection  .received .head .body .eof  .read(n) .read_head() .read_body(n) .read_to_end() .send(data) .reset()
    scripts: close_at_once reset_at_once close_after_head reset_after_head hang
             answer(data, body=N) answer_early(data) answer_slowly(data, piece, pause) answer_then_reset(data)
             read_slowly(piece, pause, data) when(event, script)
             any function that takes a NodeConnection is a script too
    Blackhole()   `.address` of a listener with a full backlog: a connect there neither succeeds nor fails

Plain threads and blocking sockets, no gevent: it goes on serving while a test's hub is busy, and nothing it does can
hide a fault of the router. When a script returns, its socket is closed; `stop()` ends the scripts that hang.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
GIVE_UP_S = 20  # a script never waits longer than this for the router, so that no thread outlives its test for long


class NodeConnection:
    """One connection as the node sees it. Reads record what came in `received`; a reset counts as the end."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self.stopped = stopped
        self.received = bytearray()
        self.eof = False  # the router ended the connection: FIN or reset
        sock.settimeout(GIVE_UP_S)

    @property
    def head(self) -> bytes:
        """The uwsgi header and vars, as far as they have arrived."""
        return bytes(self.received[: self._head_size()])

    @property
    def body(self) -> bytes:
        """What came after the vars."""
        return bytes(self.received[self._head_size() :])

    def read(self, size: int = 65536) -> bytes:
        """At most `size` bytes; b"" at the end of the connection."""
        try:
            data = self.sock.recv(size)
        except ConnectionError:
            data = b""
        self.eof = self.eof or not data
        self.received += data
        return data

    def read_head(self) -> bytes:
        """Reads until header and vars are whole, not necessarily stopping there; returns them."""
        while len(self.received) < self._head_size() and self.read():
            pass
        return self.head

    def read_body(self, size: int) -> bytes:
        """Reads until `size` bytes of body are there, or the connection ends."""
        self.read_head()
        while len(self.received) < self._head_size() + size and self.read():
            pass
        return self.body

    def read_to_end(self) -> bytes:
        """Reads until the router ends the connection; returns the body."""
        while self.read():
            pass
        return self.body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """Ends the connection with a TCP reset in place of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _head_size(self) -> int:
        return 4 + struct.unpack_from("<H", self.received, 1)[0] if len(self.received) >= 4 else 4


Script = Callable[[NodeConnection], None]


def close_at_once(connection: NodeConnection) -> None:
    """Accepts and closes. With the head still unread the kernel may turn the FIN into a reset."""


def reset_at_once(connection: NodeConnection) -> None:
    connection.reset()


def close_after_head(connection: NodeConnection) -> None:
    """Takes the whole head, then a clean FIN without one byte of answer."""
    connection.read_head()


def reset_after_head(connection: NodeConnection) -> None:
    connection.read_head()
    connection.reset()


def hang(connection: NodeConnection) -> None:
    """Reads everything, answers nothing, until the router leaves or the node is stopped."""
    connection.sock.settimeout(0.05)
    while not connection.stopped.is_set():
        with contextlib.suppress(TimeoutError):
            if not connection.read():
                return


def answer(data: bytes = HELLO, body: int = 0) -> Script:
    """Takes the head and `body` bytes after it, sends `data`, closes."""

    def script(connection: NodeConnection) -> None:
        connection.read_body(body)
        connection.send(data)

    return script


def answer_early(data: bytes = HELLO) -> Script:
    """Answers as soon as the head is there, while the body is still coming, then reads on to the end."""

    def script(connection: NodeConnection) -> None:
        connection.read_head()
        sender = threading.Thread(target=_send_quietly, args=(connection, data), daemon=True)
        sender.start()
        connection.read_to_end()
        sender.join()

    return script


def answer_slowly(data: bytes, piece: int, pause: float) -> Script:
    """Sends `data` in pieces of `piece` bytes with `pause` seconds between two."""

    def script(connection: NodeConnection) -> None:
        connection.read_head()
        for start in range(0, len(data), piece):
            connection.send(data[start : start + piece])
            connection.stopped.wait(pause)

    return script


def answer_then_reset(data: bytes) -> Script:
    """A truncated answer: `data`, then a reset once the router has had time to read it."""

    def script(connection: NodeConnection) -> None:
        connection.read_head()
        connection.send(data)
        wait_for(lambda: _unsent(connection.sock) == 0, "the router to take the data")
        connection.reset()

    return script


def read_slowly(piece: int, pause: float, body: int, data: bytes = HELLO) -> Script:
    """Takes a body of `body` bytes in pieces of `piece` with `pause` seconds between two, then answers."""

    def script(connection: NodeConnection) -> None:
        connection.read_head()
        while len(connection.body) < body and connection.read(piece):
            connection.stopped.wait(pause)
        connection.send(data)

    return script


def when(event: threading.Event, script: Script) -> Script:
    """Plays `script` only once `event` is set."""

    def play(connection: NodeConnection) -> None:
        connection.read_head()
        event.wait(10)
        script(connection)

    return play


class ScriptedNode:
    """Listens from construction on; one thread accepts, one thread plays each connection's script."""

    def __init__(self, *scripts: Script, address: str = "127.0.0.1:0") -> None:
        self.scripts = scripts or (answer(),)
        self.connections: list[NodeConnection] = []
        self.stopped = threading.Event()
        self._listener = listen(address)
        self.address = address_of(self._listener)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """Closes the listener and every connection, and waits for the scripts to end."""
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept; closing alone would not
        self._threads[0].join(GIVE_UP_S)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(GIVE_UP_S)
        self._listener.close()
        if self.address.startswith("/"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = NodeConnection(sock, self.stopped)
            script = self.scripts[min(len(self.connections), len(self.scripts) - 1)]
            self.connections.append(connection)
            self._threads.append(threading.Thread(target=_play, args=(script, connection), daemon=True))
            self._threads[-1].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()


class Blackhole:
    """A listener that never accepts, its backlog filled, so that the kernel drops every further SYN."""

    def __init__(self) -> None:
        self._listener = listen("127.0.0.1:0", backlog=0)
        self.address = address_of(self._listener)
        self._fill: list[socket.socket] = []

    def __enter__(self) -> Self:
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self._listener.getsockname())
            self._fill.append(sock)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for sock in (*self._fill, self._listener):
            sock.close()


def listen(address: str, backlog: int = 128) -> socket.socket:
    """A listening socket at any form of address that `split` knows (port 0: any free one)."""
    sock = socket.socket(family_of(address))
    if sock.family != socket.AF_UNIX:
        # As every server: connections of an earlier one that linger in TIME_WAIT do not hold up the next.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(split(address))
    sock.listen(backlog)
    return sock


def connect(address: str, timeout: float = 10) -> socket.socket:
    """A blocking connection to such an address, every call on it bounded by `timeout` seconds."""
    sock = socket.socket(family_of(address))
    sock.settimeout(timeout)
    try:
        sock.connect(split(address))
    except OSError:
        sock.close()
        raise
    return sock


def ends_in_a_reset(sock: socket.socket) -> bool:
    """Reads to the end, which is a reset or a FIN."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def family_of(address: str) -> socket.AddressFamily:
    if address.startswith(("/", "@")):
        return socket.AF_UNIX
    return socket.AF_INET6 if address.startswith("[") else socket.AF_INET


def split(address: str) -> Any:
    """What the socket module wants for `127.0.0.1:3031`, `localhost:3031`, `[::1]:3031`, `/a/path` and `@name`.

    The abstract name has a NUL behind it, too, as uWSGI's have. Written here anew, not with the router's grammar, so
    that neither proves the other by itself.
    """
    if address.startswith("@"):
        return b"\0" + os.fsencode(address[1:]) + b"\0"
    if address.startswith("/"):
        return address
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def address_of(sock: socket.socket) -> str:
    """Where a socket is bound, in the same forms; "" where it is not."""
    name = sock.getsockname()
    if isinstance(name, bytes):
        return "@" + os.fsdecode(name.strip(b"\0")) if name else ""
    if isinstance(name, str):
        return name
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def freeze(pid: int, sleep: Callable[[float], object] = time.sleep) -> None:
    """SIGSTOP to this process, and waits until it has stopped: on a busy machine its threads run on for a while."""
    os.kill(pid, signal.SIGSTOP)
    wait_frozen(pid, sleep)


def wait_frozen(pid: int, sleep: Callable[[float], object] = time.sleep) -> None:
    def stopped(task: Path) -> bool:
        with contextlib.suppress(OSError):  # it has ended
            return (task / "stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
        return True

    wait_for(lambda: all(map(stopped, Path(f"/proc/{pid}/task").glob("*"))), f"{pid} to stop", sleep=sleep)


def wait_for(
    condition: Callable[[], T],
    what: str = "",
    timeout: float = 30,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Returns the first true value of `condition`, asked again and again; AssertionError naming `what` after `timeout`.

    In a test that runs a gevent hub in its own process pass `sleep=gevent.sleep`.
    """
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout} s in vain for {what or condition}"
        sleep(0.01)
    return value


def _play(script: Script, connection: NodeConnection) -> None:
    # A router that leaves early is an ordinary event for a node; what was received stays for the test to judge.
    with contextlib.suppress(OSError):
        script(connection)
    connection.sock.close()


def _send_quietly(connection: NodeConnection, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.send(data)


def _unsent(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged yet (SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
