"""Giving up root: who the processes are afterwards, what they still reach, and what stops the start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import announce, ask, request
from daemons import OPENED, OTHER, needs_root, open_folder
from router import privileges
from router.options import Options
from scripted import HELLO, ScriptedNode, wait_for
from servers import Process, Router, free_address, router_command
from test_logfile import children
from test_reload import start_anew, wait_until_alone

GET = request("foo.com")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def ids(pid: int) -> dict[str, list[int]]:
    """Of a process: Uid and Gid (real, effective, saved, file system's), Groups."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0][:-1]: list(map(int, words[1:])) for words in lines if words[0] in ("Uid:", "Gid:", "Groups:")}


def as_other(gid: int = OTHER, *groups: int) -> dict[str, list[int]]:
    return {"Uid": [OTHER] * 4, "Gid": [gid] * 4, "Groups": sorted({gid, *groups})}


@needs_root
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--uid", str(OTHER)], as_other()),
        (["--uid", "nobody", "--gid", "7", "--add-gid", "8", "--add-gid", "9"], as_other(7, 8, 9)),
        (["--fastrouter-uid", str(OTHER), "--fastrouter-gid", "7", "--no-initgroups"], as_other(7)),
        (["--gid", "7"], {"Uid": [0] * 4, "Gid": [7] * 4, "Groups": [7]}),
    ],
)
def test_all_processes_are_of_that_user_and_serve(words: list[str], expected: object, folder: Path) -> None:
    with Router(*words, launcher=OPENED, processes=2) as router, ScriptedNode() as node:
        announce(router.subscriptions, "foo.com", node.address)
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, GET) == HELLO
        assert [ids(pid) for pid in (router.pid, *children(router.pid))] == [expected] * 3
        assert bool(router.line("WARNING: you are running uWSGI as root")) == (words[0] == "--gid")
        assert os.stat(f"/proc/{router.pid}/fd").st_uid == ids(router.pid)["Uid"][0], "or starting a router takes long"
        stats = router.stats()
        assert (stats["uid"], stats["gid"]) == (os.stat(f"/proc/{router.pid}").st_uid, ids(router.pid)["Gid"][0])


@needs_root
@pytest.mark.slow
def test_what_is_bound_and_written_before_is_roots(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    pid_file = private / "pid"
    sockets = {name: private / name for name in ("listen", "admin", "stats")}
    folder.chmod(0o777)
    with Router(
        *("--uid", str(OTHER), "--vacuum", "--pidfile", pid_file, "--pidfile2", folder / "pid2"),
        address=str(sockets["listen"]),
        stats_address=str(sockets["stats"]),
        admin=sockets["admin"],
        chown_socket="7:8",
        launcher=OPENED,
    ) as router:
        assert router.stats()["uid"] == OTHER
        owners = {name: (sockets[name].stat().st_uid, sockets[name].stat().st_gid) for name in sockets}
        assert owners == {"listen": (7, 8), "stats": (7, 8), "admin": (0, 0)}
        assert (pid_file.stat().st_uid, pid_file.read_text()) == (0, f"{router.pid}\n")
        assert (folder / "pid2").stat().st_uid == OTHER
        start_anew(router)
        wait_until_alone(router)
        assert router.stats()["uid"] == OTHER, "the listeners that are hidden from it are kept"
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(sockets["admin"]))
        assert router.stop() == 0
    assert pid_file.exists(), "as uWSGI has it: who is not root any more cannot remove it"


@needs_root
@pytest.mark.slow
def test_the_default_admin_socket_stays_roots_over_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GFROUTER_ADMIN")
    own_run = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
    with Router("--uid", str(OTHER), launcher=[*own_run, *OPENED]) as router:
        start_anew(router)
        wait_until_alone(router)
        assert sum("admin API on /run/gfrouter/admin.sock" in line for line in router.lines) == 2
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"/proc/{router.pid}/root/run/gfrouter/admin.sock")


@needs_root
@pytest.mark.slow
def test_a_user_that_comes_with_a_reload_is_tried_before(folder: Path) -> None:
    ini, first = folder / "router.ini", free_address()
    text = f"[uwsgi]\nfastrouter = {first}\nfastrouter-subscription-server = {free_address()}\n"
    ini.write_text(text)
    with Router(ini=ini, address=first, launcher=OPENED) as router:
        ini.write_text(text + f"uid = {OTHER}\nchdir = {folder}\n[gfrouter]\nstate-file = {folder}/state\n")
        router.send_signal(signal.SIGHUP)
        router.wait_line("going on as before: .*its folder is not writable for user", 30)
        ini.write_text(text + f"uid = {OTHER}\n")
        start_anew(router)
        assert ids(router.pid) == as_other()


