"""The documentation is current and whole: pages made from the code, names, links, a site that needs no other host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import generate
from router.options import TABLE

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_pages_that_are_made_from_the_code_are_current() -> None:
    assert list(generate.stale()) == [], "run python docs/generate.py"


def test_check_names_a_page_that_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0
    (tmp_path / "options.md").write_text("something older")
    assert generate.main() == 1
    assert capsys.readouterr().err == "docs/options.md is not current: run python docs/generate.py\n"


def test_every_option_is_on_the_page_with_all_its_spellings() -> None:
    page = generate.options_page()
    for entry in TABLE:
        section = page.partition(f"\n### {entry.plain[0]}\n")[2].partition("\n#")[0]
        for name in entry.plain:
            assert f"`--{name}" in section
            assert f"`GFROUTER_{name.upper().replace('-', '_')}`" in section
        for name in entry.uwsgi:
            assert f"`{name} = " in section
            assert f"`UWSGI_{name.upper().replace('-', '_')}`" in section


def test_every_module_says_what_it_is() -> None:
    assert [file.name for file in generate.modules() if not generate.first_paragraph(file)] == []


def test_the_site_builds_without_a_warning_and_has_every_page(site: Path) -> None:
    pages = {page.with_suffix(".html").name for page in DOCS.glob("*.md")}
    assert pages <= {page.name for page in site.glob("*.html")}
    assert not (site / "generate.py").exists()


def test_what_is_read_loads_nothing_from_another_host(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"([^\"]+)\"", page.read_text())
        assert [address for address in loaded if address.startswith(("http:", "https:", "//"))] == []


def test_files_that_the_pages_name_are_there() -> None:
    """Python files are named alone or with their folder: `engine.py`, `router/engine.py`, `tests/scripted.py`."""
    there = {str(file.relative_to(TOP)) for folder in ("router", "discovery", "tests", "docs") for file in
             (TOP / folder).glob("*.py")}  # fmt: skip
    there |= {name.removeprefix("router/") for name in there}
    named = {name for page in DOCS.glob("*.md") for name in re.findall(r"`([a-z_/]+\.py)`", page.read_text())}
    assert named - there - {"app.py"} == set()
    assert len(named) > 30
