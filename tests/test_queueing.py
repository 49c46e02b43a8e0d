"""Limits of what a node gets at a time, and who waits for it: against nodes that hold their requests, and a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clients import ask, read_to_end, request
from one_router import OneRouter, health, refused_address
from router.balance import is_askable
from router.endpoint import OUT, TRIAL, TRYING, Cause, Endpoint
from router.engine import Engine
from router.node import Node
from router.pool import Member, Pool
from router.queueing import SERVES, Queues, share
from router.session import Session
from router.static import FALLBACK
from router.table import Table
from scripted import HELLO, NodeConnection, ScriptedNode, close_after_head, connect, wait_for

GET = request("foo.com")


class Holding(ScriptedNode):
    """A node that holds each request until it is told to answer one, and counts those that it has at a time."""

    def __init__(self) -> None:
        self.has = self.most = 0
        self._lock = threading.Lock()
        self._answers = threading.Semaphore(0)
        super().__init__(self._hold)

    def _hold(self, connection: NodeConnection) -> None:
        connection.read_head()
        with self._lock:
            self.has += 1
            self.most = max(self.most, self.has)
        while not self.stopped.is_set() and not self._answers.acquire(timeout=0.05):
            pass
        with self._lock:
            self.has -= 1
        if not self.stopped.is_set():
            connection.send(HELLO)

    def answer(self, count: int = 1) -> None:
        self._answers.release(count)

    def holds(self, count: int) -> None:
        wait_for(lambda: self.has == count, f"{count} requests at the node")

    @property
    def heads(self) -> list[bytes]:
        return [connection.head for connection in self.connections]


def limited(**options: Any) -> OneRouter:
    """Its nodes get one request at a time, and nobody waits too long on a machine that is slow."""
    return OneRouter(**{"max_connections": 1, "queue_timeout": 90} | options)


def queued(router: OneRouter, count: int) -> None:
    wait_for(lambda: sum(router.counts()["queued"].values()) == count, f"{count} requests in the queues")


@contextmanager
def queueing(router: OneRouter, *data: bytes) -> Iterator[list[Any]]:
    """A client for each of these, which come one after the other, and all of which wait for room."""
    before = sum(router.counts()["queued"].values())
    with ExitStack() as stack:
        clients = []
        for number, each in enumerate(data, before + 1):
            clients.append(stack.enter_context(connect(router.address)))
            clients[-1].sendall(each)
            queued(router, number)
        yield clients


@contextmanager
def busy(router: OneRouter, node: Holding, data: bytes = GET) -> Iterator[Any]:
    """A client whose request the node has."""
    with connect(router.address) as client:
        client.sendall(data)
        node.holds(1)
        yield client


def idle(router: OneRouter) -> dict[str, Any]:
    counts = router.wait_idle()
    assert counts["queued"] == {}
    return counts


def paths(count: int, key: str = "foo.com") -> list[bytes]:
    return [request(key, f"/{number}") for number in range(count)]


def answers(clients: Sequence[Any]) -> list[bytes]:
    return [read_to_end(client) for client in clients]


def goes_through(node: Holding, clients: Sequence[Any]) -> None:
    """The node, which they have waited for, answers these clients of `paths`, one at a time and in their order."""
    node.answer(len(clients))
    assert answers(clients) == [HELLO] * len(clients)
    assert (node.most, node.heads) == (1, paths(len(clients)))


# The limit.


def test_no_node_ever_gets_more_than_the_limit_and_all_are_answered() -> None:
    with limited(max_connections=2) as router, ExitStack() as stack:
        nodes = [stack.enter_context(Holding()) for _ in range(2)]
        router.table({"foo.com": [Node(node.address) for node in nodes]})
        clients = [stack.enter_context(connect(router.address)) for _ in range(60)]
        for client in clients:
            client.sendall(GET)
        queued(router, 56)
        for node in nodes:
            node.holds(2)
            node.answer(len(clients))
        assert answers(clients) == [HELLO] * len(clients)
        counts = idle(router)
        assert [node.most for node in nodes] == [2, 2]
        assert (counts["queued_in_all"], counts["complaints"]) == (56, {})


def test_without_a_limit_nobody_waits() -> None:
    with OneRouter() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(connect(router.address)).sendall(GET)
            node.holds(20)
        assert idle(router)["queued_in_all"] == 0


def test_keys_of_one_node_share_its_limit_and_take_turns() -> None:
    with limited() as router, Holding() as node:
        router.table({key: [Node(node.address)] for key in ("foo.com", "bar.com")})
        foo, bar = paths(3, "foo.com"), paths(3, "bar.com")
        with busy(router, node), queueing(router, *foo, *bar) as clients:
            assert router.counts()["queued"] == {"foo.com": 3, "bar.com": 3}
            node.answer(7)
            assert answers(clients) == [HELLO] * 6
        idle(router)
        assert node.most == 1
        assert node.heads[1:] == [foo[0], bar[0], foo[1], bar[1], foo[2], bar[2]]


def test_the_processes_shares_add_up_to_the_limit_but_each_has_one() -> None:
    assert [share(8, number, 3) for number in (1, 2, 3)] == [3, 3, 2]
    assert [share(2, number, 3) for number in (1, 2, 3)] == [1, 1, 1]
    assert [share(0, number, 3) for number in (1, 2, 3)] == [0, 0, 0]


# The queue.


def test_they_go_in_the_order_in_which_they_came() -> None:
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node), queueing(router, *paths(6)) as clients:
            node.answer(7)
            assert answers(clients) == [HELLO] * 6
        idle(router)
        assert node.heads[1:] == paths(6)


def test_a_body_that_comes_while_its_request_waits_arrives_whole() -> None:
    head, body = request("foo.com", method="POST", length=300_000), b"x" * 300_000
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node), queueing(router, head + body[:10]) as (client,):
            threading.Thread(target=client.sendall, args=(body[10:],), daemon=True).start()
            node.answer()
            wait_for(lambda: len(node.connections) == 2, "the second request")
            node.connections[1].read_body(len(body))
            assert node.connections[1].body == body
            node.answer()
            assert read_to_end(client) == HELLO
        idle(router)


def test_what_does_not_go_into_the_queue_is_a_503() -> None:
    with limited(max_queue=2, error_pages="on") as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node), queueing(router, GET, GET) as clients:
            page = ask(router.address, GET)
            assert page.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in page
            assert b"\r\nX-Gfrouter-Reason: queue full\r\n" in page
            node.answer(3)
            assert answers(clients) == [HELLO] * 2
        assert idle(router)["complaints"] == {"queue full": 1}


@pytest.mark.parametrize(("options", "kind"), [
    ({"queue_timeout": 1}, "queue timeout"),
    ({"session_timeout": 1}, "session timeout"),
])  # fmt: skip
def test_who_waits_too_long_is_refused_with_a_503(options: dict[str, Any], kind: str) -> None:
    with limited(error_pages="on", **options) as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node), queueing(router, GET) as (client,):
            page = read_to_end(client)
        assert page.startswith(b"HTTP/1.1 503 ") and b"X-Gfrouter-Reason: %b\r\n" % kind.encode() in page
        assert idle(router)["complaints"][kind] >= 1
        assert len(node.connections) == 1


def test_clients_that_leave_leave_the_queue() -> None:
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node), queueing(router, *paths(4)) as clients:
            clients[0].close()
            clients[2].close()
            queued(router, 2)
            node.answer(3)
            assert answers(clients[1::2]) == [HELLO] * 2
        assert idle(router)["complaints"] == {}
        assert node.heads[1:] == [paths(4)[1], paths(4)[3]]


# What changes while they wait.


@pytest.mark.parametrize("end", [
    {"out": [health("{}")]},
    {"drained": [["{}"], []]},
    {"drained": [[], ["foo.com"]]},
    {"set": [["foo.com", [], ["{}"]]]},
])  # fmt: skip
def test_when_nobody_is_left_to_ask_they_are_refused_as_if_they_had_just_come(end: dict[str, Any]) -> None:
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node) as first, queueing(router, *[GET] * (SERVES + 2)) as clients:
            router.tell(**of(end, node.address))
            assert [read_to_end(client) for client in clients] == [b""] * len(clients)
            node.answer()
            assert read_to_end(first) == HELLO
        refused = "unknown key" if "set" in end else "no node"
        assert idle(router)["complaints"] == {refused: SERVES + 2}
        assert len(node.connections) == 1


def of(message: Any, address: str) -> Any:
    """The message with the address in its places."""
    if isinstance(message, dict):
        return {name: of(value, address) for name, value in message.items()}
    if isinstance(message, list):
        return [of(value, address) for value in message]
    return address if message == "{}" else message


def test_when_nobody_is_left_to_ask_they_go_to_the_fallback_which_has_its_limit_too() -> None:
    with limited(fallback_on_no_key=True) as router, Holding() as node, Holding() as other:
        router.table({"foo.com": [Node(node.address)], FALLBACK: [Node(other.address)]})
        with busy(router, node), queueing(router, *paths(3)) as clients:
            router.tell(out=[health(node.address)])
            other.holds(1)
            assert router.counts()["queued"] == {FALLBACK: 2}
            goes_through(other, clients)
            node.answer()
        idle(router)


def test_a_node_that_dies_leaves_nobody_behind() -> None:
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node) as first, queueing(router, *[GET] * 3) as clients:
            node.stop()
            assert answers([first, *clients]) == [b""] * 4
        idle(router)


@pytest.mark.parametrize("news", ["a new node", "one that is back", "one that is on trial", "one that is not drained"])
def test_a_node_that_comes_has_room_for_those_who_wait(news: str) -> None:
    with limited() as router, Holding() as node, Holding() as other:
        both = [Node(node.address), Node(other.address)]
        router.table({"foo.com": both[:1] if news == "a new node" else both})
        if news == "one that is not drained":
            router.tell(drained=[[other.address], []])
        elif news != "a new node":
            router.tell(out=[health(other.address)])
        router.counts()  # it knows
        with busy(router, node), queueing(router, *paths(2)) as clients:
            if news == "a new node":
                router.set("foo.com", both)
            elif news == "one that is back":
                router.tell(live=[other.address])
            elif news == "one that is on trial":
                router.tell(out=[health(other.address, 0)])
            elif news == "one that is not drained":
                router.tell(drained=[[], []])
            other.holds(1)
            goes_through(other, clients)
            node.answer()
        idle(router)


def test_of_a_pool_that_has_only_a_broken_node_requests_go_one_by_one() -> None:
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        router.tell(out=[health(node.address, cause=Cause.BROKEN)])
        router.counts()
        with busy(router, node), queueing(router, *[GET] * 3) as clients:
            node.answer(4)
            assert answers(clients) == [HELLO] * 3
        idle(router)
        assert node.most == 1


def test_a_router_that_stops_still_serves_those_who_wait() -> None:
    with limited() as router, Holding() as node:
        router.table({"foo.com": [Node(node.address)]})
        with busy(router, node), queueing(router, *[GET] * 2) as clients:
            router.tell(stop=True)
            node.answer(3)
            assert answers(clients) == [HELLO] * 2


# Requests that go to a second node.


def test_a_retry_waits_for_another_node_and_goes_neither_back_nor_to_the_fallback() -> None:
    with limited(max_fails=0) as router, Holding() as node, Holding() as fallback:
        with ScriptedNode(close_after_head) as bad:
            pools: dict[str, list[ScriptedNode]] = {"bar.com": [node], "foo.com": [bad, node], FALLBACK: [fallback]}
            router.table({key: [Node(one.address) for one in nodes] for key, nodes in pools.items()})
            with busy(router, node, request("bar.com")), connect(router.address) as client:
                client.sendall(GET)
                queued(router, 1)
                node.answer(2)
                assert read_to_end(client) == HELLO
            idle(router)
            assert (len(bad.connections), len(node.connections), len(fallback.connections)) == (1, 2, 0)


def test_a_retry_that_waits_goes_to_the_fallback_when_nobody_else_is_left() -> None:
    with limited(max_fails=0) as router, Holding() as node, ScriptedNode() as fallback:
        with ScriptedNode(close_after_head) as bad:
            pools: dict[str, list[ScriptedNode]] = {"bar.com": [node], "foo.com": [bad, node], FALLBACK: [fallback]}
            router.table({key: [Node(one.address) for one in nodes] for key, nodes in pools.items()})
            with busy(router, node, request("bar.com")), connect(router.address) as client:
                client.sendall(GET)
                queued(router, 1)
                router.tell(out=[health(node.address)])
                assert read_to_end(client) == HELLO
                node.answer()
            idle(router)
            assert (len(bad.connections), len(node.connections), len(fallback.connections)) == (1, 1, 1)


def test_a_retry_that_waits_is_overtaken_where_only_it_does_not_go() -> None:
    """It avoids the bad node, to which all others that have come after it go at once."""
    with limited(max_fails=0) as router, Holding() as node:
        with ScriptedNode(close_after_head) as bad:
            router.table({"bar.com": [Node(node.address)], "foo.com": [Node(bad.address), Node(node.address)]})
            with busy(router, node, request("bar.com")), connect(router.address) as client:
                client.sendall(GET)
                queued(router, 1)
                post = request("foo.com", method="POST")
                assert [ask(router.address, post) for _ in range(3)] == [b""] * 3
                assert len(bad.connections) == 4
                node.answer(2)
                assert read_to_end(client) == HELLO
            idle(router)


def test_a_failed_fallback_has_its_limit_too() -> None:
    with limited(error_pages="on") as router, Holding() as fallback:
        router.table({"foo.com": [Node(refused_address())], FALLBACK: [Node(fallback.address)]})
        with busy(router, fallback):
            router.tell(out=[health(fallback.address)])
            router.table({"foo.com": [Node(refused_address())], FALLBACK: [Node(fallback.address)]})
            assert ask(router.address, GET).startswith(b"HTTP/1.1 503 ")
            fallback.answer()
        idle(router)
        assert fallback.most == 1


# Trials.


def test_one_on_trial_that_has_no_room_stays_on_trial() -> None:
    table = Table(limit=1)
    table.feed("test").set("foo.com", [Node(":1")])
    pool, endpoint = table.pools["foo.com"], table.endpoints[":1"]
    table.fail(endpoint, 0.0)
    table.begin_trials(1.0)
    endpoint.in_flight = 1  # from before it failed
    assert pool.pick(pool) is None
    assert endpoint.state == TRIAL
    endpoint.in_flight = 0
    assert pool.pick(pool) is not None
    assert endpoint.state == TRYING


# The model.


class Waiter:
    """Stands for a session."""

    def __init__(self, number: int, key: str, avoid: Sequence[Endpoint] = ()) -> None:
        self.number = number
        self.key = key
        self.avoid = tuple(avoid)
        self.head, self.size, self.tick, self.state = b"", 0, 0, 0
        self.tries = len(avoid)
        self.member: Member | None = None
        self.ended = False


class Routes:
    """Stands for the engine and its detours, on a real table."""

    def __init__(self, limit: int, longest: int) -> None:
        self.table = Table(
            on_change=lambda change: self.queues.call(),
            on_health=lambda endpoint: self.queues.call(),
            on_drain=lambda: self.queues.call(),
            limit=limit,
            randrange=lambda n: 0,
        )
        self.feed = self.table.feed("test")
        self.most = 1000
        self.tick = 0
        self.detours = self
        self.woken = False
        self.queues = Queues(cast(Engine, self), limit=limit, longest=longest, wake=self.wake)
        self.asking: list[Waiter] = []

    def wake(self) -> None:
        self.woken = True

    def come(self, waiter: Waiter) -> None:
        pool = self.table.pools.get(waiter.key)
        if pool is None:
            waiter.ended = True
        elif member := pool.pick(pool, waiter.avoid):
            self.connect(waiter, member)
        elif not self.queues.enter(cast(Session, waiter), pool):
            waiter.ended = True

    def connect(self, waiter: Any, member: Member) -> None:
        endpoint = member.endpoint
        waiter.member = member
        if endpoint.state == TRYING and endpoint.trier is None:
            endpoint.trier = waiter
        endpoint.in_flight += 1
        assert endpoint.in_flight <= self.queues.limit
        if not waiter.avoid:
            assert all(waiter.number < other.number for other in member.pool.queue), "it has overtaken somebody"
        self.asking.append(waiter)

    def leave(self, waiter: Waiter, goes_well: bool) -> None:
        member, waiter.member, waiter.ended = cast(Member, waiter.member), None, True
        endpoint = member.endpoint
        self.asking.remove(waiter)
        endpoint.in_flight -= 1
        if self.queues.waiting:
            self.queues.free(endpoint)
        if endpoint.trier is waiter:
            self.table.release_trial(endpoint)
            if goes_well:
                self.table.restore(endpoint)

    def left_behind(self, session: Any, key: str) -> None:
        assert session.key == key
        self.come(session)

    def refuse(self, session: Any, kind: str, text: str) -> None:
        assert kind == "queue full"
        session.ended = True


def a_full_pool(limit: int = 1) -> tuple[Routes, list[Waiter]]:
    """With two nodes, and those who have them."""
    routes = Routes(limit=limit, longest=100)
    routes.feed.set("a", [Node(":1"), Node(":2")])
    first = [Waiter(number, "a") for number in range(2 * limit)]
    for waiter in first:
        routes.come(waiter)
    return routes, first


def test_a_retry_goes_before_those_who_have_not_been_sent_yet() -> None:
    routes, first = a_full_pool()
    plain, retry = Waiter(2, "a"), Waiter(3, "a", [routes.table.endpoints[":2"]])
    routes.come(plain)
    routes.come(retry)
    for address, then in ((":1", retry), (":2", plain)):
        routes.leave(next(one for one in first if one.member and one.member.node.address == address), True)
        routes.queues.serve()
        assert routes.asking[-1] is then


def test_between_two_wake_ups_a_newcomer_is_judged_by_how_the_nodes_are_now() -> None:
    routes, _ = a_full_pool()
    for number in range(SERVES + 2):
        routes.come(Waiter(10 + number, "a"))
    routes.table.drain(((), ("a",)))
    routes.queues.serve()
    assert len(routes.queues.waiting) == 2
    routes.table.drain(((), ()))
    newcomer: Any = Waiter(100, "a")
    routes.come(newcomer)
    assert newcomer in routes.queues.waiting


def test_all_queues_together_have_a_bound_and_the_time_in_one_begins_there() -> None:
    routes, _ = a_full_pool()
    routes.queues.most, routes.tick = 1, 7
    inside, beyond = Waiter(2, "a"), Waiter(3, "a")
    routes.come(inside)
    routes.come(beyond)
    assert (inside.ended, inside.tick, beyond.ended) == (False, 7, True)


ADDRESSES = [":1", ":2", ":3"]
KEYS = ["a", "b"]
at = st.integers(0, 1000)


class Queueing(RuleBasedStateMachine):
    """Whatever happens: no endpoint over its limit, and nobody waits who could go on, or for whom nobody is there."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = Routes(limit=2, longest=4)
        self.came: list[Waiter] = []

    def endpoint(self, number: int) -> Endpoint | None:
        return self.routes.table.endpoints.get(ADDRESSES[number % len(ADDRESSES)])

    @rule(key=st.sampled_from(KEYS), nodes=st.lists(st.sampled_from(ADDRESSES), unique=True), backup=st.integers(0, 1))
    def say(self, key: str, nodes: list[str], backup: int) -> None:
        levels = [number and backup for number in range(len(nodes))]
        self.routes.feed.set(key, [Node(one, backup=level) for one, level in zip(nodes, levels, strict=True)])

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 5))
    def come(self, key: str, count: int) -> None:
        for _ in range(count):
            self.one_comes(key)

    @rule(key=st.sampled_from(KEYS), number=at)
    def come_from_another_node(self, key: str, number: int) -> None:
        if endpoint := self.endpoint(number):
            self.one_comes(key, [endpoint])

    def one_comes(self, key: str, avoid: Sequence[Endpoint] = ()) -> None:
        self.came.append(Waiter(len(self.came), key, avoid))
        self.routes.come(self.came[-1])

    @rule(number=at, goes_well=st.booleans(), newcomer=st.sampled_from(["", *KEYS]))
    def finish(self, number: int, goes_well: bool, newcomer: str) -> None:
        """The newcomer is there before anybody is served."""
        if self.routes.asking:
            self.routes.leave(self.routes.asking[number % len(self.routes.asking)], goes_well)
        if newcomer:
            self.one_comes(newcomer)

    @rule(number=at)
    def give_up(self, number: int) -> None:
        if inside := list(self.routes.queues.waiting):
            waiter: Any = inside[number % len(inside)]
            waiter.ended = True
            self.routes.queues.forget(waiter)

    @rule(number=at, cause=st.sampled_from([Cause.REFUSED, Cause.BROKEN]))
    def fail(self, number: int, cause: Cause) -> None:
        if endpoint := self.endpoint(number):
            self.routes.table.fail(endpoint, 1.0, cause)

    @rule(number=at)
    def restore(self, number: int) -> None:
        if endpoint := self.endpoint(number):
            self.routes.table.restore(endpoint)

    @rule()
    def try_all(self) -> None:
        self.routes.table.begin_trials(2.0)

    @rule(addresses=st.lists(st.sampled_from(ADDRESSES), max_size=1), keys=st.lists(st.sampled_from(KEYS), max_size=1))
    def drain(self, addresses: list[str], keys: list[str]) -> None:
        self.routes.table.drain((addresses, keys))

    @invariant()
    def nobody_is_stranded(self) -> None:
        routes = self.routes
        for _ in range(1000):
            if not routes.woken:
                break
            routes.woken = False
            routes.queues.serve()
        assert not routes.woken
        for session, pool in routes.queues.waiting.items():
            assert routes.table.pools[pool.key] is pool
            assert not pool.drained
            askable = [
                member.endpoint
                for member in pool.ring
                if member.endpoint not in session.avoid and is_askable(pool, member.endpoint)
            ]
            assert askable and all(endpoint.in_flight == routes.queues.limit for endpoint in askable)
        inside = set(cast(dict[Waiter, Pool], routes.queues.waiting))
        assert {waiter for waiter in self.came if not waiter.ended} == inside | set(routes.asking)
        lengths = [len(pool.queue) + len(pool.retries) for pool in routes.queues.pools]
        assert sum(lengths) == len(inside) and all(0 < length <= 4 for length in lengths)
        assert not routes.queues.due and not routes.queues.freed

    def teardown(self) -> None:
        while self.routes.asking:
            self.routes.leave(self.routes.asking[0], goes_well=True)
            self.nobody_is_stranded()
        assert not self.routes.queues.waiting
        for endpoint in self.routes.table.endpoints.values():
            assert endpoint.in_flight == 0 and (endpoint.state != OUT or endpoint.trier is None)


Queueing.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestQueueing = Queueing.TestCase
