"""Asks DNS servers: one lookup is all questions that it takes to know a name's nodes, within one limit of time.

A question goes to the server that answered last, then to the others, by UDP with EDNS, and by TCP where that answer is
truncated. A server that fails or refuses is not asked again in this lookup, one that is silent is asked once more, as
packets get lost. What is garbage, or answers something else, is no answer, and the true one may still come.

A lookup gives all nodes of the name or raises LookupFailed. Half of them is nothing: a target of which nobody knows
whether it has addresses makes the whole name fail, as the nodes that are missing would look like nodes that are gone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import dns.exception
import dns.message
import dns.name
import dns.query
import gevent
from dns.rdatatype import RdataType
from gevent.pool import Pool

from discovery.dnsanswer import (
    Answer,
    AnswerError,
    Question,
    additional,
    address_nodes,
    read_answer,
    service_nodes,
    services_of,
    shown,
    unanswered,
)
from discovery.dnsservers import Place
from router.node import Node

TRY = 2.0  # seconds for one server; most answer in 50 ms, and a resolver that must ask others in less than that
# Bytes that an answer by UDP may have. Servers that mind fragments stay below it by themselves; Consul is one that
# leaves out what does not fit and does not say so.
PAYLOAD = 4096
# At once, for the addresses of the targets of one name; each has a socket. Names do not share them: one with a thousand
# targets at a server that is slow, as any stranger can have it, must not keep the others from being asked for.
QUESTIONS = 16


class LookupFailed(Exception):
    """Nobody could be found who knows; the text says what was tried, in one line."""


class Unreachable(LookupFailed):
    """No server answered at all."""


@dataclass(frozen=True, slots=True)
class Found:
    """All nodes of a name, none if there are none for certain; good for `ttl` seconds."""

    nodes: tuple[Node, ...]
    ttl: int


class Client:
    """`servers` gives those to ask. `timeout` is that of a whole lookup, in seconds; `types` are those of addresses."""

    def __init__(
        self,
        servers: Callable[[], Sequence[Place]],
        *,
        timeout: float,
        tcp: bool = False,
        types: Sequence[RdataType] = (RdataType.A, RdataType.AAAA),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.servers = servers
        self.timeout = timeout
        self.tcp = tcp
        self.types = types
        self.clock = clock
        self.best: Place | None = None  # who answered last

    def services(self, name: str) -> Found:
        """The nodes of this name's SRV records."""
        deadline = self.clock() + self.timeout
        answer = self._ask((dns.name.from_text(name), RdataType.SRV), deadline)
        services = services_of(answer)
        hosts = list(dict.fromkeys(service.host for service in services))
        found = additional(answer, hosts, self.types)
        found |= self._ask_all(unanswered(hosts, self.types, found), deadline)
        addresses = {host: _texts(found, host, self.types) for host in hosts}
        ttl = min([answer.ttl, *(each.ttl for each in found.values())])
        return Found(_complete(lambda: service_nodes(services, addresses)), ttl)

    def addresses(self, name: str, port: int) -> Found:
        """The nodes at this name's own addresses."""
        host = dns.name.from_text(name)
        found = self._ask_all([(host, rdtype) for rdtype in self.types], self.clock() + self.timeout)
        addresses = _texts(found, host, self.types)
        # That a name has no AAAA may be known for less long than its A; only where it has neither is that what counts.
        ttl = min(each.ttl for each in found.values() if each.records or not addresses)
        return Found(_complete(lambda: address_nodes(addresses, port)), ttl)

    def _ask_all(self, questions: Sequence[Question], deadline: float) -> dict[Question, Answer]:
        """The answers to all of them; LookupFailed if one has none."""

        def ask(question: Question) -> Answer | LookupFailed:
            try:
                return self._ask(question, deadline)
            except LookupFailed as error:
                return error

        answers = {}
        for question, answer in zip(questions, Pool(QUESTIONS).map(ask, questions), strict=True):
            if isinstance(answer, LookupFailed):
                raise answer
            answers[question] = answer
        return answers

    def _ask(self, question: Question, deadline: float) -> Answer:
        """The answer of the first server that has one."""
        name, rdtype = question
        what = f"{shown(name)} {rdtype.name}"
        places = sorted(self.servers(), key=lambda place: place != self.best)
        if not places:
            raise Unreachable(f"{what}: no server to ask is known")
        troubles: dict[Place, str] = {}
        heard = False
        while places and (left := deadline - self.clock()) > 0:
            place = places.pop(0)
            try:
                answer = read_answer(self._exchange(question, place, min(TRY, left)))
            except (dns.exception.Timeout, gevent.Timeout):
                if place not in troubles:
                    places.append(place)
                troubles[place] = "no answer in time"
            except OSError as error:
                troubles[place] = error.strerror or str(error)
            except (dns.exception.DNSException, ValueError, EOFError) as error:
                heard = True
                troubles[place] = str(error) or type(error).__name__
            else:
                self.best = place
                return answer
        tried = ", ".join(f"{trouble} ({place})" for place, trouble in troubles.items()) or "no time left to ask"
        raise (LookupFailed if heard or not troubles else Unreachable)(f"{what}: {tried}")

    def _exchange(self, question: Question, place: Place, seconds: float) -> dns.message.Message:
        """What this server says, within so many seconds."""
        query = dns.message.make_query(*question, use_edns=0, payload=PAYLOAD)
        # dnspython looks at the wall clock; where that is set back, a wait of two seconds would last for hours.
        with gevent.Timeout(seconds + 1.0):
            if self.tcp:
                return dns.query.tcp(query, place.host, seconds, place.port)
            family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                # A connected socket hears from its server alone, and that nobody listens there.
                sock.connect((place.host, place.port))
                answer, _ = dns.query.udp_with_fallback(
                    query, place.host, seconds, place.port, udp_sock=sock, ignore_unexpected=True, ignore_errors=True
                )
                return answer


def _complete(nodes: Callable[[], tuple[Node, ...]]) -> tuple[Node, ...]:
    try:
        return nodes()
    except AnswerError as error:
        raise LookupFailed(str(error)) from None


def _texts(found: dict[Question, Answer], host: dns.name.Name, types: Sequence[RdataType]) -> list[str]:
    return [record.address for rdtype in types if (host, rdtype) in found for record in found[host, rdtype].records]
