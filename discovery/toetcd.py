"""Announcing in etcd: one key for each of ours, under a lease that ends when we fall silent.

It is what the source `etcd` looks for: PREFIX/KEY/ADDRESS, both percent-encoded, with a JSON object, or nothing where
there is nothing to say. etcd is spoken to by its JSON gateway, on the same port as everything else, so that a worker's
container needs no gRPC. A lease that is gone (etcd was restored, or we slept too long) is replaced by a new one.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from discovery.announcetarget import Accepts, NotAccepting, Registration, log_joined, log_left
from discovery.httpjson import HttpJson, Refused
from discovery.ownaddress import own_address
from discovery.secure import read_secret, tls_of
from discovery.whereabouts import Whereabouts, of_hosts
from router.url import parse_url, read_settings, setting
from router.values import file_name, flag

PORT = 2379
PREFIX = "/gfrouter"
UNAUTHENTICATED = 401  # what the gateway makes of a token that has expired


@dataclass(frozen=True)
class Settings:
    """What the URL of a cluster may say behind its `?`."""

    password_file: str = setting("", file_name, "FILE", "holds the password (default: the URL's, or ETCD_PASSWORD)")
    tls: bool = setting(False, flag, "true", "speak HTTPS")
    ca_file: str = setting("", file_name, "FILE", "certificates to check the servers' by")


class ToEtcd:
    """A cluster, of which any member is told."""

    def __init__(self, text: str, said: Registration, accepts: Accepts) -> None:
        url = parse_url(text)
        self.settings = read_settings(url, Settings)
        self.name = url.shown
        hosts = url.hosts(PORT) or [("127.0.0.1", PORT)]
        self.said = said
        self.every = min(said.interval, said.ttl / 3)
        self.where = Whereabouts(of_hosts(hosts), self.every)
        self._http = HttpJson(self.where, hosts[0][0], tls_of(self.settings.tls, self.settings.ca_file))
        self._accepts = accepts
        self._prefix = url.path.rstrip("/") or PREFIX
        self._user, self._password = url.user, url.password
        self._token = ""
        self._lease = ""
        self._put_at = ""  # the address under which the lease's keys stand, once all of them do
        _ = self._secret()  # one that cannot be read stops the start

    def renew(self) -> None:
        address = self._own()
        accepting = self._accepts(address)
        if self._lease and (accepting is False or self._put_at not in ("", address)):
            self.withdraw()
        if not accepting and not (self._put_at == address and accepting is None):
            raise NotAccepting(f"waiting for {address} to accept connections")
        if self._lease and not self._keep():
            self._lease = self._put_at = ""
        if not self._lease:
            self._lease = str(self._call("/v3/lease/grant", {"TTL": self.said.ttl})["ID"])
        if self._put_at != address:
            for key in self.said.keys:
                self._call(
                    "/v3/kv/put",
                    {"key": _b64(self.key(key, address)), "value": _b64(self.value()), "lease": self._lease},
                )
            self._put_at = address
            log_joined(self.said.keys, address, self.name)

    def is_current(self) -> bool:
        if not self._put_at:
            return True
        try:
            return self._own() == self._put_at
        except OSError:
            return True

    def withdraw(self) -> None:
        if not self._lease:
            return
        address, self._put_at = self._put_at, ""
        self._call("/v3/lease/revoke", {"ID": self._lease})
        self._lease = ""
        if address:
            log_left(self.said.keys, address, self.name)

    def key(self, key: str, address: str) -> str:
        """Where our node stands."""
        return f"{self._prefix}/{_quoted(key)}/{_quoted(address)}"

    def value(self) -> str:
        """What is said of it."""
        usual = Registration((), "")
        names = ("weight", "backup", "modifier1", "modifier2")
        said = {name: getattr(self.said, name) for name in names if getattr(self.said, name) != getattr(usual, name)}
        return json.dumps(said) if said else ""

    def _own(self) -> str:
        return own_address(self.said.address, self._http.places()[0]) or self._put_at or self.said.address

    def _keep(self) -> bool:
        """Renew the lease; False where it is gone."""
        answer = self._call("/v3/lease/keepalive", {"ID": self._lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def _call(self, path: str, body: Any) -> Any:
        """One call, as the user whom the URL names, who may have to log in again."""
        if not self._user:
            return self._http.call("POST", path, body)
        if self._token:
            try:
                return self._http.call("POST", path, body, {"Authorization": self._token})
            except Refused as refused:
                if refused.status != UNAUTHENTICATED:
                    raise
        login = {"name": self._user, "password": self._secret()}
        self._token = str(self._http.call("POST", "/v3/auth/authenticate", login)["token"])
        return self._http.call("POST", path, body, {"Authorization": self._token})

    def _secret(self) -> str:
        if file := self.settings.password_file:
            return read_secret("password-file", file)
        return self._password or os.environ.get("ETCD_PASSWORD", "")


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _b64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
