"""Cases of the stats (section 8), of the log (section 9), and of what the seed article wished for (section 10)."""

import json
import os
from typing import Any

from clients import announce, request, subscription, withdraw
from like import CLOSED, GET, OPEN_S, A, Stage, case
from scripted import ScriptedNode, answer, connect, hang
from servers import CONTRIB, Worker, free_address

NODE = "127.0.0.1:1"

# 8. Stats.


NAMES = {  # in 2.0
    "top": "version pid uid gid cwd active_sessions fastrouter subscriptions cheap",
    "pool": "key hash hits nodes",
    "node": "name modifier1 modifier2 last_check pid uid gid requests last_requests tx rx cores load weight wrr ref "
    "failcnt death_mark",
}


@case(8, why=["fields"], differs={f"more in {place}": (False, True) for place in NAMES}, quick=True)
def names_and_types_of_the_fields(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE)
    top = stage.router.stats()
    pool = top["subscriptions"][0]
    for place, found in [("top", top), ("pool", pool), ("node", pool["nodes"][0])]:
        names = NAMES[place].split()
        stage.see(f"types in {place}", [f"{name}: {type(found[name]).__name__}" for name in names])
        stage.see(f"more in {place}", not found.keys() <= set(names))


@case(8)
def whose_stats_they_are(stage: Stage) -> None:
    stage.start()
    stats = stage.router.stats()
    for name in ("uid", "gid", "cwd", "fastrouter", "active_sessions", "subscriptions", "cheap"):
        stage.see(name, stats[name])


@case(8)
def hashes_of_keys(stage: Stage) -> None:
    stage.start()
    for key in ("a", "foo.com", "example.org:8080", "x" * 255, "é.fr", "a/b"):
        stage.announce(NODE, key)


@case(8)
def what_is_in_flight(stage: Stage) -> None:
    stage.start()
    address = stage.node(hang)
    clients = [stage.send(GET) for _ in range(3)]
    stage.wait_to_arrive(GET, GET, GET)
    stage.see("ref", stage.router.nodes("foo.com")[address]["ref"])
    stage.see("active_sessions", stage.router.stats()["active_sessions"])
    for client in clients:
        client.close()


@case(8)
def last_requests_counts_from_the_last_announcement(stage: Stage) -> None:
    stage.start()
    address = stage.node()
    stage.turns(3)
    stage.router.wait_idle()
    stage.announce(address)


@case(8)
def bytes_of_bodies_and_answers_are_counted(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"a" * 100_000, body=70_000))
    stage.ask(request("foo.com", method="POST", length=70_000) + b"b" * 70_000)


