"""Which keys serve a request, by the options: its own, and others where that one has no node. Pure.

A request's own key is what `finder` reads: the host (key.py), with the beginning of its path where there are
mountpoints, or the one key that is forced. `others` are tried in this order, the first that has a node serves:
1. with mountpoints: fewer parts of the path, if the options say so, then the host alone;
2. with `normalise`: behind each of these, and behind the own key, the same with its host in lower case, without port
   and without a dot at its end;
3. with `wildcards`: `*.foo.com` for a.foo.com, the longest first;
4. with `dotsplit`: `.foo.com`, `.com` for a.foo.com, five lookups with the own key, as in uWSGI.
3 and 4 take the host as it came, then as 2 has it, and each of them with the paths of 1. Keys of nodes are never
changed: a node serves exactly the key that it was given.

Strategy: the own key comes first and costs what it did, as the engine asks for others where it is unknown only; so
what `find_key` reads decides all, and the others follow from its text alone: a session that waits, a retry, and
`gfrouter lookup` need no more.

Worth, as a share of what `find_key` takes (CPython 3.11, plain build, 25 vars in 756 bytes): mountpoints 0.4, a forced
key saves all of it. Where the own key is unknown, finding the first other one: 0.1 to 0.2 for each of the kinds, and
about 0.1 for each further one. Nothing where no option is set: the engine's time a request is the same to its noise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.key import MAX_KEY, find_key, find_var

if TYPE_CHECKING:
    from router.options import Options

PATH = b"PATH_INFO"
PARTS = 4  # of a host that are tried behind the whole: five lookups, as in uWSGI

Finder = Callable[[bytes, int], bytes]

_PORT = re.compile(r"([^:]*|\[[^]]*\]):[0-9]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeyRules:
    """`depth`: parts of the path that belong to a key, 0 for none; `shallower`: fewer of them are tried as well."""

    forced: str = ""
    depth: int = 0
    shallower: bool = False
    normalise: bool = False
    wildcards: bool = False
    dotsplit: bool = False

    @classmethod
    def of(cls, options: Options) -> KeyRules:
        return cls(
            options.force_key,
            options.subscription_mountpoints,
            options.mountpoints_shallower,
            options.normalise_host,
            options.wildcard_keys,
            options.subscription_dotsplit,
        )

    @property
    def has_others(self) -> bool:
        return bool(self.depth or self.normalise or self.wildcards or self.dotsplit)

    def finder(self) -> Finder:
        """What reads the key of a request, in the place of `find_key`."""
        if self.forced:
            forced = _packed(self.forced)
            return lambda data, end: forced
        if self.depth:
            depth = self.depth
            return lambda data, end: mounted(find_key(data, end), find_var(data, end, PATH), depth)
        return find_key

    def others(self, key: str) -> Iterator[str]:
        """The keys whose nodes serve a request for `key` where that one has none, the first to be tried first."""
        if not self.has_others:
            return
        host, paths = self._paths(key)
        hosts = [host]
        if self.normalise and (plain := normalised(host)) != host:
            hosts.append(plain)
        for path in paths:
            for host in hosts:
                if (other := host + path) != key:
                    yield other
        for star in ("*",) * self.wildcards + ("",) * self.dotsplit:
            for host in hosts:
                for part in parts(host):
                    for path in paths:
                        yield star + part + path

    def asked(self, key: str) -> str:
        """The one of all these keys for which sources are asked that look keys up on demand: the host, as plain as the
        options have it.
        """
        host = self._paths(key)[0]
        return normalised(host) if self.normalise else host

    def key_of(self, text: str) -> str:
        """The own key of a request, of which `text` is the host, with its path behind it perhaps."""
        if self.forced:
            return self.forced
        if not self.depth:
            return text
        host, slash, path = _packed(text).partition(b"/")
        return str(mounted(host, slash + path, self.depth), "utf-8", "surrogateescape")

    def _paths(self, key: str) -> tuple[str, list[str]]:
        """The host, and what may stand behind it, all of it first."""
        if not self.depth:
            return key, [""]
        host, slash, path = key.partition("/")
        paths = [slash + path]
        if self.shallower:
            for _ in range(self.depth):
                paths.append(paths[-1].rpartition("/")[0])
        return host, list(dict.fromkeys([*paths, ""]))


NO_RULES = KeyRules()


def mounted(key: bytes, path: bytes, depth: int) -> bytes:
    """The key with the beginning of the path, to before its slash number `depth` + 1; one that is the last byte counts
    as that. The key alone where the path says nothing, or the whole would be too long.
    """
    if not key or path == b"/" or not path.startswith(b"/"):
        return key
    end = 0
    for _ in range(depth):
        slash = path.find(b"/", end + 1)
        end = slash if slash > 0 else len(path)
        if end >= len(path) - 1:
            break
    return key + path[:end] if len(key) + end <= MAX_KEY else key


def normalised(host: str) -> str:
    """In lower case (of ASCII), without port, without a dot at the end."""
    if port := _PORT.fullmatch(host):
        host = port[1]
    return str(_packed(host).lower(), "utf-8", "surrogateescape").removesuffix(".")


def _packed(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def parts(host: str) -> Iterator[str]:
    """`.foo.com`, `.com` for a.foo.com."""
    at = 0
    for _ in range(PARTS):
        at = host.find(".", at + 1)
        if at < 0:
            return
        yield host[at:]
