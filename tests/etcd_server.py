"""A real etcd for the tests, on free ports, with all its files in a folder of its own.

    with Etcd() as etcd:
        etcd.put("/gfrouter/foo.com/127.0.0.1:3031", {"weight": 3}); etcd.delete(name)
        etcd.restart(empty=True); etcd.freeze(); etcd.thaw()

    Etcd(tls=CERTIFICATES)   speaks TLS, and asks each client for a certificate; make_certificates(folder) makes them

It is spoken to in JSON over HTTP (etcd's own gateway), so that neither gRPC nor protobuf come into the test's process,
and what the router sees is written by another client than its own.
"""

import base64
import contextlib
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from scripted import wait_for
from servers import Process, free_port

ETCD = shutil.which("etcd")
needs_etcd = pytest.mark.skipif(ETCD is None, reason="etcd is not on PATH: apt-get install etcd-server")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")

# Of what etcd says while it starts, or is being stopped: ask again.
NOT_READY = (OSError, urllib.error.URLError, ConnectionError)


@dataclass(frozen=True)
class Certificates:
    """Files: the authority, what the server shows (for 127.0.0.1 and localhost), and what a client does."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


class Etcd:
    """One member, a cluster by itself or, by `name`, one of `cluster`, which is name → its URL for the others.

    `address` stays the same over restarts. One of several waits until there is a majority.
    """

    def __init__(
        self, tls: Certificates | None = None, name: str = "default", cluster: dict[str, str] | None = None
    ) -> None:
        assert ETCD
        self._folder = tempfile.TemporaryDirectory(prefix="gfrouter-etcd-")
        self.folder = Path(self._folder.name)
        self.tls = tls
        self.name, self.cluster = name, cluster or {name: peer_url()}
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"{'https' if tls else 'http'}://{self.address}"
        self.token = ""
        self.process = self._start()

    def call(self, path: str, **body: object) -> dict[str, Any]:
        """One call of the gateway: what it answers. Bytes in JSON are base64."""
        data = json.dumps({name: _coded(value) for name, value in body.items()}).encode()
        headers = {"Authorization": self.token} if self.token else {}
        request = urllib.request.Request(f"{self.url}/v3/{path}", data, headers)
        context = ssl.create_default_context(cafile=str(self.tls.ca)) if self.tls else None
        if self.tls and context:
            context.load_cert_chain(self.tls.client_cert, self.tls.client_key)
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            said = json.load(answer)
        assert isinstance(said, dict)
        return said

    def put(self, name: str | bytes, value: object = b"", lease: str = "0") -> int:
        """The revision that this made. A value that is no bytes is written as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return int(self.call("kv/put", key=_bytes(name), value=data, lease=lease)["header"]["revision"])

    def delete(self, name: str | bytes, end: bytes = b"") -> None:
        """The entry; or with `end`, all from this name on that come before `end`."""
        self.call("kv/deleterange", key=_bytes(name), range_end=end)

    def names(self) -> list[bytes]:
        """Of all entries."""
        found = self.call("kv/range", key=b"\0", range_end=b"\0", keys_only=True).get("kvs", [])
        return [base64.b64decode(entry["key"]) for entry in found]

    def compact(self) -> int:
        """Forget what happened before now; the present revision."""
        revision = self.put("/elsewhere")
        self.call("kv/compaction", revision=str(revision), physical=True)
        return revision

    def grant(self, seconds: int) -> str:
        """A lease."""
        return str(self.call("lease/grant", TTL=str(seconds))["ID"])

    def revoke(self, lease: str) -> None:
        self.call("lease/revoke", ID=lease)

    def log_in(self, user: str, password: str) -> None:
        self.token = str(self.call("auth/authenticate", name=user, password=password)["token"])

    def enable_auth(self, user: str, password: str, prefix: bytes) -> None:
        """From now on with passwords: root's is `password`, and `user` has the same and may read below the prefix."""
        for name in ("root", user):
            self.call("auth/user/add", name=name, password=password)
            self.call("auth/role/add", name=name)
            self.call("auth/user/grant", user=name, role=name)
        permission = {"permType": "READ", "key": _coded(prefix), "range_end": _coded(prefix[:-1] + b"0")}
        self.call("auth/role/grant", name=user, perm=permission)
        self.call("auth/enable")
        self.log_in("root", password)

    def kill(self) -> None:
        self.process.kill()

    def restart(self, empty: bool = False) -> None:
        """After SIGKILL, with what it held or with nothing."""
        self.kill()
        self.token = ""
        if empty:
            shutil.rmtree(self.folder / "data")
        self.process = self._start()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _start(self) -> Process:
        peers = self.cluster[self.name]
        words = [
            "--name", self.name, "--data-dir", str(self.folder / "data"), "--unsafe-no-fsync", "--log-level", "warn",
            "--logger", "zap", "--log-outputs", "stderr",
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", ",".join(f"{name}={url}" for name, url in self.cluster.items()),
        ]  # fmt: skip
        if self.tls:
            words += ["--cert-file", str(self.tls.cert), "--key-file", str(self.tls.key)]
            words += ["--trusted-ca-file", str(self.tls.ca), "--client-cert-auth"]
        assert ETCD
        process = Process(ETCD, *words)

        def ready() -> bool:
            assert process.returncode is None, f"etcd ended, saying {process.lines[-5:]}"
            try:
                self.call("maintenance/status")
            except NOT_READY:
                return False
            return True

        try:
            wait_for(ready, "etcd to answer", 20)
        except BaseException:
            process.kill()
            raise
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        self.process.__exit__(kind, error, trace)
        self._folder.cleanup()


def peer_url() -> str:
    """Where a member is to listen for the others."""
    return f"http://127.0.0.1:{free_port()}"


def make_certificates(folder: Path) -> Certificates:
    """An authority of our own, and what it signs."""

    def openssl(*words: str | Path) -> None:
        done = subprocess.run(["openssl", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "names", "-out", f"{name}.pem"),
        )
    files = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Certificates(*(folder / file for file in files))


def _coded(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
