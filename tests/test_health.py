"""Passive health: what is judged to be a failure of a node, for how long that puts it out, and what brings it back."""

from __future__ import annotations

import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import announce, ask, read_to_end, request
from one_router import OneRouter, health, refused_address
from router.balance import in_turn
from router.endpoint import LIVE, OUT, TRIAL, TRYING, Cause
from router.health import CALM, JITTER, LONGEST_OUT, Health
from router.node import Node
from router.pool import Member
from router.session import Session
from router.table import Table
from scripted import (
    HELLO,
    NodeConnection,
    ScriptedNode,
    answer,
    close_after_head,
    close_at_once,
    connect,
    hang,
    reset_after_head,
    wait_for,
)
from servers import Router, Worker

GET = request("foo.com")
POST = request("foo.com", "/", "POST", 5)  # goes to one node only


# The judgement, on a table and a clock of the test's.


class Judged:
    """A pool foo.com of nodes :1 to :N, and its judge."""

    def __init__(self, nodes: int = 2, **options: Any) -> None:
        settings: dict[str, Any] = {"gracetime": 30, "max_fails": 5, "max_ejected": 50, "slow_start": 0, "cheap": False}
        self.now = 1000.0
        self.table = Table(randrange=lambda n: 0)
        self.feed = self.table.feed("test")
        self.feed.set("foo.com", [Node(f":{number}") for number in range(1, nodes + 1)])
        self.health = Health(self.table, clock=lambda: self.now, random=lambda: 1.0, **settings | options)
        self.pool = self.table.pools["foo.com"]

    def member(self, address: str = ":1") -> Member:
        return self.pool.members[address]

    def asked(self, address: str = ":1") -> tuple[Session, Member]:
        """A request that went there."""
        with socket.socket() as client:
            session = Session(client, 0, 0)
        endpoint = self.member(address).endpoint
        session.probing = endpoint.state != LIVE
        if endpoint.state == TRIAL:
            endpoint.state, endpoint.trier = TRYING, session
        return session, self.member(address)

    def unanswered(self, times: int, address: str = ":1") -> None:
        for _ in range(times):
            self.health.unanswered(*self.asked(address))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.health.sweep()

    def out_for(self, address: str = ":1") -> float:
        endpoint = self.member(address).endpoint
        assert endpoint.state == OUT
        return endpoint.out_until - self.now


def test_so_many_unanswered_in_a_row_eject_and_one_answer_between_them_does_not() -> None:
    judged = Judged()
    for _ in range(3):
        judged.unanswered(4)
        judged.health.answered(*judged.asked())
    assert judged.member().endpoint.state == LIVE
    judged.unanswered(5)
    assert (judged.member().endpoint.state, judged.member().endpoint.cause) == (OUT, Cause.BROKEN)
    assert judged.out_for() == 30 * (1 + JITTER)


def test_max_fails_0_ejects_nobody() -> None:
    judged = Judged(max_fails=0)
    judged.unanswered(100)
    assert judged.member().endpoint.state == LIVE


def test_a_refusal_is_out_for_gracetime_and_each_further_time_for_longer() -> None:
    judged = Judged()
    waits = []
    for _ in range(7):
        judged.health.refused(*judged.asked())
        waits.append(judged.out_for())
        judged.health.refused(*judged.asked())  # another that was under way: once is enough
        judged.wait(waits[-1])
        assert judged.member().endpoint.state == TRIAL
    assert waits == [30.0, 75.0, 150.0, 300.0, *[LONGEST_OUT * (1 + JITTER)] * 3]


@pytest.mark.parametrize(("calm", "expected"), [(CALM + 1, 30.0), (CALM - 1, 75.0)])
def test_after_a_calm_time_in_turn_the_first_failure_is_a_first_one_again(calm: float, expected: float) -> None:
    judged = Judged()
    judged.health.refused(*judged.asked())
    judged.wait(30)
    judged.table.restore(judged.member().endpoint)
    judged.wait(calm)
    judged.health.refused(*judged.asked())
    assert judged.out_for() == expected


def test_no_more_than_the_share_of_any_of_its_pools_is_ejected() -> None:
    judged = Judged(nodes=4)
    judged.unanswered(5, ":1")
    judged.unanswered(5, ":2")
    judged.unanswered(50, ":3")
    states = [member.endpoint.state for member in judged.pool.members.values()]
    assert states == [OUT, OUT, LIVE, LIVE]
    judged.table.restore(judged.member(":1").endpoint)
    judged.unanswered(1, ":3")
    assert judged.member(":3").endpoint.state == OUT


