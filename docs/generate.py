"""Writes the pages of this folder that are made from the code, so that no page can say what the code does not.

python docs/generate.py             write them
python docs/generate.py --check     status 1, naming them, where those that are there are not current
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).parent
TOP = DOCS.parent
MADE = "<!-- Made by docs/generate.py; what is written here is lost. -->\n"

sys.path.append(str(TOP / "tests"))  # the differences are part of the tests, and of nothing that is installed
from differences import DIFFERENCES  # noqa: E402

DIFFERENT = """\
# What is different from the uWSGI FastRouter, and why

The default is the fastrouter's behaviour, as of uWSGI 2.0.31. These differences are meant; anything else that differs
is a fault of ours. Each of them is shown by a test that runs both, or by one of gfrouter's own.
"""


def differences_page() -> str:
    """A table for each topic, in the order of the entries."""
    lines = [DIFFERENT]
    for topic, entries in groupby(DIFFERENCES, key=lambda each: each.topic):
        lines += [f"## {topic}", "", "| the fastrouter | gfrouter | why |", "|---|---|---|"]
        lines += [f"| {each.fastrouter} | {each.gfrouter} | {each.why} |" for each in entries]
        lines.append("")
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "differences.md": differences_page,
}


def stale() -> dict[str, str]:
    """The pages that are not current, and what they should be."""
    made = {name: f"{page().rstrip()}\n\n{MADE}" for name, page in PAGES.items()}
    return {name: text for name, text in made.items() if not is_current(DOCS / name, text)}


def is_current(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


def main() -> int:
    pages = stale()
    if "--check" in sys.argv[1:]:
        for name in pages:
            print(f"docs/{name} is not current: run python docs/generate.py", file=sys.stderr)
        return int(bool(pages))
    for name, text in pages.items():
        (DOCS / name).write_text(text)
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
