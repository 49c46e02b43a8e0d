"""Cases of what is around the processes (section 5): pidfiles, the background, another user, the log's file, names."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from daemons import OPENED, OTHER, needs_root, open_folder
from like import Case, Stage, case
from scripted import listen, wait_for
from servers import Process, as_words, free_address, router_command


def words(stage: Stage, *more: str | Path, **options: object) -> list[str]:
    """The command of the router that the stage is for, with addresses of its own."""
    places = {"listen": free_address(), "subscription_server": free_address(), **options}
    command = [*router_command(stage.fastrouter), *as_words(places, stage.fastrouter), *more]
    return [*map(str, command)]


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def router_of(pid: int) -> int:
    """The one router process of a supervisor."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(wait_for(lambda: children.read_text().split(), "a router process")[0])


@case(5)
def a_pidfile(stage: Stage) -> None:
    names = ["pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"]
    files = {name: stage.folder / name for name in names}
    stage.start(*(word for name in names for word in (f"--{name}", str(files[name]))))
    for name, file in files.items():
        wait_for(lambda file=file: text_of(file), name)  # type: ignore[misc]
        stage.see(name, text_of(file) == f"{stage.router.pid}\n")
        stage.see(f"{name}'s mode", oct(file.stat().st_mode))
    stage.router.stop()
    stage.see("afterwards", sorted(file.name for file in stage.folder.iterdir()))
    stage.leave_out("log", "stats", "router")


@case(5)
def a_pidfile_under_vacuum(stage: Stage) -> None:
    stage.start("--vacuum", "--pidfile", str(stage.folder / "pid"), "--pidfile2", str(stage.folder / "pid2"))
    wait_for(lambda: text_of(stage.folder / "pid2"), "the pidfile")
    stage.router.stop()
    stage.see("afterwards", sorted(file.name for file in stage.folder.iterdir()))
    stage.leave_out("log", "stats", "router")


@case(5, why=["pidfile"], differs={"pidfile": ("the one that did not start", "the one that runs")})
def a_start_that_fails_beside_one_that_runs(stage: Stage) -> None:
    file = stage.folder / "pid"
    file.write_text("1\n")
    with listen("127.0.0.1:0") as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        command = words(stage, "--pidfile", file, listen=address)
        subprocess.run(command, capture_output=True, timeout=60, check=False)
    stage.see("pidfile", "the one that runs" if text_of(file) == "1\n" else "the one that did not start")


