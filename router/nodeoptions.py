"""Where nodes come from: a part of the table in options.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.entry import option
from router.values import (
    MAX_NODES,
    MAX_QUOTA,
    digest_and_file,
    key,
    node_address,
    node_place,
    one_of,
    receiver,
    seconds_from_1,
    source_names,
    whole,
)

SUBSCRIPTIONS = "Announcements"
DISCOVERY = "Sources of nodes"


@dataclass(frozen=True)
class NodeOptions:
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
    resubscribe: tuple[str, ...] = option(
        (), receiver, SUBSCRIPTIONS, "ADDRESS",
        "announce this router at that subscription server, for each key that workers have announced here; repeatable",
        plain="resubscribe",
    )  # fmt: skip
    resubscribe_address: str = option(
        "", node_place, SUBSCRIPTIONS, "ADDRESS",
        "what this router calls itself there; :PORT is this machine as that server sees it (default: the first address "
        "at which it listens)",
        plain="resubscribe-address", ours=True,
    )  # fmt: skip
    resubscribe_sign: str = option(
        "", digest_and_file, SUBSCRIPTIONS, "DIGEST:FILE",
        "sign what is said there with the private key in this file, as workers with sign= in subscribe2 do",
        plain="resubscribe-sign", ours=True,
    )  # fmt: skip
    resubscribe_keys: Literal["announced", "all"] = option(
        "announced", one_of("announced", "all"), SUBSCRIPTIONS, "WHICH",
        "which keys are announced there: announced = those of workers that announce themselves, all = those of all "
        "sources",
        plain="resubscribe-keys", ours=True,
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
