"""Who is withdrawn when: silence counts only while we listened, whatever stopped us, and a flood stops nothing."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from announced import NODE, UNSUBSCRIBE, Announced, packet
from discovery import subscription
from discovery.subscription import BATCH, FLOOD_PATIENCE, SWEEP_EVERY
from router.listened import LATE, Listened
from scripted import split, wait_for
from servers import Process

ROOT = Path(__file__).parent.parent


@pytest.fixture
def announced() -> Iterator[Announced]:
    with Announced() as announced:
        yield announced


def test_a_node_is_withdrawn_when_it_was_silent_for_longer_than_the_tolerance(
    announced: Announced, caplog: pytest.LogCaptureFixture
) -> None:
    announced.take(packet())
    announced.idle(17)
    assert announced.addresses() == [NODE]
    with caplog.at_level(logging.INFO, "gfrouter"):
        announced.idle(1)
    assert announced.addresses() == []
    assert caplog.messages == [
        f"[uwsgi-subscription for pid {os.getpid()}] foo.com => marking {NODE} as failed"
        " (no announce received in 17 seconds)"
    ]


def test_each_announcement_starts_the_silence_anew(announced: Announced) -> None:
    announced.take(packet(), packet(address="10.0.0.6:3031"))
    for _ in range(5):
        announced.idle(10)
        announced.take(packet())
    assert announced.addresses() == [NODE]


def test_a_withdrawn_node_may_come_back(announced: Announced) -> None:
    announced.take(packet())
    announced.idle(18)
    announced.take(packet())
    announced.idle(17)
    assert announced.addresses() == [NODE]


def test_tolerance_is_the_urls() -> None:
    with Announced(tolerance=3) as announced:
        announced.take(packet())
        announced.idle(3)
        assert announced.addresses() == [NODE]
        announced.idle(1)
        assert announced.addresses() == []


def test_being_stopped_for_20_seconds_is_no_nodes_silence(announced: Announced) -> None:
    announced.take(packet())
    announced.idle(9)
    announced.now += 20
    announced.source.turn(announced.feed)
    assert announced.addresses() == [NODE]
    announced.idle(7)  # 9 before, the second in which the next sweep was due, and these
    assert announced.addresses() == [NODE]
    announced.idle(1)
    assert announced.addresses() == []


def test_being_stopped_again_and_again_is_no_nodes_silence(announced: Announced) -> None:
    announced.take(packet())
    for _ in range(10):
        announced.now += 20
        announced.source.turn(announced.feed)
    assert announced.addresses() == [NODE]


def test_what_waited_in_the_socket_while_we_were_stopped_counts_as_heard_now(announced: Announced) -> None:
    announced.take(packet(), packet(address="10.0.0.6:3031"))
    announced.idle(16)
    announced.now += 20
    announced.take(packet())
    announced.idle(16)
    assert announced.addresses() == [NODE]


def test_the_socket_is_read_dry_before_a_sweep(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    """A sweep that is not late enough to move the deadlines, and more news in the socket than one turn takes."""
    places = [packet(address=f"10.0.0.{i}:3031") for i in range(2 * BATCH + 10)]
    for place in places:
        announced.take(place)
    announced.idle(16)
    announced.send(*places)
    announced.now += SWEEP_EVERY + LATE - 0.1
    with caplog.at_level(logging.INFO, "gfrouter"):
        for _ in range(3):
            announced.source.turn(announced.feed)
    assert len(announced.addresses()) == len(places)
    assert caplog.messages == []  # none was withdrawn to come back at once


def test_a_turn_acts_on_a_bounded_number_of_datagrams(announced: Announced) -> None:
    announced.send(*(packet(address=f"10.0.0.{i}:3031") for i in range(BATCH + 1)))
    announced.source.turn(announced.feed)
    assert len(announced.addresses()) == BATCH
    announced.source.turn(announced.feed)
    assert len(announced.addresses()) == BATCH + 1


def test_a_turn_reads_ahead_as_far_as_it_may_and_acts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"READS": 20, "STEP": 5, "BATCH": 5, "PENDING": 30}.items():
        monkeypatch.setattr(subscription, name, value)
    places = [f"10.0.0.{i}:3031" for i in range(60)]
    with Announced() as announced:
        announced.send(*(packet(address=place) for place in places))
        waiting = []
        for _ in range(12):
            announced.source.turn(announced.feed)
            waiting.append(len(announced.source._pending))
            assert announced.addresses() == places[: len(announced.addresses())]
        assert waiting == [15, 25, 25, 25, 25, 25, 25, 20, 15, 10, 5, 0]
        assert announced.addresses() == places


def test_nobody_expires_while_his_word_waits_to_be_acted_on(announced: Announced) -> None:
    """Neither in the socket nor among what was read: here his comes last, behind more than a turn acts on."""
    announced.take(packet())
    announced.idle(17)
    announced.send(*[packet(key="other.com")] * 2 * BATCH, packet())
    announced.now += SWEEP_EVERY
    for _ in range(2):
        announced.source.turn(announced.feed)
        assert announced.addresses() == [NODE] and announced.source._pending
    announced.source.turn(announced.feed)
    announced.idle(17)
    assert announced.addresses() == [NODE]


def test_nobody_expires_while_his_word_waits_behind_what_is_over_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a turn has read all that it may, acted on all that it read, and yet the socket is not dry."""
    monkeypatch.setattr(subscription, "READS", 20)
    monkeypatch.setattr(subscription, "STEP", 10)
    with Announced(quota=1) as announced:
        announced.take(packet())
        announced.idle(17)
        loud = announced.another()
        for _ in range(30):
            loud.send(packet(key="loud.com"))
        announced.send(packet())
        announced.now += SWEEP_EVERY
        for _ in range(2):
            announced.source.turn(announced.feed)
            assert announced.addresses() == [NODE]
        announced.idle(17)
        assert announced.addresses() == [NODE]


