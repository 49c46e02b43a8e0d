"""A Consul agent's HTTP API: questions with time limits. `read` is answered at once, `watch` when something changes.

The HTTP client is python-consul's, and py-consul has the same. Its class `Consul` is not used: it lets the environment
overrule what it is told, and writes the token into URLs, and so into messages.

Invariants: a question ends within its time limit, whatever the agent does; whatever goes wrong is an AgentError, whose
text holds no token; no more than WATCHES and READERS connections are open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import gevent
import requests
from consul.base import ConsulException  # type: ignore[import-untyped]
from consul.std import HTTPClient  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

from discovery.consulplace import Place, read_token
from router.address import quoted
from router.source import describe

# Seconds.
WAIT = 30.0  # for which the agent holds a question while nothing changes; a dead one is noticed soon after that
CONNECT_LIMIT = 3.0
READ_LIMIT = 10.0  # for an answer to begin, and then again to be whole; a loaded cluster may take seconds

WATCHES = 2
READERS = 4  # reads at the same time; an agent lets a client have 200 connections, and others live there too
LARGEST_ANSWER = 64 * 2**20  # bytes; 100,000 checks; what is larger would fill the memory
LONGEST_REASON = 200  # characters of an answer that go into a message

# Of newer agents: whether our token hides something from us.
FILTERED = "X-Consul-Results-Filtered-By-ACLs"


class AgentError(Exception):
    """The agent cannot be asked, or its answer is none."""


@dataclass(frozen=True)
class Answer:
    """What the agent says; `moved` where its index is not the one of the answer before.

    `at` is when it came, in monotonic seconds.
    """

    data: Any
    index: int = 0
    moved: bool = True
    at: float = 0.0


class Agent:
    """Asks one agent; `close` it at the end. A token's file is read now, and again when the token is refused."""

    def __init__(self, place: Place, *, wait: float = WAIT) -> None:
        self._place = place
        self._wait = wait
        # To what it is told to wait, the agent adds up to a sixteenth, so that not all come back at once.
        self._watch_limit = wait + wait / 16 + READ_LIMIT
        self._reading = _client(place, READ_LIMIT, READERS)
        self._watching = _client(place, self._watch_limit, WATCHES)
        self._use_token()

    def read(self, path: str) -> Answer:
        """The answer of now. Several greenlets may call it at once; READERS of them are served."""
        return self._ask(self._reading, path, {}, READ_LIMIT)

    def watch(self, path: str, least: float) -> Iterator[Answer]:
        """The answer of now, then each further one; `least` seconds are between two. Never ends, but may raise.

        What takes long to understand, as 100,000 checks do, takes half of the time at most. Where nothing changes it is
        the same answer again. An index that falls means that the agent has lost what it knew, or is another one: what
        comes next is then asked for as if nothing were known.
        """
        index = 0
        while True:
            asked = monotonic()
            query = {"index": str(index), "wait": f"{self._wait:g}s"} if index else {}
            answer = self._ask(self._watching, path, query, self._watch_limit)
            yield replace(answer, moved=answer.index != index)
            # Without an index the agent does not wait, and 0 is none.
            index = 0 if answer.index < index else max(answer.index, 1)
            now = monotonic()
            gevent.sleep(max(0.0, asked + least - now, now - answer.at))

    def close(self) -> None:
        for client in (self._reading, self._watching):
            client.session.close()

    def _ask(self, client: HTTPClient, path: str, query: Mapping[str, str], limit: float) -> Answer:
        params = [*query.items(), *([("dc", self._place.dc)] if self._place.dc else [])]
        whole = CONNECT_LIMIT + limit + READ_LIMIT
        try:
            with gevent.Timeout(whole):  # a server that sends a byte now and then meets no other limit
                return self._get(client, path, params)
        except gevent.Timeout:
            raise AgentError(f"{path}: no whole answer within {whole:g} s") from None
        except (ConsulException, requests.RequestException, ValueError, KeyError, OSError, RecursionError) as error:
            raise AgentError(f"{path}: {describe(_cause(error))}") from error

    def _get(self, client: HTTPClient, path: str, params: list[tuple[str, str]]) -> Answer:
        token = self._token
        answer = client.get(lambda response: response, path, params=params)
        if answer.code == 403 and self._place.token_file:
            self._use_token()
            if self._token != token:
                answer = client.get(lambda response: response, path, params=params)
        if answer.code != 200:
            raise AgentError(f"{path}: status {answer.code}, {quoted(answer.body[:LONGEST_REASON].strip())}")
        at = monotonic()
        index = answer.headers.get("X-Consul-Index", "0")
        if not re.fullmatch("[0-9]{1,20}", index):
            raise AgentError(f"{path}: index {quoted(index)} is no number")
        data = json.loads(answer.body)
        if not data and answer.headers.get(FILTERED, "").lower() == "true":
            raise AgentError(f"{path}: permission denied, the token may see nothing of it")
        return Answer(data, int(index), at=at)

    def _use_token(self) -> None:
        """Take the token as it is now: whoever renews it writes its file anew."""
        try:
            self._token = read_token(self._place)
        except ValueError as error:
            raise AgentError(str(error)) from None
        for client in (self._reading, self._watching):
            client.session.headers.update({"X-Consul-Token": self._token} if self._token else {})


def _client(place: Place, limit: float, connections: int) -> HTTPClient:
    """python-consul's HTTP client, with our time limits, and deaf to the environment."""
    verify = place.ca or True
    cert = (place.cert, place.key) if place.key else place.cert or None
    client = HTTPClient(place.host, place.port, "https" if place.tls else "http", verify, cert)
    client.session.trust_env = False  # a proxy, or a login in ~/.netrc, is not meant for the agent
    client.session.max_redirects = 0  # the token is for this agent alone
    for prefix in ("http://", "https://"):
        client.session.mount(prefix, _Adapter(limit, connections, place.server_name))
    return client


class _Adapter(HTTPAdapter):
    """Puts limits on each request of a session: python-consul has none, and py-consul others."""

    def __init__(self, limit: float, connections: int, server_name: str) -> None:
        self._limits = (CONNECT_LIMIT, limit)
        self._server_name = server_name
        super().__init__(pool_connections=1, pool_maxsize=connections, pool_block=True)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._server_name:
            kwargs |= {"server_hostname": self._server_name, "assert_hostname": self._server_name}
        super().init_poolmanager(*args, **kwargs)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        response = super().send(request, stream, self._limits, verify, cert, proxies)
        response.raw = _Limited(response.raw)
        return response


class _Limited:
    """A response's body that ends with an error where it is too large."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        size = 0
        for piece in self._raw.stream(*args, **kwargs):
            size += len(piece)
            if size > LARGEST_ANSWER:
                self._raw.close()
                raise requests.RequestException(f"an answer of more than {LARGEST_ANSWER} bytes")
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _cause(error: BaseException) -> BaseException:
    """What an error is at bottom: the client wraps a refused connection three times."""
    while isinstance(error, requests.ConnectionError) and error.__context__ is not None:
        error = error.__context__
        while error.__context__ is not None:
            error = error.__context__
    return error
