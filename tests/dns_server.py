"""DNS servers for the tests: a real one, and one that answers by script.

with Knot(zone("foo.com", "_uwsgi._tcp SRV 10 1 3031 web", "web A 127.0.0.1")) as knot:
    knot.update("foo.com", add=["_uwsgi._tcp 1 SRV 10 1 3032 web"])       # or delete=["_uwsgi._tcp"]
    knot.freeze(); knot.thaw(); knot.kill(); knot.start("foo.com" zone anew)

with ScriptedDns() as dns:
    dns.says["_uwsgi._tcp.foo.com SRV"] = records("10 1 3031 web.foo.com", additional=["web.foo.com 60 A 127.0.0.1"])
    dns.otherwise = SERVFAIL
    ...dns.place...dns.asked...

replies: records nothing SERVFAIL REFUSED silence truncated garbage foreign; any function of (query, tcp) to bytes
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.update
import pytest

from scripted import wait_for
from servers import Process, free_port

KNOT = shutil.which("knotd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
needs_knot = pytest.mark.skipif(KNOT is None, reason="knotd is not on PATH: apt-get install knot")

HEAD = """$ORIGIN {name}.
$TTL 1
@ SOA ns hostmaster 1 3600 600 86400 {negative}
@ NS ns
ns A 127.0.0.1
"""


def zone(name: str, *lines: str, negative: int = 1) -> dict[str, str]:
    """A zone's file, by its name; names in `lines` are relative to it, and the TTL is a second where none stands."""
    return {name: HEAD.format(name=name, negative=negative) + "".join(f"{line}\n" for line in lines)}


