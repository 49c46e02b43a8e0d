"""What announces itself, piece by piece: the loop on a clock of ours, lookups, our own address, datagrams, knocking."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dns.rrset
import pytest
from dns.exception import DNSException

from discovery import whereabouts
from discovery.announcement import parse_announcement
from discovery.announcetarget import Announcer, NotAccepting, Registration, Trouble
from discovery.httpjson import HttpJson
from discovery.ownaddress import accepts, own_address
from discovery.toconsul import ToConsul
from discovery.toetcd import ToEtcd
from discovery.torouter import ToRouter
from discovery.whereabouts import Place, Whereabouts, of_hosts, router_at
from router.address import Inet, Unix, parse_node
from scripted import Blackhole, NodeConnection, ScriptedNode, split
from servers import free_address


def place(text: str) -> Place:
    found = parse_node(text)
    assert isinstance(found, Inet | Unix)
    return found


class Told:
    """A target that does as it is told."""

    name, every = "told", 10.0

    def __init__(self) -> None:
        self.where = Whereabouts(list, 10)
        self.renewals = 0
        self.trouble: Exception | None = None
        self.current = True
        self.withdrawals = 0

    def renew(self) -> None:
        self.renewals += 1
        if self.trouble:
            raise self.trouble

    def is_current(self) -> bool:
        return self.current

    def withdraw(self) -> None:
        self.withdrawals += 1
        if self.trouble:
            raise self.trouble


class Clocked:
    """An announcer whose time passes as it sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.target = Told()
        self.announcer = Announcer(self.target, sleep=self.sleep, random=lambda: 1.0, clock=lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pause(self) -> float:
        """One turn and the wait behind it: seconds until the next one."""
        before = self.now
        self.announcer.rest(self.announcer.turn())
        return self.now - before


@pytest.fixture
def clocked() -> Clocked:
    return Clocked()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was logged since it was asked last."""
    monkeypatch.setattr(logging.getLogger("gfrouter"), "propagate", True)
    caplog.set_level(logging.INFO, "gfrouter")

    def since() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return since


# The loop.


def test_renewals_come_at_the_targets_pace(clocked: Clocked) -> None:
    assert [clocked.pause() for _ in range(3)] == [10.0, 10.0, 10.0]


def test_failures_are_waited_out_longer_each_time_but_no_longer_than_a_renewal(
    clocked: Clocked, lines: Callable[[], list[str]]
) -> None:
    clocked.target.trouble = ConnectionRefusedError(111, "Connection refused")
    assert [clocked.pause() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert lines() == ["told: Connection refused; trying again"]
    clocked.target.trouble = Trouble("something else")
    clocked.pause()
    clocked.target.trouble = None
    clocked.pause()
    clocked.pause()
    assert lines() == ["told: something else; trying again", "told: all is well again"]
    clocked.target.trouble = Trouble("something else")
    assert clocked.pause() == 1.0


def test_a_fault_of_ours_ends_no_loop(clocked: Clocked, lines: Callable[[], list[str]]) -> None:
    clocked.target.trouble = ZeroDivisionError("division by zero")
    clocked.pause()
    assert lines() == ["told: ZeroDivisionError: division by zero; trying again"]


def test_a_worker_that_does_not_accept_yet_is_asked_again_soon_and_told_of_once(
    clocked: Clocked, lines: Callable[[], list[str]]
) -> None:
    clocked.target.trouble = NotAccepting("waiting for :1 to accept connections")
    assert [clocked.pause() for _ in range(3)] == pytest.approx([0.2] * 3)
    assert lines() == ["told: waiting for :1 to accept connections"]


def test_what_is_no_longer_so_is_said_within_a_second(clocked: Clocked) -> None:
    clocked.target.current = False
    assert clocked.pause() == 1.0


def test_a_jump_of_time_brings_one_renewal_and_no_burst(clocked: Clocked) -> None:
    clocked.announcer.turn()
    clocked.now += 3600  # frozen, or a paused machine
    assert clocked.pause() == 10.0
    assert clocked.target.renewals == 2


def test_a_farewell_that_fails_is_logged(clocked: Clocked, lines: Callable[[], list[str]]) -> None:
    clocked.target.trouble = OSError(101, "Network is unreachable")
    clocked.announcer.withdraw()
    assert lines() == ["told: not withdrawn: Network is unreachable"]


# Where a target is.


def test_a_lookup_that_fails_keeps_what_the_last_one_gave() -> None:
    answers: list[Sequence[Place] | OSError] = [
        OSError("no such name"), [place("127.0.0.1:1")], OSError("time-out"), [], [place("127.0.0.2:1")],
    ]  # fmt: skip

    def look() -> Sequence[Place]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    where = Whereabouts(look, 10)
    where.turn()
    with pytest.raises(OSError, match=r"^no such name$"):
        where.now()
    for host, error in ("127.0.0.1", ""), ("127.0.0.1", "time-out"), ("127.0.0.1", "no address is known"), (
        "127.0.0.2", "",
    ):  # fmt: skip
        where.turn()
        assert (where.now(), where.error) == ((place(f"{host}:1"),), error)


def test_a_fault_of_ours_ends_no_lookups() -> None:
    looks: list[Sequence[Place]] = [[place("127.0.0.1:1")]]
    where = Whereabouts(looks.pop, 10)
    for error in "", "pop from empty list":
        where.turn()
        assert (where.now(), where.error) == ((place("127.0.0.1:1"),), error)


def test_a_resolv_conf_without_servers_is_a_lookup_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_resolver() -> None:
        raise DNSException("cannot open /etc/resolv.conf")  # type: ignore[no-untyped-call]

    monkeypatch.setattr(whereabouts, "Resolver", no_resolver)
    with pytest.raises(OSError, match=r"^cannot resolve _a._udp.lan: cannot open /etc/resolv.conf$"):
        router_at("_a._udp.lan", 2626)()


def test_a_target_of_a_service_that_is_no_host_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "Resolver", Scripted)
    assert {found.sockaddr[1] for found in router_at("_a._udp.lan", 2626)()} == {4}


class Scripted:
    """A resolver in whose answer two targets are none."""

    def resolve(self, _name: str, _type: str, **_: Any) -> dns.rrset.RRset:
        texts = ("0 0 1 .", "0 0 2 a\\032b.lan.", "0 0 4 localhost.")
        return dns.rrset.from_text_list("_a._udp.lan.", 60, "IN", "SRV", texts)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1", "127.0.0.1:2626"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        (":1", "0.0.0.0:1"),
        ("[::1]", "[::1]:2626"),
        ("[::1]:1", "[::1]:1"),
        ("225.1.1.1:1", None),
        ("/run/x:y", "/run/x:y"),
        ("@x", "@x"),
    ],
)
def test_a_numeric_target_is_itself(text: str, found: str | None) -> None:
    (one,) = router_at(text, 2626)()
    assert one == (place(found) if found else Inet(socket.AF_INET, ("225.1.1.1", 1)))


def test_of_several_hosts_one_that_is_unknown_hides_no_other() -> None:
    assert of_hosts([("127.0.0.1", 1), ("nowhere.invalid", 2), ("::1", 3)])() == [
        place("127.0.0.1:1"),
        place("[::1]:3"),
    ]
    with pytest.raises(OSError, match=r"^cannot resolve nowhere.invalid: "):
        of_hosts([("nowhere.invalid", 2)])()


# Our own address.


@pytest.mark.parametrize(
    ("target", "own"),
    [("127.0.0.1:9", "127.0.0.1:3031"), ("[::1]:9", "[::1]:3031"), ("/run/x", "127.0.0.1:3031")],
)
def test_our_address_is_that_of_the_way_to_the_target(target: str, own: str) -> None:
    assert own_address(":3031", place(target)) == own


def test_an_address_that_names_a_host_is_ours_whatever_the_way() -> None:
    assert own_address("10.0.0.5:3031", place("127.0.0.1:9")) == "10.0.0.5:3031"
    assert own_address("/run/app.sock", place("127.0.0.1:9")) == "/run/app.sock"


@pytest.mark.parametrize("form", ["127.0.0.1:0", "[::1]:0", "path", "@gfrouter-test-accepts"])
def test_somebody_or_nobody_accepts(form: str, tmp_path: Path) -> None:
    with ScriptedNode(address=str(tmp_path / "node") if form == "path" else form) as node:
        assert accepts(node.address) is True
    assert accepts(node.address) is False


def test_who_is_too_busy_is_not_taken_for_nobody() -> None:
    with Blackhole() as busy:
        assert accepts(busy.address) is None


# At a router.

SAID = Registration(("foo.com", "bar.com"), "127.0.0.1:9", weight=3, modifier1=5)


class Listener:
    """A router's subscription socket that keeps what comes."""

    def __init__(self, address: str) -> None:
        self.address = address
        target = place(address)
        self.socket = socket.socket(target.family, socket.SOCK_DGRAM)
        self.socket.bind(target.sockaddr)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """`+foo.com 127.0.0.1:9` or `-...` for each datagram since it was asked last."""
        found: list[str] = []
        while True:
            try:
                said = parse_announcement(self.socket.recv(4096))
            except BlockingIOError:
                return found
            found.append(f"{'+' if said.subscribe else '-'}{said.key} {said.address}")

    def close(self) -> None:
        self.socket.close()


BOTH = ["+foo.com 127.0.0.1:9", "+bar.com 127.0.0.1:9"]
NEITHER = ["-foo.com 127.0.0.1:9", "-bar.com 127.0.0.1:9"]


@pytest.fixture(params=["ipv4", "ipv6", "path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    with closing(Listener(free_address(request.param, tmp_path))) as listener:
        yield listener


def target(to: str, said: Registration = SAID, accepting: bool | None = True) -> ToRouter:
    made = ToRouter(to, said, lambda address: accepting, sleep=lambda seconds: None)
    made.where.turn()
    return made


def test_each_key_is_announced_renewed_and_withdrawn(listener: Listener, lines: Callable[[], list[str]]) -> None:
    router = target(listener.address)
    router.renew()
    assert listener.heard() == BOTH
    assert lines() == [f"{key} + 127.0.0.1:9 ({listener.address})" for key in SAID.keys]
    router.renew()
    assert listener.heard() == BOTH
    assert lines() == []
    router.withdraw()
    assert listener.heard() == NEITHER
    assert lines() == [f"{key} - 127.0.0.1:9 ({listener.address})" for key in SAID.keys]
    router.withdraw()
    assert listener.heard() == []


def test_a_router_that_is_not_there_is_a_trouble_until_it_is(tmp_path: Path, lines: Callable[[], list[str]]) -> None:
    for form in "ipv4", "ipv6", "path", "abstract":
        address = free_address(form, tmp_path)
        router = target(address)
        with pytest.raises(Trouble, match=r"refused|No such file"):
            router.renew()
        assert lines() == []
        with closing(Listener(address)) as listener:
            router.renew()
            assert listener.heard() == BOTH
        assert len(lines()) == 2


def test_one_of_two_routers_is_told_while_the_other_is_away() -> None:
    away = free_address()
    with closing(Listener(free_address())) as there:
        router = ToRouter(there.address, SAID, lambda address: True, sleep=lambda seconds: None)
        router.where.look = lambda: [place(away), place(there.address)]
        router.where.turn()
        with pytest.raises(Trouble, match=f"^{away}: Connection refused$"):
            router.renew()
        assert there.heard() == BOTH


def test_a_router_that_moves_is_left_at_the_old_place_and_told_at_the_new() -> None:
    with closing(Listener(free_address())) as old, closing(Listener(free_address())) as new:
        router = target(old.address)
        router.renew()
        assert router.is_current()
        old.heard()
        router.where.look = lambda: [place(new.address)]
        router.where.turn()
        assert not router.is_current()
        router.renew()
        assert (old.heard(), new.heard()) == (NEITHER, BOTH)
        assert router.is_current()


def test_who_accepts_nothing_is_not_announced_and_who_is_busy_stays_so(listener: Listener) -> None:
    answers: list[bool | None] = [None, False, True, None, False, True]
    router = ToRouter(listener.address, SAID, lambda address: answers.pop(0), sleep=lambda seconds: None)
    router.where.turn()
    for _ in range(2):
        with pytest.raises(NotAccepting, match=r"^waiting for 127.0.0.1:9 to accept connections$"):
            router.renew()
        assert listener.heard() == []
    for _ in range(2):
        router.renew()
        assert listener.heard() == BOTH
    with pytest.raises(NotAccepting):
        router.renew()
    assert listener.heard() == NEITHER
    router.renew()
    assert listener.heard() == BOTH


def test_a_router_of_both_families_is_told_of_one_node() -> None:
    with closing(Listener(free_address("ipv4"))) as four, closing(Listener(free_address("ipv6"))) as six:
        router = target(four.address, Registration(("foo.com",), ":9"))
        router.where.look = lambda: [place(six.address), place(four.address)]
        router.where.turn()
        router.renew()
        assert (four.heard(), six.heard()) == (["+foo.com 127.0.0.1:9"], [])
        router.where.look = lambda: [place(six.address)]
        router.where.turn()
        router.renew()
        assert (four.heard(), six.heard()) == (["-foo.com 127.0.0.1:9"], ["+foo.com [::1]:9"])


def test_of_two_ways_to_us_one_that_is_closed_hides_no_other() -> None:
    """As for two routers that see us at addresses of two networks, where the worker listens on one."""
    with closing(Listener(free_address("ipv4"))) as four, closing(Listener(free_address("ipv6"))) as six:
        router = target(four.address)
        router.where.look = lambda: [place(six.address), place(four.address)]
        router.where.turn()
        verdicts = [False, True]
        router._accepts = lambda address: verdicts.pop(0)
        router.renew()
        assert (four.heard(), six.heard()) == (BOTH, [])


def test_a_full_queue_is_a_trouble_and_no_end(tmp_path: Path) -> None:
    """As that of a router which is frozen: a unix socket's sender waits, but not for long."""
    with closing(Listener(str(tmp_path / "router"))) as frozen:
        router = target(frozen.address)
        with pytest.raises(Trouble, match=r"timed out"):
            list(iter(router.renew, 0))
        assert len(frozen.heard()) > 1
        router.renew()


# In Consul and in etcd, as far as no server is needed.


def test_what_consul_is_told() -> None:
    said = Registration(("foo.com:8080",), ":3031", weight=3, backup=1, modifier1=5, ttl=40)
    assert ToConsul("consul://", said, lambda address: True).service("foo.com:8080") == {
        "ID": "gfrouter:foo.com:8080::3031",
        "Name": "foo-com-8080",
        "Tags": ["uwsgi", "uwsgi-key=foo.com:8080"],
        "Address": "",
        "Port": 3031,
        "Meta": {"uwsgi-modifier1": "5", "uwsgi-backup": "1"},
        "Weights": {"Passing": 3, "Warning": 1},
        "Check": {
            "CheckID": "service:gfrouter:foo.com:8080::3031",
            "Name": "gfrouter announce",
            "TTL": "40s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "120s",
        },
    }


@pytest.mark.parametrize(
    ("address", "host"), [("[fd00::5]:1", "fd00::5"), ("app.lan:1", "app.lan"), ("10.0.0.5:1", "10.0.0.5")]
)
def test_consul_is_told_of_a_host_that_is_named(address: str, host: str) -> None:
    service = ToConsul(
        "consul://?service=web&tag=x", Registration(("foo.com",), address), lambda address: True
    ).service("foo.com")
    assert (service["Address"], service["Port"], service["Name"], service["Tags"]) == (
        host,
        1,
        "web",
        ["x", "uwsgi-key=foo.com"],
    )


def test_what_etcd_is_told() -> None:
    plain = ToEtcd("etcd://", Registration(("foo.com",), ":1"), lambda address: True)
    assert (plain.key("foo.com/app", "[::1]:1"), plain.value()) == (b"/gfrouter/foo.com%2Fapp/[::1]:1", b"")
    full = ToEtcd("etcd://a/apps/", Registration(("foo.com",), ":1", 3, 2, 5, 6), lambda address: True)
    assert full.key("a", "b") == b"/apps/a/b"
    assert full.is_current()
    full.withdraw()  # nothing was said
    assert full.value() == b'{"weight": 3, "backup": 2, "modifier1": 5, "modifier2": 6}'
    with pytest.raises(ValueError, match=r"^etcd://: its keys are UTF-8, and '.*' is not$"):
        ToEtcd("etcd://", Registration(("\udcff",), ":1"), lambda address: True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 500 No\r\nContent-Length: 8\r\n\r\nrpc \nerr", "HTTP 500: rpc err"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>", "its answer is no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "its answer is no JSON"),
        (b"garbage\r\n\r\n", "garbage"),
        (b"", "Remote end closed connection without response"),
    ],
)
def test_whatever_an_http_server_answers_is_an_answer_or_a_trouble(answer: bytes, said: object) -> None:
    def script(connection: NodeConnection) -> None:
        while connection.read() and b"{}" not in connection.received:
            pass
        connection.send(answer)

    with ScriptedNode(script) as node:
        client = HttpJson([split(node.address)], 10)
        client.where.turn()
        if isinstance(said, str):
            with pytest.raises(Trouble) as caught:
                client.call("PUT", "/", {})
            assert said in str(caught.value) and "\n" not in str(caught.value)
        else:
            assert client.call("PUT", "/", {}) == said


def test_of_two_servers_the_one_that_answers_is_asked() -> None:
    def script(connection: NodeConnection) -> None:
        while connection.read() and b"{}" not in connection.received:
            pass
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with ScriptedNode(script) as node:
        dead = free_address()
        client = HttpJson([split(dead), split(node.address)], 10)
        client.where.turn()
        assert client.call("PUT", "/", {}) == {}
        assert client.places()[0] == place(node.address)
    with pytest.raises(Trouble, match=f"^{node.address}: Connection refused; {dead}: Connection refused$"):
        client.call("PUT", "/", {})
