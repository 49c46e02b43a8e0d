"""Nodes that the options name: `to` for keys that nobody knows, `fallback` for requests that find no other node."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import announce, ask, packet, request
from one_router import OneRouter, health, refused_address
from router import stats
from router.endpoint import OUT
from router.kernel import Usage
from router.key import find_key
from router.node import Node
from router.pair import Decoder, encode, pack_node
from router.static import FALLBACK, RESERVED, TO, Static, static_node
from router.table import Table
from scripted import ScriptedNode, answer, close_after_head, connect, wait_for
from servers import FASTROUTER, Router

GET = request("foo.com")

needs_gfrouter = pytest.mark.skipif(FASTROUTER, reason="like_static.py says what the fastrouter does")


# What an option says.


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("10.0.0.5:3031", Node("10.0.0.5:3031")),
        ("app.internal:3031,7", Node("app.internal:3031", modifier1=7)),
        ("[::1]:3031,0,255", Node("[::1]:3031", modifier2=255)),
        ("/run/a,b.sock,7", Node("/run/a,b.sock", modifier1=7)),
        ("@app,5,6", Node("@app", modifier1=5, modifier2=6)),
    ],
)
def test_a_node_is_an_address_and_perhaps_modifiers(text: str, node: Node) -> None:
    assert static_node(text) == node


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the address is empty"),
        ("10.0.0.5:3031,256", "modifier 256 is out of range"),
        ("10.0.0.5:3031,1,99999999999999999999", "modifier 9+ is out of range"),
        ("10.0.0.5:3031,1,2,3", "port '3031,1'"),
        ("10.0.0.5:3031,a", "port '3031,a'"),
        ("10.0.0.5:0", "port 0"),
        ("224.0.0.1:3031", "multicast"),
    ],
)
def test_anything_else_is_an_error_that_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        static_node(text)


def test_who_is_named_twice_has_two_turns() -> None:
    assert Static(["/a", "/b,7", "/a"], []).pools[TO] == [Node("/a", weight=2), Node("/b", modifier1=7)]


def test_fallback_nodes_are_levels_in_their_order() -> None:
    nodes = Static([], ["/a", "/b", "/a", "/c"]).pools[FALLBACK]
    assert [(node.address, node.backup) for node in nodes] == [("/a", 0), ("/b", 1), ("/c", 2)]


def test_no_packet_can_name_a_reserved_key() -> None:
    for key in RESERVED:
        packed = packet([("HTTP_HOST", key.encode("utf-8", "surrogateescape"))])
        assert str(find_key(packed, len(packed)), "utf-8", "surrogateescape") == "→" + RESERVED[key]


def test_reserved_keys_travel_over_the_pair() -> None:
    message = {"pools": {key: [pack_node(Node("/a"))] for key in RESERVED}}
    assert list(Decoder().feed(encode(message))) == [message]


# The order in which nodes are asked, in one router.


@pytest.fixture
def nodes() -> Iterator[list[ScriptedNode]]:
    with ScriptedNode(answer(b"A")) as a, ScriptedNode(answer(b"B")) as b, ScriptedNode(answer(b"C")) as c:
        yield [a, b, c]


def at(node: ScriptedNode, **more: Any) -> Node:
    return Node(node.address, **more)


def dead(count: int = 1) -> list[Node]:
    return [Node(refused_address()) for _ in range(count)]


def test_a_known_key_goes_to_its_own_nodes(nodes: list[ScriptedNode]) -> None:
    a, b, c = nodes
    with OneRouter(fallback_on_no_key=True) as router:
        router.table({"foo.com": [at(a)], TO: [at(b)], FALLBACK: [at(c)]})
        assert [ask(router.address, GET), ask(router.address, request("bar.com"))] == [b"A", b"B"]


def test_to_is_not_for_a_key_whose_nodes_have_failed(nodes: list[ScriptedNode]) -> None:
    """Its requests are for another application than `to` has."""
    with OneRouter() as router:
        router.table({"foo.com": dead(), TO: [at(nodes[0])]})
        assert [ask(router.address, GET), ask(router.address, GET)] == [b"", b""]
        assert router.wait_idle()["complaints"] == {"unconnected": 1, "no node": 2}


def test_the_fallback_key_comes_before_to(nodes: list[ScriptedNode]) -> None:
    with OneRouter(subscription_fallback_key="all.com") as router:
        router.table({"foo.com": dead(), "all.com": [at(nodes[0])], TO: [at(nodes[1])]})
        assert ask(router.address, request("bar.com")) == b"A"
        assert [ask(router.address, GET), ask(router.address, GET)] == [b"A", b"A"]  # its node fails, and is marked
        router.set("all.com", [])
        assert ask(router.address, request("bar.com")) == b"B"


def test_a_failed_node_of_to_is_followed_by_the_others_and_then_a_fallback(nodes: list[ScriptedNode]) -> None:
    with OneRouter() as router:
        router.table({TO: dead(2), FALLBACK: [at(nodes[0])]})
        assert ask(router.address, GET) == b"A"
        counts = router.wait_idle()
        assert counts["complaints"] == {"unconnected": 2}
        assert ask(router.address, GET) == b""  # as in uWSGI: it takes fallback-on-no-key, too
        assert router.wait_idle()["complaints"] == {"unconnected": 2, "no node": 1}


def test_the_last_retry_is_a_fallbacks(nodes: list[ScriptedNode]) -> None:
    """Or a large pool that dies as a whole would use up all of them."""
    with OneRouter() as router:
        router.table({"foo.com": dead(9), FALLBACK: [at(nodes[0])]})
        assert ask(router.address, GET) == b"A"
        assert router.wait_idle()["complaints"] == {"unconnected": 3}


def test_fallback_nodes_count_among_the_retries() -> None:
    with OneRouter(max_retries=2) as router:
        router.table({"foo.com": dead(), FALLBACK: dead(9)})
        assert ask(router.address, GET) == b""
        assert router.wait_idle()["complaints"] == {"unconnected": 3, "unreachable": 1}


def test_without_retries_a_fallback_serves_only_who_has_no_node(nodes: list[ScriptedNode]) -> None:
    with OneRouter(retry="none", fallback_on_no_key=True) as router:
        router.table({"foo.com": dead(), FALLBACK: [at(nodes[0])]})
        assert [ask(router.address, GET), ask(router.address, GET)] == [b"", b"A"]


def test_a_failed_fallback_is_asked_where_no_other_is_left(nodes: list[ScriptedNode]) -> None:
    with OneRouter(fallback_on_no_key=True) as router:
        router.table({FALLBACK: [at(nodes[0], backup=0), at(nodes[1], backup=1)]}, out=[nodes[0].address])
        assert ask(router.address, GET) == b"B"
        router.tell(out=[health(nodes[1].address)])
        router.counts()
        assert ask(router.address, GET) == b"A"
        assert nodes[0].address in router.hear("live")["live"]


def test_a_drained_fallback_is_not_asked_even_where_no_other_is_left(nodes: list[ScriptedNode]) -> None:
    with OneRouter(fallback_on_no_key=True) as router:
        router.table({FALLBACK: [at(nodes[0]), at(nodes[1])]}, out=[node.address for node in nodes[:2]])
        router.tell(drained=[[nodes[0].address], []])
        router.counts()
        assert ask(router.address, GET) == b"B"
        router.tell(drained=[[node.address for node in nodes[:2]], []])
        router.counts()
        assert ask(router.address, GET) == b""


def test_a_node_that_ended_without_a_byte_may_be_followed_by_a_fallback(nodes: list[ScriptedNode]) -> None:
    with ScriptedNode(close_after_head) as node, OneRouter() as router:
        router.table({"foo.com": [at(node)], FALLBACK: [at(nodes[0], modifier1=9)]})
        assert ask(router.address, GET) == b"A"
        assert nodes[0].connections[0].head[0] == 9


def test_while_warming_an_unknown_key_waits_and_then_goes_to(nodes: list[ScriptedNode]) -> None:
    with OneRouter() as router:
        router.table({TO: [at(nodes[0])]}, warming=30)
        with connect(router.address) as client:
            client.sendall(GET)
            wait_for(lambda: router.counts()["waiting"] == 1, "the request to wait")
            router.tell(warming=0)
            assert client.recv(100) == b"A"


def test_the_log_names_the_key_that_was_asked_for(tmp_path: Path) -> None:
    (node,) = dead()
    with OneRouter(log=tmp_path / "log") as router:
        router.table({TO: [node]})
        ask(router.address, GET)
        wait_for(lambda: len(router.log) == 3, "the lines about one failure")
        assert router.log[1] == f"[uwsgi-fastrouter] foo.com => marking {node.address} as failed"
        assert router.log[2].endswith("no other node of 'foo.com' is left to ask")


@pytest.mark.parametrize(("on_no_key", "served"), [(True, b"A"), (False, b"")])
def test_a_cheap_router_accepts_for_fallback_nodes_that_serve_all(
    nodes: list[ScriptedNode], on_no_key: bool, served: bytes
) -> None:
    with OneRouter(cheap=True, fallback=(nodes[0].address,), fallback_on_no_key=on_no_key) as router:
        router.table({FALLBACK: [at(nodes[0])]})
        assert router.counts()["cheap"] is not on_no_key
        router.set("bar.com", [at(nodes[1])])
        assert ask(router.address, GET) == served
        router.set("bar.com", [], left=[nodes[1].address])
        assert router.counts()["cheap"] is not on_no_key


def test_a_cheap_router_accepts_for_to(nodes: list[ScriptedNode]) -> None:
    with OneRouter(cheap=True) as router:
        router.table({TO: [at(nodes[0])]})
        assert ask(router.address, GET) == b"A"


# What the stats show.


def shown(table: Table, *shares: dict[str, Any]) -> dict[str, Any]:
    slots: list[stats.Slot] = []
    for share in shares:
        slots.append(slot := stats.Slot(len(slots) + 1))
        slot.fill(1000, 0.0, cheap=False)
        slot.counts = share
    return stats.snapshot(
        table,
        slots,
        addresses=[],
        sources=[],
        cwd="/",
        warming=0,
        lookups={"refused": 0},
        listen_queue=0,
        usage=lambda _: Usage(0, 0, 0),
    )


def test_static_nodes_stand_only_where_they_are_configured() -> None:
    found = shown(Table())
    assert "static_nodes" not in found and "fallback_nodes" not in found


def test_static_nodes_have_uwsgis_fields_and_are_no_subscriptions() -> None:
    table = Table()
    table.feed("static").replace(Static(["/a", "/b,7"], ["/a"]).pools)
    table.fail(table.endpoints["/a"], 0.0)
    table.endpoints["/a"].failed_at = 1234.5
    share = {"pools": {TO: [3, {"/b": [2, 20, 40, 1, 0, []]}]}}
    found = shown(table, share, share)
    first, second = found["static_nodes"]
    assert (first["name"], first["hits"], first["grace"]) == ("/a", 0, 1234)
    assert (second["name"], second["hits"], second["grace"], second["modifier1"]) == ("/b", 4, 0, 7)
    assert (second["tx"], second["rx"], second["ref"]) == (40, 80, 2)
    assert [node["name"] for node in found["fallback_nodes"]] == ["/a"]
    assert found["subscriptions"] == []


def test_a_name_that_has_no_address_yet_leaves_an_empty_list() -> None:
    table = Table()
    table.feed("static").replace(Static(["app.internal:3031"], []).pools)
    assert shown(table)["static_nodes"] == []
    table.resolve("app.internal:3031", ["10.0.0.5:3031"])
    (node,) = shown(table)["static_nodes"]
    assert (node["name"], node["host"]) == ("10.0.0.5:3031", "app.internal:3031")


def test_what_a_dead_router_counted_is_kept() -> None:
    table = Table()
    table.feed("static").replace(Static(["/a"], []).pools)
    slot = stats.Slot(1)
    slot.counts = {"pools": {TO: [3, {"/a": [2, 20, 40, 1, 0, []]}]}}
    stats.retire(table, slot)
    assert shown(table)["static_nodes"][0]["hits"] == 2


def test_a_failure_has_its_time() -> None:
    table = Table()
    table.feed("static").replace(Static(["/a"], []).pools)
    assert table.endpoints["/a"].state != OUT
    assert shown(table)["static_nodes"][0]["grace"] == 0


# The whole router.


@needs_gfrouter
@pytest.mark.slow
def test_to_alone_opens_no_subscription_server_and_serves_at_once(nodes: list[ScriptedNode]) -> None:
    """By a name, from two processes, with the usual time for warming: nobody else is waited for."""
    name = nodes[0].address.replace("127.0.0.1", "localhost")
    with Router(subscription_server=None, warm_timeout=None, to=[name], processes=2, cheap=True) as router:
        wait_for(lambda: router.stats()["static_nodes"], "the name's address")
        assert [ask(router.address, request(f"{number}.com"), timeout=5) for number in range(8)] == [b"A"] * 8
        found = router.stats()
        assert found["fastrouter"] == [router.address]
        assert [node["hits"] for node in found["static_nodes"] if node["name"] == nodes[0].address] == [8]
        assert not router.line("warming")


@needs_gfrouter
@pytest.mark.slow
def test_who_has_announced_itself_comes_before_to(nodes: list[ScriptedNode]) -> None:
    with Router(to=[nodes[0].address]) as router:
        assert ask(router.address, GET) == b"A"
        announce(router.subscriptions, "foo.com", nodes[1].address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == b"B"
        assert ask(router.address, request("bar.com")) == b"A"
