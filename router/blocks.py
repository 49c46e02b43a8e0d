"""The blocks of uWSGI's dialect: `for = a b` ... `endfor`, `if-env = NAME` ... `else` ... `endif`, and their kind.

As uWSGI does it (core/config.c): a block does not nest, it goes on over the end of a file until something ends it, and
each of its lines is looked at by itself when it is read. So a loop gives its first line for all its words, then its
second one, and a condition is asked again for each line. `%(_)` in a value is the word, or what was asked about. `else`
is uWSGI 2.1's; it takes the lines where the condition has not held.
Pure, but for what surroundings.py tells; `find` gives the value of a setting that has been read before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from router.expansion import Find
from router.setting import Setting
from router.surroundings import Surroundings

# No loop of a configuration has more rounds; one with more is a number typed wrong, or the wrong file.
MAX_ROUNDS = 10_000
MAX_READLINE_CHARS = 1023  # a longer line of `for-readline` is several, as for uWSGI

ITSELF = "%(_)"
ENDS = ("end", "endfor", "endif", "end-if", "end-for")
ELSE = "else"
# The plugins that a router may be asked for: it is all of them.
PLUGINS = ("corerouter", "fastrouter")

Asked = tuple[bool, str | None]  # whether it holds, and what stands in the place of %(_), None for %(_) itself


class Block:
    """One block, of which `opening` is the first line. ValueError where its argument cannot be used."""

    def __init__(self, opening: Setting, there: Surroundings, find: Find) -> None:
        self.opening = opening
        self._there, self._find = there, find
        self._otherwise = False
        self._held: bool | None = None

    def otherwise(self) -> None:
        """From here on stand the lines for where it does not hold. ValueError where it has no such lines."""
        if self._otherwise or self.opening.name in LOOPS:
            raise ValueError(f"stands in {self.opening.written}, which has no other lines")
        if self._held is None:
            self._held = self._asked()[0]
        self._otherwise = True

    def settings(self, line: Setting) -> list[Setting]:
        """What becomes of a line in it."""
        if self._otherwise:
            return [] if self._held else [line]
        if self.opening.name in LOOPS:
            return [_with(line, word) for word in self._words()]
        self._held, word = self._asked()
        return [line if word is None else _with(line, word)] if self._held else []

    def _words(self) -> list[str]:
        words = LOOPS[self.opening.name](self.opening.value, self._there)
        if len(words) > MAX_ROUNDS:
            raise ValueError(f"over {MAX_ROUNDS} rounds in {self.opening.written}")
        return words

    def _asked(self) -> Asked:
        return CONDITIONS[self.opening.name](self.opening.value, self._there, self._find)


def _with(line: Setting, word: str) -> Setting:
    return replace(line, value=line.value.replace(ITSELF, word))


def _times(text: str, there: Surroundings) -> list[str]:
    number = re.match(r"[ \t-\r]*\+?([0-9]{1,9})", text)
    return [str(n) for n in range(1, min(int(number[1]), MAX_ROUNDS + 1) + 1)] if number else []


def _lines(text: str, there: Surroundings) -> list[str]:
    whole = there.contents(text).decode("utf-8", "surrogateescape")
    lines = (line for line in re.split(r"(?<=\n)", whole) if line)
    pieces = [line[at : at + MAX_READLINE_CHARS] for line in lines for at in range(0, len(line), MAX_READLINE_CHARS)]
    return [piece.rstrip("\r\n") for piece in pieces]


LOOPS: dict[str, Callable[[str, Surroundings], list[str]]] = {
    "for": lambda text, there: [word for word in text.split(" ") if word],
    "for-glob": lambda text, there: there.matching(text),
    "for-times": _times,
    "for-readline": _lines,
}


def _env(text: str, there: Surroundings, find: Find) -> Asked:
    return _compared(text, there.environ.get)


def _opt(text: str, there: Surroundings, find: Find) -> Asked:
    return _compared(text, find)


def _compared(text: str, find: Find) -> Asked:
    """`NAME`: whether there is one. `NAME=VALUE`: whether it is that."""
    name, equals, wanted = text.partition("=")
    value = find(name)
    return value is not None and (not equals or value == wanted), value


def _exists(text: str, there: Surroundings, find: Find) -> Asked:
    return there.readable(text), text


def _is_file(text: str, there: Surroundings, find: Find) -> Asked:
    return there.is_file(text), text


def _is_folder(text: str, there: Surroundings, find: Find) -> Asked:
    return there.is_folder(text), text


def _host(text: str, there: Surroundings, find: Find) -> Asked:
    return text == there.host, text


def _host_matches(text: str, there: Surroundings, find: Find) -> Asked:
    try:
        return re.search(text, there.host) is not None, text
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None


def _plugin(text: str, there: Surroundings, find: Find) -> Asked:
    return text in PLUGINS, text


def _reload(text: str, there: Surroundings, find: Find) -> Asked:
    return there.reloading, None


Condition = Callable[[str, Surroundings, Find], Asked]


def _not(condition: Condition) -> Condition:
    def asked(text: str, there: Surroundings, find: Find) -> Asked:
        holds, word = condition(text, there, find)
        return not holds, word

    return asked


_PLAIN: dict[str, Condition] = {
    "if-env": _env,
    "if-opt": _opt,
    "if-exists": _exists,
    "if-file": _is_file,
    "if-dir": _is_folder,
    "if-hostname": _host,
    "if-hostname-match": _host_matches,
    "if-plugin": _plugin,
    "if-reload": _reload,
}
CONDITIONS: dict[str, Condition] = {
    **_PLAIN,
    **{name.replace("if-", "if-not-"): _not(condition) for name, condition in _PLAIN.items()},
    "ifenv": _env,
    "ifexists": _exists,
    "ifdir": _is_folder,
    "if-directory": _is_folder,
    "ifplugin": _plugin,
}
OPENINGS = frozenset([*LOOPS, *CONDITIONS])
