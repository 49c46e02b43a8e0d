"""Messages between supervisor and router: whole, byte by byte, and several at once."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from router.node import Node
from router.pair import Decoder, encode, pack_node, unpack_node

MESSAGES = st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text())), max_size=5)


@given(MESSAGES, st.integers(min_value=1, max_value=40))
def test_what_is_encoded_comes_out_however_it_is_cut(messages: list[dict[str, object]], piece: int) -> None:
    data = b"".join(map(encode, messages))
    decoder = Decoder()
    heard = [m for start in range(0, len(data), piece) for m in decoder.feed(data[start : start + piece])]
    assert heard == messages


def test_a_message_is_its_length_and_json() -> None:
    assert encode({"count": 1}) == struct.pack("!I", 11) + b'{"count":1}'


def test_keys_that_are_not_utf8_survive() -> None:
    key = b"f\xff\xc3".decode("utf-8", "surrogateescape")
    (message,) = Decoder().feed(encode({"set": [[key, [], []]]}))
    assert message["set"][0][0].encode("utf-8", "surrogateescape") == b"f\xff\xc3"


def test_a_node_travels_with_all_that_a_router_needs() -> None:
    node = Node(":1", weight=2, backup=3, modifier1=4, modifier2=5, proto="h", vassal="v", algorithm="wrr")
    assert unpack_node(pack_node(node)) == node
