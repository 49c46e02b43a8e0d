"""Announcing at a router's subscription server, as a uWSGI worker does: one datagram for each key and renewal.

Every address of the router's name is told. Nothing is kept from one renewal to the next but what each of them was told,
so that it can be taken back: each datagram goes from a socket of its own, which therefore has the address that the
machine has now and the way that leads there now. That is our own address, too, where `:PORT` asks for it.

Nobody answers a datagram. But where nothing listens, the kernel over there says so within a moment, which is waited
for: a router that restarts is told again soon.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import gevent

from discovery.announcement import Announcement, build_announcement
from discovery.announcetarget import Accepts, NotAccepting, Registration, Trouble, log_joined, log_left, reason
from discovery.ownaddress import own_address, own_addresses
from discovery.whereabouts import Place, Whereabouts, router_at, shown

PORT = 2626  # where none is said; that of the examples of uWSGI's documentation and of ours
ECHO_S = 0.05  # until which it is known that nothing listens, on any network that is near
SEND_S = 1.0  # how long a unix socket's full queue is waited for


class ToRouter:
    """One router, or all that its name means."""

    def __init__(
        self,
        text: str,
        said: Registration,
        accepts: Accepts,
        *,
        sleep: Callable[[float], Any] = gevent.sleep,
    ) -> None:
        self.name = text
        self.said = said
        self.every = float(said.interval)
        self.where = Whereabouts(router_at(text.removeprefix("udp://").removeprefix("unix://"), PORT), self.every)
        self.told: dict[Place, str] = {}  # what may be known there
        self._joined: dict[Place, str] = {}  # the same, where nobody has refused it
        self._picture: dict[Place, str | None] = {}
        self._accepts = accepts
        self._sleep = sleep

    def renew(self) -> None:
        picture = self._look()
        self._picture = picture
        self._leave([place for place in self.told if place not in picture])
        troubles: list[Trouble] = []
        with ExitStack() as stack:
            sent: dict[Place, socket.socket] = {}
            for place in picture:
                try:
                    sent[place] = self._tell(place, stack)
                except Trouble as trouble:
                    troubles.append(trouble)
                except OSError as error:
                    troubles.append(Trouble(f"{shown(place)}: {reason(error)}"))
            self._sleep(ECHO_S)
            for place, sock in sent.items():
                if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    troubles.append(Trouble(f"{shown(place)}: {os.strerror(number)}"))
                elif self._joined.get(place) != self.told[place]:
                    self._joined[place] = self.told[place]
                    log_joined(self.said.keys, self.told[place], shown(place))
        real = [trouble for trouble in troubles if not isinstance(trouble, NotAccepting)]
        if real:
            raise Trouble("; ".join(map(str, real)))
        if troubles and not sent:
            raise troubles[0]

    def is_current(self) -> bool:
        try:
            return self._look() == self._picture
        except OSError:  # as nothing is known yet, nothing has changed
            return True

    def withdraw(self) -> None:
        self._leave(list(self.told))

    def _look(self) -> dict[Place, str | None]:
        """Where the router is now → where it finds us; None where no way leads to it."""
        return own_addresses(self.said.address, self.where.now())

    def _tell(self, place: Place, stack: ExitStack) -> socket.socket:
        """Announce at one place, after withdrawing what has been said there and is no longer so."""
        sock = stack.enter_context(connected(place))
        address = own_address(self.said.address, place) or self.said.address
        before = self.told.get(place)
        accepting = self._accepts(address)
        if before is not None and (before != address or accepting is False):
            self._leave([place])
        if not accepting and (before != address or accepting is False):
            raise NotAccepting(f"waiting for {address} to accept connections")
        self.told[place] = address
        self._send(sock, address, subscribe=True)
        return sock

    def _leave(self, places: list[Place]) -> None:
        """Withdraw there, as far as that can be done: who cannot be reached misses us soon enough."""
        for place in places:
            address = self.told.pop(place)
            try:
                with connected(place) as sock:
                    self._send(sock, address, subscribe=False)
            except OSError:
                pass
            if self._joined.pop(place, None):
                log_left(self.said.keys, address, shown(place))

    def _send(self, sock: socket.socket, address: str, *, subscribe: bool) -> None:
        said = self.said
        for key in said.keys:
            one = Announcement(
                subscribe,
                key,
                address,
                modifier1=said.modifier1,
                modifier2=said.modifier2,
                weight=said.weight,
                backup=said.backup,
            )
            sock.send(build_announcement(one))


def connected(place: Place) -> socket.socket:
    """A datagram socket that hears of it when nothing listens there."""
    sock = socket.socket(place.family, socket.SOCK_DGRAM)
    try:
        sock.settimeout(SEND_S)
        sock.connect(place.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
