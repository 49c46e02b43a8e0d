"""Lookups at a scripted server: what is asked of whom, and which answers count."""

import time
from collections.abc import Iterator

import dns.message
import dns.rcode
import gevent
import pytest
from dns.rdatatype import RdataType
from gevent.event import Event

from discovery import dnsclient
from discovery.dnsanswer import Question
from discovery.dnsclient import Client, LookupFailed, Unreachable
from discovery.dnsservers import Place
from dns_server import (
    REFUSED,
    SERVFAIL,
    Knot,
    Reply,
    ScriptedDns,
    foreign,
    garbage,
    needs_knot,
    nothing,
    records,
    silence,
    truncated,
)
from servers import CONTRIB, free_port

NAME = "_uwsgi._tcp.foo.com"
SRV = f"{NAME} SRV"
WHOLE = records("10 3 3031 a.foo.com.", additional=["a.foo.com 60 A 127.0.0.1"])


@pytest.fixture(autouse=True)
def _short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsclient, "TRY", 0.2)


@pytest.fixture
def server() -> Iterator[ScriptedDns]:
    with ScriptedDns() as server:
        server.says[SRV] = WHOLE
        yield server


def client(
    *servers: ScriptedDns | int, timeout: float = 5, tcp: bool = False, types: tuple[RdataType, ...] = ()
) -> Client:
    places = [Place("127.0.0.1", one) if isinstance(one, int) else Place(one.host, one.port) for one in servers]
    return Client(lambda: places, timeout=timeout, tcp=tcp, types=types or (RdataType.A, RdataType.AAAA))


def places(found: dnsclient.Found) -> list[str]:
    return [node.address for node in found.nodes]


def test_one_question_is_enough_where_addresses_come_along(server: ScriptedDns) -> None:
    found = client(server).services(NAME)
    assert places(found) == ["127.0.0.1:3031"]
    assert (found.nodes[0].weight, found.ttl) == (3, 60)
    assert server.asked == {SRV: 1}


def test_a_server_by_ipv6() -> None:
    with ScriptedDns("::1") as server:
        server.says[SRV] = WHOLE
        assert places(client(server).services(NAME)) == ["127.0.0.1:3031"]


def test_addresses_that_do_not_come_along_are_asked_for(server: ScriptedDns) -> None:
    server.says[SRV] = records("10 1 3031 a.foo.com.", "10 1 3032 A.foo.com.", "20 1 3031 b.foo.com.")
    server.says["a.foo.com A"] = records("10.0.0.1", "10.0.0.2", ttl=50)
    server.says["a.foo.com AAAA"] = records("2001:db8::1", ttl=40)
    server.says["b.foo.com AAAA"] = nothing(ttl=30, rcode=dns.rcode.NOERROR)
    found = client(server).services(NAME)
    assert places(found) == [
        *("10.0.0.1:3031", "10.0.0.1:3032", "10.0.0.2:3031", "10.0.0.2:3032"),
        *("[2001:db8::1]:3031", "[2001:db8::1]:3032"),
    ]
    assert found.ttl == 30
    assert server.asked == dict.fromkeys([SRV, "a.foo.com A", "a.foo.com AAAA", "b.foo.com A", "b.foo.com AAAA"], 1)


def test_a_target_that_is_none_costs_itself_alone(server: ScriptedDns) -> None:
    server.says[SRV] = records("10 1 3031 a.foo.com.", "10 1 3031 gone.foo.com.", "10 1 3031 .")
    server.says["a.foo.com A"] = records("10.0.0.1")
    assert places(client(server).services(NAME)) == ["10.0.0.1:3031"]


