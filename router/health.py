"""What puts a node out of turn, for how long, and what brings it back: judged by the requests that it got.

A connect that fails puts its endpoint out at once. One that takes requests and does not begin to answer `max_fails` in
a row is ejected: healthy nodes break off a request now and then, and a slow answer is an answer. It is not done where
it would leave too many of a pool out, as an overload makes every node hang, and the last ones would get it all.

The time is `gracetime` and doubles with each further time, up to `LONGEST_OUT`; it is jittered, so that nodes that
failed together are not tried together, but for the first refusal, whose time is the fastrouter's. Then one request
tries (endpoint.py). Who was ejected has to answer it: connections it took all along.

All routers share what one of them finds (pair.py). Nothing here is called on the straight path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from random import random
from time import monotonic
from typing import TYPE_CHECKING

from router.endpoint import LIVE, OUT, Cause, Endpoint
from router.keyrules import NO_RULES, KeyRules
from router.pool import WHOLE
from router.session import asked_key
from router.uwsgi import printable

if TYPE_CHECKING:
    from router.pool import Member, Pool
    from router.session import Session
    from router.table import Table

log = logging.getLogger("gfrouter")

LONGEST_OUT = 300.0  # seconds, where gracetime is no longer: a node that was repaired is not forgotten
JITTER = 0.25  # of the time, at most, is added
CALM = 60.0  # seconds in turn after which earlier failures make no time longer
FIRST_SHARE = WHOLE // 10  # of its weight, with which a node starts slowly


class Health:
    """One router process' judgement of the endpoints of `table`.

    `max_fails`: 0 ejects nobody. `max_ejected` is a percentage, `slow_start` in seconds, 0 for none. Where `cheap`, a
    pool whose nodes all refuse is left alone until one announces itself, as nobody is there to ask for it.
    """

    def __init__(
        self,
        table: Table,
        *,
        gracetime: int,
        max_fails: int,
        max_ejected: int,
        slow_start: int,
        cheap: bool,
        rules: KeyRules = NO_RULES,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
    ) -> None:
        self.table = table
        self.gracetime = gracetime
        self.max_fails = max_fails
        self.max_ejected = max_ejected
        self.slow_start = slow_start
        self.cheap = cheap
        self.rules = rules
        self.clock = clock
        self.random = random
        self.growing: dict[Member, float] = {}  # since when, in monotonic seconds

    # What became of a request.

    def refused(self, session: Session, member: Member) -> None:
        """No connection to it came about."""
        endpoint = member.endpoint
        if endpoint.state == OUT:
            return
        if endpoint.state == LIVE:
            log.warning("[uwsgi-fastrouter] %s => marking %s as failed", *names(session, member, self.rules))
        self._put_out(endpoint, Cause.REFUSED)

    def unanswered(self, session: Session, member: Member) -> None:
        """It took the request, and ended the connection or let the time run out before its first byte."""
        endpoint = member.endpoint
        if endpoint.state == LIVE:
            endpoint.broken += 1
            if self.max_fails and endpoint.broken >= self.max_fails:
                self._eject(session, member)
        elif session.probing and endpoint.state != OUT and endpoint.trier in (None, session):
            self._put_out(endpoint, Cause.BROKEN)

    def answered(self, session: Session, member: Member) -> None:
        """Its first byte came, and it was in doubt. One asked before it went out does not show that it is well now, and
        none ends an operator's ejection before its time.
        """
        endpoint = member.endpoint
        endpoint.broken = 0
        if session.probing and endpoint.state != LIVE:
            self.table.restore(endpoint, Cause.BROKEN if endpoint.state == OUT else Cause.EJECTED)
            if endpoint.state == LIVE:
                log.info("[uwsgi-fastrouter] %s => %s answers again", *names(session, member, self.rules))

    def _eject(self, session: Session, member: Member) -> None:
        endpoint = member.endpoint
        if any(self._is_share_out(one.pool, endpoint) for one in endpoint.members):
            if endpoint.broken == self.max_fails:
                why = f"{endpoint.broken} requests in a row unanswered, but too many of the nodes are out"
                log.warning("[uwsgi-fastrouter] %s => not ejecting %s (%s)", *names(session, member, self.rules), why)
            return
        why = f"{endpoint.broken} requests in a row unanswered"
        log.warning("[uwsgi-fastrouter] %s => ejecting %s (%s)", *names(session, member, self.rules), why)
        self._put_out(endpoint, Cause.BROKEN)

    def _is_share_out(self, pool: Pool, endpoint: Endpoint) -> bool:
        """Whether, without `endpoint` as well, more of the pool would be out than may be; the last one never may. Those
        that are drained take no part.
        """
        others = [one.endpoint for one in pool.members.values() if one.endpoint is not endpoint]
        states = [other.state for other in others if not other.drained]
        out = 1 + sum(state != LIVE for state in states)
        return not states or out * 100 > self.max_ejected * (1 + len(states))

    def _put_out(self, endpoint: Endpoint, cause: Cause) -> None:
        now = self.clock()
        if endpoint.state == LIVE:
            times = 1 if now > endpoint.out_until + CALM else endpoint.times + 1
        elif now < endpoint.out_until:  # tried before its time, which costs it nothing
            return self.table.fail(endpoint, endpoint.out_until, endpoint.cause, endpoint.times)
        else:
            if endpoint.cause == Cause.BROKEN:  # one that hangs may refuse as well, and announces itself all along
                cause = Cause.BROKEN
            times = endpoint.times + 1
        self.table.fail(endpoint, now + self._time_out(cause, times), cause, times)

    def _time_out(self, cause: Cause, times: int) -> float:
        longest = max(LONGEST_OUT, float(self.gracetime))
        seconds = min(longest, self.gracetime * 2.0 ** min(times - 1, 30))
        return seconds if cause == Cause.REFUSED and times == 1 else seconds * (1 + JITTER * self.random())

    # Once a second.

    def sweep(self) -> None:
        """Put those whose time is up on trial, and let those grow that start slowly."""
        now = self.clock()
        self.table.begin_trials(now)
        if not self.cheap and self.table.out:
            self._try_dead_pools()
        if self.growing:
            self._grow(now)

    def _try_dead_pools(self) -> None:
        """Where all of a pool are out or drained, those that refused are tried each second: one may be back and not say
        so.
        """
        refused = [endpoint for endpoint in self.table.out if endpoint.cause == Cause.REFUSED]
        pools = {member.pool for endpoint in refused for member in endpoint.members}
        members = {pool: [member.endpoint for member in pool.members.values()] for pool in pools}
        dead = {pool for pool in pools if all(one.state == OUT or one.drained for one in members[pool])}
        for endpoint in refused:
            if any(member.pool in dead for member in endpoint.members):
                self.table.begin_trial(endpoint)

    # Slow start.

    def start_slowly(self, members: Iterable[Member]) -> None:
        """These are new in a pool that has others, or back in turn."""
        if self.slow_start:
            now = self.clock()
            for member in members:
                self.growing[member] = now
                member.share = FIRST_SHARE
                member.pool.stale = True

    def _grow(self, now: float) -> None:
        for member, since in list(self.growing.items()):
            grown = int((WHOLE - FIRST_SHARE) * (now - since) / self.slow_start)
            member.share = min(WHOLE, FIRST_SHARE + grown)
            member.pool.stale = True
            if member.share == WHOLE or member not in member.endpoint.members:
                del self.growing[member]


def names(session: Session, member: Member, rules: KeyRules) -> tuple[str, str]:
    """Key and address, as they stand in a log line."""
    return printable(asked_key(session, member.pool.key, rules)), printable(member.endpoint.address)
