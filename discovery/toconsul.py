"""Announcing at a Consul agent: one service for each key, with a check that is critical when we fall silent.

It is what the source `consul` looks for: the tag `uwsgi`, the key and the modifiers in the meta, the weight as Consul's
own. Each renewal passes the checks; where the agent does not know one (it was restarted, or somebody deregistered it),
the services are registered again. With `:PORT` the address is left to the agent: it is that of its own machine.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from discovery.announcetarget import Accepts, NotAccepting, Registration, log_joined, log_left
from discovery.httpjson import HttpJson, Refused
from discovery.ownaddress import own_address
from discovery.secure import read_secret, tls_of
from discovery.whereabouts import Whereabouts, of_hosts
from router.address import HostName, Unix, parse_node
from router.url import parse_url, read_settings, setting
from router.values import file_name, flag

PORT = 8500
TAG = "uwsgi"
LEAST_DEREGISTER = 60  # seconds; Consul takes no less
MOST_WEIGHT = 65_535  # Consul's


@dataclass(frozen=True)
class Settings:
    """What the URL of an agent may say behind its `?`."""

    service: str = setting("", str, "NAME", "name of the service (default: the key, with - for what is not legal)")
    tag: str = setting(TAG, str, "TAG", "tag of the service")
    token_file: str = setting("", file_name, "FILE", "holds the ACL token (default: CONSUL_HTTP_TOKEN)")
    tls: bool = setting(False, flag, "true", "speak HTTPS")
    ca_file: str = setting("", file_name, "FILE", "certificates to check the agent's by")


class ToConsul:
    """The agent on this machine, or another one that is told of nodes."""

    def __init__(self, text: str, said: Registration, accepts: Accepts) -> None:
        url = parse_url(text)
        self.settings = read_settings(url, Settings)
        self.name = url.shown
        hosts = url.hosts(PORT) or [("127.0.0.1", PORT)]
        if isinstance(parse_node(said.address), Unix):
            raise url.wrong(f"Consul knows no unix sockets ({said.address})")
        if said.weight > MOST_WEIGHT:
            raise url.wrong(f"Consul knows no weight over {MOST_WEIGHT}")
        self.said = said
        self.every = min(said.interval, said.ttl / 3)
        self.where = Whereabouts(of_hosts(hosts), self.every)
        self._http = HttpJson(self.where, hosts[0][0], tls_of(self.settings.tls, self.settings.ca_file))
        self._accepts = accepts
        self._begun = False  # something may be registered
        self._registered = False
        _ = self._headers()  # a token that cannot be read stops the start

    def renew(self) -> None:
        self._knock()
        if self._registered:
            try:
                for key in self.said.keys:
                    self._put(f"/v1/agent/check/pass/{_path(self._check(key))}")
                return
            except Refused:
                self._registered = False  # whatever is wrong with a check, a new registration has a new one
        self._begun = True
        for key in self.said.keys:
            self._put("/v1/agent/service/register?replace-existing-checks=true", self.service(key))
        self._registered = True
        log_joined(self.said.keys, self.said.address, self.name)

    def is_current(self) -> bool:
        return True

    def withdraw(self) -> None:
        if not self._begun:
            return
        for key in self.said.keys:
            self._put(f"/v1/agent/service/deregister/{_path(self._id(key))}")
        self._begun = self._registered = False
        log_left(self.said.keys, self.said.address, self.name)

    def service(self, key: str) -> dict[str, Any]:
        """What the agent is told of one key."""
        said = self.said
        target = parse_node(said.address)
        assert not isinstance(target, Unix)
        host, port = (target.host, target.port) if isinstance(target, HostName) else target.sockaddr[:2]
        meta = {"uwsgi-key": key}
        for name in ("modifier1", "modifier2", "backup"):
            if value := getattr(said, name):
                meta[f"uwsgi-{name}"] = str(value)
        return {
            "ID": self._id(key),
            "Name": self.settings.service or re.sub("[^a-zA-Z0-9]+", "-", key).strip("-") or TAG,
            "Tags": [self.settings.tag],
            "Address": "" if said.address.startswith(":") else host,
            "Port": port,
            "Meta": meta,
            "Weights": {"Passing": said.weight, "Warning": 1},
            "Check": {
                "CheckID": self._check(key),
                "Name": "gfrouter announce",
                "TTL": f"{said.ttl}s",
                "Status": "passing",
                "DeregisterCriticalServiceAfter": f"{max(LEAST_DEREGISTER, 3 * said.ttl)}s",
            },
        }

    def _knock(self) -> None:
        address = own_address(self.said.address, self._http.places()[0]) or self.said.address
        accepting = self._accepts(address)
        if accepting is False:
            self.withdraw()
        if not accepting and not self._registered:
            raise NotAccepting(f"waiting for {address} to accept connections")

    def _id(self, key: str) -> str:
        return f"gfrouter:{key}:{self.said.address}"

    def _check(self, key: str) -> str:
        return f"service:{self._id(key)}"

    def _put(self, path: str, body: Any = None) -> None:
        self._http.call("PUT", path, body, self._headers())

    def _headers(self) -> dict[str, str]:
        """The token is read anew each time: files of tokens are rotated."""
        file = self.settings.token_file
        token = read_secret("token-file", file) if file else os.environ.get("CONSUL_HTTP_TOKEN", "")
        return {"X-Consul-Token": token} if token else {}


def _path(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")
