"""Cases of the packet (section 1) and of a request through the router (section 2)."""

import select
import socket
import struct
from functools import partial

from clients import announce, packet, request
from like import CLOSED, GET, OPEN, OPEN_S, A, Case, Stage, case
from scripted import (
    Blackhole,
    ScriptedNode,
    answer,
    answer_early,
    answer_slowly,
    answer_then_reset,
    close_after_head,
    hang,
    reset_after_head,
    wait_for,
)
from servers import free_address

POST = request("foo.com", method="POST", length=5) + b"12345"


# 1. The packet.


@case(1, quick=True)
def vars_and_body_pass_byte_for_byte(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"A", body=256), key="foo.com")
    head = packet([("A", ""), ("HTTP_HOST", "foo.com"), ("A", b"\xff\0\r\n"), ("A" * 300, "x" * 5000)])
    stage.ask(head + bytes(range(256)))


@case(1)
def the_nodes_modifiers_overwrite_the_requests(stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.node(key="bar.com", modifier1=30, modifier2=255)
    stage.ask(packet([("HTTP_HOST", "foo.com")], 5, 7))
    stage.ask(packet([("HTTP_HOST", "bar.com")], 5, 7))
    stage.ask(packet([("HTTP_HOST", "bar.com")], 5, 255))


@case(1)
def content_length_is_not_looked_at(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"A", body=10))
    stage.ask(request("foo.com", method="POST", length=3) + b"0123456789")


@case(1)
def a_packet_may_come_byte_by_byte(stage: Stage) -> None:
    stage.start()
    stage.node()
    client = stage.send(GET[:1])
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(1, len(GET)):
        client.sendall(GET[at : at + 1])
    stage.read(client)


@case(1)
def vars_of_64_kib(stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.ask(packet([("HTTP_HOST", "foo.com"), ("HTTP_COOKIE", "c" * (65_535 - 4 - 9 - 7 - 4 - 11))]))


@case(1)
def an_answer_is_raw_to_its_end(stage: Stage) -> None:
    stage.start()
    stage.node(answer(bytes(range(256)) * 2000))
    stage.ask()


@case(1, why=["failcnt"], differs={"stats foo.com <node 1> failcnt": (None, 1)})
def an_answer_of_no_bytes_to_a_post(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"", body=5))
    stage.ask(POST)


