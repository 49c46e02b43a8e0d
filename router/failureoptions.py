"""What is done about nodes that fail: a part of the table in options.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.entry import option
from router.values import (
    MAX_FAILS,
    MAX_NODES,
    MAX_RETRIES,
    flag,
    node_address,
    one_of,
    seconds,
    seconds_from_1,
    statuses,
    variable,
    whole,
)

FAILURES = "Nodes that fail"
CHECKS = "Checks of nodes"


@dataclass(frozen=True)
class FailureOptions:
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