def test_a_turn_expires_a_bounded_number_of_nodes(announced: Announced) -> None:
    for i in range(BATCH + 1):
        announced.take(packet(address=f"10.0.0.{i}:3031"))
    announced.idle(17)
    announced.now += SWEEP_EVERY
    announced.source.turn(announced.feed)
    assert len(announced.addresses()) == 1
    announced.source.turn(announced.feed)
    assert announced.addresses() == []


def test_a_flood_does_not_put_expiry_off_for_ever(announced: Announced) -> None:
    flood = [packet(key="flood.com")] * (BATCH + 1)
    announced.take(packet())
    seconds = 0
    while announced.addresses() and seconds < 100:
        seconds += 1
        announced.now += 1
        announced.take(*flood)  # one more than a turn takes, so the socket never runs dry
    assert 17 < seconds <= 17 + FLOOD_PATIENCE + SWEEP_EVERY
    assert announced.addresses("flood.com") == [NODE]


def test_a_sweep_looks_at_no_more_nodes_than_it_withdraws(announced: Announced) -> None:
    announced.take(packet(address="10.0.0.1:3031"))
    announced.idle(10)
    announced.take(packet(address="10.0.0.2:3031"), packet(address="10.0.0.3:3031"))
    announced.take(packet(address="10.0.0.2:3031"))
    places = announced.source._heard
    assert [address for _, address in places] == ["10.0.0.1:3031", "10.0.0.3:3031", "10.0.0.2:3031"]
    assert list(places.values()) == sorted(places.values())


@given(st.lists(st.floats(0, 100), max_size=30))
def test_the_listening_clock_runs_with_time_but_for_what_was_lost(gaps: list[float]) -> None:
    now = 0.0
    listened = Listened(lambda: now, SWEEP_EVERY)
    before = listened()
    for gap in gaps:
        now += gap
        after = listened()
        expected = SWEEP_EVERY if gap - SWEEP_EVERY > LATE else gap
        assert after - before == pytest.approx(expected, abs=1e-9)
        assert after >= before
        before = after


steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["announce", "leave", "wait", "stop"]),
        st.floats(0, 1),
    ),
    max_size=80,
)


@given(steps)
@settings(max_examples=100, deadline=None)
def test_who_is_in_service_agrees_with_a_naive_model(steps: list[tuple[str, str, float]]) -> None:
    """A model that knows when we listened: nobody goes before his time, nor stays a sweep longer than it."""
    listened, heard = 0.0, dict[str, float]()
    with Announced(tolerance=4) as announced:
        for key, what, seconds in steps:
            if what == "announce":
                announced.take(packet(key=key))
                heard[key] = listened
            elif what == "leave":
                announced.take(packet(UNSUBSCRIBE, key=key))
                heard.pop(key, None)
            elif what == "wait":
                listened += seconds
                announced.now += seconds
                announced.source.turn(announced.feed)
            else:
                listened += SWEEP_EVERY
                announced.now += SWEEP_EVERY + LATE + 0.01 + 30 * seconds
                announced.source.turn(announced.feed)
            served = set(announced.table.pools)
            silent = {key: listened - at for key, at in heard.items()}
            assert served >= {key for key, silence in silent.items() if silence <= 4 - 1e-6}
            assert not served & {key for key, silence in silent.items() if silence > 4 + 2 * SWEEP_EVERY}
            heard = {key: at for key, at in heard.items() if key in served}
            assert served == set(heard)


CHILD = """
import gevent
from discovery.subscription import Subscription
from router.table import Table

def changed(change):
    print("joined" if change.joined else "left", flush=True)

def tick():
    while True:
        gevent.sleep(0.1)
        print("tick", flush=True)

source = Subscription("udp://127.0.0.1:0?tolerance=3")
print("bound on", source.address, flush=True)
gevent.spawn(tick)
source.run(Table(on_change=changed).feed(source.name))
"""


@pytest.mark.slow
def test_a_process_that_was_stopped_keeps_its_nodes_until_they_are_silent() -> None:
    with (
        Process(sys.executable, "-c", CHILD, cwd=ROOT) as child,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
    ):
        sender.connect(split(child.wait_line("bound on (.*)")[1]))

        def ticks(count: int) -> None:
            """Wait until the child's loop has gone round so many tenths of a second."""
            end = child.lines.count("tick") + count
            wait_for(lambda: child.lines.count("tick") >= end, f"{count} ticks")

        sender.send(packet())
        child.wait_line("joined")
        child.send_signal(signal.SIGSTOP)
        time.sleep(5)  # the time for which it is stopped is what is tested
        child.send_signal(signal.SIGCONT)
        ticks(5)  # whoever takes the 5 s for silence has swept by now
        sender.send(packet())
        ticks(15)
        assert "left" not in child.lines
        child.wait_line("left")
