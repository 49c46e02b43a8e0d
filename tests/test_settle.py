"""Another folder: what is found before it is entered and what after, and that a reload begins where the start did."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripted import wait_for
from servers import Process, Router, free_address, router_command
from test_reload import start_anew, wait_until_alone


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    return before, after


@pytest.mark.slow
def test_a_folder_is_entered_when_all_is_bound(folders: tuple[Path, Path]) -> None:
    before, after = folders
    address = free_address()
    (before / "router.ini").write_text(
        f"[uwsgi]\nfastrouter = {address}\nfastrouter = sock/router.sock\nfastrouter-stats = sock/stats.sock\n"
        f"fastrouter-subscription-server = {free_address()}\npidfile = sock/pid\npidfile2 = pid2\nvacuum = true\n"
        "chdir = ../after\n[gfrouter]\nstate-file = state\n"
    )
    (before / "sock").mkdir()
    with Router(
        ini=Path("router.ini"), address=address, stats_address=str(before / "sock/stats.sock"), cwd=before
    ) as router:
        assert router.stats()["cwd"] == str(after) == os.readlink(f"/proc/{router.pid}/cwd")
        for _ in range(2):
            start_anew(router)
            wait_until_alone(router)
        assert os.readlink(f"/proc/{router.pid}/cwd") == str(after)
        (before / "router.ini").write_text("[uwsgi]\nchdir = nowhere\n")
        router.send_signal(signal.SIGHUP)
        router.wait_line("going on as before: .*cannot chdir\\(\\) to nowhere: No such file or directory", 30)
        wait_for(lambda: (after / "state").exists(), "the state file")
        assert sorted(path.name for path in (before / "sock").iterdir()) == ["pid", "router.sock", "stats.sock"]
        assert (after / "pid2").read_text() == f"{router.pid}\n"
        assert router.stop() == 0
    assert [*(before / "sock").iterdir()] == []
    assert not (after / "pid2").exists()


@pytest.mark.slow
def test_own_pages_are_looked_for_there(folders: tuple[Path, Path]) -> None:
    before, after = folders
    (after / "pages").mkdir()
    (after / "pages" / "503.html").write_text("own")
    with Router(chdir=after, error_pages="pages/", cwd=before) as router:
        start_anew(router)
        assert not router.line("going on as before")


def wait_written(file: Path, text: str, times: int = 1) -> None:
    wait_for(lambda: file.exists() and file.read_text().count(text) >= times, f"{text!r} in {file}", 30)


@pytest.mark.slow
def test_a_log_file_stays_where_it_was_opened(folders: tuple[Path, Path]) -> None:
    before, after = folders
    log, moved, address = before / "router.log", before / "moved", free_address()
    words = ["--logto", "router.log", "--chdir", "../after", "--listen", address, "--stats", free_address()]
    words += ["--subscription-server", free_address()]

    with Process(*router_command(False), *words, cwd=before) as router:
        wait_written(log, "spawned uWSGI fastrouter 1")
        log.rename(moved)
        wait_written(log, f"{log} was moved: opened anew")
        router.send_signal(signal.SIGHUP)
        wait_written(log, "spawned uWSGI fastrouter 1")
        assert router.stop() == 0
    assert [*after.iterdir()] == []


@pytest.mark.slow
def test_a_folder_that_is_gone_stops_no_reload(folders: tuple[Path, Path]) -> None:
    before, after = folders
    with Router(chdir=after, cwd=before) as router:
        for _ in range(2):
            shutil.rmtree(before, ignore_errors=True)
            start_anew(router)
            wait_until_alone(router)
        assert os.readlink(f"/proc/{router.pid}/cwd") == str(after)
        assert router.stop() == 0


@pytest.mark.slow
def test_names_that_lead_nowhere_any_more_end_no_gfrouter(folders: tuple[Path, Path]) -> None:
    before, after = folders
    log, addresses = after / "log", [free_address() for _ in range(3)]
    words = ["--listen", addresses[0], "--subscription-server", addresses[1], "--stats", addresses[2]]
    words += ["--logto", "log", "--pidfile", "pid", "--state-file", "state", "--vacuum"]
    with Process(*router_command(False), *words, cwd=before) as router:
        wait_written(before / "log", "spawned uWSGI fastrouter 1")
        log.hardlink_to(before / "log")
        shutil.rmtree(before)
        router.send_signal(signal.SIGHUP)
        wait_written(log, "spawned uWSGI fastrouter 1", times=2)
        wait_written(log, "cannot open the log file log: No such file or directory")
        wait_written(log, "cannot write the pidfile pid: No such file or directory")
        wait_written(log, "state file state: cannot be written: No such file or directory")
        assert router.stop() == 0


def test_a_mask_is_set_before_anything_is_bound(folders: tuple[Path, Path]) -> None:
    before, _ = folders
    with Router(umask="007", address=str(before / "sock")):
        assert (before / "sock").stat().st_mode & 0o777 == 0o770


def test_a_signal_waits_from_the_pidfile_on_until_the_supervisor_hears_it(tmp_path: Path) -> None:
    code = (
        "import os, signal; from contextlib import ExitStack; from router.handover import Estate; "
        "from router.options import Options; from router.settle import settle; "
        f"settle(Options(pidfile={str(tmp_path / 'pid')!r}), ExitStack(), Estate()); "
        f"pid = int(open({str(tmp_path / 'pid')!r}).read()); "
        "[os.kill(pid, number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)]; "
        "print(*sorted(signal.sigpending()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"{signal.SIGHUP:d} {signal.SIGUSR1:d} {signal.SIGTERM:d}\n"
