"""The log's stream: a reader that is slow, stuck or gone keeps nobody waiting, and is told what it has missed."""

import contextlib
import errno
import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from select import PIPE_BUF

import gevent
import pytest

from clients import announce, ask, read_to_end, request
from one_router import OneRouter
from router import logstream
from router.logstream import MOST_BYTES, LogStream, pieces
from router.node import Node
from scripted import HELLO, ScriptedNode, connect, wait_for
from servers import as_words, free_address, router_command


class Pipe:
    """A pipe that is full until somebody reads, as a log goes to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        own = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        self.filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.filled += os.write(own, PIPE_BUF * b".")
        os.close(own)
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        """What is in it, but for what has filled it first."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reader, 1 << 16):
                data += chunk
        skipped = min(self.filled, len(data))
        self.filled -= skipped
        return data[skipped:]

    def close(self) -> None:
        os.close(self.writer)
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_what_a_stuck_reader_has_missed_comes_when_it_is_back_and_in_order(pipe: Pipe) -> None:
    log = LogStream(pipe.writer)
    log.write("one\n")
    log.write("two\n")
    assert (pipe.read(), os.get_blocking(pipe.writer)) == (b"", True), "nor is the open file of the others changed"
    log.write("three\n")
    assert pipe.read() == b"one\ntwo\nthree\n"


def test_what_is_pending_goes_out_without_another_line(pipe: Pipe) -> None:
    LogStream(pipe.writer).write("one\n")
    pipe.read()
    wait_for(lambda: pipe.read() == b"one\n", "the line", sleep=gevent.sleep)


def test_beyond_what_is_kept_lines_are_dropped_and_counted(pipe: Pipe) -> None:
    log = LogStream(pipe.writer)
    line = 999 * "x" + "\n"
    kept = MOST_BYTES // len(line)
    for _ in range(kept + 5):
        log.write(line)
    log.write("two\nlines\n")
    data = b""
    for _ in range(2 * MOST_BYTES // PIPE_BUF):
        data += pipe.read()
        log.flush()
    log.write("after\n")
    assert data + pipe.read() == (kept * line + "*** 7 log lines dropped here: nobody read them ***\nafter\n").encode()


@pytest.mark.parametrize("is_newer", [True, False], ids=["pwritev2", "poll"])
def test_another_users_pipe_keeps_nobody_waiting_either(
    pipe: Pipe, is_newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    def unknown(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "open", refuse)
    if not is_newer:
        monkeypatch.setattr(os, "pwritev", unknown)
    log = LogStream(pipe.writer)
    log.write("one\n")
    assert pipe.read() == b""
    log.write("two\n")
    assert pipe.read() == b"one\ntwo\n"


def test_a_socket_keeps_nobody_waiting_and_loses_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = LogStream(ours.fileno())
        text = "".join(f"{number}\n" for number in range(100_000))
        for start in range(0, len(text), 1000):
            log.write(text[start : start + 1000])
        data = b""
        while len(data) < len(text):
            data += theirs.recv(1 << 16)
            log.flush()
        assert data.decode() == text
        assert ours.getblocking()


def test_a_reader_that_is_gone_and_a_full_disk_raise_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = LogStream(writer)
    log.write("one\n")
    log.write("two\n")
    log.finish()
    os.close(writer)
    with open("/dev/full", "wb") as full:
        LogStream(full.fileno()).write("one\n")


def test_files_and_terminals_are_written_to(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        LogStream(file.fileno()).write("one \udcff\n")
        assert (tmp_path / "log").read_bytes() == b"one \\udcff\n"
    ours, theirs = pty.openpty()
    LogStream(theirs).write("one\n")
    assert os.read(ours, 100) == b"one\r\n"
    os.close(ours)
    os.close(theirs)


def test_writes_are_whole_lines() -> None:
    data = b"".join(b"%d\n" % number for number in range(5000))
    cut = [*pieces(data), *pieces(5000 * b"x")]
    assert b"".join(cut) == data + 5000 * b"x"
    assert all(len(piece) <= PIPE_BUF for piece in cut)
    assert [piece[-1:] for piece in cut[:-2]] == [b"\n"] * (len(cut) - 2)


def test_at_the_end_a_reader_has_a_moment(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logstream, "RETRY", 0.01)
    log = LogStream(pipe.writer)
    log.write("one\n")
    waits: list[float] = []

    def read(_fd: int, seconds: float) -> None:
        waits.append(seconds)
        pipe.read()

    monkeypatch.setattr(logstream, "wait_writable", read)
    log.finish()
    assert (len(waits), pipe.read()) == (1, b"one\n")


def test_a_router_whose_log_nobody_reads_goes_on(pipe: Pipe) -> None:
    with OneRouter(log=Path(f"/proc/self/fd/{pipe.writer}")) as router, ScriptedNode() as node:
        router.table({"foo.com": [Node(node.address)]})
        with connect(router.address) as client:
            client.sendall(request(""))
            assert read_to_end(client) == b""
        assert ask(router.address, request("foo.com")) == HELLO
        assert router.counts()["complaints"] == {"no key": 1}
        pipe.read()
        wait_for(lambda: b"UWSGI_FASTROUTER_KEY" in pipe.read(), "the line")


@pytest.mark.slow
def test_a_whole_gfrouter_whose_log_nobody_reads_goes_on(pipe: Pipe) -> None:
    listen, subscriptions, stats, admin = (free_address() for _ in range(4))
    options = {
        "listen": listen,
        "subscription_server": subscriptions,
        "stats": stats,
        "admin": admin,
        "warm_timeout": 0,
    }
    words = map(str, [*router_command(False), *as_words(options, False)])
    process = subprocess.Popen([*words], stdin=subprocess.DEVNULL, stdout=pipe.writer, stderr=pipe.writer)

    def shown() -> dict[str, object]:
        with contextlib.suppress(OSError), connect(stats) as client:
            found: dict[str, object] = json.loads(read_to_end(client))
            return found
        return {}

    try:
        with ScriptedNode() as node:
            wait_for(lambda: shown().get("routers"), "the router")
            announce(subscriptions, "foo.com", node.address)
            wait_for(lambda: ask(listen, request("foo.com")) == HELLO, "the node")
        with connect(admin) as client:
            client.sendall(b"GET /v1/status HTTP/1.0\r\n\r\n")
            assert read_to_end(client).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
