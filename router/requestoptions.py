"""Where requests come in, and how they are served: a part of the table in options.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.entry import option
from router.values import (
    MAX_BYTES,
    address,
    address_or,
    file_mode,
    flag,
    folder,
    listening_address,
    one_of,
    owner,
    pages,
    queue_length,
    seconds,
    seconds_from_1,
    whole,
)

ADDRESSES = "Addresses"
REQUESTS = "Requests"

ADMIN_OFF = "off"  # in the place of an address


@dataclass(frozen=True)
class RequestOptions:
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
    post_buffering: int = option(
        0, whole(0, MAX_BYTES, "bytes"), REQUESTS, "BYTES",
        "read the whole body of a request before it goes to a node: up to so many bytes in memory, a longer one in a "
        "file; 0 = pass it on as it comes",
        plain="post-buffering",
    )  # fmt: skip
    post_buffering_dir: str = option(
        "", folder, REQUESTS, "FOLDER",
        "keep these files in this folder (default: $TMPDIR, or else /tmp)",
        plain="post-buffering-dir",
    )  # fmt: skip
    post_buffering_limit: int = option(
        0, whole(0, MAX_BYTES, "bytes"), REQUESTS, "BYTES",
        "keep so many bytes of bodies at a time in each router process, and refuse what is more; 0 = no limit",
        plain="post-buffering-limit", ours=True,
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
