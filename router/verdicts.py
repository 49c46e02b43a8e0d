"""What `gfrouter --check` prints: each setting with its place and what becomes of it, then the sum. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from router.configuration import Examination

WIDTH = 120  # of the lines, where no single name is longer
WRITTEN = 46  # the widest that the column of what is written gets
WORD = 12  # the width of the verdict, with the blanks behind it

# The order of the verdicts in the sum.
IN_THE_SUM = ("set", "replaced", "read", "worker", "ignored", "placeholder", "left out", "refused")


def page(found: Examination, problems: Sequence[str]) -> str:
    """The whole text. `problems` are those of `found`, or what is wrong with it beyond its settings."""
    rows = [(each.setting.place, each.setting.written, each.word, each.text.lstrip(", ")) for each in found.findings]
    place = max((len(row[0]) for row in rows), default=0) + 2
    written = min(max((len(row[1]) for row in rows), default=0), WRITTEN) + 2
    lines = [line for row in rows for line in _row(*row, place, written)]
    beyond = problems if found.options is not None else ()
    lines += [""] if lines else []
    lines += [f"note: {text}" for text in found.notes]
    lines += [f"refused: {text}" for text in beyond]
    lines.append(_sum(found, len(beyond)))
    return "\n".join(lines) + "\n"


def _row(place: str, written: str, word: str, text: str, width: int, written_width: int) -> list[str]:
    """One setting; what is too long for its column gets a line of its own."""
    left = f"{place:{width}}{written}"
    indent = width + written_width
    first = textwrap.wrap(text, max(WIDTH - indent - WORD, 40)) or [""]
    lines = [left] if len(left) > indent - 2 else []
    left = "" if lines else left
    lines.append(f"{left:{indent}}{word:{WORD}}{first[0]}".rstrip())
    return lines + [f"{'':{indent + WORD}}{line}" for line in first[1:]]


def _sum(found: Examination, beyond: int) -> str:
    counted: Counter[str] = Counter(each.word for each in found.findings)
    parts = [f"{counted[word]} {word}" for word in IN_THE_SUM if counted[word]]
    total = len(found.findings)
    text = f"{total} setting{'' if total == 1 else 's'}" + (f": {', '.join(parts)}" if parts else "")
    problems = counted["refused"] + beyond
    return f"{text}; {f'{problems} to put right' if problems else 'it can be used'}"
