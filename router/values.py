"""Readers: the text of one option to its value.

Each takes a text and gives the value, or a ValueError that says what is wrong and what is legal; the place
and the text itself are added by router/options.py. Only slips of meaning are judged here (a bare number where
an address belongs); what an address stands for is router/net.py's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Longer waits than a year and more processes than machines have cores for are slips of the unit.
MAX_SECONDS = 365 * 24 * 3600
MAX_PROCESSES = 1024
MAX_RETRIES = 1000
MAX_BACKLOG = 1_000_000

TRUE_WORDS = ("true", "on", "yes", "1")
FALSE_WORDS = ("false", "off", "no", "0")


def flag(text: str) -> bool:
    """A yes or no; a bare name is yes."""
    word = text.lower()
    if word and word not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError(f"neither yes nor no (legal: {', '.join(TRUE_WORDS + FALSE_WORDS)})")
    return word not in FALSE_WORDS


def whole(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    """A reader of whole numbers within bounds."""
    legal = f"(legal: {least} to {most}{unit and f' {unit}'})"

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise ValueError(f"{'not a whole number' if text else 'a number is missing'} {legal}")
        if len(text) > 18 or not least <= int(text) <= most:
            raise ValueError(f"out of range {legal}")
        return int(text)

    return read


seconds = whole(0, MAX_SECONDS, "seconds")
seconds_from_1 = whole(1, MAX_SECONDS, "seconds")


def one_of(*words: str) -> Callable[[str], str]:
    """A reader of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"unknown word (legal: {', '.join(words)})")
        return text

    return read


def address(text: str) -> str:
    """An address to bind."""
    if not text:
        raise ValueError("an address is missing (legal: HOST:PORT, :PORT, 192.*:PORT or a path)")
    if text.isdecimal():
        raise ValueError(f"a bare number is no address (a port is :{text})")
    if re.fullmatch(r"[0-9]+(\.([0-9]+|\*))+", text):
        raise ValueError(f"the port is missing (legal: {text}:PORT)")
    if text.startswith("="):
        raise ValueError("=N means a shared socket, which only a listening address can be")
    return text


def listening_address(text: str) -> str:
    """As `address`, or `=N` for a shared socket; a bare number is what uWSGI's core option `listen` takes."""
    if text.isdecimal():
        raise ValueError(f"a bare number is no address (a port is :{text}, the queue's length is backlog)")
    if re.fullmatch(r"=[0-9]{1,4}", text):
        return f"={int(text[1:])}"
    if text.startswith("="):
        raise ValueError("=N wants the number of a shared socket, counted from 0")
    return address(text)


def queue_length(text: str) -> int:
    """How many connections may wait; an address here comes from taking uWSGI's `listen` for ours."""
    if ":" in text or "/" in text:
        raise ValueError("this is the queue's length, not an address (in [uwsgi] that is fastrouter = ...)")
    return whole(1, MAX_BACKLOG, "connections")(text)


def file_name(text: str) -> str:
    """FILE or FILE:SECTION."""
    if not text:
        raise ValueError("a file name is missing")
    return text
