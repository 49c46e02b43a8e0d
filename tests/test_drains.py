"""What an operator's words do to a table, whatever it knows of them."""

import logging
from collections.abc import Iterable

import pytest

from router.drains import KEY, MOST_DRAINED, NODE, Impossible, drain, drained, eject, undrain
from router.endpoint import LIVE, OUT, Cause
from router.node import Node
from router.table import Table
from test_view import a_table, fail

NAME = "app.lan:1"


def named(*addresses: str) -> Table:
    """foo.com's node has a host name, which stands for these."""
    table = Table()
    table.feed("consul").set("foo.com", [Node(NAME), Node(":9")])
    table.resolve(NAME, addresses)
    return table


def asked(table: Table, key: str = "foo.com") -> set[str]:
    """The addresses of those that get this key's requests."""
    picks = [pool.pick(pool) for pool in [table.pools[key]] for _ in range(20)]
    return {member.endpoint.address for member in picks if member}


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        (":1", [NODE]), ("foo.com", [KEY]), (":9", [NODE]), ("10.0.0.5:3031", [NODE]), ("[::1]:3031", [NODE]),
        ("/run/app.sock", [NODE]), ("@app", [NODE]), ("baz.com", [KEY]), ("app.lan:3031", [NODE, KEY]),
        ("\udcff/x y", [KEY]), ("10.0.0.5", [KEY]), ("[::1]:0", [KEY]), ("@", [KEY]),
    ],
)  # fmt: skip
def test_a_word_is_a_node_where_that_is_known_and_else_what_it_looks_like(word: str, kinds: list[str]) -> None:
    table = a_table()
    assert drain(table, [word]) == [(kind, word) for kind in kinds]
    assert drained(table) == [(kind, word) for kind in kinds]
    assert undrain(table, [word]) == [(kind, word) for kind in kinds]
    assert drained(table) == []


def test_what_turns_up_later_is_drained_as_either() -> None:
    table = a_table()
    drain(table, ["app.lan:3031"])
    table.feeds[1].set("app.lan:3031", [Node(":1")])
    table.feeds[1].set("qux.com", [Node("app.lan:3031")])
    table.resolve("app.lan:3031", ["10.0.0.1:1"])
    assert asked(table, "app.lan:3031") == asked(table, "qux.com") == set()


def test_a_name_drains_all_that_it_stands_for_now_and_later() -> None:
    table = named("10.0.0.1:1")
    told: list[Iterable[str]] = []
    table.on_drain = lambda: told.append(set(table.drained_addresses))
    drain(table, [NAME])
    assert asked(table) == {":9"}
    table.resolve(NAME, ["10.0.0.2:1", "10.0.0.3:1"])
    assert asked(table) == {":9"}
    assert told == [{"10.0.0.1:1"}, {"10.0.0.2:1", "10.0.0.3:1"}]
    assert drained(table) == [(NODE, NAME)]
    undrain(table, [NAME])
    assert asked(table) == {":9", "10.0.0.2:1", "10.0.0.3:1"}


def test_an_address_is_drained_only_while_the_drained_name_stands_for_it() -> None:
    table = named("10.0.0.1:1")
    feed = table.feeds[0]
    feed.set("bar.com", [Node("10.0.0.1:1")])
    drain(table, [NAME])
    assert asked(table, "bar.com") == set()
    feed.withdraw("foo.com", NAME)
    assert asked(table, "bar.com") == {"10.0.0.1:1"}
    feed.set("foo.com", [Node(NAME)])
    table.resolve(NAME, ["10.0.0.1:1"])
    assert asked(table, "foo.com") == asked(table, "bar.com") == set()


def test_what_was_saved_holds_whether_it_comes_before_the_nodes_or_after() -> None:
    saved = ([":9", NAME], ["bar.com"])
    before, after = Table(), Table()
    before.drain(saved)
    for table in (before, after):
        feed = table.feed("consul")
        feed.replace({"foo.com": [Node(NAME), Node(":9"), Node(":1")], "bar.com": [Node(":1")]})
        table.resolve(NAME, ["10.0.0.1:1"])
    after.drain(saved)
    assert asked(before) == asked(after) == {":1"}
    assert asked(before, "bar.com") == asked(after, "bar.com") == set()


def test_so_many_and_no_more_and_all_of_them_or_none() -> None:
    table = a_table()
    drain(table, [f"{number}.com" for number in range(MOST_DRAINED - 1)])
    drain(table, ["0.com", "0.com", ":1"])
    with pytest.raises(Impossible, match=f"^{MOST_DRAINED} nodes and keys are drained, {MOST_DRAINED} at most can be$"):
        drain(table, [":2"])
    with pytest.raises(Impossible, match="nobody knows 'x"):
        undrain(table, [":1", "x.com"])
    assert len(drained(table)) == MOST_DRAINED


def test_an_ejection_ends_by_its_time_or_an_operator_and_not_by_an_announcement() -> None:
    table = a_table()
    endpoint = table.endpoints[":1"]
    eject(table, [":1"], 60, now=1000)
    table.feeds[0].announce("foo.com", Node(":1"))
    assert (endpoint.state, endpoint.cause, endpoint.out_until) == (OUT, Cause.EJECTED, 1060)
    assert endpoint.times == 0, "its requests did not fail"
    told: list[str] = []
    table.on_health = lambda endpoint: told.append(endpoint.address)
    eject(table, [":1"], 5, now=1000)
    assert (endpoint.out_until, set(told)) == (1005, {":1"}), "the routers are told of the new time"
    undrain(table, [":1"])
    assert endpoint.state == LIVE


@pytest.mark.parametrize("cause", [Cause.REFUSED, Cause.BROKEN, Cause.CHECK])
def test_to_undrain_brings_nobody_back_who_is_out_for_another_reason(cause: Cause) -> None:
    table = a_table()
    table.fail(table.endpoints[":1"], 1000.0, cause)
    drain(table, [":1"])
    undrain(table, [":1"])
    assert table.endpoints[":1"].state == OUT


def test_a_name_ejects_all_that_it_stands_for() -> None:
    table = named("10.0.0.1:1", "10.0.0.2:1")
    eject(table, [NAME], 60, now=0)
    assert asked(table) == {":9"}
    undrain(table, [NAME])
    assert len(asked(table)) == 3


def test_each_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    table = a_table()
    fail(table, ":2")
    with caplog.at_level(logging.INFO, "gfrouter"):
        drain(table, [":1", "\n"])
        drain(table, [":1"])
        eject(table, [":1"], 60, now=0)
        undrain(table, [":1", "\n", ":2"])
    assert caplog.messages == [
        "node :1 is drained",
        "key \\n is drained",
        "node :1 is ejected for 60 s",
        "node :1 is drained no longer",
        "node :1 is ejected no longer",
        "key \\n is drained no longer",
    ]
