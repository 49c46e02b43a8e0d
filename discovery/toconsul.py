"""Announcing at a Consul agent: one service for each key, with a check that is critical when we fall silent.

It is what the source `consul` looks for: the tag `uwsgi`, another with the key, the modifiers in the meta, Consul's own
weight. Each renewal passes the checks; where the agent does not know one (it was restarted, or somebody deregistered
it), the services are registered again. With `:PORT` the address is left to the agent: it is that of its own machine.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from discovery.announcetarget import Accepts, NotAccepting, Registration, Trouble, log_joined, log_left
from discovery.consulentry import BACKUP, KEY, LARGEST_WEIGHT, MODIFIER1, MODIFIER2
from discovery.consulplace import TAG, Access, place_of, read_token, refuse_token, word
from discovery.httpjson import HttpJson, Refused, tls_of
from discovery.ownaddress import own_address
from router.address import HostName, Unix, parse_node
from router.url import parse_url, read_settings, setting

UNKNOWN = (404, 500)  # what an agent says of a service that it does not have; older ones say the latter
LEAST_DEREGISTER = 60  # seconds; Consul takes no less


@dataclass(frozen=True)
class Settings(Access):
    """What the URL of an agent may say behind its `?`: of the agent the same as that of the source `consul`."""

    service: str = setting("", word, "NAME", "name of the service (default: the key, with - for what is not legal)")
    tag: str = setting(TAG, word, "TAG", "tag of the service")


class ToConsul:
    """The agent on this machine, or another one that is told of nodes."""

    def __init__(self, text: str, said: Registration, accepts: Accepts) -> None:
        url = parse_url(text)
        refuse_token(url)
        self.settings = ours = read_settings(url, Settings)
        self.place = there = place_of(url, ours, os.environ)
        if isinstance(parse_node(said.address), Unix):
            raise url.wrong(f"Consul knows no unix sockets ({said.address})")
        for key in said.keys:
            try:
                key.encode()
            except UnicodeError:
                raise url.wrong(f"its texts are UTF-8, and the key {key!r} is not") from None
        if said.weight > LARGEST_WEIGHT:
            raise url.wrong(f"Consul knows no weight over {LARGEST_WEIGHT}")
        self.name = url.shown
        self.said = said
        self.every = min(said.interval, said.ttl / 3)
        tls = tls_of(there.ca, there.cert, there.key) if there.tls else None
        self._http = HttpJson([(there.host.strip("[]"), there.port)], self.every, tls, there.server_name)
        self.where = self._http.where
        self._accepts = accepts
        self._begun = False  # something may be registered
        self._registered = False
        self._headers()  # a token that cannot be read stops the start

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
            try:
                self._put(f"/v1/agent/service/deregister/{_path(self._id(key))}")
            except Refused as refused:
                if refused.status not in UNKNOWN:
                    raise
        self._begun = self._registered = False
        log_left(self.said.keys, self.said.address, self.name)

    def service(self, key: str) -> dict[str, Any]:
        """What the agent is told of one key."""
        said = self.said
        target = parse_node(said.address)
        assert not isinstance(target, Unix)
        host, port = (target.host, target.port) if isinstance(target, HostName) else target.sockaddr[:2]
        meta = {MODIFIER1: said.modifier1, MODIFIER2: said.modifier2, BACKUP: said.backup}
        return {
            "ID": self._id(key),
            "Name": self.settings.service or re.sub("[^a-zA-Z0-9]+", "-", key).strip("-") or TAG,
            "Tags": [self.settings.tag, f"{KEY}={key}"],  # a key in the meta may hold no comma
            "Address": "" if said.address.startswith(":") else host,
            "Port": port,
            "Meta": {name: str(value) for name, value in meta.items() if value},
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
        try:
            token = read_token(self.place)
        except ValueError as error:
            raise Trouble(str(error)) from None
        return {"X-Consul-Token": token} if token else {}


def _path(text: str) -> str:
    return quote(text, safe="")