@needs_root
@pytest.mark.slow
def test_what_the_user_may_not_do_at_a_reload_leaves_all_as_it_was(folder: Path) -> None:
    ini = folder / "router.ini"
    first, hidden = free_address(), folder / "sock"
    text = f"[uwsgi]\nuid = {OTHER}\nfastrouter = {first}\nfastrouter-subscription-server = {free_address()}\n"
    ini.write_text(text)
    with Router(ini=ini, address=first, launcher=OPENED) as router:
        ini.write_text(text + f"fastrouter = {hidden}\n")
        router.send_signal(signal.SIGHUP)
        router.wait_line(f"not starting anew, going on as before: .*cannot bind '{hidden}': permission denied", 30)
        ini.write_text(text.replace(f"uid = {OTHER}", "uid = 7"))
        router.send_signal(signal.SIGHUP)
        router.wait_line(f"going on as before: .*cannot setuid\\(\\) to 7 as user {OTHER}, who is not root", 30)
        ini.write_text(text + "state-file = /nowhere/state\n[gfrouter]\nstate-file = /nowhere/state\n")
        router.send_signal(signal.SIGHUP)
        router.wait_line("going on as before: .*its folder is not writable for user", 30)


@needs_root
@pytest.mark.slow
def test_the_log_file_is_given_to_the_user_who_opens_it_anew(folder: Path) -> None:
    folder.chmod(0o777)
    log = folder / "log"
    words = ["--listen", free_address(), "--subscription-server", free_address(), "--uid", str(OTHER), "--gid", "7"]
    with Process(*OPENED, *router_command(fastrouter=False), *words, "--logto", log, "--logfile-chown") as router:
        wait_for(lambda: log.exists() and "spawned uWSGI fastrouter 1" in log.read_text(), "the start", 30)
        assert (log.stat().st_uid, log.stat().st_gid) == (OTHER, 7)
        log.rename(folder / "log.1")
        wait_for(lambda: log.exists() and "opened anew" in log.read_text(), "the new file", 30)
        assert router.stop() == 0


@needs_root
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--uid", "123456"], "no user has the number 123456, so its group is not known: gid must be given, too"),
        (["--uid", str(OTHER), "--state-file", "{folder}/state"], "its folder is not writable for user 65534"),
        (["--uid", str(OTHER), "--logto2", "{folder}/log"], "cannot open the log file {folder}/log: Permission denied"),
        (
            ["--uid", str(OTHER), "--pidfile2", "{folder}/pid"],
            "cannot write the pidfile {folder}/pid: Permission denied",
        ),
        (["--uid", str(OTHER), "--chdir", "{folder}/private"], "cannot chdir() to {folder}/private: Permission denied"),
    ],
)
def test_what_the_user_cannot_do_stops_the_start(words: list[str], reason: str, folder: Path) -> None:
    (folder / "private").mkdir(mode=0o700)
    given = [word.format(folder=folder) for word in words]
    command = [
        *OPENED,
        *router_command(fastrouter=False),
        "--listen",
        free_address(),
        "--subscription-server",
        free_address(),
    ]
    done = subprocess.run([*command, *given], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert reason.format(folder=folder) in done.stderr.splitlines()[-1]


@needs_root
def test_an_interpreter_that_is_hidden_from_the_user_stops_the_start(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    python = private / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    code = (
        f"import sys; sys.executable = {str(python)!r}; from router.privileges import drop; "
        f"from router.options import Options; drop(Options(uid={OTHER}))"
    )
    done = subprocess.run([*OPENED, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ValueError: user {OTHER} cannot start a router: " in done.stderr
    assert "Permission denied" in done.stderr


KEPT = """
import ctypes, sys
from router import privileges
from router.options import Options
{before}
try:
    privileges.drop(Options(uid=65534))
except ValueError as error:
    print(error)
"""


@needs_root
@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("ctypes.CDLL(None).prctl(28, 4, 0, 0, 0)", "user 65534 can become root again: it has kept capabilities"),
        ("import os; os.setresgid = lambda *_: None", "after setgid() to 65534"),
        ("import os; os.setgroups = lambda _: None", "after setgid() to 65534"),
        ("import os; os.setresuid = lambda *_: None", "the user is (0, 0, 0) after setuid() to 65534"),
    ],
)
def test_what_did_not_take_effect_stops_the_start(before: str, reason: str) -> None:
    code = KEPT.format(before=before)
    done = subprocess.run([*OPENED, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert reason in done.stdout, done.stderr


@pytest.mark.parametrize("option", ["uid", "gid"])
def test_who_is_not_root_may_ask_for_what_it_is_only(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    monkeypatch.setattr(os, "getuid", lambda: OTHER)
    monkeypatch.setattr(os, "getgid", lambda: OTHER)
    privileges.drop(Options())
    privileges.drop(Options(uid=OTHER, gid=OTHER))
    with pytest.raises(ValueError, match=rf"cannot set{option}\(\) to 7 as user {OTHER}, who is not root"):
        privileges.drop(Options(**{option: 7}))  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() != 0, reason="is what root is told")
def test_root_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    privileges.drop(Options(uid=0))
    assert caplog.messages == [
        "uWSGI running as root, you can use --uid/--gid options",
        "*** WARNING: you are running uWSGI as root !!! (use the --uid flag) ***",
    ]
