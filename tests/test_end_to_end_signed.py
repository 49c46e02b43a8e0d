"""Signed announcements end to end: real workers that sign, and the same packets to gfrouter and the real fastrouter."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from announced import SUBSCRIBE, UNSUBSCRIBE, packet
from clients import ask, datagram, request
from discovery import signing
from scripted import ScriptedNode, answer, wait_for
from servers import SIGNING_UWSGI, Process, Router, Worker, free_address, needs_signing
from signed import EC, PRIVATE, RSA, STRANGER, keys, private
from test_admission import as_farewell

SHA256 = signing.digest_named("SHA256")
NODE = "127.0.0.1:1"


@needs_signing
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "processes"), [(RSA, 4), (EC, 1)])
def test_a_real_worker_that_signs_is_served_by_every_process_and_leaves(
    tmp_path: Path, kind: str, processes: int
) -> None:
    """With four processes the real fastrouter closes such requests: the signature is checked there by one alone."""
    check, sign = f"SHA1:{keys(tmp_path, kind=kind)}", f"SHA1:{private(tmp_path, kind)}"
    with Router(processes=processes, subscriptions_sign_check=check) as router:
        with Worker(router.subscriptions, sign=sign) as worker:
            router.wait_for_nodes("foo.com", 1)
            for _ in range(20):
                assert b"200 OK" in ask(router.address, request("foo.com"))
            worker.stop()
            router.wait_line(rf"foo\.com => marking {worker.address} as failed$")
        assert router.nodes("foo.com") == {}
        router.stop()
        assert not router.line("dropped|sniffed")


@needs_signing
@pytest.mark.slow
def test_a_real_worker_signs_for_two_keys_at_two_servers_and_restarts_at_once(tmp_path: Path) -> None:
    folder, sign = keys(tmp_path, "foo.com", "bar.com"), f"SHA256:{private(tmp_path)}"
    with (
        Router(subscriptions_sign_check=f"SHA256:{folder}") as one,
        Router(subscriptions_sign_check=f"SHA256:{folder}") as two,
    ):
        more = [("--subscribe-to", f"{router.subscriptions}:bar.com,0,{sign}") for router in (one, two)]
        options = (*more[0], *more[1], "--subscribe2", f"server={two.subscriptions},key=foo.com,sign={sign}")
        address = free_address()
        for _ in range(2):
            with Worker(one.subscriptions, address=address, sign=sign, options=options) as worker:
                for router in one, two:
                    for key in "foo.com", "bar.com":
                        wait_for(lambda r=router, k=key: r.nodes(k), f"{key}", 8)  # type: ignore[misc]
                worker.stop()


def test_credentials_stand_in_the_stats(tmp_path: Path) -> None:
    with (
        Router(subscriptions_use_credentials=True, subscriptions=str(tmp_path / "s.sock")) as router,
        ScriptedNode(answer(b"A")) as node,
    ):
        datagram(router.subscriptions, packet(address=node.address))
        (known,) = router.wait_for_nodes("foo.com", 1).values()
        assert (known["uid"], known["gid"]) == (
            (tmp_path / "s.sock").stat().st_uid,
            (tmp_path / "s.sock").stat().st_gid,
        )
        assert known["pid"] > 0


def test_a_restart_after_a_kill_refuses_what_was_overheard(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "subscriptions_sign_check": f"SHA256:{keys(tmp_path)}",
        "state_file": str(tmp_path / "state"),
        "subscriptions": free_address(),
    }
    with Router(**options) as router:
        now = int(time.time())
        said, farewell = signed(now), signed(now + 1, UNSUBSCRIBE)
        datagram(router.subscriptions, said)
        router.wait_for_nodes("foo.com", 1)
        datagram(router.subscriptions, farewell)
        router.wait_for_nodes("foo.com", 0)
        counts = re.compile(rf"{now}, *{now + 2}\]")  # of the announcement and of the farewell
        wait_for(lambda: counts.search((tmp_path / "state").read_text()), "the farewell to be remembered")
        router.kill()
    with Router(**options) as router:
        datagram(router.subscriptions, said)
        router.wait_line("dropped, said before")
        assert router.nodes("foo.com") == {}


def signed(unix: int, command: int = SUBSCRIBE, key: str = "foo.com", kind: str = RSA) -> bytes:
    datagram = packet(command, key=key, address=NODE)
    return signing.sign(datagram, SHA256, signing.private_key(PRIVATE[kind]), unix)


def scenes(now: int) -> dict[str, tuple[list[bytes], bool, bool]]:
    """By key: what is said of it, and whether its node is served then by the fastrouter, and by gfrouter."""

    def said(key: str) -> dict[str, list[bytes]]:
        first, later = signed(now + 10, key=key), signed(now + 20, key=key)
        farewell = signed(now + 14, UNSUBSCRIBE, key=key)
        return {
            "valid": [first, later],
            "unsigned": [packet(key=key, address=NODE)],
            "forged": [signed(now, key=key, kind=STRANGER)],
            "other-kind": [signed(now, key=key, kind=EC)],
            "tampered": [first.replace(b"127.0.0.1", b"127.0.0.2").replace(b"127.0.0.2", b"127.0.0.3")],
            "stale": [signed(now - 90_000, key=key)],
            "sign-not-last": [first + b"\1\0x\0\0"],
            "left": [first, farewell],
            "forged-farewell": [first, signed(now + 14, UNSUBSCRIBE, key=key, kind=STRANGER)],
            "unsigned-farewell": [first, packet(UNSUBSCRIBE, key=key, address=NODE)],
            "back-within-its-last-second": [first, farewell, signed(now + 14, key=key)],
            "future": [signed(now + 90_000, key=key)],
            "again-when-it-has-left": [first, farewell, first],
            "made-a-farewell": [first, later, as_farewell(later)],
            "farewell-again": [first, farewell, later, farewell],
        }

    same = dict.fromkeys(("valid", "forged-farewell", "unsigned-farewell", "back-within-its-last-second"), (True, True))
    better = {
        "future": (True, False),
        "again-when-it-has-left": (True, False),
        "made-a-farewell": (False, True),
        "farewell-again": (False, True),
    }
    return {key: (said(key)[key], *(same | better).get(key, (False, False))) for key in said("")}


@needs_signing
@pytest.mark.slow
def test_each_packet_has_the_fastrouters_outcome_or_a_better_one(tmp_path: Path) -> None:
    check = f"SHA256:{keys(tmp_path, *scenes(0), 'last')}"
    served: list[dict[str, bool]] = []
    real = {"listen": free_address(), "subscriptions": free_address(), "stats": free_address()}
    with (
        Process(
            *(SIGNING_UWSGI, "--master", "--fastrouter", real["listen"]),
            *("--fastrouter-subscription-server", real["subscriptions"], "--fastrouter-stats", real["stats"]),
            *("--subscriptions-sign-check", check),
        ) as theirs,
        Router(subscriptions_sign_check=check) as ours,
    ):
        theirs.wait_line("stats server enabled on")
        every = scenes(int(time.time()))
        for router in Reader(real["subscriptions"], real["stats"]), Reader(ours.subscriptions, ours.stats_address):
            for packets, _, _ in every.values():
                for each in packets:
                    datagram(router.subscriptions, each)
            datagram(router.subscriptions, signed(int(time.time()), key="last"))
            wait_for(lambda router=router: router.nodes("last"), "the last packet to be taken")  # type: ignore[misc]
            served.append({key: bool(router.nodes(key)) for key in every})
    assert served == [
        {key: theirs for key, (_, theirs, _) in every.items()},
        {key: ours for key, (_, _, ours) in every.items()},
    ]


class Reader(Router):
    """What can be asked of a router that something else has started."""

    def __init__(self, subscriptions: str, stats_address: str) -> None:
        self.subscriptions, self.stats_address = subscriptions, stats_address
