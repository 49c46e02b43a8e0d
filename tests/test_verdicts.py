"""What `gfrouter --check` prints, and what it leaves as the reason: one line, the last one of standard error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router import cli
from router.cli import main
from router.configuration import examine
from router.handover import Estate
from router.surroundings import here
from router.verdicts import page

INI = """\
[uwsgi]
plugins = fastrouter
port = 3031
fastrouter = 127.0.0.1:%(port)
fastrouter-subscription-server = 127.0.0.1:$(PORT)
fastrouter-timeout = 5
fastrouter-gracetime = 0
if-env = STATS
fastrouter-stats = /run/stats
endif =
threads = 4
fastrouter-events = 64
colour = red
shared-socket = :1
fastrouter-cheap
"""
PAGE = """\
command line   --ini router.ini                                read        reads 14 settings
router.ini:2   plugins = fastrouter                            ignored     is so in gfrouter anyway
router.ini:3   port = 3031                                     placeholder
router.ini:4   fastrouter = 127.0.0.1:%(port)                  set         listen = 127.0.0.1:3031
router.ini:5   fastrouter-subscription-server = 127.0.0.1:$(PORT)
                                                               set         subscription-server = 127.0.0.1:2626
router.ini:6   fastrouter-timeout = 5                          replaced    by --timeout 7
router.ini:7   fastrouter-gracetime = 0                        set         gracetime = 30, its default
router.ini:8   if-env = STATS                                  read        begins a block
router.ini:9   fastrouter-stats = /run/stats                   left out    if-env = STATS does not hold
router.ini:10  endif =                                         read        ends a block
router.ini:11  threads = 4                                     ignored     a router has no use for it
router.ini:12  fastrouter-events = 64                          ignored     has no effect in gfrouter
router.ini:13  colour = red                                    placeholder that nobody uses
router.ini:14  shared-socket = :1                              set         shared-socket = :1
router.ini:15  fastrouter-cheap                                set         cheap on
command line   --timeout 7                                     set         timeout = 7

note: shared-socket 0 (:1) is not used by any listening address (=0)
16 settings: 6 set, 1 replaced, 3 read, 3 ignored, 2 placeholder, 1 left out; it can be used
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GFROUTER_", "UWSGI_"))]:  # the suite's own
        monkeypatch.delenv(name)
    return tmp_path


def test_each_setting_has_its_place_and_its_verdict() -> None:
    Path("router.ini").write_text(INI)
    found = examine(["--ini", "router.ini", "--timeout", "7"], here({"PORT": "2626"}))
    assert page(found, found.problems) == PAGE


def test_all_problems_are_told_and_the_reason_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("router.ini").write_text(
        "[uwsgi]\nfastrouter-timeout = abc\nchroot = /srv\nthe wrong line\nini = no.ini\ncolour\n"
    )
    assert main(["--check", "--lisen", ":1", "router.ini"]) == 1
    out, err = capsys.readouterr()
    refused = [line.split()[0] for line in out.splitlines() if " refused " in line]
    assert refused == ["command", "router.ini:2", "router.ini:3", "router.ini:4", "router.ini:5"]
    assert out.endswith("\n8 settings: 1 set, 1 read, 1 placeholder, 5 refused; 5 to put right\n")
    assert err == "gfrouter: --lisen: unknown option, did you mean --listen? (and 4 more, which --check lists)\n"


def test_what_is_wrong_beyond_the_settings_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--discovery", "nowhere://x", "--discovery", "nobody", "--error-pages", "/no/such"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\nrefused: ") == 3
    assert out.endswith("4 settings: 4 set; 3 to put right\n")
    assert err.startswith("gfrouter: ") and err.endswith(" (and 2 more, which --check lists)\n")
    assert main(["--discovery", "nowhere://x", "--timeout", "x"]) == 1
    assert capsys.readouterr().err == "gfrouter: --timeout x: not a whole number (legal: 0 to 31536000 seconds)\n"


def test_what_can_be_used_is_said_and_nothing_else_happens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert capsys.readouterr() == (
        "command line  --check  set         check on\n\n1 setting: 1 set; it can be used\n", "",
    )  # fmt: skip


def test_a_check_that_is_turned_off_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--check=false", "--timeout", "x"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("resumed", [False, True])
def test_a_start_in_the_place_of_another_is_a_reload(resumed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "inherited", lambda *of_whom: Estate(resumed=resumed))
    Path("router.ini").write_text("[uwsgi]\nif-reload\nfastrouter-timeout = abc\nendif\n")
    assert main(["--check", "router.ini"]) == int(resumed)


def test_a_page_is_fit_for_a_terminal_whatever_stands_in_it() -> None:
    Path("router.ini").write_text("[uwsgi]\nfastrouter = /run/\x1b[31m" + "x" * 3000 + "\n\x1b = 1\n")
    found = examine(["--ini", "router.ini", "--discovery", "etcd://me:secret@h"], here({}))
    text = page(found, found.problems)
    assert all(line.isprintable() and len(line) < 300 for line in text.splitlines())
    assert "secret" not in text
