"""The grammar of addresses: every form that is understood, and in which words every other one is refused."""

from __future__ import annotations

import re
import socket
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router import address
from router.address import (
    AddressError,
    HostName,
    Inet,
    Inherited,
    Prefix,
    Shared,
    Unix,
    name_of,
    parse_local,
    parse_node,
)

V4, V6 = socket.AF_INET, socket.AF_INET6
LOOPBACK = socket.if_nametoindex("lo")
LONGEST_NAME = ".".join(["x" * 63, "x" * 63, "x" * 63, "x" * 61])

# What means the same for a worker's address and for one to bind.
COMMON = [
    ("10.0.0.5:3031", Inet(V4, ("10.0.0.5", 3031))),
    ("0.0.0.0:1", Inet(V4, ("0.0.0.0", 1))),
    ("127.0.0.1:65535", Inet(V4, ("127.0.0.1", 65535))),
    ("127.0.0.1:00080", Inet(V4, ("127.0.0.1", 80))),
    ("[::1]:3031", Inet(V6, ("::1", 3031))),
    ("[::]:80", Inet(V6, ("::", 80))),
    ("[2001:DB8::1]:80", Inet(V6, ("2001:DB8::1", 80))),
    ("[::ffff:10.0.0.5]:80", Inet(V6, ("::ffff:10.0.0.5", 80))),
    ("[fe80::1%lo]:80", Inet(V6, ("fe80::1", 80, 0, LOOPBACK))),
    ("[fe80::1%7]:80", Inet(V6, ("fe80::1", 80, 0, 7))),
    ("app:3031", HostName("app", 3031)),
    ("app.internal.:3031", HostName("app.internal.", 3031)),
    ("my_app-1.lan:3031", HostName("my_app-1.lan", 3031)),
    ("1and1:80", HostName("1and1", 80)),
    ("0x7f000001:80", HostName("0x7f000001", 80)),
    (f"{LONGEST_NAME}:80", HostName(LONGEST_NAME, 80)),
    ("@app", Unix(b"\0app\0")),
    ("@/run/app:1", Unix(b"\0/run/app:1\0")),
    ("@é", Unix(b"\0\xc3\xa9\0")),
    ("@\udcff", Unix(b"\0\xff\0")),
    ("@" + "x" * 106, Unix(b"\0" + b"x" * 106 + b"\0")),
    ("/run/app.sock", Unix(b"/run/app.sock")),
    ("/run/a:b.sock", Unix(b"/run/a:b.sock")),
    ("/run/[::1]:80", Unix(b"/run/[::1]:80")),
    ("/run/192.*:0", Unix(b"/run/192.*:0")),
    ("app.sock", Unix(b"app.sock")),
    ("/" + "x" * 106, Unix(b"/" + b"x" * 106)),
    ("/run/\udcff.sock", Unix(b"/run/\xff.sock")),
]