@pytest.mark.parametrize("trouble", [SERVFAIL, silence, garbage()])
def test_half_of_the_nodes_is_no_answer(server: ScriptedDns, trouble: Reply) -> None:
    server.says[SRV] = records("10 1 3031 a.foo.com.", "10 1 3031 b.foo.com.")
    server.says["a.foo.com A"] = records("10.0.0.1")
    server.says["b.foo.com AAAA"] = trouble
    with pytest.raises(LookupFailed, match=r"^b\.foo\.com AAAA: "):
        client(server).services(NAME)


def test_one_family_alone(server: ScriptedDns) -> None:
    server.says[SRV] = records("10 1 3031 a.foo.com.", additional=["a.foo.com 1 A 10.0.0.1", "a.foo.com 1 AAAA ::2"])
    assert places(client(server, types=(RdataType.A,)).services(NAME)) == ["10.0.0.1:3031"]
    assert places(client(server, types=(RdataType.AAAA,)).services(NAME)) == ["[::2]:3031"]


def test_the_addresses_of_a_name_are_nodes(server: ScriptedDns) -> None:
    server.says["pool.foo.com A"] = records("10.0.0.1", "10.0.0.2", aliases=["x.foo.com"], ttl=50)
    server.says["pool.foo.com AAAA"] = nothing(ttl=5, rcode=dns.rcode.NOERROR)
    found = client(server).addresses("pool.foo.com", 3031)
    assert places(found) == ["10.0.0.1:3031", "10.0.0.2:3031"]
    assert found.ttl == 50
    server.says.clear()
    assert client(server).addresses("pool.foo.com", 3031) == dnsclient.Found((), 60)


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
def test_nothing_is_found_for_certain(server: ScriptedDns, rcode: dns.rcode.Rcode) -> None:
    server.says[SRV] = nothing(ttl=9, rcode=rcode)
    assert client(server).services(NAME) == dnsclient.Found((), 9)
    server.says[SRV] = records("0 0 0 .", ttl=8)
    assert client(server).services(NAME) == dnsclient.Found((), 8)


def test_what_is_truncated_is_asked_for_by_tcp(server: ScriptedDns) -> None:
    many = [f"10 1 {port} a.foo.com." for port in range(1, 201)]
    server.says[SRV] = truncated(records(*many, additional=["a.foo.com 60 A 127.0.0.1"]))
    assert len(client(server).services(NAME).nodes) == 200
    assert server.transports == {"udp": 1, "tcp": 1}


def test_by_tcp_alone(server: ScriptedDns) -> None:
    assert places(client(server, tcp=True).services(NAME)) == ["127.0.0.1:3031"]
    assert server.transports == {"tcp": 1}


@pytest.mark.parametrize("by_tcp", [SERVFAIL, silence, garbage(), garbage(b""), lambda query, tcp: b""])
def test_truncated_and_no_luck_by_tcp_is_no_answer(server: ScriptedDns, by_tcp: Reply) -> None:
    server.says[SRV] = truncated(by_tcp)
    with pytest.raises(LookupFailed, match=f"^{SRV}: .+ \\(127.0.0.1:{server.port}\\)$"):
        client(server).services(NAME)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (SERVFAIL, "SERVFAIL"),
        (REFUSED, "REFUSED"),
        (silence, "no answer in time"),
        (garbage(), "no answer in time"),
        (garbage(b""), "no answer in time"),
        (foreign(WHOLE), "no answer in time"),
        (records(authority=["foo.com 60 NS ns.foo.com."]), "a referral to other servers, no answer"),
    ],
)
def test_what_is_no_answer_says_why_and_by_whom(server: ScriptedDns, reply: Reply, why: str) -> None:
    server.says[SRV] = reply
    with pytest.raises(LookupFailed, match=f"^{SRV}: {why} \\({server.place}\\)$"):
        client(server).services(NAME)
    assert server.asked[SRV] == (2 if "in time" in why else 1)


def test_too_many_records_are_no_answer(server: ScriptedDns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsclient, "TRY", 5.0)  # it takes a while to write so many
    server.says[SRV] = records(*(f"1 1 {port} a.foo.com." for port in range(1, 1002)))
    with pytest.raises(LookupFailed, match="1001 records, but 1000 is the limit"):
        client(server).services(NAME)


