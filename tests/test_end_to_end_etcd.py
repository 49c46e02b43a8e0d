"""gfrouter with etcd as its source: a real etcd that changes, dies, freezes, forgets and asks for passwords."""

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from clients import Load, announce, ask, request
from etcd_server import Etcd, make_certificates, needs_etcd, needs_openssl, peer_url
from scripted import NodeConnection, ScriptedNode, answer, hang, wait_for
from servers import Nginx, Router, Worker, free_address, needs_nginx

pytestmark = needs_etcd

NOBODY = "127.0.0.1:9"  # workers that do not announce themselves to the router send it there


def named(name: str) -> ScriptedNode:
    """A node that answers with its name; Load takes the header for a worker's."""
    body = name.encode()
    head = b"HTTP/1.1 200 OK\r\nX-Worker: %s\r\nContent-Length: %d\r\n\r\n" % (body, len(body))
    return ScriptedNode(answer(head + body))


def served(router: Router, key: str = "foo.com") -> str:
    """Who answers a request for this key; "" where there is no node."""
    return ask(router.address, request(key)).rpartition(b"\r\n\r\n")[2].decode()


def entry(node: str, key: str = "foo.com") -> str:
    return f"/gfrouter/{key}/{node.replace('/', '%2F')}"


def failures(router: Router) -> int:
    """How often a source was started afresh; the log does not have each time."""
    return sum(source["restarts"] for source in router.stats()["sources"])


def processor_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.fixture(scope="module")
def shared() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server


@pytest.fixture
def etcd(shared: Etcd) -> Etcd:
    """One that runs and is empty below the prefix."""
    shared.delete("/gfrouter/", b"/gfrouter0")
    return shared


@pytest.mark.slow
def test_entries_come_change_and_go(etcd: Etcd) -> None:
    etcd.put(entry("127.0.0.1:3031"), {"weight": 3, "modifier1": 9})
    with Router(discovery=f"etcd://{etcd.address}") as router:
        assert router.wait_for_nodes("foo.com", 1)["127.0.0.1:3031"]["modifier1"] == 9
        etcd.put(entry("/run/app.sock"), {"backup": 1, "modifier2": 2})
        assert router.wait_for_nodes("foo.com", 2)["/run/app.sock"]["modifier2"] == 2
        etcd.put(entry("127.0.0.1:3031"), {"weight": 5})
        wait_for(lambda: router.nodes("foo.com")["127.0.0.1:3031"]["weight"] == 5, "the new weight")
        etcd.put("/gfrouter/b%C3%BCcher.de%2Fapp/127.0.0.1%3A3032")
        router.wait_for_nodes("bücher.de/app", 1)
        etcd.delete(entry("/run/app.sock"))
        router.wait_for_nodes("foo.com", 1)
        etcd.delete("/gfrouter/", b"/gfrouter0")
        router.wait_for_nodes("foo.com", 0)
        router.wait_for_nodes("bücher.de/app", 0)
        assert failures(router) == 0
        for pid in (router.pid, router.pids()[1]):
            assert b"PROTOCOL_BUFFERS" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert router.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_node_lives_as_long_as_its_lease(etcd: Etcd) -> None:
    with Router(discovery=f"etcd://{etcd.address}") as router:
        etcd.put(entry("127.0.0.1:3031"), lease=etcd.grant(60))
        etcd.put(entry("127.0.0.1:3032"), lease=etcd.grant(1))
        revoked = etcd.grant(60)
        etcd.put(entry("127.0.0.1:3033"), lease=revoked)
        assert "127.0.0.1:3032" in router.wait_for_nodes("foo.com", 3)
        etcd.revoke(revoked)
        assert list(router.wait_for_nodes("foo.com", 1)) == ["127.0.0.1:3031"]


def test_a_malformed_entry_costs_itself_alone(etcd: Etcd) -> None:
    etcd.put(entry("127.0.0.1:3031"))
    etcd.put(entry("127.0.0.1:3032"), b"rubbish")
    etcd.put(b"/gfrouter/foo.com/\xff")
    with Router(discovery=f"etcd://{etcd.address}") as router:
        router.wait_for_nodes("foo.com", 1)
        assert router.line(r"dropped, bad value: '/gfrouter/foo.com/127.0.0.1:3032': no JSON")
        assert router.line(r"dropped, bad key: '/gfrouter/foo.com/\\xff': the address is not UTF-8")
        etcd.put(entry("127.0.0.1:3032"))
        router.wait_for_nodes("foo.com", 2)
        etcd.put(entry("127.0.0.1:3031"), {"weight": True})
        assert list(router.wait_for_nodes("foo.com", 1)) == ["127.0.0.1:3032"]
        etcd.put(entry("nowhere:0"))
        etcd.put(entry("127.0.0.1:3033"))
        assert "127.0.0.1:3033" in router.wait_for_nodes("foo.com", 2)
        assert router.line(r"dropped, bad node address: .*nowhere:0")
        assert failures(router) == 0


