"""What was configured: command line, ini files and environment, merged to one `Options`.

Order: command line over ini files over environment over default. Within one of them the last wins; repeatable
options add up over all of them, in that order from the weakest. How they are read is in router/gather.py; what uWSGI
knows and gfrouter does not is judged in router/foreign.py. Each setting gets a finding: what it does, or why it does
nothing. Nothing here prints, exits, binds or resolves: whoever calls `load` or `examine` does, or says, the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router import commandline, expansion, foreign, single
from router.commandline import Name
from router.entry import Entry
from router.errors import OFF, ON
from router.gather import INI, Gathered, Gathering
from router.mappers import one_mapper, worker_socket
from router.options import PLAIN, TABLE, UWSGI, Options
from router.setting import Finding, Given, OptionsError, Setting, shown
from router.surroundings import Surroundings, here

__all__ = ["Examination", "Finding", "HelpRequested", "OptionsError", "VersionRequested", "examine", "load"]

# How like an option's name an unknown one must be to be called a likely misspelling (difflib's ratio).
MISSPELT = 0.8
# What uWSGI's launchers leave in the environment under its prefix; no options, for uWSGI neither.
NOT_OPTIONS = (
    "UWSGI_RELOADS", "UWSGI_VASSALS_DIR", "UWSGI_EMPEROR_FD", "UWSGI_EMPEROR_FD_CONFIG", "UWSGI_EMPEROR_PROXY",
    "UWSGI_BROODLORD_NUM", "UWSGI_JAIL_PID", "UWSGI_ORIGINAL_PROC_NAME",
)  # fmt: skip
# The stronger comes later.
STRENGTH = ("environment", "file", "command line")


class HelpRequested(Exception):
    """--help stands on the command line."""


class VersionRequested(Exception):
    """--version stands on the command line."""


@dataclass(frozen=True)
class Examination:
    """All that there is to say of a configuration. `options` is None where there are problems; they then are why.

    `notes` are the warnings that are no setting's; `check` is whether it asks for no more than to be checked.
    """

    options: Options | None
    findings: list[Finding]
    warnings: list[str]
    notes: list[str]
    check: bool

    @property
    def problems(self) -> list[str]:
        return [str(finding) for finding in self.findings if finding.word == "refused"]


def load(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Options, list[str]]:
    """The options and the warnings that they are worth, one line each.

    `argv` is without the program's name. OptionsError with one line for the first that cannot be used;
    HelpRequested and VersionRequested where the command line asks for them.
    """
    found = examine(argv, here(environ))
    if found.options is None:
        raise OptionsError(found.problems[0])
    return found.options, found.warnings


def examine(argv: Sequence[str], there: Surroundings) -> Examination:
    """What everything that is configured comes to, setting by setting. HelpRequested, VersionRequested as in `load`."""
    typed = commandline.parse(argv, *_command_line_names())
    for setting in typed:
        if setting.name in ("help", "version"):
            raise HelpRequested if setting.name == "help" else VersionRequested
    gathering = Gathering(there, {*UWSGI, *PLAIN, *foreign.KNOWN})
    gathered = gathering.of([*_from_environment(there.environ), *typed])
    return _Merge(gathered, gathering).examination()


def _command_line_names() -> tuple[dict[str, Name], dict[str, Name]]:
    """The names that a command line may hold: those that matter, and the rest, which make no beginning ambiguous.

    To the rest belong what workers have, and what we have written as uWSGI would if it had it.
    """
    named = {name: Name(entry.notation, entry.field) for name, entry in (UWSGI | PLAIN).items()}
    invented = {name: named.pop(name) for name, entry in UWSGI.items() if entry.ours and name not in PLAIN}
    asked = {name: Name("", name) for name in ("help", "version")}
    known = foreign.notations("refused", "postponed", "idle", "silent")
    matter = {name: Name(notation, name) for name, notation in known}
    plain = {name.removeprefix("fastrouter-"): known for name, known in matter.items()}
    rest = {name: Name(notation, name) for name, notation in foreign.notations("worker", "dialect")}
    return {**plain, **matter, **asked, **named}, {**rest, **invented}


def _from_environment(environ: Mapping[str, str]) -> list[Setting]:
    """UWSGI_NAME in uWSGI's spelling, GFROUTER_NAME in the plain one; the latter is the stronger."""
    return [
        Setting(
            key.removeprefix(prefix).lower().replace("_", "-"),
            value,
            "environment",
            shown(f"{key}={value}"),
            plain,
            origin="environment",
        )
        for prefix, plain in (("UWSGI_", False), ("GFROUTER_", True))
        for key, value in environ.items()
        if key.startswith(prefix) and key not in NOT_OPTIONS
    ]


