"""One connection to one etcd at a time: which member, TLS, who we are, and what became of a call.

The stubs are those of etcd3, the channel is our own: that package's client hides a broken watch, and spins while etcd
is down. A channel goes to a single member, for gRPC's own choice among several knows neither host names nor mixed
families, and takes one that accepts and says nothing for a good one; `Members` remembers whose turn it is.

Invariants: each call has a time limit, and the one that has none, a watch, ends when the member does not answer pings,
or has no leader and so may be blind. Whatever goes wrong is an EtcdError; nothing secret is in its text. Calls are made
as futures: a greenlet that is killed while it waits in a plain one leaves a channel that cannot be closed.

It needs a process that gevent has patched before this is imported, as the supervisor is.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar
from urllib.parse import quote

import gevent
from gevent.event import Event

from discovery.etcdaccess import Access

# Read by protobuf and gRPC at their import only: etcd3's generated code is refused by protobuf's faster implementation,
# gRPC's fork handlers would hang a process that forks, and its log lines are no use to an operator.
VARIABLES = {
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "GRPC_VERBOSITY": "ERROR",
}
LARGEST_MESSAGE = 16 * 2**20  # bytes; etcd's values have 1.5 MB at most as it is set up by default
PAGE = 500  # entries at once: the loop is held for 10 ms by those
PING_EVERY = 8_000  # ms; etcd takes 5 s for the least, and throws out who pings more often
PING_TIMEOUT = 4_000  # ms; with the above, a frozen etcd is noticed within 12 s
THREADS = 10  # of gevent's for everybody else, name lookups above all; as gevent has it
LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED")  # codes that say: this member is of no use now; another may be
# What etcd says to a token that it does not know, or that it gave before its users were changed.
STALE_TOKEN = ("invalid auth token", "revision of auth store is old")


class EtcdError(Exception):
    """etcd cannot be reached, does not answer, or refuses. `code` is gRPC's word for it."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