@pytest.mark.slow
def test_a_change_is_served_at_once(etcd: Etcd) -> None:
    with Router(discovery=f"etcd://{etcd.address}") as router, named("a") as a, named("b") as b:
        etcd.put(entry(a.address))
        wait_for(lambda: served(router) == "a", "the node")
        waits = []
        for now, then in ((b, a), (a, b)) * 10:
            began = time.monotonic()
            etcd.put(entry(now.address))
            etcd.delete(entry(then.address))
            wait_for(lambda name="b" if now is b else "a": served(router) == name, "the new node")  # type: ignore[misc]
            waits.append(time.monotonic() - began)
        print(f"from change to served: {sorted(waits)[10] * 1000:.0f} ms typically, {max(waits) * 1000:.0f} at most")


@needs_nginx
@pytest.mark.slow
@pytest.mark.long
def test_what_befalls_etcd_costs_no_request() -> None:
    with Etcd() as etcd, Router(discovery=f"etcd://{etcd.address}?timeout=1") as router, Nginx(router.address) as nginx:
        with Worker(NOBODY) as first, named("second") as second, named("third") as third:
            etcd.put(entry(first.address))
            router.wait_for_nodes("foo.com", 1)
            with Load(nginx.port) as load:
                load.more(50, first.name)
                etcd.kill()
                router.wait_line("UNAVAILABLE.*trying again in")
                load.more(100)
                etcd.restart()
                etcd.put(entry(second.address))
                load.more(20, "second")
                assert sorted(router.nodes("foo.com")) == sorted((first.address, second.address))

                etcd.freeze()
                before = failures(router)
                wait_for(lambda: failures(router) > before, "the frozen etcd to be noticed", 40)
                load.more(100)
                etcd.thaw()
                etcd.delete(entry(second.address))
                router.wait_for_nodes("foo.com", 1, 40)
                load.more(50)

                # The empty etcd is believed; who announces himself stays.
                announce(router.subscriptions, "foo.com", third.address)
                load.more(20, "third")
                etcd.restart(empty=True)
                assert list(router.wait_for_nodes("foo.com", 1, 40)) == [third.address]
                load.more(50)
                etcd.put(entry(first.address))
                load.more(20, first.name)
            assert load.failures == []


@pytest.mark.slow
def test_it_goes_on_with_the_next_place_when_one_dies(etcd: Etcd) -> None:
    """Two that are no cluster, so that it can be seen which one is asked."""
    etcd.put(entry("127.0.0.1:3032"))
    with Etcd() as other:
        other.put(entry("127.0.0.1:3031"))
        with Router(discovery=f"etcd://{free_address()},{other.address},{etcd.address}") as router:
            assert list(router.wait_for_nodes("foo.com", 1)) == ["127.0.0.1:3031"]
            assert failures(router) == 0
            other.kill()
            wait_for(lambda: list(router.nodes("foo.com")) == ["127.0.0.1:3032"], "the other one's node")


@pytest.mark.slow
@pytest.mark.long
def test_a_member_without_a_leader_is_left_for_another() -> None:
    """Of a cluster of two one dies; the other lives, answers pings, and could show only what was."""
    peers = {name: peer_url() for name in ("a", "b")}
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        starts = [pool.submit(Etcd, name=name, cluster=peers) for name in peers]
        first, second = (stack.enter_context(start.result()) for start in starts)
        first.put(entry("127.0.0.1:3031"))
        router = stack.enter_context(Router(discovery=f"etcd://{first.address}?timeout=1"))
        router.wait_for_nodes("foo.com", 1)
        second.kill()
        router.wait_line("no leader|NO LEADER", 40)
        assert len(router.nodes("foo.com")) == 1
        second.restart()
        second.put(entry("127.0.0.1:3032"))
        router.wait_for_nodes("foo.com", 2, 40)


def rubbish(connection: NodeConnection) -> None:
    connection.read()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" * 20)


