"""Daemonizing: the command ends when the daemon serves, or says why it does not, and then there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clients import announce, ask, request
from daemons import Daemon
from router import daemon as background
from scripted import HELLO, ScriptedNode, connect, listen, wait_for
from servers import Process, free_address, router_command

GET = request("foo.com")


def stat_of(pid: int) -> list[str]:
    """From the process's state on: state, parent, group, session."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_the_command_ends_when_the_daemon_serves(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, ScriptedNode() as node:
        assert (daemon.done.returncode, daemon.done.stdout, daemon.done.stderr) == (0, "", "")
        connect(daemon.address).close()
        assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
        assert any(f"spawned uWSGI master process (pid: {daemon.pid})" in line for line in daemon.lines())
        session = int(stat_of(daemon.pid)[3])
        assert session not in (daemon.pid, os.getsid(0)), "it cannot take a terminal, nor does it belong to ours"
        assert os.readlink(f"/proc/{daemon.pid}/fd/0") == os.devnull
        assert {os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in (1, 2)} == {str(daemon.log)}
        announce(daemon.subscriptions, "foo.com", node.address)
        wait_for(lambda: ask(daemon.address, GET) == HELLO, "an answer")
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_end()
        assert daemon.pid_file.exists(), "as uWSGI, without vacuum"


@pytest.mark.slow
def test_a_daemon_starts_anew_in_place_and_stays_one(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--vacuum") as daemon:
        for number in (signal.SIGHUP, signal.SIGUSR2):
            os.kill(daemon.pid, number)
            daemon.wait_line("spawned uWSGI fastrouter 1 ", 2 if number == signal.SIGHUP else 3)
            daemon.wait_line("of before", 1 if number == signal.SIGHUP else 2)
            assert daemon.runs
        assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
        assert sum("writing pidfile" in line for line in daemon.lines()) == 1
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_end()
        assert not daemon.pid_file.exists()


@pytest.mark.parametrize("where", ["subscription", "option", "log"])
def test_what_stops_the_daemon_is_the_commands_own_failure(where: str, tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        words, reason = {
            "subscription": (["--subscription-server", taken], "in use by another socket"),
            "option": (["--timeout", "x"], "--timeout x: not a whole number"),
            "log": (["--daemonize", str(tmp_path / "no" / "log")], "cannot open the log file"),
        }[where]
        with Daemon(tmp_path, *words) as daemon:
            assert daemon.done.returncode == 1
            assert daemon.done.stderr.startswith("gfrouter: ")
            assert reason in daemon.done.stderr
            assert not daemon.pid_file.exists()
            with pytest.raises(ConnectionRefusedError):
                connect(daemon.address)


def test_a_daemon_that_dies_without_a_word_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, resource\n"
        "def broken(*_): os._exit(3)\n"
        "resource.setrlimit = broken\n"
        "import resource as r; r.getrlimit = broken\n"
    )
    with Daemon(tmp_path, env={"PYTHONPATH": str(tmp_path)}) as daemon:
        assert (daemon.done.returncode, daemon.done.stderr) == (
            1, f"gfrouter: no daemon has come up; {daemon.log} says more\n"
        )  # fmt: skip


def test_nobody_is_left_where_nobody_waits_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent gives up, or is interrupted, after it has heard the daemon's pid."""
    reader, writer = os.pipe()
    daemon = subprocess.Popen(["sleep", "60"])
    os.write(writer, b"%d\n" % daemon.pid)
    monkeypatch.setattr(background, "WAIT", 0.1)
    with pytest.raises(SystemExit) as caught:
        background._wait(reader, "log")
    assert caught.value.code == 1
    assert daemon.wait(10) == -signal.SIGTERM
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("variable", "value"), [("NOTIFY_SOCKET", "@nobody"), (None, None)])
def test_under_a_supervisor_it_is_refused(variable: str | None, value: str | None, tmp_path: Path) -> None:
    if variable is None:
        with pytest.raises(ValueError, match="the first process of a container"):
            background.refuse({}, 1)
        return
    assert value
    with Daemon(tmp_path, env={variable: value}) as daemon:
        assert daemon.done.returncode == 1
        assert daemon.done.stderr == (
            "gfrouter: daemonize: whoever set NOTIFY_SOCKET supervises this process, leave that out\n"
        )


def test_daemonize2_speaks_at_the_terminal_until_all_is_bound(tmp_path: Path) -> None:
    log, pid_file = tmp_path / "log", tmp_path / "pid"
    words = ["--listen", free_address(), "--subscription-server", free_address()]
    command = [*router_command(fastrouter=False), *words, "--daemonize2", str(log), "--pidfile2", str(pid_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    try:
        assert done.returncode == 0
        assert "uWSGI fastrouter bound on" in done.stderr
        assert "spawned uWSGI fastrouter 1" in log.read_text()
        assert "bound on" not in log.read_text()
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


def test_systemds_sockets_are_the_daemons(tmp_path: Path) -> None:
    with listen("127.0.0.1:0") as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        script = (
            f"import os, sys; os.dup2({fd}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
            "os.execvp(sys.argv[1], sys.argv[1:])"
        )
        words = ["--subscription-server", free_address(), "--warm-timeout", "0"]
        files = ["--daemonize", str(tmp_path / "log"), "--pidfile", str(tmp_path / "pid")]
        with Process(
            sys.executable, "-c", script, *router_command(fastrouter=False), *words, *files, pass_fds=[fd]
        ) as run:
            assert run.wait(60) == 0
        try:
            assert f"uWSGI fastrouter bound on {address} fd" in (tmp_path / "log").read_text()
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)


@pytest.mark.parametrize(("words", "mode"), [([], 0o777), (["--umask", "027"], 0o750)])
def test_its_sockets_are_everybodys_unless_a_mask_is_given_as_in_uwsgi(
    words: list[str], mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "router.sock"
    with Daemon(tmp_path, "--listen", path, *words) as daemon:
        assert daemon.done.returncode == 0
        assert path.stat().st_mode & 0o777 == mode
        assert daemon.pid_file.stat().st_mode & 0o022 == 0, "nor may everybody say who is to be stopped"
        assert daemon.log.stat().st_mode & 0o777 == 0o640


def test_the_launcher_is_told_once() -> None:
    reader, writer = os.pipe()
    launcher = background.Launcher(writer)
    launcher.ready()
    launcher.ready()
    launcher.failed("late")
    with os.fdopen(reader, "rb") as file:
        assert file.read() == background.READY
    background.Launcher().ready()
    reader, writer = os.pipe()
    os.close(reader)
    thread = threading.Thread(target=background.Launcher(writer).ready)
    thread.start()
    thread.join()