def test_only_silence_of_all_servers_is_unreachable(server: ScriptedDns) -> None:
    server.says[SRV] = silence
    with pytest.raises(Unreachable, match=r"no answer in time .*, Connection refused"):
        client(server, free_port()).services(NAME)
    with pytest.raises(Unreachable, match="no server to ask is known"):
        client().services(NAME)
    server.says[SRV] = SERVFAIL
    with pytest.raises(LookupFailed) as caught:
        client(server, free_port()).services(NAME)
    assert not isinstance(caught.value, Unreachable)


@pytest.mark.parametrize("reply", [SERVFAIL, REFUSED, silence, garbage()])
def test_the_next_server_is_asked_and_stays_the_first_one(server: ScriptedDns, reply: Reply) -> None:
    with ScriptedDns() as bad:
        bad.says[SRV] = reply
        asking = client(bad, server)
        for _ in range(3):
            assert places(asking.services(NAME)) == ["127.0.0.1:3031"]
        assert bad.asked[SRV] == 1
        assert server.asked[SRV] == 3


def test_a_name_that_is_none_needs_no_second_opinion(server: ScriptedDns) -> None:
    with ScriptedDns() as other:
        other.says[SRV] = nothing()
        assert client(other, server).services(NAME).nodes == ()
        assert server.asked[SRV] == 0


@needs_knot
def test_the_example_zone_says_what_its_comments_say() -> None:
    with Knot({"example.com": (CONTRIB / "dns" / "example.com.zone").read_text()}) as knot:
        asking = Client(lambda: [Place(knot.host, knot.port)], timeout=5)
        found = asking.services("_uwsgi._tcp.app.example.com")
        assert [(node.address, node.weight, node.backup) for node in found.nodes] == [
            *(("192.0.2.11:3031", 3, 0), ("192.0.2.12:3031", 1, 0), ("192.0.2.13:3031", 1, 1)),
        ]
        assert found.ttl == 10
        assert asking.services("_uwsgi._tcp.old.example.com").nodes == ()
        assert asking.services("_uwsgi._tcp.other.example.com") == dnsclient.Found((), 5)
        assert places(asking.addresses("pool.example.com", 3031)) == ["192.0.2.11:3031", "192.0.2.12:3031"]


def test_a_lookup_is_over_in_time(server: ScriptedDns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsclient, "TRY", 30.0)
    server.says[SRV] = silence
    begun = time.monotonic()
    with pytest.raises(Unreachable):
        client(server, server, timeout=0.3).services(NAME)
    assert time.monotonic() - begun < 10


def test_a_packet_that_is_lost_is_sent_again(server: ScriptedDns) -> None:
    server.says[SRV] = lambda query, tcp: WHOLE(query, tcp) if server.asked[SRV] > 1 else None
    assert places(client(server).services(NAME)) == ["127.0.0.1:3031"]


def test_a_name_with_many_targets_at_a_slow_server_holds_up_no_other_name(
    server: ScriptedDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, answers = client(server), Event()
    exchange = asking._exchange

    def held_back(question: Question, place: Place, seconds: float) -> dns.message.Message:
        if question[0].to_text().startswith("slow"):
            answers.wait()
        return exchange(question, place, seconds)

    monkeypatch.setattr(asking, "_exchange", held_back)
    server.says[SRV] = records(*(f"10 1 3031 slow{n}.foo.com." for n in range(100)))
    server.says["b.foo.com A"] = records("127.0.0.2")
    many = gevent.spawn(asking.services, NAME)
    gevent.sleep(0)
    try:
        with gevent.Timeout(10):
            assert places(asking.addresses("b.foo.com", 1)) == ["127.0.0.2:1"]
        assert not many.ready()
    finally:
        answers.set()
        many.kill()
