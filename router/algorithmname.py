"""The names of the algorithms, as sources and options say them. What is behind them: algorithms.py."""

from __future__ import annotations

import re

DEFAULT = "wrr"  # the fastrouter's
LOAD = "load"  # the one that steers by what workers say of their load
NAMES = (DEFAULT, "lrc", "wlrc", "iphash", "p2c", LOAD)
LEGAL = "wrr, lrc, wlrc, iphash, p2c, load or hash:VAR"
LONGEST_ALGORITHM = 80  # characters

_HASH = re.compile(r"hash:([A-Za-z0-9_-]{1,64})")


def is_algorithm(name: str) -> bool:
    """Whether there is one with this name."""
    return name in NAMES or _HASH.fullmatch(name) is not None


def hashed_var(name: str) -> str:
    """VAR of hash:VAR; empty where it is none of these."""
    found = _HASH.fullmatch(name)
    return found[1] if found else ""


def algorithm_name(text: str) -> str:
    """A reader of names; ValueError says which are legal."""
    if not is_algorithm(text):
        raise ValueError(f"no algorithm (legal: {LEGAL})")
    return text
