"""Active checks against nodes of every kind and mood, and what becomes of them in the table."""

import signal
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import gevent
import pytest

from one_router import refused_address
from router import checks
from router.checks import Bad, Checks
from router.drains import eject, undrain
from router.endpoint import LIVE, OUT, Cause
from router.node import Node
from router.options import Options
from router.table import Table
from scripted import (
    HELLO,
    Blackhole,
    ScriptedNode,
    answer,
    answer_slowly,
    close_after_head,
    hang,
    reset_after_head,
    wait_for,
)
from servers import FASTROUTER, FORMS, Router, Worker, free_address

pytestmark = pytest.mark.skipif(FASTROUTER, reason="the real fastrouter checks no node")
PONG = b"\x64\x00\x00\x01"


def checked(address: str, how: str = "connect", key: str = "foo.com", **options: object) -> str:
    """What is wrong with the node at this address; "" for nothing. It has a second to answer."""
    table = Table()
    table.feed("x").set(key, [Node(address, modifier1=5)])
    found = Checks(table, Options(health_check=how, health_timeout=1, health_fall=1, **options))  # type: ignore[arg-type]
    said: list[str] = []
    found.judge = lambda checked, trouble: said.append(trouble)  # type: ignore[method-assign]
    found.turn()
    found.check(found.known[address])
    return said[0]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_address_is_asked(form: str, tmp_path: Path) -> None:
    address = free_address(form, tmp_path).replace("localhost", "127.0.0.1")
    with ScriptedNode(answer(HELLO), address=address):
        assert checked(address, "connect") == ""
        assert checked(address, "request") == ""
    assert checked(address, "connect") in ("Connection refused", "No such file or directory")


@pytest.mark.parametrize(
    ("how", "script", "trouble"),
    [
        ("ping", answer(PONG), ""),
        ("ping", answer(b"\x64\x05\x00\x01tired"), ""),
        ("ping", answer_slowly(PONG, 1, 0.05), ""),
        ("ping", answer(HELLO), "its answer is no uWSGI's to a ping"),
        ("ping", answer(PONG[:3]), "its answer is no uWSGI's to a ping"),
        ("ping", close_after_head, "closed without an answer"),
        ("ping", reset_after_head, "Connection reset by peer"),
        ("ping", hang, "no answer within 1 s"),
        ("request", answer(HELLO), ""),
        ("request", answer(b"HTTP/1.0 399 X\r\n"), ""),
        ("request", answer_slowly(HELLO, 3, 0.05), ""),
        ("request", answer_slowly(HELLO, 1, 0.3), "no answer within 1 s"),
        ("request", answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), "status 503"),
        ("request", answer(b"HTTP/1.1 2000 X\r\n\r\n"), "its answer is no HTTP"),
        ("request", answer(b"x" * 10_000), "its answer is no HTTP"),
        ("request", close_after_head, "closed without an answer"),
    ],
)
def test_what_a_node_may_answer(how: str, script: Callable[..., None], trouble: str) -> None:
    with ScriptedNode(script) as node:
        assert checked(node.address, how) == trouble


def test_who_refuses_and_who_takes_no_connection() -> None:
    assert checked(refused_address()) == "Connection refused"
    with Blackhole() as hole:
        assert checked(hole.address) == "no answer within 1 s"


def test_the_request_is_the_one_that_was_asked_for() -> None:
    with ScriptedNode() as node:
        said = checked(node.address, "request", health_var=("PATH_INFO=/up", "X=a=b"), health_status="204")
        assert said == "status 200"
        (connection,) = node.connections
        assert connection.head[0] == 5, "the node's modifier1"
        for key, value in ((b"PATH_INFO", b"/up"), (b"X", b"a=b"), (b"HTTP_HOST", b"foo.com")):
            assert key + bytes((len(value), 0)) + value in connection.head


class Scene:
    """One node whose checks end as the test says; a bad one is told by its text."""

    def __init__(self) -> None:
        self.table = Table()
        self.feed = self.table.feed("x")
        self.feed.set("foo.com", [Node(":1")])
        self.now = 0.0
        self.trouble: Exception | None = None
        options = Options(health_check="connect", health_interval=10, health_fall=3, health_rise=2)
        self.checks = Checks(self.table, options, ask=lambda _: self.answer(), clock=lambda: self.now)
        self.asked = 0
        self.checks.turn()

    def answer(self) -> None:
        self.asked += 1
        if self.trouble:
            raise self.trouble

    def check(self, trouble: Exception | None, times: int = 1) -> tuple[int, float]:
        """(state, until when) after so many checks."""
        self.trouble = trouble
        for _ in range(times):
            self.now += 20
            self.checks.turn()
            self.checks.pool.join()
        endpoint = self.table.endpoints[":1"]
        return endpoint.state, endpoint.out_until

    def why(self) -> tuple[int, Cause, int]:
        endpoint = self.table.endpoints[":1"]
        return endpoint.state, endpoint.cause, endpoint.times


