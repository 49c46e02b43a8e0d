"""The state file: written atomically when something is new, and the next start begins with it, whatever is in it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic, time
from typing import Any

import gevent
import pytest

from clients import announce, ask, request, withdraw
from router.node import Node
from router.operate import drain
from router.sourcestate import Watched
from router.statefile import EVERY, MOST_BYTES, StateFile
from router.table import Table
from scripted import HELLO, ScriptedNode, answer, wait_for
from servers import Router, free_address

GET = request("foo.com")
NODE = Node("10.0.0.1:3031")


class Quiet:
    """A source that says nothing."""

    name = "consul"

    def run(self, feed: object) -> None:
        raise NotImplementedError


class One:
    """A table with one source, and its state file."""

    def __init__(self, path: Path) -> None:
        self.table = Table()
        self.feed = self.table.feed("consul")
        sources = [Watched(Quiet(), self.feed)]
        self.file = StateFile(str(path), self.table, sources, lambda: self.feed.progressed)

    def known(self) -> dict[str, list[Node]]:
        return {key: self.table.nodes(key) for key in self.table.pools}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def kept(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_what_one_start_writes_the_next_one_begins_with(path: Path) -> None:
    before, after = One(path), One(path)
    before.feed.replace({"foo.com": [NODE]})
    before.file.write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    after.file.restore()
    assert after.known() == {"foo.com": [NODE]}
    assert after.feed.stale_since and not after.feed.spoken
    assert sorted(os.listdir(path.parent)) == ["state"]


def test_a_first_start_finds_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = One(path)
    one.file.restore()
    assert (one.known(), caplog.messages) == ({}, [f"state file {path}: none yet"])


WHOLE = {
    "what": "gfrouter state",
    "version": 1,
    "time": 1.0,
    "sources": {},
    "names": {},
    "out": [],
    "drained": [[], []],
}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\0" * 100, "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "no JSON"),
        (json.dumps(WHOLE).encode()[:-20], "no JSON"),
        (b"[]", "no state of a gfrouter"),
        (b'{"what": "something else"}', "no state of a gfrouter"),
        (json.dumps(WHOLE | {"version": 2}).encode(), "its version is 2"),
        (json.dumps(WHOLE | {"time": time() + 9000}).encode(), "in the future"),
    ],
)
def test_what_is_of_no_use_is_set_aside(path: Path, content: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(content)
    one = One(path)
    one.file.restore()
    assert one.known() == {}
    (line,) = caplog.messages
    assert line.startswith(f"state file {path}: ignored, and kept as {path}.bad: ") and why in line
    assert Path(f"{path}.bad").read_bytes() == content
    one.feed.replace({"foo.com": [NODE]})
    one.file.write()
    assert kept(path)["sources"]["consul"]["pools"].keys() == {"foo.com"}


def test_a_huge_file_is_not_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.touch()
    os.truncate(path, MOST_BYTES + 1)  # a hole
    One(path).file.restore()
    assert f"it has {MOST_BYTES + 1} bytes" in caplog.text


def test_one_bad_entry_costs_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before, after = One(path), One(path)
    before.feed.replace({"foo.com": [NODE, Node("10.0.0.2:3031")]})
    before.file.write()
    state = kept(path)
    state["sources"]["consul"]["pools"]["foo.com"][1][0] = 7
    path.write_text(json.dumps(state))
    after.file.restore()
    assert after.known() == {"foo.com": [NODE]}
    assert "1 nodes of 1 keys as of 0 s ago, until their sources speak; 1 bad entries dropped" in caplog.text


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_neither_read_nor_replaced(path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    make(path)
    one = One(path)
    one.file.restore()
    one.file.write()
    assert not stat.S_ISREG(path.lstat().st_mode)
    assert caplog.messages == [
        f"state file {path}: ignored: it is no regular file",
        f"state file {path}: cannot be written: it is no regular file",
    ]


def test_a_link_stays_a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.symlink_to(target)
    one = One(path)
    one.feed.replace({"foo.com": [NODE]})
    one.file.write()
    assert path.is_symlink() and kept(target)["sources"]["consul"]["pools"].keys() == {"foo.com"}


def test_a_file_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "later" / "state"
    one = One(path)
    for _ in range(3):
        one.file.write()
    path.parent.mkdir()
    for _ in range(2):
        one.file.write()
    assert caplog.messages == [
        f"state file {path}: cannot be written: No such file or directory",
        f"state file {path}: written again",
    ]
    assert path.exists()


def test_a_write_that_is_cut_leaves_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = One(path)
    one.feed.replace({"foo.com": [NODE]})
    one.file.write()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    one.feed.replace({})
    one.file.write()
    assert kept(path)["sources"]["consul"]["pools"].keys() == {"foo.com"}
    assert sorted(os.listdir(path.parent)) == ["state"], "what is half written takes no room"


def leave_a_file(new: Path) -> None:
    new.write_text("x")
    new.chmod(0o644)


@pytest.mark.parametrize("leave", [leave_a_file, os.mkfifo, lambda new: new.symlink_to("/dev/full")])
def test_what_somebody_has_left_beside_it_is_no_matter(path: Path, leave: Any) -> None:
    leave(path.with_name("state.new"))
    one = One(path)
    with gevent.Timeout(10):
        one.file.write()
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600 and kept(path)
    assert sorted(os.listdir(path.parent)) == ["state"]


@contextmanager
def running(one: One) -> Iterator[None]:
    greenlet = gevent.spawn(one.file.run)
    try:
        yield
    finally:
        greenlet.kill()


def test_it_is_written_for_news_only_and_each_second_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, times = One(path), []
    write = one.file.write

    def noted() -> float:
        times.append(monotonic())
        return write()

    monkeypatch.setattr(one.file, "write", noted)
    with running(one):
        gevent.sleep(0.3)
        assert len(times) == 1  # the first one
        end = monotonic() + 2 * EVERY + 0.5
        while monotonic() < end:
            one.feed.progress()
            gevent.sleep(0.01)
        assert len(times) > 1
        assert all(later - earlier >= EVERY for earlier, later in pairwise(times))
        gevent.sleep(2 * EVERY)
        count = len(times)
        gevent.sleep(EVERY)
        assert len(times) == count


def test_what_could_not_be_written_is_written_later_without_more_news(tmp_path: Path) -> None:
    path = tmp_path / "later" / "state"
    one = One(path)
    with running(one):
        gevent.sleep(0.1)  # it has failed
        path.parent.mkdir()
        wait_for(path.exists, "the state file", sleep=gevent.sleep)


def in_file(path: Path, key: str) -> set[str]:
    """The addresses that the file has for `key`."""
    if not path.exists():
        return set()
    return {node[0] for source in kept(path)["sources"].values() for node in source["pools"].get(key, ())}


def restarted(router: Router, **options: Any) -> Router:
    address, subscriptions, stats_address = router.address, router.subscriptions, router.stats_address
    return Router(address=address, subscriptions=subscriptions, stats_address=stats_address, **options)


def is_stale(router: Router) -> bool:
    (source,) = router.stats()["sources"]
    return bool(source["stale"])


def test_after_a_kill_the_last_known_nodes_serve_at_once(path: Path) -> None:
    options: dict[str, Any] = {"state_file": path, "processes": 2}
    with ScriptedNode(answer(HELLO)) as node, ScriptedNode() as gone:
        with Router(**options) as router:
            announce(router.subscriptions, "foo.com", gone.address)
            announce(router.subscriptions, "foo.com", node.address)
            router.wait_for_nodes("foo.com", 2)
            withdraw(router.subscriptions, "foo.com", gone.address)
            router.wait_for_nodes("foo.com", 1)
            wait_for(lambda: in_file(path, "foo.com") == {node.address}, "the state file")
            router.kill()
        with restarted(router, **options) as router:
            assert [ask(router.address, GET) for _ in range(20)] == [HELLO] * 20
            router.wait_line(f"state file {path}: 1 nodes of 1 keys as of [0-9]+ s ago, until their sources speak")
            assert is_stale(router)
            announce(router.subscriptions, "foo.com", node.address)
            wait_for(lambda: not is_stale(router), "the source to be heard")
            assert not any(re.search("new (pool|node)", line) for line in router.lines)  # it never left
        assert not gone.connections


def test_after_a_kill_what_is_drained_still_is_and_many_clients_are_served(path: Path) -> None:
    admin = free_address()
    with ScriptedNode(answer(HELLO)) as node, ScriptedNode() as drained, ThreadPoolExecutor(64) as clients:
        with Router(state_file=path, admin=admin) as router:
            for one in (node, drained):
                announce(router.subscriptions, "foo.com", one.address)
            router.wait_for_nodes("foo.com", 2)
            assert drain([drained.address, "--admin", admin]) == 0
            wait_for(lambda: path.exists() and kept(path)["drained"] == [[drained.address], []], "the state file")
            router.kill()
        with restarted(router, state_file=path, admin=admin) as router:
            assert set(clients.map(lambda _: ask(router.address, GET), range(500))) == {HELLO}
        assert not drained.connections


def test_a_stop_keeps_what_was_known_at_the_end(path: Path) -> None:
    with ScriptedNode(answer(HELLO)) as node:
        with Router(state_file=path) as router:
            announce(router.subscriptions, "foo.com", node.address)
            router.wait_for_nodes("foo.com", 1)
            assert router.stop(signal.SIGTERM) == 0
        with restarted(router, state_file=path) as router:
            assert ask(router.address, GET) == HELLO


def test_a_file_of_no_use_stops_nobody(path: Path) -> None:
    path.write_bytes(os.urandom(1000))
    with ScriptedNode(answer(HELLO)) as node, Router(state_file=path) as router:
        router.wait_line(f"state file {path}: ignored, and kept as {path}.bad: it is no JSON")
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == HELLO


HOLDING = """
import os, signal, sys, time
from router.handover import signals_held_back
from router.statefile import StateFile
from router.table import Table

heard = []
signal.signal(signal.SIGHUP, lambda *_: heard.append(1))
StateFile(sys.argv[1], Table(), (), tuple).write()  # so its thread is there
with signals_held_back():
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.2)
    print(len(heard))
print(len(heard))
"""


def test_its_thread_takes_no_signal_that_is_held_back_for_the_next_start(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HOLDING, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n1\n", "")