# What is wrong with both.
MALFORMED = [
    ("10.0.0.5:65536", "port 65536 is out of range (0 to 65535)"),
    ("10.0.0.5:000080", "port 000080 is out of range (0 to 65535)"),
    ("10.0.0.5:", "port '' is not a number"),
    (":", "port '' is not a number"),
    ("10.0.0.5:http", "port 'http' is not a number"),
    ("10.0.0.5:-1", "port '-1' is not a number"),
    ("10.0.0.5:+1", "port '+1' is not a number"),
    ("10.0.0.5: 1", "port ' 1' is not a number"),
    ("10.0.0.5:1\n", r"port '1\n' is not a number"),
    ("10.0.0.5:1/", "port '1/' is not a number"),
    ("10.0.0.5:٣", "port '٣' is not a number"),
    ("10.0.0.256:1", "'10.0.0.256' is not an IPv4 address"),
    ("10.0.0:1", "'10.0.0' is not an IPv4 address"),
    ("1.2.3.4.5:1", "'1.2.3.4.5' is not an IPv4 address"),
    ("1..2.3:1", "'1..2.3' is not an IPv4 address"),
    ("12:34", "'12' is not an IPv4 address"),
    ("010.0.0.5:1", "'010.0.0.5' is not an IPv4 address"),
    (" 10.0.0.5:1", "' 10.0.0.5' is neither an IP address nor a host name"),
    ("10.0.0.5 :1", "'10.0.0.5 ' is neither an IP address nor a host name"),
    ("::1:3031", "an IPv6 address stands in brackets, as in [::1]:3031"),
    ("::1", "an IPv6 address stands in brackets, as in [::1]:3031"),
    ("10.0.0.5:1:2", "an IPv6 address stands in brackets, as in [::1]:3031"),
    ("tcp://10.0.0.5:1", "an IPv6 address stands in brackets, as in [::1]:3031"),
    ("[::1:3031", "the closing ] of the IPv6 address is missing"),
    ("[:", "the closing ] of the IPv6 address is missing"),
    ("[::1]", "after the ] of an IPv6 address stands :PORT"),
    ("[::1]3031", "after the ] of an IPv6 address stands :PORT"),
    ("[::1]]:3031", "after the ] of an IPv6 address stands :PORT"),
    ("[::1]:", "port '' is not a number"),
    ("[::1]:x", "port 'x' is not a number"),
    ("[::1]:1:2", "port '1:2' is not a number"),
    ("[::1]:65536", "port 65536 is out of range (0 to 65535)"),
    ("[]:3031", "'' is not an IPv6 address"),
    ("[::g]:3031", "'::g' is not an IPv6 address"),
    ("[:::]:3031", "':::' is not an IPv6 address"),
    ("[1:2:3:4:5:6:7:8:9]:3031", "'1:2:3:4:5:6:7:8:9' is not an IPv6 address"),
    ("[127.0.0.1]:3031", "'127.0.0.1' is not an IPv6 address"),
    ("[localhost]:3031", "'localhost' is not an IPv6 address"),
    ("[::1 ]:3031", "'::1 ' is not an IPv6 address"),
    ("[[::1]]:3031", "after the ] of an IPv6 address stands :PORT"),
    ("[[::1]:3031", "'[::1' is not an IPv6 address"),
    ("[::1/128]:3031", "'::1/128' is not an IPv6 address"),
    ("[é]:3031", "'é' is not an IPv6 address"),
    ("[\udcff]:3031", r"'\udcff' is not an IPv6 address"),
    ("[fe80::1%]:3031", "there is no network interface named ''"),
    ("[fe80::1%no-such]:3031", "there is no network interface named 'no-such'"),
    ("[fe80::1%9999999999]:3031", "there is no network interface named '9999999999'"),
    ("[fe80::1%\udcff]:3031", r"there is no network interface named '\udcff'"),
    ("[::1]x:1", "after the ] of an IPv6 address stands :PORT"),
    ("-app:1", "'-app' is neither an IP address nor a host name"),
    ("app-:1", "'app-' is neither an IP address nor a host name"),
    ("a..b:1", "'a..b' is neither an IP address nor a host name"),
    (".app:1", "'.app' is neither an IP address nor a host name"),
    ("..:1", "'..' is not an IPv4 address"),
    (".:1", "'.' is not an IPv4 address"),
    ("app/x:1", "'app/x' is neither an IP address nor a host name"),
    ("bücher.de:1", "'bücher.de' is neither an IP address nor a host name"),
    ("$(HOST):1", "'$(HOST)' is neither an IP address nor a host name"),
    ("x" * 64 + ":1", f"'{'x' * 64}' is neither an IP address nor a host name"),
    ("fd:/3:1", "an IPv6 address stands in brackets, as in [::1]:3031"),
    ("@", "the name of the abstract socket is missing after the @"),
    ("@" + "x" * 107, "an abstract socket's name of 107 bytes, but 106 is the limit"),
    ("@" + "é" * 54, "an abstract socket's name of 108 bytes, but 106 is the limit"),
    ("@a\0", "the address has a NUL byte inside"),
    ("/run/a\0b", "the address has a NUL byte inside"),
    ("\0", "the address has a NUL byte inside"),
    ("app\0:1", "the address has a NUL byte inside"),
    ("[::1\0]:1", "the address has a NUL byte inside"),
    ("/" + "x" * 107, "a unix socket's path of 108 bytes, but 107 is the limit"),
    ("/" + "é" * 54, "a unix socket's path of 109 bytes, but 107 is the limit"),
    ("x" * 108, "a unix socket's path of 108 bytes, but 107 is the limit"),
]

FOR_NODES = [
    ("", "the address is empty"),
    ("10.0.0.5:0", "port 0 is out of range (1 to 65535)"),
    (":0", "port 0 is out of range (1 to 65535)"),
    ("[::1]:0", "port 0 is out of range (1 to 65535)"),
    ("app:0", "port 0 is out of range (1 to 65535)"),
    ("192.*:80", "'192.*' is neither an IP address nor a host name"),
    ("fd://3", "port '//3' is not a number"),
]

