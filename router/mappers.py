"""uWSGI's mappers among the options: `use-cache`, `use-pattern`, `use-base`, `use-code-string`, `use-socket`, and `to`.

In a fastrouter one mapper answers, the first that is configured in MAPPERS' order, and the others are ignored even for
a key that it does not know. So it is here with the options that are spelled as the fastrouter's, `fastrouter-...`; what
is spelled as ours is a source among the others. Cache, pattern, base and code string are sources of their own, and a
worker's socket is a node for any key, as those of `to` are.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

from router.address import AddressError, parse_node
from router.folder import absolute
from router.gather import Gathered
from router.options import Options
from router.setting import Finding, Given, OptionsError
from router.single import SOCKETS
from router.static import FALLBACK, OWN, TO

MAPPERS = ("use_cache", "use_pattern", "subscription_server", "use_base", "use_code_string", "use_socket", "to")
THEIRS = "fastrouter-"


def one_mapper(given: Given) -> list[Finding]:
    """Take out the mappers that a fastrouter would ignore, and say so; those that were."""
    active, ignored = "", []
    for field in MAPPERS:
        theirs = [finding for finding, _ in given.get(field, ()) if finding.setting.name.startswith(THEIRS)]
        if theirs and not active:
            active = theirs[0].setting.name
        elif theirs:
            given[field] = [one for one in given[field] if one[0] not in theirs]
            for finding in theirs:
                ours = finding.setting.name.removeprefix(THEIRS)
                text = f"as a fastrouter does beside {active}, which answers alone"
                finding.become("ignored", f"{text} (as --{ours}, or {ours} in [gfrouter], both are asked)")
            ignored += theirs
    return ignored


def worker_socket(given: Given, gathered: Sequence[Gathered]) -> str:
    """Where the worker of the same configuration listens that `use-socket` means; "" where that is not said, or where
    a router cannot connect to it, which is then found.
    """
    if not given.get("use_socket"):
        return ""
    wanted, number = given["use_socket"][-1]
    sockets = [
        each
        for each in gathered
        if each.setting.name in SOCKETS and each.is_in_force
        if not (each.setting.plain and each.setting.origin == "file")
    ]
    if number >= len(sockets):
        return ""
    socket, address = sockets[number].setting, sockets[number].value
    if not SOCKETS[socket.name]:
        wanted.become("refused", f"{socket.shown}: nobody speaks uwsgi there")
        return ""
    try:
        parse_node(address)
    except AddressError as error:
        wanted.become("refused", f"{socket.shown}: no address to connect to: {error.reason}")
        return ""
    return address


def urls(options: Options) -> list[str]:
    """The sources that the options name, as URLs, in the order of MAPPERS."""
    found = []
    if options.use_cache:
        found.append(url("cache", absolute(options.use_cache)))
    if options.use_pattern:
        found.append(url("pattern", options.use_pattern))
    if options.use_base:
        found.append(url("base", options.use_base))
    if options.use_code_string:
        _, file, function = options.use_code_string.split(":", 2)
        found.append(f"{url('code', absolute(file))}?function={function}")
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
            "is 0)"
        )
    return (options.worker_socket, *options.to)


def stand_ins(options: Options) -> list[str]:
    """The keys whose nodes serve a key that has none, in the order in which they are asked."""
    fallback = [FALLBACK] if options.fallback_on_no_key else []
    return [*filter(None, [options.subscription_fallback_key]), TO, OWN, *fallback]
