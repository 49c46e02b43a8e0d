"""On-demand vassals: who has a name and no address yet is known and not asked; it gets one, moves, clears it, goes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from announced import NODE, SUBSCRIBE, UNSUBSCRIBE, Announced, packet
from discovery.subscription import BATCH

VASSAL = "app.ini"
OTHER = "10.0.0.6:3031"
WHO = f"[uwsgi-subscription for pid {os.getpid()}] foo.com =>"


@pytest.fixture
def announced(caplog: pytest.LogCaptureFixture) -> Iterator[Announced]:
    caplog.set_level(logging.INFO, "gfrouter")
    with Announced(tolerance=17, tolerance_inactive=30) as announced:
        yield announced


def vassal(name: str = VASSAL, address: str = "", **fields: str | int) -> bytes:
    """Without an address unless one is given."""
    return packet(SUBSCRIBE, 224, vassal=name, address=address or b"", **fields)


def kept(announced: Announced) -> tuple[int, int, int]:
    """How many are heard of, are inactive, and have a vassal's name."""
    source = announced.source
    return len(source._heard), len(source._inactive), len(source._vassals)


def test_a_vassal_without_address_is_known_and_not_asked(
    announced: Announced, caplog: pytest.LogCaptureFixture
) -> None:
    announced.take(vassal())
    announced.take(vassal())
    assert announced.addresses() == [] and announced.table.pools == {}
    assert announced.feed.rejected == {} and kept(announced) == (0, 1, 0)
    assert caplog.messages == [f"{WHO} new vassal node: {VASSAL}"]


