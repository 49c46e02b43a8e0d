"""gfrouter announce in a real Consul and a real etcd, where the router's own sources find it; and by SRV records."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from announcer import Announce
from clients import ask, request
from consul_server import FREEZE, THAW, Consul, needs_consul
from dns_server import Knot, needs_knot, zone
from etcd_server import Etcd, make_certificates, needs_etcd, needs_openssl
from scripted import HELLO, ScriptedNode, answer, wait_for
from servers import FASTROUTER, Router, free_address

pytestmark = [pytest.mark.slow, pytest.mark.skipif(FASTROUTER, reason="the fastrouter knows neither")]

GET = request("foo.com")


@pytest.fixture(scope="module")
def consul() -> Iterator[Consul]:
    with Consul() as consul:
        yield consul


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as etcd:
        yield etcd


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with ScriptedNode(answer(HELLO)) as node:
        yield node


def passing(consul: Consul, service: str = "foo-com") -> list[str]:
    """The addresses of its instances that pass."""
    found = consul.call("GET", f"/v1/health/service/{service}?passing")
    return [f"{one['Service']['Address']}:{one['Service']['Port']}" for one in found]


# Consul.


@needs_consul
def test_the_consul_source_finds_it_as_it_was_announced(consul: Consul, node: ScriptedNode) -> None:
    with Router(discovery=consul.url()) as router:
        words = ("--to", consul.url(), "--address", node.address, "--weight", "3", "--backup", "1", "--modifier1", "5")
        with Announce(*words, "--key", "a,b.com") as announce:
            (shown,) = router.wait_for_nodes("foo.com", 1).values()
            assert (shown["name"], shown["weight"], shown["backup"], shown["modifier1"]) == (node.address, 3, 1, 5)
            router.wait_for_nodes("a,b.com", 1)
            wait_for(lambda: ask(router.address, GET) == HELLO, "an answer")
            assert announce.stop(signal.SIGTERM) == 0
            wait_for(lambda: not router.nodes("foo.com") and not router.nodes("a,b.com"), "it to leave")
    assert passing(consul) == passing(consul, "a-b-com") == []


@needs_consul
def test_a_bare_port_is_the_agents_machine(consul: Consul) -> None:
    with ScriptedNode() as node:
        port = node.address.rpartition(":")[2]
        with Announce("--to", consul.url("?service=web"), "--address", f":{port}") as announce:
            wait_for(lambda: passing(consul, "web") == [f":{port}"], "the service")
            announce.stop(signal.SIGTERM)


@needs_consul
def test_an_agent_that_forgot_us_is_told_again() -> None:
    with Consul() as consul, ScriptedNode() as node:
        with Announce("--to", consul.url(), "--address", node.address, "--interval", "1") as announce:
            wait_for(lambda: passing(consul) == [node.address], "the service")
            consul.kill()
            announce.wait_line("Connection refused; trying again")
            consul.restart()
            wait_for(lambda: passing(consul) == [node.address], "the service again", timeout=20)
            consul.deregister(f"gfrouter:foo.com:{node.address}")
            wait_for(lambda: passing(consul) == [node.address], "the service once more", timeout=20)
            assert announce.stop(signal.SIGTERM) == 0
            assert passing(consul) == []


@needs_consul
def test_who_is_killed_is_critical_after_the_ttl(consul: Consul, node: ScriptedNode) -> None:
    words = ("--to", consul.url("?service=killed"), "--address", node.address, "--interval", "1", "--ttl", "2")
    with Announce(*words) as announce:
        wait_for(lambda: passing(consul, "killed") == [node.address], "the service")
        announce.kill()
        wait_for(lambda: passing(consul, "killed") == [], "the check to be critical", timeout=20)


@needs_consul
def test_an_agent_that_is_frozen_holds_up_neither_others_nor_the_end(consul: Consul, node: ScriptedNode) -> None:
    with Router() as router:
        words = ("--to", consul.url(), "--to", router.subscriptions, "--address", node.address, "--interval", "1")
        with Announce(*words) as announce:
            wait_for(lambda: passing(consul) == [node.address], "the service")
            consul.send_signal_to_all(FREEZE)
            try:
                announce.wait_line("no answer in 5 s; trying again", timeout=20)
                router.wait_for_nodes("foo.com", 1)
                assert announce.stop(signal.SIGTERM, timeout=20) == 0
                wait_for(lambda: not router.nodes("foo.com"), "it to leave")
            finally:
                consul.send_signal_to_all(THAW)


@needs_consul
def test_a_token_goes_along_and_is_in_no_log(node: ScriptedNode, tmp_path: Path) -> None:
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": "4f0f6e5b-secret"}}
    with Consul(config={"acl": acl}, token="4f0f6e5b-secret") as consul:
        token = tmp_path / "token"
        token.write_text("wrong\n")
        words = ("--to", consul.url(f"?token-file={token}"), "--address", node.address, "--interval", "1")
        with Announce(*words) as announce:
            announce.wait_line("HTTP 403: .*; trying again")
            token.write_text("4f0f6e5b-secret\n")
            announce.joined()
            assert passing(consul) == [node.address]
            assert announce.stop(signal.SIGTERM) == 0
            assert "secret" not in "".join(announce.lines)


# etcd.


def url(etcd: Etcd, query: str = "", login: str = "") -> str:
    return f"etcd://{login}{etcd.address}{query}"


def entry(address: str) -> bytes:
    return f"/gfrouter/foo.com/{address}".encode()


@needs_etcd
def test_the_etcd_source_finds_it_as_it_was_announced(etcd: Etcd, node: ScriptedNode) -> None:
    with Router(discovery=url(etcd)) as router:
        words = ("--to", url(etcd), "--address", node.address, "--weight", "3", "--backup", "1", "--modifier1", "5")
        with Announce(*words, "--key", "a/ü,b") as announce:
            (shown,) = router.wait_for_nodes("foo.com", 1).values()
            assert (shown["name"], shown["weight"], shown["backup"], shown["modifier1"]) == (node.address, 3, 1, 5)
            router.wait_for_nodes("a/ü,b", 1)
            wait_for(lambda: ask(router.address, GET) == HELLO, "an answer")
            assert announce.stop(signal.SIGTERM) == 0
            wait_for(lambda: not router.nodes("foo.com") and not router.nodes("a/ü,b"), "it to leave")
    assert etcd.names() == []


@needs_etcd
def test_who_is_killed_is_gone_after_the_ttl(etcd: Etcd, node: ScriptedNode) -> None:
    words = ("--to", url(etcd), "--address", node.address, "--interval", "1", "--ttl", "2")
    with Announce(*words) as announce:
        wait_for(lambda: etcd.names() == [entry(node.address)], "the entry")
        announce.send_signal(signal.SIGSTOP)
        wait_for(lambda: etcd.names() == [], "the lease to end", timeout=20)
        announce.send_signal(signal.SIGCONT)
        wait_for(lambda: etcd.names() == [entry(node.address)], "the entry again", timeout=20)
        announce.kill()
        wait_for(lambda: etcd.names() == [], "the lease to end", timeout=20)


@needs_etcd
def test_an_etcd_that_forgot_us_is_told_again_and_a_dead_member_is_passed_over(node: ScriptedNode) -> None:
    with Etcd() as etcd:
        words = ("--to", f"etcd://{free_address()},{etcd.address}", "--address", node.address, "--interval", "1")
        with Announce(*words) as announce:
            wait_for(lambda: etcd.names() == [entry(node.address)], "the entry")
            etcd.kill()
            announce.wait_line("Connection refused; trying again")
            etcd.restart(empty=True)
            wait_for(lambda: etcd.names() == [entry(node.address)], "the entry again", timeout=20)
            assert announce.stop(signal.SIGTERM) == 0
            assert etcd.names() == []


@needs_etcd
def test_a_user_logs_in_and_again_when_the_token_is_gone(node: ScriptedNode, tmp_path: Path) -> None:
    with Etcd() as etcd:
        etcd.enable_auth("announcer", "geheim", b"/gfrouter/")
        permission = {"permType": "READWRITE", "key": "L2dmcm91dGVyLw==", "range_end": "L2dmcm91dGVyMA=="}
        etcd.call("auth/role/grant", name="announcer", perm=permission)
        password = tmp_path / "password"
        password.write_text("geheim\n")
        to = url(etcd, f"?password-file={password}", "announcer@")
        with Announce("--to", to, "--address", node.address, "--interval", "1") as announce:
            announce.joined()
            etcd.restart()  # its tokens are gone with it, ours, too
            etcd.token = ""
            etcd.log_in("root", "geheim")
            for lease in etcd.call("lease/leases")["leases"]:
                etcd.revoke(lease["ID"])
            wait_for(lambda: etcd.names() == [entry(node.address)], "the entry again", timeout=20)
            assert announce.stop(signal.SIGTERM) == 0
            assert etcd.names() == []
            assert "geheim" not in "".join(announce.lines)


@needs_etcd
@needs_openssl
def test_tls_on_both_sides(node: ScriptedNode, tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    with Etcd(files) as etcd:
        query = f"?ca={files.ca}&cert={files.client_cert}&key={files.client_key}"
        with Announce("--to", url(etcd, query), "--address", node.address) as announce:
            announce.joined()
            assert etcd.names() == [entry(node.address)]
            assert announce.stop(signal.SIGTERM) == 0
        with Announce("--to", url(etcd, "?tls=yes"), "--address", node.address) as announce:
            announce.wait_line("CERTIFICATE_VERIFY_FAILED.*; trying again")


# SRV records.

# Words before a command that give it two files of its own in place of the machine's; "$1" and "$2" are those.
OWN_NAMES = (
    *("unshare", *(() if os.geteuid() == 0 else ("-r",)), "-m", "sh", "-c"),
    'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"',
    "sh",
)


def _can_mount() -> bool:
    argv = [*OWN_NAMES, "/etc/resolv.conf", "/etc/nsswitch.conf", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(argv, capture_output=True, check=False).returncode == 0


@needs_knot
@pytest.mark.skipif(
    os.geteuid() != 0 or not _can_mount(), reason="needs root, for a DNS server at the usual port and a resolv.conf"
)
def test_a_service_name_means_all_its_targets_and_is_followed(
    node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose first lookup fails, too. The server is at port 53, as a resolv.conf knows no other."""
    monkeypatch.setattr("dns_server.free_port", lambda host: 53)
    host = f"127.53.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    resolv, switch = tmp_path / "resolv.conf", tmp_path / "nsswitch.conf"
    resolv.write_text(f"nameserver {host}\noptions timeout:1 attempts:1\n")
    switch.write_text("hosts: dns\n")
    with (
        Router() as one,
        Router() as two,
        Knot(zone("example.test", "one A 127.0.0.1", "two A 127.0.0.1"), host) as knot,
    ):

        def record(router: Router, priority: int, name: str) -> str:
            return f"_gfrouter._udp 1 SRV {priority} 0 {router.subscriptions.rpartition(':')[2]} {name}.example.test."

        words = ("--to", "_gfrouter._udp.example.test", "--address", node.address, "--interval", "1")
        with Announce(*words, launcher=(*OWN_NAMES, resolv, switch)) as announce:
            announce.wait_line("cannot resolve _gfrouter._udp.example.test: .*; trying again")
            knot.update("example.test", add=[record(one, 1, "one"), record(two, 2, "two")])
            one.wait_for_nodes("foo.com", 1, timeout=20)
            two.wait_for_nodes("foo.com", 1, timeout=20)
            knot.update("example.test", delete=["_gfrouter._udp"], add=[record(two, 1, "two")])
            wait_for(lambda: not one.nodes("foo.com"), "the router that is gone from DNS to be left", timeout=20)
            knot.kill()  # what is known stays
            assert announce.stop(signal.SIGTERM, timeout=20) == 0
            wait_for(lambda: not two.nodes("foo.com"), "it to leave")
