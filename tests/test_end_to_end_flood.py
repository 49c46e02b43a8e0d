"""A flood of announcements: it stays within its bounds, and neither clients nor other announcers notice it.

Nothing here measures a time; that is `make bench`, case flood.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import announce, ask, request
from discovery.quota import BURST_S, HOST_FACTOR
from flooder import Flooder, compiled
from scripted import HELLO, ScriptedNode, wait_for
from servers import Router, better

pytestmark = pytest.mark.slow  # floods of seconds, which take a CPU

GET = request("foo.com")
SECONDS = 2
QUOTA = 1000  # announcements a second from one socket, the default
KIB_A_NODE = 4  # in all processes together, with a key of its own
SLACK_KIB = 16 * 1024  # what buffers and the asked requests cost


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("flood"))


@contextmanager
def served(router: Router) -> Iterator[None]:
    """One node, known before the flood."""
    with ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        yield


def ask_until_over(router: Router, *floods: Flooder) -> set[bytes]:
    """The answers, each kind once, to requests one after the other while a flood goes on."""
    answers = Counter[bytes]()
    while any(flood.returncode is None for flood in floods):
        answers[ask(router.address, GET)] += 1
    assert answers.total() >= 10  # however slow the machine is
    return set(answers)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Asks a router now and then whether something has come true; its stats are long, and cost it a moment."""
    wait_for(condition, what, timeout=60, sleep=lambda _: time.sleep(0.5))


def nodes(router: Router) -> dict[str, int]:
    """Key → how many nodes it has."""
    return {pool["key"]: len(pool["nodes"]) for pool in router.stats()["subscriptions"]}


def kept(router: Router, flood: Flooder) -> int:
    """How many nodes of a flood are known."""
    known = nodes(router)
    return sum(known.get(key, 0) for key in flood.announced)


def rejected(router: Router) -> int:
    """The announcements that were dropped, for whatever reason."""
    return sum(sum(source["rejected"].values()) for source in router.stats()["sources"])


def lost_on_the_way() -> int:
    """Packets of this machine that the kernel dropped before any socket: on a busy one loopback does so, too."""
    return sum(int(cpu.split()[1], 16) for cpu in Path("/proc/net/softnet_stat").read_text().splitlines())


def await_all_counted(router: Router, flood: Flooder, lost_before: int, others: int = 0) -> None:
    """Waits until each announcement of a flood that came to the router is kept or counted as dropped.

    Of the `others` some may be among the dropped ones.
    """

    def all_counted() -> bool:
        counted = rejected(router) + kept(router, flood)
        assert counted <= flood.sent + others
        return counted + lost_on_the_way() - lost_before >= flood.sent

    eventually(all_counted, "all of the flood to be counted")


def memory(router: Router, field: str) -> int:
    """KiB of all processes: VmRSS, what is resident, or VmHWM, the most that ever was."""
    found = 0
    for pid in (router.pid, *router.pids().values()):
        match = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert match
        found += int(match[1])
    return found


@better("keeps them all, and loses those of others")
@pytest.mark.parametrize("ports", [1, 20])
@pytest.mark.long
def test_a_flood_from_one_address_harms_nobody_else(tools: Path, ports: int) -> None:
    """From many sockets of one address it is found out later, which takes room in the socket's buffer meanwhile."""
    with Router() as router, served(router):
        before, server, lost = memory(router, "VmRSS"), router.subscriptions, lost_on_the_way()
        flood = Flooder(tools, server, rate=100_000, seconds=SECONDS, ports=ports)
        begun = time.monotonic()
        # Workers say it again and again, which matters where the machine has no time to read for a while.
        others = Flooder(tools, server, "other", "127.0.0.20", hosts=20, keys=20, rate=50, seconds=SECONDS)
        with flood, others:
            assert ask_until_over(router, flood, others) == {HELLO}
            grown = memory(router, "VmHWM") - before  # before the stats are read: they cost memory, too
            eventually(lambda: others.announced <= nodes(router).keys(), "what others have announced to be known")
            await_all_counted(router, flood, lost, others.sent)
            # A busy router reads for longer than the flood lasts, and the quota grows meanwhile.
            quota = QUOTA * min(ports, HOST_FACTOR) * (time.monotonic() - begun + BURST_S)
            assert kept(router, flood) <= min(quota, flood.sent / 2)
        assert grown < SLACK_KIB + quota * KIB_A_NODE


@better("has no limits")
@pytest.mark.parametrize(("option", "keys"), [("--max-keys", 0), ("--max-nodes", 0), ("--max-nodes", 10)])
def test_floods_from_many_addresses_end_at_the_limits(tools: Path, option: str, keys: int) -> None:
    with Router(option, "1000") as router, served(router):
        lost = lost_on_the_way()
        with Flooder(tools, router.subscriptions, rate=5000, seconds=SECONDS, hosts=100, keys=keys) as flood:
            assert ask_until_over(router, flood) == {HELLO}
            await_all_counted(router, flood, lost)
            assert kept(router, flood) == 999
            assert "foo.com" in nodes(router)
