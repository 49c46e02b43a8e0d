"""What a feed hands to a source that looks keys up on demand."""

from __future__ import annotations

import gevent
import pytest

from router.asked import Asked
from router.feed import Feed
from router.node import Node
from router.table import Table


def test_keys_come_in_their_order_and_once() -> None:
    asked = Asked()
    for key in ("b", "a", "b"):
        asked.put(key)
    assert [asked.take(0) for _ in range(3)] == ["b", "a", None]


def test_one_that_nobody_waits_for_any_more_is_not_handed_out() -> None:
    asked = Asked()
    for key in ("a", "b"):
        asked.put(key)
    for _ in range(2):
        asked.drop("a")
    assert [asked.take(0), asked.take(0)] == ["b", None]


@pytest.mark.parametrize("timeout", [None, 60])
def test_who_takes_waits_for_a_key(timeout: float | None) -> None:
    asked = Asked()
    takers = [gevent.spawn(asked.take, timeout) for _ in range(2)]
    gevent.sleep(0)
    for key in ("a", "b"):
        asked.put(key)
    gevent.joinall(takers, timeout=10)
    assert {taker.value for taker in takers} == {"a", "b"}


def test_who_takes_waits_no_longer_than_he_says() -> None:
    assert gevent.spawn(Asked().take, 0.01).get(timeout=10) is None


def test_a_feed_says_what_it_answered() -> None:
    heard: list[tuple[Feed, str]] = []
    feed = Table(on_answer=lambda feed, key: heard.append((feed, key))).feed("told")
    feed.set("a", [Node(":1")])
    feed.set("b", ())
    feed.fail("cannot tell", "c")
    feed.fail("cannot see")
    feed.replace({"d": [Node(":1")]})
    assert heard == [(feed, "a"), (feed, "b"), (feed, "c")]


def test_a_feed_hands_out_what_it_is_asked() -> None:
    feed = Table().feed("told")
    feed.asked.put("a")
    assert (feed.wanted(0), feed.wanted(timeout=0)) == ("a", None)
