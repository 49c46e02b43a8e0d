"""Nodes that a Python function gives: when it is called, what its answers mean, and what it cannot do to other keys."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest

from discovery import code as module
from discovery.code import Code
from discovery.codechild import LONGEST
from discovery.codepool import CallFailed, Processes, Raised, Unusable
from router.sources import open_source
from router.table import Table

URL = "code:///srv/map.py?function=node"
LONG = 60.0  # seconds that no test waits for


class Called:
    """A table with one feed, a source whose function is a mapping here, and a clock of the test's own."""

    def __init__(self, url: str = URL, max_keys: int = 100, **says: Any) -> None:
        self.now = 1000.0
        self.says = {key.replace("_", ".").encode(): value for key, value in says.items()}
        self.calls: Counter[str] = Counter()
        self.answered: list[str] = []
        self.table = Table(on_answer=lambda feed, key: self.answered.append(key))
        self.feed = self.table.feed("code", max_keys)
        self.code = Code(url, call=self.call, clock=lambda: self.now, random=lambda: 1.0)
        self.code.begin(self.feed)

    def call(self, key: bytes) -> bytes | None:
        self.calls[key.decode()] += 1
        value = self.says.get(key)
        if isinstance(value, gevent.event.Event):
            value.wait()
            return None
        if isinstance(value, CallFailed):
            raise value
        return value.encode() if value else None

    def want(self, *keys: str) -> None:
        for key in keys:
            self.code.want(self.feed, key)
            self.code.new.join()

    def later(self, seconds: float) -> float | None:
        self.now += seconds
        self.code.turn(self.feed)
        self.code.known.join()
        return self.code.turn(self.feed)

    def addresses(self, key: str) -> list[str]:
        return [node.address for node in self.table.nodes(key)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0)


def test_a_key_has_the_nodes_that_the_function_gives() -> None:
    called = Called(foo_com="10.0.0.1:3031,7|10.0.0.2:3031")
    assert called.feed.spoken
    called.want("foo.com")
    nodes = called.feed.slices["foo.com"].values()
    assert [(node.address, node.modifier1) for node in nodes] == [("10.0.0.1:3031", 7), ("10.0.0.2:3031", 0)]
    assert called.answered == ["foo.com"]


def test_a_key_for_which_it_gives_none_is_unknown() -> None:
    called = Called()
    called.want("foo.com")
    assert (called.addresses("foo.com"), called.answered, called.feed.key_errors) == ([], ["foo.com"], {})
    assert called.later(100) is None
    assert called.calls == {"foo.com": 1}


def test_it_is_called_again_for_a_known_key_and_its_word_replaces_the_one_before() -> None:
    called = Called(foo_com=":1")
    called.want("foo.com")
    assert called.later(0.5) == pytest.approx(0.5)
    called.says[b"foo.com"] = ":2"
    assert called.later(0.5) == pytest.approx(1)
    assert called.addresses("foo.com") == [":2"]
    del called.says[b"foo.com"]
    assert called.later(1) is None
    assert called.addresses("foo.com") == []
    assert called.calls == {"foo.com": 3}


def test_a_key_is_called_for_until_it_has_been_out_of_use_for_a_while() -> None:
    called = Called(URL + "&ttl=3&keep=10", foo_com=":1")
    called.want("foo.com")
    assert [called.later(3), called.later(3), called.later(3)] == [3, 3, 1]
    assert called.later(1) is not None  # what was due is looked at, and forgotten
    assert called.addresses("foo.com") == []
    assert called.later(3) is None
    assert called.calls == {"foo.com": 4}


