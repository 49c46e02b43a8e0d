"""The relay's turn, on peers that never make it wait: no kernel could be asked to be as fast as these."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from router.relay import CHUNK, TURN_BYTES, relay_down, relay_up
from router.session import RELAY, Session

ENOUGH = 100  # chunks; whoever reads so many has forgotten its turn


class Endless:
    """A socket that always has a whole chunk to read, and takes whatever is sent."""

    def __init__(self) -> None:
        self.reads = 0
        self.taken = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.reads += 1
        assert self.reads < ENOUGH, "others have waited for too long"
        return bytes(size)

    def send(self, data: bytes, flags: int = 0) -> int:
        self.taken += len(data)
        return len(data)


@pytest.mark.parametrize(("relay", "sink"), [(relay_down, "client"), (relay_up, "node")])
def test_a_direction_that_could_go_on_for_ever_is_cut_after_its_turn(relay: Any, sink: str) -> None:
    session = Session(cast(Any, Endless()), 7, 0)
    session.node = cast(Any, Endless())
    session.member = cast(Any, SimpleNamespace(tx=0, rx=0, endpoint=SimpleNamespace(family=2, broken=0)))
    session.state = RELAY
    session.client_ready = True
    woken: list[bool] = []
    engine = SimpleNamespace(resumable=[], wake=lambda: woken.append(True))
    relay(engine, session)
    assert (engine.resumable, woken) == ([session], [True])
    assert TURN_BYTES <= getattr(session, sink).taken <= TURN_BYTES + CHUNK


def test_a_node_that_reads_no_more_may_still_have_its_answer_to_be_read() -> None:
    """Nothing ends here, and nothing more is taken from the client: the node's own end is still to come."""

    def broken_pipe(data: bytes) -> int:
        raise BrokenPipeError

    client = Endless()
    session = Session(cast(Any, client), 7, 0)
    session.node = cast(Any, SimpleNamespace(send=broken_pipe))
    session.state, session.up, session.client_ready = RELAY, b"more", True
    for _ in range(2):
        relay_up(cast(Any, None), session)
    assert (session.state, session.deaf, session.up, client.reads) == (RELAY, True, b"", 0)
