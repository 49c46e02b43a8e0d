"""A client of the admin API: where it asks, and what goes wrong in one line."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from router.address import AddressError, HostName, Unix, parse_node
from router.place import check_folder, default_place
from router.requestoptions import ADMIN_OFF
from router.uwsgi import printable

PATIENCE = 5.0  # seconds for each step; a router answers in less than one, even with 50,000 nodes
VARIABLE = "GFROUTER_ADMIN"
NO_ROUTER = 2  # the exit status of a client that got no answer


class NoAnswer(Exception):
    """No gfrouter answered, or not with what was asked; the text says where, and what may help."""


def arguments(prog: str, description: str | None) -> argparse.ArgumentParser:
    """What every client takes."""
    parser = argparse.ArgumentParser(prog=f"gfrouter {prog}", description=description)
    parser.add_argument(
        "--admin", metavar="ADDRESS", default=os.environ.get(VARIABLE, ""),
        help=f"ask the gfrouter whose admin API is here (default: ${VARIABLE}, else {place()})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what it answered, as JSON")
    return parser


def answered(work: Callable[[], int]) -> int:
    """The exit status that `work` gives, which asks; a line in its place where there is no answer."""
    try:
        return work()
    except NoAnswer as error:
        print(f"gfrouter: {printable(str(error))}", file=sys.stderr)
        return NO_ROUTER


def place() -> str:
    return default_place(os.environ, os.geteuid())


def ask(address: str, path: str, query: Mapping[str, str] | None = None) -> Any:
    """The JSON at this path of the admin API at `address`, or at the default place where that is empty."""
    words = [
        f"{quote(name)}={quote(value.encode('utf-8', 'surrogateescape'), safe='')}"
        for name, value in (query or {}).items()
    ]
    return _exchange(address, "GET", path + (f"?{'&'.join(words)}" if words else ""))


def tell(address: str, path: str, order: Mapping[str, Any]) -> Any:
    """Have it do what this path is for; gives the JSON of its answer."""
    return _exchange(address, "POST", path, json.dumps(order).encode())


def _exchange(address: str, method: str, path: str, body: bytes | None = None) -> Any:
    where = address or place()
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection = _Connection(where, checked=not address)
    try:
        connection.request(method, f"/v1/{path}", body, headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except TimeoutError:
        raise NoAnswer(f"gfrouter at {where} does not answer within {PATIENCE:.0f} s") from None
    except (AddressError, ValueError) as error:
        raise NoAnswer(f"cannot ask at {where}: {getattr(error, 'reason', error)}") from None
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, http.client.HTTPException):
            raise NoAnswer(f"what answers at {where} is no gfrouter's admin API: it speaks no HTTP") from None
        raise NoAnswer(f"no gfrouter answers at {where}: {why}; --admin ADDRESS names another place") from None
    finally:
        connection.close()
    if not answer.getheader("Server", "").startswith("gfrouter/"):
        raise NoAnswer(f"what answers at {where} is no gfrouter's admin API")
    said = json.loads(body)
    if status != http.HTTPStatus.OK:
        raise NoAnswer(f"gfrouter at {where} refuses: {said['error']}")
    return said


class _Connection(http.client.HTTPConnection):
    """To any form of address. `checked`: its folder must be this user's own."""

    def __init__(self, address: str, *, checked: bool) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.address = address
        self.checked = checked

    def connect(self) -> None:
        if self.address == ADMIN_OFF:
            raise ValueError(f"{VARIABLE} says that it is off; --admin ADDRESS names a place")
        target = parse_node(self.address)
        if isinstance(target, HostName):
            self.sock = socket.create_connection((target.host, target.port), PATIENCE)
            return
        if self.checked and self.address.startswith("/tmp/"):  # where a stranger may have put a socket of that name
            check_folder(os.path.dirname(self.address), os.geteuid())
        self.sock = socket.socket(socket.AF_UNIX if isinstance(target, Unix) else target.family)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(target.sockaddr)
