"""Quotas by a clock of the test's, and the kernel's filter on real sockets: who is blocked, and who is not."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import gevent
import pytest

from announced import Announced, packet
from discovery.quota import (
    BLOCK_S,
    BURST_S,
    HOST_FACTOR,
    LONGEST_BLOCK_S,
    MOST_BLOCKED,
    MOST_SENDERS,
    NETWORK_FACTOR,
    RETURN,
    SO_ATTACH_FILTER,
    SO_DETACH_FILTER,
    SO_MEMINFO,
    Quota,
)
from discovery.subscription import PENDING
from router import net
from scripted import wait_for
from servers import TESTS, Process

HOST = "127.0.0.1"
LOOPBACKS = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"]


class Recorded:
    """A socket of which only the options are asked; `filters` has the size of each filter, 0 for none."""

    def __init__(self) -> None:
        self.filters: list[int] = []

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        assert (level, name) in ((socket.SOL_SOCKET, SO_ATTACH_FILTER), (socket.SOL_SOCKET, SO_DETACH_FILTER))
        self.filters.append(struct.unpack("@HP", value)[0] if name == SO_ATTACH_FILTER else 0)

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        assert (level, name) == (socket.SOL_SOCKET, SO_MEMINFO)
        return bytes(size)


class Refusing(Recorded):
    """The socket of a kernel that has neither filters nor meminfo."""

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        raise OSError(92, "Protocol not available")

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        raise OSError(92, "Protocol not available")


def a_quota(rate: int, sock: Recorded | None = None) -> Quota:
    return Quota(cast(socket.socket, sock or Recorded()), rate)


def admitted(quota: Quota, now: float, times: int, host: str = HOST, port: int = 1) -> int:
    """How many of so many datagrams at once are taken."""
    return sum(quota.admits(host, port, now) for _ in range(times))


# Buckets.


def test_a_sender_has_saved_up_a_seconds_worth_and_then_has_its_rate() -> None:
    quota = a_quota(10)
    assert BURST_S == 1.0
    assert admitted(quota, 100.0, 50) == 10
    assert admitted(quota, 100.0625, 50) == 0
    assert admitted(quota, 100.125, 50) == 1
    assert admitted(quota, 100.625, 50) == 5
    assert admitted(quota, 200.0, 50) == 10, "no more is ever saved up"


def test_what_one_socket_sends_costs_another_of_its_host_nothing() -> None:
    quota = a_quota(10)
    assert admitted(quota, 100.0, 1000, port=1) == 10
    assert admitted(quota, 100.0, 10, port=2) == 10
    assert admitted(quota, 100.0, 10, host="127.0.0.2", port=1) == 10


def test_a_host_has_four_times_the_quota_of_a_socket_however_many_it_uses() -> None:
    quota = a_quota(10)
    assert HOST_FACTOR == 4
    assert sum(admitted(quota, 100.0, 1, port=port) for port in range(1, 200)) == 40
    assert sum(admitted(quota, 101.0, 1, port=port) for port in range(1, 200)) == 40
    assert admitted(quota, 101.0, 1, host="127.0.0.2") == 1


def test_a_host_that_takes_a_new_port_each_time_is_stopped_beyond_what_is_remembered() -> None:
    """More ports than buckets: its own bucket must outlive those of its ports."""
    quota = a_quota(1000)
    taken = sum(quota.admits(HOST, port, 100.0) for port in range(1, 50_000))
    assert taken == 1000 * HOST_FACTOR * BURST_S
    assert quota.flooders(100.0) == [(HOST, 0)]


def test_senders_beyond_what_is_remembered_cost_no_memory_and_are_heard() -> None:
    quota = a_quota(10)
    for number in range(MOST_SENDERS + 500):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        assert quota.admits(host, 1, 100.0)
    assert len(quota.buckets) == MOST_SENDERS


@pytest.mark.parametrize(("rate", "host"), [(0, HOST), (10, "")])
def test_without_a_quota_and_through_a_unix_socket_everybody_is_heard(rate: int, host: str) -> None:
    quota = a_quota(rate)
    assert admitted(quota, 100.0, 10_000, host=host) == 10_000
    assert quota.buckets == {} and quota.flooders(100.0) == []


# Who is blocked, and until when.


def test_who_sends_no_more_than_a_quarter_beyond_its_quota_is_not_blocked() -> None:
    quota = a_quota(100)
    admitted(quota, 100.0, 100)
    for second in range(1, 20):
        assert admitted(quota, 100.0 + second, 125) == 100
        assert quota.flooders(100.0 + second) == []


def test_who_sends_more_is_blocked_for_a_while() -> None:
    quota = a_quota(100, sock := Recorded())
    assert admitted(quota, 100.0, 126) == 100
    assert quota.flooders(100.0) == [(HOST, 1)]
    assert quota.flooders(100.1) == []
    assert quota.blocked == {(HOST, 1): 100.0 + BLOCK_S}
    assert quota.flooders(100.0 + BLOCK_S - 0.1) == [] and len(quota.blocked) == 1
    assert quota.flooders(100.0 + BLOCK_S) == [] and quota.blocked == {}
    assert [bool(size) for size in sock.filters] == [False, True, False]
    assert admitted(quota, 100.0 + BLOCK_S, 126) == 100, "and is heard as anybody else"
    assert quota.flooders(100.0 + BLOCK_S) == [(HOST, 1)]


def test_the_overdraft_of_one_second_is_not_that_of_the_next() -> None:
    quota = a_quota(100)
    admitted(quota, 100.0, 100 + 20)
    admitted(quota, 100.5, 50 + 5)
    assert quota.flooders(100.5) == []
    admitted(quota, 101.0, 50 + 20)
    assert quota.flooders(101.0) == [], "25 over within one second, and 20 in the next"
    admitted(quota, 101.5, 50 + 6)
    assert quota.flooders(101.5) == [(HOST, 1)]


def test_what_a_blocked_one_had_sent_before_does_not_block_it_longer() -> None:
    quota = a_quota(10)
    admitted(quota, 100.0, 40)
    quota.flooders(100.0)
    admitted(quota, 100.1, 40)  # what was in the socket's buffer
    assert quota.flooders(100.1) == []
    assert quota.blocked == {(HOST, 1): 100.0 + BLOCK_S}


def test_so_many_are_blocked_at_most_and_the_others_only_dropped() -> None:
    quota = a_quota(1, sock := Recorded())
    hosts = [f"10.0.0.{number}" for number in range(MOST_BLOCKED + 5)]
    for host in hosts:
        admitted(quota, 100.0, 10, host=host)
    assert len(quota.flooders(100.0)) == len(quota.blocked) == MOST_BLOCKED
    assert sock.filters[-1] <= 4096
    assert admitted(quota, 100.1, 10, host=hosts[-1]) == 0
    assert quota.flooders(100.1) == []
    admitted(quota, 100.0 + BLOCK_S, 10, host=hosts[-1])
    assert quota.flooders(100.0 + BLOCK_S) == [(hosts[-1], 1)], "room again"


def test_a_kernel_without_filters_leaves_dropping_by_hand() -> None:
    quota = a_quota(10, Refusing())
    assert admitted(quota, 100.0, 1000) == 10
    assert quota.flooders(100.0) == [(HOST, 1)]
    assert admitted(quota, 100.5, 1000) == 5
    assert quota.flooders(100.5) == []
    assert quota.dropped() == 0
    assert quota.flooders(100.0 + BLOCK_S) == []
    assert admitted(quota, 100.0 + BLOCK_S, 1000) == 10
    assert quota.flooders(100.0 + BLOCK_S) == [(HOST, 1)]


# The filter in the kernel.


class Filtered:
    """A real datagram socket with a quota of 1 a second, and senders that it can be reached from."""

    def __init__(self, address: str) -> None:
        self.sock = net.bind(address, kind=socket.SOCK_DGRAM)
        self.quota = Quota(self.sock, 1)
        self.senders: list[socket.socket] = []

    def sender(self, host: str) -> socket.socket:
        sender = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.senders.append(sender)
        sender.bind((host, 0))
        sender.connect(("::1" if ":" in host else "127.0.0.1", self.sock.getsockname()[1]))
        return sender

    def block(self, sender: socket.socket, now: float = 100.0, whole_host: bool = False) -> None:
        """As if it had flooded."""
        host, port, *_ = sender.getsockname()
        for number in range(10) if whole_host else [0]:
            for _ in range(4):
                self.quota.admits(host, port + number, now)
        flooders = self.quota.flooders(now)
        assert (host, 0 if whole_host else port) in flooders

    def arrives(self, *senders: socket.socket) -> list[bool]:
        """Whether what each of them sends reaches us."""
        for number, sender in enumerate(senders):
            sender.send(b"%d" % number)
        heard = set()
        try:
            while True:
                heard.add(int(self.sock.recv(10)))
        except BlockingIOError:
            return [number in heard for number in range(len(senders))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.sock, *self.senders):
            sock.close()


def hosts_of(address: str) -> list[str]:
    """From where such a socket is reached."""
    return {"127.0.0.1:0": ["127.0.0.1"], "0.0.0.0:0": ["127.0.0.1"], "[::1]:0": ["::1"]}.get(
        address, ["127.0.0.1", "::1"]
    )


@pytest.fixture(params=[(address, host) for address in LOOPBACKS for host in hosts_of(address)], ids=str)
def flooded(request: pytest.FixtureRequest) -> Iterator[tuple[Filtered, str]]:
    """A socket, and the host from which it is flooded: the same, IPv6, or IPv4 through a socket that takes both."""
    address, host = request.param
    with Filtered(address) as filtered:
        yield filtered, host


def test_a_blocked_sender_does_not_arrive_and_others_of_its_host_do(flooded: tuple[Filtered, str]) -> None:
    filtered, host = flooded
    one, other = filtered.sender(host), filtered.sender(host)
    assert filtered.arrives(one, other) == [True, True]
    filtered.block(one)
    assert filtered.arrives(one, other) == [False, True]
    assert filtered.arrives(other, one) == [True, False]


def test_several_are_blocked_at_once_and_each_for_its_own_time(flooded: tuple[Filtered, str]) -> None:
    filtered, host = flooded
    first, second, other = (filtered.sender(host) for _ in range(3))
    filtered.block(first, 100.0)
    filtered.block(second, 102.0)
    assert filtered.arrives(first, second, other) == [False, False, True]
    filtered.quota.flooders(100.0 + BLOCK_S)
    assert filtered.arrives(first, second, other) == [True, False, True]
    filtered.quota.flooders(102.0 + BLOCK_S)
    assert filtered.arrives(first, second, other) == [True, True, True]


def test_a_blocked_host_does_not_arrive_from_any_port(flooded: tuple[Filtered, str]) -> None:
    filtered, host = flooded
    one, other = filtered.sender(host), filtered.sender(host)
    filtered.block(one, whole_host=True)
    assert filtered.arrives(one, other) == [False, False]
    if host == "127.0.0.1":
        assert filtered.arrives(filtered.sender("127.0.0.9")) == [True]
    filtered.quota.flooders(100.0 + BLOCK_S)
    assert filtered.arrives(one, other) == [True, True]


def test_ipv4_and_ipv6_senders_of_one_socket_are_told_apart() -> None:
    with Filtered("[::]:0") as filtered:
        four, six = filtered.sender("127.0.0.1"), filtered.sender("::1")
        filtered.block(four, whole_host=True)
        assert filtered.arrives(four, six) == [False, True]
        filtered.block(six, 103.0, whole_host=True)
        assert filtered.arrives(four, six) == [False, False]
        filtered.quota.flooders(100.0 + BLOCK_S)
        assert filtered.arrives(four, six) == [True, False]


def test_an_ipv6_sender_with_the_bytes_of_a_blocked_ipv4_host_in_its_address_is_heard() -> None:
    """Where an IPv4 packet has its sender, an IPv6 one has the fifth to eighth byte of its own."""
    with Filtered("[::]:0") as filtered:
        for number in range(10):
            for _ in range(4):
                filtered.quota.admits("0.0.0.0", number, 100.0)
        assert ("0.0.0.0", 0) in filtered.quota.flooders(100.0)
        assert filtered.arrives(filtered.sender("::1")) == [True]


def test_the_longest_filter_is_taken_and_hits_the_last_of_its_senders() -> None:
    with Filtered("[::]:0") as filtered:
        for number in range(MOST_BLOCKED - 1):
            for _ in range(4):
                filtered.quota.admits(f"fd00:0:0:{number + 1:x}::1", 1, 100.0)
        filtered.quota.flooders(100.0)
        one, other = filtered.sender("::1"), filtered.sender("127.0.0.1")
        filtered.block(one)
        assert len(filtered.quota.blocked) == MOST_BLOCKED
        assert filtered.arrives(one, other) == [False, True]


def test_a_filter_left_on_an_inherited_socket_is_removed() -> None:
    """The filter belongs to the socket, and so outlives the process that set it."""
    with Filtered("127.0.0.1:0") as filtered:
        sender = filtered.sender("127.0.0.1")
        nothing = ctypes.create_string_buffer(struct.pack("@HBBI", RETURN, 0, 0, 0), 8)
        program = struct.pack("@HP", 1, ctypes.addressof(nothing))
        filtered.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        assert filtered.arrives(sender) == [False]
        Quota(filtered.sock, 1)
        assert filtered.arrives(sender) == [True]


def test_what_the_kernel_dropped_is_told_once() -> None:
    with Filtered("127.0.0.1:0") as filtered:
        sender = filtered.sender("127.0.0.1")
        assert filtered.quota.dropped() == 0
        filtered.block(sender)
        for _ in range(7):
            sender.send(b"x")
        assert filtered.quota.dropped() == 7
        assert filtered.quota.dropped() == 0


def test_who_floods_again_is_blocked_for_twice_as_long_up_to_a_minute() -> None:
    quota = Quota(socket.socket(type=socket.SOCK_DGRAM), 10)
    now, lasted = 100.0, []
    for _ in range(6):
        admitted(quota, now, 40)
        assert quota.flooders(now) == [(HOST, 1)]
        lasted.append(quota.blocked[(HOST, 1)] - now)
        now = quota.blocked[(HOST, 1)]
        quota.flooders(now)
    assert lasted == [BLOCK_S, 2 * BLOCK_S, 4 * BLOCK_S, 8 * BLOCK_S, LONGEST_BLOCK_S, LONGEST_BLOCK_S]
    now += LONGEST_BLOCK_S
    admitted(quota, now, 40)
    quota.flooders(now)
    assert quota.blocked == {(HOST, 1): now + BLOCK_S}, "a minute without a flood is forgiveness"
    quota.sock.close()


def test_somebody_elses_flood_keeps_nobody_blocked() -> None:
    with Filtered("127.0.0.1:0") as filtered:
        once, always = filtered.sender("127.0.0.1"), filtered.sender("127.0.0.1")
        filtered.block(always)
        filtered.quota.flooders(100.0 + BLOCK_S)
        filtered.block(always, 100.0 + BLOCK_S)
        filtered.block(once, 100.0 + BLOCK_S)
        filtered.quota.flooders(100.0 + 2 * BLOCK_S)
        assert filtered.arrives(once, always) == [True, False]


def test_an_ipv6_network_has_a_quota_and_is_never_blocked() -> None:
    """A host has as many addresses as it likes, and others live in its network."""
    quota = a_quota(10)
    taken = sum(quota.admits(f"2001:db8:1:2::{number:x}", 1, 100.0) for number in range(1000))
    assert taken == 10 * NETWORK_FACTOR
    assert quota.flooders(100.0) == []
    assert quota.admits("2001:db8:1:3::1", 1, 100.0), "the next network is another one"
    assert quota.admits("2001:db8:1:2::ffff", 1, 101.0), "and this one has its share again"


def test_a_neighbour_of_a_blocked_ipv6_host_is_heard() -> None:
    quota = a_quota(10)
    for port in range(1, 200):
        quota.admits("2001:db8::1", port, 100.0)
    assert quota.flooders(100.0) == [("2001:db8::1", 0)]
    assert quota.admits("2001:db8::2", 1, 100.0)


def test_what_is_dropped_for_want_of_room_blocks_nobody() -> None:
    with Filtered("127.0.0.1:0") as filtered:
        filtered.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        one, other = filtered.sender("127.0.0.1"), filtered.sender("127.0.0.1")
        for _ in range(50):
            one.send(b"x" * 1000)
        assert filtered.quota.dropped() > 40
        assert filtered.quota.flooders(101.0) == []
        while True:
            try:
                filtered.sock.recv(1)
            except BlockingIOError:
                break
        assert filtered.arrives(one, other) == [True, True]


# Behind the subscription server.


def floods(announced: Announced, count: int, sender: socket.socket | None = None) -> None:
    for number in range(count):
        (sender or announced.sender).send(packet(key=f"{number}.flood.com"))
    announced.source.turn(announced.feed)


def test_what_is_over_the_quota_is_counted_and_leaves_room_for_others(caplog: pytest.LogCaptureFixture) -> None:
    with Announced(quota=100) as announced:
        floods(announced, 120)
        floods(announced, 0)
        floods(announced, 0)
        sender = "{}:{}".format(*announced.sender.getsockname())
        assert len(announced.table.pools) == 100
        assert announced.feed.rejected == {"over the quota": 20}
        assert (
            f"{announced.source.name}: dropped, over the quota: the last one from {sender} (20 of this kind so far)"
            in caplog.messages
        )


def test_of_who_floods_nothing_more_is_heard_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Not even what was read before it was noticed: acting on that is what a flood costs most."""
    with Announced(quota=10) as announced:
        floods(announced, 60)
        assert announced.table.pools == {} and len(announced.source._pending) == 0
        assert announced.feed.rejected == {"over the quota": 60}
        port = announced.sender.getsockname()[1]
        line = f"{announced.source.name}: 127.0.0.1 port {port} floods, and is not heard for a while"
        assert caplog.messages[-1] == line
        other = announced.another()
        other.send(packet(key="other.com"))
        announced.take(*[packet(key="again.com")] * 30)
        assert announced.addresses("other.com") and not announced.addresses("again.com")
        announced.idle(1)
        assert announced.feed.rejected == {"over the quota": 60, "dropped by the kernel": 30}
        announced.idle(BLOCK_S)
        announced.take(packet(key="again.com"))
        assert announced.addresses("again.com")


