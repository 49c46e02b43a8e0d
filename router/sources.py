"""The sources that are installed, found by their entry points, and how one is opened: by its name, or by a URL.

An entry of the group `gfrouter.discovery` is called with a URL's text and gives a `Source`; its name is the URL's
scheme. A bare NAME means `NAME://`, which each source takes for what is most useful. What goes for every source
(`Common`) is taken out of the URL's query before the source sees it. Third parties' sources are installed and found in
the same way as ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from router.feed import Feed
from router.shaping import ShapedFeed
from router.source import Source
from router.table import Table
from router.url import UnknownSetting, parse_url, setting, settings_of, split_settings, url_of
from router.values import MAX_NODES, seconds, whole

GROUP = "gfrouter.discovery"


def name(text: str) -> str:
    """A name to be shown, in one line."""
    if not text.isprintable() or not text.strip():
        raise ValueError("a name is printable characters, one at least")
    return text


def regex(text: str) -> str:
    """A regular expression, in Python's syntax."""
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


@dataclass(frozen=True)
class Common:
    """What any source's URL may say behind its `?`."""

    name: str = setting("", name, "NAME", "what the source is called in logs and stats")
    max_stale: int = setting(
        0, seconds, "SECONDS", "drop what it said when it could not see for so long, until it sees again; 0 never does"
    )
    min_nodes: int = setting(
        0, whole(0, MAX_NODES), "N", "hold removals back that would leave it with fewer nodes; 0 holds none"
    )
    key_match: str | None = setting(None, regex, "REGEX", "rewrite the keys that match as a whole")
    key_to: str | None = setting(None, str, "TEMPLATE", r"to this; \1 and \g<name> are groups of key-match")

    def rewriter(self) -> Callable[[str], str] | None:
        """What gives the table's key for one of the source's; None where they are the same. ValueError for bad ones."""
        if self.key_match is None and self.key_to is None:
            return None
        if self.key_match is None or self.key_to is None:
            raise ValueError("key-match and key-to go together, and one of them is missing")
        pattern, template = re.compile(self.key_match), self.key_to
        try:
            pattern.sub(template, "")  # reads the whole template, even if nothing matches
        except (re.error, IndexError) as error:
            raise ValueError(f"key-to={template}: no template for key-match: {error}") from None

        def rewrite(key: str) -> str:
            found = pattern.fullmatch(key)
            return found.expand(template) if found else key

        return rewrite

    def feed(self, table: Table, source: str, max_keys: int, max_nodes: int) -> Feed:
        """The source's slice of the table: a plain one where nothing is set."""
        rewrite = self.rewriter()
        if not (self.max_stale or self.min_nodes or rewrite):
            return table.feed(source, max_keys, max_nodes)
        feed = ShapedFeed(
            table, source, max_keys, max_nodes,
            rewrite=rewrite, min_nodes=self.min_nodes, max_stale=self.max_stale,
        )  # fmt: skip
        table.feeds.append(feed)
        return feed


@runtime_checkable
class Listening(Source, Protocol):
    """A source with a socket at an address, as the subscriptions have."""

    address: str


@dataclass(frozen=True)
class Opened:
    """A source that is ready to run, and what its URL (shown without its password) said of how to treat it."""

    source: Source
    common: Common
    url: str = ""


def installed() -> list[EntryPoint]:
    """The entry points of all sources, by name."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def open_source(text: str) -> Opened:
    """The source that NAME or a URL means. ValueError that names what is wrong, and what is known."""
    url = parse_url(url_of(text))
    common, rest = split_settings(url, Common)
    try:
        rewrite = common.rewriter()
    except ValueError as error:
        raise url.wrong(str(error)) from None
    make = load_source(url.scheme)
    try:
        source: Source = make(rest.text)
    except UnknownSetting as error:
        raise UnknownSetting(
            url.shown, error.name, error.known.union(one.name for one in settings_of(Common))
        ) from None
    if rewrite and getattr(source, "on_demand", False):
        raise url.wrong("key-match cannot be where clients' keys are asked for")
    return Opened(source, common, url.shown)


def unique_names(sources: Sequence[Opened]) -> list[str]:
    """What each source is called: as its URL says, else as it says, with a number where another one has that name."""
    names: dict[str, None] = {}
    for one in sources:
        wanted = unique = one.common.name or one.source.name
        number = 1
        while unique in names:
            number += 1
            unique = f"{wanted} {number}"
        names[unique] = None
    return list(names)


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
