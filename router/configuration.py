"""What was configured: command line, ini files and environment, merged to one `Options`.

Order: command line over ini files over environment over default. Within one of them the last wins; repeatable
options add up over all of them, in that order from the weakest. What uWSGI knows and gfrouter does not is judged
in router/foreign.py. Nothing here prints, exits, binds or resolves: whoever calls `load` does, or says, the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from router import __version__, commandline, foreign, ini, single
from router.commandline import Name
from router.entry import Entry
from router.errors import OFF, ON
from router.ini import OptionsError, Setting, shown
from router.mappers import Given, one_mapper, worker_socket
from router.options import PLAIN, TABLE, UWSGI, Options

__all__ = ["HelpRequested", "OptionsError", "VersionRequested", "load"]

# How like an option's name an unknown one must be to be called a likely misspelling (difflib's ratio).
MISSPELT = 0.8
# What uWSGI's launchers leave in the environment under its prefix; no options, for uWSGI neither.
NOT_OPTIONS = ("UWSGI_RELOADS", "UWSGI_VASSALS_DIR", "UWSGI_EMPEROR_FD", "UWSGI_ORIGINAL_PROC_NAME")


class HelpRequested(Exception):
    """--help stands on the command line."""


class VersionRequested(Exception):
    """--version stands on the command line."""


COMMAND_LINE = "command line"  # an origin of settings


def load(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Options, list[str]]:
    """The options and the warnings that they are worth, one line each.

    `argv` is without the program's name. OptionsError with one line for anything that cannot be used;
    HelpRequested and VersionRequested where the command line asks for them.
    """
    typed = commandline.parse(argv, *_command_line_names())
    for setting in typed:
        if setting.name in ("help", "version"):
            raise HelpRequested if setting.name == "help" else VersionRequested
    inherited = _from_environment(environ)
    files = [setting.value for setting in inherited + typed if setting.name == "ini"]
    in_files = [setting for file in files for setting in ini.read(file)]
    return _merge([*inherited, *in_files, *typed])


def _command_line_names() -> tuple[dict[str, Name], dict[str, Name]]:
    """The names that a command line may hold: those that matter, and the rest, which make no beginning ambiguous.

    To the rest belong what workers have, and what we have written as uWSGI would if it had it.
    """
    named = {name: Name(entry.notation, entry.field) for name, entry in (UWSGI | PLAIN).items()}
    invented = {name: named.pop(name) for name, entry in UWSGI.items() if entry.ours and name not in PLAIN}
    asked = {name: Name("", name) for name in ("help", "version")}
    matter = {name: Name(notation, name) for name, notation in foreign.notations("refused", "idle", "silent")}
    plain = {name.removeprefix("fastrouter-"): known for name, known in matter.items()}
    workers = {name: Name(notation, name) for name, notation in foreign.notations("worker")}
    return {**plain, **matter, **asked, **named}, {**workers, **invented}


def _from_environment(environ: Mapping[str, str]) -> list[Setting]:
    """UWSGI_NAME in uWSGI's spelling, GFROUTER_NAME in the plain one; the latter is the stronger."""
    return [
        Setting(
            key.removeprefix(prefix).lower().replace("_", "-"),
            value,
            f"{shown(f'{key}={value}')} in the environment",
            plain,
            origin="environment",
        )
        for prefix, plain in (("UWSGI_", False), ("GFROUTER_", True))
        for key, value in environ.items()
        if key.startswith(prefix) and key not in NOT_OPTIONS
    ]


def _merge(settings: Sequence[Setting]) -> tuple[Options, list[str]]:
    placeholders: dict[str, str] = {}
    for setting in settings:
        placeholders.setdefault(setting.name, setting.value)
    given: Given = {}
    unknown: list[Setting] = []
    workers: list[Setting] = []
    warnings: dict[str, str] = {}
    for setting in settings:
        if entry := _entry(setting):
            given.setdefault(entry.field, []).append((setting, _value(entry, setting, placeholders)))
            if not setting.plain and setting.name in single.OF_BOTH:
                workers.append(setting)
        elif verdict := foreign.verdict(setting.name, setting.value, setting.plain):
            if verdict in ("worker", "silent") or setting.name in single.DAEMONS:
                workers.append(setting)
            else:
                _judge(setting, verdict, warnings)
        else:
            unknown.append(setting)
    ignored = one_mapper(given)
    options = _fold(given, worker_socket(given, settings, placeholders))
    # In [gfrouter] everything is the router's; a placeholder of ours may be an option of the worker's plugins.
    mine = [one for one in settings if one in workers or one in unknown if not one.plain or one.origin == COMMAND_LINE]
    if "listen" not in options.defaulted and single.starts_worker(one.name for one in mine):
        options = replace(options, worker=_worker(mine, options, placeholders))
        workers = [one for one in workers if one not in mine]
    for setting in workers:
        verdict = foreign.verdict(setting.name, setting.value, setting.plain)
        if verdict:
            _judge(setting, verdict, warnings)
    _judge_unknown(unknown, options.strict, settings, warnings)
    return options, [*warnings.values(), *ignored, *_unused_shared_sockets(options)]


def _worker(settings: Sequence[Setting], options: Options, placeholders: Mapping[str, str]) -> single.Part:
    said = [single.Said(one.name, _text(one, placeholders), one.shown) for one in settings]
    try:
        return single.part(said, options.listen, options.shared_socket)
    except ValueError as error:
        raise OptionsError(str(error)) from None


