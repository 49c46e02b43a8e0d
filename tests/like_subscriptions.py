"""Cases of the subscription packet (section 3) and of the algorithms (section 4)."""

import contextlib
import signal
import socket
import threading
import time
from functools import partial

from clients import packet, request, subscription, withdraw
from like import CLOSED, GET, OPEN_S, REFUSED, A, Case, Stage, case
from router.address import name_of
from router.uwsgi import iter_vars
from scripted import ScriptedNode, answer, wait_for, when

NODE = "127.0.0.1:1"

# 3. The subscription packet.


@case(3, quick=True)
def a_node_is_what_its_announcement_says(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE, modifier1=5, modifier2=6, cores=7, load=8, weight=9)


@case(3)
def weight_0_counts_as_1(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE, weight=0)


@case(3)
def cores_load_and_weight_are_refreshed(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE, cores=1, load=1, weight=1)
    stage.announce(NODE, cores=2, load=3, weight=4)


@case(
    3,
    why=["modifiers"],
    differs={
        f"stats foo.com {NODE} modifier1": (5, 7),
        f"stats foo.com {NODE} modifier2": (6, 8),
    },
    quick=True,
)
def modifiers_of_a_later_announcement(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE, modifier1=5, modifier2=6)
    stage.announce(NODE, modifier1=7, modifier2=8)


@case(3)
def unknown_fields_are_ignored(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE, colour="red", weight=2)


@case(3)
def any_fourth_byte_but_0_unsubscribes(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE)
    stage.announce("127.0.0.1:2")
    stage.say(packet([("key", "foo.com"), ("address", NODE)], 224, 7))


@case(3)
def an_unsubscribe_of_nobody_known(stage: Stage) -> None:
    stage.start()
    stage.announce(NODE)
    for key, address in [("foo.com", "127.0.0.1:2"), ("bar.com", NODE)]:
        stage.say(packet([("key", key), ("address", address)], 224, 1))


@case(3)
def a_node_that_comes_back_starts_from_zero(stage: Stage) -> None:
    stage.start()
    address = stage.node()
    stage.ask()
    stage.withdraw(address)
    stage.ask()
    stage.announce(address)


@case(3)
def one_address_under_two_keys(stage: Stage) -> None:
    stage.start()
    stage.announce(stage.node(), key="bar.com", modifier1=9)
    stage.ask(GET)
    stage.ask(request("bar.com"))


@case(3)
def requests_in_flight_of_an_unsubscribed_node_finish(stage: Stage) -> None:
    stage.start()
    released = threading.Event()
    address = stage.node(when(released, answer(b"A")))
    client = stage.send(GET)
    stage.wait_to_arrive(GET)
    stage.withdraw(address)
    stage.ask()
    released.set()
    stage.read(client)


@case(3)
def a_bare_port_is_on_the_routers_host(stage: Stage) -> None:
    stage.start()
    with ScriptedNode(answer(b"A")) as node:
        stage.call(bare := node.address.removeprefix("127.0.0.1"), "bare port")
        stage.announce(bare)
        stage.ask()


@case(3)
def a_node_on_a_unix_socket(stage: Stage) -> None:
    stage.start()
    stage.node(address=str(stage.folder / "node.sock"))
    stage.ask()


@case(3)
def a_node_on_an_abstract_socket(stage: Stage) -> None:
    stage.start()
    stage.node(address=f"@{stage.folder}")
    stage.ask()


@case(3, why=["names"], differs={"client 1": (CLOSED, A)})
def a_node_on_ipv6(stage: Stage) -> None:
    stage.start()
    stage.node(address="[::1]:0")
    stage.ask()
    stage.leave_out("stats", "node")


