"""The counts by which a signed datagram that was overheard is told from a new one."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from discovery.replays import Replays

APP, OTHER = ("foo.com", "10.0.0.5:3031"), ("foo.com", "10.0.0.6:3031")


def accepts(
    replays: Replays, unix: int, subscribe: bool = True, place: tuple[str, str] = APP, owner: str = "o"
) -> bool:
    if replays.repeats(owner, place, subscribe, unix):
        return False
    replays.note(owner, place, subscribe, unix)
    return True


def test_what_was_accepted_is_so_once_and_what_is_older_never() -> None:
    replays = Replays(0)
    assert [accepts(replays, unix) for unix in (100, 100, 99, 101, 110, 109, 110)] == [
        *(True, False, False, True, True, False, False)
    ]


def test_an_announcement_makes_no_farewell() -> None:
    replays = Replays(0)
    assert accepts(replays, 100)
    assert not accepts(replays, 100, subscribe=False)
    assert not accepts(replays, 99, subscribe=False)
    assert accepts(replays, 101, subscribe=False)
    assert not accepts(replays, 101, subscribe=False)


def test_a_worker_that_restarts_within_its_last_second_is_taken() -> None:
    """It says farewell at 110, stamped 111, and is there again at once, or a second later."""
    for back in (110, 111, 112):
        replays = Replays(0)
        assert accepts(replays, 100)
        assert accepts(replays, 111, subscribe=False)
        assert accepts(replays, back)
        assert not accepts(replays, back)
        assert not accepts(replays, 111, subscribe=False)
        assert not accepts(replays, 100)


def test_after_a_farewell_nothing_older_is_taken() -> None:
    replays = Replays(0)
    assert accepts(replays, 100)
    assert accepts(replays, 111, subscribe=False)
    assert not accepts(replays, 109)  # it may have been lost on its way, and overheard


def test_a_farewell_from_before_the_start_is_refused() -> None:
    replays = Replays(since=105)
    assert accepts(replays, 100)
    assert not accepts(replays, 105, subscribe=False)
    assert accepts(replays, 106, subscribe=False)


def test_places_and_owners_count_each_for_itself() -> None:
    replays = Replays(0)
    assert accepts(replays, 100)
    assert accepts(replays, 100, place=OTHER)
    assert accepts(replays, 100, owner="p")


SAID = st.tuples(st.sampled_from("ab"), st.sampled_from("cdefgh"), st.booleans(), st.integers(1, 60))


@given(st.lists(SAID, max_size=60), st.integers(2, 5), st.integers(0, 60), st.integers(0, 60))
def test_nothing_is_accepted_twice_whatever_is_forgotten_or_kept_in_a_file(
    said: list[tuple[str, str, bool, int]], most: int, forget_at: int, restart_at: int
) -> None:
    """A naive model: the same place, command and second never again; and no farewell of an announcement's second.

    What is older than `before` is refused by its age, as admission.py does.
    """
    replays, accepted, before = Replays(0, most), set(), 0
    for number, (owner, address, subscribe, unix) in enumerate(said):
        if number == forget_at:
            before = 20
            for _ in range(2):
                replays.forget(before)
        if number == restart_at:
            memory = json.loads(json.dumps(replays.remember(before)))
            replays = Replays(0, most)
            replays.recall(memory, 60)
        if unix < before:
            continue
        if accepts(replays, unix, subscribe, ("key", address), owner):
            assert (owner, address, subscribe, unix) not in accepted
            if not subscribe:
                assert (owner, address, True, unix) not in accepted
            accepted.add((owner, address, subscribe, unix))
        assert len(replays) <= most


def test_who_signs_for_ever_new_addresses_pushes_out_nobody_elses_count_nor_makes_a_hole_in_its_own() -> None:
    replays = Replays(0, most=20)
    assert accepts(replays, 100, owner="victim")
    for number in range(200):
        assert accepts(replays, 1000 + number, place=("evil.com", str(number)), owner="evil")
    assert len(replays) <= 20
    assert not accepts(replays, 100, owner="victim")
    assert not any(
        accepts(replays, 1000 + number, place=("evil.com", str(number)), owner="evil") for number in range(200)
    )
    assert accepts(replays, 101, owner="victim")
    assert accepts(replays, 1300, place=("evil.com", "new"), owner="evil")


def test_what_a_floor_refuses_a_farewell_does_not_make_good() -> None:
    replays = Replays(0, most=1)
    assert accepts(replays, 100)
    assert accepts(replays, 200, place=OTHER)  # there was room for one: the floor is 100
    assert accepts(replays, 101, subscribe=False)
    assert not accepts(replays, 100)


def test_what_the_age_refuses_anyway_is_forgotten() -> None:
    replays = Replays(0)
    accepts(replays, 100)
    accepts(replays, 200, place=OTHER, owner="p")
    for _ in range(3):
        replays.forget(150)
    assert len(replays) == 1
    assert replays.remember(0) == {"unix": [["p", *OTHER, 200, 0]], "floors": []}
    replays.forget(200)  # of that age it may come again
    assert len(replays) == 1
    assert replays.remember(200)["unix"] == [["p", *OTHER, 200, 0]]
    assert replays.remember(201) == {"unix": [], "floors": []}


def test_garbage_in_memory_is_ignored() -> None:
    replays = Replays(0)
    hostile: list[object] = [
        None,
        [],
        {"unix": 5, "floors": {}},
        {"unix": [1, [], ["o", *APP, -1, 0], ["o", *APP, 1, 999]]},
    ]
    for memory in hostile:
        replays.recall(memory, 200)
    replays.recall({"floors": [["o", 999], ["o", "x"], 5], "unix": [["o", *APP, 150, 0], ["o", 5, "x", 1, 1]]}, 200)
    assert len(replays) == 1
    assert not accepts(replays, 150)
    assert accepts(replays, 151, subscribe=False)
    assert accepts(replays, 1, place=OTHER)
