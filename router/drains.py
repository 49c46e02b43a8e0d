"""What an operator tells the table: who gets no new requests, and who is out for a while. No I/O, no clock.

A word is a node where the table knows it as an address, and otherwise a key. What nobody knows can be drained, too, and
that holds when it turns up: whatever looks like an address as one, and anything else, and what may be both, as a key.
Each verb takes all of its words or none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from router.address import AddressError, HostName, parse_node, quoted
from router.endpoint import LIVE, Cause
from router.key import MAX_KEY
from router.static import RESERVED
from router.table import Table
from router.uwsgi import printable

log = logging.getLogger("gfrouter")

NODE, KEY = "node", "key"
Thing = tuple[str, str]  # NODE or KEY, and the word

MOST_DRAINED = 1000  # nodes and keys: each is looked at by hand, and told to each router at every change
EJECT_SECONDS = 60.0  # unless somebody says how long
MOST_SECONDS = 86_400.0  # of an ejection; who must stay out for longer is drained


class Impossible(ValueError):
    """The words cannot be obeyed; the text says which one and why. Nothing has been changed."""


def drain(table: Table, words: Iterable[str]) -> list[Thing]:
    """No new requests for these. Gives what each word is taken for."""
    things = [thing for word in words for thing in _known(table, word) or _possible(word)]
    before = dict.fromkeys(drained(table))
    news = [thing for thing in dict.fromkeys(things) if thing not in before]
    if len(before) + len(news) > MOST_DRAINED:
        raise Impossible(f"{len(before)} nodes and keys are drained, {MOST_DRAINED} at most can be")
    _set(table, [*before, *news])
    for kind, word in news:
        log.info("%s %s is drained", kind, printable(word))
    return things


def undrain(table: Table, words: Iterable[str]) -> list[Thing]:
    """They get requests again; who has been ejected is in turn at once."""
    before = dict.fromkeys(drained(table))
    things = [
        thing
        for word in words
        for thing in [one for one in before if one[1] == word] or _known(table, word) or _nobody_knows(word)
    ]
    _set(table, [thing for thing in before if thing not in things])
    for kind, word in dict.fromkeys(things):
        if (kind, word) in before:
            log.info("%s %s is drained no longer", kind, printable(word))
        if kind == NODE and end_ejection(table, word):
            log.info("%s %s is ejected no longer", kind, printable(word))
    return things


def eject(table: Table, words: Iterable[str], seconds: float, now: float) -> list[Thing]:
    """These nodes are out for so long, then tried again; `now` in monotonic seconds."""
    if not 1 <= seconds <= MOST_SECONDS:
        raise Impossible(f"a node is ejected for 1 to {MOST_SECONDS:.0f} seconds")
    things = list(dict.fromkeys(thing for word in words for thing in _known(table, word) or _nobody_knows(word)))
    for kind, word in things:
        if kind == KEY:
            raise Impossible(f"{quoted(word)} is a key, and nodes alone are ejected")
    for kind, word in things:
        end_ejection(table, word)  # or the routers would not hear of the new time
        for address in table.targets(word):
            if endpoint := table.endpoints.get(address):
                table.fail(endpoint, now + seconds, Cause.EJECTED, times=0)
        log.info("%s %s is ejected for %g s", kind, printable(word), seconds)
    return things


def end_ejection(table: Table, address: str) -> bool:
    """Bring back who is out as an operator said so, and for nothing else. True where there is anybody."""
    endpoints = [one for target in table.targets(address) if (one := table.endpoints.get(target))]
    ejected = [one for one in endpoints if one.state != LIVE and one.cause == Cause.EJECTED]
    for endpoint in endpoints:
        endpoint.ejected_until = 0.0
    for endpoint in ejected:
        table.restore(endpoint, Cause.EJECTED)
    return bool(ejected)


def drained(table: Table) -> list[Thing]:
    """All that is, nodes first, in the order in which it was said."""
    addresses, keys = table.drained
    return [*((NODE, address) for address in addresses), *((KEY, key) for key in keys)]


def _set(table: Table, things: Sequence[Thing]) -> None:
    table.drain(([word for kind, word in things if kind == NODE], [word for kind, word in things if kind == KEY]))


def _known(table: Table, word: str) -> list[Thing]:
    if word in table.endpoints or word in table.names:
        return [(NODE, word)]
    return [(KEY, word)] if word in table.pools and word not in RESERVED else []


def _possible(word: str) -> list[Thing]:
    """What a word may become that nobody knows: `10.0.0.5:3031` a node, `foo.com` a key, `foo.com:3031` both."""
    try:
        found = parse_node(word)
    except AddressError:
        found = None
    kinds = [NODE] if found is not None and (":" in word or word.startswith(("/", "@"))) else []
    if not kinds or isinstance(found, HostName):
        kinds.append(KEY)
        if reason := _no_key(word):
            raise Impossible(f"{quoted(word)} is neither a node's address nor a key: {reason}")
    return [(kind, word) for kind in kinds]


def _no_key(word: str) -> str:
    """Why this can be nobody's key; "" where it can."""
    try:
        size = len(word.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "it is no text"
    if word in RESERVED:
        return "it stands for an option"
    return "" if 0 < size <= MAX_KEY else f"it has {size} bytes, and a key has 1 to {MAX_KEY}"


def _nobody_knows(word: str) -> list[Thing]:
    raise Impossible(f"nobody knows {quoted(word)}")