@pytest.mark.parametrize("share", [50, 100])
def test_a_pool_of_one_is_never_emptied(share: int) -> None:
    judged = Judged(nodes=1, max_ejected=share)
    judged.unanswered(50)
    assert judged.member().endpoint.state == LIVE


def test_an_ejected_node_is_back_with_the_first_byte_of_its_trial_alone() -> None:
    judged = Judged()
    before = judged.asked()
    judged.unanswered(5)
    judged.feed.announce("foo.com", Node(":1"))
    judged.health.answered(*before)
    assert judged.member().endpoint.state == OUT
    judged.wait(40)
    trial = judged.asked()
    judged.table.restore(judged.member().endpoint, Cause.REFUSED)  # its connect
    assert judged.member().endpoint.state == TRYING
    judged.health.unanswered(*before)
    assert judged.member().endpoint.state == TRYING
    judged.health.answered(*trial)
    assert judged.member().endpoint.state == LIVE


def test_a_trial_that_is_not_answered_ejects_at_once_and_for_longer() -> None:
    judged = Judged()
    judged.unanswered(5)
    judged.wait(40)
    judged.unanswered(1)
    assert judged.out_for() == 75


def test_what_a_check_put_out_stays_so_whatever_its_requests_do() -> None:
    judged = Judged()
    endpoint = judged.member().endpoint
    judged.unanswered(5)
    judged.wait(40)
    trial = judged.asked()
    judged.table.fail(endpoint, inf, Cause.CHECK, times=0)
    judged.health.answered(*trial)
    judged.health.refused(*trial)
    judged.table.fail(endpoint, judged.now + 30, Cause.EJECTED)
    judged.wait(1e9)
    assert (endpoint.state, endpoint.cause, endpoint.out_until) == (OUT, Cause.CHECK, inf)


def test_no_answer_ends_an_operators_ejection_before_its_time() -> None:
    judged = Judged()
    endpoint = judged.member().endpoint
    judged.unanswered(5)
    judged.wait(40)
    trial = judged.asked()
    judged.table.fail(endpoint, judged.now + 60, Cause.EJECTED, times=0)
    judged.health.answered(*trial)
    judged.health.answered(*judged.asked())  # the last resort, as a fallback node is
    judged.wait(59)
    assert (endpoint.state, endpoint.cause) == (OUT, Cause.EJECTED)
    judged.wait(1)
    judged.health.answered(*judged.asked())
    assert endpoint.state == LIVE


def test_after_an_ejection_a_node_that_refuses_is_out_for_that_and_its_announcement_brings_it_back() -> None:
    judged = Judged()
    endpoint = judged.member().endpoint
    judged.table.fail(endpoint, judged.now + 60, Cause.EJECTED, times=0)
    judged.wait(60)
    judged.health.refused(*judged.asked())
    assert (endpoint.cause, judged.out_for()) == (Cause.REFUSED, 30)
    judged.feed.announce("foo.com", Node(":1"))
    assert endpoint.state == LIVE


def test_a_broken_node_that_refuses_its_trial_is_still_a_broken_one() -> None:
    judged = Judged()
    judged.unanswered(5)
    judged.wait(40)
    judged.health.refused(*judged.asked())
    judged.feed.announce("foo.com", Node(":1"))
    assert (judged.member().endpoint.cause, judged.out_for()) == (Cause.BROKEN, 75)


@pytest.mark.parametrize(("until", "cause"), [(inf, Cause.CHECK), (1030.0, Cause.EJECTED)])
def test_what_checks_and_operators_put_out_makes_no_later_time_longer(until: float, cause: Cause) -> None:
    judged = Judged()
    judged.table.fail(judged.member().endpoint, until, cause, times=0)
    judged.table.restore(judged.member().endpoint)
    judged.health.refused(*judged.asked())
    assert judged.out_for() == 30


def test_who_is_back_is_counted_from_zero_though_others_have_tried_it() -> None:
    judged = Judged()
    judged.unanswered(4)
    judged.table.fail(judged.member().endpoint, judged.now + 30, Cause.BROKEN)  # another router's word
    judged.table.restore(judged.member().endpoint)
    judged.unanswered(4)
    assert judged.member().endpoint.state == LIVE


