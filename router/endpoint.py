"""The live state of one address, whatever keys it serves: requests in flight, in turn or out of it.

    LIVE ──failure──▶ OUT ──gracetime──▶ TRIAL ──picked──▶ TRYING ──connected──▶ LIVE
                       ▲                   ▲                  │ │
                       │                   └──client left─────┘ │
                       └──────────────────────────failure───────┘

An announcement brings a refused endpoint from any state straight back to LIVE. While it is in TRIAL one request may
try it; the others go elsewhere. Transitions happen in `Table`, which tells the pools concerned; but for the one to
TRYING, which is the balancer's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.pool import Member

LIVE, OUT, TRIAL, TRYING = range(4)


class Endpoint:
    """One address: `family` and `sockaddr` as `socket.connect` wants them, and its state in this process."""

    __slots__ = ("address", "failed_at", "family", "in_flight", "members", "out_until", "sockaddr", "state")

    def __init__(self, address: str, family: int, sockaddr: Any) -> None:
        self.address = address
        self.family = family
        self.sockaddr = sockaddr
        self.state = LIVE
        self.in_flight = 0
        self.failed_at = 0.0  # unix seconds; meaningful while OUT, in the supervisor alone
        self.out_until = 0.0  # monotonic seconds; meaningful while OUT
        self.members: set[Member] = set()

    def __repr__(self) -> str:
        return f"<Endpoint {self.address} {('live', 'out', 'trial', 'trying')[self.state]} {self.in_flight} in flight>"