LEGAL = "HOST:PORT, [IPV6]:PORT, :PORT, 192.*:PORT, a path, @NAME or fd://N"
NO_DESCRIPTOR = "fd:// wants the number of a descriptor, or the name under which systemd passed it"
NO_PREFIX = "one * stands at the end of a prefix, as in 192.*:0 (all addresses: :PORT)"
NO_IPV4 = "before the * stands the beginning of an IPv4 address, as in 192.*:0"
NO_SHARED = "=N wants the number of a shared socket, counted from 0"

TO_BIND = [
    ("", f"an address is missing (legal: {LEGAL})"),
    ("3031", "a bare number is no address (a port is :3031)"),
    ("127.0.0.1", "the port is missing (legal: 127.0.0.1:PORT)"),
    ("192.*", "the port is missing (legal: 192.*:PORT)"),
    ("*:0", NO_PREFIX),
    ("1*2.*:0", NO_PREFIX),
    ("1*2:0", NO_PREFIX),
    ("**:0", NO_PREFIX),
    ("a*:0", NO_IPV4),
    ("\0*:0", NO_IPV4),
    ("tcp://1*:0", NO_IPV4),
    ("192.*:65536", "port 65536 is out of range (0 to 65535)"),
    ("192.*:", "port '' is not a number"),
    ("fd://", NO_DESCRIPTOR),
    ("fd://-1", NO_DESCRIPTOR),
    ("fd://a:b", NO_DESCRIPTOR),
    ("fd://a b", NO_DESCRIPTOR),
    ("fd://é", NO_DESCRIPTOR),
    ("fd://" + "x" * 256, NO_DESCRIPTOR),
    ("=", NO_SHARED),
    ("=x", NO_SHARED),
    ("=-1", NO_SHARED),
    ("=00000", NO_SHARED),
    ("=1:80", NO_SHARED),
]


# --- what is understood -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        *COMMON,
        (":3031", Inet(V4, ("127.0.0.1", 3031))),
        ("3031", Unix(b"3031")),
        ("=0", Unix(b"=0")),
        ("127.0.0.1", Unix(b"127.0.0.1")),
    ],
)
def test_where_a_worker_listens(text: str, meaning: object) -> None:
    assert parse_node(text) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        *COMMON,
        (":3031", Inet(V4, ("0.0.0.0", 3031))),
        (":0", Inet(V4, ("0.0.0.0", 0))),
        ("[::1]:0", Inet(V6, ("::1", 0))),
        ("localhost:0", HostName("localhost", 0)),
        ("192.*:0", Prefix("192.", 0)),
        ("192*:80", Prefix("192", 80)),
        ("fd://3", Inherited(3)),
        ("fd://0", Inherited(0)),
        ("fd://web", Inherited("web")),
        ("fd://web.socket", Inherited("web.socket")),
        ("fd://12345678", Inherited("12345678")),  # no process has so many descriptors, and systemd may name one so
        ("=0", Shared(0)),
        ("=01", Shared(1)),
    ],
)
def test_what_may_be_bound(text: str, meaning: object) -> None:
    assert parse_local(text) == meaning


# --- what is not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "reason"), MALFORMED + FOR_NODES)
def test_what_is_wrong_with_a_workers_address_is_said(text: str, reason: str) -> None:
    assert refusal(parse_node, text) == reason


@pytest.mark.parametrize(("text", "reason"), MALFORMED + TO_BIND)
def test_what_is_wrong_with_an_address_to_bind_is_said(text: str, reason: str) -> None:
    assert refusal(parse_local, text) == reason


def refusal(parse: Any, text: str) -> str:
    """The reason; the whole message names the address before it."""
    with pytest.raises(AddressError) as caught:
        parse(text)
    assert str(caught.value) == f"{text!r}: {caught.value.reason}" or len(text) > 100
    return caught.value.reason


def test_a_message_says_what_was_being_done_with_which_address_and_why_not() -> None:
    error = AddressError("a\nb:1", "it is so", "cannot bind ")
    assert str(error) == r"cannot bind 'a\nb:1': it is so"
    assert error.reason == "it is so"