def test_it_expires_after_its_own_tolerance(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    announced.take(vassal(), packet())
    announced.idle(30)
    assert announced.addresses() == [] and kept(announced) == (0, 1, 0)
    announced.idle(1)
    assert kept(announced) == (0, 0, 0)
    assert caplog.messages[-1] == (f"{WHO} marking vassal {VASSAL} as failed (no announce received in 30 seconds)")


def test_each_word_of_it_starts_its_silence_anew(announced: Announced) -> None:
    announced.take(vassal("first"), vassal("second"))
    for _ in range(3):
        announced.idle(20)
        announced.take(vassal("first"))
    assert list(announced.source._inactive) == [("foo.com", "first")]


def test_it_is_asked_when_it_has_got_an_address(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    announced.take(vassal(), vassal(address=NODE, weight=3))
    assert [(node.address, node.weight, node.vassal) for node in announced.nodes()] == [(NODE, 3, VASSAL)]
    assert kept(announced) == (1, 0, 1)
    assert caplog.messages[-1] == f"{WHO} updated vassal node: {VASSAL} with address {NODE}"


def test_it_need_not_repeat_its_address(announced: Announced) -> None:
    announced.take(vassal(address=NODE))
    for weight in range(1, 5):
        announced.idle(10)
        announced.take(vassal(weight=weight))
    assert [(node.address, node.weight) for node in announced.nodes()] == [(NODE, 4)]
    announced.idle(18)
    assert announced.addresses() == [] and kept(announced) == (0, 0, 0)


def test_it_moves_and_its_old_address_goes(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    announced.take(vassal(address=NODE), vassal(address=OTHER))
    assert announced.addresses() == [OTHER] and kept(announced) == (1, 0, 1)
    assert caplog.messages == [f"{WHO} updated vassal node: {VASSAL} with address {OTHER}"]
    announced.take(vassal("next.ini", NODE))
    assert sorted(announced.addresses()) == [NODE, OTHER]


def test_of_each_key_it_has_an_address_of_its_own(announced: Announced) -> None:
    announced.take(vassal(address=NODE), vassal(address=OTHER, key="bar.com"))
    assert announced.addresses() == [NODE] and announced.addresses("bar.com") == [OTHER]


def test_one_that_takes_anothers_address_does_not_drag_it_along(announced: Announced) -> None:
    """The address is `second`'s then, so `first` has none, and a new one of `first` leaves it where it is."""
    announced.take(vassal("first", NODE), vassal("second", NODE), vassal("first", OTHER))
    assert [(node.address, node.vassal) for node in announced.nodes()] == [(NODE, "second"), (OTHER, "first")]
    assert announced.source._vassals == {("foo.com", "second"): NODE, ("foo.com", "first"): OTHER}


def test_a_node_that_is_no_vassals_any_more_is_nobodys(announced: Announced) -> None:
    announced.take(vassal(address=NODE), packet())
    assert kept(announced) == (1, 0, 0)
    announced.take(vassal(address=OTHER))
    assert announced.addresses() == [NODE, OTHER]


def test_one_that_clears_its_address_is_known_and_not_asked(
    announced: Announced, caplog: pytest.LogCaptureFixture
) -> None:
    announced.take(vassal(address=NODE), vassal(address=NODE, clear=1))
    assert announced.addresses() == [] and kept(announced) == (0, 1, 0)
    assert caplog.messages == [f"{WHO} cleared address for vassal node: {VASSAL}"]
    announced.idle(31)
    assert kept(announced) == (0, 0, 0)


def test_clearing_an_address_that_it_does_not_have_gives_it_that(announced: Announced) -> None:
    """As in uWSGI, where `clear` counts only beside the address that is there."""
    announced.take(vassal(address=NODE, clear=1))
    assert announced.addresses() == [NODE]
    announced.take(vassal(address=OTHER, clear=1))
    assert announced.addresses() == [OTHER] and kept(announced) == (1, 0, 1)


@pytest.mark.parametrize("farewell", [vassal(address=NODE), packet(address=NODE)])
def test_it_leaves_by_its_address(announced: Announced, farewell: bytes) -> None:
    announced.take(vassal(address=NODE), farewell[:3] + bytes([UNSUBSCRIBE]) + farewell[4:])
    assert announced.addresses() == [] and kept(announced) == (0, 0, 0)


def test_one_without_address_leaves_by_its_name(announced: Announced) -> None:
    announced.take(vassal("first"), vassal("second"), packet(UNSUBSCRIBE, vassal="first", address=b""))
    assert list(announced.source._inactive) == [("foo.com", "second")]


def test_an_expired_one_is_new_when_it_comes_back(announced: Announced, caplog: pytest.LogCaptureFixture) -> None:
    announced.take(vassal(address=NODE))
    announced.idle(18)
    announced.take(vassal())
    assert announced.addresses() == [] and kept(announced) == (0, 1, 0)
    assert caplog.messages[-1] == f"{WHO} new vassal node: {VASSAL}"


def test_so_many_without_address_are_kept_as_nodes_may_be() -> None:
    with Announced(max_nodes=3) as announced:
        announced.take(*[vassal(f"{number}.ini") for number in range(5)])
        assert len(announced.source._inactive) == 3
        assert announced.feed.rejected == {"too many nodes": 2}
        announced.take(vassal("0.ini"), vassal("0.ini", NODE), vassal("4.ini"))
        assert len(announced.source._inactive) == 3 and announced.feed.rejected == {"too many nodes": 2}


def test_clearing_addresses_does_not_outgrow_that() -> None:
    with Announced(max_nodes=3) as announced:
        for number in range(6):
            announced.take(vassal(f"{number}.ini", NODE), vassal(f"{number}.ini", NODE, clear=1))
        assert kept(announced) == (0, 3, 0) and announced.addresses() == []
        assert announced.feed.rejected == {"too many nodes": 3}


def test_one_that_is_heard_again_by_a_clear_is_the_last_to_expire() -> None:
    with Announced(tolerance=100, tolerance_inactive=30) as announced:
        announced.take(vassal("first"), vassal("second"), vassal("other", NODE))
        announced.idle(20)
        announced.take(vassal("first", NODE, clear=1))
        announced.idle(11)
        assert list(announced.source._inactive) == [("foo.com", "first")]


def test_a_turn_expires_a_bounded_number_of_them(announced: Announced) -> None:
    for number in range(BATCH + 1):
        announced.take(vassal(f"{number}.ini"))
    announced.idle(30)
    announced.now += 1
    announced.source.turn(announced.feed)
    assert kept(announced)[1] == 1
    announced.source.turn(announced.feed)
    assert kept(announced)[1] == 0


def test_many_silent_nodes_do_not_put_off_the_expiry_of_vassals() -> None:
    with Announced(tolerance=30, tolerance_inactive=30) as announced:
        announced.take(vassal())
        for number in range(BATCH + 1):
            announced.take(packet(address=f"10.0.0.{number}:1"))
        announced.idle(30)
        announced.now += 1
        announced.source.turn(announced.feed)
        assert kept(announced) == (1, 0, 0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["announce", "announce", "leave", "wait"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "1.ini", "2.ini", "3.ini"]),
        st.sampled_from(["", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "bad:address:"]),
        st.booleans(),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_what_is_kept_of_vassals_is_what_nodes_and_silence_say(
    steps: list[tuple[str, str, str, str, bool]],
) -> None:
    with Announced(max_nodes=3, tolerance=5, tolerance_inactive=3) as announced:
        source, feed = announced.source, announced.feed
        for what, key, name, address, clear in steps:
            said = {"key": key, "vassal": name or b"", "address": address or b"", "clear": int(clear)}
            if what == "wait":
                announced.idle(2)
            else:
                announced.take(packet(UNSUBSCRIBE if what == "leave" else 0, 224, **said))
            nodes = {(key, node.address): node for key, slice_ in feed.slices.items() for node in slice_.values()}
            assert set(source._heard) == set(nodes)
            assert source._vassals == {(key, n.vassal): address for (key, address), n in nodes.items() if n.vassal}
            assert len(source._vassals) == sum(bool(node.vassal) for node in nodes.values()), "one address each"
            assert len(nodes) <= 3 and len(source._inactive) <= 3
            for heard in (source._heard, source._inactive):
                assert list(heard.values()) == sorted(heard.values()), "the oldest first"
        announced.idle(8)
        assert kept(announced) == (0, 0, 0) and announced.table.pools == {}
