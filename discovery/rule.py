"""uWSGI's `use-base` and `use-pattern`: the key itself says where its node is. `base://BASE`, `pattern://PATTERN`.

Nothing is looked up, so every key has a node, whether anybody listens there or not; a request finds out. Clients choose
their keys, so a key whose text could lead elsewhere than the rule is meant to is refused: one with `.` or `..` between
its slashes, and where the rule begins with the key, one that would make it a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn
from urllib.parse import unquote

from discovery.kept import Kept
from router.address import AddressError
from router.feed import Feed
from router.node import Node
from router.url import parse_url, read_settings, setting
from router.uwsgi import printable
from router.values import base, pattern, whole

DAY = 86_400  # seconds
LONGEST_NAME = 80  # characters of the source's name

_LETTER = re.compile("%(.)", re.DOTALL)


@dataclass(frozen=True)
class Settings:
    """What the URL may say behind its `?`."""

    keep: int = setting(3600, whole(1, DAY, "seconds"), "SECONDS", "keep a key so long after it was asked for")


class Rule:
    """A source on demand for any key, whose node's address `address_of` makes of the key alone."""

    settings = Settings
    on_demand = True
    any_key = True
    leads = False  # whether the address begins with the key

    def __init__(self, url: str, read: Callable[[str], str], clock: Callable[[], float]) -> None:
        parsed = parse_url(url)
        self.text = unquote(url.partition("://")[2].partition("?")[0])
        try:
            read(self.text)
        except ValueError as error:
            raise parsed.wrong(str(error)) from None
        self.name = f"{parsed.scheme}@{printable(self.text)}"[:LONGEST_NAME]
        self.kept = Kept(read_settings(parsed, Settings).keep, clock)

    def address_of(self, key: str) -> str:
        """Where this key's node would be."""
        raise NotImplementedError

    def run(self, feed: Feed) -> NoReturn:
        self.kept.begin(feed)
        while True:
            key = feed.wanted(self.kept.expire(feed))
            if key is not None:
                self.want(feed, key)

    def want(self, feed: Feed, key: str) -> None:
        """A client asks for this key, and nobody knows it."""
        if is_safe(key, self.leads):
            try:
                return self.kept.add(feed, key, [Node(self.address_of(key))])
            except AddressError as error:
                feed.reject("bad node address", str(error))
        else:
            feed.reject("unsafe key", key)
        feed.set(key, ())


class Base(Rule):
    """A node for any key, at the address that is BASE with the key behind it (uWSGI's use-base)."""

    form = "base://BASE"

    def __init__(self, url: str, *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(url, base, clock)

    def address_of(self, key: str) -> str:
        return self.text + key


class Pattern(Rule):
    """A node for any key, at the address that is PATTERN with the key for each %s (uWSGI's use-pattern)."""

    form = "pattern://PATTERN"

    def __init__(self, url: str, *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(url, pattern, clock)
        self.leads = self.text.startswith("%s")

    def address_of(self, key: str) -> str:
        return _LETTER.sub(lambda found: key if found[1] == "s" else found[1], self.text)


def is_safe(key: str, leads: bool) -> bool:
    """Whether the address that a rule makes of this key is where it is meant to be; `leads` where the rule begins with
    the key.
    """
    return not ((leads and key.startswith(("/", "@"))) or {".", ".."} & set(key.split("/")))