BAR = subscription("bar.com", NODE)
HARMLESS = {
    "a_datagram_of_nothing": b"",
    "a_datagram_of_one_byte": b"\xe0",
    "a_datagram_of_http": b"GET / HTTP/1.1\r\nHost: foo.com\r\n\r\n",
    "a_datagram_without_vars": b"\xe0\0\0\0",
    "a_datagram_whose_last_value_runs_past_the_end": BAR[:-1],
    "a_datagram_with_another_datasize": b"\xe0\xff\xff\0" + BAR[4:],
    "a_datagram_with_an_address_of_256_bytes": subscription("bar.com", "/" + "x" * 255),
    "a_datagram_with_an_empty_address": subscription("bar.com", ""),
    "a_datagram_with_two_keys": packet([("key", "foo.com"), ("key", "bar.com"), ("address", NODE)], 224),
    "a_datagram_with_a_key_of_255_bytes": subscription("x" * 255, NODE),
}
STORED = {  # datagram, the key it goes to, that key's hash, and a weight
    "a_datagram_without_key": (packet([("address", NODE)], 224), "", 5381, 1),
    "a_datagram_with_an_empty_key": (subscription("", NODE), "", 5381, 1),
    "a_datagram_with_a_stray_byte": (BAR + b"\1", "bar.com", 3425, 1),
    "a_datagram_with_modifier1_5": (packet([("key", "bar.com"), ("address", NODE)], 5), "bar.com", 3425, 1),
    "a_datagram_over_4096_bytes": (subscription("bar.com", NODE, filler="x" * 4096), "bar.com", 3425, 1),
    "a_datagram_with_modifier1_256_in_its_vars": (subscription("bar.com", NODE, modifier1=256), "bar.com", 3425, 1),
    "a_datagram_with_a_huge_number": (subscription("bar.com", NODE, weight=2**32), "bar.com", 3425, 2**32),
    "a_datagram_with_an_empty_number": (subscription("bar.com", NODE, weight=""), "bar.com", 3425, 1),
    "a_datagram_with_a_word_for_a_number": (subscription("bar.com", NODE, weight="many"), "bar.com", 3425, 66593),
    "a_datagram_with_a_negative_number": (subscription("bar.com", NODE, weight="-2"), "bar.com", 3425, 2**64 - 28),
}


