"""gfrouter and a real Consul agent: what changes there changes here, and what happens to the agent hurts no request."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from clients import announce, ask, get, request
from consul_server import CONSUL, Consul, ScriptedAgent, needs_consul
from scripted import HELLO, ScriptedNode, answer, wait_for
from servers import CONTRIB, TESTS, UWSGI, Nginx, Process, Router, free_port, needs_nginx

pytestmark = needs_consul

FOO = ["uwsgi", "uwsgi-key=foo.com"]
MASTER = "3f7a2c1e-8a49-4c62-9d0e-5b1f6c7d8e90"  # the first token of an agent with ACLs


def rarely(_: float) -> None:
    """Between questions whose answers are long."""
    time.sleep(0.2)


@pytest.fixture(scope="module")
def consul() -> Iterator[Consul]:
    with Consul() as consul:
        yield consul


@pytest.fixture(scope="module")
def router(consul: Consul) -> Iterator[Router]:
    with Router(discovery=consul.url()) as router:
        yield router


@pytest.fixture
def nodes() -> Iterator[list[ScriptedNode]]:
    with ScriptedNode(answer(HELLO)) as one, ScriptedNode(answer(HELLO)) as two:
        yield [one, two]


class Traffic:
    """Requests for foo.com, one after the other, from a few threads; an answer that is not a node's is a failure."""

    def __init__(self, router: Router) -> None:
        self.done = 0
        self.failures: list[bytes] = []
        self._address = router.address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def more(self, count: int = 50) -> None:
        """Waits for so many further ones, none of which may fail."""
        target = self.done + count
        wait_for(lambda: self.done >= target, f"{count} more requests")
        assert not self.failures

    def _ask(self) -> None:
        while not self._stop.is_set():
            said = ask(self._address, request("foo.com"))
            if said != HELLO:
                self.failures.append(said)
            self.done += 1
            time.sleep(0.005)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


def test_from_registration_to_deregistration(consul: Consul, router: Router, nodes: list[ScriptedNode]) -> None:
    one, two = (node.address for node in nodes)
    consul.register("app", one, Meta={"uwsgi-key": "a.com,b.com"})  # without a check
    router.wait_for_nodes("a.com", 1)
    router.wait_for_nodes("b.com", 1)
    assert ask(router.address, request("a.com")) == HELLO
    identity = consul.register("app", two, check="passing", Tags=["uwsgi", "uwsgi-key=a.com"], Weights={"Passing": 3})
    assert router.wait_for_nodes("a.com", 2)[two]["weight"] == 3
    consul.register("app", two, Tags=["uwsgi", "uwsgi-key=a.com"], Meta={"uwsgi-weight": "7", "uwsgi-modifier1": "5"})
    wait_for(lambda: router.nodes("a.com").get(two, {}).get("weight") == 7, "the weight in the meta")
    assert router.nodes("a.com")[two]["modifier1"] == 5
    consul.register("app", two, Tags=["other"])  # lost its tag
    router.wait_for_nodes("a.com", 1)
    consul.deregister(identity)
    consul.deregister(f"app:{one.rpartition(':')[2]}")
    router.wait_for_nodes("a.com", 0)
    router.wait_for_nodes("b.com", 0)


@pytest.mark.parametrize("status", ["critical", "warning"])
def test_a_check_takes_a_node_out_and_back(
    consul: Consul, router: Router, nodes: list[ScriptedNode], status: str
) -> None:
    key = f"{status}.com"
    identity = consul.register("checked", nodes[0].address, check="passing", Tags=["uwsgi", f"uwsgi-key={key}"])
    router.wait_for_nodes(key, 1)
    consul.set_check(identity, status)
    router.wait_for_nodes(key, 0)
    consul.set_check(identity, "passing")
    router.wait_for_nodes(key, 1)
    consul.deregister(identity)
    router.wait_for_nodes(key, 0)


def test_maintenance_of_an_instance_and_of_a_machine(consul: Consul, router: Router, nodes: list[ScriptedNode]) -> None:
    one, two = (consul.register("kept", node.address) for node in nodes)
    router.wait_for_nodes("kept", 2)
    consul.maintain(one)
    router.wait_for_nodes("kept", 1)
    consul.maintain(one, on=False)
    router.wait_for_nodes("kept", 2)
    consul.maintain()
    router.wait_for_nodes("kept", 0)
    consul.maintain(on=False)
    router.wait_for_nodes("kept", 2)
    for identity in (one, two):
        consul.deregister(identity)


def test_a_malformed_instance_costs_itself_alone(consul: Consul, router: Router, nodes: list[ScriptedNode]) -> None:
    bad = consul.register("odd", nodes[0].address, Meta={"uwsgi-weight": "abc"})
    good = consul.register("odd", nodes[1].address)
    assert list(router.wait_for_nodes("odd", 1)) == [nodes[1].address]
    router.wait_line(r"consul@.*: dropped, malformed entry: 'odd', instance 'odd:\d+': uwsgi-weight 'abc' is no number")
    consul.deregister(bad)
    consul.deregister(good)


