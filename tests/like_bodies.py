"""Cases of bodies that are read whole before their node is asked (section 2, post-buffering)."""

import select
from functools import partial

from clients import request
from like import OPEN_S, Case, Stage, case
from scripted import answer

SIZE = 20_000
BODY = bytes(range(250)) * (SIZE // 250)
HEAD = request("foo.com", method="POST", length=SIZE)


def whole(room: int, stage: Stage) -> None:
    """`room` bytes of a body stay in memory; the rest of it goes to a file."""
    stage.start(post_buffering=room)
    stage.node(answer(b"A", body=SIZE))
    stage.ask(HEAD + BODY)


SIZES = {"more_than_the_body": 65536, "as_much_as_the_body": SIZE, "less_than_the_body": 4096, "a_byte": 1}
WHOLE = [Case(2, f"post_buffering_of_{name}", partial(whole, room)) for name, room in SIZES.items()]


@case(2)
def post_buffering_of_a_request_without_a_body(stage: Stage) -> None:
    stage.start(post_buffering=4096)
    stage.node()
    stage.ask(request("foo.com"))


@case(2)
def post_buffering_in_pieces(stage: Stage) -> None:
    stage.start(post_buffering=4096)
    stage.node(answer(b"A", body=SIZE))
    client = stage.send(HEAD + BODY[:100])
    for at in range(100, SIZE, 5000):
        client.sendall(BODY[at : at + 5000])
    stage.read(client)


@case(2)
def post_buffering_of_a_body_that_stays_away(stage: Stage) -> None:
    """The node hears nothing of it, while the client waits."""
    stage.start(post_buffering=4096)
    stage.node(answer(b"A", body=SIZE))
    client = stage.send(HEAD + BODY[:-1])
    readable, _, _ = select.select([client], [], [], OPEN_S)
    stage.see("before the last byte", (bool(readable), len(stage.nodes[0].connections)))
    client.sendall(BODY[-1:])
    stage.read(client)


@case(2, why=["post-buffering"], differs={"stats foo.com hits": (2, 1)})
def post_buffering_of_a_client_that_leaves(stage: Stage) -> None:
    stage.start(post_buffering=4096)
    stage.node(answer(b"A", body=SIZE))
    stage.send(HEAD + BODY[:-1]).close()
    stage.ask(request("foo.com", method="POST", length=5) + b"12345")
