"""The subscription source: what becomes of announcements, and of datagrams that are none. Expiry: test_expiry.py."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from announced import NODE, SUBSCRIBE, UNIX_SECONDS, UNSUBSCRIBE, Announced, packet
from discovery.announcement import LARGEST_DATAGRAM, parse_announcement
from discovery.settings import Settings, parse_url
from discovery.subscription import BATCH, NAMES, Subscription
from router.address import AddressError
from router.node import Node
from router.source import Source
from router.table import Table
from router.uwsgi import build, packet_size
from scripted import address_of, split, wait_for
from servers import OWN_NETWORK, TESTS, Worker, needs_namespaces
from test_announcement import HOSTILE

NOBODY = ("no address", "no address for key 'foo.com'")
DROPPED = {
    **HOSTILE,
    packet(address=b""): NOBODY,
    packet(address=""): NOBODY,
    packet(address="10.0.0.5:http"): ("bad node address", "'10.0.0.5:http': port 'http' is not a number"),
    packet(address="10.0.0.5:0"): ("bad node address", "'10.0.0.5:0': port 0 is out of range (1 to 65535)"),
    packet(address="exa mple:80"): (
        "bad node address",
        "'exa mple:80': 'exa mple' is neither an IP address nor a host name",
    ),
    packet(address="::1:80"): (
        "bad node address",
        "'::1:80': an IPv6 address stands in brackets, as in [::1]:3031",
    ),
}


@pytest.fixture
def announced() -> Iterator[Announced]:
    with Announced() as announced:
        yield announced


@pytest.mark.parametrize(
    ("datagram", "reason", "text"),
    [(datagram, *why) for datagram, why in DROPPED.items()],
    ids=[f"{i}: {text}" for i, (_, text) in enumerate(DROPPED.values())],
)
def test_a_hostile_datagram_is_dropped_and_counted_and_costs_nothing_else(
    announced: Announced, caplog: pytest.LogCaptureFixture, datagram: bytes, reason: str, text: str
) -> None:
    announced.take(packet(key="bar.com"), datagram, packet(key="baz.com"))
    assert announced.feed.rejected == Counter({reason: 1})
    assert sorted(announced.table.pools) == ["bar.com", "baz.com"]
    sender = "{}:{}".format(*announced.sender.getsockname())
    assert caplog.messages == [f"{announced.source.name}: dropped, {reason}: {text} (from {sender})"]


def test_the_largest_datagram_is_taken(announced: Announced) -> None:
    largest = packet(pad="x" * (LARGEST_DATAGRAM - len(packet(pad="x")) + 1))
    assert len(largest) == LARGEST_DATAGRAM
    announced.take(largest, largest + b"\x00")
    assert announced.addresses() == [NODE]
    assert announced.feed.rejected == Counter({"oversized datagram": 1})


names = st.sampled_from(
    b"key address modifier1 modifier2 cores load weight backup proto algo unix sign notify sni_key sni_crt sni_ca "
    b"vassal clear other".split()
)
contents = st.binary(max_size=20) | st.integers(0, 2**70).map(lambda n: b"%d" % n) | st.binary(min_size=250)


@given(st.lists(st.dictionaries(names, contents), max_size=5), st.sampled_from([0, 224]), st.sampled_from([0, 1]))
@settings(max_examples=100)
def test_wellformed_nonsense_never_stops_the_source(
    said: list[dict[bytes, bytes]], modifier1: int, command: int
) -> None:
    with Announced() as announced:
        for fields in said:
            announced.take(build(fields.items(), modifier1, command))
        assert sum(announced.feed.rejected.values()) <= len(said)
        announced.take(packet(key="still.works"))
        assert announced.addresses("still.works") == [NODE]


# What becomes of it.


def test_an_announcement_becomes_a_node_with_all_it_says(announced: Announced) -> None:
    shown = {"proto": "https", "algo": "lrc", "vassal": "app.ini", "sni_key": "/k", "sni_crt": "/c"}
    numbers = {"modifier1": 30, "modifier2": 7, "cores": 8, "load": 3, "weight": 5, "backup": 2}
    announced.take(packet(SUBSCRIBE, 224, **shown, **numbers))
    (node,) = announced.nodes()
    assert node == Node(NODE, 5, 2, modifier1=30, modifier2=7, proto="h", vassal="app.ini", algorithm="lrc", sni=True)
    assert (node.cores, node.load, node.last_check) == (8, 3, UNIX_SECONDS + 0.9)


def test_weight_0_counts_as_1(announced: Announced) -> None:
    announced.take(packet(weight=0), packet(address="10.0.0.6:3031"))
    assert [node.weight for node in announced.nodes()] == [1, 1]


def test_tls_needs_both_key_and_certificate(announced: Announced) -> None:
    announced.take(packet(sni_key="/k"), packet(address="10.0.0.6:3031", sni_key="/k", sni_crt="/c"))
    assert [node.sni for node in announced.nodes()] == [False, True]


def test_a_later_announcement_describes_the_node_anew(announced: Announced) -> None:
    announced.take(packet(weight=1, modifier2=0), packet(weight=9, modifier2=4))
    assert announced.nodes() == [Node(NODE, weight=9, modifier2=4)]


@pytest.mark.parametrize("address", [":3031", "/run/app.sock", "127.0.0.1:1"])
def test_an_address_is_kept_as_announced(announced: Announced, address: str) -> None:
    announced.take(packet(address=address))
    assert announced.addresses() == [address]


def test_unsubscribing_withdraws_the_node_of_this_key_alone(
    announced: Announced, caplog: pytest.LogCaptureFixture
) -> None:
    announced.take(packet(), packet(key="bar.com"), packet(address="10.0.0.6:3031"))
    with caplog.at_level(logging.INFO, "gfrouter"):
        announced.take(packet(UNSUBSCRIBE))
    assert announced.addresses() == ["10.0.0.6:3031"]
    assert announced.addresses("bar.com") == [NODE]
    assert caplog.messages == [f"[uWSGI fastrouter pid {os.getpid()}] foo.com => marking {NODE} as failed"]


def test_unsubscribing_who_is_unknown_changes_nothing(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    announced.take(packet())
    with caplog.at_level(logging.INFO, "gfrouter"):
        announced.take(packet(UNSUBSCRIBE, key="other.com"), packet(UNSUBSCRIBE, address="10.0.0.6:3031"))
    assert announced.addresses() == [NODE]
    assert (caplog.messages, announced.feed.rejected) == ([], Counter())


def test_a_vassal_that_clears_its_address_leaves(announced: Announced) -> None:
    announced.take(packet(vassal="app.ini"))
    assert announced.addresses() == [NODE]
    announced.take(packet(vassal="app.ini", clear=1))
    assert announced.addresses() == []


def test_clear_means_nothing_without_a_vassal(announced: Announced) -> None:
    announced.take(packet(clear=1))
    assert announced.addresses() == [NODE]


def test_a_line_break_in_a_key_cannot_forge_a_log_line(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    key = "a\n[uWSGI fastrouter pid 1] b\udcff"
    with caplog.at_level(logging.INFO, "gfrouter"):
        announced.take(packet(key=key), packet(UNSUBSCRIBE, key=key))
    shown = r"a\n[uWSGI fastrouter pid 1] b\udcff"
    assert caplog.messages == [f"[uWSGI fastrouter pid {os.getpid()}] {shown} => marking {NODE} as failed"]


# The source itself.


def test_it_is_a_source_named_by_its_real_address(announced: Announced) -> None:
    source: Source = announced.source
    host, port = split(announced.source.address)
    assert (host, port) == announced.source.socket.getsockname()
    assert port != 0
    assert source.name == f"subscription@127.0.0.1:{port}"


def test_an_address_in_use_stops_the_start(announced: Announced) -> None:
    address = announced.source.address
    with pytest.raises(AddressError) as error:
        Subscription(f"udp://{address}")
    assert str(error.value) == f"cannot bind '{address}': the address is in use by another socket"


@pytest.mark.parametrize(
    ("url", "address", "settings"),
    [
        ("udp://0.0.0.0:2626", "0.0.0.0:2626", Settings()),
        ("udp://:2626", ":2626", Settings()),
        ("udp://127.0.0.1:0/", "127.0.0.1:0", Settings()),
        ("udp://[::1]:0", "[::1]:0", Settings()),
        ("udp://192.*:0?tolerance=30", "192.*:0", Settings(tolerance=30)),
        ("udp://127.0.0.1:2626/?tolerance=86400", "127.0.0.1:2626", Settings(tolerance=86_400)),
        ("unix:///run/subscriptions?quota=0", "/run/subscriptions", Settings(quota=0)),
        ("unix://@subscriptions", "@subscriptions", Settings()),
        ("fd://7?tolerance-inactive=3&address=sender", "fd://7", Settings(tolerance_inactive=3, address="sender")),
        ("fd://web?address=announced&quota=1000000", "fd://web", Settings(quota=1_000_000)),
    ],
)
def test_a_url_is_an_address_and_settings(url: str, address: str, settings: Settings) -> None:
    assert parse_url(url) == (address, settings)


SHAPE = "expected udp://HOST:PORT, unix://PATH or fd://N"
SETTINGS = (
    "address, allow, credentials-check, mountpoints, quota, sign-check, sign-check-tolerance, sign-skip-uid, "
    "tolerance, tolerance-inactive, use-credentials"
)
SECONDS = "legal: 1 to 86400 seconds"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("tcp://127.0.0.1:0", SHAPE),
        ("127.0.0.1:2626", "no URL of a source (legal: NAME, or NAME://PLACE/PATH?SETTING=VALUE)"),
        ("udp://", SHAPE),
        ("udp://?tolerance=3", SHAPE),
        ("fd:///", SHAPE),
        ("udp:///run/subscriptions", "udp:// does not go with '/run/subscriptions'"),
        ("udp://@subscriptions", "udp:// does not go with '@subscriptions'"),
        ("unix://127.0.0.1:0", "unix:// does not go with '127.0.0.1:0'"),
        ("udp://:0?tolerence=3", f"setting 'tolerence' is not known (known: {SETTINGS})"),
        ("udp://:0?tolerance_inactive=3", f"setting 'tolerance_inactive' is not known (known: {SETTINGS})"),
        ("udp://:0?tolerance=", f"tolerance=: a number is missing ({SECONDS})"),
        ("udp://:0?tolerance=soon", f"tolerance=soon: not a whole number ({SECONDS})"),
        ("udp://:0?tolerance=-1", f"tolerance=-1: out of range ({SECONDS})"),
        ("udp://:0?tolerance=٣", f"tolerance=٣: not a whole number ({SECONDS})"),
        ("udp://:0?tolerance=0", f"tolerance=0: out of range ({SECONDS})"),
        ("udp://:0?tolerance=86401", f"tolerance=86401: out of range ({SECONDS})"),
        ("udp://:0?tolerance-inactive=0", f"tolerance-inactive=0: out of range ({SECONDS})"),
        ("udp://:0?quota=1000001", "quota=1000001: out of range (legal: 0 to 1000000)"),
        ("udp://:0?quota=1e3", "quota=1e3: not a whole number (legal: 0 to 1000000)"),
        ("udp://:0?address=mine", "address=mine: unknown word (legal: announced, sender)"),
        (
            "udp://:0?sign-check=/keys",
            "sign-check=/keys: no digest and folder (legal: DIGEST:DIR, as in SHA256:/etc/uwsgi/keys)",
        ),
        (
            "udp://:0?sign-check=MD4:/keys",
            "sign-check=MD4:/keys: digest 'MD4': OpenSSL 3 does not sign with it (legal: "
            "MD5, SHA1, SHA224, SHA256, SHA384, SHA512, SHA512-224, SHA512-256, SHA3-224, SHA3-256, SHA3-384, "
            "SHA3-512, SM3)",
        ),
        (
            "udp://:0?sign-check=SHA1:/keys&address=sender",
            "address=sender does not go with sign-check: nobody has signed where a datagram comes from",
        ),
        ("udp://:0?sign-skip-uid=0", "sign-skip-uid=0: out of range (legal: 1 to 4294967294)"),
        (
            "udp://:0?allow=all",
            "allow=all: no network: 'all' does not appear to be an IPv4 or IPv6 network (legal: "
            "10.0.0.0/8, fd00::/8 or one address)",
        ),
    ],
)
def test_a_wrong_url_is_named_with_what_is_wrong(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{url}: {text}')}$"):
        Subscription(url)


def test_an_address_that_cannot_be_bound_is_named() -> None:
    with pytest.raises(AddressError, match=r"^cannot bind '127\.0\.0\.1:x': port 'x' is not a number$"):
        Subscription("udp://127.0.0.1:x")


def test_an_error_that_the_kernel_passes_on_does_not_stop_it(announced: Announced) -> None:
    """With IP_RECVERR a socket hears that nobody listened where it had sent something to."""
    ip_recverr = 11
    announced.source.socket.setsockopt(socket.IPPROTO_IP, ip_recverr, 1)
    with socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    announced.source.socket.sendto(b"anybody?", nobody)
    announced.take(packet())
    assert announced.feed.rejected == Counter({"receive error": 1})
    assert announced.addresses() == [NODE]


def test_a_socket_that_is_gone_is_raised_to_the_supervisor(announced: Announced) -> None:
    announced.source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        announced.source.turn(announced.feed)


def test_what_was_heard_before_a_failed_run_still_falls_due(announced: Announced) -> None:
    announced.take(packet())
    greenlet = gevent.spawn(announced.source.run, announced.feed)
    gevent.sleep(0)
    greenlet.kill()
    announced.idle(18)
    assert announced.addresses() == []


def test_run_takes_announcements_until_killed_and_lets_others_run() -> None:
    table = Table()
    source = Subscription("udp://127.0.0.1:0")
    turns = Counter[bool]()

    def other() -> None:
        while True:
            turns[len(table.nodes("foo.com")) < 4 * BATCH] += 1
            gevent.sleep(0)

    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for i in range(4 * BATCH):
            sender.sendto(packet(address=f"10.0.{i // 250}.{i % 250}:3031"), split(source.address))
        greenlets = gevent.spawn(source.run, table.feed(source.name)), gevent.spawn(other)
        wait_for(lambda: len(table.nodes("foo.com")) == 4 * BATCH, "all nodes", sleep=gevent.sleep)
    for greenlet in greenlets:
        greenlet.kill(timeout=5)
        assert isinstance(greenlet.value, gevent.GreenletExit)
    assert turns[True] >= 4
    source.close()


# Wires.

MULTICAST = """
import socket, sys
from announced import Announced, packet

