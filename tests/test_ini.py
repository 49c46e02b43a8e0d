"""uWSGI's ini dialect: what is read and how, and in which words everything else is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import ini
from router.configuration import load
from router.ini import OptionsError


def pairs(text: str, *sections: str) -> list[tuple[str, str]]:
    settings = ini.parse(text.encode(), "router.ini", sections or ("uwsgi", "gfrouter"))
    return [(setting.name, setting.value) for setting in settings]


def refusal(data: bytes | str) -> str:
    with pytest.raises(OptionsError) as caught:
        ini.parse(data.encode() if isinstance(data, str) else data, "router.ini", ("uwsgi", "gfrouter"))
    return str(caught.value)


# --- lines ------------------------------------------------------------------------------------------------


def test_blanks_around_names_and_values_do_not_count() -> None:
    assert pairs("[uwsgi]\n\t a\t=  b c \t\r\nd=e\n  f  =g") == [("a", "b c"), ("d", "e"), ("f", "g")]


def test_a_bare_name_and_an_empty_value_are_the_same() -> None:
    assert pairs("[uwsgi]\nvacuum\ncheap =\n") == [("vacuum", ""), ("cheap", "")]


def test_only_the_first_equals_sign_divides() -> None:
    assert pairs("[uwsgi]\nfastrouter = =0\nsubscribe2 = server=1,key=foo.com\n") == [
        ("fastrouter", "=0"),
        ("subscribe2", "server=1,key=foo.com"),
    ]


def test_comments_are_whole_lines_and_quotes_are_text() -> None:
    assert pairs('[uwsgi]\n; one\n  # two\na = b ; c # d\ne = "f"\n# vim:ft=dosini et:\n') == [
        ("a", "b ; c # d"),
        ("e", '"f"'),
    ]


def test_repeated_names_are_kept_in_order() -> None:
    assert pairs("[uwsgi]\na = 1\nb = 2\na = 3\n") == [("a", "1"), ("b", "2"), ("a", "3")]


def test_a_file_may_end_without_a_newline_and_begin_with_a_bom() -> None:
    assert pairs("\ufeff[uwsgi]\na = 1") == [("a", "1")]


def test_log_formats_are_plain_values() -> None:
    text = '%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) "%(referer)"'
    assert pairs(f"[uwsgi]\nlogformat = {text}\n") == [("logformat", text)]


# --- sections ---------------------------------------------------------------------------------------------


def test_both_sections_are_read_and_others_are_not() -> None:
    text = "[other]\na = 1\n[uwsgi]\nb = 2\n[gfrouter]\nc = 3\n[more]\nd\n[uwsgi]\ne = 4\n"
    settings = ini.parse(text.encode(), "router.ini", ("uwsgi", "gfrouter"))
    assert [(s.name, s.plain) for s in settings] == [("b", False), ("c", True), ("e", False)]


def test_a_section_that_was_asked_for_is_read_alone() -> None:
    assert pairs("[uwsgi]\na = 1\n[edge]\nb = 2\n", "edge") == [("b", "2")]


def test_the_section_follows_the_last_colon_of_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "router:1.ini"
    path.write_text("[uwsgi]\na = 1\n[edge]\nb = 2\n")
    assert [s.name for s in ini.read(f"{path}:edge")] == ["b"]
    assert [s.name for s in ini.read(f"{path}:")] == ["a"]


def test_every_setting_knows_its_place() -> None:
    settings = ini.parse(b"[uwsgi]\n\nfastrouter-cheap = true\nvacuum\n", "conf/router.ini", ("uwsgi",))
    assert [s.shown for s in settings] == [
        "conf/router.ini:3: fastrouter-cheap = true",
        "conf/router.ini:4: vacuum",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a = 1\n[uwsgi]\n", "router.ini:1: a = 1: stands before any [section]"),
        ("[uwsgi\na = 1\n", "router.ini:1: [uwsgi: a section line without its closing ]"),
        ("\n[uwsgi] # x\n", "router.ini:2: [uwsgi] # x: text after the section's closing ]"),
        ("[uwsgi]\n = 1\n", "router.ini:2: = 1: no name before the ="),
        ("", "router.ini: has no section [uwsgi] or [gfrouter] (but no section at all)"),
        ("# nothing\n", "router.ini: has no section [uwsgi] or [gfrouter] (but no section at all)"),
        (
            "[ uwsgi ]\na = 1\n[b]\n",
            "router.ini: has no section [uwsgi] or [gfrouter] (but [ uwsgi ], [b])",
        ),
        (b"[uwsgi]\na = 1\0\n", "router.ini:2: a NUL byte at column 6"),
        (b"[uwsgi]\n\n# caf\xe9\n", "router.ini:3: byte 0xe9 at column 6 is not UTF-8"),
        (b"\xff\xfe[\0", "router.ini:1: a NUL byte at column 4"),
        (
            b"[uwsgi]\na = " + b"x" * 65533,
            "router.ini:2: a line of 65537 bytes, but 65536 is the limit",
        ),
    ],
)
def test_nonsense_is_refused_with_its_line(data: bytes | str, message: str) -> None:
    assert refusal(data) == message


def test_a_message_is_one_short_line_whatever_stands_in_the_file() -> None:
    message = refusal("\x1b[31m\x0b" + "x" * 5000)
    assert message.startswith(r"router.ini:1: \x1b[31m\x0bxxx")
    assert message.isprintable()
    assert len(message) < 150


# --- files ------------------------------------------------------------------------------------------------


def file_refusal(spec: str) -> str:
    with pytest.raises(OptionsError) as caught:
        ini.read(spec)
    return str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert file_refusal("/no/such.ini") == "cannot read /no/such.ini: No such file or directory"
    assert file_refusal(str(tmp_path)) == f"cannot read {tmp_path}: Is a directory"
    assert file_refusal("a\0b.ini") == r"cannot read a\x00b.ini: embedded null byte"
    assert file_refusal("") == "--ini : names no file"
    assert file_refusal(":uwsgi") == "--ini :uwsgi: names no file"


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.ini"
    path.write_text("[uwsgi]\n")
    path.chmod(0)
    was = os.geteuid()
    if was == 0:  # root may read everything, so be nobody for a moment
        os.seteuid(65534)
    try:
        assert file_refusal(str(path)) == f"cannot read {path}: Permission denied"
    finally:
        os.seteuid(was)


def test_a_device_or_a_log_is_no_configuration() -> None:
    assert file_refusal("/dev/zero") == "cannot read /dev/zero: over 1048576 bytes, which is no ini file"


def test_a_section_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "router.ini"
    path.write_text("[uwsgi]\na = 1\n")
    assert file_refusal(f"{path}:edge") == f"{path}: has no section [edge] (but [uwsgi])"


# --- placeholders -----------------------------------------------------------------------------------------


def test_placeholders_are_replaced_those_in_their_values_too() -> None:
    names = {"host": "127.0.0.1", "port": "%(base)1", "base": "303"}
    assert ini.expand("%(host):%(port)", names) == "127.0.0.1:3031"


def test_unknown_placeholders_stay_as_they_are() -> None:
    assert ini.expand("%(no)-%(yes)-%(no", {"yes": "1"}) == "%(no)-1-%(no"


@pytest.mark.parametrize("names", [{"a": "%(a)"}, {"a": "%(b)", "b": "%(a)"}])
def test_a_placeholder_that_refers_to_itself_is_refused(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^over 100 placeholders in one value \(does one refer"):
        ini.expand("%(a)", names)


def test_placeholders_that_multiply_are_refused_early() -> None:
    names = {f"a{n}": f"%(a{n + 1})" * 10 for n in range(10)} | {"a10": "", "long": "x" * 30_000}
    with pytest.raises(ValueError, match=r"^grows past 65536 characters when its placeholders are replaced$"):
        ini.expand("%(long)%(long)%(long)", names)
    with pytest.raises(ValueError, match=r"^over 100 placeholders"):
        ini.expand("%(a0)", names)


def test_the_names_a_value_refers_to_are_found_in_sums_too() -> None:
    assert ini.references("%(a):%(b + 1)/%(c") == {"a", "b + 1", "b", "+", "1"}


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("%(port + 1)", "the sum or join %(port + 1)"),
        ("$(HOST):3031", "the environment variable $(...)"),
        ("@(/etc/address)", "the file @(...)"),
        ("/run/%n.sock", "the magic letter %n"),
        ("/run/100%%%d", "the magic letter %d"),
        ("/run/100%", "the magic letter %"),
        ("/run/100%%", None),
        ("%(unknown):3031", None),
        ("/run/$HOST@x", None),
    ],
)
def test_constructs_that_are_not_read_yet_are_found(text: str, construct: str | None) -> None:
    assert ini.unsupported(text, in_file=True) == construct


def test_a_percent_sign_stands_twice_in_a_file() -> None:
    assert ini.unescaped("etcd:///a%%2Fb") == "etcd:///a%2Fb"


def test_magic_letters_are_for_files() -> None:
    assert ini.unsupported("/run/%n.sock", in_file=False) is None


# --- anything ---------------------------------------------------------------------------------------------

LINES = st.sampled_from(b"[uwsgi]|[gfrouter]|[|]|=|a = %(b)|b|#|\r|\xff|\0|%(|a b = c".split(b"|"))


@given(st.binary() | st.lists(LINES | st.binary(max_size=9)).map(b"\n".join))
def test_no_bytes_raise_anything_but_an_options_error(data: bytes) -> None:
    try:
        settings = ini.parse(data, "router.ini", ("uwsgi", "gfrouter"))
    except OptionsError as error:
        messages = [str(error)]
    else:
        messages = [setting.shown for setting in settings]
    for message in messages:
        assert message.startswith("router.ini:")
        assert message.isprintable()


@pytest.mark.parametrize("line", ["fastrouter 127.0.0.1:3031", "fastrouter-subscription-server 0.0.0.0:2626"])
def test_a_line_without_its_equals_sign_is_named_and_no_default_takes_its_place(tmp_path: Path, line: str) -> None:
    ini = tmp_path / "router.ini"
    ini.write_text(f"[uwsgi]\nmaster = true\n{line}\n")
    with pytest.raises(OptionsError) as caught:
        load([str(ini)], {})
    assert str(caught.value) == f"{ini}:3: {line}: no = between name and value"


@pytest.mark.parametrize("url", ["etcd:/me:secret@h", "etcd://me:secret$(x)@h"])
def test_a_setting_that_is_wrong_is_shown_without_its_password(url: str) -> None:
    for words, environ in (["--discovery", url], {}), ([], {"GFROUTER_DISCOVERY": url}):
        with pytest.raises(OptionsError) as caught:
            load(words, environ)
        assert "me:***@h" in str(caught.value) and "secret" not in str(caught.value)