def hostile(data: bytes, stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.say(data)
    stage.ask()


def stored(key: str, hash: int, weight: int = 1, address: str = NODE) -> dict[str, tuple[object, object]]:
    """What shows where the fastrouter stores what gfrouter drops."""
    return {
        f"stats {key} hash": (hash, None),
        f"stats {key} {address} weight": (weight, None),
        f"log [uwsgi-subscription for pid N] new pool: {key} (hash key: {hash})": (1, None),
        f"log [uwsgi-subscription for pid N] {key} => new node: {address}": (1, None),
    }


HOSTILE = [Case(3, name, partial(hostile, data)) for name, data in HARMLESS.items()]
HOSTILE += [
    Case(3, name, partial(hostile, data), ["dropped"], stored(key, hash, weight))
    for name, (data, key, hash, weight) in STORED.items()
]


@case(3, why=["addresses"], differs=stored("bar.com", 3425, address="127.0.0.1:port"))
def a_node_whose_port_is_no_number(stage: Stage) -> None:
    hostile(subscription("bar.com", "127.0.0.1:port"), stage)


@case(3, why=["dropped"], differs={"a key of 256 bytes": ("stored", None), "a key of 600 bytes": ("stored", None)})
def keys_that_are_too_long(stage: Stage) -> None:
    # The real one writes past the end of the key's room: what comes of it is undefined, an abort for one.
    stage.start()
    stage.node()
    for size in (256, 600):
        stage.say(subscription("x" * size, NODE))
        if stage.lines(f"new pool: x{{{size}}}"):
            stage.see(f"a key of {size} bytes", "stored")
    stage.leave_out("stats", "log", "node", "router")


@case(3, why=["timer"], differs={"noticed": ("by the next request", "by a timer")})
def a_silent_node(stage: Stage) -> None:
    stage.start(subscription_tolerance=1)
    stage.announce(NODE)
    noticed = "127.0.0.1:1 as failed .no announce received in 1 seconds"
    with contextlib.suppress(AssertionError):
        stage.router.wait_line(noticed, timeout=8)
        stage.see("noticed", "by a timer")
    if "noticed" not in stage.seen:
        stage.ask()
        stage.router.wait_line(noticed)
        stage.see("noticed", "by the next request")
    stage.leave_out("client")


@case(3, why=["paused"], differs={"client 1": (CLOSED, A)})
def a_router_that_is_stopped_for_longer_than_the_tolerance(stage: Stage) -> None:
    stage.start(subscription_tolerance=5)
    stage.node()
    stage.router.send_signal_to_all(signal.SIGSTOP)
    time.sleep(6.2)  # the time itself is what is tested
    stage.router.send_signal_to_all(signal.SIGCONT)
    stage.ask()
    stage.leave_out("stats", "node", "log")


@case(3)
def a_worker_that_asks_to_be_notified(stage: Stage) -> None:
    stage.start()
    path = str(stage.folder / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
        worker.bind(path)
        worker.settimeout(OPEN_S)
        for number in range(2):
            stage.say(subscription("foo.com", NODE, notify=path))
            try:
                stage.see(f"notified {number}", worker.recv(4096))
            except TimeoutError:
                stage.see(f"notified {number}", None)


@case(3)
def announcements_by_unix_datagram(stage: Stage) -> None:
    assert stage.start(subscriptions=str(stage.folder / "subscriptions.sock"))
    stage.node()
    stage.ask()


@case(
    3,
    why=["resubscribe"],
    differs={
        "said 1": (
            ("subscribes", "foo.com", "<router>", "0", "0", "0"),
            ("subscribes", "foo.com", "<router>", "0", "0", "2"),
        ),
        "said 2": (
            ("subscribes", "foo.com", "<router>", "5", "6", "0"),
            ("subscribes", "foo.com", "<router>", "0", "0", "5"),
        ),
        "said 3": (
            ("unsubscribes", "foo.com", "<router>", "0", "0", "0"),
            ("subscribes", "foo.com", "<router>", "0", "0", "2"),
        ),
        "said 4": (None, ("unsubscribes", "foo.com", "<router>", "0", "0", "0")),
    },
)
def a_router_that_announces_itself_to_another(stage: Stage) -> None:
    """Two nodes come, then each of them goes; what is said of that, but for renewals."""
    said: list[tuple[str, ...]] = []
    with contextlib.closing(socket.socket(type=socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(10)

        def next_one() -> tuple[str, ...]:
            data = other.recv(4096)
            fields = {key.decode(): value.decode() for key, value in iter_vars(data, len(data))}
            command = "unsubscribes" if data[3] else "subscribes"
            return (command, *(fields[name] for name in ("key", "address", "modifier1", "modifier2", "weight")))

        stage.start(resubscribe=[name_of(other.getsockname())])
        stage.announce(NODE, weight=2)
        said.append(next_one())
        stage.announce("127.0.0.1:2", weight=3, modifier1=5, modifier2=6)
        said.append(next_one())
        withdraw(stage.router.subscriptions, "foo.com", "127.0.0.1:2")
        said.append(next_one())
        if not stage.fastrouter:
            withdraw(stage.router.subscriptions, "foo.com", NODE)
            said.append(next_one())
    for number, words in enumerate(said, start=1):
        stage.see(f"said {number}", words)
    stage.leave_out("log", "stats")


# 4. Algorithms.


def cycle(turns: str) -> str:
    """The same circle of turns, wherever it began: from its alphabetically first beginning."""
    return min(turns[at:] + turns[:at] for at in range(len(turns)))


def weighted(weights: tuple[int, ...], rounds: int, stage: Stage) -> None:
    stage.start()
    for weight in weights:
        stage.node(weight=weight)
    stage.see("turns", cycle(stage.turns(rounds)))


EQUAL = {
    "one_node_alone": ((7,), 3),
    "three_nodes_of_weight_1": ((1, 1, 1), 6),
    "three_nodes_of_weight_5": ((5, 5, 5), 6),
    "weights_3_and_1": ((3, 1), 8),
}
WRR = [Case(4, name, partial(weighted, weights, rounds)) for name, (weights, rounds) in EQUAL.items()]


@case(4, why=["turns"], differs={"turns": ("ABABABABAB", "AABABAABAB")})
def weights_3_and_2(stage: Stage) -> None:
    weighted((3, 2), 10, stage)
    stage.leave_out("stats", "node")


@case(4, why=["turns"], differs={"turns": ("ABBCCCABBCCC", "ACBCCBACBCCB")})
def weights_1_2_and_3(stage: Stage) -> None:
    weighted((1, 2, 3), 12, stage)


@case(4)
def a_weight_that_changes(stage: Stage) -> None:
    stage.start()
    first = stage.node()
    stage.node()
    stage.turns(4)
    stage.announce(first, weight=3)
    stage.turns(2)  # what is left of the old turns
    stage.see("turns", cycle(stage.turns(8)))
    stage.leave_out("stats", "node")


@case(4)
def a_node_that_leaves_is_out_of_turn(stage: Stage) -> None:
    stage.start()
    first = stage.node()
    stage.node()
    stage.node()
    stage.withdraw(first)
    stage.see("turns", cycle(stage.turns(6)))


@case(4, why=["backup"], differs={"turns": ("ABABAB", "AAAAAA")})
def a_backup_node(stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.node(backup=1)
    stage.see("turns", cycle(stage.turns(6)))
    stage.leave_out("stats", "node")


def algorithm(name: str, stage: Stage) -> None:
    stage.start("--subscription-algo", name)
    stage.leave_out("stats", "log")


def held_and_asked(name: str, stage: Stage) -> None:
    """Four nodes of the weights 1, 1, 2 and 4, each of which may hold a request until all have been seen."""
    stage.start("--subscription-algo", name)
    released = threading.Event()
    for letter, weight in zip(b"ABCD", (1, 1, 2, 4), strict=True):
        stage.node(when(released, answer(bytes([letter]))), weight=weight)
    clients = []
    for count in range(1, 9):
        clients.append(stage.send(GET))
        wait_for(lambda: sum(len(node.connections) for node in stage.nodes) == count, f"request {count} to arrive")  # noqa: B023
    stage.see("in flight", tuple(sorted(len(node.connections) for node in stage.nodes)))
    released.set()
    for client in clients:
        client.recv(1)
        client.close()
    stage.leave_out("stats", "node")


HELD = [Case(4, f"what_each_node_has_by_{name}", partial(held_and_asked, name)) for name in ("lrc", "wlrc")]


def idle_by(name: str, stage: Stage) -> None:
    stage.start("--subscription-algo", name)
    for _ in range(3):
        stage.node()
    turns = stage.turns(9)
    stage.see("rounds", tuple("".join(sorted(turns[at : at + 3])) for at in (0, 3, 6)))
    stage.leave_out("node")


IDLE = [Case(4, f"idle_nodes_take_turns_by_{name}", partial(idle_by, name)) for name in ("lrc", "wlrc")]


@case(4, why=["ties"], differs={"turns": (4, 6)})
def idle_nodes_of_weights_3_and_1_by_wlrc(stage: Stage) -> None:
    stage.start("--subscription-algo", "wlrc")
    stage.node(weight=3)
    stage.node()
    stage.see("turns", stage.turns(8).count("A"))
    stage.leave_out("stats", "node")


@case(4, why=["iphash"], differs={"asked": (3, 1)})
def the_address_of_a_client_by_iphash(stage: Stage) -> None:
    stage.start("--subscription-algo", "iphash")
    for _ in range(3):
        stage.node()
    stage.see("asked", len(set(stage.turns(6, request("foo.com", REMOTE_ADDR="10.1.2.3")))))
    stage.leave_out("stats", "node")


@case(4, why=["unknown-words"], differs=REFUSED)
def an_algorithm_that_nobody_knows(stage: Stage) -> None:
    algorithm("fair", stage)