url, interface = sys.argv[1:]
with Announced(url) as announced:
    group = announced.source.socket.getsockname()
    if ":" in group[0]:
        option = socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(interface)
    else:
        option = socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
    announced.sender.setsockopt(*option)
    announced.take(packet())
    print(announced.addresses(), dict(announced.feed.rejected))
"""


def wire(name: str, folder: Path) -> str:
    return {
        "udp4": "udp://127.0.0.1:0",
        "udp6": "udp://[::1]:0",
        "udp4 at any address": "udp://0.0.0.0:0",
        "udp6 at any address": "udp://[::]:0",
        "udp4 through udp6": "udp://[::]:0",
        "unix": f"unix://{folder}/s",
        "abstract": f"unix://@gfrouter-test-{os.getpid()}",
    }[name]


@pytest.fixture(
    params=["udp4", "udp6", "udp4 at any address", "udp6 at any address", "udp4 through udp6", "unix", "abstract"]
)
def wired(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Announced, socket.socket]]:
    """An idle subscription on each wire, and who announces through it."""
    with Announced(wire(request.param, tmp_path)) as announced:
        sender = announced.sender
        if request.param == "udp4 through udp6":
            sender = announced.another(to=("127.0.0.1", announced.source.socket.getsockname()[1]))
        yield announced, sender


def test_each_wire_carries_announcements_farewells_and_silence(wired: tuple[Announced, socket.socket]) -> None:
    announced, sender = wired
    for datagram in (packet(), packet(key="bar.com"), packet(UNSUBSCRIBE, key="bar.com")):
        sender.send(datagram)
    announced.source.turn(announced.feed)
    assert announced.nodes() == [Node(NODE)] and announced.addresses("bar.com") == []
    announced.idle(17)
    assert announced.addresses() == [NODE]
    announced.idle(1)
    assert announced.addresses() == [] and announced.feed.rejected == {}


def test_garbage_on_each_wire_is_dropped_and_says_who_sent_it(
    wired: tuple[Announced, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    announced, sender = wired
    sender.send(b"GET / HTTP/1.0")
    sender.send(packet())
    announced.source.turn(announced.feed)
    assert announced.addresses() == [NODE] and announced.feed.rejected == {"bad modifier1": 1}
    who = address_of(sender) or "a unix socket"
    (line,) = caplog.messages
    assert line == f"{announced.source.name}: dropped, bad modifier1: modifier1 71, expected 224 or 0 (from {who})"


@pytest.mark.parametrize("end", ["", "\0"], ids=["with a NUL behind", "without"])
def test_an_abstract_subscription_server_is_reached_as_uwsgi_does(end: str) -> None:
    name = f"gfrouter-test-{os.getpid()}"
    with Announced(f"unix://@{name}") as announced, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as uwsgi:
        assert announced.source.address == f"@{name}"
        if end:
            uwsgi.sendto(packet(), f"\0{name}{end}".encode())
            announced.source.turn(announced.feed)
            assert announced.addresses() == [NODE]
        else:
            with pytest.raises(ConnectionRefusedError):
                uwsgi.sendto(packet(), f"\0{name}".encode())


def test_a_socket_that_somebody_else_has_bound_is_taken_by_its_descriptor() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        with Announced(f"fd://{bound.fileno()}") as announced:
            assert announced.source.name == f"subscription@{address_of(bound)}"
            announced.take(packet())
            assert announced.addresses() == [NODE]
        bound.getsockname()  # it is its owner's, and still open


@pytest.mark.slow
@needs_namespaces
@pytest.mark.parametrize("url", ["udp://225.1.1.1:0", "udp://[ff02::1:2%m0]:0"])
def test_what_is_sent_to_a_multicast_group_is_heard(url: str) -> None:
    argv = [*OWN_NETWORK, sys.executable, "-c", MULTICAST, url, "m0"]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=env, cwd=TESTS.parent)
    assert done.stdout.strip() == f"['{NODE}'] {{}}", done


# Whose address.


@pytest.fixture
def sending() -> Iterator[Announced]:
    """One that takes the sender's host where an announcement names none, on a socket of both families."""
    with Announced("udp://[::]:0", address="sender") as announced:
        yield announced


