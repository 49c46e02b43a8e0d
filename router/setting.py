"""One assignment as somebody wrote it, what becomes of it, and the error that says why it cannot be used.

Values; nothing is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from router.url import without_password
from router.uwsgi import printable

# So much of a text is shown in a message, in characters.
SHOWN_CHARS = 80

Origin = Literal["environment", "file", "command line"]

# set: it is in force. replaced: a stronger or later one is. read: it steers how the rest is read. worker: a worker's.
Word = Literal["set", "replaced", "read", "worker", "ignored", "placeholder", "left out", "refused"]


class OptionsError(ValueError):
    """What somebody configured cannot be used; one line that names the place, the text and what is legal."""


@dataclass(frozen=True)
class Setting:
    """One assignment.

    `value` is "" for a bare name. `place` is where it stands: `FILE:LINE`, or else its origin; `written` what stands
    there, fit for a message. `plain`: in gfrouter's own spellings ([gfrouter], command line), not in those of [uwsgi].
    `trouble` is why it could not even be read; such a one has no name. `vanishing` is a magic letter (magic.py) in it
    that stands for nothing, if there is one.
    """

    name: str
    value: str
    place: str
    written: str
    plain: bool
    origin: Origin
    trouble: str = ""
    vanishing: str = ""

    @property
    def shown(self) -> str:
        """It with its place, with which messages on it begin."""
        if self.origin == "file":
            return f"{self.place}: {self.written}" if self.written else self.place
        return f"{self.written} in the environment" if self.origin == "environment" else self.written


@dataclass
class Finding:
    """What becomes of one setting; `text` is the rest of the sentence. `refused` alone is a problem."""

    setting: Setting
    word: Word
    text: str

    def __str__(self) -> str:
        return self.setting.shown + (self.text if self.text.startswith(",") else f": {self.text}")

    def become(self, word: Word, text: str) -> None:
        self.word, self.text = word, text


# By field: every assignment and the value that it gave, the weakest first.
Given = dict[str, list[tuple[Finding, Any]]]


def unreadable(place: str, written: str, trouble: str, origin: Origin = "file") -> Setting:
    """What stands in a setting's place, and is none."""
    return Setting("", "", place, written, False, origin, trouble)


def shown(text: str) -> str:
    """A text for one line of a message: control characters escaped, no password, the middle of a long one left out."""
    clean = printable(without_password(text))
    if len(clean) <= SHOWN_CHARS:
        return clean
    return f"{clean[: SHOWN_CHARS - 15]}...{clean[-12:]}"
