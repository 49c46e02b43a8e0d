"""Scenes of the etcd source in a process that gevent has patched, as the supervisor is; test_etcdchannel.py plays them.

python etcd_scenes.py SCENE URL     status 0 where what it asserts holds
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import suppress  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import pytest  # noqa: E402
from greenlet import greenlet  # noqa: E402

from discovery import etcdchannel  # noqa: E402
from discovery.etcd import Etcd  # noqa: E402
from discovery.etcdaccess import read_access  # noqa: E402
from discovery.etcdchannel import Connection, EtcdError, Members, rpc  # noqa: E402
from moves import Moves  # noqa: E402
from router.feed import Feed  # noqa: E402
from router.node import Node  # noqa: E402
from router.table import Table  # noqa: E402
from scripted import freeze, wait_for  # noqa: E402

ESTABLISHED = "01"  # in /proc/net/tcp


def until(condition: Callable[[], object], what: str) -> None:
    wait_for(condition, what, 20, sleep=gevent.sleep)


def connection(url: str) -> Connection:
    access = read_access(url)
    return Connection(access, *access.places[0])


def held() -> tuple[int, int, int]:
    """What this process holds: greenlets that run, threads, descriptors."""
    gc.collect()
    greenlets = sum(issubclass(type(each), greenlet) and not each.dead for each in gc.get_objects())
    return greenlets, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def connected() -> int:
    """How many TCP sockets of ours have a peer; gRPC takes IPv6 ones for IPv4, too."""
    ours = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # of the listing itself
            ours.add(os.readlink(f"/proc/self/fd/{fd}"))
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/self/net/{name}").read_text().splitlines()]
    return sum(row[3] == ESTABLISHED and f"socket:[{row[9]}]" in ours for row in rows)


def run_and_kill(url: str, times: int, ready: Callable[[Feed], bool]) -> None:
    for _ in range(times):
        feed = Table().feed("etcd")
        run = gevent.spawn(Etcd(url).run, feed)
        until(lambda feed=feed, run=run: ready(feed) or run.ready(), "the source to be where it is killed")  # type: ignore[misc]
        assert not run.ready(), run.exception
        began = time.monotonic()
        run.kill()
        assert time.monotonic() - began < 5
        assert feed.error is None


def leaves_nothing(url: str, times: int, ready: Callable[[Feed], bool]) -> None:
    run_and_kill(url, 3, ready)  # what gRPC and gevent keep for good is there then
    before = held()
    run_and_kill(url, times, ready)
    until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), f"{before} again")


def killed_while_it_watches(url: str) -> None:
    leaves_nothing(url, 50, lambda feed: feed.progressed >= 2)  # the list, and the watch's first word


def killed_while_nobody_answers(url: str) -> None:
    leaves_nothing(url, 10, lambda feed: connected() > 0)


def a_killed_run_is_all_there_is(url: str) -> None:
    """No thread of Python's own is left by gRPC: under gevent they are greenlets."""
    run_and_kill(url, 1, lambda feed: feed.spoken)
    until(lambda: threading.active_count() == 1, "only the main thread")


def failed_runs(url: str) -> None:
    """Refused, or answered with rubbish: the error says so, again and again, and leaves nothing behind."""

    def fail() -> None:
        with pytest.raises(EtcdError, match="UNAVAILABLE"):
            Etcd(url).run(Table().feed("etcd"))

    for _ in range(3):
        fail()
    before = held()
    for _ in range(20):
        fail()
    until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), f"{before} again")


def what_was_recalled(url: str) -> None:
    """One node that is still in the list, and two that are not; first while nobody answers."""
    feed = Table().feed("etcd")
    feed.recall({"foo.com": [Node("127.0.0.1:3031"), Node("127.0.0.1:9")], "old.com": [Node("127.0.0.1:9")]}, 1.0)
    moves = Moves(feed._table)
    with pytest.raises(EtcdError):
        Etcd(f"etcd://{os.environ['NOBODY']}").run(feed)
    assert feed.stale_since == 1.0 and moves.left == []
    run = gevent.spawn(Etcd(url).run, feed)
    until(lambda: feed.spoken, "etcd to have listed")
    assert feed.stale_since is None
    assert (moves.joined, sorted(moves.left)) == ([], ["foo.com 127.0.0.1:9", "old.com 127.0.0.1:9"])
    run.kill()


def the_watch_of_a_forgotten_revision(url: str) -> None:
    etcd = connection(url)
    with pytest.raises(EtcdError, match=r"is forgotten \(compaction\)"):
        list(etcd.watch(b"/gfrouter/", 1))
    etcd.close()


def the_watch_that_never_begins(url: str) -> None:
    etcd = connection(f"{url}?timeout=1")
    etcd.begin()
    pid = os.environ["ETCD_PID"]
    freeze(int(pid))
    until(lambda: all(") T " in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")), "etcd to stop")
    with pytest.raises(EtcdError, match="no watch begins"):
        next(etcd.watch(b"/gfrouter/", 1))
    etcd.close()


def pages(url: str) -> None:
    etcdchannel.PAGE, etcdchannel.LARGEST_MESSAGE = 50, 1_000_000
    etcd = connection(url)
    small = list(etcd.pages(b"/pages/"))
    assert [len(page) for page, _ in small] == [50, 50, 20]
    assert [one.key for page, _ in small for one in page] == [b"/pages/%04d" % n for n in range(120)]
    assert len({revision for _, revision in small}) == 1
    assert [len(one.value) for page, _ in etcd.pages(b"/large/") for one in page] == [400_000] * 5
    etcd.close()


def many_sources_and_a_name(url: str) -> None:
    """Each channel takes one of gevent's threads; looking up a name needs one as well."""
    feeds = [Table().feed("etcd") for _ in range(14)]
    runs = [gevent.spawn(Etcd(url).run, feed) for feed in feeds]
    until(lambda: all(feed.spoken for feed in feeds), "all to have listed")
    with gevent.Timeout(10):
        assert socket.getaddrinfo("localhost", 80)
    gevent.killall(runs)
    assert gevent.get_hub().threadpool.maxsize == etcdchannel.THREADS + len(runs)
    assert Connection._open == 0


def logs_in_again(url: str) -> None:
    etcd = connection(url)
    etcd.begin()
    etcd._token = "nobody.1"
    assert [one.key for page, _ in etcd.pages(b"/gfrouter/") for one in page] == [b"/gfrouter/foo.com/127.0.0.1:3031"]
    with pytest.raises(EtcdError, match="PERMISSION_DENIED"):
        etcd.call(etcd.kv.Range, rpc.RangeRequest(key=b"/elsewhere"))
    etcd.close()


def members_in_turn(url: str) -> None:
    """The last place works. Who failed with a connection in hand begins with the next."""
    members = Members(read_access(url))
    host, port = members.access.places[-1]
    with members.connect() as etcd:
        assert etcd.place == f"{host}:{port}"
    began = members._turn
    with pytest.raises(EtcdError, match="later"), members.connect():
        raise EtcdError("later")
    assert members._turn == (began + 1) % len(members.access.places)
    with members.connect() as etcd:
        assert etcd.place == f"{host}:{port}"


def the_environment_is_as_before(url: str) -> None:
    assert not set(etcdchannel.VARIABLES) & set(os.environ)
    assert etcdchannel.VARIABLES["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == "python"
    os.environ["GRPC_VERBOSITY"] = "INFO"
    etcdchannel._load()
    assert os.environ.pop("GRPC_VERBOSITY") == "INFO"


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