def say(announced: Announced, host: str, *datagrams: bytes) -> None:
    """As somebody at that host."""
    to = None if ":" in host else ("127.0.0.1", announced.source.socket.getsockname()[1])
    sender = announced.another(host, to)
    for datagram in datagrams:
        sender.send(datagram)
    announced.source.turn(announced.feed)


@pytest.mark.parametrize("host", ["127.0.0.9", "::1"])
@pytest.mark.parametrize("said", [":3031", "0.0.0.0:3031", "[::]:3031"])
def test_an_address_without_a_host_is_its_senders(sending: Announced, host: str, said: str) -> None:
    say(sending, host, packet(address=said))
    assert sending.addresses() == [f"[{host}]:3031" if ":" in host else f"{host}:3031"]


@pytest.mark.parametrize("said", ["10.0.0.5:3031", "[fd00::5]:3031", "/run/app.sock", "@app"])
def test_an_address_with_a_host_is_its_own(sending: Announced, said: str) -> None:
    say(sending, "127.0.0.9", packet(address=said))
    assert sending.addresses() == [said]


def test_a_host_name_is_not_its_senders_host(sending: Announced) -> None:
    say(sending, "127.0.0.9", packet(address="app.lan:3031"))
    sending.table.resolve("app.lan:3031", ["10.0.0.5:3031"])
    assert sending.addresses() == ["10.0.0.5:3031"]