class _Merge:
    """Settings → options, with a finding for each setting. Used once."""

    def __init__(self, gathered: Sequence[Gathered], gathering: Gathering) -> None:
        self._gathered = gathered
        self._gathering = gathering
        self._warnings: dict[str, str] = {}
        self._given: Given = {}
        self._unknown: list[Finding] = []
        self._shared: list[tuple[Finding, Gathered]] = []  # what a worker gets, if there is one beside the router
        self._used = {name for each in gathered for name in expansion.references(each.setting.value)}

    def examination(self) -> Examination:
        findings = [self._finding(each) for each in self._gathered]
        self._given = {field: sorted(given, key=_strength) for field, given in self._given.items()}
        for ignored in one_mapper(self._given):
            self._warnings.setdefault(ignored.setting.shown, f"{ignored.setting.shown}: ignored, {ignored.text}")
        self._check_shared()
        self._check_users()
        values = self._values()
        worker = self._worker(values)
        socket = worker_socket(self._given, self._gathered)
        self._judge_unknown(values.get("strict", False))
        check = values.get("check", False)
        notes = self._gathering.warnings
        if any(finding.word == "refused" for finding in findings):
            return Examination(None, findings, [], notes, check)
        defaulted = frozenset(entry.field for entry in TABLE) - values.keys()
        values.setdefault("error_pages", _error_pages(self._given))
        options = Options(**values, defaulted=defaulted, worker_socket=socket, worker=worker)
        notes = [*notes, *_unused_shared_sockets(options)]
        return Examination(options, findings, [*self._warnings.values(), *notes], notes, check)

    def _finding(self, each: Gathered) -> Finding:
        setting = each.setting
        finding = Finding(setting, "placeholder", "")
        entry = _entry(setting)
        if each.trouble:
            finding.word, finding.text = "refused", each.trouble
        elif each.left_out:
            finding.word, finding.text = "left out", f"{each.left_out} does not hold"
        elif each.note and setting.name != INI:
            finding.word, finding.text = "read", each.note
        elif each.placeholder:
            finding.text = _as_placeholder(setting, self._used)
        elif entry:
            self._assign(finding, entry, each)
            if not setting.plain and setting.name in single.OF_BOTH:
                self._shared.append((finding, each))
        elif verdict := foreign.verdict(setting.name, each.value, setting.plain):
            if _may_be_workers(setting) and (verdict in ("worker", "silent") or setting.name in single.DAEMONS):
                self._shared.append((finding, each))
            self._judge(finding, verdict)
        else:
            finding.text = _as_placeholder(setting, self._used)
            self._unknown.append(finding)
            if _may_be_workers(setting):  # a placeholder of ours may be an option of the worker's plugins
                self._shared.append((finding, each))
        return finding

    def _assign(self, finding: Finding, entry: Entry, each: Gathered) -> None:
        try:
            value = entry.read(each.value)
        except ValueError as error:
            finding.word, finding.text = "refused", str(error)
            return
        value = entry.default if value == 0 and entry.zero_is_default else value
        finding.word = "read" if each.note else "set"
        finding.text = each.note or f"{entry.plain[0]} {_understood(entry, each.value, value)}"
        self._given.setdefault(entry.field, []).append((finding, value))
        if letter := each.setting.vanishing:
            self._warn(finding, f"{shown(letter)} stands for nothing and was taken out (a percent sign is %%)")
        elif reference := expansion.left(each.value, lambda name: self._gathering.find(name) is not None):
            self._warn(finding, f"{shown(reference)} stays as it is, as in uWSGI")

    def _judge(self, finding: Finding, verdict: foreign.Verdict) -> None:
        setting = finding.setting
        finding.word, finding.text = "ignored", "is so in gfrouter anyway"
        if verdict in ("refused", "postponed"):
            finding.word, finding.text = "refused", foreign.why(setting.name)
        elif verdict == "idle":
            finding.text = "has no effect in gfrouter"
            self._warnings.setdefault(setting.name, str(finding))
        elif verdict == "worker":
            twin = PLAIN.get(setting.name)
            finding.text = "a router has no use for it" + (f" (the router's is {twin.uwsgi[0]})" if twin else "")
            self._warnings.setdefault(setting.name, f"{setting.shown}: ignored, {finding.text}")

    def _worker(self, values: dict[str, Any]) -> single.Part | None:
        """What a worker beside the router gets, where the configuration starts one."""
        if "listen" not in values or not single.starts_worker(finding.setting.name for finding, _ in self._shared):
            return None
        for finding, _ in self._shared:
            if finding.word in ("ignored", "refused") and finding.text:
                finding.become("worker", "is the worker's")
                self._warnings.pop(finding.setting.name, None)
        said = [single.Said(each.setting.name, each.value, each.setting.shown) for _, each in self._shared]
        try:
            return single.part(said, values["listen"], values.get("shared_socket", ()))
        except single.PartError as error:
            culprit = next(finding for finding, each in self._shared if each.setting.shown == error.shown)
            culprit.become("refused", error.reason)
            return None

    def _check_users(self) -> None:
        """Of uid and fastrouter-uid none can be left out in silence where they differ."""
        for name in ("uid", "gid"):
            given = self._given.get(name, [])
            for finding, value in given:
                last, wanted = given[-1]
                if value != wanted and finding.setting.name != last.setting.name:
                    last.become("refused", f", but {finding.setting.shown}: all processes are of one user")

    def _warn(self, finding: Finding, text: str) -> None:
        finding.text += f"; {text}"
        self._warnings.setdefault(f"{finding.setting.shown}: {text}", f"{finding.setting.shown}: {text}")

    def _judge_unknown(self, strict: bool) -> None:
        """Unknown names are placeholders, as for uWSGI: an error under `strict`, else a warning if misspelt."""
        for finding in self._unknown:
            setting = finding.setting
            spelled = {**(PLAIN if setting.plain else {}), **UWSGI}
            candidates = [*spelled, *dict(foreign.notations("refused", "postponed", "dialect"))]
            if strict and setting.origin != "environment":
                hint = commandline.did_you_mean(setting.name, candidates, dashes="")
                finding.word, finding.text = "refused", f"unknown option, and strict is set{hint}"
                continue
            near = commandline.nearest(setting.name, candidates, MISSPELT)
            if not setting.plain and setting.name in PLAIN:
                near = PLAIN[setting.name].uwsgi[0]
            if near and setting.name not in self._used:
                finding.text = f"unknown, so a mere placeholder; did you mean {near}?"
                self._warnings.setdefault(setting.name, str(finding))
            elif setting.name.startswith("fastrouter-"):
                finding.text = "unknown, so a mere placeholder"
                self._warnings.setdefault(setting.name, str(finding))

    def _values(self) -> dict[str, Any]:
        """One value a field: the last, or for repeatable ones all."""
        values: dict[str, Any] = {}
        for entry in TABLE:
            given = self._given.get(entry.field, [])
            if given:
                assigned = [value for _, value in given]
                values[entry.field] = tuple(assigned) if entry.repeatable else assigned[-1]
            if not entry.repeatable:
                for finding, _ in given[:-1]:
                    finding.become("replaced", f"by {given[-1][0].setting.shown}")
        for name in ("listen", "subscription_server"):
            if name in values:
                values[name] = _once(values[name])
        return values

    def _check_shared(self) -> None:
        count = len(self._given.get("shared_socket", ()))
        for finding, where in self._given.get("listen", ()):
            if where.startswith("=") and int(where[1:]) >= count:
                finding.become("refused", single.no_such_shared_socket(count))


