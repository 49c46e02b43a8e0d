"""Questions to a Consul agent: what is asked, and that whatever comes back is an answer or the one error, in time."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consul_server import ScriptedAgent
from discovery import consulagent
from discovery.consulagent import Agent, AgentError
from discovery.consulplace import Place
from scripted import Blackhole
from servers import free_port

PATH = "/v1/catalog/services"
TRUTH: dict[str, list[str]] = {"consul": []}
TOKEN = "b1gs33cr3t"


@pytest.fixture
def server() -> Iterator[ScriptedAgent]:
    with ScriptedAgent() as server:
        yield server


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consulagent, "READ_LIMIT", 0.5)
    monkeypatch.setattr(consulagent, "CONNECT_LIMIT", 0.5)


def agent(port: int, **more: Any) -> Agent:
    return Agent(Place("127.0.0.1", port, **more), wait=0.2)


def refusal(server: ScriptedAgent, **more: Any) -> str:
    """What is said where the server's answer is none."""
    asking = agent(server.port, **more)
    with pytest.raises(AgentError) as caught:
        asking.read(PATH)
    asking.close()
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_an_answer(server: ScriptedAgent) -> None:
    asking = agent(server.port)
    assert (asking.read(PATH).data, asking.read(PATH).index) == (TRUTH, 10)
    asking.close()


def test_the_token_is_in_a_header_alone(server: ScriptedAgent) -> None:
    asking = agent(server.port, token=TOKEN, dc="dc2")
    asking.read(PATH)
    asking.close()
    ((path, headers),) = server.asked
    assert path == f"{PATH}?dc=dc2" and headers["X-Consul-Token"] == TOKEN


