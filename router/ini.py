"""uWSGI's ini files, read strictly: the bytes of one file in, its settings out.

The format (fastrouter users' files must read as they do in uWSGI): `key = value`, a bare name, whole-line
`;` and `#` comments, no quotes, CRLF allowed, repeated keys kept in order, sections that nobody asked for
skipped; magic letters (magic.py) first of all. What a name or a value means is not known here. Where uWSGI ignores
nonsense in silence (a line before any section, a broken section line, a file without the section), there is a setting
that says its trouble, with file and line: an operator's typo must not become a default.
"""

from __future__ import annotations

from collections.abc import Iterator

from router import magic
from router.magic import Letters
from router.setting import Setting, shown, unreadable

# A line beyond it is no configuration.
MAX_LINE_BYTES = 64 * 1024

BLANK = " \t\r"  # what uWSGI strips around keys and values
OWN_SECTION = "gfrouter"
UWSGI_SECTION = "uwsgi"
SECTIONS = (UWSGI_SECTION, OWN_SECTION)  # those that are read where none is named


def parse(data: bytes, file: str, sections: tuple[str, ...], letters: Letters) -> list[Setting]:
    """The settings that `sections` hold, and what is wrong in the file; `file` is the name for messages."""
    settings: list[Setting] = []
    section: str | None = None
    seen: list[str] = []
    data = data.removeprefix(b"\xef\xbb\xbf")
    before = data.split(b"\n")
    for number, raw in _lines(data, letters):
        where = f"{file}:{number}"
        try:
            line = _text(raw).strip(BLANK)
        except ValueError as error:
            settings.append(unreadable(where, "", str(error)))
            continue
        if not line:
            continue
        if line[0] == "[":
            try:
                section = _section_name(line)
            except ValueError as error:
                settings.append(unreadable(where, shown(line), str(error)))
                section = ""  # nobody's: which of its lines were meant for us, the operator must say
            seen.append(section)
        elif section is None:
            settings.append(unreadable(where, shown(line), "stands before any [section]"))
        elif section in sections:
            vanishing = magic.vanishing(before[number - 1].decode(errors="replace"), letters)
            settings.append(_setting(line, where, section == OWN_SECTION, vanishing))
    if not set(seen) & set(sections) and not any(setting.trouble for setting in settings):
        wanted = " or ".join(f"[{name}]" for name in sections)
        found = ", ".join(f"[{shown(name)}]" for name in seen[:10]) or "no section at all"
        settings.append(unreadable(file, "", f"has no section {wanted} (but {found})"))
    return settings


def place(spec: str) -> tuple[str, str]:
    """The file and the section, "" for none, of `FILE` or `FILE:SECTION`; the file is "" in `:SECTION`."""
    file, colon, section = spec.rpartition(":")
    return (file, section) if colon else (spec, "")


def _lines(data: bytes, letters: Letters) -> Iterator[tuple[int, bytes]]:
    """The numbered lines, letters replaced."""
    if b"\0" in data:  # which would be taken for a newline that a percent sign took with it
        before = data[: data.index(0)]
        yield before.count(b"\n") + 1, data.split(b"\n")[before.count(b"\n")]
        return
    number = 1
    for line in magic.substituted(data, letters).split(b"\n"):
        yield number, line.replace(b"\0", b"")
        number += 1 + line.count(b"\0")


def _text(raw: bytes) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"a line of {len(raw)} bytes, but {MAX_LINE_BYTES} is the limit")
    if b"\0" in raw:
        raise ValueError(f"a NUL byte at column {raw.index(0) + 1}")
    if raw.lstrip(BLANK.encode()).startswith((b";", b"#")):
        return ""  # a comment, of whatever encoding
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{raw[error.start]:02x} at column {error.start + 1} is not UTF-8") from None


def _section_name(line: str) -> str:
    name, bracket, rest = line[1:].partition("]")
    if not bracket:
        raise ValueError("a section line without its closing ]")
    if rest:
        raise ValueError("text after the section's closing ]")
    return name


def _setting(line: str, where: str, plain: bool, vanishing: str) -> Setting:
    key, equals, value = line.partition("=")
    name, value = key.rstrip(BLANK), value.lstrip(BLANK)
    if not name:
        return unreadable(where, shown(line), "no name before the =")
    if not equals and len(name.split()) > 1:
        return unreadable(where, shown(line), "no = between name and value")
    written = shown(f"{name} = {value}".rstrip() if equals else name)
    return Setting(name, value, where, written, plain, origin="file", vanishing=vanishing)