def test_where_it_raises_for_a_known_key_the_nodes_stay_and_it_is_called_again_later_each_time() -> None:
    called = Called(foo_com=":1")
    called.want("foo.com")
    called.says[b"foo.com"] = Raised("KeyError: 'foo.com'")
    assert called.later(1) == pytest.approx(1)
    assert called.later(1) == pytest.approx(2)
    assert called.later(2) == pytest.approx(4)
    assert called.addresses("foo.com") == [":1"]
    assert called.feed.key_errors == {"foo.com": "KeyError: 'foo.com'"}
    assert called.feed.rejected == {"function raised": 3}
    called.says[b"foo.com"] = ":1"
    assert called.later(4) == pytest.approx(1)
    assert called.feed.key_errors == {}
    called.says[b"foo.com"] = Raised("again")
    assert called.later(1) == pytest.approx(1)


def test_a_new_key_for_which_it_fails_is_answered_so_for_a_while_without_a_call() -> None:
    called = Called(foo_com=CallFailed("no answer within 2 s"))
    called.want("foo.com", "foo.com")
    assert called.calls == {"foo.com": 1}
    assert called.answered == ["foo.com", "foo.com"]
    assert called.feed.key_errors == {"foo.com": "no answer within 2 s"}
    called.now += 1
    called.want("foo.com", "foo.com")
    assert called.calls == {"foo.com": 2}
    called.now += 1
    called.want("foo.com")  # twice as long
    assert called.calls == {"foo.com": 2}
    called.now += 1
    called.says[b"foo.com"] = ":1"
    called.want("foo.com")
    assert called.addresses("foo.com") == [":1"]
    assert (called.feed.key_errors, called.code.failing) == ({}, {})


def test_of_those_that_fail_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FAILING", 2)
    called = Called(a=CallFailed("no"), b=CallFailed("no"), c=CallFailed("no"))
    called.want("a", "b", "c", "b", "c", "a")
    assert called.calls == {"a": 2, "b": 1, "c": 1}


def test_what_is_no_node_is_counted_and_none() -> None:
    called = Called(foo_com="10.0.0.300:1", bar_com=":1,999")
    called.want("foo.com", "bar.com")
    assert (called.feed.rejected, called.answered) == ({"bad node address": 2}, ["foo.com", "bar.com"])
    assert called.table.pools == {}


def test_a_function_that_cannot_be_called_is_the_sources_trouble() -> None:
    called = Called(foo_com=Unusable("SyntaxError: invalid syntax"), bar_com=":1")
    called.want("foo.com")
    assert called.feed.error == "SyntaxError: invalid syntax"
    assert called.answered == ["foo.com"]
    called.want("bar.com")
    assert called.feed.error is None


def test_keys_that_hang_hold_up_neither_others_nor_what_is_known() -> None:
    stuck = gevent.event.Event()
    called = Called(URL + "&processes=4", known_com=":1", stuck1_com=stuck, stuck2_com=stuck)
    called.want("known.com")
    for key in ("stuck1.com", "stuck2.com"):
        called.code.want(called.feed, key)
    called.says[b"known.com"] = ":2"
    called.says[b"new.com"] = ":3"
    called.later(1)
    assert called.addresses("known.com") == [":2"]
    called.code.want(called.feed, "new.com")
    with gevent.Timeout(10):
        while "new.com" not in called.answered:
            gevent.sleep(0)
    assert called.addresses("new.com") == [":3"]
    stuck.set()
    called.code.new.join()


def test_a_key_that_made_room_for_another_is_called_for_no_more() -> None:
    called = Called(max_keys=1, a=":1", b=":2")
    called.want("a", "b")
    called.later(1)
    assert (sorted(called.table.pools), called.calls) == (["b"], {"a": 1, "b": 2})


