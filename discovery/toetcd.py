"""Announcing in etcd: one key for each of ours, under a lease that ends when we fall silent.

It is what the source `etcd` looks for: PREFIX/KEY/ADDRESS, both percent-encoded, with a JSON object, or nothing where
there is nothing to say. etcd is spoken to by its JSON gateway, on the same port as everything else, so that a worker's
container needs no gRPC. A lease that is gone (etcd was restored, or we slept too long) is replaced by a new one.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from discovery.announcetarget import Accepts, NotAccepting, Registration, Trouble, log_joined, log_left
from discovery.etcdaccess import read_access
from discovery.etcdentry import encode_name
from discovery.httpjson import HttpJson, Refused, tls_of
from discovery.ownaddress import own_address

UNAUTHENTICATED = 401  # what the gateway makes of a token that has expired
GONE = 404  # a lease that has ended
FIELDS = ("weight", "backup", "modifier1", "modifier2")


class ToEtcd:
    """A cluster, of which any member is told."""

    def __init__(self, text: str, said: Registration, accepts: Accepts) -> None:
        self.access = access = read_access(text)
        self.name = access.name
        self.said = said
        for key in said.keys:
            try:
                self.key(key, said.address)
            except UnicodeError:
                raise access.url.wrong(f"its keys are UTF-8, and {key!r} is not") from None
        self.every = min(said.interval, said.ttl / 3)
        tls = tls_of(access.settings.ca, access.settings.cert, access.settings.key) if access.tls else None
        self._http = HttpJson(access.places, self.every, tls, timeout=access.settings.timeout)
        self.where = self._http.where
        self._accepts = accepts
        self._token = ""
        self._lease = ""
        self._address = ""  # the one for which the lease was taken
        self._whole = False  # whether all entries stand

    def renew(self) -> None:
        address = self._own()
        accepting = self._accepts(address)
        if accepting is False or address != self._address:
            self.withdraw()
        if not accepting and not self._lease:
            raise NotAccepting(f"waiting for {address} to accept connections")
        if self._lease and not self._keep():
            self._lease, self._whole = "", False
        if not self._lease:
            self._lease, self._address = str(self._call("/v3/lease/grant", {"TTL": self.said.ttl})["ID"]), address
        if not self._whole:
            value = _b64(self.value())
            for key in self.said.keys:
                entry = {"key": _b64(self.key(key, address)), "value": value, "lease": self._lease}
                self._call("/v3/kv/put", entry)
            self._whole = True
            log_joined(self.said.keys, address, self.name)

    def is_current(self) -> bool:
        try:
            return not self._lease or self._own() == self._address
        except OSError:
            return True

    def withdraw(self) -> None:
        """What cannot be taken back now stays ours to take back."""
        if not self._lease:
            return
        try:
            self._call("/v3/lease/revoke", {"ID": self._lease})
        except Refused as refused:
            if refused.status != GONE:
                raise
        if self._whole:
            log_left(self.said.keys, self._address, self.name)
        self._lease, self._whole = "", False

    def key(self, key: str, address: str) -> bytes:
        """The name of our entry."""
        return encode_name(self.access.prefix + b"/", key, address)

    def value(self) -> bytes:
        """What is said of it."""
        usual = Registration((), "")
        said = {name: getattr(self.said, name) for name in FIELDS if getattr(self.said, name) != getattr(usual, name)}
        return json.dumps(said).encode() if said else b""

    def _own(self) -> str:
        return own_address(self.said.address, self._http.places()[0]) or self._address or self.said.address

    def _keep(self) -> bool:
        """Renew the lease; False where it is gone."""
        answer = self._call("/v3/lease/keepalive", {"ID": self._lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def _call(self, path: str, body: Any) -> Any:
        """One call, as the user whom the URL names, who may have to log in again."""
        if not self.access.user:
            return self._http.call("POST", path, body)
        if self._token:
            try:
                return self._http.call("POST", path, body, {"Authorization": self._token})
            except Refused as refused:
                if refused.status != UNAUTHENTICATED:
                    raise
        try:
            login = {"name": self.access.user, "password": self.access.read_password()}
        except (OSError, ValueError) as error:
            raise Trouble(str(error)) from None
        self._token = str(self._http.call("POST", "/v3/auth/authenticate", login)["token"])
        return self._http.call("POST", path, body, {"Authorization": self._token})


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
