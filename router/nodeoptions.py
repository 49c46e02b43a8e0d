"""Where nodes come from: a part of the table in options.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.algorithmname import DEFAULT, algorithm_name
from router.entry import option
from router.values import (
    LARGEST_UID,
    MAX_MOUNTPOINTS,
    MAX_NODES,
    MAX_QUOTA,
    MAX_SECONDS,
    base,
    cache_file,
    code_string,
    digest_and_file,
    digest_and_folder,
    flag,
    folder_prefix,
    key,
    network,
    node_address,
    node_place,
    one_of,
    pattern,
    receiver,
    seconds_from_1,
    socket_number,
    source_names,
    whole,
)

SUBSCRIPTIONS = "Announcements"
DISCOVERY = "Sources of nodes"
KEYS = "Keys"


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
    subscription_allow: tuple[str, ...] = option(
        (), network, SUBSCRIPTIONS, "CIDR",
        "take announcements over UDP from this network alone; unix sockets are not concerned; repeatable",
        plain="subscription-allow", ours=True,
    )  # fmt: skip
    subscriptions_sign_check: str = option(
        "", digest_and_folder, SUBSCRIPTIONS, "DIGEST:DIR",
        "take what is signed by the owner of the public key DIR/KEY.pem alone, as in SHA256:/etc/gfrouter/keys",
        plain="subscriptions-sign-check", uwsgi="subscriptions-sign-check",
    )  # fmt: skip
    subscriptions_sign_check_tolerance: int = option(
        86_400, whole(0, MAX_SECONDS, "seconds"), SUBSCRIPTIONS, "SECONDS",
        "how old a signed announcement may be, or how far ahead",
        plain="subscriptions-sign-check-tolerance", uwsgi="subscriptions-sign-check-tolerance",
    )  # fmt: skip
    subscriptions_sign_skip_uid: tuple[int, ...] = option(
        (), whole(1, LARGEST_UID), SUBSCRIPTIONS, "UID",
        "this user needs no signature, through a unix socket with subscriptions-use-credentials; repeatable",
        plain="subscriptions-sign-skip-uid", uwsgi="subscriptions-sign-skip-uid",
    )  # fmt: skip
    subscriptions_use_credentials: bool = option(
        False, flag, SUBSCRIPTIONS, "",
        "have the kernel say who sends an announcement, and take none of which it does not: unix sockets only",
        plain="subscriptions-use-credentials", uwsgi="subscriptions-use-credentials",
    )  # fmt: skip
    subscriptions_credentials_check: tuple[str, ...] = option(
        (), folder_prefix, SUBSCRIPTIONS, "DIR/",
        "take announcements of a key from the owner and group of the file DIR/KEY alone; repeatable",
        plain="subscriptions-credentials-check", uwsgi="subscriptions-credentials-check",
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
    force_key: str = option(
        "", key, KEYS, "KEY",
        "send every request to the nodes of this key; what the request says of it is not looked at",
        plain="force-key",
    )  # fmt: skip
    subscription_mountpoints: int = option(
        0, whole(0, MAX_MOUNTPOINTS), KEYS, "N",
        "a request's key is its host and N parts of its path, as in foo.com/app, or else its host alone; 0 = its host",
        plain="subscription-mountpoints subscription-mountpoint",
        uwsgi="subscription-mountpoints subscription-mountpoint",
    )  # fmt: skip
    mountpoints_shallower: bool = option(
        False, flag, KEYS, "",
        "where nobody knows the key with N parts of the path, try it with fewer, one by one, before the host alone",
        plain="mountpoints-shallower", ours=True,
    )  # fmt: skip
    normalise_host: bool = option(
        False, flag, KEYS, "",
        "where nobody knows the key, try it in lower case, without port and without a dot at its end",
        plain="normalise-host", ours=True,
    )  # fmt: skip
    wildcard_keys: bool = option(
        False, flag, KEYS, "",
        "let nodes of the key *.foo.com serve a.foo.com, where nobody knows that",
        plain="wildcard-keys", ours=True,
    )  # fmt: skip
    subscription_dotsplit: bool = option(
        False, flag, KEYS, "",
        "let nodes of the key .foo.com serve a.foo.com, where nobody knows that, and those of .com after them",
        plain="subscription-dotsplit", uwsgi="subscription-dotsplit",
    )  # fmt: skip
    to: tuple[str, ...] = option(
        (), node_address, DISCOVERY, "NODE",
        "send requests for keys that no source knows to this node, ADDRESS[,MODIFIER1[,MODIFIER2]]; several take "
        "turns; repeatable",
        plain="to",
    )  # fmt: skip
    use_cache: str = option(
        "", cache_file, DISCOVERY, "FILE",
        "take nodes from a file of uWSGI's cache values, a line KEY ADDRESS[,MODIFIER1] for each key, several nodes "
        "joined by |; as --discovery cache://FILE",
        plain="use-cache", value_is_optional=True,
    )  # fmt: skip
    use_pattern: str = option(
        "", pattern, DISCOVERY, "PATTERN",
        "send requests to the address that is this text with the key for each %s; as --discovery pattern://PATTERN",
        plain="use-pattern",
    )  # fmt: skip
    use_base: str = option(
        "", base, DISCOVERY, "BASE",
        "send requests to the address that is this text with the key behind it; as --discovery base://BASE",
        plain="use-base",
    )  # fmt: skip
    use_code_string: str = option(
        "", code_string, DISCOVERY, "0:FILE:FUNCTION",
        "send requests where this Python function says: it takes the key in bytes and gives ADDRESS[,MODIFIER1] or "
        "None; as --discovery code://FILE?function=FUNCTION",
        plain="use-code-string",
    )  # fmt: skip
    use_socket: int | None = option(
        None, socket_number, DISCOVERY, "N",
        "send requests for keys that no source knows to the worker whose addresses the lines socket = ADDRESS of the "
        "same configuration say: to the N-th, from 0",
        plain="use-socket", value_is_optional=True,
    )  # fmt: skip
    subscription_fallback_key: str = option(
        "", key, DISCOVERY, "KEY",
        "send requests for keys without a node to the nodes of this key",
        plain="subscription-fallback-key",
    )  # fmt: skip
    algorithm: str = option(
        DEFAULT, algorithm_name, DISCOVERY, "NAME",
        "how a key's nodes take turns, unless the first of them says: wrr = by weight, lrc = to the fewest requests in "
        "flight, wlrc = to the fewest by weight, p2c = to the freer one of two, load = to the least load that workers "
        "announce, iphash = by the client's address, hash:VAR = by a variable of the request",
        plain="algorithm", uwsgi="subscription-algo",
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
