"""Nodes whose address a rule makes of the key: which, for how long, and what a client's key cannot do."""

from __future__ import annotations

import gevent
import pytest

from discovery import kept
from discovery.rule import Base, Pattern, Rule
from router.sources import open_source
from router.table import Table


class Asked:
    """A table with one feed, what a rule says in it, and a clock of the test's own."""

    def __init__(self, url: str, max_keys: int = 100, max_nodes: int = 100) -> None:
        self.now = 1000.0
        self.answered: list[str] = []
        self.table = Table(on_answer=lambda feed, key: self.answered.append(key))
        self.feed = self.table.feed("rule", max_keys, max_nodes)
        make: type[Base] | type[Pattern] = Base if url.startswith("base") else Pattern
        self.rule: Rule = make(url, clock=lambda: self.now)
        self.rule.kept.begin(self.feed)

    def want(self, *keys: str) -> None:
        for key in keys:
            self.rule.want(self.feed, key)

    def addresses(self, key: str) -> list[str]:
        return [node.address for node in self.table.nodes(key)]

    def keys(self) -> list[str]:
        return sorted(self.table.pools)

    def later(self, seconds: float) -> float | None:
        self.now += seconds
        return self.rule.kept.expire(self.feed)


@pytest.mark.parametrize(
    ("url", "key", "address"),
    [
        ("base:///run/app/", "foo.com", "/run/app/foo.com"),
        ("base:///run/app", "foo.com", "/run/appfoo.com"),
        ("base:///run/app/", "foo.com/app", "/run/app/foo.com/app"),
        ("base:///run/app/", "f\udcff", "/run/app/f\udcff"),
        ("base://10.0.0.5:30", "31", "10.0.0.5:3031"),
        ("base://@app-", "foo.com", "@app-foo.com"),
        ("base:///run/a%3fb/", "foo.com", "/run/a?b/foo.com"),
        ("pattern:///run/%s.sock", "foo.com", "/run/foo.com.sock"),
        ("pattern:///run/%s/%%/%s", "a", "/run/a/%/a"),
        ("pattern:///run/%s", "%s", "/run/%s"),
        ("pattern://%s:3031", "10.0.0.5", "10.0.0.5:3031"),
        ("pattern://%s:3031", "foo.com", "foo.com:3031"),
        ("pattern:///run/all.sock", "foo.com", "/run/all.sock"),
    ],
)
def test_the_key_makes_the_address(url: str, key: str, address: str) -> None:
    asked = Asked(url)
    asked.want(key)
    said = asked.feed.slices[key]
    assert list(said) == [address]
    assert (said[address].modifier1, said[address].modifier2) == (0, 0)
    assert asked.answered == [key]


@pytest.mark.parametrize("key", ["..", ".", "../x", "a/../b", "a/..", "./x", "a/./b", "/.."])
@pytest.mark.parametrize("url", ["base:///run/app/", "base:///run/.", "pattern:///run/%s.sock", "pattern:///run/.%s/x"])
def test_no_key_leaves_the_folder(url: str, key: str) -> None:
    asked = Asked(url)
    asked.want(key)
    assert asked.keys() == []
    assert asked.answered == [key]
    assert asked.feed.rejected == {"unsafe key": 1}


@pytest.mark.parametrize("key", ["/etc/x.sock", "@abstract"])
def test_no_key_that_stands_first_is_a_path(key: str) -> None:
    asked = Asked("pattern://%s")
    asked.want(key)
    assert (asked.keys(), asked.feed.rejected) == ([], {"unsafe key": 1})
    beside = Asked("base:///run/")
    beside.want(key)
    assert beside.addresses(key) == [f"/run/{key}"]


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("base:///run/", "a\0b"),
        ("base:///run/", "x" * 200),
        ("base://10.0.0.5:", "0"),
        ("base://10.0.0.5:", "http"),
        ("pattern://%s:3031", "foo.com:80"),
        ("pattern://%s:3031", "224.0.0.1"),
    ],
)
def test_an_address_that_is_none_is_counted_and_answered(url: str, key: str) -> None:
    asked = Asked(url)
    asked.want(key)
    assert (asked.keys(), asked.answered) == ([], [key])
    assert asked.feed.rejected == {"bad node address": 1}


def test_a_key_is_let_go_some_time_after_it_was_asked_for() -> None:
    asked = Asked("base:///run/?keep=10")
    assert asked.later(0) is None
    asked.want("a.com")
    assert asked.later(4) == 6
    asked.want("b.com")
    assert asked.later(6) == 4
    assert asked.keys() == ["b.com"]
    asked.want("a.com")
    assert asked.keys() == ["a.com", "b.com"]
    assert asked.later(10) is None
    assert asked.keys() == []


def test_a_key_that_is_asked_for_again_holds_no_other_one_back() -> None:
    asked = Asked("base:///run/?keep=10")
    asked.want("a.com")
    asked.later(4)
    asked.want("b.com")
    asked.later(1)
    asked.want("a.com")
    assert asked.later(9) == 1
    assert asked.keys() == ["a.com"]


@pytest.mark.parametrize("limits", [(3, 100), (100, 3)])
def test_where_there_is_no_room_the_key_that_was_asked_for_longest_ago_goes(limits: tuple[int, int]) -> None:
    asked = Asked("base:///run/", *limits)
    asked.want("a", "b", "c", "a", "d", "e")
    assert asked.keys() == ["a", "d", "e"]
    assert asked.feed.rejected == {}


def test_host_names_have_less_room_and_cost_other_keys_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "NAMES", 2)
    asked = Asked("pattern://%s:3031")
    asked.want("10.0.0.1", "a.com", "b.com", "c.com", "10.0.0.2")
    assert sorted(asked.feed.slices) == ["10.0.0.1", "10.0.0.2", "b.com", "c.com"]


def test_what_the_feed_does_not_take_is_not_kept() -> None:
    asked = Asked("base:///run/")
    asked.table.is_own = lambda address: address == "/run/me"
    asked.want("me")
    assert (asked.keys(), asked.answered, asked.rule.kept.asked) == ([], ["me"], {})


def test_it_speaks_at_once_and_answers_what_it_is_asked() -> None:
    asked = Asked("base:///run/?keep=1")
    assert asked.feed.spoken
    running = gevent.spawn(asked.rule.run, asked.feed)
    asked.feed.asked.put("a.com")
    asked.feed.asked.put("..")
    with gevent.Timeout(10):
        while len(asked.answered) < 2:
            gevent.sleep(0.01)
    assert (asked.keys(), asked.answered) == (["a.com"], ["a.com", ".."])
    asked.now += 1
    with gevent.Timeout(10):
        while asked.keys():
            gevent.sleep(0.01)
    running.kill()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("base://", "a beginning of addresses is missing"),
        ("pattern://", "a pattern is missing"),
        ("pattern:///run/%d.sock", "%d means nothing here"),
        ("pattern:///run/%", "% means nothing here"),
        ("base:///run/?keep=0", "keep=0"),
        ("base:///run/?port=1", "setting 'port' is not known"),
    ],
)
def test_a_rule_that_is_none_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_source(url)
    assert url.partition("?")[0] in str(caught.value)


def test_its_name_says_the_rule() -> None:
    assert open_source("base:///run/app/").source.name == "base@/run/app/"
    assert open_source("pattern:///run/%s.sock").source.name == "pattern@/run/%s.sock"