def test_one_request_at_a_time_tries_a_node_and_none_of_before_speaks_for_it() -> None:
    judged = Judged()
    endpoint = judged.member().endpoint
    judged.unanswered(5)
    judged.wait(40)
    first = judged.asked()
    judged.table.release_trial(endpoint)  # its client left
    second = judged.asked()
    judged.health.unanswered(*first)
    assert (endpoint.state, endpoint.trier) == (TRYING, second[0])
    judged.health.unanswered(*second)
    assert (endpoint.state, endpoint.times) == (OUT, 2)
    judged.health.unanswered(*second)
    assert endpoint.times == 2


def test_drained_nodes_take_no_part_in_the_share() -> None:
    judged = Judged(nodes=4)
    judged.table.drain(((":3", ":4"), ()))
    judged.unanswered(5, ":1")
    judged.unanswered(50, ":2")
    states = [member.endpoint.state for member in judged.pool.members.values()]
    assert states == [OUT, LIVE, LIVE, LIVE]
    alone = Judged(max_ejected=100)
    alone.table.drain(((":2",), ()))
    alone.unanswered(50)
    assert alone.member().endpoint.state == LIVE, "it is the last one that is asked"


def test_the_share_of_each_of_its_pools_counts_and_of_no_other() -> None:
    judged = Judged(nodes=4)
    judged.feed.set("bar.com", [Node(":1"), Node(":5"), Node(":6")])
    judged.table.fail(judged.table.endpoints[":5"], judged.now + 30)
    judged.unanswered(50, ":1")
    assert judged.member(":1").endpoint.state == LIVE, "two of bar.com's three would be out"
    judged.unanswered(5, ":2")
    assert judged.member(":2").endpoint.state == OUT


def test_a_broken_node_is_not_tried_before_its_time_though_the_others_are_out_too() -> None:
    judged = Judged()
    judged.unanswered(5, ":1")
    judged.health.refused(*judged.asked(":2"))
    judged.wait(1)
    assert [member.endpoint.state for member in judged.pool.members.values()] == [OUT, TRIAL]


def test_where_the_others_are_drained_who_refused_is_tried_each_second() -> None:
    judged = Judged()
    judged.table.drain(((":2",), ()))
    judged.health.refused(*judged.asked())
    judged.wait(1)
    assert judged.member().endpoint.state == TRIAL


def test_a_dead_pools_nodes_are_tried_each_second_which_makes_no_time_longer(caplog: pytest.LogCaptureFixture) -> None:
    judged = Judged()
    for address in (":1", ":2"):
        judged.health.refused(*judged.asked(address))
    lines = len(caplog.records)
    for _ in range(5):
        judged.wait(1)
        assert {member.endpoint.state for member in judged.pool.members.values()} == {TRIAL}
        for address in (":1", ":2"):
            judged.health.refused(*judged.asked(address))
    assert judged.out_for() == 25
    assert len(caplog.records) == lines == 2


@pytest.mark.parametrize(("cheap", "refused"), [(True, 2), (False, 1)])
def test_in_cheap_mode_or_where_others_live_nobody_is_tried_before_its_time(cheap: bool, refused: int) -> None:
    judged = Judged(cheap=cheap)
    for number in range(1, refused + 1):
        judged.health.refused(*judged.asked(f":{number}"))
    judged.wait(1)
    assert judged.member().endpoint.state == OUT


def test_slow_start_grows_from_a_tenth_to_all_of_the_weight() -> None:
    judged = Judged(slow_start=10)
    assert judged.pool.pick(judged.pool)  # so a ring is laid
    judged.health.start_slowly([judged.member(":1")])
    shares = []
    for _ in range(4):
        taken = Counter(member.endpoint.address for _ in range(1100) if (member := judged.pool.pick(judged.pool)))
        shares.append(round(taken[":1"] / taken[":2"], 2))
        judged.wait(5)
    assert shares == [0.1, 0.55, 1.0, 1.0]
    assert judged.health.growing == {}


def test_one_that_leaves_while_it_grows_is_forgotten() -> None:
    judged = Judged(slow_start=10)
    judged.health.start_slowly([judged.member(":1")])
    judged.feed.withdraw("foo.com", ":1")
    judged.wait(1)
    assert judged.health.growing == {}


