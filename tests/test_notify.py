"""What systemd is told, on a socket of ours, and whether it takes the units."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from router import notify
from servers import Router

CONTRIB = Path(__file__).parent.parent / "contrib" / "systemd"


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_a_message_arrives(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "n") if form == "path" else f"\0{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        notify.reloading()
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=.*", manager.recv(999))


@pytest.mark.parametrize("value", ["", "nonsense", "/no/such/socket", "@" + "x" * 200])
def test_who_does_not_listen_costs_nothing(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify.ready()


def test_who_does_not_read_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name := str(tmp_path / "n"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        manager.bind(name)
        other.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", name)
        thread = threading.Thread(target=notify.ready, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert "cannot tell NOTIFY_SOCKET" in caplog.text


@pytest.mark.slow
def test_a_life_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(30)
        with Router(env={"NOTIFY_SOCKET": str(tmp_path / "n")}) as router:
            assert manager.recv(999).startswith(b"READY=1")
            router.send_signal(signal.SIGHUP)
            assert manager.recv(999).startswith(b"RELOADING=1")
            assert manager.recv(999).startswith(b"READY=1")
            router.send_signal(signal.SIGTERM)
            assert manager.recv(999).startswith(b"STOPPING=1")
            assert router.wait() == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in CONTRIB.iterdir():  # the command of the unit is installed on no machine that tests
        text = re.sub("^ExecStart=[^ ]+", f"ExecStart={shutil.which('true')}", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in CONTRIB.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "gfrouter" in line]) == (0, [])
