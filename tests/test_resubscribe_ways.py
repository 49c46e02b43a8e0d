"""Telling other routers: nothing goes round for ever, and what is signed. The clock is ours."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from announced import UNSUBSCRIBE, Announced, packet
from discovery.announcement import parse_announcement
from discovery.resubscribe import Resubscribe
from discovery.resubscribeteller import AHEAD, PAUSE, Teller
from discovery.subscription import LONGEST_ROUTER, MOST_ROUTERS, loop
from router.address import Inet
from router.resubscribe import Offers
from router.table import Change
from telling import KEY, OWN, Inner, Telling


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def telling(inner: Inner) -> Iterator[Telling]:
    with Telling(inner) as telling:
        yield telling


# Ways that lead back.


def test_a_way_that_leads_through_us_or_is_too_long_is_a_loop() -> None:
    assert loop("", "me") == "" and loop("other", "me") == ""
    assert "through us" in loop("a me b", "me")
    longest = " ".join(map(str, range(MOST_ROUTERS)))
    assert loop(longest, "me") == "" and "routers are on the way" in loop(f"{longest} more", "me")


@pytest.mark.parametrize("way", ["x" * 17, "ok \u00e9", "a\0b"])
def test_what_is_no_word_for_a_router_is_not_passed_on(way: str) -> None:
    assert "no word for a router" in loop(way, "me")


def test_whatever_way_is_taken_the_next_router_can_read_ours(inner: Inner, telling: Telling) -> None:
    with Announced(identity="m" * LONGEST_ROUTER) as announced:
        announced.take(packet(routers=" ".join(str(number) * LONGEST_ROUTER for number in range(MOST_ROUTERS))))
        (node,) = announced.nodes()
    inner.join(via=node.via)
    telling.turn()
    assert len(telling.weights()) == 0 and telling.outer.feed.rejected == {"loop": 1}, "too long, but no bad packet"


def test_a_node_that_turns_into_a_loop_leaves() -> None:
    with Announced(identity="me") as announced:
        announced.take(packet(routers="other"))
        assert [node.via for node in announced.nodes()] == ["other"]
        announced.take(packet(routers="other me"))
        assert announced.nodes() == []
        assert announced.feed.rejected == {"loop": 1}
        announced.take(packet(routers="x" * 256))
        assert announced.feed.rejected == {"loop": 1, "bad routers": 1}
        announced.take(packet(routers="other"), packet(UNSUBSCRIBE, routers="other me"))
        assert announced.nodes() == [], "a farewell is one whatever its way"


class Mesh:
    """Routers of which each tells those that `edges` say, and a worker where one has joined."""

    def __init__(self, stack: ExitStack, edges: dict[str, str]) -> None:
        self.now = 1000.0
        self.routers = {name: stack.enter_context(Announced(identity=name)) for name in edges}
        self.tellers: list[tuple[str, Teller]] = []
        self.queue: dict[str, list[str]] = {name: [] for name in edges}
        for name, others in edges.items():
            one = self.routers[name]
            one.table.on_change = self.noting(name)
            offers = Offers(one.table, [one.feed], lambda: self.now)
            for other in others:
                place = Inet(socket.AF_INET, self.routers[other].source.socket.getsockname())
                teller = Teller(other, place, f"10.0.0.{ord(name)}:1", offers, name, clock=lambda: self.now)
                stack.callback(teller._close)
                self.tellers.append((name, teller))

    def noting(self, name: str) -> Callable[[Change], None]:
        def note(change: Change) -> None:
            for who, teller in self.tellers:
                if who == name:
                    teller.note([change.key])

        return note

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            for _, teller in self.tellers:
                teller.turn()
            for one in self.routers.values():
                one.now = self.now + 4000.0
                one.source.turn(one.feed)

    def sent(self) -> int:
        return sum(teller.sent for _, teller in self.tellers)

    def worker(self, name: str, join: bool = True) -> None:
        said = {} if join else {"command": UNSUBSCRIBE}
        self.routers[name].send(packet(address=f"10.1.1.{ord(name)}:1", **said))

    def known(self) -> dict[str, list[str]]:
        return {
            name: sorted(chr(int(address.split(":")[0].rsplit(".", 1)[1])) for address in one.addresses())
            for name, one in self.routers.items()
        }


MESHES = {
    "two": {"A": "B", "B": "A"},
    "ring of three": {"A": "B", "B": "C", "C": "A"},
    "three": {"A": "BC", "B": "AC", "C": "AB"},
    "four": {"A": "BCD", "B": "ACD", "C": "ABD", "D": "ABC"},
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("where", ["A", "all"])
def test_a_key_does_not_outlive_its_workers_by_going_round(mesh: str, where: str) -> None:
    with ExitStack() as stack:
        routers = Mesh(stack, MESHES[mesh])
        homes = list(routers.routers) if where == "all" else [where]
        for home in homes:
            routers.worker(home)
        routers.run(2.0)
        assert all(routers.known().values()), "each of them has a way"
        calm = routers.sent()
        routers.run(5.0)
        assert routers.sent() == calm, "nothing goes on by itself"
        for home in homes:
            routers.worker(home, join=False)
        routers.run(3.0)
        assert not any(routers.known().values())


def test_two_that_tell_each_other_do_not_send_back_what_came_from_there() -> None:
    with ExitStack() as stack:
        routers = Mesh(stack, MESHES["two"])
        for _ in range(3):
            routers.worker("A")
            routers.run(10.0)
        assert routers.known() == {"A": ["A"], "B": ["A"]}
        assert routers.routers["A"].feed.rejected["loop"] >= 3
        routers.worker("B")
        routers.run(1.0)
        assert routers.known() == {"A": ["A", "B"], "B": ["A", "B"]}


def test_a_datagram_of_ours_is_one_of_uwsgis_with_one_field_more(inner: Inner) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        inner.join(weight=3)
        place = Inet(socket.AF_INET, sock.getsockname())
        teller = Teller("r", place, OWN, inner.offers, "me", clock=lambda: inner.now)
        teller.turn()
        said = parse_announcement(data := sock.recv(4096))
        assert data[0] == 224 and said.subscribe and (said.key, said.address, said.weight) == (KEY, OWN, 3)
        teller.withdraw()
        said = parse_announcement(sock.recv(4096))
        assert not said.subscribe and (said.key, said.address, said.routers) == (KEY, OWN, "")


# Signed.


def test_each_datagram_is_signed_with_another_second(inner: Inner) -> None:
    signed: list[tuple[str, bool, int]] = []

    def sign(datagram: bytes, second: int) -> bytes:
        said = parse_announcement(datagram)
        signed.append((said.key, said.subscribe, second))
        return datagram

    with Telling(inner) as telling:
        telling.teller = Teller("r", telling.place, OWN, inner.offers, "me", sign, wall=lambda: 1700.5,
                                clock=lambda: inner.now)  # fmt: skip
        inner.join()
        inner.join(key="bar.com")
        telling.turn()
        inner.leave()
        telling.turn()
        inner.join()
        telling.turn()
        assert signed == [
            (KEY, True, 1700), ("bar.com", True, 1700), (KEY, False, 1701), (KEY, True, 1703)
        ], "a farewell says a second more than it is signed with"  # fmt: skip


def test_seconds_never_run_ahead_of_the_clock(inner: Inner) -> None:
    """Who is ahead is refused as from the future, or, after a restart, as what was said before."""
    stamps: list[tuple[int, int]] = []
    wall = 1700

    def sign(datagram: bytes, second: int) -> bytes:
        stamps.append((second - wall, parse_announcement(datagram).weight))
        return datagram

    with Telling(inner) as telling:
        telling.teller = Teller("r", telling.place, OWN, inner.offers, "me", sign, wall=lambda: wall,
                                clock=lambda: inner.now)  # fmt: skip
        for weight in range(1, 101):
            inner.join(weight=weight)
            inner.now += PAUSE
            telling.turn()
        assert max(ahead for ahead, _ in stamps) <= AHEAD
        wall, inner.now = wall + AHEAD, inner.now + AHEAD
        telling.turn()
        assert stamps[-1][1] == 100, "the last one is said when its second has come"
        inner.leave()
        for _ in range(AHEAD + 1):
            wall, inner.now = wall + 1, inner.now + 1
            telling.turn()
        assert stamps[-1][1] == 0 and telling.weights() == [], "so is the farewell"
        for _ in range(AHEAD + 1):
            wall, inner.now = wall + 1, inner.now + 1
            telling.turn()
        assert not telling.teller._seconds, "nothing is kept of a key that is gone"


@pytest.mark.parametrize("word", ["SHA256:/nowhere/k.pem", "NONE:/nowhere/k.pem"])
def test_what_cannot_sign_is_refused_by_name(word: str) -> None:
    with pytest.raises(ValueError, match=r"^resubscribe-sign: "):
        Resubscribe(["127.0.0.1:1"], ":80", word)