@case(1)
def no_vars_at_all(stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.ask(packet([]))


HOST = packet([("HTTP_HOST", "foo.com")])[4:]  # the bare vars
MALFORMED = {
    "a_key_of_length_0": b"\0\0\1\0x" + HOST,
    "a_key_that_runs_past_the_end": b"\x20\0HTTP_HOST\7\0foo.com",
    "a_value_that_runs_past_the_end": b"\t\0HTTP_HOST\x08\0foo.com",
    "a_value_length_of_one_byte": HOST + b"\1\0A\0",
    "one_stray_byte": HOST + b"\0",
    "two_stray_bytes": HOST + b"\0\0",
}


def malformed(data: bytes, stage: Stage) -> None:
    stage.start()
    stage.node()
    stage.ask(struct.pack("<BHB", 0, len(data), 0) + data)
    stage.ask()


BAD_PACKETS = [Case(1, name, partial(malformed, data)) for name, data in MALFORMED.items()]


@case(1, why=["http"], differs={"client 1": (OPEN, CLOSED)}, quick=True)
def http_on_the_uwsgi_port(stage: Stage) -> None:
    stage.start()
    stage.node()
    client = stage.send(b"GET / HTTP/1.1\r\nHost: foo.com\r\n\r\n")
    stage.turns(1)  # accepted later, so the first one has been seen to
    stage.read(client, OPEN_S)


@case(1)
def a_header_that_never_completes(stage: Stage) -> None:
    stage.start(timeout=1)
    for client in [stage.send(GET[:3]), stage.send(GET[:20])]:
        stage.read(client)


# 2. A request through the router.


def key_of(fields: list[tuple[str, str]], stage: Stage) -> None:
    stage.start()
    stage.node(key="foo.com")
    stage.node(key="bar.com")
    stage.ask(packet(fields))


FOO, BAR = "foo.com", "bar.com"
LONG = "x" * 256
FIELDS = {
    "the_key_counts_before_the_host": [("UWSGI_FASTROUTER_KEY", FOO), ("HTTP_HOST", BAR), ("SERVER_NAME", BAR)],
    "the_key_counts_after_the_host_too": [("SERVER_NAME", BAR), ("HTTP_HOST", BAR), ("UWSGI_FASTROUTER_KEY", FOO)],
    "the_last_key_counts": [("UWSGI_FASTROUTER_KEY", BAR), ("UWSGI_FASTROUTER_KEY", FOO)],
    "an_empty_key_is_none": [("UWSGI_FASTROUTER_KEY", ""), ("HTTP_HOST", FOO)],
    "the_last_host_counts": [("HTTP_HOST", BAR), ("HTTP_HOST", FOO)],
    "the_first_server_name_counts": [("SERVER_NAME", ""), ("SERVER_NAME", FOO), ("SERVER_NAME", BAR)],
    "an_empty_host_takes_the_server_name_away": [("SERVER_NAME", BAR), ("HTTP_HOST", "")],
    "256_bytes_are_as_if_absent": [("SERVER_NAME", FOO), ("HTTP_HOST", LONG), ("UWSGI_FASTROUTER_KEY", LONG)],
    "a_key_is_compared_in_its_case": [("HTTP_HOST", "FOO.com")],
    "a_key_is_compared_with_its_port": [("HTTP_HOST", "foo.com:80")],
    "no_key_closes": [("REQUEST_METHOD", "GET")],
}
KEYS = [Case(2, name, partial(key_of, fields), quick=name == "the_last_host_counts") for name, fields in FIELDS.items()]


@case(2)
def a_refused_node_is_marked_and_the_next_one_asked(stage: Stage) -> None:
    stage.start()
    stage.announce(refused := free_address())
    stage.call(refused, "refused")
    stage.node()
    stage.see("turns", stage.turns(6))


@case(2)
def four_connects_and_no_more(stage: Stage) -> None:
    stage.start()
    for _ in range(6):
        stage.call(refused := free_address(), "refused")
        stage.announce(refused)
    stage.ask()
    stage.leave_out("stats")


@case(2, why=["every-failure"], differs={"turns": ("AA--", "AAAA")}, quick=True)
def a_missing_unix_socket_beside_a_good_node(stage: Stage) -> None:
    stage.start()
    stage.announce(str(stage.folder / "missing.sock"))
    stage.node()
    stage.see("turns", "".join(sorted(stage.turns(4), reverse=True)))
    stage.leave_out("stats", "node", "log")


@case(
    2,
    why=["every-failure"],
    differs={
        'log [uwsgi-fastrouter] unable to connect() to node "<folder>/missing.sock" (0 retries): '
        "No such file or directory": (None, 1),
        "log [uwsgi-fastrouter] foo.com => marking <folder>/missing.sock as failed": (None, 1),
    },
)
def a_missing_unix_socket_alone(stage: Stage) -> None:
    stage.start()
    stage.announce(str(stage.folder / "missing.sock"))
    stage.ask()
    stage.leave_out("stats")


@case(2, why=["every-failure"], differs={"turns": ("A-", "AA")})
def a_host_that_swallows_connects(stage: Stage) -> None:
    stage.start(timeout=1, connect_timeout=1)
    with Blackhole() as hole:
        stage.announce(hole.address)
        stage.node()
        stage.see("turns", "".join(sorted(stage.turns(2), reverse=True)))
    stage.leave_out("stats", "node", "log")


@case(2, why=["once-more"], differs={"turns": ("BB--", "BBBB")}, quick=True)
def a_node_that_closes_and_says_nothing(stage: Stage) -> None:
    stage.start()
    stage.node(close_after_head)
    stage.node()
    stage.see("turns", "".join(sorted(stage.turns(4), reverse=True)))
    stage.leave_out("stats", "node")


@case(2, why=["once-more"], differs={"turns": ("BB--", "BBBB")})
def a_node_that_resets_and_says_nothing(stage: Stage) -> None:
    stage.start()
    stage.node(reset_after_head)
    stage.node()
    stage.see("turns", "".join(sorted(stage.turns(4), reverse=True)))
    stage.leave_out("stats", "node")


@case(2, why=["failcnt"], differs={"stats foo.com <node 1> failcnt": (None, 1)})
def a_post_is_never_sent_twice(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"", body=5))
    stage.node(answer(b"B", body=5))
    stage.see("turns", "".join(sorted(stage.turns(2, POST))))


