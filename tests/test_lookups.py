"""Which keys a router asks the supervisor for, and how long it goes without asking again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import lookups
from router.lookups import ANY, DENIED_FOR, HOSTS, MOST_DENIED, MOST_OPEN, NOBODY, TIMEOUT, TOO_MANY, UNKNOWN, Lookups


class Asking(Lookups):
    """With a clock that the test moves; `news_came` counts the calls of `news`."""

    def __init__(self, whom: str = HOSTS) -> None:
        self.now = 1000.0
        self.news_came = 0
        super().__init__(whom, timeout=3.0, news=self.come, clock=lambda: self.now)

    def come(self) -> None:
        self.news_came += 1


def test_a_key_is_asked_for_once_however_many_wait_for_it() -> None:
    asking = Asking()
    for _ in range(3):
        asking.ask("foo.com")
    assert (asking.take(), asking.take(), asking.news_came, asking.refusal("foo.com")) == (["foo.com"], [], 1, "")


@pytest.mark.parametrize(
    ("whom", "key", "asked"),
    [(NOBODY, "foo.com", False), (HOSTS, "foo.com", True), (HOSTS, "a b", False), (HOSTS, "f\udcff", False),
     (ANY, "a b", True), (ANY, "f\udcff", True)],
)  # fmt: skip
def test_only_what_a_source_may_know_is_asked_for(whom: str, key: str, asked: bool) -> None:
    asking = Asking(whom)
    asking.ask(key)
    assert (asking.take(), asking.refusal(key)) == (([key], "") if asked else ([], UNKNOWN))


def test_what_nobody_serves_is_not_asked_again_for_a_moment() -> None:
    asking = Asking()
    asking.ask("foo.com")
    assert asking.deny(["foo.com", "bar.com"]) == ["foo.com"]
    asking.now += DENIED_FOR - 0.1
    asking.ask("foo.com")
    assert (asking.refusal("foo.com"), asking.open) == (UNKNOWN, {})
    asking.now += 0.1
    assert asking.refusal("foo.com") == ""


def test_what_takes_too_long_is_given_up_and_not_asked_again_for_a_moment() -> None:
    asking = Asking()
    asking.ask("a.com")
    asking.now += 1
    asking.ask("b.com")
    asking.now += 2
    assert (asking.expire(), asking.expire(), list(asking.open)) == (["a.com"], [], ["b.com"])
    assert asking.refusal("a.com") == TIMEOUT
    assert asking.take() == ["b.com"], "what has been given up is not asked of a supervisor that did not read"
    asking.now += 1
    assert (asking.refusal("a.com"), asking.expire()) == ("", ["b.com"])


def test_what_is_found_is_forgotten() -> None:
    asking = Asking()
    asking.ask("foo.com")
    asking.find("foo.com")
    assert (asking.open, asking.take(), asking.deny(["foo.com"])) == ({}, [], [])
    asking.ask("foo.com")
    asking.deny(["foo.com"])
    asking.find("foo.com")
    assert asking.refusal("foo.com") == ""


def test_there_are_only_so_many_at_once() -> None:
    asking = Asking()
    for number in range(MOST_OPEN + 10):
        asking.ask(f"{number}.com")
    assert (len(asking.open), asking.refusal("one.more"), asking.refusal("0.com")) == (MOST_OPEN, TOO_MANY, "")
    asking.deny(["0.com"])
    assert asking.refusal("one.more") == ""


def test_memory_of_what_there_is_not_is_bounded() -> None:
    asking = Asking()
    for number in range(MOST_DENIED + 10):
        asking.ask(f"{number}.com")
        asking.deny([f"{number}.com"])
    assert (len(asking.denied), asking.refusal("9.com"), asking.refusal("10.com")) == (MOST_DENIED, "", UNKNOWN)
    asking.now += DENIED_FOR
    asking.ask("foo.com")
    asking.deny(["foo.com"])
    assert list(asking.denied) == ["foo.com"]


def test_stopped_it_asks_for_nothing() -> None:
    asking = Asking()
    asking.ask("foo.com")
    asking.stop()
    assert (asking.refusal("foo.com"), asking.take(), asking.open) == (UNKNOWN, [], {})


@given(st.lists(st.tuples(st.sampled_from("adeft"), st.sampled_from(["a.com", "b.com", "c.com"])), max_size=60))
def test_it_is_never_inconsistent(steps: list[tuple[str, str]]) -> None:
    asking = Asking()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookups, "MOST_OPEN", 2)
        patch.setattr(lookups, "MOST_DENIED", 2)
        for step, key in steps:
            match step:
                case "a":
                    asking.ask(key)
                case "d":
                    asking.deny([key])
                case "e":
                    asking.expire()
                case "f":
                    asking.find(key)
                case "t":
                    asking.now += 0.7
            assert set(asking.untold) <= set(asking.open)
            assert not set(asking.open) & {key for key, (until, _) in asking.denied.items() if until > asking.now}
            assert len(asking.open) <= 2 and len(asking.denied) <= 2
            assert list(asking.open.values()) == sorted(asking.open.values())
            assert [until for until, _ in asking.denied.values()] == sorted(u for u, _ in asking.denied.values())
