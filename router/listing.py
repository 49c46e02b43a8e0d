"""`gfrouter sources`: what is installed, each with the form of its URL and what that may say behind its `?`.

A source tells it by attributes of its class: `form`, `settings` (a dataclass whose fields are written with `setting()`)
and the first line of its docstring. All three are optional: one that says nothing is listed by its name and package.
"""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint

from router.entry import beside, default_of
from router.sources import Common, installed, remedy
from router.url import Setting, settings_of

WIDTH = 80
OURS = "gfrouter"  # the distribution that needs no naming


@dataclass(frozen=True)
class Listed:
    """One source: its names, and what it says of itself. `trouble` is why it cannot be had."""

    names: tuple[str, ...]
    distribution: str
    about: str = ""
    form: str = ""
    settings: tuple[Setting, ...] = ()
    trouble: str = ""


def main(argv: list[str]) -> int:
    """List the installed sources of nodes, the form of their URLs and what these may say."""
    parser = argparse.ArgumentParser(prog="gfrouter sources", description=main.__doc__)
    parser.parse_args(argv)
    print(page(listed(installed()), settings_of(Common)))
    return 0


def listed(entries: Iterable[EntryPoint]) -> list[Listed]:
    """The sources of these entry points; several names of one object are one source."""
    names: dict[tuple[str, str], list[EntryPoint]] = {}
    for entry in entries:
        names.setdefault((entry.value, _distribution(entry)), []).append(entry)
    return [_listed(entries) for entries in names.values()]


def _listed(entries: list[EntryPoint]) -> Listed:
    first = entries[0]
    names, distribution = tuple(entry.name for entry in entries), _distribution(first)
    try:
        source = first.load()
    except Exception as error:  # whatever a third party's module does when it is imported, the others are listed
        return Listed(names, distribution, trouble=f"cannot be loaded: {error}{remedy(first)}")
    table = getattr(source, "settings", None)
    return Listed(
        names,
        distribution,
        about=(source.__doc__ or "").strip().partition("\n")[0],
        form=form if isinstance(form := getattr(source, "form", ""), str) else "",
        settings=tuple(settings_of(table)) if isinstance(table, type) and dataclasses.is_dataclass(table) else (),
    )


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""


def page(sources: Iterable[Listed], common: Iterable[Setting]) -> str:
    """What is printed: a paragraph for each source, and one for the settings that any of them may have."""
    paragraphs = [_paragraph(source) for source in sources]
    if rows := [line for one in common for line in _row(one)]:
        paragraphs.append(["Any source:", *rows])
    return "\n\n".join("\n".join(lines) for lines in paragraphs)


def _paragraph(source: Listed) -> list[str]:
    names = ", ".join(source.names)
    package = f" (of {source.distribution})" if source.distribution not in (OURS, "") else ""
    lines = textwrap.wrap(f"{names}{package}: {source.about or source.trouble or 'says nothing of itself'}", WIDTH)
    lines += [f"  {source.form}"] if source.form else []
    return lines + [line for one in source.settings for line in _row(one)]


def _row(setting: Setting) -> list[str]:
    default = default_of(setting.default)
    text = f"{setting.help} (default: {default})" if default else setting.help
    return beside(f"    {setting.name}={setting.metavar}", text, WIDTH)
