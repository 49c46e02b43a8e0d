"""The command line and the environment of `gfrouter announce`, as one `Wish`. Nothing here looks a name up.

Each option may stand in the environment as well, as GFROUTER_ANNOUNCE_TO and so on, where the command line does not
have it; what may be repeated stands there with blanks between. The wrapped command begins behind the first `--`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from discovery.announcement import LARGEST_BYTE, LARGEST_INT, LARGEST_NAME
from discovery.announcetarget import Registration
from discovery.whereabouts import LEGAL
from router.address import AddressError, parse_node
from router.values import whole

ENVIRONMENT = "GFROUTER_ANNOUNCE_"
MOST_SECONDS = 86_400  # beyond a day a typing error is likelier than a wish
NO_CHECK = "no"

ABOUT = """\
Announce a process at routers, Consul agents or etcd clusters, and take it back at the end. With a
command behind --, run it, announce it while it accepts connections, and end with its status; TERM,
INT and QUIT withdraw it before they reach it, other signals are passed on."""
BELOW = f"""\
TARGET is one of {LEGAL}.
Each option may stand in the environment, as {ENVIRONMENT}TO."""


class WrongWords(ValueError):
    """What was asked for cannot be done; the text is one line."""


@dataclass(frozen=True)
class Wish:
    """What the command line asks for. `check` is the address to connect to, "" for the announced one, or `no`."""

    to: tuple[str, ...]
    said: Registration
    check: str
    drain: int
    command: tuple[str, ...]


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Wish:
    """What `argv`, without the program's name, and the environment ask for, or WrongWords. --help ends the process."""
    words = list(argv)
    behind = words.index("--") if "--" in words else len(words)
    command = tuple(words[behind + 1 :])
    parser = _parser()
    if behind < len(words) and not command:
        raise WrongWords("--: a command is missing behind it")
    inherited = _from_environment(parser, environ)
    given, stray = parser.parse_known_args(words[:behind])
    if stray:
        raise WrongWords(f"{stray[0]}: no option (a command to run stands behind --)")
    for name, value in inherited.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return _wish(given, command)


def _wish(given: argparse.Namespace, command: tuple[str, ...]) -> Wish:
    for name, legal in ("to", "TARGET"), ("key", "KEY"), ("address", "ADDRESS"):
        if not getattr(given, name):
            raise WrongWords(f"--{name} {legal} is missing")

    def number(name: str, default: int) -> int:
        value = getattr(given, name)
        return default if value is None else int(value)

    interval = number("interval", Registration.interval)
    ttl = number("ttl", 3 * interval)
    if ttl <= interval:
        raise WrongWords(f"--ttl {ttl}: no longer than --interval {interval}, so it would run out before it is renewed")
    said = Registration(
        keys=tuple(dict.fromkeys(given.key)),
        address=given.address,
        weight=number("weight", Registration.weight),
        backup=number("backup", Registration.backup),
        modifier1=number("modifier1", Registration.modifier1),
        modifier2=number("modifier2", Registration.modifier2),
        interval=interval,
        ttl=ttl,
    )
    drain = number("drain", 1 if command else 0)
    return Wish(tuple(dict.fromkeys(given.to)), said, given.check or "", drain, command)


def _from_environment(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> dict[str, Any]:
    """By option, what the environment says."""
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT) or not text:
            continue
        name = variable.removeprefix(ENVIRONMENT).lower()
        if name not in actions:
            known = ", ".join(ENVIRONMENT + known.upper() for known in actions)
            raise WrongWords(f"{variable}: unknown (known: {known})")
        read: Any = actions[name].type
        try:
            repeated = isinstance(actions[name], argparse._AppendAction)
            found[name] = [read(word) for word in text.split()] if repeated else read(text)
        except argparse.ArgumentTypeError as error:
            raise WrongWords(f"{variable}={text}: {error}") from None
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongWords(message.removeprefix("argument "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gfrouter announce",
        usage="gfrouter announce --to TARGET --key KEY --address ADDRESS [OPTION ...] [-- COMMAND ...]",
        description=ABOUT,
        epilog=BELOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def option(name: str, metavar: str, read: Callable[[str], Any], help: str, *, repeatable: bool = False) -> None:
        action = "append" if repeatable else "store"
        parser.add_argument(f"--{name}", metavar=metavar, type=_checked(read), action=action, help=help)

    seconds = whole(1, MOST_SECONDS, "seconds")
    option("to", "TARGET", str, "where to announce; repeatable, each is told by itself", repeatable=True)
    option("key", "KEY", _key, "what is served, as foo.com; repeatable", repeatable=True)
    option("address", "ADDRESS", _address, "HOST:PORT, a path or @NAME; :PORT is this machine as the target sees it")
    option("weight", "N", whole(1, LARGEST_INT), "its share of the requests (default: 1)")
    option("backup", "N", whole(0, LARGEST_INT), "its level: it serves when all below are out (default: 0)")
    option("modifier1", "N", whole(0, LARGEST_BYTE), "of the requests that it gets (default: 0)")
    option("modifier2", "N", whole(0, LARGEST_BYTE), "of the requests that it gets (default: 0)")
    option("interval", "SECONDS", seconds, "from one renewal to the next (default: 10)")
    option("ttl", "SECONDS", seconds, "after which Consul and etcd forget who is silent (default: 3 intervals)")
    option("check", "ADDRESS|no", _check, "announce while this accepts connections (default: the announced address)")
    option("drain", "SECONDS", whole(0, MOST_SECONDS, "seconds"),
           "between the withdrawal and the signal that stops the command (default: 1)")  # fmt: skip
    return parser


def _checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse drops what a ValueError says."""

    def checked(text: str) -> Any:
        try:
            return read(text)
        except AddressError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error.reason}") from None
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return checked


def _key(text: str) -> str:
    size = len(text.encode("utf-8", "surrogateescape"))
    if not 0 < size <= LARGEST_NAME:
        raise ValueError(f"a key of {size} bytes (legal: 1 to {LARGEST_NAME})")
    return text


def _address(text: str) -> str:
    parse_node(text)
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > LARGEST_NAME:
        raise ValueError(f"an address of {size} bytes (legal: 1 to {LARGEST_NAME})")
    return text


def _check(text: str) -> str:
    if text != NO_CHECK:
        parse_node(text)
    return text