def test_nobody_waits_behind_all_that_another_host_has_said() -> None:
    with Announced(quota=1000) as announced:
        announced.send(*(packet(key=f"{number}.foo.com") for number in range(900)))
        announced.another("127.0.0.9").send(packet(key="other.com"))
        announced.source.turn(announced.feed)
        assert announced.addresses("other.com") and len(announced.source._pending) > 500


def test_what_the_socket_has_no_room_for_is_counted() -> None:
    with Announced(quota=0) as announced:
        announced.source.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        announced.send(*[packet(pad="x" * 1000)] * 50)
        announced.idle(1)
        assert 40 < announced.feed.rejected["dropped by the kernel"] < 50
        assert len(announced.addresses()) == 1


@pytest.mark.parametrize("bind", ["unix", "udp"])
def test_a_unix_socket_and_a_quota_of_0_have_none(bind: str, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/s" if bind == "unix" else "udp://127.0.0.1:0"
    with Announced(url, quota=1 if bind == "unix" else 0) as announced:
        for _ in range(10):
            announced.sender.setblocking(False)
            for number in range(9):  # a unix socket holds net.unix.max_dgram_qlen, 10
                announced.sender.send(packet(address=f"10.0.0.{number}:1"))
            announced.source.turn(announced.feed)
        assert announced.feed.rejected == {} and len(announced.addresses()) == 9


FLOOD = """
import socket, sys, time
from announced import packet

host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
before, after = packet(key="0000000.flood.com").split(b"0000000")
with socket.socket(type=socket.SOCK_DGRAM) as sender:
    sender.bind((host, 0))
    end, number = time.monotonic() + seconds, 0
    while number < 2_000_000 and time.monotonic() < end:
        for number in range(number, number + 100):
            sender.sendto(b"%b%07d%b" % (before, number, after), ("127.0.0.1", port))
        number += 1
print("sent", number)
"""


OTHERS = {f"{number}.others.com" for number in range(50)}


@pytest.mark.slow
def test_a_flood_from_one_socket_costs_no_announcement_of_others_no_expiry_and_bounded_memory() -> None:
    """By a process that sends as fast as it can; half of the others announce themselves from its own host."""
    began, joined = time.monotonic(), set[str]()
    with Announced(tolerance=3) as announced:
        source, pools, rejected = announced.source, announced.table.pools, announced.feed.rejected
        source._listened._clock = time.monotonic
        announced.table.on_change = lambda change: joined.add(change.key)
        others = [announced.another(f"127.0.0.{9 if number % 2 else number + 20}") for number in range(50)]
        announced.take(packet(key="silent.com"))
        running = gevent.spawn(source.run, announced.feed)
        argv = (sys.executable, "-c", FLOOD, "127.0.0.9", source.address.rpartition(":")[2], "6")
        with Process(*argv, env={"PYTHONPATH": str(TESTS)}, cwd=TESTS.parent) as flood:
            wait_for(lambda: rejected["over the quota"], "the flood", sleep=gevent.sleep)
            for number, other in enumerate(others):
                other.send(packet(key=f"{number}.others.com"))
                gevent.sleep(0.02)
                assert len(source._pending) <= PENDING
            wait_for(lambda: pools.keys() >= OTHERS, "all others", timeout=2, sleep=gevent.sleep)
            wait_for(lambda: "silent.com" not in pools, "the silent one to expire", sleep=gevent.sleep)
            assert flood.returncode is None, "while it lasts"
            flooded = 1000 * (BURST_S + time.monotonic() - began)  # what the default quota allows
            assert len(pools) <= len(source._heard) <= flooded + 51
            assert rejected["dropped by the kernel"] > 1000
            assert int(flood.wait_line(r"sent (\d+)", 20)[1]) > 20_000
        running.kill()
