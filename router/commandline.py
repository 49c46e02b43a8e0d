"""The words of a command line as settings, by getopt's rules, which uWSGI's users know.

`--name value`, `--name=value`, any unambiguous beginning of a name, `--` before what only looks like an
option. Other words are configuration files. This file knows no option: names come in as a mapping to getopt's
notation ("=" takes a value, "" is a flag, "?" takes one only as `--name=value`).
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from router.setting import Setting, shown, unreadable
from router.values import FALSE_WORDS, TRUE_WORDS

# The short forms that people type for a fastrouter; gfrouter has none of its own.
SHORT = {"-h": "--help", "-M": "--master", "-d": "--daemonize"}

# How alike a spelling must be to be suggested (difflib's ratio).
SUGGESTED = 0.6

# What is a configuration by its name; those of uWSGI's other formats are refused where they would be read (gather.py).
_FILE = re.compile(r"\.(ini|xml|ya?ml|json|js)(:[^/]*)?$")


class Name(NamedTuple):
    """A name's notation, and its meaning: a beginning that fits several names of one meaning is no riddle."""

    notation: str
    meaning: str


def parse(argv: Sequence[str], names: Mapping[str, Name], rare: Mapping[str, Name]) -> list[Setting]:
    """What `argv` (without the program's name) says; files become settings of `ini`, and come last, as for getopt.

    A beginning is looked for among the rare names only where none of the others fits. What cannot be understood is a
    setting that says its trouble.
    """
    settings: list[Setting] = []
    files: list[Setting] = []
    words = deque(argv)
    while words:
        word = words.popleft()
        word = SHORT.get(word, word)
        if word == "--":
            files += [_file(rest) for rest in words]
            break
        if not word.startswith("-"):
            files.append(_file(word))
            continue
        try:
            settings.append(_option(word, words, names, rare))
        except ValueError as error:
            settings.append(unreadable("command line", shown(word), str(error), "command line"))
            if words and "=" not in word and not words[0].startswith("-") and not _FILE.search(words[0]):
                words.popleft()  # its value, by the looks of it
    return settings + files


def nearest(name: str, names: Iterable[str], ratio: float) -> str | None:
    """The name most like `name`, if any is at least so like it."""
    found = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=1, cutoff=ratio)
    return found[0] if found else None


def did_you_mean(name: str, names: Iterable[str], dashes: str = "--") -> str:
    """`, did you mean --listen?`, or nothing where no name is like it."""
    near = nearest(name.partition("=")[0], names, SUGGESTED)
    return f", did you mean {dashes}{near}?" if near else ""


def _option(word: str, words: deque[str], names: Mapping[str, Name], rare: Mapping[str, Name]) -> Setting:
    """The setting that begins with `word`; its value may be the next one. ValueError where it is none."""
    written, equals, value = word[2:].partition("=")
    name = _complete(written, names, rare) if word.startswith("--") else None
    if name is None:
        raise ValueError(f"unknown option{did_you_mean(word.strip('-'), names)}")
    notation = (names.get(name) or rare[name]).notation
    if not equals and notation == "=":
        value = _value_of(words)
    elif not equals and notation == "" and words and words[0].lower() in TRUE_WORDS + FALSE_WORDS:
        value = words.popleft()  # uWSGI's `--fastrouter-quiet true`: a flag that wants a value there
    return _setting(name, value)


def _complete(written: str, names: Mapping[str, Name], rare: Mapping[str, Name]) -> str | None:
    """The full name that was meant, None for no such name."""
    if written in names or written in rare:
        return written
    for some in (names, rare):
        found = sorted(name for name in some if written and name.startswith(written))
        if len({some[name].meaning for name in found}) == 1:
            return found[0]
        if found:
            among = ", ".join(f"--{name}" for name in found[:8]) + (", ..." if len(found) > 8 else "")
            raise ValueError(f"ambiguous, it could be {among}")
    return None


def _value_of(words: deque[str]) -> str:
    if not words:
        raise ValueError("a value is missing")
    if words[0].startswith("--"):
        raise ValueError(f"a value is missing, {shown(words[0])} follows")
    return words.popleft()


def _file(word: str) -> Setting:
    if not _FILE.search(word):
        reason = "neither an option (--NAME) nor a file that ends in .ini, nor a command as the first word"
        return unreadable("command line", shown(word), reason, "command line")
    return _setting("ini", word)


def _setting(name: str, value: str) -> Setting:
    return Setting(name, value, "command line", shown(f"--{name} {value}".rstrip()), True, "command line")
