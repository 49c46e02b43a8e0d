"""The live state of one address, whatever keys it serves: requests in flight, in turn or out of it.

    LIVE ──failure──▶ OUT ──its time──▶ TRIAL ──picked──▶ TRYING ──goes well──▶ LIVE
                       ▲                  ▲                  │ │
                       │                  └──client left─────┘ │
                       └─────────────────────────failure───────┘

What goes well is the connect for one that was refused, and the answer's first byte for all others. Why it is out
decides what brings it back (`Cause`). While it is in TRIAL one request may try it; the others go elsewhere.
Transitions happen in `Table`, which tells the pools concerned; but for the one to TRYING, which is the balancer's own.
To be drained is no state of health: a drained endpoint gets no new requests, however it is.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.pool import Member

LIVE, OUT, TRIAL, TRYING = range(4)


class Cause(IntEnum):
    """Why an endpoint is out, the weakest first: what is out for one of them does not become out for a weaker one."""

    REFUSED = 1  # no connection came about: back when one does, or by the node's own announcement
    BROKEN = 2  # it took requests and hung or broke off: back when it begins to answer one; it announced all along
    EJECTED = 3  # by an operator: back likewise, or by an operator
    CHECK = 4  # the active check failed: back when that goes well


class Endpoint:
    """One address: `family` and `sockaddr` as `socket.connect` wants them, and its state in this process."""

    __slots__ = (
        "address", "broken", "cause", "drained", "ejected_until", "failed_at", "family", "in_flight", "members",
        "out_until", "sockaddr", "state", "times", "trier", "watchers",
    )  # fmt: skip

    def __init__(self, address: str, family: int, sockaddr: Any) -> None:
        self.address = address
        self.family = family
        self.sockaddr = sockaddr
        self.state = LIVE
        self.cause = Cause.REFUSED  # meaningful while not LIVE
        self.times = 0  # so often its requests put it out since it was LIVE for long
        self.broken = 0  # requests in a row that it took and did not answer, in this process
        self.drained = False
        self.in_flight = 0
        self.failed_at = 0.0  # unix seconds; meaningful while OUT, in the supervisor alone
        self.out_until = 0.0  # monotonic seconds; while not OUT, when the last such time was to end
        self.ejected_until = 0.0  # monotonic seconds; by an operator, whatever else it is out for
        self.trier: object = None  # the session that has it on trial, while TRYING
        self.members: set[Member] = set()
        self.watchers: dict[Member, None] | None = None  # whose pools keep in mind what is in flight here

    def watch(self, member: Member) -> None:
        """Have the pool of `member` told, once, when a request has let this endpoint go."""
        if self.watchers is None:
            self.watchers = {}
        self.watchers[member] = None

    def tell_watchers(self) -> None:
        """A request has let it go. In their own time they look what is in flight now, and watch again."""
        if self.watchers:
            for member in self.watchers:
                member.pool.order.changed[member] = None
            self.watchers.clear()

    @property
    def lost(self) -> bool:
        """Out, and not even asked where nobody else is left, as a broken one is: it took connections all along."""
        return self.state == OUT and self.cause != Cause.BROKEN

    def __repr__(self) -> str:
        return f"<Endpoint {self.address} {('live', 'out', 'trial', 'trying')[self.state]} {self.in_flight} in flight>"
