"""What is handed over to the next start, whatever version that is of, and what becomes of the routers of before."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import gevent.subprocess
import pytest

from router import handover, net, predecessors, supervisor
from router.child import Child
from router.cli import check
from router.handover import VARIABLE, Estate, Held, Old, execute, inherited, why_not
from router.options import Options
from router.pair import Decoder
from router.predecessors import Predecessor, Predecessors
from router.saved import save
from router.supervisor import Supervisor
from router.table import Table
from scripted import wait_for

STREAM = int(socket.SOCK_STREAM)
ME, PARENT = 4711, 4710


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def handed(record: object) -> dict[str, str]:
    """The environment of a start to which this is handed over."""
    memory = os.memfd_create("test", 0)
    os.write(memory, json.dumps(record).encode())
    os.lseek(memory, 0, os.SEEK_SET)
    return {VARIABLE: str(memory)}


# --- what is written and read -----------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [ME, PARENT])
def test_what_another_version_has_written_is_taken_as_far_as_it_is_known(pid: int) -> None:
    with socket.socket() as listener:
        os.set_inheritable(fd := listener.fileno(), True)
        environ = handed({
            "pid": pid, "held": [{"address": ":1", "kind": STREAM, "fd": fd, "new": 1}], "routers": [], "state": 7,
            "new": {},
        })  # fmt: skip
        estate = inherited(environ, ME, PARENT)
        assert estate == Estate([Held(":1", STREAM, fd)], state=7, resumed=True)
        assert environ == {} and not os.get_inheritable(fd)


def test_what_was_handed_to_another_process_is_not_ours() -> None:
    before = open_descriptors()
    assert inherited(handed({"pid": 1}), ME, PARENT) == Estate()
    assert open_descriptors() == before


@pytest.mark.parametrize("record", [[], {"pid": ME}, {"pid": ME, "held": [{"address": ":1"}], "routers": []}])
def test_what_cannot_be_read_is_said(record: object) -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match=f"^cannot read what {VARIABLE}=[0-9]+ hands over: "):
        inherited(handed(record), ME, PARENT)
    assert open_descriptors() == before


def test_an_exec_that_fails_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def execve(_path: str, _argv: list[str], environ: dict[str, str]) -> None:
        seen.append(os.get_inheritable(fd) and os.get_inheritable(int(environ[VARIABLE])))
        seen.append(inherited({VARIABLE: str(os.dup(int(environ[VARIABLE])))}, os.getpid(), PARENT))
        os.set_inheritable(fd, True)
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(os, "execve", execve)
    with socket.socket() as listener:
        fd, before = listener.fileno(), open_descriptors()
        estate = Estate([Held(":1", STREAM, fd, (1, 2))], state={"a": [1]}, spoken=["dns"], again=True)
        execute(estate)
        assert seen[0]
        assert (seen[1].state, seen[1].spoken, seen[1].again) == ({"a": [1]}, ["dns"], True)
        assert open_descriptors() == before and not os.get_inheritable(fd)


# --- unix sockets -----------------------------------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    sock = net.bind(path := str(tmp_path / "a.sock"))
    yield Held(path, STREAM, sock.fileno(), net.identity(sock))
    sock.detach()


@pytest.mark.parametrize("vacuum", [True, False])
def test_a_socket_whose_file_is_there_is_taken_and_one_that_is_not_wanted_is_closed(held: Held, vacuum: bool) -> None:
    estate = Estate([held])
    assert estate.take(held.address, int(socket.SOCK_DGRAM)) is None
    taken = estate.take(held.address, STREAM)
    assert taken and (taken.fileno(), taken.gettimeout(), estate.held) == (held.fd, 0.0, [])
    estate.held = [held]
    taken.detach()
    estate.close_rest(vacuum)
    assert Path(held.address).exists() is not vacuum and not is_open(held.fd)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_socket_whose_file_is_gone_or_anothers_is_bound_anew(held: Held, replaced: bool) -> None:
    os.unlink(held.address)
    theirs = net.bind(held.address) if replaced else None
    estate = Estate([held])
    assert estate.take(held.address, STREAM) is None
    estate.close_rest(vacuum=True)
    assert Path(held.address).exists() is replaced, "what is another's stays"
    assert not is_open(held.fd)
    if theirs:
        theirs.close()


# --- the check --------------------------------------------------------------------------------------------


def nothing_known() -> dict[str, Any]:
    return save(Table(), (), now=monotonic(), wall=time())


def test_a_check_finds_what_the_start_could_not_use() -> None:
    options = Options(discovery=("subscription",), listen=("127.0.0.1:0",), admin="off", subscription_server=())
    assert check(options, Estate(state=nothing_known(), resumed=True)) == []
    (problem,) = check(options, Estate(state=nothing_known() | {"version": 2}, resumed=True))
    assert "its version is 2, and this gfrouter reads version 1" in problem


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this text the program that is started anew."""

    def program(text: str) -> None:
        monkeypatch.setattr(sys, "orig_argv", ["python", "-c", text])

    return program


