"""Telling other routers, real fastrouters among them, which keys this one serves: as if it were a worker of each.

    Resubscribe    all receivers that the options name (router/resubscribe.py says what it is asked)
    Receiver       one of them: where it is, and under which address it sees us; both are looked at every second
    Teller         one place of it, and what was said there (resubscribeteller.py)

One that is down, slow or unknown holds up no other, and nothing here blocks more than its own greenlet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent

from discovery.identity import IDENTITY
from discovery.ownaddress import own_addresses
from discovery.resubscribeteller import EVERY, Offers, Sign, Teller, Troubles
from discovery.whereabouts import Place, Whereabouts, router_at, shown
from router.address import Inet, Unix, parse_node

PORT = 2626  # is always said; a text without a colon is a path, as in uWSGI
LOOK_EVERY = 1.0  # seconds between two looks at where a receiver is and how it sees us
FAREWELL_S = 3.0  # for all receivers together; who has not been told by then sees us refuse
HEARD_S = 0.2  # seconds in which receivers act on a farewell, before we accept nothing any more
ANY = ("0.0.0.0", "::")


class Resubscribe:
    """All receivers. `address` is ours: where it names no host, each is told the interface's that leads to it. `sign`
    is DIGEST:PRIVATE.pem, or "" where nothing is signed; ValueError for one that cannot be used.
    """

    def __init__(self, receivers: Sequence[str], address: str, sign: str = "") -> None:
        signer = signer_of(sign) if sign else None
        self.receivers = [Receiver(text, told_as(address), signer) for text in dict.fromkeys(receivers)]
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self, offers: Offers) -> None:
        for receiver in self.receivers:
            self._greenlets += [gevent.spawn(receiver.where.run), gevent.spawn(receiver.run, offers)]

    def note(self, keys: Iterable[str]) -> None:
        for receiver in self.receivers:
            for teller in receiver.tellers.values():
                teller.note(keys)

    def withdraw(self) -> None:
        gevent.killall(self._greenlets)
        tellers = [teller for receiver in self.receivers for teller in receiver.tellers.values()]
        if any(teller.told for teller in tellers):
            gevent.joinall([gevent.spawn(teller.withdraw) for teller in tellers], timeout=FAREWELL_S)
            gevent.sleep(HEARD_S)

    def rows(self) -> list[dict[str, Any]]:
        return [row for receiver in self.receivers for row in receiver.rows()]


class Receiver:
    """One receiver as the options name it: HOST:PORT with any kind of host, a path, or @NAME."""

    def __init__(
        self,
        text: str,
        address: str,
        sign: Sign | None = None,
        *,
        sleep: Callable[[float], Any] = gevent.sleep,
    ) -> None:
        self.name = text
        self.sign = sign
        self.address = address
        self.where = Whereabouts(router_at(as_path(text), PORT), EVERY)
        self.tellers: dict[Place, Teller] = {}
        self.troubles = Troubles(f"resubscribe {text}")
        self._sleep = sleep

    def run(self, offers: Offers) -> None:
        while True:
            self.look(offers)
            self._sleep(LOOK_EVERY)

    def look(self, offers: Offers) -> None:
        """Tell the places that it has now, under the addresses that we have now, and take leave of the others."""
        try:
            found = own_addresses(self.address, self.where.now())
        except OSError as error:
            self.troubles.note(error.strerror or str(error))
            return
        if any(teller.failures for teller in self.tellers.values()):
            self.where.hurry()
        for place, teller in list(self.tellers.items()):
            if found.get(place) != teller.address:
                del self.tellers[place]
                gevent.spawn(teller.leave)
        for place, own in found.items():
            if own is None:
                self.troubles.note(f"no way leads to {shown(place)}")
            elif place not in self.tellers:
                teller = self.tellers[place] = Teller(self.name, place, own, offers, IDENTITY, self.sign)
                teller.start()
        if all(found.values()):
            self.troubles.over()

    def rows(self) -> list[dict[str, Any]]:
        rows = [teller.row() for teller in self.tellers.values()]
        if not rows or self.troubles.error:
            rows.append({"receiver": self.name, "place": "", "address": self.address, "keys": 0, "sent": 0,
                         **self.troubles.row()})  # fmt: skip
        return rows


def signer_of(text: str) -> Sign:
    """What signs datagrams with what DIGEST:PRIVATE.pem names. ValueError where that cannot be."""
    try:
        from discovery.signing import signer
    except ImportError as error:
        raise ValueError(f"resubscribe-sign: {error} (pip install 'gfrouter[sign]' brings what it needs)") from None
    try:
        return signer(text)
    except ValueError as error:
        raise ValueError(f"resubscribe-sign: {error}") from None


def as_path(text: str) -> str:
    """Without a colon it is a path, as in uWSGI, where a name would be meant for workers' announcements."""
    return text if ":" in text or text.startswith(("/", "@", "./", "../")) else f"./{text}"


def told_as(address: str) -> str:
    """How we call ourselves where we listen at `address`: `:PORT` for any address of this machine."""
    if address.startswith(":"):
        return address
    listening = parse_node(address)
    if isinstance(listening, Inet) and listening.sockaddr[0] in ANY:
        return f":{listening.sockaddr[1]}"
    if isinstance(listening, Unix) and not listening.sockaddr.startswith(b"\0"):
        return os.path.abspath(address)
    return address
