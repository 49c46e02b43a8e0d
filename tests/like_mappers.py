"""uWSGI's mappers: what each makes of a key, and which of them answers where several are configured."""

from __future__ import annotations

from functools import partial

from clients import request
from like import CLOSED, A, Case, Stage, case
from like_static import INI
from scripted import answer
from servers import free_address

AT_ONCE = "[gfrouter]\nwarm-timeout = 0\n[uwsgi]\n"
HEAD = INI + AT_ONCE


def start(stage: Stage, *lines: str) -> bool:
    stage.leave_out("stats")  # the fastrouter shows no nodes that a mapper names
    return stage.start(ini=HEAD + "\n".join(lines) + "\n")


def cached(stage: Stage, **items: str) -> list[str]:
    """The lines of a cache with these items; for gfrouter they are in a file."""
    if stage.fastrouter:
        lines = [f"add-cache-item = x {key.replace('_', '.')}={value}" for key, value in items.items()]
        return ["cache2 = name=x,items=10", *lines, "fastrouter-use-cache = x"]
    text = "".join(f"{key.replace('_', '.')} {value}\n" for key, value in items.items())
    (stage.folder / "map").write_text(text)
    return [f"fastrouter-use-cache = {stage.folder}/map"]


def code(stage: Stage, expression: str) -> str:
    """The line for a function that gives this, of `key`."""
    (stage.folder / "map.py").write_text(f"def node(key):\n    return {expression}\n")
    return f"fastrouter-use-code-string = 0:{stage.folder}/map.py:node"


def modifiers(stage: Stage) -> None:
    heads = [each.head for node in stage.nodes for each in node.connections]
    stage.see("modifiers", [(head[0], head[3]) for head in heads])
    stage.leave_out("node")


@case(2, quick=True)
def base_with_the_key_behind_it(stage: Stage) -> None:
    for key in ("foo.com", "Foo.com", "x"):
        stage.unknown_node(address=str(stage.folder / key))
    start(stage, f"fastrouter-use-base = {stage.folder}/")
    for key in ("foo.com", "Foo.com", "x", "foo.com"):
        stage.ask(request(key))


@case(2)
def base_has_no_slash_added(stage: Stage) -> None:
    stage.unknown_node(address=str(stage.folder / "app-foo.com"))
    start(stage, f"fastrouter-use-base = {stage.folder}/app-")
    stage.ask()


@case(2)
def base_with_a_colon_is_tcp(stage: Stage) -> None:
    host, _, port = stage.unknown_node().rpartition(":")
    start(stage, f"fastrouter-use-base = {host}:")
    stage.ask(request(port))
    stage.leave_out("node")  # the port is the key


@case(2)
def base_that_is_abstract(stage: Stage) -> None:
    name = free_address("abstract")
    stage.unknown_node(address=f"{name}-foo.com")
    start(stage, f"fastrouter-use-base = {name}-")
    stage.ask()


@case(2)
def base_with_a_slash_in_the_key(stage: Stage) -> None:
    (stage.folder / "foo.com").mkdir()
    stage.unknown_node(address=str(stage.folder / "foo.com/app"))
    start(stage, f"fastrouter-use-base = {stage.folder}/")
    stage.ask(request("foo.com/app"))


@case(2)
def base_where_nobody_listens(stage: Stage) -> None:
    start(stage, f"fastrouter-use-base = {stage.folder}/")
    stage.ask()
    stage.leave_out("log")


@case(2, why=["unsafe-key"], differs={"client 1": (A, CLOSED), "node 1": ((request("a/../foo.com"),), ())})
def base_with_dots_in_the_key(stage: Stage) -> None:
    (stage.folder / "a").mkdir()
    stage.unknown_node(address=str(stage.folder / "foo.com"))
    start(stage, f"fastrouter-use-base = {stage.folder}/")
    stage.ask(request("a/../foo.com"))


@case(2, why=["path-with-colon"], differs={"client 1": (CLOSED, A), "node 1": ((), (request("foo.com:80"),))})
def base_with_a_port_in_the_key(stage: Stage) -> None:
    stage.unknown_node(address=str(stage.folder / "foo.com:80"))
    start(stage, f"fastrouter-use-base = {stage.folder}/")
    stage.ask(request("foo.com:80"))
    stage.leave_out("log")


