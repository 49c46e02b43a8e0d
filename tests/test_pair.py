"""Messages between supervisor and router: whole, byte by byte, and several at once."""

import struct
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.endpoint import LIVE, OUT, TRIAL, Cause, Endpoint
from router.node import Node
from router.pair import Decoder, encode, pack_health, pack_node, take_findings, take_health, unpack_node
from router.table import Table

MESSAGES = st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text())), max_size=5)


@given(MESSAGES, st.integers(min_value=1, max_value=40))
def test_what_is_encoded_comes_out_however_it_is_cut(messages: list[dict[str, object]], piece: int) -> None:
    data = b"".join(map(encode, messages))
    decoder = Decoder()
    heard = [m for start in range(0, len(data), piece) for m in decoder.feed(data[start : start + piece])]
    assert heard == messages


def test_a_message_is_its_length_and_json() -> None:
    assert encode({"count": 1}) == struct.pack("!I", 11) + b'{"count":1}'


def test_keys_that_are_not_utf8_survive() -> None:
    key = b"f\xff\xc3".decode("utf-8", "surrogateescape")
    (message,) = Decoder().feed(encode({"set": [[key, [], []]]}))
    assert message["set"][0][0].encode("utf-8", "surrogateescape") == b"f\xff\xc3"


def test_a_node_travels_with_all_that_a_router_needs() -> None:
    node = Node(":1", weight=2, backup=3, modifier1=4, modifier2=5, proto="h", vassal="v", algorithm="wrr")
    assert unpack_node(pack_node(node)) == node


def one_node(until: float = 0.0, cause: Cause = Cause.REFUSED, times: int = 1) -> tuple[Table, Endpoint]:
    """A table of one node, which is out until then."""
    table = Table()
    table.feed("test").set("foo.com", [Node(":1")])
    if until:
        table.fail(table.endpoints[":1"], until, cause, times)
    return table, table.endpoints[":1"]


@pytest.mark.parametrize("until", [25.0, 5.0, inf])
@pytest.mark.parametrize("cause", Cause)
def test_health_travels_whole_and_on_a_clock_of_each_ones_own(cause: Cause, until: float) -> None:
    ours, theirs = one_node(until, cause, 3)[1], one_node()
    (message,) = Decoder().feed(encode({"out": [pack_health(ours, 10.0)]}))
    take_health(theirs[0], message["out"], (), 1010.0)
    endpoint = theirs[1]
    assert (endpoint.state, endpoint.cause, endpoint.times, endpoint.out_until) == (OUT, cause, 3, until + 1000)


@pytest.mark.parametrize("cause", Cause)
def test_the_supervisors_word_counts_whatever_a_router_has_found(cause: Cause) -> None:
    table, endpoint = one_node(inf, Cause.CHECK)
    take_health(table, [[":1", cause, 2, 5.0]], (), 10.0)
    assert (endpoint.cause, endpoint.times, endpoint.out_until) == (cause, 2, 15.0)
    take_health(table, (), [":1", ":2"], 10.0)
    assert endpoint.state == LIVE
    take_health(table, [[":2", cause, 2, 5.0]], (), 10.0)
    assert table.endpoints.keys() == {":1"}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("over", [False, True])
def test_what_a_router_found_cures_no_check_and_no_ejection_whose_time_is_not_over(cause: Cause, over: bool) -> None:
    table, endpoint = one_node(30.0, cause)
    take_findings(table, (), [":1", ":2"], 30.0 if over else 29.0)
    assert endpoint.state == (OUT if cause == Cause.CHECK or (cause == Cause.EJECTED and not over) else LIVE)


def test_a_weaker_finding_counts_only_when_the_time_for_the_stronger_one_is_over() -> None:
    table, endpoint = one_node(30.0, Cause.EJECTED)
    told: list[int] = []
    table.on_health = lambda endpoint: told.append(endpoint.state)
    take_findings(table, [[":1", Cause.REFUSED, 1, 5.0], [":2", Cause.REFUSED, 1, 5.0]], (), 29.0)
    assert (endpoint.cause, endpoint.out_until, told) == (Cause.EJECTED, 30.0, [])
    take_findings(table, [[":1", Cause.REFUSED, 1, 5.0]], (), 31.0)
    assert (endpoint.cause, endpoint.out_until, told) == (Cause.REFUSED, 36.0, [TRIAL, OUT])


def test_a_finding_of_a_node_in_turn_is_no_trial() -> None:
    table, endpoint = one_node()
    told: list[int] = []
    table.on_health = lambda endpoint: told.append(endpoint.state)
    take_findings(table, [[":1", Cause.BROKEN, 1, 5.0]], (), 31.0)
    assert (endpoint.state, told) == (OUT, [OUT])
