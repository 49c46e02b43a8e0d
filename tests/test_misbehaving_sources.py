"""Sources that crash, end, block or spin in a real gfrouter: nobody else notices, and the stats show it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clients import ask, request
from router.watchdog import BEAT, LOOK, LOOKS
from scripted import HELLO, ScriptedNode, freeze, wait_for
from told import Told

GET = request("foo.com")
STUCK = BEAT + LOOK * LOOKS  # seconds


@contextmanager
def served(*common: dict[str, object]) -> Iterator[tuple[Told, ScriptedNode]]:
    """A gfrouter with two sources, the second of which has named a node for foo.com."""
    with Told(2, common=common, warm_timeout=0, timeout=5) as told, ScriptedNode() as node:
        told.say(1, "replace", {"foo.com": [node.address]})
        wait_for(lambda: ask(told.address, GET) == HELLO, "the node to be known")
        yield told, node


def wait_source(told: Told, number: int, **wanted: object) -> dict[str, Any]:
    """Until the source is so; each look is a request that must be served as well."""

    def found() -> dict[str, Any] | None:
        assert ask(told.address, GET) == HELLO
        row = told.source(number)
        return row if wanted.items() <= row.items() else None

    row = wait_for(found, f"{wanted} of {told.source(number)}", timeout=30)
    assert row
    return row


def test_how_a_source_is() -> None:
    with served({}, {"name": "west", "min_nodes": 1}) as (told, _):
        first = wait_source(told, 0, state="starting", runs=1)
        assert first["last_success"] is first["age"] is None and first["spoken"] is False
        second = wait_source(told, 1, state="ok")
        assert (second["name"], second["keys"], second["nodes"], second["spoken"]) == ("west", 1, 1, True)
        assert second["age"] < 10
        told.say(1, "fail", "no answer", "foo.com")
        wait_source(told, 1, state="ok", failing_keys=1, errors=1, error="", last_error="no answer")
        told.say(1, "fail", "down")
        wait_source(told, 1, state="failing", error="down", errors=2)
        told.say(1, "replace", {})
        wait_source(told, 1, state="held back", held_back=1, nodes=0, last_error="down")
        told.wait_line("^west: says 0 nodes, which is below min-nodes=1: 1 that are gone are held back$")


@pytest.mark.parametrize(
    ("verb", "error"),
    [("crash", "crash of ()"), ("time out", "1 second"), ("return", "source ended")],
)
@pytest.mark.slow
def test_a_source_that_raises_or_ends_is_run_again_and_keeps_its_nodes(verb: str, error: str) -> None:
    with served() as (told, node):
        told.say(0, "replace", {"bar.com": [node.address]})
        told.tell(0, verb)
        row = wait_source(told, 0, restarts=1)
        assert (row["last_error"], row["nodes"], row["errors"]) == (error, 1, 1)
        told.say(0, "announce", "baz.com", node.address)
        wait_source(told, 0, state="ok", nodes=2, error="")
        assert ask(told.address, request("bar.com")) == HELLO


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["spin", "block", "swallow", "spawn and spin"])
def test_a_source_that_keeps_the_loop_is_interrupted_and_run_again(verb: str) -> None:
    with served() as (told, node):
        told.tell(0, verb)
        while not told.line("told-0: SourceStuck"):
            assert ask(told.address, GET) == HELLO
        name = "block" if verb == "swallow" else verb.rpartition(" ")[2]
        told.wait_line(rf"^told-0: SourceStuck: stuck at {name} \(.*told_supervisor\.py:\d+\); trying again in ")
        row = wait_source(told, 0, restarts=1)
        assert row["errors"] == 1 and re.match(rf"stuck at {name} ", row["last_error"])
        told.say(0, "announce", "bar.com", node.address)
        wait_source(told, 0, state="ok")
        assert wait_source(told, 1, state="ok")["runs"] == 1
        assert told.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_stop_of_the_whole_supervisor_is_no_stuck_source() -> None:
    with served() as (told, _):
        told.tell(0, "storm", 500)  # so that a source is where it goes on
        told.wait_line("^it storms$")
        freeze(told.pid)
        try:
            while_stopped = [ask(told.address, GET) for _ in range(10)]
            wait_stopped(STUCK + 1)
        finally:
            os.kill(told.pid, signal.SIGCONT)
        assert while_stopped == [HELLO] * 10
        wait_source(told, 0, restarts=0, errors=0)
        assert not told.line("stuck|trying again")


def wait_stopped(seconds: float) -> None:
    """Time that must pass, with nothing to wait for: the supervisor is stopped."""
    signal.sigtimedwait([], seconds)


@pytest.mark.slow
def test_a_source_that_replaces_50000_nodes_without_a_pause_fails_no_request() -> None:
    with served() as (told, node):
        told.tell(0, "storm", 50_000)
        told.wait_line("^it storms$", timeout=60)
        assert [ask(told.address, GET) for _ in range(300)] == [HELLO] * 300
        told.say(1, "announce", "bar.com", node.address)
        wait_for(lambda: ask(told.address, request("bar.com")) == HELLO, "the other source's word", timeout=30)
        assert not told.line("stuck|trying again")


@pytest.mark.slow
def test_what_is_stale_goes_and_comes_back() -> None:
    with served({"max_stale": 2}) as (told, node):
        told.say(0, "replace", {"bar.com": [node.address]})
        wait_for(lambda: ask(told.address, request("bar.com")) == HELLO, "bar.com")
        told.say(0, "fail", "down")
        wait_source(told, 0, state="stale", nodes=1)
        wait_for(lambda: ask(told.address, request("bar.com")) == b"", "bar.com to go")
        told.say(0, "progress")
        wait_for(lambda: ask(told.address, request("bar.com")) == HELLO, "bar.com to come back")
        wait_source(told, 0, state="ok")


@pytest.mark.parametrize("first", [0, 1])
def test_the_source_that_is_named_first_describes_and_the_last_one_takes_away(first: int) -> None:
    """Both name the same node, under weights that the stats show."""
    second = 1 - first
    with Told(2, warm_timeout=0) as told, ScriptedNode() as node:

        def weights() -> list[int]:
            return [each["weight"] for pool in told.stats()["subscriptions"] for each in pool["nodes"]]

        told.say(first, "weigh", "foo.com", node.address, 10 + first)
        wait_for(lambda: weights() == [10 + first], "the first word")
        told.say(second, "weigh", "foo.com", node.address, 10 + second)
        wait_for(lambda: weights() == [10], "what the source named first says")
        told.say(0, "withdraw", "foo.com", node.address)
        wait_for(lambda: weights() == [11], "what the other one says")
        assert ask(told.address, GET) == HELLO
        told.say(1, "withdraw", "foo.com", node.address)
        wait_for(lambda: ask(told.address, GET) == b"", "it to go with the last source")
