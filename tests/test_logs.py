"""The lines: uWSGI's own, the deltas of other sources, and none that a stranger can forge or flood."""

import logging
import os

import pytest

from router.logs import LINES_A_SECOND, Complaints, log_change
from router.node import Node
from router.table import Table

PID = os.getpid()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for message in caplog.messages for line in message.split("\n")]


def test_subscriptions_are_logged_in_uwsgis_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gfrouter")
    feed = Table(on_change=log_change).feed("subscription@127.0.0.1:2626")
    feed.announce("foo.com", Node(":58743"))
    feed.announce("foo.com", Node(":58744"))
    feed.announce("foo.com", Node(":58744"))
    feed.withdraw("foo.com", ":58744")
    assert lines(caplog) == [
        f"[uwsgi-subscription for pid {PID}] new pool: foo.com (hash key: 11571)",
        f"[uwsgi-subscription for pid {PID}] foo.com => new node: :58743",
        f"[uwsgi-subscription for pid {PID}] foo.com => new node: :58744",
    ]


def test_other_sources_are_logged_as_deltas(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gfrouter")
    feed = Table(on_change=log_change).feed("consul")
    feed.set("foo.com", [Node("10.0.0.5:3031"), Node("10.0.0.6:3031")])
    feed.set("foo.com", [Node("10.0.0.6:3031")])
    assert lines(caplog) == [
        "foo.com + 10.0.0.5:3031 (consul)",
        "foo.com + 10.0.0.6:3031 (consul)",
        "foo.com - 10.0.0.5:3031 (consul)",
    ]


def test_what_a_host_name_takes_away_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gfrouter")
    table = Table(on_change=log_change)
    table.feed("subscription").announce("foo.com", Node("app.lan:3031"))
    table.resolve("app.lan:3031", ["10.0.0.1:3031", "10.0.0.2:3031"])
    caplog.clear()
    table.resolve("app.lan:3031", ["10.0.0.2:3031", "10.0.0.3:3031"])
    assert lines(caplog) == [
        f"[uwsgi-subscription for pid {PID}] foo.com => new node: 10.0.0.3:3031",
        "foo.com - 10.0.0.1:3031 (app.lan:3031)",
    ]


def test_a_line_break_in_a_key_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gfrouter")
    feed = Table(on_change=log_change).feed("subscription")
    feed.announce("x\nspawned uWSGI fastrouter 1 (pid: 1)", Node("/tmp/\x1b[2J"))
    assert len(lines(caplog)) == 2, "a new pool and a new node"
    assert not [text for text in caplog.messages if "\x1b" in text]


def test_complaints_beyond_a_few_a_second_of_a_kind_are_counted_and_silence_no_other_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gfrouter")
    complaints = Complaints()
    for number in range(LINES_A_SECOND + 5):
        complaints.count("no key", f"client {number}")
    complaints.count("unknown key")
    complaints.count("timeout", "another one")
    assert len(caplog.messages) == LINES_A_SECOND + 1
    assert caplog.messages[-1] == "[uwsgi-fastrouter] another one"
    assert complaints.counted == {"no key": LINES_A_SECOND + 5, "unknown key": 1, "timeout": 1}
    complaints.next_second()
    assert caplog.messages[-1] == "[uwsgi-fastrouter] more such lines were left out: 5 of no key"
    complaints.count("no key", "again")
    complaints.next_second()
    assert caplog.messages[-1] == "[uwsgi-fastrouter] again"