class Knot:
    """A real knotd with these zones, which anybody on 127.0.0.1 may update. It may be stopped and started again."""

    def __init__(self, zones: dict[str, str], host: str = "127.0.0.1") -> None:
        assert KNOT
        self.host, self.port = host, free_port(host)
        self.place = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="gfrouter-knot-")
        self._process: Process | None = None
        self.start(zones)

    def start(self, zones: dict[str, str]) -> None:
        """Begin, or begin anew, with these zones and nothing else."""
        self.kill()
        assert KNOT
        folder = Path(self._folder.name)
        shutil.rmtree(folder / "db", ignore_errors=True)
        (folder / "db").mkdir()
        for name, text in zones.items():
            (folder / "db" / f"{name}.zone").write_text(text)
        (folder / "knot.conf").write_text(self._configuration(folder, list(zones)))
        self._process = Process(KNOT, "-c", folder / "knot.conf", "-s", folder / "knot.sock")
        for name in zones:
            wait_for(lambda name=name: self._answers(name), f"knot to answer for {name}")  # type: ignore[misc]
        if not zones:
            self._process.wait_line("server started")

    def update(self, name: str, *, add: Sequence[str] = (), delete: Sequence[str] = ()) -> None:
        """Add records as `NAME TTL TYPE DATA`, delete all those of names, or of one type as `NAME TYPE`."""
        update = dns.update.UpdateMessage(name)
        for text in delete:
            update.delete(*text.split())
        for text in add:
            update.add(*text.split(maxsplit=3))
        answer = dns.query.tcp(update, self.host, port=self.port, timeout=10)
        assert answer.rcode() == dns.rcode.NOERROR, answer

    def freeze(self) -> None:
        """It is there and answers nothing."""
        assert self._process
        self._process.send_signal_to_all(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal_to_all(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.__exit__(None, None, None)
            self._process = None

    def _configuration(self, folder: Path, names: Sequence[str]) -> str:
        zones = "".join(f"  - domain: {name}\n    acl: anybody\n" for name in names)
        return f"""server:
    rundir: {folder}
    listen: {self.host}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {folder}/db
acl:
  - id: anybody
    address: [127.0.0.1, "::1"]
    action: update
template:
  - id: default
    storage: {folder}/db
    file: "%s.zone"
    zonefile-sync: -1
zone:
{zones}"""

    def _answers(self, name: str) -> bool:
        assert self._process and self._process.returncode is None
        query = dns.message.make_query(name, "SOA")
        with contextlib.suppress(OSError, dns.exception.Timeout):
            return bool(dns.query.udp(query, self.host, port=self.port, timeout=0.2).answer)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.kill()
        self._folder.cleanup()


Reply = Callable[[dns.message.Message, bool], bytes | None]


def records(
    *data: str,
    ttl: int = 60,
    aliases: Sequence[str] = (),
    additional: Sequence[str] = (),
    authority: Sequence[str] = (),
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
) -> Reply:
    """Records of the type that is asked for. `aliases` leads to their name; others are `NAME TTL TYPE DATA`."""

    def reply(query: dns.message.Message, tcp: bool) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        response.set_rcode(rcode)
        question = query.question[0]
        name = question.name
        for alias in aliases:
            response.answer.append(dns.rrset.from_text(name, ttl, "IN", "CNAME", f"{alias}."))
            name = response.answer[-1][0].target
        if data:
            response.answer.append(dns.rrset.from_text_list(name, ttl, "IN", question.rdtype, data))
        for text in additional:
            response.additional.append(_rrset(text))
        for text in authority:
            response.authority.append(_rrset(text))
        return response.to_wire(max_size=65535)

    return reply


def nothing(name: str = "foo.com", ttl: int = 60, rcode: dns.rcode.Rcode = dns.rcode.NXDOMAIN) -> Reply:
    """There is no such name, or with NOERROR no such record, for so long."""
    return records(authority=[f"{name} 3600 SOA ns.{name}. hostmaster.{name}. 1 3600 600 86400 {ttl}"], rcode=rcode)


SERVFAIL = records(rcode=dns.rcode.SERVFAIL)
REFUSED = records(rcode=dns.rcode.REFUSED)


def silence(query: dns.message.Message, tcp: bool) -> None:
    """No answer."""


def truncated(reply: Reply) -> Reply:
    """By UDP only that there is more than fits."""

    def cut(query: dns.message.Message, tcp: bool) -> bytes | None:
        if tcp:
            return reply(query, tcp)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response.to_wire()

    return cut


def garbage(data: bytes = b"\xff" * 40) -> Reply:
    """These bytes behind the question's id."""
    return lambda query, tcp: struct.pack(">H", query.id) + data


def foreign(reply: Reply) -> Reply:
    """The answer to another question's id."""

    def forged(query: dns.message.Message, tcp: bool) -> bytes | None:
        data = reply(query, tcp)
        return data and struct.pack(">H", query.id ^ 1) + data[2:]

    return forged


class ScriptedDns:
    """Listens by UDP and TCP from construction on. `asked` counts the questions, `_uwsgi._tcp.foo.com SRV`.

    `says` has the reply to each of them, `otherwise` that to all others. `transports` are those that were used.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.says: dict[str, Reply] = {}
        self.otherwise: Reply = nothing()
        self.asked: Counter[str] = Counter()
        self.transports: Counter[str] = Counter()
        self.host, self.port = host, free_port(host)
        self.place = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._tcp = socket.socket(family)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self._udp, self._tcp):
            sock.bind((host, self.port))
            sock.settimeout(0.05)  # seconds, after which it is looked whether all is over
        self._tcp.listen(64)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=target) for target in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                data, address = self._udp.recvfrom(65535)
                answer = self._reply(data, tcp=False)
                if answer is not None:
                    self._udp.sendto(answer, address)

    def _serve_tcp(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                sock, _ = self._tcp.accept()
                with sock, sock.makefile("rb") as file:
                    sock.settimeout(5)
                    (size,) = struct.unpack(">H", file.read(2))
                    answer = self._reply(file.read(size), tcp=True)
                    if answer is not None:
                        sock.sendall(struct.pack(">H", len(answer)) + answer)

    def _reply(self, data: bytes, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        text = f"{question.name.to_text(omit_final_dot=True).lower()} {dns.rdatatype.to_text(question.rdtype)}"
        self.asked[text] += 1
        self.transports["tcp" if tcp else "udp"] += 1
        return self.says.get(text, self.otherwise)(query, tcp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()


def _rrset(text: str) -> dns.rrset.RRset:
    name, ttl, rdtype, data = text.split(maxsplit=3)
    return dns.rrset.from_text(f"{name}.", int(ttl), "IN", rdtype, data)
