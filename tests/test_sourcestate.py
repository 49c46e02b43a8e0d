"""How a source is told to be: its state, its age, its runs."""

from __future__ import annotations

import pytest

from router.feed import Feed
from router.node import Node
from router.sources import Common
from router.sourcestate import STATES, Watched
from router.table import UNLIMITED, Table


class Failing:
    name = "own name"

    def run(self, feed: Feed) -> None:
        feed.set("foo.com", [Node(":1")])
        raise OSError("gone")


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_state_is_one_of_those_that_are_documented_and_the_worst_is_told() -> None:
    feed = Common(max_stale=1, min_nodes=1).feed(Table(), "consul", UNLIMITED, UNLIMITED)
    watched = Watched(Failing(), feed)
    seen = [watched.row()["state"]]
    feed.recall({"foo.com": [Node(":1")]}, 1.0)
    seen.append(watched.row()["state"])
    feed.replace({"foo.com": [Node(":1")]})
    seen.append(watched.row()["state"])
    feed.replace({})
    seen.append(watched.row()["state"])
    feed.fail("down")
    seen.append(watched.row()["state"])
    feed.age(0)  # type: ignore[attr-defined]
    feed.age(1)  # type: ignore[attr-defined]
    seen.append(watched.row()["state"])
    assert seen == ["starting", "remembered", "ok", "held back", "failing", "stale"]
    assert set(seen) == set(STATES)


def test_the_age_counts_from_the_last_sample_that_found_news_and_runs_are_counted() -> None:
    time = Time()
    feed = Table().feed("consul")
    watched = Watched(Failing(), feed, "consul://a", time, wall=lambda: 1000.0)
    assert (watched.row()["last_success"], watched.row()["runs"], watched.row()["restarts"]) == (None, 0, 0)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            watched.run(feed)
        assert not watched.running
        feed.fail(OSError("gone"))
    watched.sample()
    time.now += 7.25
    watched.sample()
    row = watched.row()
    assert (row["name"], row["url"], row["age"], row["runs"], row["restarts"]) == (
        "consul", "consul://a", 7.2, 2, 1,
    )  # fmt: skip
    assert row["last_success"] == 993
    assert (row["errors"], row["error"], row["last_error"], row["keys"], row["nodes"]) == (2, "gone", "gone", 1, 1)
