"""What the kernel tells: real processes, real queues, and zeros for what is gone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from router.kernel import Usage, connections, listen_queue, usage
from scripted import wait_for


def test_the_usage_of_a_process_is_what_proc_says() -> None:
    found = usage(os.getpid())
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, virtual = (1024 * int(said[name].split()[0]) for name in ("VmRSS", "VmSize"))
    assert found.vsz == pytest.approx(virtual, rel=0.1)
    assert found.rss == pytest.approx(resident, rel=0.1)
    times = os.times()
    assert found.running_time == pytest.approx(1e6 * (times.user + times.system), abs=100_000)


def test_a_name_with_brackets_and_blanks_confuses_nobody(tmp_path: Path) -> None:
    odd = tmp_path / "a) b ("
    odd.symlink_to(sys.executable)
    with subprocess.Popen([odd, "-c", "input()"], stdin=subprocess.PIPE) as process:
        wait_for(lambda: ") b (" in Path(f"/proc/{process.pid}/stat").read_text(), "the process to have that name")
        wait_for(lambda: usage(process.pid).vsz > usage(process.pid).rss > 1_000_000, "it to be loaded")
        process.kill()


def test_a_process_that_is_gone_uses_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert usage(process.pid) == Usage(0, 0, 0)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_queue_of_a_listener_is_what_waits_to_be_accepted(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listener:
        assert listen_queue(listener) == 0
        clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(3)]
        assert listen_queue(listener) == 3
        listener.accept()[0].close()
        assert listen_queue(listener) == 2
        for client in clients:
            client.close()


def test_of_a_unix_socket_and_of_a_closed_one_the_queue_is_not_known(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        assert listen_queue(listener) == 0
    with socket.create_server(("127.0.0.1", 0)) as closed:
        pass
    assert listen_queue(closed) == 0


def test_the_connections_of_a_unix_socket_wait_or_are_accepted(tmp_path: Path) -> None:
    path = str(tmp_path / "a b.sock")
    assert connections(path) == 0
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        assert connections(path) == 0
        client.connect(path)
        assert (connections(path), connections(path[:-1]), connections(path[1:])) == (1, 0, 0)
        with listener.accept()[0]:
            assert connections(path) == 1
        assert connections(path) == 0