def test_workers_that_say_the_same_are_told_apart_and_leave_one_by_one(sending: Announced) -> None:
    for host in ("127.0.0.9", "127.0.0.10", "::1"):
        say(sending, host, packet(address=":3031"))
    assert sending.addresses() == ["127.0.0.9:3031", "127.0.0.10:3031", "[::1]:3031"]
    say(sending, "127.0.0.11", packet(UNSUBSCRIBE, address=":3031"))
    assert len(sending.addresses()) == 3, "a stranger takes nobody's leave"
    say(sending, "127.0.0.10", packet(UNSUBSCRIBE, address=":3031"))
    say(sending, "::1", packet(UNSUBSCRIBE, address=":3031"))
    assert sending.addresses() == ["127.0.0.9:3031"]
    sending.idle(18)
    assert sending.addresses() == []


def test_unless_told_so_an_address_without_a_host_is_this_machine() -> None:
    with Announced() as announced:
        say(announced, "127.0.0.9", packet(address=":3031"), packet(address="0.0.0.0:3032"))
        assert announced.addresses() == [":3031", "0.0.0.0:3032"]
        assert announced.table.endpoints[":3031"].sockaddr == ("127.0.0.1", 3031)


def test_through_a_unix_socket_there_is_no_senders_host(tmp_path: Path) -> None:
    with Announced(f"unix://{tmp_path}/s", address="sender") as announced:
        announced.take(packet(address=":3031"), packet(address="x:y"))
        assert announced.addresses() == [":3031"]
        assert announced.feed.rejected == {"bad node address": 1}