@case(2, quick=True)
def pattern_with_the_key_in_it(stage: Stage) -> None:
    stage.unknown_node(address=str(stage.folder / "foo.com-foo.com.sock"))
    start(stage, f"fastrouter-use-pattern = {stage.folder}/%%s-%%s.sock")
    stage.ask()


@case(2)
def pattern_without_a_key(stage: Stage) -> None:
    start(stage, f"fastrouter-use-pattern = {stage.unknown_node()}")
    stage.ask()
    stage.ask(request("bar.com"))
    modifiers(stage)


@case(2, quick=True)
def cache_with_nodes_in_turn_and_a_modifier(stage: Stage) -> None:
    first, second = stage.unknown_node(), stage.unknown_node()
    start(stage, *cached(stage, foo_com=f"{first},7|{second},8", one_com=second))
    stage.see("alternating", stage.turns(4) in ("ABAB", "BABA"))
    stage.ask(request("one.com"))
    stage.ask(request("bar.com"))
    modifiers(stage)


@case(2, why=["mapped-node"], differs={"log [uwsgi-fastrouter] foo.com => marking <dead> as failed": (None, 1)})
def cache_with_a_node_that_refuses(stage: Stage) -> None:
    start(stage, *cached(stage, foo_com=f"{stage.dead_address()}|{stage.unknown_node()}"))
    stage.see("turns", stage.turns(4))
    stage.leave_out("log [uwsgi-fastrouter] unable")


@case(2, quick=True)
def code_string_in_bytes(stage: Stage) -> None:
    node = stage.unknown_node()
    start(stage, code(stage, f"{{b'foo.com': b'{node},7', b'bar.com': b'{node}', b'raise.com': 5}}.get(key)"))
    for key in ("foo.com", "bar.com", "none.com", "raise.com"):
        stage.ask(request(key))
    modifiers(stage)


@case(2)
def code_string_that_raises(stage: Stage) -> None:
    start(stage, code(stage, f"b'{stage.unknown_node()}' if key == b'foo.com' else 1 / 0"))
    stage.ask(request("raise.com"))
    stage.ask()


@case(2, why=["code-text"], differs={"client 1": (CLOSED, A)})
def code_string_in_text(stage: Stage) -> None:
    start(stage, code(stage, f"'{stage.unknown_node()}'"))
    stage.ask()
    stage.leave_out("node")


@case(2)
def a_workers_socket(stage: Stage) -> None:
    where = free_address()
    lines = ["fastrouter-use-socket", f"socket = {where}"]
    if stage.fastrouter:
        app = "def application(environ, start):\n    start('200 OK', [])\n    return [b'A']\n"
        (stage.folder / "app.py").write_text(app)
        lines += [f"wsgi-file = {stage.folder}/app.py", "disable-logging = true"]
    else:
        stage.unknown_node(answer(b"HTTP/1.1 200 OK\r\n\r\nA"), address=where)
    start(stage, *lines)
    stage.ask()
    stage.leave_out("node")


def second_to(first: str, second: str, stage: Stage) -> None:
    """An unknown key, where the first one has no node for it and the second one has."""
    node = stage.unknown_node(address=str(stage.folder / "foo.com"))
    has = {
        "pattern": f"fastrouter-use-pattern = {node}",
        "base": f"fastrouter-use-base = {stage.folder}/",
        "code": code(stage, f"b'{node}'") if second == "code" else "",
        "to": f"fastrouter-to = {node}",
    }
    has_not = {
        "pattern": f"fastrouter-use-pattern = {stage.folder}/nobody",
        "subscription": "fastrouter-subscription-server = {subscriptions}",
        "base": f"fastrouter-use-base = {stage.folder}/nobody",
        "code": code(stage, "None") if first == "code" else "",
    }
    lines = cached(stage, bar_com=node) if first == "cache" else [has_not[first]]
    start(stage, has[second], *lines)
    stage.ask()
    stage.leave_out("log")


PAIRS = [("cache", "pattern"), ("pattern", "base"), ("subscription", "base"), ("subscription", "to"),
         ("base", "code"), ("code", "to")]  # fmt: skip
ALONE = [Case(2, f"{first}_beside_{second}", partial(second_to, first, second)) for first, second in PAIRS]
