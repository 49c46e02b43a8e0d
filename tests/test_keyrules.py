"""Which keys serve a request: the rules as values, 2.1's own reading of mountpoints beside them, and one router."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clients import announce, ask, packet, read_to_end, request
from one_router import OneRouter, asking, refused_address, waits
from router import view
from router.key import find_key, find_var
from router.keyrules import KeyRules, mounted, normalised
from router.lookups import ANY, HOSTS
from router.node import Node
from router.options import Options
from router.static import FALLBACK, TO
from router.table import Table
from router.uwsgi import build, parse
from scripted import HELLO, ScriptedNode, answer, close_after_head
from servers import Router
from test_view import state

LONG = 60  # seconds that no test waits for


def others(key: str, **rules: Any) -> list[str]:
    return list(KeyRules(**rules).others(key))


def found(rules: KeyRules, *vars: tuple[bytes, bytes]) -> bytes:
    data = build(vars)
    return rules.finder()(data, len(data))


# The key itself.


@pytest.mark.parametrize(
    ("path", "depth", "end"),
    [
        (b"/", 1, b""),
        (b"", 1, b""),
        (b"app", 1, b""),
        (b"/app", 1, b"/app"),
        (b"/app/", 1, b"/app"),
        (b"/app/page", 1, b"/app"),
        (b"/app/page", 2, b"/app/page"),
        (b"/app/page", 3, b"/app/page"),
        (b"/app/page/", 3, b"/app/page"),
        (b"/app/page/x", 2, b"/app/page"),
        (b"//x", 1, b"/"),
        (b"//x", 2, b"//x"),
    ],
)
def test_a_mountpoint_is_the_host_with_the_first_parts_of_the_path(path: bytes, depth: int, end: bytes) -> None:
    assert mounted(b"foo.com", path, depth) == b"foo.com" + end


def as_2_1_does(key: bytes, path: bytes, depth: int) -> bytes | None:
    """`rebuild_key_for_mountpoint` of uWSGI 2.1, line by line; None where it closes."""
    if len(path) == 0 or path[:1] != b"/":
        return None
    length = len(path) - 1
    if length == 0:
        return key
    last_slash = 0
    for _ in range(depth):
        if length < 1:
            break
        second_slash = path.find(b"/", last_slash + 1, last_slash + 1 + length)
        if second_slash < 0:
            last_slash += 1 + length
            break
        length -= second_slash - last_slash
        last_slash = second_slash
    return key + path[:last_slash] if len(key) + last_slash <= 255 else key


@given(st.text("/ab", max_size=12), st.integers(1, 5), st.sampled_from([1, 240, 250]))
@example("/ab", 1, 252)
@example("/ab", 1, 253)
def test_mountpoints_are_those_of_2_1_but_that_no_path_is_no_error(path: str, depth: int, size: int) -> None:
    key = b"k" * size
    theirs = as_2_1_does(key, path.encode(), depth)
    assert mounted(key, path.encode(), depth) == (key if theirs is None else theirs)


Vars = list[tuple[bytes, bytes]]
NAMES = st.sampled_from([b"PATH_INFO", b"XPATH_INFO", b"HTTP_HOST", b"A", b"B" * 300])
VALUES = st.one_of(st.binary(max_size=20), st.sampled_from([b"", b"\t\0PATH_INFO\3\0/no", b"x" * 300]))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
@example([(b"PATH_INFO", b"/a"), (b"HTTP_X", b"\t\0PATH_INFO\3\0/no")])
@example([(b"PATH_INFO", b"/a"), (b"B" * 300, b""), (b"PATH_INFO", b"/" * 300)])
@example([(b"B" * 300, b""), (b"PATH_INFO", b"/a")])
def test_the_last_path_counts_and_no_value_is_taken_for_one(vars: Vars) -> None:
    data = build(vars)
    last = [value for name, value in parse(data).vars if name == b"PATH_INFO"][-1:]
    assert find_var(data, len(data), b"PATH_INFO") == b"".join(last)


def test_a_key_is_read_with_its_path_where_there_are_mountpoints_and_never_without_a_host() -> None:
    rules = KeyRules(depth=1)
    assert found(rules, (b"PATH_INFO", b"/app/x"), (b"HTTP_HOST", b"foo.com")) == b"foo.com/app"
    assert found(rules, (b"HTTP_HOST", b"foo.com")) == b"foo.com"
    assert found(rules, (b"PATH_INFO", b"/app")) == b""
    assert KeyRules().finder() is find_key  # nothing more than before where no option is set


# Other keys.


def test_without_options_there_are_no_other_keys() -> None:
    assert others("a.foo.com/x") == []
    assert not KeyRules().has_others


def test_behind_a_mountpoint_comes_the_host_alone_and_by_option_shorter_paths_before_it() -> None:
    assert others("foo.com/a/b/c", depth=3) == ["foo.com"]
    assert others("foo.com/a/b/c", depth=3, shallower=True) == ["foo.com/a/b", "foo.com/a", "foo.com"]
    assert others("foo.com", depth=3, shallower=True) == []
    assert len(others("foo.com" + "/a" * 100, depth=3, shallower=True)) == 4  # a key that says so itself


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("FOO.com:8080", "foo.com"),
        ("foo.com.", "foo.com"),
        ("Foo.com.:80", "foo.com"),
        ("foo.com:", "foo.com"),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("foo.com:http", "foo.com:http"),
        ("foo:1:2", "foo:1:2"),
        ("\udcff\xc4.com", "\udcff\xc4.com"),
    ],
)
def test_a_host_is_lower_case_without_port_and_dot(host: str, plain: str) -> None:
    assert normalised(host) == plain
    assert others(host, normalise=True) == ([plain] if plain != host else [])


def test_wildcards_are_tried_from_the_longest_on_and_dotsplit_asks_five_times_in_all() -> None:
    assert others("a.b.foo.com:80", wildcards=True) == ["*.b.foo.com:80", "*.foo.com:80", "*.com:80"]
    assert others("a.foo.com:80", dotsplit=True) == [".foo.com:80", ".com:80"]
    assert others("a.b.c.d.e.f.g", dotsplit=True) == [".b.c.d.e.f.g", ".c.d.e.f.g", ".d.e.f.g", ".e.f.g"]
    assert others(".foo.com", dotsplit=True) == [".com"]
    assert others("localhost", wildcards=True, dotsplit=True) == []


def test_the_order_is_path_before_spelling_before_wildcards_before_dotsplit() -> None:
    rules = KeyRules(depth=1, normalise=True, wildcards=True, dotsplit=True)
    assert list(rules.others("A.foo/x")) == [
        *("a.foo/x", "A.foo", "a.foo"),
        *("*.foo/x", "*.foo", "*.foo/x", "*.foo"),
        *(".foo/x", ".foo", ".foo/x", ".foo"),
    ]


def test_sources_are_asked_for_the_host_as_plain_as_the_options_have_it() -> None:
    assert KeyRules().asked("FOO.com/x") == "FOO.com/x"
    assert KeyRules(wildcards=True, dotsplit=True).asked("a.FOO.com") == "a.FOO.com"
    assert KeyRules(depth=1).asked("FOO.com:80/x") == "FOO.com:80"
    assert KeyRules(depth=1, normalise=True).asked("FOO.com:80/x") == "foo.com"


def test_the_options_are_the_rules() -> None:
    given = Options(
        force_key="k", subscription_mountpoints=2, mountpoints_shallower=True, normalise_host=True,
        wildcard_keys=True, subscription_dotsplit=True,
    )  # fmt: skip
    assert KeyRules.of(given) == KeyRules("k", 2, True, True, True, True)
    assert KeyRules.of(Options()) == KeyRules()


# One router.


def serving(router: OneRouter, *keys: str) -> list[ScriptedNode]:
    nodes = [ScriptedNode(answer(key.encode())) for key in keys]
    router.table({key: [Node(node.address)] for key, node in zip(keys, nodes, strict=True)})
    return nodes


def asked(router: OneRouter, host: str, path: str = "/") -> str:
    return ask(router.address, request(host, path)).decode()


EVERY: dict[str, Any] = {
    "subscription_mountpoints": 2, "mountpoints_shallower": True, "normalise_host": True, "wildcard_keys": True
}  # fmt: skip


def test_the_most_exact_key_that_is_known_serves() -> None:
    keys = ["foo.com", "FOO.com", "foo.com/a/b", "foo.com/a", "*.foo.com", "*.b.foo.com", ".foo.com", ".com"]
    with OneRouter(**EVERY, subscription_dotsplit=True) as router:
        nodes = serving(router, *keys)
        try:
            asks = [
                ("foo.com", "/"), ("FOO.com", "/"), ("FOO.com:80", "/"), ("foo.com", "/a/b/c"), ("foo.com", "/a/x"),
                ("foo.com", "/x"), ("FOO.com", "/a"), ("a.foo.com", "/a"), ("a.b.foo.com", "/"), ("x.org.com", "/"),
            ]  # fmt: skip
            assert [asked(router, *each) for each in asks] == [
                "foo.com", "FOO.com", "foo.com", "foo.com/a/b", "foo.com/a",
                "foo.com", "foo.com/a", "*.foo.com", "*.b.foo.com", ".com",
            ]  # fmt: skip
            hits = {key: counts[0] for key, counts in router.wait_idle()["pools"].items()}
            assert hits == {"foo.com": 3, "FOO.com": 1, "foo.com/a/b": 1, "foo.com/a": 2, "*.foo.com": 1,
                            "*.b.foo.com": 1, ".com": 1}  # fmt: skip
        finally:
            for node in nodes:
                node.stop()


def test_a_node_of_a_mountpoint_does_not_join_the_pool_of_its_host() -> None:
    with Router(subscription_mountpoints=1) as router, ScriptedNode(answer(b"A")) as one:
        with ScriptedNode(answer(b"B")) as two:
            for key, node in ("foo.com", one), ("foo.com/app", two):
                announce(router.subscriptions, key, node.address)
                router.wait_line(f"{key} => new node: {node.address}")
            answers = [ask(router.address, request("foo.com", path)) for path in ("/", "/app/x", "/app", "/", "/apps")]
            assert answers == [b"A", b"B", b"B", b"A", b"A"]


def test_a_key_whose_nodes_have_failed_is_served_by_another_one_at_once_and_afterwards() -> None:
    with OneRouter(subscription_dotsplit=True) as router, ScriptedNode(answer(b"B")) as node:
        router.table({"a.foo.com": [Node(refused_address())], ".foo.com": [Node(node.address)]})
        assert [asked(router, "a.foo.com") for _ in range(2)] == ["B", "B"]
        assert router.wait_idle()["complaints"] == {"unconnected": 1}


@pytest.mark.parametrize("warming", [0, LONG])
def test_a_key_whose_other_keys_nodes_have_failed_is_not_unknown(warming: int) -> None:
    """So it is a 503, which another router may serve; and what the sources know of it was asked for long ago."""
    with OneRouter(**EVERY, error_pages="on", on_demand=HOSTS, lookup_timeout=LONG) as router:
        node = Node(refused_address())
        router.table({"foo.com": [node], "*.foo.com": [node], TO: [Node(refused_address())]}, [node.address], warming)
        for host, path in ("FOO.com", "/"), ("foo.com", "/a"), ("a.foo.com", "/"):
            assert asked(router, host, path).startswith("HTTP/1.1 503 ")
        assert router.wait_idle()["complaints"] == {"no node": 3}
        assert [message for message in router.messages if "wanted" in message] == []


def test_other_keys_come_before_the_fallback_key_to_and_the_fallback_nodes() -> None:
    with OneRouter(wildcard_keys=True, subscription_fallback_key="all", fallback_on_no_key=True) as router:
        keys = ["*.foo.com", "all", TO, FALLBACK]
        nodes = [ScriptedNode(answer(letter)) for letter in (b"A", b"B", b"C", b"D")]
        try:
            router.table({key: [Node(node.address)] for key, node in zip(keys, nodes, strict=True)})
            for key, letter in zip(keys, "ABCD", strict=True):
                assert asked(router, "a.foo.com") == letter
                router.set(key, [])
        finally:
            for node in nodes:
                node.stop()


def test_a_forced_key_serves_whatever_the_vars_are() -> None:
    with OneRouter(force_key="all", subscription_mountpoints=1) as router:
        (node,) = serving(router, "all")
        with node:
            malformed = b"\0\3\0\0" + b"\xff\xff\xff"
            assert ask(router.address, malformed) == b"all"
            assert ask(router.address, packet([])) == b"all"
            assert asked(router, "foo.com", "/app") == "all"
            assert node.connections[0].head == malformed
            node.stop()
            assert ask(router.address, malformed) == b""
            assert router.wait_idle()["complaints"] == {"unconnected": 1, "no node": 1}


@pytest.mark.parametrize("more", [{}, {"post_buffering": 10, "error_pages": "on"}])
def test_a_malformed_packet_with_a_body_is_passed_on_as_it_is(more: dict[str, Any], tmp_path: Path) -> None:
    malformed = packet([("CONTENT_LENGTH", "7")]) + b"\xff"
    malformed = malformed[:1] + bytes([malformed[1] + 1]) + malformed[2:]
    with OneRouter(force_key="all", retry="all-unsent", log=tmp_path / "log", **more) as router:
        with ScriptedNode(answer(), answer(body=7), close_after_head, answer(body=7)) as node:
            router.table({"all": [Node(node.address)]})
            assert ask(router.address, malformed) == HELLO
            assert ask(router.address, malformed, b"1234567") == HELLO
            assert node.connections[1].head + node.connections[1].body == malformed + b"1234567"
            with ScriptedNode(answer(body=7)) as other:
                router.set("all", [Node(node.address), Node(other.address)])
                assert [ask(router.address, malformed, b"1234567") for _ in range(2)] == [HELLO] * 2
            assert router.wait_idle()["complaints"] == {"unanswered": 1}
            assert "internal error" not in "".join(router.log)


@pytest.mark.parametrize(
    ("options", "key", "comes"),
    [
        ({"wildcard_keys": True}, "a.foo.com", "*.foo.com"),
        ({"subscription_dotsplit": True}, "a.foo.com", ".foo.com"),
        ({"normalise_host": True}, "FOO.com:80", "foo.com"),
        ({"subscription_mountpoints": 1}, "foo.com", "foo.com"),
        ({"subscription_mountpoints": 1}, "foo.com", "foo.com/app"),
    ],
)
def test_while_warming_who_waits_is_served_as_soon_as_any_of_its_keys_comes(
    options: dict[str, Any], key: str, comes: str
) -> None:
    with OneRouter(**options) as router, ScriptedNode(answer(b"A")) as node:
        router.table({}, warming=LONG)
        with asking(router, request(key, "/app/x")) as (client,):
            router.set("other.com", [Node(node.address)])
            waits(router, 1)
            router.set(comes, [Node(node.address)])
            assert read_to_end(client) == b"A"
        waits(router, 0)
        router.wait_idle()


@pytest.mark.parametrize("whom", [HOSTS, ANY])
def test_on_demand_the_host_is_asked_for_and_one_spelling_of_it(whom: str) -> None:
    with OneRouter(**EVERY, on_demand=whom, lookup_timeout=LONG) as router, ScriptedNode(answer(b"A")) as node:
        router.table({})
        asks = [request("FOO.com:80", "/a"), request("foo.com", "/b/c"), request("Foo.com")]
        with asking(router, *asks) as clients:
            assert router.hear("wanted")["wanted"] == ["foo.com"]
            router.set("foo.com", [Node(node.address)])
            assert [read_to_end(client) for client in clients] == [b"A"] * 3
        router.wait_idle()
        assert [message for message in router.messages if "wanted" in message] == []


def test_the_answer_to_another_question_refuses_nobody() -> None:
    """Somebody asked for the wildcard key itself, in vain: who waits for one of its hosts goes on to wait."""
    with OneRouter(wildcard_keys=True, on_demand=ANY, lookup_timeout=LONG) as router:
        router.table({})
        with asking(router, request("a.foo.com")), asking(router, request("*.foo.com")) as (other,):
            router.tell(unknown=["*.foo.com"])
            assert read_to_end(other) == b""
            waits(router, 1)
            router.tell(unknown=["a.foo.com"])
            waits(router, 0)


def test_warming_ends_for_whose_question_is_not_open_only() -> None:
    with OneRouter(**EVERY, on_demand=HOSTS, lookup_timeout=LONG) as router:
        router.table({}, warming=LONG)
        with asking(router, request("FOO.com", "/a"), request("f_o:o")) as (first, second):
            router.tell(warming=0)
            assert read_to_end(second) == b""
            waits(router, 1)
            router.tell(unknown=["foo.com"])
            assert read_to_end(first) == b""


# What `gfrouter lookup` says.


def table_of(*keys: str) -> Table:
    table = Table()
    table.feed("subscription").replace({key: [Node(f":{port}")] for port, key in enumerate(keys, 1)})
    return table


def looked_up(key: str, table: Table, rules: KeyRules, **more: Any) -> tuple[str, list[str], list[str]]:
    said = view.lookup(state(table, **more, rules=rules), key)
    assert said["key"] == key
    return said["outcome"], said["reasons"], [node["address"] for node in said["nodes"] if node["next"]]


def test_lookup_says_which_key_serves() -> None:
    table = table_of("foo.com", "*.foo.com", "foo.com/app")
    rules = KeyRules(depth=1, normalise=True, wildcards=True)
    unknown = "no source knows this key"
    assert looked_up("foo.com", table, rules) == ("node", ["1 node takes a turn"], [":1"])
    assert looked_up("foo.com/app/x", table, rules) == (
        "node", ["its key is foo.com/app", "1 node takes a turn"], [":3"],
    )  # fmt: skip
    assert looked_up("FOO.com:80", table, rules) == ("node", [unknown, "the nodes of key foo.com serve it"], [":1"])
    assert looked_up("a.foo.com", table, rules)[1:] == ([unknown, "the nodes of key *.foo.com serve it"], [":2"])
    assert looked_up("a.foo.com", table, KeyRules())[:2] == ("unknown key", [unknown])
    assert looked_up("x", table, KeyRules(forced="foo.com")) == (
        "node", ["its key is foo.com", "1 node takes a turn"], [":1"],
    )  # fmt: skip


def test_lookup_says_which_key_serves_one_that_has_failed_and_what_is_asked_for() -> None:
    table = table_of("foo.com", "*.com")
    table.fail(table.endpoints[":1"], 2000.0)
    assert looked_up("foo.com", table, KeyRules(wildcards=True))[2] == [":2"]
    outcome, (reason,), _ = looked_up("FOO.org:1", table, KeyRules(normalise=True), on_demand=("dns",))
    assert (outcome, reason.split(",")[0]) == ("wait", "dns is asked for foo.org")
