"""The log in a file: given at the start, moved away by rotation, out of reach, on a full disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from clients import announce
from scripted import wait_for
from servers import Process, free_address, free_port, router_command

WORDS = ["--warm-timeout", "0", "--error-pages", "off"]


class Logged(Process):
    """A gfrouter with its log in a file."""

    def __init__(self, log: Path, *words: str | Path, processes: int = 1, option: str = "--logto") -> None:
        self.log, self.address, self.subscriptions = log, free_address(), free_address()
        places = ["--listen", self.address, "--subscription-server", self.subscriptions]
        count = ["--processes", str(processes)]
        super().__init__(*router_command(fastrouter=False), *places, *WORDS, *count, option, log, *words)
        self.wait_logged(f"spawned uWSGI fastrouter {processes} ")

    def text(self, log: Path | None = None) -> str:
        file = log or self.log
        return file.read_text() if file.exists() else ""

    def wait_logged(self, text: str, log: Path | None = None) -> None:
        wait_for(lambda: text in self.text(log), f"{text!r} in the log", 30)


@pytest.mark.parametrize("option", ["--logto", "--logto2"])
def test_all_lines_of_all_processes_are_in_the_file(option: str, tmp_path: Path) -> None:
    with Logged(tmp_path / "log", processes=2, option=option) as router:
        mode = stat.S_IMODE(router.log.stat().st_mode)
        assert mode == 0o640 & ~current_umask()
        first = "\n".join(router.lines)
        assert ("fastrouter bound on" in first) == (option == "--logto2")
        assert ("fastrouter bound on" in router.text()) == (option == "--logto")
        for pid in children(router.pid):
            assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2)} == {str(router.log)}


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.slow
def test_a_file_that_was_moved_is_opened_anew_by_all_and_nothing_is_lost(tmp_path: Path) -> None:
    with Logged(tmp_path / "log", processes=2) as router:
        moved = tmp_path / "log.1"
        router.log.rename(moved)
        announce(router.subscriptions, "foo.com", "127.0.0.1:1")
        wait_for(lambda: "new node: 127.0.0.1:1" in router.text(moved) + router.text(), "the line")
        router.wait_logged("was moved: opened anew")
        for pid in [router.pid, *children(router.pid)]:
            wait_for(lambda pid=pid: os.readlink(f"/proc/{pid}/fd/2") == str(router.log), "it")  # type: ignore[misc]
        announce(router.subscriptions, "foo.com", "127.0.0.1:2")
        router.wait_logged("new node: 127.0.0.1:2")
        assert "new node: 127.0.0.1:2" not in router.text(moved)


@pytest.mark.slow
def test_a_reload_goes_on_in_the_file_and_in_another_one_where_that_is_named(tmp_path: Path) -> None:
    first, second, ini = tmp_path / "first", tmp_path / "second", tmp_path / "router.ini"
    ini.write_text(f"[uwsgi]\nlogto = {first}\nlog-reopen = true\n")
    with Process(
        *router_command(fastrouter=False), "--listen", free_address(), "--subscription-server", free_address(), ini
    ) as router:
        wait_for(lambda: first.exists() and "spawned uWSGI fastrouter 1 " in first.read_text(), "the start", 30)
        ini.write_text(f"[uwsgi]\nlogto = {second}\n")
        router.send_signal(signal.SIGHUP)
        wait_for(lambda: second.exists() and "spawned uWSGI fastrouter 1 " in second.read_text(), "the next", 30)
        assert "starting anew" in first.read_text()


@pytest.mark.slow
def test_one_that_cannot_be_opened_anew_costs_a_line_and_is_opened_later(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with Logged(folder / "log") as router:
        away = tmp_path / "away"
        folder.rename(away)
        router.wait_logged("cannot be opened anew: No such file or directory", away / "log")
        announce(router.subscriptions, "foo.com", "127.0.0.1:1")
        router.wait_logged("new node: 127.0.0.1:1", away / "log")
        folder.mkdir()
        router.wait_logged("was moved: opened anew")
        assert router.text(away / "log").count("cannot be opened anew") == 1


def test_one_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    log = tmp_path / "missing" / "log"
    done = subprocess.run(
        [*router_command(fastrouter=False), "--logto", log], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"gfrouter: cannot open the log file {log}: No such file or directory\n"


def unheard(*words: str | Path) -> Process:
    """A gfrouter whose log nobody reads; at once, so that it has its `with`."""
    return Process(*router_command(fastrouter=False), "--subscription-server", free_address(), *WORDS, *words)


def test_a_mode_is_set_and_a_reader_of_a_pipe_need_not_be_there(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with unheard("--listen", free_address(), "--logto", pipe, "--logfile-chmod", "604") as router:
        wait_for(lambda: children(router.pid), "a router")
        assert stat.S_IMODE(pipe.stat().st_mode) == 0o604
        assert router.stop() == 0


def test_a_full_disk_ends_nothing() -> None:
    address, port = free_address(), free_port()
    with unheard("--listen", address, "--stats", f"127.0.0.1:{port}", "--logto", "/dev/full") as router:
        router.wait_listens(port)
        for _ in range(3):
            router.send_signal(signal.SIGUSR1)
        assert router.stop() == 0
