"""The sources that are installed, found by their entry points, and how one is opened: by its name, or by a URL.

An entry of the group `gfrouter.discovery` is called with a URL's text and gives a `Source`; its name is the URL's
scheme. A bare NAME means `NAME://`, which each source takes for what is most useful. What goes for every source
(`Common`) is taken out of the URL's query before the source sees it. Third parties' sources are installed and found in
the same way as ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from router.source import Source
from router.url import parse_url, split_settings

GROUP = "gfrouter.discovery"


@dataclass(frozen=True)
class Common:
    """What any source's URL may say behind its `?`."""


@dataclass(frozen=True)
class Opened:
    """A source that is ready to run, and what its URL said of how to treat it."""

    source: Source
    common: Common


def installed() -> list[EntryPoint]:
    """The entry points of all sources, by name."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def open_source(text: str) -> Opened:
    """The source that NAME or a URL means. ValueError that names what is wrong, and what is known."""
    url = parse_url(text if "://" in text else f"{text}://")
    common, rest = split_settings(url, Common)
    source: Source = load_source(url.scheme)(rest.text)
    return Opened(source, common)


def load_source(name: str) -> Any:
    """What makes sources of this name. ValueError where none is installed, or something that it needs is not."""
    for entry in installed():
        if entry.name == name:
            try:
                return entry.load()
            except ImportError as error:
                raise ValueError(f"the source {name!r} cannot be loaded: {error}{remedy(entry)}") from error
    known = ", ".join(entry.name for entry in installed()) or "none"
    raise ValueError(f"no source named {name!r} is installed (installed: {known})")


def remedy(entry: EntryPoint) -> str:
    """How to install what a source lacks: the extra of its distribution that has its name."""
    dist = entry.dist
    if dist is None or entry.name not in (dist.metadata.get_all("Provides-Extra") or ()):
        return ""
    return f" (pip install '{dist.name}[{entry.name}]' brings what it needs)"


def words(discovery: Iterable[str]) -> list[str]:
    """The names and URLs in an option's values: in an environment variable several stand behind each other."""
    return [word for value in discovery for word in value.split()]
