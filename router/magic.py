"""uWSGI's magic letters: `%d` in a file is its folder, and so on. They are replaced in the whole file, then it is read.

As in uWSGI 2.0.31 (core/uwsgi.c: config_magic_table_fill, core/utils.c: magic_sub): every percent sign takes the byte
behind it with it, whatever that is, so a letter that says nothing vanishes. `%%` is a percent sign, `%(` stays for the
placeholders. Pure, but for what surroundings.py tells.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from router import __version__
from router.key import djb33x
from router.surroundings import Surroundings

# Of the file that was named first, in capitals.
OF_THE_FIRST = "odspcenxij"

_LETTER = re.compile(rb"%(.?)", re.DOTALL)

Letters = Mapping[str, str]


def everywhere(there: Surroundings) -> dict[str, str]:
    """The letters that are the same in all files."""
    return {
        "%": "%",
        "(": "%(",
        "[": "\033",
        "v": there.folder,
        "h": there.host,
        "t": str(there.micros // 1_000_000),
        "T": str(there.micros),
        "V": __version__,
        "k": str(there.cpus),
        "u": str(there.uid),
        "U": there.user(),
        "g": str(there.gid),
        "G": there.group(),
    }


def of_file(file: str, section: str, there: Surroundings) -> dict[str, str]:
    """The letters of one file, of which `section` was asked for by name, or "" for none."""
    path = there.full_name(file)
    folder, _, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return {
        "o": file,
        "x": section,
        "b": there.binary,
        "p": path,
        "j": djb33x(os.fsencode(path)).to_bytes(4, "little").hex().upper(),
        "i": there.inode(path),
        "s": name,
        "d": f"{folder}/",
        "c": folder.rpartition("/")[2],
        "n": stem if dot else name,
        "e": ending if dot else "",
        **dict(zip("0123456789", [*filter(None, folder.split("/")), *[""] * 10], strict=False)),
    }


def of_first(letters: Letters) -> dict[str, str]:
    """The same of the file that was named first, as those that it reads have them: in capitals."""
    return {letter.upper(): letters[letter] for letter in OF_THE_FIRST}


def substituted(data: bytes, letters: Letters) -> bytes:
    """`data` with its letters replaced. A newline behind a percent sign goes as well; a NUL stays to count its line."""
    table = {letter.encode(): os.fsencode(value) for letter, value in letters.items()} | {b"\n": b"\0"}
    return _LETTER.sub(lambda found: table.get(found[1], b""), data)


def vanishing(line: str, letters: Letters) -> str:
    """The first letter in `line` that says nothing, with its percent sign; "" where all say something."""
    found = (each[0] for each in re.finditer(r"%(.?)", line) if not letters.get(each[1]))
    return next(found, "")
