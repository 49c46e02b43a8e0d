"""Everything that can be configured: one table, one frozen value.

The table is the dataclass `Options` itself: one field written with `option()` is one option, with its type,
default, spellings and help. Command line, ini, environment and `--help` all come from it (configuration.py reads
the former three); a new option is one entry here.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from router.entry import option, rows
from router.values import (
    MAX_FAILS,
    MAX_NODES,
    MAX_PROCESSES,
    MAX_QUOTA,
    MAX_RETRIES,
    address,
    address_or,
    file_mode,
    file_name,
    flag,
    key,
    listening_address,
    node_address,
    one_of,
    owner,
    pages,
    queue_length,
    seconds,
    seconds_from_1,
    source_names,
    statuses,
    variable,
    whole,
)

ADDRESSES, REQUESTS, SUBSCRIPTIONS, DISCOVERY, FAILURES, CHECKS, PROCESS, CONFIGURATION = (
    "Addresses", "Requests", "Announcements", "Sources of nodes", "Nodes that fail", "Checks of nodes", "Processes",
    "Configuration",
)  # fmt: skip

ADMIN_OFF = "off"  # in the place of an address


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
    admin: str = option(
        "", address_or(ADMIN_OFF), ADDRESSES, "ADDRESS|off",
        "answer here what operators ask, as HTTP and JSON (default: a unix socket for this user alone, "
        "/run/gfrouter/admin.sock, for others than root $XDG_RUNTIME_DIR/gfrouter/admin.sock or "
        "/tmp/gfrouter-UID/admin.sock)",
        plain="admin", ours=True,
    )  # fmt: skip
    backlog: int | None = option(
        None, queue_length, ADDRESSES, "N",
        "connections that may wait to be accepted (default: 4096, and never more than net.core.somaxconn)",
        plain="backlog", uwsgi="listen",
    )  # fmt: skip
    chmod_socket: int | None = option(
        None, file_mode, ADDRESSES, "MODE",
        "permissions of all unix sockets but the admin API's, as in 660 (without a value: 666)",
        plain="chmod-socket", uwsgi="chmod-socket chmod", value_is_optional=True,
    )  # fmt: skip
    chown_socket: tuple[int, int] | None = option(
        None, owner, ADDRESSES, "USER:GROUP",
        "owner of all unix sockets but the admin API's",
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
    head_timeout: int = option(
        10, seconds_from_1, REQUESTS, "SECONDS",
        "close a connection whose request's head is not complete so long after its beginning",
        plain="head-timeout", ours=True,
    )  # fmt: skip
    first_byte_timeout: int = option(
        0, seconds, REQUESTS, "SECONDS",
        "give a node so long to begin its answer; 0 = the same as timeout",
        plain="first-byte-timeout", ours=True,
    )  # fmt: skip
    session_timeout: int = option(
        0, seconds, REQUESTS, "SECONDS",
        "end a request after so long, whatever still moves; 0 = never",
        plain="session-timeout", ours=True,
    )  # fmt: skip
    error_pages: str = option(
        "", pages, REQUESTS, "on|off|FOLDER",
        "answer what cannot be served with an HTTP error, and not with nothing; its page may be NUMBER.html in FOLDER "
        "(default: off where a listening address is uWSGI's `fastrouter`, else on)",
        plain="error-pages", ours=True,
    )  # fmt: skip
    unknown_key_status: Literal["404", "503"] = option(
        "404", one_of("404", "503"), REQUESTS, "STATUS",
        "the error for a key that nobody knows",
        plain="unknown-key-status", ours=True,
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
        plain="warm-timeout", ours=True,
    )  # fmt: skip
    lookup_timeout: int = option(
        3, seconds_from_1, REQUESTS, "SECONDS",
        "let a request for a key that a source of nodes looks up on demand, as dns does, wait so long for the answer",
        plain="lookup-timeout", ours=True,
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
        plain="subscription-address", ours=True,
    )  # fmt: skip
    subscription_quota: int = option(
        1000, whole(0, MAX_QUOTA), SUBSCRIPTIONS, "N",
        "take so many announcements a second from one port, and four times as many from one host; 0 = no limit",
        plain="subscription-quota", ours=True,
    )  # fmt: skip
    discovery: tuple[str, ...] = option(
        (), source_names, DISCOVERY, "NAME|URL",
        "ask this source for nodes, one of those that `gfrouter sources` lists; repeatable: the first one that knows a "
        "node describes it. The subscription servers come first, or where the word subscription stands",
        plain="discovery", ours=True,
    )  # fmt: skip
    to: tuple[str, ...] = option(
        (), node_address, DISCOVERY, "NODE",
        "send requests for keys that no source knows to this node, ADDRESS[,MODIFIER1[,MODIFIER2]]; several take "
        "turns; repeatable",
        plain="to",
    )  # fmt: skip
    subscription_fallback_key: str = option(
        "", key, DISCOVERY, "KEY",
        "send requests for keys without a node to the nodes of this key",
        plain="subscription-fallback-key",
    )  # fmt: skip
    max_keys: int = option(
        50_000, whole(1, MAX_NODES), DISCOVERY, "N",
        "keep at most so many keys of one source of nodes",
        plain="max-keys", ours=True,
    )  # fmt: skip
    max_nodes: int = option(
        50_000, whole(1, MAX_NODES), DISCOVERY, "N",
        "keep at most so many nodes of one source of nodes",
        plain="max-nodes", ours=True,
    )  # fmt: skip
    connect_timeout: int = option(
        3, seconds_from_1, FAILURES, "SECONDS",
        "give a node so long to accept a connection",
        plain="connect-timeout", ours=True,
    )  # fmt: skip
    max_retries: int = option(
        3, whole(0, MAX_RETRIES), FAILURES, "N",
        "try so many other nodes after a failed connect",
        plain="max-retries", zero_is_default=True,
    )  # fmt: skip
    retry: Literal["none", "connect", "idempotent", "all-unsent"] = option(
        "idempotent", one_of("none", "connect", "idempotent", "all-unsent"), FAILURES, "WHEN",
        "send a request to another node: none = never, connect = after a failed connect, idempotent = also a GET, HEAD "
        "or OPTIONS without body whose node closed before its first byte, all-unsent = also any other request whose "
        "body has not gone further than it can be sent again; its node may have acted on it",
        plain="retry", ours=True,
    )  # fmt: skip
    retry_budget: int = option(
        20, whole(0, 100, "percent"), FAILURES, "PERCENT",
        "of all requests, send so many at most to another node, but ten a second always; 0 = no limit",
        plain="retry-budget", ours=True,
    )  # fmt: skip
    max_fails: int = option(
        5, whole(0, MAX_FAILS), FAILURES, "N",
        "leave a node out that took so many requests in a row and hung or broke off before it began to answer; 0 = "
        "never",
        plain="max-fails", ours=True,
    )  # fmt: skip
    max_ejected: int = option(
        50, whole(0, 100, "percent"), FAILURES, "PERCENT",
        "leave out at most this share of a key's nodes for that",
        plain="max-ejected", ours=True,
    )  # fmt: skip
    slow_start: int = option(
        0, seconds, FAILURES, "SECONDS",
        "let the share of a node that is new or back grow over so long; 0 = at once",
        plain="slow-start", ours=True,
    )  # fmt: skip
    max_connections: int = option(
        0, whole(0, MAX_NODES), FAILURES, "N",
        "send at most so many requests at a time to one node, of which each router process has its part, and one at "
        "least; 0 = no limit",
        plain="max-connections", ours=True,
    )  # fmt: skip
    max_queue: int = option(
        100, whole(0, MAX_NODES), FAILURES, "N",
        "let so many requests of one key wait for a node with room in each router process, and refuse more; 0 = none",
        plain="max-queue", ours=True,
    )  # fmt: skip
    queue_timeout: int = option(
        5, seconds_from_1, FAILURES, "SECONDS",
        "let them wait so long, then refuse them",
        plain="queue-timeout", ours=True,
    )  # fmt: skip
    health_check: Literal["none", "connect", "ping", "request"] = option(
        "none", one_of("none", "connect", "ping", "request"), CHECKS, "HOW",
        "ask every node how it is: connect = whether it takes a connection, ping = uWSGI's ping, request = whether it "
        "answers a request well",
        plain="health-check", ours=True,
    )  # fmt: skip
    health_interval: int = option(
        5, seconds_from_1, CHECKS, "SECONDS",
        "ask each node so often",
        plain="health-interval", ours=True,
    )  # fmt: skip
    health_timeout: int = option(
        2, seconds_from_1, CHECKS, "SECONDS",
        "give it so long to answer",
        plain="health-timeout", ours=True,
    )  # fmt: skip
    health_fall: int = option(
        3, whole(1, MAX_FAILS), CHECKS, "N",
        "leave a node out after so many failed checks in a row",
        plain="health-fall", ours=True,
    )  # fmt: skip
    health_rise: int = option(
        2, whole(1, MAX_FAILS), CHECKS, "N",
        "take it in again after so many good ones in a row",
        plain="health-rise", ours=True,
    )  # fmt: skip
    health_var: tuple[str, ...] = option(
        (), variable, CHECKS, "NAME=VALUE",
        "a variable of the request that `health-check = request` sends, beside REQUEST_METHOD=GET, REQUEST_URI=/, "
        "PATH_INFO=/ and HTTP_HOST, the node's key; repeatable",
        plain="health-var", ours=True,
    )  # fmt: skip
    health_status: str = option(
        "200-399", statuses, CHECKS, "FIRST[-LAST]",
        "the statuses that are good answers to it",
        plain="health-status", ours=True,
    )  # fmt: skip
    fallback: tuple[str, ...] = option(
        (), node_address, FAILURES, "NODE",
        "where no other node could be connected to, send the request to this one, ADDRESS[,MODIFIER1[,MODIFIER2]]; of "
        "several, the first one that works; repeatable",
        plain="fallback",
    )  # fmt: skip
    fallback_on_no_key: bool = option(
        False, flag, FAILURES, "",
        "send requests for keys without a node to the fallback nodes, too",
        plain="fallback-on-no-key",
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
        plain="drain-timeout", ours=True,
    )  # fmt: skip
    state_file: str | None = option(
        None, file_name, PROCESS, "FILE",
        "keep what is known of the nodes here, and begin with it at the next start",
        plain="state-file", ours=True,
    )  # fmt: skip
    harakiri: int = option(
        0, seconds, PROCESS, "SECONDS",
        "kill a router process that is stuck for so long; 0 = never",
        plain="harakiri",
    )  # fmt: skip
    check: bool = option(
        False, flag, CONFIGURATION, "",
        "read the configuration, say what is wrong with it, and end: status 0 where it can be used",
        plain="check", ours=True,
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