@pytest.mark.slow
def test_places_that_are_no_etcd_hurt_nobody(etcd: Etcd) -> None:
    etcd.put(entry("127.0.0.1:3031"))
    with ScriptedNode(hang) as silent, ScriptedNode(rubbish) as talker:
        urls = [f"etcd://{silent.address}?timeout=1", f"etcd://{talker.address}", f"etcd://{free_address()}"]
        with Router(discovery=[*urls, f"etcd://{etcd.address}"]) as router:
            router.wait_for_nodes("foo.com", 1)
            for url in urls:
                place = url.removeprefix("etcd://").partition("?")[0]
                router.wait_line(rf"etcd@{place}/gfrouter: EtcdError: .*(UNAVAILABLE|DEADLINE).*trying again in")
            began = processor_seconds(router.pid)
            before = failures(router)
            wait_for(lambda: failures(router) >= before + 3, "more attempts", 60)
            assert processor_seconds(router.pid) - began < 3
            assert router.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_it_starts_without_etcd_and_uses_it_as_soon_as_it_is_there() -> None:
    with Etcd() as etcd:
        etcd.put(entry("127.0.0.1:3031"))
        etcd.kill()
        with Router(discovery=f"etcd://{etcd.address}", warm_timeout=5) as router, named("a") as node:
            announce(router.subscriptions, "bar.com", node.address)
            wait_for(lambda: served(router, "bar.com") == "a", "the announced node")
            router.wait_line("Connection refused.*trying again in")
            began, before = processor_seconds(router.pid), time.monotonic()
            wait_for(lambda: time.monotonic() - before > 3, "three seconds without etcd")
            assert processor_seconds(router.pid) - began < 1
            etcd.restart()
            router.wait_for_nodes("foo.com", 1, 40)


@pytest.mark.slow
def test_after_a_pause_in_which_all_was_compacted_it_lists_again(etcd: Etcd) -> None:
    etcd.put(entry("127.0.0.1:3031"))
    with Router(discovery=f"etcd://{etcd.address}") as router:
        router.wait_for_nodes("foo.com", 1)
        router.send_signal(signal.SIGSTOP)
        for _ in range(300):  # more, in number and size, than etcd and the kernel keep for one who does not read
            etcd.put(entry("127.0.0.1:3032"), b" " * 40_000)
        etcd.delete(entry("127.0.0.1:3031"))
        etcd.put(entry("127.0.0.1:3032"))
        etcd.compact()
        router.send_signal(signal.SIGCONT)
        wait_for(lambda: list(router.nodes("foo.com")) == ["127.0.0.1:3032"], "what holds now", 40)
        router.wait_line(r"is forgotten \(compaction\); trying again")


@pytest.mark.slow
def test_a_user_and_a_password(tmp_path: Path) -> None:
    with Etcd() as etcd:
        etcd.put(entry("127.0.0.1:3031"))
        password = tmp_path / "password"
        password.write_text("falsch\n")
        url = f"etcd://bob@{etcd.address}?password-file={password}"
        with Router(discovery=[url, f"etcd://{etcd.address}/elsewhere"]) as router:
            router.wait_for_nodes("foo.com", 1)  # nobody is asked for a password yet
            etcd.enable_auth("bob", "geheim", b"/gfrouter/")
            etcd.restart()
            router.wait_line("authentication failed, invalid user ID or password", 40)
            router.wait_line("user name is empty", 40)
            assert len(router.nodes("foo.com")) == 1
            password.write_text("geheim\n")
            etcd.log_in("root", "geheim")
            etcd.put(entry("127.0.0.1:3034"))
            router.wait_for_nodes("foo.com", 2, 40)
            etcd.call("auth/user/changepw", name="bob", password="neu")
            password.write_text("neu\n")
            etcd.put(entry("127.0.0.1:3032"))
            router.wait_for_nodes("foo.com", 3)
            etcd.restart()
            etcd.log_in("root", "geheim")
            etcd.put(entry("127.0.0.1:3033"))
            router.wait_for_nodes("foo.com", 4, 40)
            assert not [line for line in router.lines if re.search("geheim|falsch|neu", line)]


@needs_openssl
@pytest.mark.slow
def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    with Etcd(tls=files) as etcd:
        etcd.put(entry("127.0.0.1:3031"))
        ours = f"cert={files.client_cert}&key={files.client_key}"
        port = etcd.address.rpartition(":")[2]
        strangers = f"etcd://127.0.0.1:{port}/strangers?tls=yes&{ours}"
        with Router(discovery=[strangers, f"etcd://localhost:{port}?ca={files.ca}&{ours}"]) as router:
            router.wait_for_nodes("foo.com", 1)
            router.wait_line("/strangers: EtcdError: .*UNAVAILABLE: .*(certificate|CERTIFICATE|handshake)")


@pytest.mark.slow
def test_a_reload_takes_the_source_along(etcd: Etcd) -> None:
    etcd.put(entry("127.0.0.1:3031"))
    with Router(discovery=f"etcd://{etcd.address}") as router:
        router.wait_for_nodes("foo.com", 1)
        router.send_signal(signal.SIGHUP)
        router.wait_line("handed over: 1 nodes of 1 keys", timeout=30)
        etcd.put(entry("127.0.0.1:3032"))

        def both() -> bool:
            with contextlib.suppress(OSError):
                return len(router.nodes("foo.com")) == 2
            return False

        wait_for(both, "the new one")


@pytest.mark.slow
def test_a_wrong_url_stops_the_start() -> None:
    with pytest.raises(AssertionError, match=r"etcd://x\?tls=perhaps: tls=perhaps: neither yes nor no"):
        Router(discovery="etcd://x?tls=perhaps")