def _entry(setting: Setting) -> Entry | None:
    return (PLAIN.get(setting.name) if setting.plain else None) or UWSGI.get(setting.name)


def _may_be_workers(setting: Setting) -> bool:
    """In [gfrouter] everything is the router's."""
    return not setting.plain or setting.origin != "file"


def _strength(given: tuple[Finding, Any]) -> int:
    return STRENGTH.index(given[0].setting.origin)


def _understood(entry: Entry, text: str, value: Any) -> str:
    """A value for people. Its text says it best, but where it does not say the value."""
    if entry.is_flag:
        return "on" if value else "off"
    if entry.zero_is_default and text.strip("0") == "":
        return f"= {value}, its default"
    return f"= {shown(text)}" if text else "as by default"


def _as_placeholder(setting: Setting, used: Iterable[str]) -> str:
    return "" if setting.name in used else "that nobody uses"


def _error_pages(given: Given) -> str:
    """Whoever gives an address as a fastrouter's gets what a fastrouter says of errors, which is nothing."""
    return OFF if any(finding.setting.name == "fastrouter" for finding, _ in given.get("listen", ())) else ON


def _once(addresses: Iterable[str]) -> tuple[str, ...]:
    """An address that ini and command line both name is one socket; port 0 is another one each time."""
    kept: list[str] = []
    for one in addresses:
        if one not in kept or one.endswith(":0"):
            kept.append(one)
    return tuple(kept)


def _unused_shared_sockets(options: Options) -> list[str]:
    return [
        f"shared-socket {number} ({shown(socket)}) is not used by any listening address (={number})"
        for number, socket in enumerate(options.shared_socket)
        if f"={number}" not in options.listen and not (options.worker and options.worker.binds(socket))
    ]