# Names and limits.


def test_a_worker_may_announce_a_host_name(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    announced.take(packet(address="app.lan:3031", weight=2))
    announced.table.resolve("app.lan:3031", ["10.0.0.5:3031", "10.0.0.6:3031"])
    assert announced.nodes() == [Node(f"10.0.0.{n}:3031", weight=2, host="app.lan:3031") for n in (5, 6)]
    announced.take(packet(UNSUBSCRIBE, address="app.lan:3031"))
    assert announced.addresses() == [] and announced.table.names == {}
    announced.take(packet(address="app.lan:3031"))
    announced.idle(18)
    assert announced.table.names == {} and announced.source._heard == {}


def test_beyond_the_limits_known_ones_are_refreshed_and_there_is_room_again_after_expiry() -> None:
    with Announced(max_keys=10, max_nodes=20) as announced:
        keys = [f"{number}.com" for number in range(15)]
        announced.take(*(packet(key=key) for key in keys))
        assert list(announced.table.pools) == keys[:10]
        assert announced.feed.rejected == {"too many keys": 5}
        announced.take(*(packet(key=keys[0], address=f"10.1.0.{number}:1") for number in range(15)))
        assert len(announced.addresses(keys[0])) == 11
        assert announced.feed.size == len(announced.source._heard) == 20
        assert announced.feed.rejected == {"too many keys": 5, "too many nodes": 5}
        announced.idle(10)
        announced.take(*(packet(key=key, weight=7) for key in keys[:10]))
        announced.idle(10)
        assert list(announced.table.pools) == keys[:10] and announced.feed.size == 10
        assert {node.weight for key in keys[:10] for node in announced.nodes(key)} == {7}
        announced.idle(8)
        announced.take(*(packet(key=key) for key in keys[5:]))
        assert list(announced.table.pools) == keys[5:]
        assert set(announced.source._heard) == {(key, NODE) for key in keys[5:]}


# With a real worker.


def test_a_real_worker_subscribes_with_all_its_fields_and_unsubscribes() -> None:
    table = Table()
    source = Subscription("udp://127.0.0.1:0")
    feed = table.feed(source.name)

    def nodes() -> list[Node]:
        source.turn(feed)
        return table.nodes("foo.com") + table.nodes("bar.com")

    options = ("--subscribe2", f"server={source.address},key=bar.com,weight=3,modifier1=5,modifier2=6")
    with Worker(source.address, options=options) as worker:
        wait_for(lambda: len(nodes()) == 2, "both announcements")
        foo, bar = nodes()
        assert foo == Node(worker.address)
        assert bar == Node(worker.address, weight=3, modifier1=5, modifier2=6)
        assert foo.cores == bar.cores == 4
        assert abs(foo.last_check - time.time()) < 60
        worker.wait_line("spawned uWSGI worker 2")  # from then on SIGTERM is its to handle
        worker.send_signal(signal.SIGTERM)
        wait_for(lambda: not nodes(), "the worker to unsubscribe both")
    assert feed.rejected == Counter()
    source.close()


def test_a_real_workers_packets_are_read_field_by_field() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with Worker(address, key="foo.com", processes=3, threads=2) as worker:
            datagram = server.recv(LARGEST_DATAGRAM)
        said = parse_announcement(datagram)
    assert datagram[0] == 224
    assert len(datagram) == packet_size(datagram)
    assert (said.subscribe, said.key, said.address, said.cores) == (True, "foo.com", worker.address, 6)
    assert (said.modifier1, said.modifier2, said.unix, said.sign, said.vassal) == (0, 0, 0, b"", "")


def test_one_sender_brings_so_many_host_names_at_most(announced: Announced) -> None:
    """They are looked up again and again, and the table keeps so many of all senders together."""
    for number in range(NAMES + 3):
        announced.take(packet(key=f"{number}.com", address=f"app{number}.lan:3031"))
    assert announced.feed.rejected == {"too many host names": 3}
    announced.take(packet(key="by-number.com"))
    assert announced.addresses("by-number.com") == [NODE]
    other = announced.another("127.0.0.9")
    other.send(packet(key="other.com", address="other.lan:3031"))
    announced.take()
    assert "other.lan:3031" in announced.feed.slices["other.com"]
    announced.take(packet(UNSUBSCRIBE, key="0.com", address="app0.lan:3031"))
    announced.take(packet(key="again.com", address="again.lan:3031"))
    assert "again.lan:3031" in announced.feed.slices["again.com"], "one has left"
    announced.idle(17 + 10)  # so many turns as that takes
    assert announced.source._names == {} and announced.source._named == {}


def test_a_senders_path_forges_no_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Announced(f"unix://{tmp_path}/s") as announced, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.bind(str(tmp_path / "x\nforged"))
        sender.sendto(b"nonsense", str(tmp_path / "s"))
        announced.take()
        assert "forged" in caplog.text and not any("\n" in message for message in caplog.messages)


def test_an_algorithm_of_thousands_of_bytes_is_not_kept(announced: Announced) -> None:
    announced.take(packet(algo="x" * 3000))
    assert [len(node.algorithm) for node in announced.nodes()] == [80]