@pytest.mark.slow
def test_named_services_and_the_environments_address(consul: Consul, nodes: list[ScriptedNode]) -> None:
    one, two = nodes
    identity = consul.register("named", one.address, check="passing", Tags=["web"])
    other = consul.register("tagged", two.address)
    environ = {"CONSUL_HTTP_ADDR": f"http://127.0.0.1:{consul.port}"}
    with Router(discovery="consul://?service=named&warning=yes", env=environ) as router:
        router.wait_for_nodes("named", 1)
        consul.set_check(identity, "warning")
        consul.set_check(identity, "passing")
        assert ask(router.address, request("named")) == HELLO
        assert not router.nodes("tagged")
    with Router(discovery="consul", env=environ) as router:
        router.wait_for_nodes("tagged", 1)
        assert router.line(r"tagged \+ .* \(consul@127\.0\.0\.1:\d+\)")
    consul.deregister(identity)
    consul.deregister(other)


@pytest.mark.slow
def test_a_router_starts_without_an_agent_and_finds_it_later(nodes: list[ScriptedNode]) -> None:
    with Consul() as consul:
        consul.kill()
        with Router(discovery=consul.url()) as router:
            router.wait_line(r"consul@.*: AgentError: .*Connection refused; trying again in")
            consul._start()
            consul.register("app", nodes[0].address)
            router.wait_for_nodes("app", 1, timeout=30)


@pytest.mark.slow
def test_an_agent_that_keeps_its_data(tmp_path: Path, nodes: list[ScriptedNode]) -> None:
    """Killed, frozen, and begun again, under traffic; what changes afterwards arrives."""
    one, two = (node.address for node in nodes)
    with Consul(tmp_path / "data") as consul, Router(discovery=consul.url()) as router:
        consul.register("app", one, Tags=FOO)
        router.wait_for_nodes("foo.com", 1)
        with Traffic(router) as traffic:
            consul.kill()
            router.wait_line(r"consul@.*: AgentError: .*; trying again in")
            traffic.more()
            consul._start()
            traffic.more()
            second = consul.register("app", two, Tags=FOO)
            router.wait_for_nodes("foo.com", 2, timeout=30)
            traffic.more()
            consul.send_signal_to_all(signal.SIGSTOP)
            traffic.more(200)
            consul.send_signal_to_all(signal.SIGCONT)
            consul.deregister(second)
            assert list(router.wait_for_nodes("foo.com", 1)) == [one]
            traffic.more()


@pytest.mark.slow
def test_an_agent_that_has_lost_its_data(nodes: list[ScriptedNode]) -> None:
    """It says with authority that there is nothing; who announces himself as well stays."""
    one, two = (node.address for node in nodes)
    with Consul() as consul, Router(discovery=[consul.url(), "subscription"]) as router:
        for number in range(5):  # so that the new agent's index is below this one's
            consul.register("app", one, Tags=FOO, Meta={"number": str(number)})
        consul.register("app", two, Tags=FOO)
        router.wait_for_nodes("foo.com", 2)
        announce(router.subscriptions, "foo.com", one)
        with Traffic(router) as traffic:
            consul.restart()
            assert list(router.wait_for_nodes("foo.com", 1, timeout=30)) == [one]
            traffic.more()
            consul.register("app", two, Tags=FOO)
            router.wait_for_nodes("foo.com", 2)
            traffic.more()


@pytest.mark.slow
def test_an_agent_in_whose_place_something_answers_garbage(tmp_path: Path, nodes: list[ScriptedNode]) -> None:
    with Consul(tmp_path / "data") as consul, Router(discovery=consul.url()) as router:
        consul.register("app", nodes[0].address, Tags=FOO)
        router.wait_for_nodes("foo.com", 1)
        with Traffic(router) as traffic:
            consul.kill()
            with ScriptedAgent(consul.port) as garbage:
                garbage.answers = dict.fromkeys(("/v1/health/state/any", "/v1/catalog/services"), b'{"a": [')
                router.wait_line("AgentError: .*JSONDecodeError")
                traffic.more()
            with ScriptedAgent(consul.port) as garbage:
                garbage.answers = {"/v1/health/state/any": b"[[], 5]", "/v1/catalog/services": b"[]"}
                router.wait_line("the answer to /v1/catalog/services is a list, expected an object")
                traffic.more()
            consul._start()
            consul.register("app", nodes[1].address, Tags=FOO)
            router.wait_for_nodes("foo.com", 2, timeout=30)
            traffic.more()