@pytest.mark.parametrize("parse", [parse_node, parse_local])
@pytest.mark.parametrize(
    "text", ["10.0.0.5\n" * 400 + ":1", "x" * 4000, "[" + "1" * 4000 + "]:1", ":" + "1" * 4000, "@" + "x\n" * 2000]
)
def test_a_message_on_a_huge_address_stays_short_and_on_one_line(parse: Any, text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(text)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


# --- anything ---------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [":", ":0", ":80", "[", "]", "::", "::1", "%", "%lo", "@", "/", "\0", "fd://", "=", "*", ".", "10.0.0.5", "é", "a"]
)
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)),  # what was no UTF-8 on the wire
    st.lists(PIECES).map("".join),
    st.from_regex(r"[0-9.]{0,15}:[0-9]{0,7}", fullmatch=True),
    st.from_regex(r"\[[0-9a-f:.%]{0,40}\]:[0-9]{0,7}", fullmatch=True),
)


@settings(deadline=None)
@given(TEXTS)
@example("\ud800")
@example("@\ud800")
@example("[\ud800]:1")
@example("[::%\ud800]:1")
def test_no_text_raises_anything_but_an_address_error(text: str) -> None:
    for parse in (parse_node, parse_local):
        shown = ""
        try:
            parse(text)
        except AddressError as error:
            shown = str(error)
        assert shown.isprintable(), "one line, fit for a log"


@settings(deadline=None)
@given(TEXTS)
def test_what_is_understood_of_a_node_the_kernel_takes(text: str) -> None:
    """No text gets through that Python's connect() would find to be no address at all."""
    try:
        target = parse_node(text)
    except AddressError:
        return
    if isinstance(target, HostName):
        return
    with socket.socket(target.family, socket.SOCK_DGRAM) as sock:
        sock.connect_ex(target.sockaddr)  # gives the kernel's errors, and raises Python's own


# --- and back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sockaddr", "name"),
    [
        (("127.0.0.1", 3031), "127.0.0.1:3031"),
        (("::1", 3031), "[::1]:3031"),
        (("::1", 3031, 0, 0), "[::1]:3031"),
        (("fe80::1", 3031, 0, 7), "[fe80::1%7]:3031"),
        ("/run/app.sock", "/run/app.sock"),
        ("/run/\udcff.sock", "/run/\udcff.sock"),
        (b"\0app\0", "@app"),
        (b"\0app", "@app"),
        (b"\0\xff\0", "@\udcff"),
        ("", ""),
        (b"", ""),
        (None, "None"),
    ],
)
def test_a_socket_is_named_as_it_would_be_written(sockaddr: object, name: str) -> None:
    assert name_of(sockaddr) == name


@settings(deadline=None)
@given(
    st.ip_addresses()
    .filter(lambda ip: ip.packed[0] < (224 if ip.version == 4 else 0xFF))
    .flatmap(lambda ip: st.tuples(st.just(str(ip)), st.integers(1, 65535)))
    | st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20).map(
        lambda name: f"/{name}".encode()
    )
    | st.binary(min_size=1, max_size=106).filter(lambda name: b"\0" not in name).map(b"\0%b\0".__mod__)
)
def test_a_name_is_understood_as_the_socket_that_it_was_made_of(sockaddr: Any) -> None:
    target = parse_node(name_of(sockaddr))
    assert isinstance(target, Inet | Unix)
    assert target.sockaddr == sockaddr
    assert parse_local(name_of(sockaddr)) == target


@pytest.mark.parametrize(("text", "meaning"), [one for one in COMMON if isinstance(one[1], Inet | Unix)])
def test_the_name_of_what_was_understood_means_the_same(text: str, meaning: Inet | Unix) -> None:
    assert parse_node(name_of(meaning.sockaddr)) == meaning


def meaning_of(text: str) -> object:
    try:
        return parse_node(text)
    except AddressError as error:
        return str(error)


NUMBERS = st.integers(0, 300).map(str) | st.sampled_from(["223", "224", "239", "255", "256", "00", "01", ""])
PORTS = st.integers(0, 70_000).map(str) | st.sampled_from(["59999", "60000", "65535", "65536", "03031", "", "1x"])


@given(st.lists(NUMBERS, min_size=3, max_size=5).map(".".join), PORTS)
def test_the_usual_form_means_what_the_whole_grammar_says(host: str, port: str) -> None:
    text = f"{host}:{port}"
    at_one_glance = meaning_of(text)
    with patch.object(address, "USUAL", re.compile("(?!)")):
        assert meaning_of(text) == at_one_glance


@pytest.mark.parametrize("text", ["10.0.0.5:3031\n", "\u0661\u0660.0.0.5:3031", "10.0.0.5:\u0661"])
def test_digits_are_those_of_ascii_and_nothing_follows(text: str) -> None:
    with pytest.raises(AddressError):
        parse_node(text)
