"""Writes the pages of docs/ that come from the code, so that they cannot say anything else than it does.

    python docs/generate.py [PAGE ...]      all of them, or those named; PAGES has the names

A page is a function that gives its text. tests/test_docs.py fails where a committed page is not what would be written.
"""

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.append(str(DOCS.parent / "tests"))

from differences import DIFFERENCES  # noqa: E402  # it is no part of what is installed

INTRODUCTION = """\
# What is different from the uWSGI FastRouter, and why

The default is the fastrouter's behaviour, as of uWSGI 2.0.31. These differences are meant; anything else that differs
is a fault of ours. Each of them is shown by a test that runs both, or by one of gfrouter's own.
"""


def differences() -> str:
    """A table for each topic, in the order of the entries."""
    lines = [INTRODUCTION]
    for topic, entries in groupby(DIFFERENCES, key=lambda each: each.topic):
        lines += [f"## {topic}", "", "| the fastrouter | gfrouter | why |", "|---|---|---|"]
        lines += [f"| {each.fastrouter} | {each.gfrouter} | {each.why} |" for each in entries]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {"differences": differences}


def main(names: list[str]) -> None:
    for name in names or PAGES:
        (DOCS / f"{name}.md").write_text(PAGES[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
