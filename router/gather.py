"""Every setting of environment, command line and files, in uWSGI's order, with uWSGI's dialect done.

As uWSGI 2.0.31 does it (core/config.c: add_exported_option, uwsgi_configure): one list of settings, to which each is
added as it comes. What only steers the reading acts at once, as it stands: `ini` and `include` put the settings of
another file in their place, `set` one setting, blocks (blocks.py) multiply or drop what is added. Afterwards the values
are expanded (expansion.py). Then `inherit` adds its files, behind everything else, and their values are not expanded.
The first value of a name is its value as a placeholder. What a setting does, configuration.py knows.
Trouble is noted where it is met, and the reading goes on, so that all of it can be told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from router import ini, magic
from router.blocks import ELSE, ENDS, OPENINGS, Block
from router.expansion import expand, placeholder
from router.setting import Setting
from router.surroundings import Surroundings
from router.uwsgi import printable

# A configuration that reads more than that reads itself, one way or another.
MAX_SETTINGS = 100_000

INI = "ini"  # takes any name; `include` and `inherit` look at its end
READING = ("include", "inherit")
PLACEHOLDERS = ("set-placeholder", "set-ph")
WORDS = frozenset([INI, *READING, "set", *PLACEHOLDERS, ELSE, *ENDS, *OPENINGS])

OTHER_FORMATS = (".xml", ".yaml", ".yml", ".json", ".js")
AS_AN_INI = "gfrouter reads ini files only: write the same settings as NAME = VALUE under [uwsgi]"
_SCHEME = re.compile(r"(emperor|http|data|sym|section|fd|exec|call|callint)://|-$")


class Endless(Exception):
    """There is no end to the settings."""


@dataclass
class Gathered:
    """One setting and what became of it: its `value`, expanded; `note` is what it did if it only steers the reading.

    `left_out` names the block that dropped it. `trouble` is why it cannot be used. `chain` are the files that led to
    it, each with its section.
    """

    setting: Setting
    value: str
    note: str = ""
    left_out: str = ""
    trouble: str = ""
    placeholder: bool = False  # by set-placeholder: never an option
    expanded: bool = False
    chain: tuple[str, ...] = ()

    @property
    def is_in_force(self) -> bool:
        """Whether it may be an option: nothing speaks against it, and it did not just steer the reading."""
        return not (self.trouble or self.left_out or self.note or self.placeholder)


class Gathering:
    """`options` are the names that uWSGI or we have as options, so that none is taken for a placeholder."""

    def __init__(self, there: Surroundings, options: Collection[str]) -> None:
        self.gathered: list[Gathered] = []
        self.warnings: list[str] = []
        self._there = there
        self._options = options
        self._first: dict[str, Gathered] = {}
        self._block: Block | None = None
        self._running = False  # a line of a block is being added, so that what it reads is not in the block again
        self._chain: tuple[str, ...] = ()
        self._last_file = ""
        self._letters = magic.everywhere(there)

    def of(self, settings: Iterable[Setting]) -> list[Gathered]:
        """What all of them come to."""
        try:
            for setting in settings:
                self._add(setting)
            self._expand("$", self._there.environ.get)
            self._expand("@", self._file_text)
            self._expand("%", lambda name: placeholder(name, self.find))
            for given in self.gathered:  # which grows meanwhile
                if given.setting.name == "inherit" and not (given.trouble or given.left_out):
                    self._read(given, given.value)
        except Endless:
            last = self.gathered[-1]
            last.trouble = f"over {MAX_SETTINGS} settings (does a file read itself?)"
        if self._block:
            self.warnings.append(f"{self._block.opening.shown}: nothing ends it")
        return self.gathered

    def find(self, name: str) -> str | None:
        """The first value of a name; None where it has none, as a flag of the command line."""
        given = self._first.get(name)
        if given is None or (given.setting.origin == "command line" and not given.value):
            return None
        return given.value

    def _add(self, setting: Setting) -> None:
        if setting.trouble:
            self._note(setting, trouble=setting.trouble)
            return
        if self._running:
            self._put(setting)
            return
        if setting.name in ENDS:
            self._block = None
        elif self._block and setting.name == ELSE:
            self._put(setting)
            return
        block = self._block
        if block is None:
            self._put(setting)
            return
        try:
            lines = block.settings(setting)
        except ValueError as error:
            self._note(setting, trouble=str(error))
            return
        if not lines:
            self._note(setting, left_out=block.opening.written)
        self._running = True
        for line in lines:
            self._put(line)
        self._running = False

    def _note(self, setting: Setting, trouble: str = "", left_out: str = "") -> None:
        self.gathered.append(Gathered(setting, setting.value, trouble=trouble, left_out=left_out))

    def _put(self, setting: Setting, is_placeholder: bool = False) -> None:
        if len(self.gathered) >= MAX_SETTINGS:
            raise Endless
        given = Gathered(setting, setting.value, placeholder=is_placeholder, expanded=is_placeholder, chain=self._chain)
        self.gathered.append(given)
        self._first.setdefault(setting.name, given)
        if setting.name in WORDS and not is_placeholder:
            given.expanded = setting.name != "inherit"
            try:
                self._act(given)
            except ValueError as error:
                given.trouble = str(error)

    def _act(self, given: Gathered) -> None:
        """What steers the reading. ValueError where it cannot."""
        setting = given.setting
        if setting.name in (INI, "include"):
            self._read(given, setting.value)
        elif setting.name in ("set", *PLACEHOLDERS):
            self._set(given)
        elif setting.name in OPENINGS:
            if self._block:
                raise ValueError(f"stands in {self._block.opening.written}; uWSGI's blocks do not nest")
            self._block = Block(setting, self._there, self.find)
            given.note = "begins a block"
        elif setting.name == ELSE:
            if self._block is None or self._running:
                raise ValueError("stands without its if")
            self._block.otherwise()
            given.note = "takes what does not hold"
        elif setting.name in ENDS:
            given.note = "ends a block"

    def _set(self, given: Gathered) -> None:
        name, equals, value = given.setting.value.partition("=")
        if not equals:
            raise ValueError("no = between name and value (legal: NAME=VALUE)")
        is_placeholder = given.setting.name in PLACEHOLDERS
        if is_placeholder and name in self._options:
            raise ValueError(f"{name} is an option, so it cannot be a placeholder")
        given.note = f"names {printable(name)}"
        self._put(replace(given.setting, name=name, value=value), is_placeholder)

    def _read(self, given: Gathered, spec: str) -> None:
        """The settings of a file, in this place. What is wrong is this setting's trouble."""
        try:
            settings, this = self._settings(given, spec)
        except ValueError as error:
            given.trouble = str(error)
            return
        number = sum(not each.trouble for each in settings)
        given.note = f"reads {number} setting{'' if number == 1 else 's'}"
        before, self._chain = self._chain, (*given.chain, this)
        for setting in settings:
            self._add(setting)
        self._chain = before

    def _settings(self, given: Gathered, spec: str) -> tuple[list[Setting], str]:
        _refuse_schemes(spec)
        file, section = ini.place(spec)
        if file.endswith(OTHER_FORMATS):
            raise ValueError(AS_AN_INI)
        if given.setting.name in READING and not spec.endswith(".ini"):
            raise ValueError(f"does not end in .ini, as uWSGI wants it after {given.setting.name}")
        if file:
            self._turn_to(file, section, is_first=given.setting.name == INI)
        elif not self._last_file:
            raise ValueError("names no file")
        else:
            file = self._last_file
            self._letters |= {"o": "", "x": section}
        this = f"{self._there.full_name(file)}:{section}"
        if this in given.chain:
            raise ValueError(
                "reads itself, over " + " and ".join(printable(each.removesuffix(":")) for each in given.chain[-3:])
            )
        data = self._there.contents(file)
        sections = (section,) if section else ini.SECTIONS
        return ini.parse(data, printable(file), sections, self._letters), this

    def _turn_to(self, file: str, section: str, is_first: bool) -> None:
        self._last_file = file
        self._letters |= magic.of_file(file, section, self._there)
        if is_first and "P" not in self._letters:
            self._letters |= magic.of_first(self._letters)

    def _file_text(self, name: str) -> str:
        _refuse_schemes(name)
        text = self._there.contents(name).decode("utf-8", "surrogateescape").partition("\0")[0]
        return text[:-1] if text.endswith(("\n", "\r")) else text

    def _expand(self, sign: str, find: Callable[[str], str | None]) -> None:
        for given in self.gathered:
            if given.expanded or given.trouble or given.left_out:
                continue

            def keep(text: str, given: Gathered = given) -> None:
                given.value = text

            try:
                expand(given.value, sign, find, keep)
            except ValueError as error:
                given.trouble = str(error)


def _refuse_schemes(spec: str) -> None:
    if scheme := _SCHEME.match(spec):
        what = "standard input" if scheme[0] == "-" else scheme[0]
        raise ValueError(f"gfrouter reads files only, not {what}")
