"""Everything that can be configured: one table, one frozen value.

The table is the dataclass `Options` itself: one field written with `option()` is one option, with its type,
default, spellings and help. Command line, ini, environment and `--help` all come from it (configuration.py reads
the former three); a new option is one entry here.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from dataclasses import dataclass
from typing import Literal

from router.entry import help_of, option, rows
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
    source_names,
    whole,
)

ADDRESSES, REQUESTS, SUBSCRIPTIONS, DISCOVERY, FAILURES, PROCESS, CONFIGURATION = (
    "Addresses", "Requests", "Announcements", "Sources of nodes", "Nodes that fail", "Processes", "Configuration"
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
        "take the announcements of workers here: UDP, a multicast group among them, or a unix datagram socket; "
        "repeatable",
        plain="subscription-server",
    )  # fmt: skip
    stats: str | None = option(
        None, address, ADDRESSES, "ADDRESS",
        "answer every connection here with the router's state, as JSON",
        plain="stats stats-server", uwsgi="fastrouter-stats fastrouter-stats-server fastrouter-ss",
    )  # fmt: skip
    stats_http: bool = option(
        False, flag, ADDRESSES, "",
        "answer HTTP there: read a request first, and send headers before the JSON",
        plain="stats-http", uwsgi="stats-http",
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
    warm_timeout: int = option(
        10, seconds, REQUESTS, "SECONDS",
        "let a request for an unknown key wait so long after the start, unless every source of nodes has spoken "
        "before; 0 = refuse it at once",
        plain="warm-timeout",
    )  # fmt: skip
    lookup_timeout: int = option(
        3, seconds_from_1, REQUESTS, "SECONDS",
        "let a request for a key that a source of nodes looks up on demand, as dns does, wait so long for the answer",
        plain="lookup-timeout",
    )  # fmt: skip
    subscription_tolerance: int = option(
        17, seconds_from_1, SUBSCRIPTIONS, "SECONDS",
        "drop a node that has not announced itself for so long",
        plain="subscription-tolerance", uwsgi="subscription-tolerance",
    )  # fmt: skip
    subscription_tolerance_inactive: int = option(
        17, seconds_from_1, SUBSCRIPTIONS, "SECONDS",
        "the same for a vassal that has no address",
        plain="subscription-tolerance-inactive", uwsgi="subscription-tolerance-inactive",
    )  # fmt: skip
    subscription_address: Literal["announced", "sender"] = option(
        "announced", one_of("announced", "sender"), SUBSCRIPTIONS, "WHOSE",
        "where an announcement names no host, or 0.0.0.0 or [::], that is: announced = this machine, as in uWSGI, "
        "sender = the host that sent it, as for workers in containers",
        plain="subscription-address",
    )  # fmt: skip
    subscription_quota: int = option(
        1000, whole(0, MAX_QUOTA), SUBSCRIPTIONS, "N",
        "take so many announcements a second from one port, and four times as many from one host; 0 = no limit",
        plain="subscription-quota",
    )  # fmt: skip
    discovery: tuple[str, ...] = option(
        (), source_names, DISCOVERY, "NAME|URL",
        "ask this source for nodes, one of those that `gfrouter sources` lists; repeatable: the first one that knows a "
        "node describes it. The subscription servers come first, or where the word subscription stands",
        plain="discovery",
    )  # fmt: skip
    max_keys: int = option(
        50_000, whole(1, MAX_NODES), DISCOVERY, "N",
        "keep at most so many keys of one source of nodes",
        plain="max-keys",
    )  # fmt: skip
    max_nodes: int = option(
        50_000, whole(1, MAX_NODES), DISCOVERY, "N",
        "keep at most so many nodes of one source of nodes",
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
    usage = "usage: gfrouter [OPTION ...] [FILE.ini[:SECTION] ...]\n       gfrouter COMMAND [WORD ...]"
    introduction, closing = textwrap.wrap(INTRODUCTION, width), textwrap.wrap(CLOSING, width)
    lines = [usage, "", *introduction, "", *help_of(TABLE, width), "  --help, --version", "", *closing]
    return "\n".join(lines) + "\n"
