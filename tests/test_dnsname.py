"""Which keys are host names, and what they and a URL's names become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.dnsname import checked_name, host_of, key_of, within


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("foo.com", "foo.com"),
        ("Foo.COM:8080", "foo.com"),
        ("foo.com.", "foo.com"),
        ("foo.com.:80", "foo.com"),
        ("web_1", "web_1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("3com.com", "3com.com"),
        ("a" * 63 + ".b", "a" * 63 + ".b"),
    ],
)
def test_the_host_of_a_key(key: str, host: str) -> None:
    assert host_of(key) == host


@pytest.mark.parametrize(
    "key",
    [
        "", ":80", ".", "..", "a..b", "foo com", "foo.com/x", "bücher.example", "\udcff.com", "-a.com", "a-.com",
        "*.com",         "10.0.0.1", "10.0.0.1:80", "[::1]", "[::1]:80", "::1", "foo.com:80:80", "foo.com\n",
        "a" * 64 + ".com", "a\0b",
        "\u0661.com", "foo.\u0661", ".".join(["a" * 60] * 5), "foo.com..",
    ],
)  # fmt: skip
def test_what_is_no_host_name_has_none(key: str) -> None:
    with pytest.raises(ValueError, match=r"no host name|no DNS name|missing|is the limit"):
        host_of(key)


def test_the_error_has_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"'a{60}\..*: a name of 304 characters, but 253 is the limit$"):
        checked_name(".".join(["a" * 60] * 5))


@given(st.text(max_size=300))
def test_any_text_is_a_host_name_of_plain_characters_or_a_value_error(text: str) -> None:
    try:
        host = host_of(text)
    except ValueError:
        return
    assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert len(host) <= 253
    assert host_of(host) == host


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("_uwsgi._tcp.foo.com", "foo.com"),
        ("_x._udp.foo", "foo"),
        ("foo.com", "foo.com"),
        ("_tcp.foo.com", "_tcp.foo.com"),
    ],
)
def test_the_key_of_a_watched_name(name: str, key: str) -> None:
    assert key_of(name) == key


def test_a_domain_holds_itself_and_what_is_below_it() -> None:
    assert within("foo.com", "foo.com")
    assert within("a.b.foo.com", "foo.com")
    assert not within("barfoo.com", "foo.com")
    assert not within("com", "foo.com")
