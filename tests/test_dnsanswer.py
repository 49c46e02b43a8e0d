"""From DNS messages to nodes: levels, weights, targets, and what is no answer."""

import contextlib
from collections.abc import Sequence
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rcode
import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from discovery.dnsanswer import (
    FINEST,
    MOST_RECORDS,
    AnswerError,
    Service,
    additional,
    address_nodes,
    read_answer,
    service_nodes,
    services_of,
    unanswered,
)
from dns_server import REFUSED, SERVFAIL, Reply, nothing, records

NAME = "_uwsgi._tcp.foo.com"
BOTH = (RdataType.A, RdataType.AAAA)
A, B, C = map(dns.name.from_text, ("a.foo.com", "b.foo.com", "c.foo.com"))


def message(reply: Reply, rdtype: str = "SRV") -> dns.message.Message:
    data = reply(dns.message.make_query(NAME, rdtype), False)
    assert data
    return dns.message.from_wire(data)


def nodes(services: Sequence[Service], **addresses: Sequence[str]) -> list[tuple[str, int, int]]:
    """(address, weight, backup) of what these are at these addresses of a, b, c."""
    known = {dns.name.from_text(f"{name}.foo.com"): texts for name, texts in addresses.items()}
    return [(node.address, node.weight, node.backup) for node in service_nodes(services, known)]


# Levels and weights.


def test_priorities_are_levels_from_the_lowest_on() -> None:
    services = [Service(20, 1, B, 2), Service(10, 1, A, 1), Service(700, 1, C, 3)]
    assert nodes(services, a=["1.1.1.1"], b=["2.2.2.2"], c=["3.3.3.3"]) == [
        ("1.1.1.1:1", 1, 0), ("2.2.2.2:2", 1, 1), ("3.3.3.3:3", 1, 2)
    ]  # fmt: skip


def test_a_level_without_addresses_takes_no_number() -> None:
    assert nodes([Service(1, 1, A, 1), Service(2, 1, B, 2)], a=[], b=["2.2.2.2"]) == [("2.2.2.2:2", 1, 0)]


@pytest.mark.parametrize(("weights", "expected"), [((0, 0), (1, 1)), ((0, 5), (1, 5)), ((3, 65535), (3, 65535))])
def test_weights_are_weights_and_zero_is_one(weights: tuple[int, int], expected: tuple[int, int]) -> None:
    services = [Service(1, weights[0], A, 1), Service(1, weights[1], B, 1)]
    assert [weight for _, weight, _ in nodes(services, a=["1.1.1.1"], b=["2.2.2.2"])] == list(expected)


def test_addresses_of_one_target_share_its_weight() -> None:
    services = [Service(1, 10, A, 1), Service(1, 10, B, 1)]
    assert nodes(services, a=["1.1.1.1", "::1"], b=["2.2.2.2"]) == [
        ("1.1.1.1:1", 10, 0), ("2.2.2.2:1", 20, 0), ("[::1]:1", 10, 0)
    ]  # fmt: skip


def test_weights_stay_as_they_are_where_all_targets_have_as_many_addresses() -> None:
    services = [Service(1, 3, A, 1), Service(1, 1, B, 1)]
    found = nodes(services, a=["1.1.1.1", "1.1.1.2"], b=["2.2.2.2", "2.2.2.3"])
    assert [weight for _, weight, _ in found] == [3, 3, 1, 1]


def test_the_same_address_twice_is_one_node_of_the_lowest_level() -> None:
    same = [Service(1, 2, A, 1), Service(1, 3, B, 1), Service(2, 9, A, 1)]
    assert nodes(same, a=["1.1.1.1"], b=["1.1.1.1"]) == [("1.1.1.1:1", 5, 0)]
    assert nodes([Service(1, 2, A, 1), Service(1, 2, A, 2)], a=["1.1.1.1"]) == [
        ("1.1.1.1:1", 2, 0),
        ("1.1.1.1:2", 2, 0),
    ]


def test_the_order_of_an_answer_says_nothing() -> None:
    services = [Service(1, 2, A, 1), Service(1, 3, B, 1), Service(2, 9, C, 1)]
    known = {"a": ["1.1.1.1", "1.1.1.2"], "b": ["2.2.2.2"], "c": ["3.3.3.3"]}
    turned = {name: texts[::-1] for name, texts in known.items()}
    assert nodes(services, **known) == nodes(services[::-1], **turned)


