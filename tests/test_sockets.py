"""Which sockets the options ask for: by slot, by name, and what is left of them at the end."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.address import AddressError
from router.configuration import load
from router.handover import Estate
from router.options import Options
from router.sockets import Sockets
from router.systemd import Passed
from servers import free_port

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
ANY = "127.0.0.1:0"


@contextmanager
def asked(passed: Sequence[Passed] = (), **options: Any) -> Iterator[Sockets]:
    """What these options ask for; what is not given here was given by nobody."""
    defaulted = frozenset({"listen", "subscription_server"} - options.keys())
    with ExitStack() as stack:
        yield Sockets(Options(**options, defaulted=defaulted), stack, passed)


def left_by(sockets: Sockets) -> Estate:
    """What an exec leaves of them: descriptors alone."""
    return Estate([replace(held, fd=os.dup(held.fd)) for held in sockets.held])


@contextmanager
def started_anew(estate: Estate, *, trial: bool = False, **options: Any) -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(Options(**options, defaulted=frozenset()), stack, (), estate, trial=trial)
        if not trial:
            estate.close_rest(options.get("vacuum", False))


def names(socks: Sequence[socket.socket]) -> list[Any]:
    return [sock.getsockname() for sock in socks]


# --- by slot ----------------------------------------------------------------------------------------------


def test_one_socket_serves_all_routers(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with asked(listen=(ANY, path), processes=3) as sockets:
        slots = sockets.listeners()
        assert len(slots) == 3
        assert slots[0] == slots[1] == slots[2]
        assert slots[0][1].getsockname() == path


@pytest.mark.parametrize("address", [ANY, "[::1]:0", "localhost:0"])
def test_with_reuse_port_each_router_has_a_socket_of_its_own_on_the_same_port(address: str) -> None:
    with asked(listen=(address,), processes=3, reuse_port=True) as sockets:
        slots = sockets.listeners()
        assert len({listener.fileno() for slot in slots for listener in slot}) == 3
        assert len({listener.getsockname() for slot in slots for listener in slot}) == 1
        assert slots[0][0].getsockname()[1] > 0


def test_with_reuse_port_unix_and_passed_sockets_are_shared_all_the_same(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        listen = (str(tmp_path / "s"), f"@gfrouter-test-{os.getpid()}", f"fd://{theirs.fileno()}")
        with asked(listen=listen, processes=2, reuse_port=True) as sockets:
            first, second = sockets.listeners()
            assert first == second
            assert len(first) == 3


def test_a_shared_socket_is_by_slot_too_and_is_one_listener_however_often_it_is_named() -> None:
    options: dict[str, Any] = {"shared_socket": (ANY, ANY), "listen": ("=1", "=1"), "processes": 2}
    with asked(**options, reuse_port=True) as sockets:
        first, second = sockets.listeners()
        assert (len(first), len(second)) == (1, 1)
        assert first[0] != second[0]
        assert first[0].getsockname() == second[0].getsockname()
    with asked(**options) as sockets:
        first, second = sockets.listeners()
        assert first == second
        assert len(first) == 1


def test_the_one_process_needs_no_second_socket() -> None:
    with asked(listen=(ANY,), reuse_port=True) as sockets:
        assert [len(slot) for slot in sockets.listeners()] == [1]


@pytest.mark.parametrize("listen", [ANY, "127.0.0.1:{}", ":{}"])
@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 1), (1, 3)])
def test_over_a_new_start_each_router_has_one_again(listen: str, before: int, after: int) -> None:
    listen = listen.format(free_port())
    with asked(listen=(listen,), processes=before, reuse_port=True) as sockets:
        slots, estate = sockets.listeners(), left_by(sockets)
        with started_anew(estate, listen=(listen,), processes=after, reuse_port=True) as anew:
            now = [slot[0] for slot in anew.listeners()]
            assert len({one.fileno() for one in now}) == after
            assert {one.getsockname() for one in now} == {slots[0][0].getsockname()}
            assert len(estate.held) == max(0, before - after), "nobody accepts what the others would be given"
            assert [held.fd for held in anew.held] == [one.fileno() for one in now]


def test_without_reuse_port_now_one_serves_all_and_what_had_none_serves_all_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for before, after in ((True, False), (False, True)):
        with asked(listen=(ANY,), processes=2, reuse_port=before) as sockets:
            sockets.listeners()
            with started_anew(left_by(sockets), listen=(ANY,), processes=2, reuse_port=after) as anew:
                first, second = anew.listeners()
                assert first == second
    assert "as it was bound without reuse-port" in caplog.text


def test_a_trial_binds_no_socket_that_would_be_given_connections() -> None:
    with asked(listen=(ANY,), reuse_port=True) as sockets:
        sockets.listeners()
        with started_anew(left_by(sockets), trial=True, listen=(ANY,), processes=3, reuse_port=True) as trial:
            assert len({slot[0].fileno() for slot in trial.listeners()}) == 1


def backlog(listener: socket.socket) -> int:
    return int.from_bytes(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28:32], sys.byteorder)


def test_a_trial_leaves_no_trace_and_a_start_takes_everything(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with asked(listen=(ANY, str(old)), subscription_server=(ANY,), backlog=7) as sockets:
        ((tcp, _),) = sockets.listeners()
        sockets.subscription_servers()
        estate = left_by(sockets)
        fds = {held.fd for held in estate.held}
        options: dict[str, Any] = {"listen": (ANY, str(old), str(new)), "subscription_server": (ANY,), "backlog": 9}
        options["vacuum"] = True
        with started_anew(
            Estate([replace(held, fd=os.dup(held.fd)) for held in estate.held]), trial=True, **options
        ) as trial:
            trial.listeners()
            trial.subscription_servers()
        assert (backlog(tcp), sorted(os.listdir(tmp_path))) == (7, ["old"])
        with started_anew(estate, **options) as anew:
            assert {one.fileno() for one in [*anew.listeners()[0], *anew.subscription_servers()]} > fds
            assert (backlog(tcp), sorted(os.listdir(tmp_path))) == (9, ["new", "old"])
        assert os.listdir(tmp_path) == []


def test_freebind_is_for_every_socket() -> None:
    elsewhere = "203.0.113.1:0"  # RFC 5737
    with asked(listen=(elsewhere,), subscription_server=(elsewhere,), stats=elsewhere, freebind=True) as sockets:
        stats = sockets.stats()
        assert stats
        found = [*names(sockets.listeners()[0]), *names(sockets.subscription_servers()), stats.getsockname()]
        assert {host for host, _ in found} == {"203.0.113.1"}


# --- files ------------------------------------------------------------------------------------------------


def all_on_paths(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "listen": (str(folder / "requests"), "=0"),
        "shared_socket": (str(folder / "shared"),),
        "subscription_server": (str(folder / "announcements"),),
        "stats": str(folder / "stats"),
        **options,
    }


FILES = ["announcements", "requests", "shared", "stats"]


def bind_all(sockets: Sockets) -> None:
    sockets.listeners()
    sockets.subscription_servers()
    sockets.stats()


def test_mode_and_owner_are_for_all_unix_sockets(tmp_path: Path) -> None:
    owner = (7, 8) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    with asked(**all_on_paths(tmp_path, chmod_socket=0o640, chown_socket=owner)) as sockets:
        bind_all(sockets)
        found = {path.name: path.stat() for path in tmp_path.iterdir()}
        assert sorted(found) == FILES
        assert {stat.S_IMODE(one.st_mode) for one in found.values()} == {0o640}
        assert {(one.st_uid, one.st_gid) for one in found.values()} == {owner}


@pytest.mark.parametrize(("vacuum", "left"), [(True, []), (False, FILES)])
def test_vacuum_is_for_all_unix_sockets(tmp_path: Path, vacuum: bool, left: list[str]) -> None:
    with asked(**all_on_paths(tmp_path, vacuum=vacuum)) as sockets:
        bind_all(sockets)
        assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_vacuum_leaves_what_another_has_bound_since(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as theirs:
        with asked(listen=(str(path),), vacuum=True) as sockets:
            sockets.listeners()
            path.rename(tmp_path / "old")  # keeps the inode in use, so that the next one is another
            theirs.bind(str(path))
        assert path.is_socket()


def test_vacuum_leaves_what_was_passed_on_to_whoever_passed_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        with asked(listen=(f"fd://{theirs.fileno()}",), vacuum=True) as sockets:
            sockets.listeners()
        assert path.is_socket()


def test_what_is_bound_already_when_another_fails_is_closed_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.listdir("/proc/self/fd")
    with pytest.raises(AddressError), asked(listen=(str(path), "/no/s"), vacuum=True) as sockets:
        sockets.listeners()
    assert not path.exists()
    assert os.listdir("/proc/self/fd") == before


# --- passed by systemd ------------------------------------------------------------------------------------


@contextmanager
def from_systemd(*wanted: tuple[str, int]) -> Iterator[list[Passed]]:
    """Bound sockets of these names and kinds, as `passed_sockets` tells of them."""
    with ExitStack() as stack:
        found = []
        for name, kind in wanted:
            sock = stack.enter_context(socket.socket(type=kind))
            sock.bind(("127.0.0.1", 0))
            found.append(Passed(sock.fileno(), name, kind))
        yield found


def port_of(one: Passed) -> int:
    with socket.socket(fileno=os.dup(one.fd)) as sock:
        return int(sock.getsockname()[1])


def ports(socks: Sequence[socket.socket]) -> list[int]:
    return [sock.getsockname()[1] for sock in socks]


def test_a_name_means_all_the_sockets_that_have_it() -> None:
    with from_systemd(("web", STREAM), ("other", STREAM), ("web", STREAM), ("web", DATAGRAM)) as passed:
        with asked(passed, listen=("fd://web",), subscription_server=("fd://web",)) as sockets:
            assert ports(sockets.listeners()[0]) == [port_of(passed[0]), port_of(passed[2])]
            assert ports(sockets.subscription_servers()) == [port_of(passed[3])]
            assert sockets.unused() == [passed[1]]


def test_where_no_address_was_given_what_no_option_names_is_used() -> None:
    with from_systemd(("web", STREAM), ("stats", STREAM), ("sub", DATAGRAM), ("shared", STREAM)) as passed:
        shared = f"fd://{passed[3].fd}"
        with asked(passed, stats="fd://stats", shared_socket=(shared,)) as sockets:
            assert ports(sockets.listeners()[0]) == [port_of(passed[0])]
            assert ports(sockets.subscription_servers()) == [port_of(passed[2])]
            stats = sockets.stats()
            assert stats
            assert ports([stats]) == [port_of(passed[1])]
            assert sockets.unused() == []


def test_of_a_kind_that_nobody_passed_the_default_stands() -> None:
    with from_systemd(("web", STREAM)) as passed, asked(passed) as sockets:
        assert sockets._addresses("subscription_server", ("127.0.0.1:2626",), DATAGRAM) == ["127.0.0.1:2626"]


def test_an_address_that_was_given_is_not_replaced() -> None:
    with from_systemd(("web", STREAM)) as passed, asked(passed, listen=(ANY,)) as sockets:
        assert ports(sockets.listeners()[0]) != [port_of(passed[0])]
        assert sockets.unused() == passed


def test_a_number_uses_what_systemd_passed_as_well() -> None:
    with from_systemd(("web", STREAM)) as passed:
        with asked(passed, listen=(f"fd://{passed[0].fd}",)) as sockets:
            sockets.listeners()
            assert sockets.unused() == []


def test_a_name_that_was_not_passed_is_said_with_those_that_were() -> None:
    with from_systemd(("web", STREAM), ("sub", DATAGRAM)) as passed:
        for options, message in (
            (
                {"listen": ("fd://sub",)},
                "cannot bind 'fd://sub': systemd has passed no stream socket under that name "
                "(it has passed: web (stream), sub (datagram))",
            ),
            (
                {"subscription_server": ("fd://web",), "listen": (ANY,)},
                "cannot bind 'fd://web': systemd has passed no datagram socket under that name "
                "(it has passed: web (stream), sub (datagram))",
            ),
        ):
            assert refusal(passed, options) == message
    assert refusal([], {"stats": "fd://stats", "listen": (ANY,), "subscription_server": (ANY,)}) == (
        "cannot bind 'fd://stats': systemd has passed no stream socket under that name (it has passed: none)"
    )


def test_a_number_that_the_kernel_gave_to_a_socket_of_ours_was_not_passed() -> None:
    with asked(listen=(ANY,)) as sockets:
        (listener,) = sockets.listeners()[0]
        free = listener.fileno()
    listen = (ANY, f"fd://{free}")
    assert refusal([], {"listen": listen}) == f"cannot bind 'fd://{free}': descriptor {free} is not open"


def test_a_descriptor_has_one_use_and_is_one_listener_by_whatever_name() -> None:
    with from_systemd(("web", STREAM)) as passed:
        (web,) = passed
        with asked(passed, listen=(f"fd://{web.fd}", "fd://web")) as sockets:
            assert [len(slot) for slot in sockets.listeners()] == [1]
        twice = {"listen": (f"fd://{web.fd}",), "stats": f"fd://{web.fd}"}
        assert refusal(passed, twice) == f"cannot bind 'fd://{web.fd}': descriptor {web.fd} has a use already"


def test_what_can_be_one_socket_only_is_not_given_two() -> None:
    with from_systemd(("web", STREAM), ("web", STREAM)) as passed:
        message = "cannot bind 'fd://web': 2 sockets have that name, and there can be only one"
        others = {"listen": (ANY,), "subscription_server": (ANY,)}
        assert refusal(passed, {**others, "stats": "fd://web"}) == message
        assert refusal(passed, {**others, "shared_socket": ("fd://web",), "listen": ("=0",)}) == message


def refusal(passed: Sequence[Passed], options: dict[str, Any]) -> str:
    with pytest.raises(AddressError) as caught, asked(passed, **options) as sockets:
        bind_all(sockets)
    return str(caught.value)


def test_the_options_of_a_command_line_come_here_as_they_are(tmp_path: Path) -> None:
    words = f"--listen {tmp_path}/s --subscription-server {ANY} --chmod-socket=606 --vacuum"
    with ExitStack() as stack:
        sockets = Sockets(load(words.split(), {})[0], stack, ())
        sockets.listeners()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o606
    assert not (tmp_path / "s").exists()


def test_a_trial_takes_nothing_away(tmp_path: Path) -> None:
    left = tmp_path / "worker-1.sock", tmp_path / "worker-1.ini"
    for trial in (True, False):
        for path in left:
            path.touch()
        with ExitStack() as stack:
            Sockets(Options(), stack, (), trial=trial).worker(str(tmp_path / "worker-2.sock"))
        assert [*map(Path.exists, left)] == [trial, trial]
        assert not (tmp_path / "worker-2.sock").exists()
