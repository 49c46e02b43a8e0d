"""The text of a file of nodes → pools. Pure; file.py reads the file.

    # KEY    ADDRESS         settings
    foo.com  10.0.0.5:3031   weight=3
    foo.com  /run/foo.sock   backup=1 modifier1=7      # asked where the first one has failed

One node a line; words are parted by blanks or tabs; a word that begins with `#` begins a comment. In a key or an
address `%20` and its like stand for a byte each. A text is taken whole or not at all: the first line that is wrong is
an `Unreadable` error that names it, for half of a file is another configuration than the one that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote_to_bytes

from router.address import AddressError, parse_node
from router.algorithmname import algorithm_name
from router.node import Node
from router.values import whole

Pools = dict[str, list[Node]]
Line = tuple[str, Sequence[Node]]

MOST_NODES = 200_000  # in one file; reading them takes a second or two
LONGEST_LINE = 4096  # bytes; a key has 255 at most, and the longest address, a path, 107
LONGEST_KEY = 255  # bytes; a packet with a longer one counts as having none
LEGIBLE = "!$&'()*+,/:;=?@[]^`{|}~\"<>\\"  # beside letters and digits: all that is no blank, percent sign or `#`
LARGEST_INT = 2**31 - 1  # of weight and backup, as in announcements
SHOWN = 80  # characters of a wrong line that a message shows

SETTINGS: dict[str, Callable[[str], int | str]] = {
    "weight": whole(1, LARGEST_INT),
    "backup": whole(0, LARGEST_INT),
    "modifier1": whole(0, 255),
    "modifier2": whole(0, 255),
    "algorithm": algorithm_name,
}

PLAIN = Node("")  # one of which a line says nothing but where it is

_WORD = re.compile(r"[^ \t]+")
_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Unreadable(Exception):
    """The text holds a line that is no node; the message names the line's number, the reason, and the line."""


def parse(data: bytes, read: Callable[[bytes], Line | None] | None = None) -> Pools:
    """Key → its nodes, in the order of the lines. `Unreadable` names the first wrong line.

    `read` understands one line, as `parse_line` does, which is meant where none is given.
    """
    read = read or parse_line
    pools: Pools = {}
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            key, nodes = read(line.removesuffix(b"\r")) or ("", ())
            for node in nodes:
                _check_new(seen, key, node, number)
                pools.setdefault(key, []).append(node)
        except ValueError as error:
            text = line.strip().decode("utf-8", "backslashreplace")
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            raise Unreadable(f"line {number}: {error}: {shown!r}") from None
    return pools


def _check_new(seen: dict[tuple[str, str], int], key: str, node: Node, number: int) -> None:
    if len(seen) >= MOST_NODES:
        raise ValueError(f"more than {MOST_NODES} nodes")
    before = seen.setdefault((key, node.address), number)
    if before != number:
        raise ValueError(f"the same node of the same key as in line {before}")


def text_of(pools: Pools) -> str:
    """What `parse` gives these pools for, of what such a file can say: a line a node, in the pools' order."""
    return "".join(line_of(key, node) + "\n" for key, nodes in pools.items() for node in nodes)


def line_of(key: str, node: Node) -> str:
    """The line of one node, without its end; what is as it would be without a setting has none."""
    settings = [f"{name}={value}" for name in SETTINGS if (value := getattr(node, name)) != getattr(PLAIN, name)]
    return " ".join([_encoded(key), _encoded(node.address), *settings])


def parse_line(line: bytes) -> Line | None:
    """(key, [node]) of one line without its end; None where it says nothing. ValueError says what is wrong."""
    words = words_of(line)
    if not words:
        return None
    if len(words) == 1:
        raise ValueError("the address is missing (legal: KEY ADDRESS [SETTING=VALUE ...])")
    return key_of(words[0]), [_node(words[1], words[2:])]


def words_of(line: bytes) -> list[str]:
    """The words of a line up to a comment. ValueError where it is no text."""
    if len(line) > LONGEST_LINE:
        raise ValueError(f"{len(line)} bytes, but {LONGEST_LINE} is the limit")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {line[error.start]:#04x} at {error.start + 1} is not UTF-8") from None
    if control := _CONTROL.search(text):
        raise ValueError(f"control character {ord(control[0]):#04x} (in a key or address write %{ord(control[0]):02X})")
    words = []
    for word in _WORD.findall(text):
        if word.startswith("#"):
            break
        words.append(word)
    return words


def key_of(word: str) -> str:
    """The key that a word means, else ValueError."""
    key = decoded(word)
    if len(key) > LONGEST_KEY:
        raise ValueError(f"a key of {len(key)} bytes, but {LONGEST_KEY} is the limit")
    return key.decode("utf-8", "surrogateescape")


def _node(word: str, settings: list[str]) -> Node:
    address = decoded(word).decode("utf-8", "surrogateescape")
    if ":" not in address and not address.startswith(("/", "@")):  # uWSGI takes it for a path from where it was started
        raise ValueError(f"address {address!r}: no port, and no path that begins with / (or @)")
    try:
        parse_node(address)
    except AddressError as error:
        raise ValueError(f"address {address!r}: {error.reason}") from None
    values: dict[str, int | str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in SETTINGS:
            raise ValueError(f"setting {setting!r} is not known (known: {', '.join(f'{each}=' for each in SETTINGS)})")
        if name in values:
            raise ValueError(f"{name} is there twice")
        try:
            values[name] = SETTINGS[name](value)
        except ValueError as error:
            raise ValueError(f"{setting}: {error}") from None
    return Node(address, **values)  # type: ignore[arg-type]  # SETTINGS are fields of these types


def _encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe=LEGIBLE)


def decoded(word: str) -> bytes:
    """The bytes that a word means, as `%20` and its like stand for one. ValueError for a stray percent sign."""
    if stray := _STRAY_PERCENT.search(word):
        raise ValueError(f"{word[stray.start() : stray.start() + 3]!r} is no byte (a percent sign itself is %25)")
    return unquote_to_bytes(word)
