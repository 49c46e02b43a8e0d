"""Nodes from a file: read when it has settled, whole or not at all, whatever is done to it."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from discovery import file as module
from discovery.file import Apart, File
from discovery.nodes import Unreadable
from router.feed import Feed
from router.node import Node
from router.table import Table

ONE = "foo.com 10.0.0.1:3031\n"
TWO = "foo.com 10.0.0.2:3031\n"


class Looked:
    """A file, the source that looks at it, and its feed; `look` is called as often as time would pass."""

    def __init__(self, path: Path, text: str | None = ONE) -> None:
        self.path = path
        if text is not None:
            self.write(text)
        self.source = File(f"file://{path}", apart=at_once)
        self.feed: Feed = Table().feed(self.source.name)
        self.source.read(self.feed)

    def write(self, text: str) -> None:
        """In place: the same file has another content."""
        self.path.write_text(text)

    def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.source.look(self.feed)

    @property
    def nodes(self) -> list[str]:
        return list(self.feed.slices.get("foo.com", {}))


def at_once(function: Callable[[str], Any], path: str, late: Callable[[], None]) -> Any:
    return function(path)


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path / "nodes")


def test_the_first_reading_is_at_once(looked: Looked) -> None:
    assert looked.nodes == ["10.0.0.1:3031"]
    assert looked.feed.spoken and looked.feed.error is None


def test_it_is_in_service_after_two_looks_that_see_the_same(looked: Looked) -> None:
    looked.look()
    looked.write(TWO)
    looked.look(1)
    assert looked.nodes == ["10.0.0.1:3031"]
    looked.look(1)
    assert looked.nodes == ["10.0.0.2:3031"]


def test_a_file_that_is_emptied_and_then_written_is_never_empty(looked: Looked) -> None:
    looked.write("")
    looked.look(1)
    looked.write("foo.co")
    looked.look(1)
    looked.write(TWO)
    looked.look(1)
    assert looked.nodes == ["10.0.0.1:3031"]
    looked.look(1)
    assert looked.nodes == ["10.0.0.2:3031"]


def test_a_file_that_stays_empty_means_no_nodes(looked: Looked) -> None:
    looked.write("")
    looked.look()
    assert looked.nodes == [] and looked.feed.error is None


def test_a_file_that_has_not_changed_is_not_read_again(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    looked.look()
    monkeypatch.setattr(module, "load", lambda path, parse: pytest.fail("it was read"))
    looked.look(5)


def test_what_is_read_first_is_read_again(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been written in that moment, and a file's times have steps of some milliseconds."""
    monkeypatch.setattr(
        module, "load", lambda path, parse: (module.identity(path), {"foo.com": [Node("10.0.0.2:3031")]})
    )
    looked.look()
    assert looked.nodes == ["10.0.0.2:3031"]


def test_a_file_that_is_put_in_its_place(looked: Looked, tmp_path: Path) -> None:
    (new := tmp_path / "new").write_text(TWO)
    os.utime(new, ns=(looked.path.stat().st_atime_ns, looked.path.stat().st_mtime_ns))
    looked.look()
    new.rename(looked.path)
    looked.look()
    assert looked.nodes == ["10.0.0.2:3031"]