@pytest.mark.slow
def test_acls(tmp_path: Path, nodes: list[ScriptedNode]) -> None:
    """By default nothing may be seen, which is an error; a token may be renewed; none is ever logged."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}
    file = tmp_path / "token"
    with Consul(config={"acl": acl}, token=MASTER) as consul:
        consul.register("app", nodes[0].address)
        rules = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
        policy = consul.call("PUT", "/v1/acl/policy", {"Name": "read", "Rules": rules})
        first, second = (consul.call("PUT", "/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]}) for _ in range(2))
        with Router(discovery=consul.url()) as router:
            router.wait_line("no check at all; the token lacks node:read")
        file.write_text(first["SecretID"])
        with Router(discovery=consul.url(f"?token-file={file}")) as router:
            router.wait_for_nodes("app", 1)
            file.write_text(second["SecretID"] + "\n")
            consul.call("DELETE", f"/v1/acl/token/{first['AccessorID']}")
            consul.register("app", nodes[1].address)
            router.wait_for_nodes("app", 2, timeout=30)
            assert ask(router.address, request("app")) == HELLO
        file.write_text("11111111-2222-3333-4444-555555555555")
        with Router(discovery=consul.url(f"?token-file={file}"), env={"CONSUL_HTTP_TOKEN": MASTER}) as denied:
            denied.wait_line("AgentError: .*status 403, 'ACL not found'")
        for line in router.lines + denied.lines:
            assert not any(secret in line for secret in (MASTER, first["SecretID"], second["SecretID"], "5555-5555"))


@pytest.mark.slow
def test_tls(tmp_path: Path, nodes: list[ScriptedNode]) -> None:
    assert CONSUL
    for words in (["ca", "create"], ["cert", "create", "-server"], ["cert", "create", "-client"]):
        subprocess.run([CONSUL, "tls", *words], cwd=tmp_path, check=True, capture_output=True)
    ca, server, client = (
        str(tmp_path / name) for name in ("consul-agent-ca.pem", "dc1-server-consul-0.pem", "dc1-client-consul-0.pem")
    )
    port = free_port()
    config = {
        "ports": {"https": port},
        "ca_file": ca,
        "cert_file": server,
        "key_file": server.replace(".pem", "-key.pem"),
        "verify_incoming_https": True,
    }
    ours = f"cert={client}&key={client.replace('.pem', '-key.pem')}"
    with Consul(config=config) as consul:
        consul.register("app", nodes[0].address)
        with Router(discovery=f"consul://127.0.0.1:{port}?ca={ca}&server-name=server.dc1.consul&{ours}") as router:
            router.wait_for_nodes("app", 1)
        for query, text in (
            (f"ca={ca}", "AgentError: .*(certificate required|bad certificate|reset)"),
            (f"tls=yes&{ours}", "certificate verify failed"),
            (f"ca={ca}&server-name=other.example&{ours}", "(hostname|Hostname).*'?other.example'?"),
        ):
            with Router(discovery=f"consul://127.0.0.1:{port}?{query}") as router:
                router.wait_line(text)
                assert not router.nodes("app")


@pytest.mark.slow
@pytest.mark.long
def test_many_services_take_few_connections(nodes: list[ScriptedNode]) -> None:
    with Consul() as consul, Router(discovery=consul.url()) as router:
        consul.call("PUT", "/v1/catalog/register", {"Node": "many", "Address": "127.0.0.1"})
        port = int(nodes[0].address.rpartition(":")[2])
        for first in range(0, 300, 50):
            services = [f"s{number}" for number in range(first, first + 50)]
            said = [{"ID": name, "Service": name, "Port": port, "Tags": ["uwsgi"]} for name in services]
            consul.call(
                "PUT", "/v1/txn", [{"Service": {"Verb": "set", "Node": "many", "Service": one}} for one in said]
            )
        most = 0

        def all_there() -> bool:
            nonlocal most
            most = max(most, consul.connections(router.pid))
            return len(router.stats()["subscriptions"]) == 300

        wait_for(all_there, "300 keys", 30, rarely)
        for number in range(0, 300, 30):
            consul.register(f"s{number}", nodes[1].address)
            assert all_there()
        wait_for(lambda: all_there() and len(router.nodes("s270")) == 2, "the last change", 30, rarely)
        assert 2 < most <= 6


@needs_nginx
@pytest.mark.slow
def test_the_service_definition_in_contrib(consul: Consul, router: Router, tmp_path: Path) -> None:
    """Registered as its page says it, with a real worker, which the check then takes out and back."""
    assert CONSUL
    port = free_port()
    definition = (CONTRIB / "consul" / "uwsgi-worker.json").read_text().replace("3031", str(port))
    (tmp_path / "uwsgi-worker.json").write_text(definition)
    command = [CONSUL, "services", "register", f"-http-addr=127.0.0.1:{consul.port}", f"{tmp_path}/uwsgi-worker.json"]
    with Nginx(router.address) as nginx:
        with Process(
            UWSGI, "--master", "--socket", f"127.0.0.1:{port}", "--wsgi-file", TESTS / "worker_app.py"
        ) as worker:
            worker.wait_listens(port)
            subprocess.run(command, check=True, capture_output=True)
            router.wait_for_nodes("foo.com", 1)
            assert router.wait_for_nodes("www.foo.com", 1)
            assert get(nginx.port).status == 200
        router.wait_for_nodes("foo.com", 0)
        with Process(UWSGI, "--master", "--socket", f"127.0.0.1:{port}", "--wsgi-file", TESTS / "worker_app.py"):
            router.wait_for_nodes("foo.com", 1)
            assert get(nginx.port).status == 200
    consul.deregister("foo-1")