def test_some_bad_ones_in_a_row_put_a_node_out_and_some_good_ones_bring_it_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    assert scene.check(Bad("x"), 2)[0] == LIVE
    assert scene.check(None)[0] == LIVE
    assert scene.check(Bad("status 500"), 2)[0] == LIVE
    assert scene.check(Bad("status 500")) == (OUT, inf)
    scene.feed.announce("foo.com", Node(":1"))
    assert scene.check(Bad("status 500"), 3)[0] == OUT
    assert scene.check(None)[0] == OUT
    assert scene.check(Bad("status 500"))[0] == OUT
    with caplog.at_level("INFO", "gfrouter"):
        assert scene.check(None, 2)[0] == LIVE
    assert [text.removeprefix("[uwsgi-fastrouter] ") for text in caplog.messages if "in turn" in text] == [
        "node :1 is in turn again, its checks go well"
    ]
    assert len([text for text in caplog.messages if "is out, its checks fail: status 500" in text]) == 1


def test_an_operators_ejection_outlasts_checks_that_go_well_again() -> None:
    scene = Scene()
    scene.check(Bad("x"), 3)
    eject(scene.table, [":1"], 1000, scene.now)
    until = scene.now + 1000
    assert scene.why() == (OUT, Cause.CHECK, 0)
    assert scene.check(None, 2) == (OUT, until)
    assert scene.why() == (OUT, Cause.EJECTED, 0)
    scene.check(Bad("x"), 3)
    assert scene.why() == (OUT, Cause.CHECK, 0)
    undrain(scene.table, [":1"])
    assert scene.check(None, 2)[0] == LIVE


def test_who_leaves_before_its_turn_is_not_asked_and_who_cannot_be_asked_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table()
    feed = table.feed("x")
    feed.set("foo.com", [Node(":1"), Node(":2")])
    options = Options(health_check="request", health_fall=1, health_var=tuple(f"X{n}={'x' * 9000}" for n in range(8)))
    found = Checks(table, options, clock=lambda: 0.0)
    found.turn()
    gone, there = found.known.values()
    feed.withdraw("foo.com", ":1")
    for one in (gone, there):
        found.check(one)
    assert table.endpoints[":2"].state == LIVE and there.due > 0
    assert "node :2 cannot be asked: vars of 72" in caplog.text and ":1 " not in caplog.text


def test_good_checks_bring_nobody_back_who_is_out_for_another_reason() -> None:
    scene = Scene()
    scene.table.fail(scene.table.endpoints[":1"], 1e9, Cause.BROKEN)
    assert scene.check(None, 3) == (OUT, 1e9)


def test_what_this_process_is_short_of_is_no_nodes_fault() -> None:
    scene = Scene()
    assert scene.check(OSError(24, "Too many open files"), 5)[0] == LIVE


def test_who_leaves_is_forgotten_even_while_it_is_asked() -> None:
    scene = Scene()
    scene.check(Bad("x"), 2)
    scene.feed.set("foo.com", [])
    scene.checks.turn()
    assert scene.checks.known == {}
    scene.feed.set("foo.com", [Node(":1")])
    assert scene.check(Bad("x"), 3)[0] == LIVE, "the first turn finds it, and two checks are no three"


@pytest.mark.parametrize("interval", [1, 7])
def test_each_is_asked_as_often_as_it_should_be(interval: int) -> None:
    scene = Scene()
    scene.checks.options = replace(scene.checks.options, health_interval=interval)
    scene.checks.known.clear()
    for _ in range(interval * 20):
        scene.now += checks.LOOK_EVERY
        scene.checks.turn()
        scene.checks.pool.join()
    assert 18 <= scene.asked <= 22


def test_each_is_asked_once_an_interval_and_not_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.feed.set("foo.com", [Node(f":{port}") for port in range(1, 101)])
    scene.checks.turn()
    dues = [one.due for one in scene.checks.known.values()]
    assert 1 < max(dues) - min(dues) <= 10
    under_way = most = 0

    def ask() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        gevent.sleep(0)
        under_way -= 1

    monkeypatch.setattr(scene, "answer", ask)
    scene.now = 20
    scene.checks.turn()
    scene.checks.pool.join()
    assert most == checks.CHECKS
    assert all(29 <= one.due <= 31 for one in scene.checks.known.values())


@pytest.mark.slow
def test_a_real_uwsgi_answers_pings_and_is_out_while_it_is_frozen() -> None:
    with (
        Router(
            health_check="ping",
            health_interval=1,
            health_timeout=1,
            health_fall=1,
            health_rise=1,
        ) as router,
        Worker(router.subscriptions) as worker,
    ):
        router.wait_for_nodes("foo.com", 1)
        worker.wait_line("PING", 20)
        assert not router.line("its checks fail")
        worker.send_signal_to_all(signal.SIGSTOP)
        router.wait_line("is out, its checks fail: no answer within 1 s", 20)
        worker.send_signal_to_all(signal.SIGCONT)
        router.wait_line("is in turn again", 20)
        wait_for(lambda: router.nodes("foo.com"), "the node to be live")