def test_a_rewrite_that_keeps_size_and_time(looked: Looked) -> None:
    looked.look()
    times = looked.path.stat()
    looked.write(TWO)
    os.utime(looked.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    looked.look()
    assert looked.nodes == ["10.0.0.2:3031"]


def test_symlinks_that_turn_elsewhere_as_in_kubernetes(tmp_path: Path) -> None:
    for name, text in (("v1", ONE), ("v2", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nodes").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "nodes").symlink_to("..data/nodes")
    looked = Looked(tmp_path / "nodes", None)
    looked.look()
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    looked.look()
    assert looked.nodes == ["10.0.0.2:3031"]


def test_a_bad_line_keeps_all_and_is_named_once(looked: Looked, caplog: pytest.LogCaptureFixture) -> None:
    looked.write("bar.com :1\nfoo.com\n")
    looked.look(9)
    reason = "line 2: the address is missing (legal: KEY ADDRESS [SETTING=VALUE ...]): 'foo.com'"
    assert looked.feed.error == reason
    assert list(looked.feed.slices) == ["foo.com"] and looked.nodes == ["10.0.0.1:3031"]
    assert [r.getMessage() for r in caplog.records] == [f"file@{looked.path}: {reason}; the nodes stay as they are"]
    with caplog.at_level(logging.INFO):
        looked.write(TWO)
        looked.look()
    assert looked.feed.error is None and looked.nodes == ["10.0.0.2:3031"]
    assert caplog.records[-1].getMessage() == f"file@{looked.path}: read again, 1 nodes for 1 keys"


def test_a_file_that_goes_and_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "target").write_text(ONE)
    (path := tmp_path / "nodes").symlink_to("target")
    looked = Looked(path, None)
    looked.look()
    path.unlink()
    looked.look(5)
    assert (looked.feed.error, looked.feed.errors) == ("No such file or directory", 1)
    assert looked.nodes == ["10.0.0.1:3031"]
    path.symlink_to("target")
    looked.look()
    assert looked.feed.error is None


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    looked = Looked(tmp_path / "nodes", None)
    looked.look(3)
    assert not looked.feed.spoken and looked.feed.error == "No such file or directory"
    looked.write(ONE)
    looked.look()
    assert looked.feed.spoken and looked.nodes == ["10.0.0.1:3031"]


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_directory, "a directory, and no file"),
        (make_fifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"\x7fELF\0\0"), "line 1: control character 0x7f"),
        (lambda path: path.write_bytes(b"a :1\n" + bytes(99)), "line 2: control character 0x00"),
    ],
)
def test_what_is_no_file_of_nodes_is_said_and_never_blocks(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "nodes")
    before = len(os.listdir("/proc/self/fd"))
    looked = Looked(tmp_path / "nodes", None)
    looked.look(3)
    assert len(os.listdir("/proc/self/fd")) == before
    assert looked.feed.error and looked.feed.error.startswith(reason)
    assert looked.feed.errors <= 3


def test_a_file_that_is_too_large_is_not_read(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 99)
    with looked.path.open("r+b") as file:
        file.truncate(100)
    looked.look()
    assert looked.feed.error == "100 bytes, but 99 is the limit"


def test_a_file_that_changes_while_it_is_read_is_read_later(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    looked.look()
    found = iter([looked.path.stat()])
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: next(found, None) or fstat(fd))
    looked.write(TWO)
    looked.look()
    assert looked.nodes == ["10.0.0.1:3031"]
    looked.look()
    assert looked.nodes == ["10.0.0.2:3031"]


def test_a_disk_that_does_not_answer_blocks_nothing_and_is_told_of(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT", 0.05)
    looked.look()
    answers, told = threading.Event(), threading.Event()
    looked.source.apart = Apart().call
    stat = module.identity

    def slow(path: str) -> module.Identity:
        answers.wait(10)
        return stat(path)

    monkeypatch.setattr(module, "identity", slow)
    fail = looked.source.fail

    def fail_and_let_it_answer(feed: Feed, reason: str) -> None:
        fail(feed, reason)
        told.set()
        answers.set()

    monkeypatch.setattr(looked.source, "fail", fail_and_let_it_answer)
    looked.look(1)
    assert told.is_set()
    assert looked.feed.error is None and looked.nodes == ["10.0.0.1:3031"]  # it was read again


def test_an_error_in_the_thread_is_the_callers() -> None:
    def fail() -> None:
        raise Unreadable("line 7")

    with pytest.raises(Unreadable, match="line 7"):
        Apart().call(fail, late=lambda: None)


@pytest.mark.parametrize("url", ["file://", "file:///", "file://host/path", "file:///a%00b"])
def test_a_url_without_a_path_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"no path of a file \(legal: file:///PATH\)"):
        File(url)


def test_a_setting_is_an_error_that_says_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"setting 'poll' is not known \(known: none\)"):
        File("file:///a?poll=1")


def test_a_path_may_be_percent_encoded() -> None:
    source = File("file://localhost/etc/my%20nodes")
    assert (source.path, source.name) == ("/etc/my nodes", "file@/etc/my nodes")
