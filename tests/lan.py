"""A network of a few machines on this one: namespaces on a bridge, each with addresses and an /etc/hosts of its own.

    with Lan(tmp_path) as lan:
        router, worker = lan.host("router"), lan.host("worker")     10.77.0.2, 10.77.0.3; each knows the others' names
        Router(..., launcher=router.launcher)                       what is started so runs there
        worker.run("ip", "address", "add", "10.77.0.9/24", "dev", "eth0")
        lan.say(router="10.77.0.9")                                 what names mean from now on, beside the hosts'

A unix socket's path is the same in there and out here, so that is how a test asks a router in there. Nothing in it can
reach anything outside. All is gone with the processes that hold the namespaces.
"""

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from servers import Process

NETWORK = "10.77.0"
# Holds a machine's namespaces; "$1", "$2" and "$3" become its /etc/hosts, nsswitch.conf and resolv.conf.
HOLDER = (
    *("unshare", *(() if os.geteuid() == 0 else ("-r",)), "-n", "-m", "sh", "-c"),
    "ip link set lo up && mount --bind $1 /etc/hosts && mount --bind $2 /etc/nsswitch.conf && "
    "mount --bind $3 /etc/resolv.conf && echo ready && exec sleep 600",
    "sh",
)


class Host:
    """One machine. `launcher` are the words before a command that run it there."""

    def __init__(self, holder: Process, address: str) -> None:
        self.pid = holder.pid
        self.address = address
        self.launcher = ("nsenter", "-t", str(holder.pid), "-n", "-m", f"--wd={Path.cwd()}")

    def run(self, *argv: str | Path) -> str:
        """A short command there; what it says."""
        done = subprocess.run([*self.launcher, *argv], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout


class Lan:
    """The bridge and the machines on it. `nameserver` is what the machines' resolv.conf names."""

    def __init__(self, folder: Path, nameserver: str = "127.0.0.1") -> None:
        self.hosts: dict[str, str] = {}
        self.files = [folder / name for name in ("hosts", "nsswitch.conf", "resolv.conf")]
        self.files[1].write_text("hosts: files\n")
        self.files[2].write_text(f"nameserver {nameserver}\noptions timeout:1 attempts:1\n")
        self._said: dict[str, str] = {}
        self.say()
        self._stack = ExitStack()
        try:
            self._bridge = Host(self._hold(), "")
            self._bridge.run("ip", "link", "add", "br0", "type", "bridge")
            self._bridge.run("ip", "link", "set", "br0", "up")
        except BaseException:
            self._stack.close()
            raise

    def host(self, name: str) -> Host:
        """One more machine."""
        number = len(self.hosts) + 2
        host = Host(self._hold(), f"{NETWORK}.{number}")
        port = f"port{number}"
        self._bridge.run(*f"ip link add {port} type veth peer name eth0 netns {host.pid}".split())
        self._bridge.run(*f"ip link set {port} up master br0".split())
        host.run(*f"ip address add {host.address}/24 dev eth0".split())
        host.run(*["ip", "link", "set", "eth0", "up"])
        self.hosts[name] = host.address
        self.say(**self._said)
        return host

    def say(self, **names: str) -> None:
        """What these names mean from now on; several addresses of one with blanks between."""
        self._said = names
        said = {"localhost": "127.0.0.1", **self.hosts, **names}
        # In place, as it is this very file that is mounted.
        self.files[0].write_text("".join(f"{one} {name}\n" for name, text in said.items() for one in text.split()))

    def _hold(self) -> Process:
        holder = self._stack.enter_context(Process(*HOLDER, *self.files))
        holder.wait_line("^ready$")
        return holder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stack.close()


def _can_hold() -> bool:
    files = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
    words = [word.replace("exec sleep 600", "ip link add br0 type bridge") for word in HOLDER]
    try:
        return subprocess.run([*words, *files], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_lan = pytest.mark.skipif(
    not _can_hold(), reason="needs util-linux, iproute2 and the right to make network and mount namespaces"
)
