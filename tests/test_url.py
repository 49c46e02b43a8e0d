"""The URLs of sources: taken apart, and their settings read."""

import re
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.url import (
    SourceUrl,
    parse_url,
    read_settings,
    setting,
    settings_of,
    split_settings,
    url_of,
    without_password,
)
from router.values import whole


@dataclass(frozen=True)
class Settings:
    wait: int = setting(30, whole(1, 60, "seconds"), "SECONDS", "ask so long")
    min_nodes: int = setting(0, whole(0, 9), "N", "keep so many")
    tag: tuple[str, ...] = setting((), str, "TAG", "only with this one")


@dataclass(frozen=True)
class Others:
    name: str = setting("", str, "NAME", "what it is called")


def test_a_url_is_taken_apart() -> None:
    url = parse_url("Etcd://me:s%40ecret@a:1,[::1]:2,c/pre%2Ffix/x?tag=a%26b&wait=5&on")
    assert (url.scheme, url.user, url.password) == ("etcd", "me", "s@ecret")
    assert url.places == ("a:1", "[::1]:2", "c")
    assert url.path == "/pre%2Ffix/x"
    assert url.query == (("tag", "a&b"), ("wait", "5"), ("on", ""))
    assert url.hosts(2379) == [("a", 1), ("::1", 2), ("c", 2379)]


def test_a_name_alone_is_a_url_that_says_nothing() -> None:
    url = parse_url("dns://")
    assert (url.places, url.path, url.query, url.hosts(53)) == ((), "", (), [])


def test_a_password_is_in_no_message() -> None:
    url = parse_url("etcd://me:secret@a:1/?wait=x")
    assert "secret" not in repr(url).replace(url.text, "")
    with pytest.raises(ValueError, match=r"^etcd://me:\*\*\*@a:1/\?wait=x: wait=x: not a whole number") as caught:
        read_settings(url, Settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "etcd://me:secr@et@a:1/x:y?wait=1",
        "etcd://m@e:secret@a",
        "etcd://:secret@a",
        "etcd://a/?password=secret&wait=1",
        "etcd://a?wait=1&token=secret",
        "etcd:/me:secret@a",
        "etcd//me:secret@a",
        "me:secret@a",
    ],
)
def test_however_it_is_written_a_password_is_not_shown(text: str) -> None:
    shown = without_password(text)
    assert "***" in shown
    assert not {"secr", "et", "secret"} & set(re.split(r"\W", shown))


@pytest.mark.parametrize(
    "text", ["udp://[::1]:2626", "unix://@name", "dns://a:53,[::1]:53/b?key=c:1", "etcd://a?password-file=/x&tls=yes"]
)
def test_what_holds_no_password_is_shown_as_it_is(text: str) -> None:
    assert without_password(text) == text


@pytest.mark.parametrize("text", ["", "dns", "://a", "1x://a", "dns:/a", " dns://", "a b://"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match="no URL of a source"):
        parse_url(text)


@pytest.mark.parametrize("place", ["a:0", "a:65536", "a:b", "::1", "[::1", "[x]:1", ":53", "a:1:2", ""])
def test_what_is_no_place(place: str) -> None:
    with pytest.raises(ValueError, match=r"is no place|is out of range"):
        parse_url(f"dns://ok,{place}/").hosts(53)


def test_settings_are_read_by_their_readers() -> None:
    assert read_settings(parse_url("x://?wait=5&tag=a&tag=b+c"), Settings) == Settings(5, 0, ("a", "b+c"))
    assert read_settings(parse_url("x://"), Settings) == Settings()
    assert [one.name for one in settings_of(Settings)] == ["wait", "min-nodes", "tag"]


def test_an_unknown_setting_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"^x://\?w=1: setting 'w' is not known \(known: min-nodes, tag, wait\)$"):
        read_settings(parse_url("x://?w=1"), Settings)


def test_a_wrong_value_says_what_is_legal() -> None:
    with pytest.raises(ValueError, match=r"wait=61: out of range \(legal: 1 to 60 seconds\)$"):
        read_settings(parse_url("x://?wait=61"), Settings)


def test_the_settings_of_all_sources_are_taken_out() -> None:
    others, rest = split_settings(parse_url("x://a/b?wait=5&name=q&tag=c%26d"), Others)
    assert others == Others("q")
    assert rest.text == "x://a/b?wait=5&tag=c%26d"
    assert split_settings(parse_url("x://?name=q"), Others)[1].text == "x://"


def test_a_word_that_is_no_name_is_refused_as_it_was_written() -> None:
    assert [url_of("dns"), url_of("dns://a"), url_of("dns?min-ttl=5")] == ["dns://", "dns://a", "dns?min-ttl=5"]


@given(
    st.text() | st.lists(st.sampled_from(["a", "://", "@", ":", ",", "/", "?", "=", "&", "[", "%", "x"])).map("".join)
)
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    without_password(text)
    with suppress(ValueError):
        url = parse_url(text)
        assert isinstance(url, SourceUrl)
        url.hosts(1)
        read_settings(url, Settings)