def _load() -> tuple[Any, Any]:
    """gRPC and etcd3's stubs. The variables are taken back, as workers that we start would inherit them."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(VARIABLES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            grpc = import_module("grpc")
            stubs = import_module("etcd3.etcdrpc")
            import_module("grpc.experimental.gevent").init_gevent()
    except TypeError as error:
        text = "protobuf was imported before with an implementation that etcd3 cannot use"
        raise ImportError(f"{text} ({str(error).splitlines()[0]})") from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return grpc, stubs


grpc, rpc = _load()


class Members:
    """The places of a cluster in turn: one that failed comes last."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._turn = 0

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection to the first member that answers; closed at the end. EtcdError where none does.

        Whoever leaves this by an exception begins with the next member the next time.
        """
        places = self.access.places
        connection = self._reach()
        try:
            yield connection
        except BaseException:
            self._turn = (self._turn + 1) % len(places)
            raise
        finally:
            connection.close()

    def _reach(self) -> Connection:
        places = self.access.places
        troubles = []
        for _ in places:
            connection = Connection(self.access, *places[self._turn])
            try:
                connection.begin()
                return connection
            except EtcdError as error:
                connection.close()
                if error.code not in LOST:
                    raise
                troubles.append(str(error))
            except BaseException:
                connection.close()
                raise
            self._turn = (self._turn + 1) % len(places)
        raise EtcdError("; ".join(troubles), LOST[0])


class Connection:
    """A channel to one member, logged in. `kv` is etcd3's stub; `call` makes a call of one of its kind.

    Whoever makes one must `close` it, whatever happens.
    """

    _open: ClassVar[int] = 0

    def __init__(self, access: Access, host: str, port: int) -> None:
        self.access = access
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.channel = open_channel(access, self.place)
        Connection._open += 1
        # gRPC waits for news of a channel in one of gevent's threads, for as long as the channel has calls.
        pool = gevent.get_hub().threadpool
        pool.maxsize = max(pool.maxsize, THREADS + Connection._open)
        self.kv = rpc.KVStub(self.channel)
        self._token = ""
        self._closed = Event()

    def begin(self) -> None:
        """Log in, and make sure that a leader is there: a member cut off from the others would only show the past."""
        if self.access.user:
            self._log_in()
        try:
            self.call(self.kv.Range, rpc.RangeRequest(key=b"\0", count_only=True))
        except EtcdError as error:
            if error.code in LOST:
                raise
            # That it may not be read says that somebody is there; whether what we need may be, shows when we ask.

    def call(self, method: Any, request: Any) -> Any:
        """The answer of one call. An outdated token is exchanged once."""
        try:
            return self._call(method, request)
        except EtcdError as error:
            if not self._token or not any(text in str(error) for text in STALE_TOKEN):
                raise
        self._log_in()
        return self._call(method, request)

    def pages(self, prefix: bytes) -> Iterator[tuple[list[Any], int]]:
        """All entries below the prefix as of one revision, a page after the other, each with that revision."""
        start, revision, limit = prefix, 0, PAGE
        while True:
            request = rpc.RangeRequest(key=start, range_end=end_of(prefix), limit=limit, revision=revision)
            try:
                page = self.call(self.kv.Range, request)
            except EtcdError as error:
                if error.code != "RESOURCE_EXHAUSTED" or limit == 1:
                    raise
                limit = max(1, limit // 8)  # large values: fewer of them fit into a message
                continue
            revision = revision or page.header.revision
            yield page.kvs, revision
            if not page.more or not page.kvs:
                return
            start = page.kvs[-1].key + b"\0"

    def watch(self, prefix: bytes, revision: int) -> Iterator[Any]:
        """What happens below the prefix from this revision on, as etcd's WatchResponses; EtcdError when that ends.

        One without events comes first, and every ten minutes.
        """
        create = rpc.WatchCreateRequest(
            key=prefix, range_end=end_of(prefix), start_revision=revision, progress_notify=True
        )
        requests = _once(rpc.WatchRequest(create_request=create), self._closed)
        stream = rpc.WatchStub(self.channel).Watch(requests, metadata=self._metadata())
        # A member that answers pings and begins no watch would leave us blind for ever.
        with gevent.Timeout(self.access.settings.timeout, EtcdError(f"{self.place}: no watch begins", LOST[1])):
            first = self._next(stream)
        yield first
        while True:
            yield self._next(stream)

    def close(self) -> None:
        """Ends all calls. The connection is of no use any more."""
        Connection._open -= 1
        self._closed.set()
        self.channel.close()

    def _log_in(self) -> None:
        try:
            password = self.access.read_password()
        except (OSError, ValueError) as error:
            raise EtcdError(str(error)) from None
        self._token = ""
        request = rpc.AuthenticateRequest(name=self.access.user, password=password)
        try:
            self._token = self._call(rpc.AuthStub(self.channel).Authenticate, request).token
        except EtcdError as error:
            if error.code != "FAILED_PRECONDITION":  # which says that this etcd asks nobody for a password
                raise

    def _call(self, method: Any, request: Any) -> Any:
        timeout = self.access.settings.timeout
        future = method.future(request, timeout=timeout, metadata=self._metadata())
        try:
            return future.result(timeout + 1)  # the call's own limit comes first
        except grpc.RpcError as error:
            raise self._error(error) from None
        except grpc.FutureTimeoutError:
            raise EtcdError(f"{self.place}: no answer within {timeout} s", LOST[1]) from None
        finally:
            future.cancel()

    def _metadata(self) -> list[tuple[str, str]]:
        token = [("token", self._token)] if self._token else []
        return [("hasleader", "true"), *token]

    def _next(self, stream: Any) -> Any:
        try:
            response = next(stream, None)
        except grpc.RpcError as error:
            raise self._error(error) from None
        if response is None:
            raise EtcdError(f"{self.place}: the watch has ended", LOST[0])
        if response.canceled:
            reason = response.cancel_reason or "the watch was canceled"
            if response.compact_revision:
                reason = f"what happened before revision {response.compact_revision} is forgotten (compaction)"
            raise EtcdError(f"{self.place}: {reason}", "CANCELLED")
        return response

    def _error(self, error: Any) -> EtcdError:
        return EtcdError(f"{self.place}: {error.code().name}: {error.details()}", error.code().name)


def open_channel(access: Access, place: str) -> Any:
    """A channel to this HOST:PORT, not connected yet. A host's name is looked up by gRPC, in its own threads."""
    options = [
        ("grpc.default_authority", place),
        ("grpc.service_config_disable_resolution", 1),  # it would be looked up in the DNS beside the addresses
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),  # one that failed must not make the next one wait
        ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ("grpc.keepalive_time_ms", PING_EVERY),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT),
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a watch may be silent for hours
        ("grpc.enable_http_proxy", 0),
    ]
    target = f"dns:///{quote(place, safe='[]:')}"
    if not access.tls:
        return grpc.insecure_channel(target, options)
    try:
        credentials = grpc.ssl_channel_credentials(*access.read_certificates())
        return grpc.secure_channel(target, credentials, options)
    except (OSError, ValueError) as error:
        raise EtcdError(str(error)) from None


def end_of(prefix: bytes) -> bytes:
    """The first name behind all that begin with the prefix; it ends with a slash, so one more in its last byte."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def _once(request: Any, ended: Event) -> Iterator[Any]:
    """The request, and then nothing until `ended`: a proxy takes the end of the requests for the end of the watch."""
    yield request
    ended.wait()
