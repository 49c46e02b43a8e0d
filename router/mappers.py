"""uWSGI's mappers among the options: `use-cache`, `use-pattern`, `use-base`, `use-code-string`, `use-socket`, and `to`.

In a fastrouter one mapper answers, the first that is configured in MAPPERS' order, and the others are ignored even for
a key that it does not know. So it is here with the options that are spelled as the fastrouter's, `fastrouter-...`; what
is spelled as ours is a source among the others. Cache, pattern, base and code string are sources of their own, and a
worker's socket is a node for any key, as those of `to` are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from router.address import AddressError, parse_node
from router.ini import OptionsError, Setting, expand, unescaped
from router.options import Options

# By field: every assignment and the value that it gave, the weakest first.
Given = dict[str, list[tuple[Setting, Any]]]

MAPPERS = ("use_cache", "use_pattern", "subscription_server", "use_base", "use_code_string", "use_socket", "to")
THEIRS = "fastrouter-"

# What gives a uWSGI a socket of its own, in the numbers of `use-socket`, and whether it speaks uwsgi there.
SOCKETS = {
    **dict.fromkeys(("socket", "uwsgi-socket"), True),
    **dict.fromkeys(
        ("suwsgi-socket", "ssl-socket", "puwsgi-socket", "http-socket", "http11-socket", "https-socket",
         "fastcgi-socket", "fastcgi-nph-socket", "scgi-socket", "scgi-nph-socket", "raw-socket"), False,
    ),
}  # fmt: skip


def one_mapper(given: Given) -> list[str]:
    """Take out the mappers that a fastrouter would ignore, and say so: a line for each."""
    active, lines = "", []
    for field in MAPPERS:
        theirs = [setting for setting, _ in given.get(field, ()) if setting.name.startswith(THEIRS)]
        if theirs and not active:
            active = theirs[0].name
        elif theirs:
            given[field] = [one for one in given[field] if one[0] not in theirs]
            for one in theirs:
                ours = one.name.removeprefix(THEIRS)
                lines.append(
                    f"{one.shown}: ignored, as a fastrouter does beside {active}, which answers alone "
                    f"(as --{ours}, or {ours} in [gfrouter], both are asked)"
                )
    return lines


def worker_socket(given: Given, settings: Sequence[Setting], placeholders: Mapping[str, str]) -> str:
    """Where the worker of the same configuration listens that `use-socket` means; "" where that is not said.
    OptionsError where a router cannot connect to it.
    """
    if not given.get("use_socket"):
        return ""
    wanted, number = given["use_socket"][-1]
    sockets = [one for one in settings if one.name in SOCKETS and not (one.plain and one.origin == "file")]
    if number >= len(sockets):
        return ""
    socket = sockets[number]
    if not SOCKETS[socket.name]:
        raise OptionsError(f"{wanted.shown}: {socket.shown}: nobody speaks uwsgi there")
    try:
        address = unescaped(expand(socket.value, placeholders))
        parse_node(address)
    except ValueError as error:
        reason = error.reason if isinstance(error, AddressError) else error
        raise OptionsError(f"{wanted.shown}: {socket.shown}: no address to connect to: {reason}") from None
    return address


def urls(options: Options) -> list[str]:
    """The sources that the options name, as URLs, in the order of MAPPERS."""
    found = []
    if options.use_cache:
        found.append(url("cache", os.path.abspath(options.use_cache)))
    if options.use_pattern:
        found.append(url("pattern", options.use_pattern))
    if options.use_base:
        found.append(url("base", options.use_base))
    if options.use_code_string:
        _, file, function = options.use_code_string.split(":", 2)
        found.append(f"{url('code', os.path.abspath(file))}?function={function}")
    return found


def url(scheme: str, text: str) -> str:
    """A URL that says this text, as it is wherever that is the same."""
    return f"{scheme}://{text if unquote(text) == text and '?' not in text else quote(text)}"


def nodes(options: Options) -> tuple[str, ...]:
    """The nodes for any key. OptionsError where `use-socket` means a socket that is none."""
    if options.use_socket is None:
        return options.to
    if not options.worker_socket:
        raise OptionsError(
            f"use-socket={options.use_socket}: the same configuration has no such line socket = ADDRESS (the first one "
            "is 0), and gfrouter starts no worker of its own"
        )
    return (options.worker_socket, *options.to)
