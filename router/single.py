"""One configuration for a router and an application: which of its settings are the worker's, and the ini made of them.

uWSGI runs both from one file, where router and worker accept on one shared socket. Here the router alone accepts there,
and the worker, which is the real uwsgi, on a private unix socket; so what is the worker's goes into an ini of its own,
in its order and with its placeholders replaced. A worker is started where a configuration has all of: an address of the
router, a `socket`, and an application. A router's file that says `master`, `processes = 4` or `plugins = python` is a
router's file and nothing more.

    socket = =0         and the router listens there as well: the private socket, so the worker stands in (static.py)
    socket = =1         and the router does not: the address of that shared socket
    another socket      as it is

Pure: text in, text out. worker.py runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What gives a uWSGI a socket of its own, in the numbers of `use-socket`, and whether it speaks uwsgi there.
SOCKETS = {
    **dict.fromkeys(("socket", "uwsgi-socket"), True),
    **dict.fromkeys(
        ("suwsgi-socket", "ssl-socket", "puwsgi-socket", "http-socket", "http11-socket", "https-socket",
         "fastcgi-socket", "fastcgi-nph-socket", "scgi-socket", "scgi-nph-socket", "raw-socket"), False,
    ),
}  # fmt: skip
# Routers that a worker may have, whose address may be a shared socket, too.
GATEWAYS = frozenset({"http", "http-to-https", "httprouter", "https", "rawrouter"})
APPLICATIONS = frozenset(
    {
        *(
            "file",
            "module",
            "mount",
            "pecan",
            "psgi",
            "pump",
            "rack",
            "rails",
            "web3",
            "wsgi",
            "wsgi-file",
            "wsgi-lite",
        ),
        *("ini-paste", "ini-paste-logged", "paste"),
    }
)
# They start programs, of which two at a time would run if the router ran them, too. Without a worker they are refused.
DAEMONS = frozenset({"attach-control-daemon", "attach-daemon2", "smart-attach-daemon", "smart-attach-daemon2"})
# uWSGI means these for every socket of an instance, the worker's own ones included.
OF_BOTH = frozenset(
    {
        *("chmod", "chmod-socket", "chown-socket", "freebind", "listen", "reuse-port", "stats-http", "vacuum"),
        *("auto-procname", "procname", "procname-append", "procname-master"),
        *("procname-prefix", "procname-prefix-spaced"),
    }
)
# The worker has them anyway, and `die-on-term` is the handler of GRACEFUL.
OURS = frozenset({"die-on-term", "master"})

PRIVATE = "\0"  # in the place of a socket's address; no text of a file can be it
# SIGTERM ends the worker when the requests that it has are answered; uWSGI's own ways cut them or start it again.
GRACEFUL = "unix_signal:15 gracefully_kill_them_all"
BACKUP = 1  # the level in the pools of the keys that the worker subscribes to


class PartError(ValueError):
    """Why no worker can have this setting, which is shown as `shown`."""

    def __init__(self, shown: str, reason: str) -> None:
        super().__init__(shown + (reason if reason.startswith(",") else f": {reason}"))
        self.shown = shown
        self.reason = reason


@dataclass(frozen=True)
class Said:
    """One setting: its value with the placeholders replaced, and how messages on it begin."""

    name: str
    value: str
    shown: str


@dataclass(frozen=True)
class Part:
    """The worker's part of a configuration. `keys`: those that it subscribes to, each with its backup level there."""

    settings: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, int], ...]
    application: str  # how a message on it begins

    @property
    def is_private(self) -> bool:
        """Whether it gets its requests over the private socket, and so stands in for all other nodes."""
        return any(value == PRIVATE for _, value in self.settings)

    def binds(self, address: str) -> bool:
        """Whether it has a socket there by itself."""
        return any(_has_address(name) and value.partition(",")[0] == address for name, value in self.settings)


