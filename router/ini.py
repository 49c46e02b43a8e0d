"""uWSGI's ini dialect, read strictly: bytes of a file in, settings out.

The dialect (fastrouter users' files must read as they do in uWSGI): `key = value`, a bare name, whole-line
`;` and `#` comments, no quotes, CRLF allowed, repeated keys kept in order, sections that nobody asked for
skipped, `%(name)` replaced by the first value of `name`. What a value means is not known here
(router/configuration.py knows). Where uWSGI ignores nonsense in silence (a line before any section, a broken
section line, a file without the section), this gives an OptionsError that names file and line: an operator's
typo must not become a default. Constructs of the dialect that are not read yet are found by `unsupported`,
never passed on as literal text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from router.url import without_password
from router.uwsgi import printable

# A file beyond these is no configuration, but a log or a device named by mistake.
MAX_FILE_BYTES = 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
# One value of real files uses a handful; the bound ends placeholders that refer to themselves.
MAX_PLACEHOLDERS = 100
# So much of a text is shown in a message, in characters.
SHOWN_CHARS = 80

BLANK = " \t\r"  # what uWSGI strips around keys and values
OWN_SECTION = "gfrouter"
UWSGI_SECTION = "uwsgi"

_REFERENCE = re.compile(r"%\(([^()]*)\)")
_MAGIC_LETTER = re.compile(r"%(?!\().?")


class OptionsError(ValueError):
    """What somebody configured cannot be used; one line that names the place, the text and what is legal."""


@dataclass(frozen=True)
class Setting:
    """One assignment as somebody wrote it.

    `value` is "" for a bare name. `shown` is the assignment with its place, with which messages on it
    begin. `plain`: written in gfrouter's own spellings ([gfrouter], command line), not in those of [uwsgi].
    """

    name: str
    value: str
    shown: str
    plain: bool
    origin: Literal["command line", "file", "environment"]


def read(spec: str) -> list[Setting]:
    """The settings of `FILE` ([uwsgi] and [gfrouter], in file order) or of `FILE:SECTION` (that one)."""
    file, _, section = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if not file:
        raise OptionsError(f"--ini {shown(spec)}: names no file")
    return parse(_contents(file), printable(file), (section,) if section else (UWSGI_SECTION, OWN_SECTION))


def parse(data: bytes, file: str, sections: tuple[str, ...]) -> list[Setting]:
    """The settings that `sections` hold; `file` is the name for messages."""
    settings: list[Setting] = []
    section: str | None = None
    seen: list[str] = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{file}:{number}"
        line = _text(raw, where).strip(BLANK)
        if not line or line[0] in ";#":
            continue
        if line[0] == "[":
            section = _section_name(line, where)
            seen.append(section)
        elif section is None:
            raise OptionsError(f"{where}: {shown(line)}: stands before any [section]")
        elif section in sections:
            settings.append(_setting(line, where, plain=section == OWN_SECTION))
    if not set(seen) & set(sections):
        wanted = " or ".join(f"[{name}]" for name in sections)
        found = ", ".join(f"[{shown(name)}]" for name in seen[:10]) or "no section at all"
        raise OptionsError(f"{file}: has no section {wanted} (but {found})")
    return settings


def expand(text: str, names: Mapping[str, str]) -> str:
    """`text` with every `%(name)` that `names` knows replaced, those in the replacements too; others stay."""
    at = 0
    for _ in range(MAX_PLACEHOLDERS):
        found = _REFERENCE.search(text, at)
        if found is None:
            return text
        value = names.get(found[1])
        if value is None:
            at = found.end()
            continue
        at = found.start()
        text = text[:at] + value + text[found.end() :]
        if len(text) > MAX_LINE_BYTES:
            raise ValueError(f"grows past {MAX_LINE_BYTES} characters when its placeholders are replaced")
    raise ValueError(f"over {MAX_PLACEHOLDERS} placeholders in one value (does one refer to itself?)")


def references(text: str) -> set[str]:
    """The names that a value refers to, inside sums as well."""
    return {word for inside in _REFERENCE.findall(text) for word in [inside, *inside.split()]}


def unsupported(text: str, in_file: bool) -> str | None:
    """The first construct in an expanded value that uWSGI would still replace, and gfrouter does not yet."""
    for reference in _REFERENCE.finditer(text):
        if " " in reference[1]:
            return f"the sum or join {shown(reference[0])}"
    for opening, construct in (("$(", "the environment variable $(...)"), ("@(", "the file @(...)")):
        if opening in text:
            return construct
    magic = _MAGIC_LETTER.search(text.replace("%%", "")) if in_file else None
    return f"the magic letter {shown(magic[0])}" if magic else None


def unescaped(text: str) -> str:
    """An expanded value of a file as it is meant: a percent sign stands there twice."""
    return text.replace("%%", "%")


def shown(text: str) -> str:
    """A text for one line of a message: control characters escaped, no password, the middle of a long one left out."""
    clean = printable(without_password(text))
    if len(clean) <= SHOWN_CHARS:
        return clean
    return f"{clean[: SHOWN_CHARS - 15]}...{clean[-12:]}"


def _contents(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise OptionsError(f"cannot read {printable(file)}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL inside the name
        raise OptionsError(f"cannot read {printable(file)}: {error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise OptionsError(f"cannot read {printable(file)}: over {MAX_FILE_BYTES} bytes, which is no ini file")
    return data


def _text(raw: bytes, where: str) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise OptionsError(f"{where}: a line of {len(raw)} bytes, but {MAX_LINE_BYTES} is the limit")
    if b"\0" in raw:
        raise OptionsError(f"{where}: a NUL byte at column {raw.index(0) + 1}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise OptionsError(f"{where}: byte 0x{byte:02x} at column {error.start + 1} is not UTF-8") from None


def _section_name(line: str, where: str) -> str:
    name, bracket, rest = line[1:].partition("]")
    if not bracket:
        raise OptionsError(f"{where}: {shown(line)}: a section line without its closing ]")
    if rest:
        raise OptionsError(f"{where}: {shown(line)}: text after the section's closing ]")
    return name


def _setting(line: str, where: str, plain: bool) -> Setting:
    key, equals, value = line.partition("=")
    name, value = key.rstrip(BLANK), value.lstrip(BLANK)
    if not name:
        raise OptionsError(f"{where}: {shown(line)}: no name before the =")
    if not equals and len(name.split()) > 1:
        raise OptionsError(f"{where}: {shown(line)}: no = between name and value")
    written = shown(f"{name} = {value}".rstrip() if equals else name)
    return Setting(name, value, f"{where}: {written}", plain, origin="file")