def test_neither_proxy_nor_netrc_is_asked(
    server: ScriptedAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", TOKEN)
    asking = agent(server.port)
    assert asking.read(PATH).data == TRUTH
    asking.close()
    assert not {"Authorization", "X-Consul-Token"} & server.asked[0][1].keys()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (500, "status 500, "),
        (404, "status 404"),
        (b"", "JSONDecodeError: "),
        (b"{", "JSONDecodeError: "),
        (b"\xff\xfe", "JSONDecodeError: "),
        (b"[" * 100_000, "RecursionError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nX-Consul-Index: 5\r\n\r\n[]", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Consul-Index: 5\r\n\r\n2\r\n[]\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nX-Consul-Index: -5\r\n\r\n[]", "index '-5' is no number"),
        (b"HTTP/1.1 200 OK\r\nX-Consul-Index: x\r\n\r\n[]", "index 'x' is no number"),
        (b"HTTP/1.1 500 No\r\n\r\nNo cluster leader\n", "status 500, 'No cluster leader'"),
        (b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.2:1/\r\n\r\n", "TooManyRedirects"),
        (b"HTTP/1.1\x00", ""),
        (b"HTTP/\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n[]", "more than 100 headers"),
    ],
)
def test_what_is_no_answer_is_the_one_error(server: ScriptedAgent, answer: bytes | int, text: str) -> None:
    server.answers[PATH] = answer
    said = refusal(server, token=TOKEN)
    assert said.startswith(f"{PATH}: ") and text in said and len(said) < 400


def test_an_answer_without_end_is_cut(server: ScriptedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consulagent, "LARGEST_ANSWER", 100_000)
    server.answers[PATH] = b"[" + b" " * 99_998 + b"]"
    asking = agent(server.port)
    assert asking.read(PATH).data == []
    asking.close()
    server.answers[PATH] = b"[" + b" " * 100_000 + b"]"
    assert "an answer of more than 100000 bytes" in refusal(server)


def test_where_nobody_listens() -> None:
    asking = agent(free_port())
    with pytest.raises(AgentError, match=rf"^{PATH}: ConnectionRefusedError: \[Errno 111\] Connection refused$"):
        asking.read(PATH)


def test_where_nobody_accepts() -> None:
    with Blackhole() as hole:
        asking = agent(int(hole.address.rpartition(":")[2]))
        with pytest.raises(AgentError, match="timed out"):
            asking.read(PATH)


def test_a_frozen_agent(server: ScriptedAgent) -> None:
    asking = agent(server.port)
    answers = asking.watch(PATH, 0)
    assert next(answers).data == TRUTH
    with pytest.raises(AgentError, match="timed out"):  # as nothing moves, and this server waits for longer than told
        next(answers)
    asking.close()


def test_an_empty_answer_that_is_filtered_is_a_refusal(server: ScriptedAgent) -> None:
    server.headers[consulagent.FILTERED] = "true"
    asking = agent(server.port)
    assert asking.read(PATH).data == TRUTH  # something of it may be seen
    asking.close()
    server.answers[PATH] = b"{}"
    assert "permission denied" in refusal(server)


class TestToken:
    def test_it_is_read_again_when_it_is_refused(self, server: ScriptedAgent, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("old\n")
        asking = agent(server.port, token_file=str(file))
        server.answers[PATH] = 403
        with pytest.raises(AgentError, match="status 403"):
            asking.read(PATH)
        file.write_text("new\n")
        with pytest.raises(AgentError, match="status 403"):
            asking.read(PATH)
        asking.close()
        assert [headers["X-Consul-Token"] for _, headers in server.asked] == ["old", "old", "new"]

    @pytest.mark.parametrize("text", ["", "\n", f"{TOKEN}\n{TOKEN}", f"{TOKEN} x", "ü" + TOKEN, "x" * 5000])
    def test_a_file_without_a_token(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "token").write_text(text)
        with pytest.raises(AgentError, match=f"^token-file={tmp_path}/token: holds no token$"):
            agent(1, token_file=str(tmp_path / "token"))

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(AgentError, match=r"^token-file=/none/token: No such file or directory$"):
            agent(1, token_file="/none/token")


class TestWatch:
    def test_it_waits_for_what_comes_after_the_last_index(self, server: ScriptedAgent) -> None:
        asking = Agent(Place("127.0.0.1", server.port), wait=5)
        answers = asking.watch(PATH, 0)
        assert next(answers).moved
        server.services["app"] = []
        server.moved()
        answer = next(answers)
        assert answer.moved and answer.data == {"consul": [], "app": ["uwsgi"]}
        asking.close()
        assert [path for path, _ in server.asked] == [PATH, f"{PATH}?index=10&wait=5s"]

    def test_an_index_that_falls_means_to_begin_from_none(self, server: ScriptedAgent) -> None:
        asking = Agent(Place("127.0.0.1", server.port), wait=5)
        answers = asking.watch(PATH, 0)
        next(answers)
        server.moved(3)
        assert [(answer.index, answer.moved) for answer in itertools.islice(answers, 2)] == [(3, True), (3, True)]
        server.moved(4)
        next(answers)
        asking.close()
        asked = [path.partition("?")[2] for path, _ in server.asked]
        assert asked == ["", "index=10&wait=5s", "", "index=3&wait=5s"]

    def test_a_server_without_indexes_is_not_asked_in_a_loop(self, server: ScriptedAgent) -> None:
        server.answers[PATH] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]"
        asking = agent(server.port)
        answers = asking.watch(PATH, 0.1)
        with pytest.MonkeyPatch.context() as patch:
            waits: list[float] = []
            patch.setattr("gevent.sleep", waits.append)
            assert [answer.data for answer in itertools.islice(answers, 3)] == [[], [], []]
        asking.close()
        assert len(waits) == 2 and all(0 < wait <= 0.1 for wait in waits)

    def test_what_takes_long_to_take_in_takes_half_of_the_time_at_most(self, server: ScriptedAgent) -> None:
        asking = agent(server.port)
        answers = asking.watch(PATH, 0.1)
        with pytest.MonkeyPatch.context() as patch:
            now, waits = 1000.0, list[float]()
            patch.setattr(consulagent, "monotonic", lambda: now)
            patch.setattr("gevent.sleep", waits.append)
            next(answers)
            now += 3.0
            server.moved()
            next(answers)
        asking.close()
        assert waits == [3.0]