@case(8)
def a_key_that_nobody_serves_counts_nowhere(stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.ask(request("bar.com"))


def marked(stage: Stage) -> list[dict[str, Any]]:
    return [node for node in stage.router.pool("foo.com")["nodes"] if node["death_mark"]]


@case(8, why=["marked-stays"], differs={"marked": (None, "stays"), "failures": (None, 1)})
def a_node_that_refused(stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.announce(free_address())
    stage.see("turns", stage.turns(4))
    stage.router.wait_idle()
    for node in marked(stage):
        stage.see("marked", "stays")
        stage.see("failures", node["failcnt"])
    stage.leave_out("log")


@case(8, why=["wrr"], differs={"turns left": ((1, 2), (0, 0))})
def turns_that_are_left(stage: Stage) -> None:
    stage.start()
    stage.announce(stage.node(weight=1), weight=1)
    stage.node(weight=3)
    stage.turns(1)
    stage.router.wait_idle()
    stage.see("turns left", sorted(node["wrr"] for node in stage.router.nodes("foo.com").values()))
    stage.leave_out("stats", "node")


@case(8, why=["json"], differs={"json": (None, "valid")})
def a_key_with_quotes(stage: Stage) -> None:
    stage.start()
    announce(stage.router.subscriptions, 'foo"\\.com', NODE)
    stage.router.wait_line("new node")
    with connect(stage.router.stats_address) as client:
        text = b"".join(iter(lambda: client.recv(65536), b""))
    try:
        json.loads(text)
        stage.see("json", "valid")
    except ValueError:
        stage.router.kill()
    stage.leave_out("stats", "router")


@case(8)
def a_reader_that_sends_http(stage: Stage) -> None:
    stage.start()
    with connect(stage.router.stats_address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        stage.see("begins with", client.recv(1))


@case(8, why=["stats-length"], differs={"length": (None, "said")})
def stats_by_http(stage: Stage) -> None:
    assert stage.start("--stats-http")
    with connect(stage.router.stats_address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = text.decode().partition("\r\n\r\n")
    for line in head.split("\r\n"):
        if line == f"Content-Length: {len(body)}":
            stage.see("length", "said")
        else:
            stage.see(line, "a line of the head")
    stage.see("pid", isinstance(json.loads(body)["pid"], int))
    stage.router.kill()  # no reading of the stats at the end, which sends no request
    stage.leave_out("router")


# 9. Log lines. Every case looks at them; these are about nothing else.


@case(9, quick=True)
def lines_of_a_start(stage: Stage) -> None:
    stage.start()


@case(9)
def lines_of_a_cheap_start(stage: Stage) -> None:
    stage.start(cheap=True)
    stage.router.wait_line("in cheap mode")


@case(9)
def lines_of_three_processes(stage: Stage) -> None:
    stage.start(processes=3)


@case(9)
def lines_of_pools_and_nodes(stage: Stage) -> None:
    stage.start()
    for key, address in [("foo.com", NODE), ("foo.com", "127.0.0.1:2"), ("bar.com", NODE), ("foo.com", NODE)]:
        stage.announce(address, key)


@case(9)
def lines_of_leaving(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE)
    stage.announce("127.0.0.1:2")
    stage.withdraw("127.0.0.1:2")
    stage.withdraw(NODE)


@case(
    9,
    why=["marked-stays"],
    differs={
        "log [uwsgi-subscription for pid N] new pool: foo.com (hash key: 11571)": (2, 1),
        "log [uwsgi-subscription for pid N] foo.com => new node: <refused>": (2, 1),
    },
)
def lines_of_a_refused_connect(stage: Stage) -> None:
    stage.start()
    stage.call(refused := free_address(), "refused")
    stage.announce(refused)
    stage.ask()
    stage.announce(refused)
    stage.ask()


@case(9)
def quiet_leaves_out_one_of_them(stage: Stage) -> None:
    stage.start("--fastrouter-quiet", "true")
    stage.call(refused := free_address(), "refused")
    stage.announce(refused)
    stage.ask()


@case(9, why=["reasons"], differs={"says why": (None, 1)})
def why_a_request_was_closed(stage: Stage) -> None:
    stage.start()
    stage.ask(request("bar.com"))
    stage.ask(b"\0\2\0\0\0\0")
    stage.router.wait_idle()
    if told := stage.lines(r"client 127\.0\.0\.1:\d+: 2 stray bytes"):
        stage.see("says why", len(told))


# 10. What the seed article wished for.


ROUTER_INI = (CONTRIB / "article" / "router.ini").read_text()


@case(10, quick=True)
def the_articles_router_ini(stage: Stage) -> None:
    ini = ROUTER_INI.replace("127.0.0.1:3031", "{router}").replace("0.0.0.0:2626", "{subscriptions}")
    stage.start(ini=ini)
    stage.router.wait_line("in cheap mode")
    with ScriptedNode(answer(b"A")) as node:
        stage.call(node.address, "node")
        announce(stage.router.subscriptions, "foo.com", node.address)
        stage.router.wait_line("leaving cheap mode")
        stage.ask()


@case(
    10,
    why=["names"],
    differs={
        "client 1": (CLOSED, A),
        "log [uwsgi-subscription for pid N] foo.com => new node: <name>": (1, None),
        "log [uwsgi-subscription for pid N] foo.com => new node: <address>": (None, 1),
    },
)
def a_node_by_host_name(stage: Stage) -> None:
    stage.start()
    with ScriptedNode(answer(b"A")) as node:
        stage.call(node.address, "address")
        stage.call(name := node.address.replace("127.0.0.1", "localhost"), "name")
        stage.say(subscription("foo.com", name))
        stage.ask()
    stage.leave_out("stats")


@case(10, why=["names"], differs={"announced": ("in vain", "known")})
def a_subscription_server_by_host_name(stage: Stage) -> None:
    stage.call(real := free_address(), "subscriptions")
    stage.start(subscriptions=real.replace("127.0.0.1", "localhost"))
    announce(real, "foo.com", NODE)
    try:
        stage.router.wait_for_nodes("foo.com", 1, timeout=2 * OPEN_S)
        stage.see("announced", "known")
    except AssertionError:
        stage.see("announced", "in vain")
    stage.leave_out("log", "stats")


@case(10)
def a_worker_that_is_told_the_servers_host_name(stage: Stage) -> None:
    stage.start()
    with Worker(stage.router.subscriptions.replace("127.0.0.1", "localhost")) as worker:
        worker.wait_line(r"sendto\(\): Permission denied")
    stage.ask()


@case(10)
def a_worker_that_is_told_the_servers_address(stage: Stage) -> None:
    stage.start()
    with Worker(stage.router.subscriptions) as worker:
        stage.call(worker.address, "worker")
        stage.router.wait_for_nodes("foo.com", 1)
        stage.see("answer", b"200 OK" in stage.ask())
        stage.leave_out("client", "stats")


SHARED = f"""[uwsgi]
master = true
shared-socket = {{router}}
fastrouter = =0
fastrouter-cheap = true
fastrouter-subscription-server = {{subscriptions}}
fastrouter-stats = {{stats}}
socket = =0
wsgi-file = {os.path.dirname(__file__)}/worker_app.py
"""


@case(10, why=["worker-beside"], differs={"foo.com is the node's": (False, True)})
def a_worker_on_the_routers_socket(stage: Stage) -> None:
    stage.start(ini=SHARED)

    def answers(key: str = "foo.com", times: int = 1) -> set[bytes]:
        return {stage.ask(request(key))[:12] for _ in range(times)}

    stage.see("alone", answers() | answers("bar.com"))
    with ScriptedNode(answer(b"A")) as node:
        announce(stage.router.subscriptions, "foo.com", node.address)
        stage.router.wait_for_nodes("foo.com", 1)
        stage.see("foo.com is the node's", answers(times=40) == {b"A"})
        withdraw(stage.router.subscriptions, "foo.com", node.address)
        stage.router.wait_for_nodes("foo.com", 0)
    stage.see("alone again", answers(times=10))
    stage.leave_out("client", "stats", "log")


@case(10)
def one_configuration_for_router_and_worker(stage: Stage) -> None:
    socket = free_address()
    stage.call(socket, "worker")
    stage.start(
        ini=f"""[uwsgi]
master = true
fastrouter = {{router}}
fastrouter-subscription-server = {{subscriptions}}
fastrouter-stats = {{stats}}
socket = {socket}
wsgi-file = {os.path.dirname(__file__)}/worker_app.py
subscribe2 = server={{subscriptions}},key=foo.com
"""
    )
    stage.see("answer", b"200 OK" in stage.ask())
    stage.leave_out("client", "stats", "log")