@case(
    2,
    why=["broken-off"],
    differs={"client 1": ((b"HTTP/1.1 200 OK\r\nContent-Le", "closed"), (b"HTTP/1.1 200 OK\r\nContent-Le", "reset"))},
)
def half_an_answer_and_a_reset(stage: Stage) -> None:
    stage.start()
    stage.node(answer_then_reset(b"HTTP/1.1 200 OK\r\nContent-Le"))
    stage.ask()


@case(2)
def a_node_that_hangs_costs_the_time_limit(stage: Stage) -> None:
    stage.start(timeout=1)
    stage.node(hang)
    stage.ask()


@case(2)
def a_client_that_leaves_ends_the_request_at_once(stage: Stage) -> None:
    stage.start()
    stage.node(hang)
    client = stage.send(GET)
    stage.wait_to_arrive(GET)
    client.shutdown(socket.SHUT_WR)
    stage.read(client)
    wait_for(lambda: stage.nodes[0].connections[0].eof, "the node to see the end")


@case(2)
def an_unknown_key_is_closed_without_a_byte(stage: Stage) -> None:
    stage.start()
    stage.ask()


@case(2, why=["warming"], differs={"client 1": (CLOSED, A)})
def a_request_before_the_first_announcement(stage: Stage) -> None:
    stage.start(warm_timeout=10)
    client = stage.send(GET)
    if stage.fastrouter:
        stage.read(client)
    stage.node()
    if not stage.fastrouter:
        stage.read(client)
    stage.leave_out("stats", "node")


@case(2)
def a_client_that_resets_ends_the_request_at_once(stage: Stage) -> None:
    stage.start()
    stage.node(hang)
    client = stage.send(GET)
    stage.wait_to_arrive(GET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: stage.nodes[0].connections[0].eof, "the node to see the end")


@case(2)
def an_answer_that_drips_outlives_the_time_limit(stage: Stage) -> None:
    stage.start(timeout=1)
    stage.node(answer_slowly(b"AAAAAA", piece=1, pause=0.4))
    stage.ask()


@case(2)
def a_body_that_comes_in_pieces(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"A", body=30))
    client = stage.send(request("foo.com", method="POST", length=30))
    stage.wait_to_arrive(sent := request("foo.com", method="POST", length=30))
    for _ in range(3):
        client.sendall(b"0123456789")
        stage.wait_to_arrive(sent := sent + b"0123456789")
    stage.read(client)


@case(2)
def a_key_of_bytes_that_are_no_text(stage: Stage) -> None:
    stage.start()
    with ScriptedNode(answer(b"A")) as node:
        announce(stage.router.subscriptions, b"\xff\xfe", node.address)
        stage.router.wait_line("=> new node: ")
        stage.ask(packet([("HTTP_HOST", b"\xff\xfe")]))
    stage.router.kill()  # no reading of the stats at the end, which are not JSON there
    stage.leave_out("router", "log")


@case(2)
def a_body_of_a_megabyte(stage: Stage) -> None:
    stage.start()
    body = bytes(range(256)) * 4096
    stage.node(answer(b"A", body=len(body)))
    stage.ask(request("foo.com", method="POST", length=len(body)) + body)


@case(2, why=["linger"], differs={"the second half": ("reset", "taken")})
def a_client_that_goes_on_sending_after_the_answer(stage: Stage) -> None:
    stage.start()
    stage.node(answer(b"A", body=14))  # what the real one has not read when it closes would be a reset by itself
    client = stage.send(request("foo.com", method="POST", length=1000) + b"the first half")
    stage.see("answer", (client.recv(10), client.recv(10)))
    poll = select.poll()
    poll.register(client, 0)  # nothing but errors
    client.send(b"the second half")
    stage.see("the second half", "reset" if poll.poll(1000 * OPEN_S) else "taken")
    client.close()


@case(2, why=["both-ways"], differs={"whole": (False, True)})
def a_client_that_reads_only_when_it_has_sent_all(stage: Stage) -> None:
    size = 20 << 20
    stage.start(timeout=1)
    stage.node(answer_early(b"a" * size))
    stage.see("whole", len(stage.ask(request("foo.com", method="POST", length=size) + b"b" * size)) == size)
    stage.leave_out("stats", "node", "client")
