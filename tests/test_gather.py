"""How settings are gathered: bounds, troubles and what differs from machine to machine. What it has in common with the
real uWSGI is in test_like_dialect.py.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import expansion, gather, magic
from router.gather import Gathered, Gathering
from router.setting import Setting
from router.surroundings import Surroundings, here


@pytest.fixture
def there(tmp_path: Path) -> Surroundings:
    return replace(here({"SET": "here"}), folder=str(tmp_path), host="edge-7.lan", cpus=12)


def gathered(there: Surroundings, text: str, **files: str) -> list[Gathered]:
    """What router.ini comes to, apart from its own `ini`."""
    for name, more in {"router": f"[uwsgi]\n{text}", **files}.items():
        Path(there.folder, f"{name}.ini").write_text(more)
    start = Setting("ini", "router.ini", "", "", True, "command line")
    first, *rest = Gathering(there, {"known"}).of([start])
    assert not first.trouble
    return rest


def pairs(there: Surroundings, text: str, **files: str) -> list[tuple[str, str]]:
    rest = gathered(there, text, **files)
    assert not [each.trouble for each in rest if each.trouble]
    return [(each.setting.name, each.value) for each in rest if not (each.left_out or each.note)]


def trouble(there: Surroundings, text: str, **files: str) -> str:
    (wrong,) = [each for each in gathered(there, text, **files) if each.trouble]
    return f"{wrong.setting.shown}: {wrong.trouble}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("for = a\nif-env = SET\n", "3: if-env = SET: stands in for = a; uWSGI's blocks do not nest"),
        ("else\n", "2: else: stands without its if"),
        ("for = a\nelse\n", "3: else: stands in for = a, which has no other lines"),
        ("if-env = A\nelse\nelse\n", "4: else: stands in if-env = A, which has no other lines"),
        ("if-hostname-match = *\na = 1\n", "3: a = 1: no regular expression: nothing to repeat at position 0"),
        ("for-times = 99999\na = 1\n", "3: a = 1: over 10000 rounds in for-times = 99999"),
        ("for-readline = no.txt\na = 1\n", "3: a = 1: cannot read no.txt: No such file or directory"),
        ("set = a\n", "2: set = a: no = between name and value (legal: NAME=VALUE)"),
        ("set-ph = known=1\n", "2: set-ph = known=1: known is an option, so it cannot be a placeholder"),
        ("ini = exec://cat x\n", "2: ini = exec://cat x: gfrouter reads files only, not exec://"),
        ("a = @(http://x/y)\n", "2: a = @(http://x/y): gfrouter reads files only, not http://"),
        ("a = @(-)\n", "2: a = @(-): gfrouter reads files only, not standard input"),
        ("a = @(no.txt)\n", "2: a = @(no.txt): cannot read no.txt: No such file or directory"),
        ("include = a.yaml\n", f"2: include = a.yaml: {gather.AS_AN_INI}"),
        ("ini = a.xml:edge\n", f"2: ini = a.xml:edge: {gather.AS_AN_INI}"),
        ("include = b.ini:edge\n", "2: include = b.ini:edge: does not end in .ini, as uWSGI wants it after include"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_the_trouble_of_its_line(there: Surroundings, text: str, message: str) -> None:
    assert trouble(there, text) == f"router.ini:{message}"


@pytest.mark.parametrize("word", ["ini", "include", "inherit"])
def test_a_file_that_reads_itself_is_named_with_the_way(there: Surroundings, word: str) -> None:
    files = {"b": "[uwsgi]\nini = c.ini\n", "c": f"[uwsgi]\n{word} = ./b.ini\n"}
    folder = there.folder
    assert trouble(there, f"{word} = b.ini\n", **files) == (
        f"c.ini:2: {word} = ./b.ini: reads itself, over {folder}/router.ini and {folder}/b.ini and {folder}/c.ini"
    )


def test_an_else_belongs_to_a_block_of_its_own_file(there: Surroundings) -> None:
    text = "if-env = SET\nini = e.ini\na = 1\nendif\n"
    assert trouble(there, text, e="[uwsgi]\nelse\n") == "e.ini:2: else: stands without its if"


def test_another_section_of_the_same_file_is_no_loop(there: Surroundings) -> None:
    assert pairs(there, "ini = :more\n[more]\na = 1\n") == [("a", "1")]


def test_files_that_multiply_have_an_end(there: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAX_SETTINGS", 100)
    files = {f"f{n}": f"[uwsgi]\nini = f{n + 1}.ini\nini = f{n + 1}.ini\n" for n in range(20)} | {
        "f20": "[uwsgi]\na = 1\n"
    }
    rest = gathered(there, "ini = f0.ini\n", **files)
    assert len(rest) < 100
    assert rest[-1].trouble == "over 100 settings (does a file read itself?)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if-hostname = edge-7.lan\na = %(_)\nelse\na = 2\nendif\n", [("a", "edge-7.lan")]),
        ("if-hostname-match = ^edge-[0-9]\na = 1\nendif\n", [("a", "1")]),
        ("if-not-hostname-match = ge-\na = 1\nelse\nb = 1\nendif\n", [("b", "1")]),
        ("if-env = NO\nelse\na = 1\nendif\nb = 1\n", [("a", "1"), ("b", "1")]),
        ("if-env = SET\nelse\na = 1\nendif\n", []),
        ("if-not-opt = a\na = 1\nelse\nb = 1\nendif\n", [("a", "1")]),
        ("if-reload\na = 1\nelse\nb = 1\nendif\n", [("b", "1")]),
        ("for-times = -1\na = 1\nendfor\n", []),
        ("a = %k %h\n", [("a", "12 edge-7.lan")]),
    ],
)  # fmt: skip
def test_what_depends_on_where_it_is_read(there: Surroundings, text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(there, text) == expected


def test_a_reload_is_told_from_a_start(there: Surroundings) -> None:
    assert pairs(replace(there, reloading=True), "if-reload\na = 1\nendif\n") == [("a", "1")]


def test_a_block_that_nothing_ends_is_worth_a_warning(there: Surroundings) -> None:
    Path(there.folder, "open.ini").write_text("[uwsgi]\nif-env = NO\na = 1\n")
    gathering = Gathering(there, ())
    left_out = gathering.of(
        [Setting(*each, "", "", True, "command line") for each in (("ini", "open.ini"), ("b", "2"))]
    )
    assert [each.left_out for each in left_out] == ["", "", "if-env = NO", "if-env = NO"]
    assert gathering.warnings == ["open.ini:2: if-env = NO: nothing ends it"]


def test_a_user_and_a_group_without_a_name_are_numbers(there: Surroundings) -> None:
    letters = magic.everywhere(replace(there, uid=64_999, gid=64_998))
    assert [letters[each] for each in "uUgG"] == ["64999", "64999", "64998", "64998"]


@given(st.text("%$()ab +-", max_size=30), st.dictionaries(st.sampled_from("ab"), st.text("%()ab ", max_size=8)))
def test_every_text_is_expanded_or_refused(text: str, names: dict[str, str]) -> None:
    expanded = ""
    with contextlib.suppress(ValueError):  # it has no end
        expanded = expansion.expand(text, "%", lambda name: expansion.placeholder(name, names.get))
    assert len(expanded) <= expansion.MAX_VALUE_CHARS
    assert "%" in text or expanded == text


@pytest.mark.parametrize(
    ("find", "message"),
    [("x%(a)", "over 100 placeholders in one value"), ("x" * 999 + "%(a)%(a)", "grows past 65536 characters")],
)
def test_what_has_no_end_is_refused(find: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expansion.expand("-%(a)", "%", {"a": find}.get)
