"""The ini dialect, judged by the real uWSGI: each file is put through both, and what comes out is compared.

The real one prints its own with `--show-config`. The files are in dialect.py. Nothing is bound or served.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dialect import ALIKE, DIFFERENT, ENVIRON, REFUSED, TREE, Case, Outcome
from router import foreign
from router.gather import Gathering
from router.options import UWSGI
from router.setting import Setting
from router.surroundings import here
from servers import UWSGI as UWSGI_COMMAND

pytestmark = pytest.mark.skipif(
    not UWSGI_COMMAND.exists(), reason="no uwsgi command beside this python (pip install pyuwsgi)"
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Outcome]]:
    """What the real one makes of each case, and the folder of the case: names of files are among what is compared."""
    cases = ALIKE | {name: case for name, (case, *_) in DIFFERENT.items()}
    folders = {name: tmp_path_factory.mktemp("case") for name in cases}
    with ThreadPoolExecutor(2) as several:
        results = several.map(lambda name: theirs(cases[name], folders[name]), cases)
        return {name: (folders[name], outcome) for name, outcome in zip(cases, results, strict=True)}


def prepare(case: Case, folder: Path) -> None:
    """The files of a case."""
    for name, text in {**TREE, **case.files, "main.ini": f"[uwsgi]\n{case.text}"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    (folder / "link.ini").unlink(missing_ok=True)
    (folder / "link.ini").symlink_to("conf.d/deep/er/x.y.ini")


def given(case: Case) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of a case."""
    return list(case.words or ("--ini", f"main.ini{case.section}")), ENVIRON | case.environ


def theirs(case: Case, folder: Path) -> Outcome:
    prepare(case, folder)
    words, environ = given(case)
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    command = [str(UWSGI_COMMAND), *words, "--show-config", "--no-server"]
    try:
        done = subprocess.run(command, cwd=folder, env=keep | environ, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return "endless"
    log = (done.stdout + done.stderr).decode()
    _, begin, rest = log.partition(";uWSGI instance configuration\n[uwsgi]\n")
    if not begin:
        return REFUSED
    lines = rest.partition(";end of configuration")[0].splitlines()
    pairs = [tuple(line.split(" = ", 1)) for line in lines if line]
    return comparable([(name, value) for name, value in pairs], words)


def ours(case: Case, folder: Path) -> Outcome:
    words, environ = given(case)
    there = replace(here(environ), folder=str(folder))
    typed: list[Setting] = [
        Setting(key.removeprefix("UWSGI_").lower().replace("_", "-"), value, "", "", False, "environment")
        for key, value in environ.items()
        if key.startswith("UWSGI_")
    ]
    left = list(words)
    while left:
        name = left.pop(0).removeprefix("--")
        value = left.pop(0) if left and not left[0].startswith("--") else ""
        typed.append(Setting(name, value, "", "", True, "command line"))
    gathered = Gathering(there, {*UWSGI, *foreign.KNOWN}).of(typed)
    if any(each.trouble for each in gathered):
        return REFUSED
    pairs = [(each.setting.name, each.value) for each in gathered if not each.left_out]
    return comparable([(name, "true" if f"--{name}" in words and not value else value) for name, value in pairs], words)


def comparable(pairs: list[tuple[str, str]], words: list[str]) -> list[tuple[str, str]]:
    """Without what both have anyway."""
    typed = [(words[n].removeprefix("--"), words[n + 1]) for n in range(len(words) - 1) if words[n] == "--ini"]
    return [pair for pair in pairs if pair not in (*typed, ("show-config", "true"), ("no-server", "true"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
def test_a_file_reads_as_in_uwsgi(name: str, outcomes: dict[str, tuple[Path, Outcome]]) -> None:
    folder, expected = outcomes[name]
    assert ours(ALIKE[name], folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
def test_a_file_that_reads_otherwise_on_purpose(name: str, outcomes: dict[str, tuple[Path, Outcome]]) -> None:
    case, expected, better, _ = DIFFERENT[name]
    folder, seen = outcomes[name]
    assert seen == expected
    assert ours(case, folder) == better
