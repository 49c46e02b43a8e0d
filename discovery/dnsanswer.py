"""What a DNS message says: records, nodes, or that there are none for certain. Pure: messages in, values out.

Three kinds of answer are told apart. Records, and an authoritative "there is none" (NXDOMAIN, or no record of this
type), are an `Answer`. Everything else, SERVFAIL and REFUSED, a referral, an alias that ends in the air, is an
AnswerError: whoever sent it does not know. dnspython's own DNSException comes for what is no message at all.

SRV in the router's terms (RFC 2782). Each distinct priority is a backup level, the lowest one 0. A weight is a weight,
and 0 is 1: beside others that is the share which the RFC's own way of choosing gives it, and if all are 0 it is the
same for all. A target with several addresses has a node for each, and they share its weight; the same address from
several records is one node, of the lowest level, with the weights of that level added up. A target `.` is no node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
from dns.rdatatype import RdataType

from router.node import Node

# Of one name, and as many nodes: a name that has more is a mistake or an attack. A message has room for 2,500 or so.
MOST_RECORDS = 1000
# Weights are multiplied by up to this much, so that a target's addresses can share its weight. It is divisible by each
# number up to 12, and a weight (65535 at most) stays a C int, as uWSGI's own are.
FINEST = 27_720

Question = tuple[dns.name.Name, RdataType]
Addresses = Mapping[dns.name.Name, Sequence[str]]


class AnswerError(ValueError):
    """An answer that does not say what was asked; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records, none if there are none for certain; good for `ttl` seconds. `message` has the rest."""

    records: tuple[Any, ...]
    ttl: int
    message: dns.message.Message


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record."""

    priority: int
    weight: int
    host: dns.name.Name
    port: int


def read_answer(message: dns.message.Message) -> Answer:
    """What the message says of its question, aliases followed. AnswerError or DNSException where it does not."""
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise AnswerError(dns.rcode.to_text(rcode))
    chain = message.resolve_chaining()  # type: ignore[attr-defined]  # of a QueryMessage, which each response is
    if chain.answer is not None:
        records = tuple(chain.answer)
        if len(records) > MOST_RECORDS:
            raise AnswerError(f"{len(records)} records, but {MOST_RECORDS} is the limit")
        return Answer(records, chain.minimum_ttl, message)
    authority = {rrset.rdtype for rrset in message.authority}
    if RdataType.SOA in authority:
        return Answer((), chain.minimum_ttl, message)
    if rcode == dns.rcode.NOERROR and RdataType.NS in authority:
        raise AnswerError("a referral to other servers, no answer")
    if rcode == dns.rcode.NOERROR and chain.cnames:
        raise AnswerError(f"an alias of {shown(chain.canonical_name)}, of which it says nothing")
    return Answer((), 0, message)  # without the zone's word nobody may rely on it for long (RFC 2308)


def services_of(answer: Answer) -> list[Service]:
    """The SRV records; those whose target is `.`, which say that there is no service, are left out."""
    return [
        Service(record.priority, record.weight, record.target, record.port)
        for record in answer.records
        if record.target != dns.name.root
    ]


def additional(answer: Answer, hosts: Iterable[dns.name.Name], types: Iterable[RdataType]) -> dict[Question, Answer]:
    """What the message says by itself of its targets' addresses."""
    found = {}
    for host in hosts:
        for rdtype in types:
            rrset = answer.message.get_rrset(answer.message.additional, host, dns.rdataclass.IN, rdtype)
            if rrset:
                found[host, rdtype] = Answer(tuple(rrset), rrset.ttl, answer.message)
    return found


def unanswered(
    hosts: Sequence[dns.name.Name], types: Sequence[RdataType], given: Mapping[Question, Answer]
) -> list[Question]:
    """The questions to ask beside what was `given` in addition.

    A server adds what fits, and says no word of what did not. So only where no host was left out altogether, a host
    without addresses of one type has none.
    """
    if all(any((host, rdtype) in given for rdtype in types) for host in hosts):
        return []
    return [(host, rdtype) for host in hosts for rdtype in types if (host, rdtype) not in given]


def service_nodes(services: Iterable[Service], addresses: Addresses) -> tuple[Node, ...]:
    """The nodes of SRV records whose targets have these addresses, in an order that depends on nothing else."""
    levels: defaultdict[int, list[Service]] = defaultdict(list)
    for service in services:
        if addresses[service.host]:
            levels[service.priority].append(service)
    nodes: dict[str, Node] = {}
    for backup, (_, level) in enumerate(sorted(levels.items())):
        weights = _weights(level, addresses)
        nodes = {address: Node(address, weight, backup) for address, weight in weights.items()} | nodes
    return _bounded(nodes)


def address_nodes(addresses: Iterable[str], port: int) -> tuple[Node, ...]:
    """The nodes of a name's own addresses, at this port."""
    return _bounded({place: Node(place) for place in (at_port(address, port) for address in addresses)})


def at_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def shown(name: dns.name.Name) -> str:
    """For a message."""
    return name.to_text(omit_final_dot=True)


def _weights(level: Sequence[Service], addresses: Addresses) -> dict[str, int]:
    """Address → weight of the services of one priority."""
    scale = min(lcm(*(len(addresses[service.host]) for service in level)), FINEST)
    weights: defaultdict[str, int] = defaultdict(int)
    for service in level:
        hosts = addresses[service.host]
        for address in hosts:
            weights[at_port(address, service.port)] += max(1, max(1, service.weight) * scale // len(hosts))
    return weights


def _bounded(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    if len(nodes) > MOST_RECORDS:
        raise AnswerError(f"{len(nodes)} nodes, but {MOST_RECORDS} is the limit")
    return tuple(sorted(nodes.values(), key=lambda node: (node.backup, node.address)))