def starts_worker(names: Iterable[str]) -> bool:
    """Whether an instance with settings of these names serves an application."""
    found = set(names)
    return any(SOCKETS.get(name) for name in found) and not found.isdisjoint(APPLICATIONS)


def part(said: Sequence[Said], listen: Sequence[str], shared: Sequence[str]) -> Part:
    """The worker's part: `said` without what is the router's alone. `listen` are the router's addresses, `shared` the
    shared sockets. PartError where it could not run beside the router.
    """
    settings: list[tuple[str, str]] = []
    keys: dict[str, int] = {}
    for one in said:
        if one.name in OURS or one.name.startswith("fastrouter"):
            continue
        if "\n" in one.value:
            raise PartError(one.shown, "a line feed, which the worker's ini cannot hold")
        value = _address(one, listen, shared) if _has_address(one.name) else one.value
        if value != PRIVATE:
            settings.append((one.name, value))
        elif ("socket", PRIVATE) not in settings:  # named twice, it is one socket
            settings.append(("socket", PRIVATE))
        keys.update(_subscription(one))
    if not any(name in SOCKETS and value != PRIVATE for name, value in settings):
        settings = [one for one in settings if one[0] != "vacuum"]  # or uWSGI complains of a file that is not its own
    application = next(one.shown for one in said if one.name in APPLICATIONS)
    return Part(tuple(settings), tuple(keys.items()), application)


def no_such_shared_socket(there: int) -> str:
    """What is wrong with a number, where so many are there."""
    if there == 0:
        return ", but no shared-socket is given"
    return f", but only {there} shared-socket{' is' if there == 1 else 's are'} given, counted from 0"


def ini(part: Part, private: int) -> str:
    """The worker's ini; `private` is the descriptor of its private socket. Percent signs stand twice, as in any ini."""
    settings = [("master", "true"), ("hook-master-start", GRACEFUL)]
    settings += [(name, f"fd://{private}" if value == PRIVATE else value) for name, value in part.settings]
    lines = [f"{name} = {value.replace('%', '%%')}" if value else name for name, value in settings]
    return "\n".join(["[uwsgi]", *lines, ""])


def _has_address(name: str) -> bool:
    return name in SOCKETS or name in GATEWAYS


def _address(one: Said, listen: Sequence[str], shared: Sequence[str]) -> str:
    """Where the worker is to have a socket that the configuration gives as `one`, with what stands behind a comma."""
    address, comma, more = one.value.partition(",")
    listened = [place for number, place in enumerate(shared) if f"={number}" in listen]
    if address in listened or (address in listen and not address.startswith("=")):
        raise PartError(one.shown, "the router listens there (a shared-socket is for both of them, as =0)")
    if address in listen:
        if not SOCKETS.get(one.name):
            raise PartError(one.shown, "the router takes requests there, and they are uwsgi's")
        return PRIVATE
    if not (address.startswith("=") and address[1:].isdigit()):
        return one.value
    number = int(address[1:])
    if number >= len(shared):
        raise PartError(one.shown, no_such_shared_socket(len(shared)))
    return shared[number] + comma + more


def _subscription(one: Said) -> dict[str, int]:
    """The key that the worker subscribes to with its first socket, and the backup level that its word gives it."""
    if one.name in ("subscribe", "subscribe-to", "st"):  # [SOCKET=]SERVER:KEY[,MODIFIER...]; @FILE names many
        server, _, rest = one.value.partition(":")
        rest = rest if server.startswith("/") else rest.partition(":")[2]
        key = rest.partition(",")[0]
        return {key: BACKUP} if key and "=" not in server and not key.startswith("@") else {}
    if one.name != "subscribe2":
        return {}
    words = dict(word.partition("=")[::2] for word in one.value.split(","))
    level = words.get("backup", "")
    if not words.get("key") or "addr" in words or "socket" in words:
        return {}
    return {words["key"]: int(level) if level.isascii() and level.isdigit() and len(level) < 4 else BACKUP}
