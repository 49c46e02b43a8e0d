"""`gfrouter NAME ...`: which words are commands, what --help says of them, and how they end."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from router import commands
from router.configuration import OptionsError, load


def told(argv: list[str]) -> int:
    """Says what it was told.

    And no more.
    """
    print("told", *argv)
    return 7


def interrupted(argv: list[str]) -> int:
    """Is interrupted."""
    raise KeyboardInterrupt


def entry(name: str, function: str) -> EntryPoint:
    return EntryPoint(name, f"test_commands:{function}", commands.GROUP)


def gfrouter(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "router", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry("broken", "nothing"), entry("told", "told")]
    entries[0] = EntryPoint("broken", "no_such_module:main", commands.GROUP)
    monkeypatch.setattr(commands, "installed", lambda: entries)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("word", ["tol", "told.ini", "./told", "--told", "Told", "", "told "])
def test_a_command_is_exactly_its_name(word: str) -> None:
    assert commands.named([word]) is None


@pytest.mark.usefixtures("installed")
def test_only_the_first_word_is_a_command() -> None:
    assert commands.named([]) is None
    assert commands.named(["--cheap", "told"]) is None
    found = commands.named(["told", "--cheap"])
    assert found
    assert found.name == "told"


def test_a_file_of_a_commands_name_is_given_by_its_option_or_path(tmp_path: object) -> None:
    for word in ("sources.ini", "./sources.ini", "--ini=sources"):
        assert commands.named([word]) is None
        with pytest.raises(OptionsError, match="sources"):  # it is looked for as a file, and is not there
            load([word], {})


def test_a_command_gets_the_words_behind_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(entry("told", "told"), ["a", "--b"]) == 7
    assert capsys.readouterr().out == "told a --b\n"


def test_one_that_cannot_be_imported_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(EntryPoint("broken", "no_such_module:main", commands.GROUP), []) == 1
    assert (
        capsys.readouterr().err == "gfrouter: the command broken cannot be loaded: No module named 'no_such_module'\n"
    )


def test_an_interrupt_is_no_traceback() -> None:
    assert commands.run(entry("interrupted", "interrupted"), []) == commands.INTERRUPTED


@pytest.mark.usefixtures("installed")
def test_help_has_a_line_for_each_command() -> None:
    assert commands.help_text(100).splitlines()[1:] == [
        "  broken                      (cannot be loaded: No module named 'no_such_module')",
        "  told                        Says what it was told.",
    ]


def test_help_names_the_commands_behind_the_options() -> None:
    said = gfrouter("--help").stdout
    assert "\n       gfrouter COMMAND " in said
    for one in commands.installed():
        assert f"\n  {one.name}  " in said.partition("\nCommands ")[2]
    assert max(map(len, said.splitlines())) <= 80


def test_every_command_has_help_of_its_own() -> None:
    for one in commands.installed():
        with pytest.raises(SystemExit) as ended:
            one.load()(["--help"])
        assert ended.value.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("word", ["sources", "--help", "--check"])
def test_a_reader_that_leaves_is_no_traceback(word: str) -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "router", word]
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (commands.READER_GONE, "")
