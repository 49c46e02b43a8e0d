"""Registers a worker with etcd, for as long as the process that started this one lives.

python3 register.py [--etcd URL] [--prefix PREFIX] [--ttl SECONDS] [--value JSON] KEY ADDRESS

The entry PREFIX/KEY/ADDRESS hangs on a lease, which is renewed three times in its life and revoked at the end (SIGTERM,
SIGINT, or the parent gone). Whatever ends without a word is forgotten by etcd after SECONDS. Where etcd has lost the
lease, or everything, the worker is registered again. It needs Python alone: etcd is spoken to in JSON over HTTP.
"""

import argparse
import base64
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from typing import Any
from urllib.parse import quote

ANSWER_S = 3  # for etcd to answer
LOOK_S = 1  # between looks at whether the parent is still there


def main() -> None:
    parser = argparse.ArgumentParser(description="Register a worker with etcd while the parent process lives.")
    parser.add_argument("--etcd", default="http://127.0.0.1:2379", metavar="URL")
    parser.add_argument("--prefix", default="/gfrouter")
    parser.add_argument("--ttl", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--value", default="", metavar="JSON", help='as {"weight": 2, "modifier1": 9}')
    parser.add_argument("key")
    parser.add_argument("address")
    words = parser.parse_args()
    name = f"{words.prefix}/{quote(words.key, safe=':')}/{quote(words.address, safe=':[]@')}"
    lease = Lease(words.etcd, words.ttl, name, words.value)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    parent = os.getppid()
    due = 0.0
    try:
        while os.getppid() == parent:
            if time.monotonic() >= due:
                due = time.monotonic() + (words.ttl / 3 if lease.keep() else LOOK_S)
            time.sleep(LOOK_S)
    finally:
        lease.revoke()


def leave(number: int, frame: object) -> None:
    sys.exit(0)


class Lease:
    """One entry that etcd forgets `ttl` seconds after it heard of us last."""

    def __init__(self, etcd: str, ttl: int, name: str, value: str) -> None:
        self.etcd, self.ttl, self.name, self.value = etcd, ttl, name, value
        self.id = ""

    def keep(self) -> bool:
        """Renew it, or begin it where it is not there any more; False where etcd is of no help now."""
        try:
            if not self.id or "TTL" not in self.call("lease/keepalive", ID=self.id)["result"]:
                lease = self.call("lease/grant", TTL=str(self.ttl))["ID"]
                self.call("kv/put", key=coded(self.name), value=coded(self.value), lease=lease)
                self.id = lease
        except (OSError, ValueError, KeyError) as error:
            print(f"register.py: {self.name}: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def revoke(self) -> None:
        if self.id:
            with contextlib.suppress(OSError, ValueError):
                self.call("lease/revoke", ID=self.id)

    def call(self, path: str, **body: str) -> Any:
        with urllib.request.urlopen(f"{self.etcd}/v3/{path}", json.dumps(body).encode(), ANSWER_S) as answer:
            return json.load(answer)


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


if __name__ == "__main__":
    main()
