"""Everything that can be configured: one table, one frozen value.

The table is the dataclass `Options` itself: one field written with `option()` is one option, with its type,
default, spellings and help. Command line, ini, environment and `--help` all come from it; a new option is one
entry there. Order: command line over ini files over environment over default. Within one of them the last
wins; repeatable options add up over all of them, in that order from the weakest. What uWSGI knows and
gfrouter does not is judged in router/foreign.py. Nothing here prints, exits, binds or resolves: whoever calls
`load` does, or says, the rest.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from router import __version__, commandline, foreign, ini
from router.commandline import Name
from router.entry import Entry, help_of, option, rows
from router.ini import OptionsError, Setting, shown
from router.values import (
    MAX_NODES,
    MAX_PROCESSES,
    MAX_QUOTA,
    MAX_RETRIES,
    address,
    file_mode,
    file_name,
    flag,
    listening_address,
    one_of,
    owner,
    queue_length,
    seconds,
    seconds_from_1,
    whole,
)

__all__ = ["HelpRequested", "Options", "OptionsError", "VersionRequested", "help_text", "load"]

# How like an option's name an unknown one must be to be called a likely misspelling (difflib's ratio).
MISSPELT = 0.8
# What uWSGI's launchers leave in the environment under its prefix; no options, for uWSGI neither.
NOT_OPTIONS = ("UWSGI_RELOADS", "UWSGI_VASSALS_DIR", "UWSGI_EMPEROR_FD", "UWSGI_ORIGINAL_PROC_NAME")


class HelpRequested(Exception):
    """--help stands on the command line."""


class VersionRequested(Exception):
    """--version stands on the command line."""


ADDRESSES, REQUESTS, FAILURES, PROCESS, CONFIGURATION = (
    "Addresses", "Requests", "Nodes that fail", "Processes", "Configuration"
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What gfrouter was told to do; `defaulted` names the fields that nobody set."""

    listen: tuple[str, ...] = option(
        ("127.0.0.1:3031",), listening_address, ADDRESSES, "ADDRESS",
        "take requests here: HOST:PORT, [IPV6]:PORT, :PORT, 192.*:PORT (the first local address that begins so), a "
        "path for a unix socket, @NAME for an abstract one, =N for the N-th shared socket, fd://N for a descriptor or "
        "fd://NAME for what systemd passed under that name; repeatable",
        plain="listen", uwsgi="fastrouter",
    )  # fmt: skip
    shared_socket: tuple[str, ...] = option(
        (), address, ADDRESSES, "ADDRESS",
        "open a socket that a listening address refers to as =N, counted from 0; repeatable",
        plain="shared-socket", uwsgi="shared-socket",
    )  # fmt: skip
    subscription_server: tuple[str, ...] = option(
        ("127.0.0.1:2626",), address, ADDRESSES, "ADDRESS",
        "take the announcements of workers here (UDP); repeatable",
        plain="subscription-server",
    )  # fmt: skip
    stats: str | None = option(
        None, address, ADDRESSES, "ADDRESS",
        "answer every connection here with the router's state, as JSON",
        plain="stats stats-server", uwsgi="fastrouter-stats fastrouter-stats-server fastrouter-ss",
    )  # fmt: skip
    backlog: int | None = option(
        None, queue_length, ADDRESSES, "N",
        "connections that may wait to be accepted (default: 4096, and never more than net.core.somaxconn)",
        plain="backlog", uwsgi="listen",
    )  # fmt: skip
    chmod_socket: int | None = option(
        None, file_mode, ADDRESSES, "MODE",
        "permissions of all unix sockets, as in 660 (without a value: 666)",
        plain="chmod-socket", uwsgi="chmod-socket chmod", value_is_optional=True,
    )  # fmt: skip
    chown_socket: tuple[int, int] | None = option(
        None, owner, ADDRESSES, "USER:GROUP",
        "owner of all unix sockets",
        plain="chown-socket", uwsgi="chown-socket",
    )  # fmt: skip
    vacuum: bool = option(
        False, flag, ADDRESSES, "",
        "remove the unix sockets at the end",
        plain="vacuum", uwsgi="vacuum",
    )  # fmt: skip
    reuse_port: bool = option(
        False, flag, ADDRESSES, "",
        "give each router process a TCP socket of its own (SO_REUSEPORT)",
        plain="reuse-port", uwsgi="reuse-port",
    )  # fmt: skip
    freebind: bool = option(
        False, flag, ADDRESSES, "",
        "bind addresses that this machine does not have yet (IP_FREEBIND)",
        plain="freebind", uwsgi="freebind",
    )  # fmt: skip
    timeout: int = option(
        60, seconds, REQUESTS, "SECONDS",
        "close a request on which nothing moved for so long",
        plain="timeout", zero_is_default=True,
    )  # fmt: skip
    cheap: bool = option(
        False, flag, REQUESTS, "",
        "accept nothing while no node is known",
        plain="cheap",
    )  # fmt: skip
    subscription_tolerance: int = option(
        17, seconds_from_1, FAILURES, "SECONDS",
        "drop a node that has not announced itself for so long",
        plain="subscription-tolerance", uwsgi="subscription-tolerance",
    )  # fmt: skip
    subscription_tolerance_inactive: int = option(
        17, seconds_from_1, FAILURES, "SECONDS",
        "the same for a vassal that has no address",
        plain="subscription-tolerance-inactive", uwsgi="subscription-tolerance-inactive",
    )  # fmt: skip
    subscription_address: Literal["announced", "sender"] = option(
        "announced", one_of("announced", "sender"), FAILURES, "WHOSE",
        "where an announcement names no host, or 0.0.0.0 or [::], that is: announced = this machine, as in uWSGI, "
        "sender = the host that sent it, as for workers in containers",
        plain="subscription-address",
    )  # fmt: skip
    subscription_quota: int = option(
        1000, whole(0, MAX_QUOTA), FAILURES, "N",
        "take so many announcements a second from one sender, and four times as many from one host (0: no limit)",
        plain="subscription-quota",
    )  # fmt: skip
    max_keys: int = option(
        50_000, whole(1, MAX_NODES), FAILURES, "N",
        "keep so many keys of one source of nodes at most",
        plain="max-keys",
    )  # fmt: skip
    max_nodes: int = option(
        50_000, whole(1, MAX_NODES), FAILURES, "N",
        "keep so many nodes of one source of nodes at most",
        plain="max-nodes",
    )  # fmt: skip
    connect_timeout: int = option(
        3, seconds_from_1, FAILURES, "SECONDS",
        "give a node so long to accept a connection",
        plain="connect-timeout",
    )  # fmt: skip
    max_retries: int = option(
        3, whole(0, MAX_RETRIES), FAILURES, "N",
        "try so many other nodes after a failed connect",
        plain="max-retries", zero_is_default=True,
    )  # fmt: skip
    retry: Literal["none", "connect", "idempotent"] = option(
        "idempotent", one_of("none", "connect", "idempotent"), FAILURES, "WHEN",
        "send a request to another node: none = never, connect = after a failed connect, idempotent = also a "
        "GET, HEAD or OPTIONS without body whose node closed before its first byte",
        plain="retry",
    )  # fmt: skip
    gracetime: int = option(
        30, seconds, FAILURES, "SECONDS",
        "leave a failed node out for so long",
        plain="gracetime", zero_is_default=True,
    )  # fmt: skip
    quiet: bool = option(
        False, flag, FAILURES, "",
        'do not log "unable to connect"',
        plain="quiet",
    )  # fmt: skip
    processes: int = option(
        1, whole(0, MAX_PROCESSES), PROCESS, "N",
        "run so many router processes",
        plain="processes workers", zero_is_default=True,
    )  # fmt: skip
    drain_timeout: int = option(
        30, seconds, PROCESS, "SECONDS",
        "give the requests in flight so long when stopping",
        plain="drain-timeout",
    )  # fmt: skip
    ini: tuple[str, ...] = option(
        (), file_name, CONFIGURATION, "FILE[:SECTION]",
        "read a configuration: its sections [uwsgi] and [gfrouter], or the one named; repeatable",
        plain="ini", uwsgi="ini",
    )  # fmt: skip
    strict: bool = option(
        False, flag, CONFIGURATION, "",
        "refuse unknown names in a configuration, which are placeholders otherwise",
        plain="strict", uwsgi="strict",
    )  # fmt: skip
    defaulted: frozenset[str] = frozenset()

    def to_json(self) -> str:
        """One line of JSON for `from_json`, as the supervisor sends it to its routers."""
        return json.dumps(dataclasses.asdict(self) | {"defaulted": sorted(self.defaulted)})

    @classmethod
    def from_json(cls, text: str) -> Options:
        """The options that `to_json` wrote. What only another version knows is left out.

        That happens where gfrouter is upgraded on disk under a supervisor that runs, and starts routers afresh.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items() if name in known}
        return cls(**values | {"defaulted": frozenset(values["defaulted"])})


TABLE = rows(Options)
PLAIN = {name: entry for entry in TABLE for name in entry.plain}
UWSGI = {name: entry for entry in TABLE for name in entry.uwsgi}

# By field: every assignment and the value that it gave, the weakest first.
Given = dict[str, list[tuple[Setting, Any]]]


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
    """The names that a command line may hold: those that matter, and those of workers."""
    ours = {name: Name(entry.notation, entry.field) for name, entry in (UWSGI | PLAIN).items()}
    asked = {name: Name("", name) for name in ("help", "version")}
    matter = {name: Name(notation, name) for name, notation in foreign.notations("refused", "idle", "silent")}
    plain = {name.removeprefix("fastrouter-"): known for name, known in matter.items()}
    workers = {name: Name(notation, name) for name, notation in foreign.notations("worker")}
    return {**plain, **matter, **asked, **ours}, workers


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
    warnings: dict[str, str] = {}
    for setting in settings:
        if entry := _entry(setting):
            given.setdefault(entry.field, []).append((setting, _value(entry, setting, placeholders)))
        elif verdict := foreign.verdict(setting.name, setting.value, setting.plain):
            _judge(setting, verdict, warnings)
        else:
            unknown.append(setting)
    options = _fold(given)
    _judge_unknown(unknown, options.strict, settings, warnings)
    return options, [*warnings.values(), *_unused_shared_sockets(options)]


def _entry(setting: Setting) -> Entry | None:
    if setting.name == "ini" and setting.origin == "file":
        raise _unsupported(setting, "ini inside a file")
    return (PLAIN.get(setting.name) if setting.plain else None) or UWSGI.get(setting.name)


def _value(entry: Entry, setting: Setting, placeholders: Mapping[str, str]) -> Any:
    try:
        text = ini.expand(setting.value, placeholders)
        construct = ini.unsupported(text, in_file=setting.origin == "file")
        value = None if construct else entry.read(text)
    except ValueError as error:
        raise OptionsError(f"{setting.shown}: {error}") from None
    if construct:
        raise _unsupported(setting, construct)
    return entry.default if value == 0 and entry.zero_is_default else value


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


def _fold(given: Given) -> Options:
    """One value a field: the last, or for repeatable ones all."""
    values: dict[str, Any] = {}
    for entry in TABLE:
        assigned = [value for _, value in given.get(entry.field, ())]
        if assigned:
            values[entry.field] = tuple(assigned) if entry.repeatable else assigned[-1]
    _check_shared(given)
    for name in ("listen", "subscription_server"):
        if name in values:
            values[name] = _once(values[name])
    return Options(**values, defaulted=frozenset(entry.field for entry in TABLE) - values.keys())


def _once(addresses: Iterable[str]) -> tuple[str, ...]:
    """An address that ini and command line both name is one socket; port 0 is another one each time."""
    kept: list[str] = []
    for one in addresses:
        if one not in kept or one.endswith(":0"):
            kept.append(one)
    return tuple(kept)


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


INTRODUCTION = (
    "Passes uwsgi requests on to the workers that announce themselves, as the uWSGI FastRouter does. "
    "Without any option it listens on 127.0.0.1:3031 and takes announcements on 127.0.0.1:2626."
)
CLOSING = (
    "Names may be cut short while they stay unambiguous. Without the dashes they go into the section "
    "[gfrouter] of an ini file, and in capitals, as GFROUTER_NAME, into the environment; uWSGI's spellings "
    "go into [uwsgi] and, as UWSGI_NAME, into the environment. The command line is stronger than files, "
    "files than the environment."
)


def help_text(width: int = 80) -> str:
    """What --help prints, wrapped to `width` columns."""
    usage = "usage: gfrouter [OPTION ...] [FILE.ini[:SECTION] ...]"
    introduction, closing = textwrap.wrap(INTRODUCTION, width), textwrap.wrap(CLOSING, width)
    lines = [usage, "", *introduction, "", *help_of(TABLE, width), "  --help, --version", "", *closing]
    return "\n".join(lines) + "\n"
