"""What values refer to: `$(NAME)` of the environment, `@(FILE)`, and `%(name)` of the configuration itself.

As uWSGI 2.0.31 does it (core/utils.c: uwsgi_apply_config_pass, core/config.c: uwsgi_manage_placeholder), with what
follows from that: all values are gone through once for each of the three signs, in their order, and changed where they
stand; behind a replacement the value is looked at again from its second character on. So `%(a)` that is replaced by
`%(b)` stays `%(b)`. A name that nobody knows stays as it is, `$(NAME:-default)` too: uWSGI has no defaults.
Pure: who knows a name is a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# One value of real files uses a handful; the bound ends placeholders that refer to themselves.
MAX_PLACEHOLDERS = 100
MAX_VALUE_CHARS = 64 * 1024

INT64 = 1 << 64

_NUMBER = re.compile(r"[ \t-\r]*([+-]?[0-9]+)")
_REFERENCE = re.compile(r"%\(([^()]*)\)")

Find = Callable[[str], str | None]


def expand(text: str, sign: str, find: Find, keep: Callable[[str], None] = lambda text: None) -> str:
    """`text` with every `SIGN(name)` that `find` knows replaced.

    `keep` is told of each step, as a value may refer to itself. ValueError where it grows without an end.
    """
    opening, inside = re.compile(re.escape(sign) + r"\("), re.compile(rf"[(){re.escape(sign)}]")
    at, steps = 0, 0
    while begin := opening.search(text, at):
        end = _closing(text, begin.end(), inside)
        name = text[begin.end() : end]
        value = find(name) if end is not None and name else None
        if value is None:
            at = begin.end()
            continue
        assert end is not None
        text = text[: begin.start()] + value + text[end + 1 :]
        keep(text)
        at = 1
        steps += 1
        if len(text) > MAX_VALUE_CHARS:
            raise ValueError(f"grows past {MAX_VALUE_CHARS} characters by its placeholders (does one refer to itself?)")
        if steps == MAX_PLACEHOLDERS:
            raise ValueError(f"over {MAX_PLACEHOLDERS} placeholders in one value (does one refer to itself?)")
    return text


def _closing(text: str, at: int, inside: re.Pattern[str]) -> int | None:
    """Where the bracket closes that was opened before `at`; None where it does not, or the sign comes again first."""
    depth = 0
    while found := inside.search(text, at):
        if found[0] == ")":
            if depth == 0:
                return found.start()
            depth -= 1
        elif found[0] == "(":
            depth += 1
        else:
            return None
        at = found.end()
    return None


def placeholder(name: str, find: Find) -> str | None:
    """What `%(name)` is: the value of `name`; or with spaces in it a small sum, from left to right.

    `a b` joins, `+ - * /` reckon with whole numbers (text that is none is 0, and so is what is divided by 0), `a ++`
    and `a --` add and take one. None where there is nothing to put in its place.
    """
    if " " not in name:
        return find(name)
    value: str | None = None
    operation = ""
    for word in filter(None, name.split(" ")):
        if word in ("++", "--"):
            if value is not None:
                value = _text(_number(value) + (1 if word == "++" else -1))
            operation = ""
        elif word in _OPERATIONS:
            operation = word
        else:
            other = word if re.fullmatch("[0-9]+", word) else find(word) or ""
            value = _OPERATIONS[operation](value or "", other)
            operation = ""
    return value


def _divided(a: int, b: int) -> int:
    """As C does it: towards 0."""
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_OPERATIONS: dict[str, Callable[[str, str], str]] = {
    "": lambda a, b: a + b,
    "+": lambda a, b: _text(_number(a) + _number(b)),
    "-": lambda a, b: _text(_number(a) - _number(b)),
    "*": lambda a, b: _text(_number(a) * _number(b)),
    "/": lambda a, b: _text(_divided(_number(a), _number(b))),
}


def _number(text: str) -> int:
    """The number with which a text begins, as strtoll reads it; 0 where it begins with none."""
    found = _NUMBER.match(text)
    return max(-INT64 // 2, min(INT64 // 2 - 1, int(found[1][:30]))) if found else 0


def _text(number: int) -> str:
    return str((number + INT64 // 2) % INT64 - INT64 // 2)


def references(text: str) -> set[str]:
    """The names that a value refers to with `%(...)`, inside sums as well."""
    return {word for inside in _REFERENCE.findall(text) for word in [inside, *inside.split()]}


def left(text: str, known: Callable[[str], bool]) -> str:
    """The first `%(name)` of a known name, or else the first `$(NAME)`, that is still in a value; "" for none."""
    for found in _REFERENCE.finditer(text):
        if known(found[1]):
            return found[0]
    unset = re.search(r"\$\([^()]+\)", text)
    return unset[0] if unset else ""
