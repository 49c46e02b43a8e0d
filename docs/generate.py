"""Writes the pages of this folder that are made from the code, so that no page can say what the code does not.

python docs/generate.py             write them
python docs/generate.py --check     status 1, naming them, where those that are there are not current
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from router.entry import Entry, default_of, typed
from router.listing import OURS, Listed, listed
from router.options import PLAIN, TABLE
from router.sources import Common, installed
from router.url import Setting, settings_of

DOCS = Path(__file__).parent
TOP = DOCS.parent
MADE = "<!-- Made by docs/generate.py; what is written here is lost. -->\n"

sys.path.append(str(TOP / "tests"))  # the differences are part of the tests, and of nothing that is installed
import fault_nodes  # noqa: E402
import fault_others  # noqa: E402
from differences import DIFFERENCES  # noqa: E402
from faults import FAULTS  # noqa: E402

assert fault_nodes and fault_others  # which fill the table

DIFFERENT = """\
# What is different from the uWSGI FastRouter, and why

The default is the fastrouter's behaviour, as of uWSGI 2.0.31. These differences are meant; anything else that differs
is a fault of ours. Each of them is shown by a test that runs both, or by one of gfrouter's own.
"""

WHEN_IT_FAILS = """\
# What happens when something fails

Each row was done to both routers, the real uWSGI FastRouter and gfrouter, by one script; `make test` does it again and
holds both against this table (`tests/test_faults.py`). Time limits were 2 s for both, and gfrouter had error pages on.
Requests are GETs where nothing else is said; a node that fails has a good one beside it, unless all are meant.

`answered` is the whole answer, `nothing` a connection that was closed without a byte, a number the status of gfrouter's
error page, `cut short` a part of an answer with a clean end, `reset` one that ended so that the web server can tell.
"""

OPTIONS = """\
# Options

Each option stands on the command line, in an ini file or in the environment. The command line is stronger than files,
files are stronger than the environment; within one of them the last one counts, and options that are repeatable add up
over all of them. On the command line a name may be cut short while it stays unambiguous.

An ini file may hold two sections: `[uwsgi]`, in uWSGI's spellings, so that a fastrouter's file works as it is, and
`[gfrouter]`, in our own. What uWSGI knows and gfrouter does not is refused where it would change what the router does,
and otherwise ignored with a warning.
"""

SOURCES = """\
# Sources

Each source of nodes has a name, and is asked for with `--discovery NAME` or, to say more, with a URL: `--discovery
'NAME://...?SETTING=VALUE&SETTING=VALUE'`. Several work together: the first one that knows a node describes it, and the
node stays until the last of them lets go of it. `gfrouter sources` prints this list, and what else is installed.
[Writing a source](writing-a-source.md) says how to add one.
"""

MODULES = """\
# Modules

Every file of the program, as its own first lines describe it. [How the code is laid out](code.md) says where to begin.
"""


def differences_page() -> str:
    """A table for each topic, in the order of the entries."""
    lines = [DIFFERENT]
    for topic in dict.fromkeys(each.topic for each in DIFFERENCES):
        lines += [f"## {topic}", "", "| the fastrouter | gfrouter | why |", "|---|---|---|"]
        entries = [each for each in DIFFERENCES if each.topic == topic]
        lines += [f"| {each.fastrouter} | {each.gfrouter} | {each.why} |" for each in entries]
        lines.append("")
    return "\n".join(lines)


def faults_page() -> str:
    """A table for each group, in the order of the rows."""
    lines = [WHEN_IT_FAILS]
    for group in dict.fromkeys(each.group for each in FAULTS):
        lines += [f"## {group}", "", "| what happens | the fastrouter | gfrouter |", "|---|---|---|"]
        lines += [f"| {each.what} | {each.theirs} | {each.ours} |" for each in FAULTS if each.group == group]
        lines.append("")
    return "\n".join(lines)


def options_page() -> str:
    parts = [OPTIONS]
    for group in dict.fromkeys(entry.group for entry in TABLE):
        parts.append(f"## {group}\n")
        parts += [option(entry) for entry in TABLE if entry.group == group]
    return "\n".join(parts)


def option(entry: Entry) -> str:
    """One option: what it does, then its spellings."""
    value = "true" if entry.is_flag else entry.metavar
    help = re.sub(r"([*_])", r"\\\1", entry.help.removesuffix("; repeatable")).replace("<", "&lt;")
    said = [f"{help[0].upper()}{help[1:]}."]
    said += ["Repeatable."] if entry.repeatable else []
    said += ["0 means the default."] if entry.zero_is_default else []
    words = typed(entry, set(PLAIN))
    rows = {
        "command line": [f"--{words[0]} {entry.metavar}".rstrip(), *(f"--{word}" for word in words[1:])],
        "`[gfrouter]`": [f"{name} = {value}" for name in entry.plain],
        "`[uwsgi]`": [f"{name} = {value}" for name in entry.uwsgi],
        "environment": [
            *(variable("GFROUTER", name) for name in entry.plain),
            *(variable("UWSGI", name) for name in entry.uwsgi),
        ],
        "default": [default_of(entry.default) or ("false" if entry.is_flag else "")],
    }
    lines = [f"- {name}: {', '.join(f'`{word}`' for word in words)}" for name, words in rows.items() if words != [""]]
    return "\n".join([f"### {entry.plain[0]}\n", " ".join(said), "", *lines, ""])


def variable(prefix: str, name: str) -> str:
    return f"{prefix}_{name.upper().replace('-', '_')}"


def sources_page() -> str:
    """Our own sources alone, whatever else is installed where this is run."""
    ours = [source for source in listed(installed()) if source.distribution == OURS]
    parts = [SOURCES, *map(source_section, ours)]
    if common := settings_of(Common):
        parts.append("\n".join(["## Any source\n", *map(setting_line, common), ""]))
    return "\n".join(parts)


def source_section(source: Listed) -> str:
    lines = [f"## {', '.join(source.names)}\n", source.about or source.trouble, "", f"`{source.form}`", ""]
    return "\n".join([*lines, *map(setting_line, source.settings), ""])


def setting_line(one: Setting) -> str:
    default = default_of(one.default)
    help = re.sub(r"([*_])", r"\\\1", one.help).replace("<", "&lt;")
    return f"- `{one.name}={one.metavar}`: {help}" + (f" (default: `{default}`)" if default else "")


def modules_page() -> str:
    rows = [f"| `{file.relative_to(TOP)}` | {first_paragraph(file)} |" for file in modules()]
    return "\n".join([MODULES, "| file | what it is |", "|---|---|", *rows, ""])


def modules() -> Iterator[Path]:
    for folder in ("router", "discovery"):
        yield from sorted((TOP / folder).glob("*.py"))


def first_paragraph(file: Path) -> str:
    """Of a module's docstring, as one line."""
    said = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(said.partition("\n\n")[0].split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "options.md": options_page,
    "sources.md": sources_page,
    "modules.md": modules_page,
    "differences.md": differences_page,
    "faults.md": faults_page,
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
