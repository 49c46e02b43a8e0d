"""Pidfiles: what is in them, whose they are, and that a signal reaches a gfrouter or nobody."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from router.handover import Estate
from router.pidfile import PidFiles, tell
from scripted import wait_for
from servers import Router, router_command
from test_reload import starts


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*router_command(fastrouter=False), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_each_of_them_holds_the_pid_and_vacuum_removes_them(tmp_path: Path) -> None:
    names = ["pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"]
    words = [word for name in names for word in (f"--{name}", tmp_path / name)]
    (tmp_path / "pidfile").write_text("1234567890\nstale\n")
    with Router(*words, vacuum=True) as router:
        for name in names:
            wait_for(lambda name=name: (tmp_path / name).exists(), name)  # type: ignore[misc]
            assert (tmp_path / name).read_text() == f"{router.pid}\n"
        router.stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_stop_and_reload_reach_the_gfrouter(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with Router(pidfile=file) as router:
        done = run("--reload", file)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        wait_for(lambda: starts(router) == 2, "the new start", 30)
        router.wait_line("of before .* has ended")
        done = run("--stop", file)
        assert (done.returncode, done.stderr) == (0, ""), "over an exec it is still locked"
        assert router.wait() == 0
    assert file.exists()
    done = run("--stop", file)
    assert (done.returncode, done.stderr) == (
        1,
        f"gfrouter: pidfile {file}: no gfrouter runs as process {router.pid}\n",
    )


def test_a_process_of_that_number_which_is_no_gfrouter_is_spared(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text(f"{os.getpid()}\n")
    with pytest.raises(ValueError, match=f"no gfrouter runs as process {os.getpid()}"):
        tell(str(file), signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "no number"), ("-1", "no number"), ("x", "no number"), (None, "No such")]
)
def test_what_is_no_pidfile_is_refused(text: str | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=reason):
        tell(str(file), signal.SIGKILL)


def test_another_holder_is_not_the_process_that_the_file_names(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with Router(pidfile=file):
        file.write_text("1\n")
        with pytest.raises(ValueError, match="no gfrouter runs as process 1"):
            tell(str(file), 0)


@pytest.mark.parametrize("name", ["pidfile", "pidfile2"])
def test_one_that_cannot_be_written_stops_the_start(name: str, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "pid"
    done = run(f"--{name}", file, "--listen", tmp_path / "sock", "--subscription-server", tmp_path / "sub")
    assert done.returncode == 1
    assert done.stderr.endswith(f"gfrouter: cannot write the pidfile {file}: No such file or directory\n")


def test_two_that_share_one_are_told_so(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with Router(pidfile=file) as first, Router(pidfile=file, vacuum=True) as second:
        second.wait_line(rf"the pidfile {file} is that of another gfrouter, too \(pid: {first.pid}\)")
        assert file.read_text() == f"{second.pid}\n"


def held(path: Path, estate: Estate, *, vacuum: bool = False) -> ExitStack:
    stack = ExitStack()
    files = PidFiles(estate, stack, vacuum=vacuum)
    files.hold(str(path))
    files.close_rest()
    return stack


def test_a_start_that_is_resumed_keeps_the_file_open_and_closes_those_of_no_option(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    estate = Estate()
    held(first, estate).close()
    (fd,) = estate.pid_files
    first.write_text("untouched")
    held(first, estate).close()
    assert (estate.pid_files, first.read_text()) == ([fd], "untouched")
    held(second, estate).close()
    (new,) = estate.pid_files
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert second.read_text() == f"{os.getpid()}\n"
    os.close(new)


def test_a_start_that_is_resumed_goes_on_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    estate = Estate(resumed=True)
    held(tmp_path / "missing" / "pid", estate)
    assert estate.pid_files == []
    assert "cannot write the pidfile" in caplog.text


def test_a_file_that_is_not_ours_any_more_stays(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    estate = Estate()
    with held(file, estate, vacuum=True):
        file.unlink()
        file.write_text("another's")
    assert file.read_text() == "another's"
    os.close(estate.pid_files[0])


def test_nothing_else_is_bound_or_started(tmp_path: Path) -> None:
    done = run("--stop", tmp_path / "none", "--listen", tmp_path / "sock")
    assert (done.returncode, [*tmp_path.iterdir()]) == (1, [])