def test_without_slow_start_nobody_grows() -> None:
    judged = Judged()
    judged.health.start_slowly([judged.member(":1")])
    assert judged.health.growing == {} and judged.member().share == 100


MEMBERS = st.lists(
    st.tuples(st.sampled_from([LIVE, OUT, TRIAL, TRYING]), st.sampled_from(list(Cause)), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)


@given(MEMBERS)
def test_who_is_asked_against_a_naive_model(described: list[tuple[int, Cause, int]]) -> None:
    """Live ones of the lowest level and trials before them; else trials of the lowest level, and broken ones."""
    table = Table(randrange=lambda n: 0)
    nodes = [Node(f":{number}", backup=backup) for number, (_, _, backup) in enumerate(described, 1)]
    table.feed("test").set("foo.com", nodes)
    pool = table.pools["foo.com"]
    for member, (state, cause, _) in zip(pool.members.values(), described, strict=True):
        member.endpoint.state, member.endpoint.cause = state, cause
    live = [backup for state, _, backup in described if state == LIVE]
    trial = [backup for state, _, backup in described if state in (TRIAL, TRYING)]
    broken = [backup for state, cause, backup in described if (state, cause) == (OUT, Cause.BROKEN)]
    expected = {
        f":{number}"
        for number, (state, cause, backup) in enumerate(described, 1)
        if (state == LIVE and backup == min(live))
        or (state in (TRIAL, TRYING) and backup <= min(live or trial))
        or (not live and (state, cause) == (OUT, Cause.BROKEN) and backup == min(broken))
    }
    assert {member.endpoint.address for member in in_turn(pool.members.values())} == expected
    askable = {
        member.endpoint.address
        for member in pool.members.values()
        if member.endpoint.address in expected
        and (member.endpoint.state in (LIVE, TRIAL) or (not live and member.endpoint.cause == Cause.BROKEN))
    }
    picked = [pool.pick(pool) for _ in range(40)]
    assert {member.endpoint.address for member in picked if member} == askable
    assert all(member.endpoint.state != TRIAL for member in in_turn(pool.members.values()))


# One router process.


@contextmanager
def two_nodes(first: ScriptedNode, log: Path, **options: Any) -> Iterator[OneRouter]:
    """A router whose foo.com is at `first` and at one that answers."""
    with ScriptedNode() as good, OneRouter(log=log, **{"gracetime": 100, **options}) as router:
        router.table({"foo.com": [Node(first.address), Node(good.address)]})
        yield router


@pytest.mark.parametrize("script", [close_at_once, close_after_head, reset_after_head])
def test_a_node_that_breaks_off_is_ejected_and_the_supervisor_told(script: Any, tmp_path: Path) -> None:
    with ScriptedNode(script) as broken, two_nodes(broken, tmp_path / "log") as router:
        for _ in range(10):
            ask(router.address, POST, b"12345")
        ((address, cause, times, seconds),) = router.hear("out")["out"]
        assert (address, cause, times) == (broken.address, Cause.BROKEN, 1) and 60 < seconds <= 125
        for _ in range(6):
            assert ask(router.address, GET) == HELLO
        assert len(broken.connections) == 5
        line = f"[uwsgi-fastrouter] foo.com => ejecting {broken.address} (5 requests in a row unanswered)"
        assert [one for one in router.log if "ejecting" in one] == [line]


def test_who_breaks_off_a_body_that_has_not_come_is_not_to_blame(tmp_path: Path) -> None:
    with ScriptedNode(close_after_head) as node, two_nodes(node, tmp_path / "log") as router:
        for _ in range(12):
            ask(router.address, POST)
        router.wait_idle()
        assert len(node.connections) == 6 and not any("ejecting" in line for line in router.log)


def test_a_node_that_hangs_is_ejected_but_not_for_a_client_that_sends_no_body(tmp_path: Path) -> None:
    with ExitStack() as stack:
        blamed, innocent = (stack.enter_context(ScriptedNode(hang)) for _ in range(2))
        router = stack.enter_context(two_nodes(blamed, tmp_path / "log", timeout=1, max_fails=2))
        good = stack.enter_context(ScriptedNode())
        router.set("bar.com", [Node(innocent.address), Node(good.address)])
        clients = [stack.enter_context(connect(router.address)) for _ in range(8)]
        for index, client in enumerate(clients):
            client.sendall(GET if index % 2 else request("bar.com", "/", "POST", 5))
        for client in clients:
            read_to_end(client)
        assert (len(blamed.connections), len(innocent.connections)) == (2, 2)
        (line,) = [line for line in router.log if "ejecting" in line]
        assert blamed.address in line


def test_an_ejected_node_is_tried_by_one_request_until_its_first_byte(tmp_path: Path) -> None:
    with ScriptedNode(hang, answer(HELLO)) as node, two_nodes(node, tmp_path / "log") as router:
        router.tell(out=[health(node.address, 0, Cause.BROKEN)])
        router.counts()  # it knows now
        with ExitStack() as stack:
            clients: list[socket.socket] = []

            def tries() -> bool:  # it is on trial from the next sweep on
                clients.append(stack.enter_context(connect(router.address)))
                clients[-1].sendall(GET)
                router.counts()
                return bool(node.connections)

            wait_for(tries, "the trial")
            for _ in range(6):
                assert ask(router.address, GET) == HELLO
            assert len(node.connections) == 1, "the trial has connected, and is not over"
        router.wait_idle()  # the one that tried has left
        for _ in range(2):
            assert ask(router.address, GET) == HELLO
        assert router.hear("live")["live"] == [node.address]
        assert any(line.endswith(f"{node.address} answers again") for line in router.log)


def test_where_nobody_else_is_left_a_broken_node_is_asked_and_an_answer_brings_it_back() -> None:
    with ScriptedNode() as node, OneRouter(cheap=True) as router:
        router.table({"foo.com": [Node(node.address)]})
        router.tell(out=[health(node.address, 100, Cause.BROKEN)])
        router.counts()
        assert ask(router.address, GET) == HELLO
        assert router.hear("live")["live"] == [node.address]


def test_a_service_that_restarts_without_a_word_is_back_within_a_moment() -> None:
    dead = refused_address()
    with OneRouter(gracetime=1000) as router:
        router.table({"foo.com": [Node(dead)]})
        assert ask(router.address, GET) == b""
        with ScriptedNode(address=dead):
            wait_for(lambda: ask(router.address, GET) == HELLO, "the node to be back", timeout=10)


def test_a_thousand_slow_but_good_requests_eject_nobody(tmp_path: Path) -> None:
    """Beside them, clients that leave and bodies that do not come."""

    def slow(connection: NodeConnection) -> None:
        connection.stopped.wait(0.5)
        answer(HELLO)(connection)

    log = tmp_path / "log"
    with ScriptedNode(slow) as node, ScriptedNode(slow) as other, OneRouter(log=log, max_fails=1) as router:
        router.table({"foo.com": [Node(node.address), Node(other.address)]})
        for _ in range(4):
            with ExitStack() as stack:
                clients = [stack.enter_context(connect(router.address)) for _ in range(250)]
                for client in clients:
                    client.sendall(GET)
                for data in [GET, POST] * 5:
                    with connect(router.address) as leaver:
                        leaver.sendall(data)
                assert {read_to_end(client) for client in clients} == {HELLO}
        counts = router.wait_idle()
        assert counts["complaints"] == {} and len(node.connections) + len(other.connections) >= 1000
        assert router.log == [] and not any("out" in message for message in router.messages)


@pytest.mark.slow
def test_a_frozen_uwsgi_is_out_whatever_is_announced_for_it_and_back_when_it_answers() -> None:
    with Router(timeout=1, max_fails=2, gracetime=3) as router:
        subscriptions = router.subscriptions
        with Worker(subscriptions, name="frozen") as frozen, Worker(subscriptions, name="well") as well:
            router.wait_for_nodes("foo.com", 2)

            def answered() -> list[bytes]:
                return [ask(router.address, GET) for _ in range(4)]

            frozen.send_signal_to_all(signal.SIGSTOP)
            with ExitStack() as stack:
                for client in [stack.enter_context(connect(router.address)) for _ in range(6)]:
                    client.sendall(GET)
                router.wait_line(f"ejecting {frozen.address} ", 20)
            announce(subscriptions, "foo.com", frozen.address)
            router.settle()
            assert [*router.nodes("foo.com")] == [well.address]
            assert all(answered()), "asked on trial it may be, but not by these"
            frozen.send_signal_to_all(signal.SIGCONT)
            wait_for(lambda: answered() and len(router.nodes("foo.com")) == 2, "it to be back", timeout=30)
            assert any(b"frozen" in text for text in answered())