@pytest.mark.parametrize("says", [b":9", None, CallFailed("no answer")])
def test_a_key_that_leaves_during_its_call_does_not_come_back_by_it(says: bytes | CallFailed | None) -> None:
    called, stuck = Called(URL + "&ttl=1&keep=2", a=":1"), gevent.event.Event()

    def call(key: bytes) -> bytes | None:
        stuck.wait()
        if isinstance(says, CallFailed):
            raise says
        return says

    called.want("a")
    called.code.call = call
    called.now += 1
    called.code.turn(called.feed)
    gevent.sleep(0)
    called.now += 1
    called.code.turn(called.feed)
    stuck.set()
    called.code.known.join()
    assert (called.addresses("a"), called.feed.key_errors) == ([], {})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("code://", "no path of a file"),
        ("code://host/map.py?function=node", "no path of a file"),
        ("code:///srv/map.py", "the function is missing"),
        ("code:///srv/map.py?function=a.b", "no name of a function"),
        (URL + "&processes=1", "processes=1"),
        (URL + "&ttl=0", "ttl=0"),
    ],
)
def test_a_url_that_says_no_function_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_source(url)


# The processes.

MAP = """
import os, sys, time

def node(key):
    print("to the log")
    if key == b"sleep": time.sleep(60)
    if key == b"spin":
        while True: pass
    if key == b"raise": return {}["x"]
    if key == b"exit": sys.exit(1)
    if key == b"die": os._exit(1)
    if key == b"int": return 5
    if key == b"text": return "10.0.0.1:3031"
    if key == b"empty": return b""
    if key == b"long": return b"x" * (64 << 10)
    if key == b"pid": return str(os.getpid())
    if key == b"none": return None
    if key == b"left":
        there = [n for n in range(3, 100) if os.path.exists(f"/proc/self/fd/{n}")]
        return str([n for n in there if os.get_inheritable(n)])
    return b"<" + key + b">"

def text(key: str): return f"{type(key).__name__} {key}"
def late(key: "str"): return type(key).__name__
def anything(*keys): return type(keys[0]).__name__
class Callable:
    def __call__(self, key: str): return type(key).__name__
instance = Callable()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "map.py"
    path.write_text(MAP)
    return path


@pytest.fixture
def processes(file: Path) -> Iterator[Processes]:
    made = Processes(str(file), "node", most=2, timeout=LONG)
    yield made
    made.close()


def test_the_function_gets_bytes_and_gives_bytes_or_text(processes: Processes) -> None:
    assert processes.call(b"foo\0\xff") == b"<foo\0\xff>"
    assert processes.call(b"text") == b"10.0.0.1:3031"
    assert [processes.call(key) for key in (b"none", b"empty")] == [None, None]
    assert processes.call(b"left") == b"[]"  # what it starts holds our socket not
    assert processes.call(b"x" * 300) == b"<" + b"x" * 300 + b">"


@pytest.mark.parametrize(
    ("name", "answer"),
    [("text", b"str f\xff"), ("late", b"str"), ("anything", b"bytes"), ("instance", b"str"), ("bytes", b"f\xff")],
)
def test_a_function_that_is_annotated_gets_text(file: Path, name: str, answer: bytes) -> None:
    file.write_text(MAP + "\nbytes = bytes\n")
    processes = Processes(str(file), name, most=1, timeout=LONG)
    assert processes.call(b"f\xff") == answer
    processes.close()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"raise", r"KeyError: 'x' \(.*map.py:9\)"),
        (b"exit", r"SystemExit: 1 \(.*map.py:10\)"),
        (b"int", "gave int, neither bytes nor str nor None"),
        (b"long", f"gave 65536 bytes, but {LONGEST} is the limit"),
    ],
)
def test_what_it_raises_costs_its_key_and_not_its_process(processes: Processes, key: bytes, reason: str) -> None:
    pid = processes.call(b"pid")
    with pytest.raises(Raised, match=reason):
        processes.call(key)
    assert processes.call(b"pid") == pid


def test_a_process_that_ends_costs_the_key_that_it_was_called_for(processes: Processes) -> None:
    with pytest.raises(CallFailed, match="its process has ended"):
        processes.call(b"die")
    pid = processes.call(b"pid")
    assert pid
    os.kill(int(pid), signal.SIGKILL)
    processes.idle[0].child.wait()
    assert processes.call(b"foo") == b"<foo>"
    assert len(processes.all) == 1


@pytest.mark.parametrize("key", [b"sleep", b"spin"])
def test_a_call_that_does_not_end_is_ended_and_others_have_their_answer_meanwhile(file: Path, key: bytes) -> None:
    processes = Processes(str(file), "node", most=2, timeout=1)
    stuck = gevent.spawn(processes.call, key)
    gevent.sleep(0)
    assert processes.call(b"foo") == b"<foo>"
    assert not stuck.ready()
    pids = {process.child.pid for process in processes.all}
    with pytest.raises(CallFailed, match="no answer within 1 s"):
        stuck.get()
    assert len(pids) == 2
    assert len(processes.all) == 1
    assert processes.call(b"foo") == b"<foo>"
    processes.close()


def test_no_process_outlives_whoever_would_have_ended_it(file: Path) -> None:
    processes = Processes(str(file), "node", most=1, timeout=0.2)
    processes.check()
    (process,) = processes.all
    gevent.spawn(process.ask, b"spin", LONG)
    assert process.child.wait(30) == -signal.SIGALRM
    processes.close()


def test_idle_processes_end_with_the_socket(processes: Processes) -> None:
    processes.check()
    (process,) = processes.all
    process.sock.close()
    assert process.child.wait(30) == 0


def test_what_a_terminal_sends_does_not_end_it(processes: Processes) -> None:
    pid = int(processes.call(b"pid") or 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        os.kill(pid, number)
    assert processes.call(b"pid") == str(pid).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def node(key: nothing", "SyntaxError"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(.*map.py:1\)"),
        ("node = 5", "LookupError: no function node in "),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os; os._exit(0)", "its process has ended"),
        (None, "FileNotFoundError"),
    ],
)
def test_a_file_without_the_function_is_an_error_that_says_so(file: Path, text: str | None, reason: str) -> None:
    file.unlink() if text is None else file.write_text(text)
    processes = Processes(str(file), "node", most=1, timeout=LONG)
    with pytest.raises(Unusable, match=reason):
        processes.check()
    assert processes.all == set()


def test_the_file_is_read_as_uwsgi_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name is; modules of the working directory are found; a folder is a package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("here = b'beside '")
    (tmp_path / "map").mkdir()
    (tmp_path / "map/inside.py").write_text("here = b'inside'")
    text = "import beside\nfrom . import inside\ndef node(key): return beside.here + inside.here + __name__.encode()"
    (tmp_path / "map/__init__.py").write_text(text)
    processes = Processes("map", "node", most=1, timeout=LONG)
    assert processes.call(b"x") == b"beside insideuwsgi_fastrouter"
    processes.close()
    (tmp_path / "map.txt").write_text("def node(key): return __file__")
    processes = Processes("map.txt", "node", most=1, timeout=LONG)
    assert processes.call(b"x") == b"map.txt"
    processes.close()


def test_run_answers_and_keeps_current_and_ends_its_processes(file: Path) -> None:
    table = Table()
    feed = table.feed("code")
    code = Code(f"code://{file}?function=node")
    file.write_text("import os\ndef node(key): return f'/{os.getpid()}'")
    running = gevent.spawn(code.run, feed)
    feed.asked.put("foo.com")
    with gevent.Timeout(20):
        while not table.pools:
            gevent.sleep(0.01)
        (child,) = (process.child for process in code.processes.all)
        assert [node.address for node in table.nodes("foo.com")] == [f"/{child.pid}"]
        child.kill()
        while [node.address for node in table.nodes("foo.com")] == [f"/{child.pid}"]:
            gevent.sleep(0.01)
    children = [process.child for process in code.processes.all]
    running.kill()
    assert [child.wait(30) for child in children] == [-signal.SIGKILL] * len(children)


def test_run_raises_where_there_is_no_function(file: Path) -> None:
    file.write_text("")
    with pytest.raises(Unusable, match="no function node"):
        Code(f"code://{file}?function=node").run(Table().feed("code"))