def test_a_check_is_handed_the_sockets_and_its_last_line_is_the_reason(program: Any) -> None:
    program(
        """
import os, sys
from router.handover import *
estate = inherited(os.environ, os.getpid(), os.getppid())
os.fstat(estate.held[0].fd), os.fstat(GIVEN)
sys.exit(f"first line\\n{sys.argv[1]} {estate.state} {estate.resumed}" if estate.held[0].address == ":1" else 0)
""".replace("GIVEN", str(given := os.open(os.devnull, os.O_RDONLY)))
    )
    with socket.socket() as listener:
        assert why_not(Estate([Held(":1", STREAM, listener.fileno())], state=8), [given]) == "--check 8 True"
    os.close(given)
    assert not any("gfrouter-handover" in os.readlink(entry.path) for entry in os.scandir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        ("import sys; sys.exit(3)", "--check ended with status 3"),
        ("import time; time.sleep(60)", "--check did not end within 1 s"),
    ],
)
def test_a_check_that_says_nothing(text: str, why: str, program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "sleep" in text:
        monkeypatch.setattr(handover, "CHECK_WAIT", 1.0)
    program(text)
    assert why_not(Estate(), []) == why


def test_a_program_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert why_not(Estate(), []).startswith("cannot execute /no/such/python: ")


# --- the routers of before --------------------------------------------------------------------------------


class Before:
    """A router of before that does as little as it can, and our end of its pair."""

    def __init__(self, **old: Any) -> None:
        ours, self.theirs = socket.socketpair()
        self.process = gevent.subprocess.Popen(["sleep", "60"])
        self.one = Predecessor(Old(self.process.pid, ours.detach(), **old))

    def heard(self) -> list[Any]:
        self.theirs.settimeout(5)
        decoder = Decoder()
        heard: list[Any] = []
        while data := self.theirs.recv(1 << 20):
            heard += decoder.feed(data)
            if heard:
                break
        return heard

    def __enter__(self) -> Before:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.one.run()
        self.theirs.close()


def test_it_is_told_to_stop_once_and_the_next_start_knows_until_when() -> None:
    with Before() as before:
        before.one.stop(30)
        until = before.one.bequest().until
        assert before.heard() == [{"stop": True}] and until and 0 < until - monotonic() <= 30
        before.one.stop(60)
        assert before.one.bequest() == Old(before.process.pid, before.one.pair.fileno(), until)
        before.theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            before.theirs.recv(1)


def test_one_that_must_not_be_told_sees_the_end() -> None:
    with Before(midway=True) as before:
        before.one.stop(30)
        assert before.heard() == []
        assert before.one.bequest().midway


def test_one_that_does_not_read_keeps_nobody_waiting() -> None:
    with Before() as before:
        assert before.one.pair.gettimeout() == 0.0
        with suppress(BlockingIOError):
            while True:
                before.one.pair.send(bytes(1 << 16))
        with gevent.Timeout(5):
            before.one.stop(30)
        before.theirs.settimeout(5)
        while before.theirs.recv(1 << 20):
            pass  # up to the end


def test_one_that_does_not_end_is_killed_and_no_zombie_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessors, "KILL_WAIT", 0.1)
    monkeypatch.setattr(predecessors, "LOOK", 0.05)
    gevent.sleep(0)  # the hub has descriptors as well
    before = open_descriptors()
    process = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    ours, theirs = socket.socketpair()
    them = Predecessors([Old(process, ours.detach())])
    gevent.sleep(0.3)
    assert len(them.alive) == 1, "nobody has told it to end"
    them.stop(0.1)
    gevent.joinall(them.greenlets, timeout=10)
    assert not them.alive and not them.bequests()
    assert not os.path.exists(f"/proc/{process}")
    theirs.close()
    assert open_descriptors() == before


def test_one_that_has_ended_already_is_no_matter() -> None:
    process = os.posix_spawnp("true", ["true"], os.environ)
    os.waitpid(process, 0)
    ours, theirs = socket.socketpair()
    with theirs:
        them = Predecessors([Old(process, ours.detach())])
        them.kill()
        gevent.joinall(them.greenlets, timeout=10)
        assert them.alive == []


@pytest.mark.parametrize(("told", "sending", "midway"), [(True, None, False), (False, None, True), (True, 1.0, True)])
def test_who_has_not_read_a_whole_message_is_midway(told: bool, sending: float | None, midway: bool) -> None:
    child = Child.__new__(Child)
    child.told, child.sending_since = told, sending
    assert child.is_midway() is midway


# --- starting anew ----------------------------------------------------------------------------------------


class Anew(Exception):
    """It has come so far."""


@pytest.mark.parametrize("again", [False, True])
def test_a_start_whose_routers_never_accept_can_be_replaced(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "READY_WAIT", 0.2)

    def start_anew() -> None:
        raise Anew

    fleet = SimpleNamespace(ready=lambda: False, count=lambda: True)
    one: Any = SimpleNamespace(
        fleet=fleet, reload=gevent.event.Event(), estate=Estate(again=again), start_anew=start_anew
    )
    greenlet = gevent.spawn(Supervisor.succeed, one)
    if not again:
        greenlet.join(0.4)
        assert not greenlet.dead, "nobody has asked for it"
        one.reload.set()
    with pytest.raises(Anew):
        greenlet.get(timeout=5)


def test_signals_that_come_during_an_exec_wait() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        with handover.signals_held_back():
            signal.pthread_kill(threading.get_ident(), signal.SIGHUP)  # the test's process has other threads
            assert heard == []
        wait_for(lambda: heard == [signal.SIGHUP], "the signal")
    finally:
        signal.signal(signal.SIGHUP, before)