@case(5, why=["pidfile"], differs={"the other process": ("stopped", "goes on")})
def a_stop_by_a_stale_pidfile(stage: Stage) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        file = stage.folder / "pid"
        file.write_text(f"{other.pid}\n")
        subprocess.run(words(stage, "--stop", file), capture_output=True, timeout=60, check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            other.wait(0.2)
        stage.see("the other process", "goes on" if other.returncode is None else "stopped")
        other.kill()


@case(5)
def a_stop_by_a_pidfile(stage: Stage) -> None:
    file = stage.folder / "pid"
    stage.start("--pidfile", str(file))
    stage.router.wait_line("spawned uWSGI fastrouter 1")
    done = subprocess.run(words(stage, "--stop", file), capture_output=True, timeout=60, check=False)
    stage.see("status", done.returncode)
    stage.see("then", stage.router.wait())
    stage.leave_out("log", "stats", "router")


@contextlib.contextmanager
def background(stage: Stage, *more: str | Path, **options: object) -> Iterator[tuple[int, Path]]:
    """(status of the command, log file) of a daemon, which is ended by its pidfile."""
    log, file = stage.folder / "log", stage.folder / "pid"
    command = words(stage, "--daemonize", log, "--pidfile", file, *more, **options)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    try:
        yield done.returncode, log
    finally:
        if text_of(file):
            with contextlib.suppress(OSError):
                os.kill(int(text_of(file)), signal.SIGINT)


@case(5)
def a_daemon(stage: Stage) -> None:
    path = stage.folder / "router.sock"
    with background(stage, listen=path) as (status, log):
        stage.see("status", status)
        wait_for(lambda: "spawned uWSGI fastrouter 1" in text_of(log), "the log")
        pid = int(text_of(stage.folder / "pid"))
        stage.see("its log", oct(log.stat().st_mode))
        stage.see("its socket", oct(path.stat().st_mode))
        stage.see("leads its session", os.getsid(pid) == pid)
        stage.see("its input", os.readlink(f"/proc/{pid}/fd/0"))
        stage.see("its error", os.readlink(f"/proc/{pid}/fd/2"))


@case(5, why=["daemon"], differs={"status": (0, 1)})
def a_daemon_that_does_not_start(stage: Stage) -> None:
    with listen("127.0.0.1:0") as other, background(stage, listen=f"127.0.0.1:{other.getsockname()[1]}") as (status, _):
        stage.see("status", status)


@case(5, why=["pidfile"], differs={"pidfile of a daemon": ("0o100666", "0o100644")})
def a_daemons_pidfile(stage: Stage) -> None:
    with background(stage) as (_, log):
        wait_for(lambda: "spawned uWSGI fastrouter 1" in text_of(log), "the log")
        stage.see("pidfile of a daemon", oct((stage.folder / "pid").stat().st_mode))


def log_in(option: str, stage: Stage) -> None:
    log = stage.folder / "log"
    with Process(*words(stage, option, log, "--logfile-chmod", "604")):
        wait_for(lambda: "spawned uWSGI fastrouter 1" in text_of(log), "the log")
        stage.see("mode", oct(log.stat().st_mode))


LOGS = [Case(5, option, partial(log_in, f"--{option}")) for option in ("logto", "logto2")]


@case(5, why=["log-reopen"], differs={"in the new file": (False, True)})
def a_log_file_that_is_moved(stage: Stage) -> None:
    log = stage.folder / "log"
    with Process(*words(stage, "--logto", log)) as router:
        wait_for(lambda: "spawned uWSGI fastrouter 1" in text_of(log), "the log")
        log.rename(stage.folder / "log.1")
        with contextlib.suppress(AssertionError):
            wait_for(log.exists, "a new file", 3)
        router.send_signal(signal.SIGUSR1)
        there = wait_for(
            lambda: next((f for f in stage.folder.iterdir() if "total requests" in f.read_text()), None), "it"
        )
        stage.see("in the new file", there == log)


@case(5)
def sigusr1(stage: Stage) -> None:
    stage.start()
    stage.router.wait_line("spawned uWSGI fastrouter 1")
    router_of(stage.router.pid)
    stage.router.send_signal(signal.SIGUSR1)
    stage.router.wait_line("total requests")
    stage.see("shown", [line.strip() for line in stage.lines("total requests: 0|^-----")[:1]])


# Another user. Without root there is nothing to compare.


def of_user(options: tuple[str, ...], stage: Stage) -> None:
    stage.start(*options, launcher=OPENED)
    stage.router.wait_line("spawned uWSGI fastrouter 1")
    for who, pid in ("supervisor", stage.router.pid), ("router", router_of(stage.router.pid)):
        lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        found = {line[0]: line[1:] for line in lines if line[0] in ("Uid:", "Gid:", "Groups:")}
        stage.see(who, [found["Uid:"][0], found["Gid:"][0], *sorted({*found["Groups:"]} - {found["Gid:"][0]})])
    stage.see("warned", bool(stage.router.line("WARNING: you are running uWSGI as root")))
    stage.leave_out("stats", "log")


NOBODY = str(OTHER)
ROOTS = tuple(sorted({*map(str, os.getgroups())} - {"0"}))
BOTH = ("--uid", NOBODY, "--gid", "7")
OF_USERS = (
    Case(5, "root", partial(of_user, ())),
    Case(5, "a_user_and_a_group", partial(of_user, BOTH)),
    Case(5, "a_user_without_its_groups", partial(of_user, (*BOTH, "--no-initgroups"))),
    Case(5, "a_group_alone", partial(of_user, ("--gid", "7"))),
)


def alone(stage: Stage) -> None:
    of_user(("--uid", NOBODY), stage)


def owners(stage: Stage) -> None:
    with open_folder() as folder:
        folder.chmod(0o777)
        stage.call(str(folder), "open folder")
        path = folder / "router.sock"
        options = ("--pidfile", folder / "pid", "--pidfile2", folder / "pid2")
        stage.start(*BOTH, *map(str, options), address=str(path), launcher=OPENED)
        for file in path, folder / "pid", folder / "pid2":
            wait_for(file.exists, file.name)
            stage.see(file.name, (file.stat().st_uid, file.stat().st_gid))
    stage.leave_out("stats f", "log")


if not needs_root.args[0]:
    USERS = [
        *OF_USERS,
        Case(
            5, "a_user_alone", alone, ["own-group"],
            dict.fromkeys(("supervisor", "router"), ((NOBODY, "0", *ROOTS), (NOBODY, NOBODY))),
        ),
        Case(5, "owners", owners),
    ]  # fmt: skip
