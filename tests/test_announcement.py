"""What a datagram says: each field, each malformed form with its exact text, every length, and garbage."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from announced import NODE, packet
from discovery.announcement import (
    LARGEST_DATAGRAM,
    Announcement,
    AnnouncementError,
    build_announcement,
    parse_announcement,
)
from router.uwsgi import build


def test_every_field_is_kept() -> None:
    said = parse_announcement(
        packet(
            modifier1=30,
            key="foo.com",
            address=NODE,
            modifier2=7,
            cores=8,
            load=3,
            weight=5,
            backup=2,
            proto="h",
            algo="lrc",
            unix=1_700_000_001,
            sni_key="/tls/key.pem",
            sni_crt="/tls/crt.pem",
            sni_ca="/tls/ca.pem",
            notify="/run/notify",
            vassal="app.ini",
            clear=1,
            sign=b"\x00\xffsigned",
        )
    )
    assert said == Announcement(
        subscribe=True,
        key="foo.com",
        address=NODE,
        modifier1=30,
        modifier2=7,
        cores=8,
        load=3,
        weight=5,
        backup=2,
        proto="h",
        algo="lrc",
        unix=1_700_000_001,
        sign=b"\x00\xffsigned",
        notify="/run/notify",
        sni_key="/tls/key.pem",
        sni_crt="/tls/crt.pem",
        sni_ca="/tls/ca.pem",
        vassal="app.ini",
        clear=True,
    )


def test_what_is_not_said_is_empty() -> None:
    assert parse_announcement(build([(b"key", b"k")], 224)) == Announcement(subscribe=True, key="k")


@pytest.mark.parametrize(("command", "subscribe"), [(0, True), (1, False), (2, False), (255, False)])
def test_any_command_but_0_unsubscribes(command: int, subscribe: bool) -> None:
    assert parse_announcement(packet(command)).subscribe is subscribe


@pytest.mark.parametrize("modifier1", [224, 0])
def test_the_length_of_the_datagram_counts_not_its_datasize(modifier1: int) -> None:
    datagram = packet(header=modifier1)
    for datasize in (b"\x00\x00", b"\x01\x00", b"\xff\xff"):
        lying = datagram[:1] + datasize + datagram[3:]
        assert parse_announcement(lying) == parse_announcement(datagram)


def test_the_last_of_two_equal_fields_counts() -> None:
    fields = [(b"key", b"a"), (b"weight", b"x"), (b"key", b"b"), (b"weight", b"2")]
    assert parse_announcement(build(fields, 224)) == Announcement(subscribe=True, key="b", weight=2)


def test_unknown_fields_are_ignored() -> None:
    assert parse_announcement(packet(inactive=30, colour="blue")) == parse_announcement(packet())


def test_keys_that_are_no_utf8_survive() -> None:
    key = parse_announcement(packet(key=b"caf\xe9")).key
    assert key == "caf\udce9"
    assert key.encode("utf-8", "surrogateescape") == b"caf\xe9"


HOSTILE = {
    b"": ("malformed packet", "a datagram of length 0, expected 4 or more"),
    b"\xe0": ("malformed packet", "a datagram of length 1, expected 4 or more"),
    b"\xe0\x00": ("malformed packet", "a datagram of length 2, expected 4 or more"),
    b"\xe0\x00\x00": ("malformed packet", "a datagram of length 3, expected 4 or more"),
    b"\xe0\x00\x00\x00": ("bad key", "no key"),
    packet()[:-1]: ("malformed packet", "var at offset 18: value length 13 runs 1 byte past the end"),
    packet()[:-13]: ("malformed packet", "var at offset 18: value length 13 runs 13 bytes past the end"),
    packet()[:-14]: ("malformed packet", "var at offset 18: 1 byte for the value length, expected 2"),
    packet()[:-20]: ("malformed packet", "var at offset 18: key length 7 runs 5 bytes past the end"),
    packet() + b"\x00": ("malformed packet", "1 stray byte after the last var"),
    packet() + b"\x01\x00": ("malformed packet", "2 stray bytes after the last var"),
    packet() + b"\x00\x00\x00\x00": ("malformed packet", "key of length 0 at offset 42"),
    packet() + b"\xff\x00x": ("malformed packet", "var at offset 42: key length 255 runs 254 bytes past the end"),
    b"\x01" + packet()[1:]: ("bad modifier1", "modifier1 1, expected 224 or 0"),
    b"GET / HTTP/1.0\r\n\r\n": ("bad modifier1", "modifier1 71, expected 224 or 0"),
    packet(pad=b"x" * 4090): ("oversized datagram", "more than 4096 bytes"),
    packet(pad=b"x" * 60_000): ("oversized datagram", "more than 4096 bytes"),
    packet(key=b""): ("bad key", "no key"),
    packet(key=""): ("bad key", "no key"),
    packet(key="k" * 256): ("bad key", "key of 256 bytes, at most 255"),
    packet(key="k" * 600): ("bad key", "key of 600 bytes, at most 255"),
    packet(address="/" * 256): ("bad node address", "address of 256 bytes, at most 255"),
    packet(vassal="v" * 256): ("bad vassal", "vassal of 256 bytes, at most 255"),
    packet(weight="many"): ("bad number", "weight b'many' is not a number"),
    packet(weight=""): ("bad number", "weight b'' is not a number"),
    packet(weight="-1"): ("bad number", "weight b'-1' is not a number"),
    packet(weight="+1"): ("bad number", "weight b'+1' is not a number"),
    packet(weight=" 1"): ("bad number", "weight b' 1' is not a number"),
    packet(weight="1_0"): ("bad number", "weight b'1_0' is not a number"),
    packet(weight="٣"): ("bad number", "weight b'\\xd9\\xa3' is not a number"),
    packet(weight=2**31): ("bad number", "weight 2147483648 is over 2147483647"),
    packet(weight="9" * 3000): ("bad number", "weight 999999999999999999999 is over 2147483647"),
    packet(backup=2**31): ("bad number", "backup 2147483648 is over 2147483647"),
    packet(modifier2=256): ("bad number", "modifier2 256 is over 255"),
    packet(cores=2**64): ("bad number", "cores 18446744073709551616 is over 18446744073709551615"),
    packet(load="1.5"): ("bad number", "load b'1.5' is not a number"),
    packet(unix="now"): ("bad number", "unix b'now' is not a number"),
    packet(clear="yes"): ("bad number", "clear b'yes' is not a number"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("datagram", "reason", "text"),
    [(datagram, *why) for datagram, why in HOSTILE.items()],
    ids=[text for _, text in HOSTILE.values()],
)
def test_a_hostile_datagram_says_what_is_wrong_in_numbers(datagram: bytes, reason: str, text: str) -> None:
    with pytest.raises(AnnouncementError) as error:
        parse_announcement(datagram)
    assert (error.value.reason, str(error.value)) == (reason, text)


@pytest.mark.parametrize("size", range(len(packet())))
def test_a_truncated_datagram_is_an_error_at_every_length(size: int) -> None:
    key_alone = 4 + 2 + len("key") + 2 + len("foo.com")
    if size == key_alone:
        assert parse_announcement(packet()[:size]) == Announcement(subscribe=True, key="foo.com")
    else:
        with pytest.raises(AnnouncementError):
            parse_announcement(packet()[:size])


@given(st.binary(max_size=LARGEST_DATAGRAM + 10))
def test_garbage_is_dropped(datagram: bytes) -> None:
    with pytest.raises(AnnouncementError):
        parse_announcement(datagram)


# What gfrouter announce sends.


def test_what_is_sent_is_what_uwsgi_sends() -> None:
    said = Announcement(True, "foo.com", NODE, modifier1=5, modifier2=6, weight=3)
    fields = ("key", "foo.com"), ("address", NODE), ("modifier1", "5"), ("modifier2", "6")
    rest = ("cores", "0"), ("load", "0"), ("weight", "3")
    assert build_announcement(said) == build([(a.encode(), b.encode()) for a, b in (*fields, *rest)], 224, 0)
    assert build_announcement(dataclasses.replace(said, subscribe=False))[3] == 1


@given(
    st.booleans(),
    st.binary(min_size=1, max_size=255),
    st.binary(max_size=255),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
)
def test_what_is_sent_is_understood(
    subscribe: bool, key: bytes, address: bytes, modifier1: int, modifier2: int, weight: int, backup: int
) -> None:
    key_text, address_text = (text.decode("utf-8", "surrogateescape") for text in (key, address))
    said = Announcement(
        subscribe, key_text, address_text, modifier1=modifier1, modifier2=modifier2, weight=weight, backup=backup
    )
    assert parse_announcement(build_announcement(said)) == said
