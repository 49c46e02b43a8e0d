"""uWSGI's ini dialect: what is read and how, and in which words everything else is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import ini
from router.configuration import load
from router.setting import OptionsError, shown


def pairs(text: str, *sections: str) -> list[tuple[str, str]]:
    settings = ini.parse(text.encode(errors="surrogateescape"), "router.ini", sections or ini.SECTIONS, {"(": "%("})
    assert not any(setting.trouble for setting in settings)
    return [(setting.name, setting.value) for setting in settings]


def refusal(data: bytes | str) -> str:
    """The one thing that is wrong."""
    settings = ini.parse(data.encode() if isinstance(data, str) else data, "router.ini", ini.SECTIONS, {})
    (wrong,) = [setting for setting in settings if setting.trouble]
    return f"{wrong.shown}: {wrong.trouble}"


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


def test_a_comment_is_nobodys_text_so_it_may_be_of_any_encoding() -> None:
    assert pairs("# caf\udce9\n[uwsgi]\n \t; \udcff\na = 1\n") == [("a", "1")]


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
    settings = ini.parse(text.encode(), "router.ini", ini.SECTIONS, {})
    assert [(s.name, s.plain) for s in settings] == [("b", False), ("c", True), ("e", False)]


def test_a_section_that_was_asked_for_is_read_alone() -> None:
    assert pairs("[uwsgi]\na = 1\n[edge]\nb = 2\n", "edge") == [("b", "2")]


def test_the_section_follows_the_last_colon_of_the_files_name(tmp_path: Path) -> None:
    assert ini.place("router:1.ini:edge") == ("router:1.ini", "edge")
    assert ini.place("router.ini:") == ("router.ini", "")
    assert ini.place("router.ini") == ("router.ini", "")
    assert ini.place(":edge") == ("", "edge")


def test_all_that_is_wrong_in_a_file_is_told_and_the_rest_is_read() -> None:
    settings = ini.parse(b"a = 1\n[uwsgi]\nb c\nd = 1\n\xff\n= 2\n[x\ne = 1\n", "router.ini", ini.SECTIONS, {})
    assert [(setting.place[-1], setting.name, bool(setting.trouble)) for setting in settings] == [
        ("1", "", True), ("3", "", True), ("4", "d", False), ("5", "", True), ("6", "", True), ("7", "", True),
    ]  # fmt: skip


def test_a_line_that_a_percent_sign_joins_to_the_next_counts_as_two() -> None:
    settings = ini.parse(b"[uwsgi]\na = 1%\n2\nb = 3\n", "router.ini", ini.SECTIONS, {"%": "%"})
    assert [(setting.place, setting.name, setting.value) for setting in settings] == [
        ("router.ini:2", "a", "12"), ("router.ini:4", "b", "3"),
    ]  # fmt: skip


def test_every_setting_knows_its_place() -> None:
    settings = ini.parse(b"[uwsgi]\n\nfastrouter-cheap = true\nvacuum\n", "conf/router.ini", ("uwsgi",), {})
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
        (b"[uwsgi]\n\nx = caf\xe9\n", "router.ini:3: byte 0xe9 at column 8 is not UTF-8"),
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
        load(["--ini", spec], {})
    return str(caught.value).removeprefix(shown(f"--ini {spec}".rstrip()) + ": ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert file_refusal("/no/such.ini") == "cannot read /no/such.ini: No such file or directory"
    assert file_refusal(str(tmp_path)) == f"cannot read {tmp_path}: Is a directory"
    assert file_refusal("a\0b.ini") == r"cannot read a\x00b.ini: embedded null byte"
    assert file_refusal("") == "names no file"
    assert file_refusal(":uwsgi") == "names no file"


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
    assert file_refusal("/dev/zero") == "cannot read /dev/zero: over 1048576 bytes, which is no configuration"


def test_a_section_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "router.ini"
    path.write_text("[uwsgi]\na = 1\n")
    assert file_refusal(f"{path}:edge") == f"{path}: has no section [edge] (but [uwsgi])"


# --- anything ---------------------------------------------------------------------------------------------

LINES = st.sampled_from(b"[uwsgi]|[gfrouter]|[|]|=|a = %(b)|b|#|\r|\xff|\0|%(|a b = c".split(b"|"))


@given(st.binary() | st.lists(LINES | st.binary(max_size=9)).map(b"\n".join))
def test_no_bytes_raise_anything(data: bytes) -> None:
    for setting in ini.parse(data, "router.ini", ini.SECTIONS, {"%": "%"}):
        message = f"{setting.shown}: {setting.trouble}"
        assert message.startswith("router.ini:")
        assert message.isprintable()


@pytest.mark.parametrize("line", ["fastrouter 127.0.0.1:3031", "fastrouter-subscription-server 0.0.0.0:2626"])
def test_a_line_without_its_equals_sign_is_named_and_no_default_takes_its_place(tmp_path: Path, line: str) -> None:
    ini = tmp_path / "router.ini"
    ini.write_text(f"[uwsgi]\nmaster = true\n{line}\n")
    with pytest.raises(OptionsError) as caught:
        load([str(ini)], {})
    assert str(caught.value) == f"{ini}:3: {line}: no = between name and value"


@pytest.mark.parametrize("url", ["etcd:/me:secret@h", "etcd:/me:secret$(x)@h"])
def test_a_setting_that_is_wrong_is_shown_without_its_password(url: str) -> None:
    for words, environ in (["--discovery", url], {}), ([], {"GFROUTER_DISCOVERY": url}):
        with pytest.raises(OptionsError) as caught:
            load(words, environ)
        assert "me:***@h" in str(caught.value) and "secret" not in str(caught.value)