def _entry(setting: Setting) -> Entry | None:
    if setting.name == "ini" and setting.origin == "file":
        raise _unsupported(setting, "ini inside a file")
    return (PLAIN.get(setting.name) if setting.plain else None) or UWSGI.get(setting.name)


def _value(entry: Entry, setting: Setting, placeholders: Mapping[str, str]) -> Any:
    text = _text(setting, placeholders)
    try:
        value = entry.read(text)
    except ValueError as error:
        raise OptionsError(f"{setting.shown}: {error}") from None
    return entry.default if value == 0 and entry.zero_is_default else value


def _text(setting: Setting, placeholders: Mapping[str, str]) -> str:
    """What the setting's value means."""
    try:
        text = ini.expand(setting.value, placeholders)
    except ValueError as error:
        raise OptionsError(f"{setting.shown}: {error}") from None
    in_file = setting.origin == "file"
    if construct := ini.unsupported(text, in_file):
        raise _unsupported(setting, construct)
    return ini.unescaped(text) if in_file else text


def _unsupported(setting: Setting, what: str) -> OptionsError:
    return OptionsError(f"{setting.shown}: {what} is not supported yet by gfrouter {__version__}")


def _judge(setting: Setting, verdict: foreign.Verdict, warnings: dict[str, str]) -> None:
    if verdict == "refused":
        raise _unsupported(setting, setting.name)
    if verdict == "idle":
        warnings.setdefault(setting.name, f"{setting.shown}: has no effect in gfrouter")
    if verdict == "worker":
        twin = PLAIN.get(setting.name)
        hint = f" (the router's is {twin.uwsgi[0]})" if twin else ""
        warnings.setdefault(setting.name, f"{setting.shown}: ignored, a router has no use for it{hint}")


def _judge_unknown(
    unknown: Sequence[Setting], strict: bool, settings: Sequence[Setting], warnings: dict[str, str]
) -> None:
    """Unknown names are placeholders, as for uWSGI: an error under `strict`, else a warning if misspelt."""
    used = {name for setting in settings for name in ini.references(setting.value)}
    for setting in unknown:
        spelled = {**(PLAIN if setting.plain else {}), **UWSGI}
        candidates = [*spelled, *dict(foreign.notations("refused"))]
        if strict and setting.origin == "file":
            hint = commandline.did_you_mean(setting.name, candidates, dashes="")
            raise OptionsError(f"{setting.shown}: unknown option, and strict is set{hint}")
        near = commandline.nearest(setting.name, candidates, MISSPELT)
        if not setting.plain and setting.name in PLAIN:
            near = PLAIN[setting.name].uwsgi[0]
        if near and setting.name not in used:
            text = f"{setting.shown}: unknown, so a mere placeholder; did you mean {near}?"
            warnings.setdefault(setting.name, text)
        elif setting.name.startswith("fastrouter-"):
            warnings.setdefault(setting.name, f"{setting.shown}: unknown, so a mere placeholder")


def _fold(given: Given, socket: str) -> Options:
    """One value a field: the last, or for repeatable ones all."""
    values: dict[str, Any] = {}
    for entry in TABLE:
        assigned = [value for _, value in given.get(entry.field, ())]
        if assigned:
            values[entry.field] = tuple(assigned) if entry.repeatable else assigned[-1]
    _check_shared(given)
    for name in ("uid", "gid"):
        _check_one(given.get(name, ()))
    for name in ("listen", "subscription_server"):
        if name in values:
            values[name] = _once(values[name])
    defaulted = frozenset(entry.field for entry in TABLE) - values.keys()
    values.setdefault("error_pages", _error_pages(given))
    return Options(**values, defaulted=defaulted, worker_socket=socket)


def _error_pages(given: Given) -> str:
    """Whoever gives an address as a fastrouter's gets what a fastrouter says of errors, which is nothing."""
    return OFF if any(setting.name == "fastrouter" for setting, _ in given.get("listen", ())) else ON


def _once(addresses: Iterable[str]) -> tuple[str, ...]:
    """An address that ini and command line both name is one socket; port 0 is another one each time."""
    kept: list[str] = []
    for one in addresses:
        if one not in kept or one.endswith(":0"):
            kept.append(one)
    return tuple(kept)


def _check_one(assigned: Sequence[tuple[Setting, Any]]) -> None:
    """Of uid and fastrouter-uid none can be left out in silence where they differ."""
    last, value = assigned[-1] if assigned else (None, None)
    for setting, other in assigned:
        if last is not None and other != value and setting.name != last.name:
            raise OptionsError(f"{last.shown}, but {setting.shown}: all processes are of one user")


def _check_shared(given: Given) -> None:
    count = len(given.get("shared_socket", ()))
    for setting, where in given.get("listen", ()):
        if where.startswith("=") and int(where[1:]) >= count:
            there = f"only {count} shared-socket{' is' if count == 1 else 's are'} given"
            raise OptionsError(f"{setting.shown}, but {there if count else 'no shared-socket is given'}")


def _unused_shared_sockets(options: Options) -> list[str]:
    return [
        f"shared-socket {number} ({shown(socket)}) is not used by any listening address (={number})"
        for number, socket in enumerate(options.shared_socket)
        if f"={number}" not in options.listen
    ]