def test_more_nodes_than_the_limit_are_an_error_and_not_a_part() -> None:
    many = [f"10.0.{n // 256}.{n % 256}" for n in range(MOST_RECORDS + 1)]
    assert len(address_nodes(many[1:], 3031)) == MOST_RECORDS
    with pytest.raises(AnswerError, match="1001 nodes, but 1000 is the limit"):
        address_nodes(many, 3031)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 65535), st.integers(0, 30), st.integers(1, 2)
        ),
        max_size=8,
    )
)  # fmt: skip
def test_whatever_the_records_say_weights_are_whole_numbers_from_one_on(drawn: list[tuple[int, ...]]) -> None:
    hosts = [dns.name.from_text(f"h{n}.") for n in range(len(drawn))]
    services = [Service(priority, weight, hosts[n], port) for n, (priority, weight, _, port) in enumerate(drawn)]
    known = {hosts[n]: [f"10.{n}.0.{m}" for m in range(count)] for n, (_, _, count, _) in enumerate(drawn)}
    found = service_nodes(services, known)
    assert len(found) == sum(count for _, _, count, _ in drawn)
    assert all(1 <= node.weight <= 65535 * FINEST < 2**31 for node in found)
    assert {node.backup for node in found} == set(range(len({p for p, _, count, _ in drawn if count})))


# Answers.


def test_records_and_their_ttl() -> None:
    answer = read_answer(message(records("10 1 3031 A.foo.com.", "20 0 3032 .", ttl=17)))
    assert answer.ttl == 17
    assert services_of(answer) == [Service(10, 1, A, 3031)]


def test_aliases_are_followed() -> None:
    answer = read_answer(message(records("10 1 3031 a.foo.com.", aliases=["x.foo.com", "y.bar.com"])))
    assert len(services_of(answer)) == 1


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
def test_nothing_is_an_answer_for_as_long_as_the_zone_says(rcode: dns.rcode.Rcode) -> None:
    answer = read_answer(message(nothing(ttl=7, rcode=rcode)))
    assert (answer.records, answer.ttl) == ((), 7)


def test_nothing_without_the_zones_word_is_not_kept() -> None:
    answer = read_answer(message(records(rcode=dns.rcode.NXDOMAIN)))
    assert (answer.records, answer.ttl) == ((), 0)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (SERVFAIL, "^SERVFAIL$"),
        (REFUSED, "^REFUSED$"),
        (records(authority=["foo.com 60 NS ns.foo.com."]), "a referral to other servers"),
        (records(aliases=["x.bar.com"]), "an alias of x.bar.com, of which it says nothing"),
        (
            records(*(f"1 1 {port} a.foo.com." for port in range(1, MOST_RECORDS + 2))),
            "1001 records, but 1000 is the limit",
        ),
    ],
)
def test_what_is_no_answer(reply: Reply, why: str) -> None:
    with pytest.raises(AnswerError, match=why):
        read_answer(message(reply))


def understand(wire: bytes) -> None:
    """All that a source does with what came, where it answers its question."""
    found = dns.message.from_wire(wire)
    query = dns.message.make_query(NAME, "SRV", id=found.id)
    if query.is_response(found):
        answer = read_answer(found)
        given = additional(answer, [service.host for service in services_of(answer)], BOTH)
        assert all(record.address for each in given.values() for record in each.records)


WHOLE = records("10 1 3031 a.foo.com.", "1 0 1 .", aliases=["b.foo.com"], additional=["a.foo.com 60 A 1.1.1.1"])


@given(st.binary(max_size=100), st.integers(0, 200))
def test_no_bytes_raise_anything_but_the_errors_that_are_caught(data: bytes, start: int) -> None:
    """Whatever comes, alone and behind a good beginning."""
    wire = WHOLE(dns.message.make_query(NAME, "SRV"), False) or b""
    for sent in (data, wire[:start] + data):
        with contextlib.suppress(dns.exception.DNSException, ValueError):
            understand(sent)


@given(st.data())
def test_nor_does_an_answer_of_which_bytes_are_others(data: Any) -> None:
    wire = bytearray(WHOLE(dns.message.make_query(NAME, "SRV"), False) or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(2, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(dns.exception.DNSException, ValueError):
        understand(bytes(wire))


# The additional section.


def test_addresses_that_come_along() -> None:
    more = ["a.foo.com 30 A 1.1.1.1", "a.foo.com 40 A 1.1.1.2", "A.foo.com 20 AAAA ::1", "evil.com 1 A 6.6.6.6"]
    answer = read_answer(message(records("10 1 3031 a.foo.com.", additional=more)))
    given = additional(answer, [A], BOTH)
    assert {question[1]: [record.address for record in each.records] for question, each in given.items()} == {
        RdataType.A: ["1.1.1.1", "1.1.1.2"], RdataType.AAAA: ["::1"]
    }  # fmt: skip
    assert given[A, RdataType.AAAA].ttl == 20
    assert unanswered([A], BOTH, given) == []


def test_a_host_with_addresses_of_one_type_has_no_others_if_nothing_was_left_out() -> None:
    answer = read_answer(message(records("1 1 1 a.foo.com.", additional=["a.foo.com 30 A 1.1.1.1"])))
    assert unanswered([A], BOTH, additional(answer, [A], BOTH)) == []
    # b was left out, for want of room perhaps, and so may have been a's other addresses.
    left_out = [(A, RdataType.AAAA), (B, RdataType.A), (B, RdataType.AAAA)]
    assert unanswered([A, B], BOTH, additional(answer, [A, B], BOTH)) == left_out
    assert unanswered([], BOTH, {}) == []
