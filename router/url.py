"""The URL that says where a source looks: `SCHEME://[USER[:PASSWORD]@][PLACE[,PLACE ...]][/PATH][?NAME=VALUE&...]`.

What may stand behind the `?` a source declares as a frozen dataclass whose fields are written with `setting()`, the
readers being those of values.py, and reads with `read_settings`. So every source says the same of a wrong one, and
`gfrouter sources` can list them all. Values are percent-decoded, and a `+` is a plus; a password is in no message.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*")
_PARTS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?]*)([^?]*)(?:\?(.*))?", re.DOTALL)
# A password may hold an @, and whoever forgets a slash has written one all the same.
_PASSWORD = re.compile(r"((?:^|[:/])[^/?:]*):[^/?]*@")
_SECRET_SETTING = re.compile(r"([?&](?:password|token)=)[^&]*")  # no source has them, which is said with the URL
LONGEST = 4096  # characters; beyond that it is no URL but a mistake


@dataclass(frozen=True)
class Setting:
    """One thing that a URL's query may say. `read` gives the value, or a ValueError that says what is legal."""

    name: str
    default: Any
    read: Callable[[str], Any]
    metavar: str
    help: str


class UnknownSetting(ValueError):
    """The URL `shown` has a setting that is none of the `known` ones."""

    def __init__(self, shown: str, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, frozenset(known)
        super().__init__(f"{shown}: setting {name!r} is not known (known: {', '.join(sorted(self.known)) or 'none'})")


@dataclass(frozen=True)
class SourceUrl:
    """A URL taken apart. `places` are texts as `HOST:PORT`, `path` is as written, `query` decoded, in its order."""

    text: str = dataclasses.field(repr=False)  # the password is in it
    scheme: str
    user: str
    password: str = dataclasses.field(repr=False)
    places: tuple[str, ...]
    path: str
    query: tuple[tuple[str, str], ...]

    @property
    def shown(self) -> str:
        """For messages and logs: without the password."""
        return without_password(self.text)

    def wrong(self, reason: str) -> ValueError:
        """The error to raise where this URL says what cannot be."""
        return ValueError(f"{self.shown}: {reason}")

    def hosts(self, port: int) -> list[tuple[str, int]]:
        """The places as (host, port), `port` where one names none. ValueError where one is neither."""
        return [self._host(place, port) for place in self.places]

    def _host(self, place: str, port: int) -> tuple[str, int]:
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", place)
        if not found or not (host := found[1] or found[2]):
            raise self.wrong(f"{place!r} is no place (legal: HOST, HOST:PORT, [IPV6]:PORT)")
        number = int(found[3]) if found[3] else port
        if not 0 < number < 65536:
            raise self.wrong(f"{place!r}: port {number} is out of range (legal: 1 to 65535)")
        return host, number


def parse_url(text: str) -> SourceUrl:
    """The URL taken apart, else ValueError."""
    shown = without_password(text)
    if len(text) > LONGEST:
        raise ValueError(f"{shown[:40]}...: a URL of {len(text)} characters, but {LONGEST} is the limit")
    found = _PARTS.fullmatch(text)
    if not found:
        raise ValueError(f"{shown}: no URL of a source (legal: NAME, or NAME://PLACE/PATH?SETTING=VALUE)")
    scheme, authority, path, query = found.groups()
    login, at, rest = authority.rpartition("@")
    if at and not login:  # an abstract socket's name
        login, rest = "", authority
    user, _, password = login.partition(":")
    pairs = [pair.partition("=") for pair in query.split("&") if pair] if query else []
    return SourceUrl(
        text,
        scheme.lower(),
        unquote(user),
        unquote(password),
        tuple(rest.split(",")) if rest else (),
        path,
        tuple((unquote(name), unquote(value)) for name, _, value in pairs),
    )


def url_of(word: str) -> str:
    """The URL that NAME or a URL means, where it is one of them; else the word itself, which parse_url refuses."""
    return f"{word}://" if _NAME.fullmatch(word) else word


def without_password(text: str) -> str:
    """The URL, or what was meant as one, as it may be shown."""
    return _SECRET_SETTING.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def setting(default: T, read: Callable[[str], Any], metavar: str, help: str) -> T:
    """One field of a source's settings; with a tuple as default it may be given several times."""
    return dataclasses.field(default=default, metadata={"read": read, "metavar": metavar, "help": help})


def settings_of(table: type) -> list[Setting]:
    """The settings that the dataclass `table` declares. A field `max_stale` is `max-stale` in a URL."""
    return [
        Setting(f.name.replace("_", "-"), f.default, f.metadata["read"], f.metadata["metavar"], f.metadata["help"])
        for f in dataclasses.fields(table)
        if f.metadata
    ]


def read_settings(url: SourceUrl, table: type[T]) -> T:
    """What the URL's query says, as a `table`. ValueError that names what is wrong, and what is legal."""
    legal = {one.name: one for one in settings_of(table)}
    values: dict[str, Any] = {}
    for name, text in url.query:
        if name not in legal:
            raise UnknownSetting(url.shown, name, legal)
        try:
            value = legal[name].read(text)
        except ValueError as error:
            raise url.wrong(f"{name}={text}: {error}") from None
        field = name.replace("-", "_")
        values[field] = (*values.get(field, ()), value) if isinstance(legal[name].default, tuple) else value
    return table(**values)


def split_settings(url: SourceUrl, table: type[T]) -> tuple[T, SourceUrl]:
    """(those of the settings that are of `table`, the URL without them)."""
    names = {one.name for one in settings_of(table)}
    ours = tuple(pair for pair in url.query if pair[0] in names)
    written, _, query = url.text.partition("?")
    rest = "&".join(pair for pair in query.split("&") if unquote(pair.partition("=")[0]) not in names)
    return read_settings(dataclasses.replace(url, query=ours), table), parse_url(written + (f"?{rest}" if rest else ""))
