"""A gfrouter in the background, and one of another user, for the tests that need such.

    with Daemon(tmp_path, "--vacuum") as daemon:    daemon.pid .log .lines() .wait_line(text) .address .subscriptions

`OPENED` are words before a command of another user's: where the interpreter of the tests is in a folder that nobody
else may enter (a home), they give the command a view of the file system in which others may.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from scripted import wait_for
from servers import free_address, router_command

OTHER = 65534  # a user that every machine has; what it may do, anybody may


def _opening() -> tuple[str, ...]:
    needed = [Path(os.path.realpath(sys.executable)), Path(sys.prefix), Path(__file__)]
    closed = [folder for path in needed for folder in path.parents if not folder.stat().st_mode & 0o001]
    if not closed:
        return ()
    top = min(closed, key=lambda folder: len(folder.parts))
    inside = {path.relative_to(top).parts[0] for path in needed if path.is_relative_to(top)}
    there = shlex.quote(str(top))
    steps = ["t=$(mktemp -d)", f"mount --rbind {there} $t", f"mount -t tmpfs -o mode=755 none {there}"]
    for name in map(shlex.quote, sorted(inside)):
        steps += [f"mkdir {there}/{name}", f"mount --rbind $t/{name} {there}/{name}"]
    return ("unshare", "-m", "sh", "-c", f'{" && ".join(steps)} && umount -l $t && rmdir $t && exec "$@"', "sh")


OPENED = _opening() if os.geteuid() == 0 else ()


def _can_be_another() -> bool:
    if os.geteuid() != 0:
        return False
    command = [sys.executable, "-c", f"import os; os.setuid({OTHER}); os.execv({sys.executable!r}, ['python', '-V'])"]
    return subprocess.run([*OPENED, *command], capture_output=True, check=False).returncode == 0


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not _can_be_another(), reason="needs root, and an interpreter that others can execute"
)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder of root's that everybody may enter, which tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="gfrouter-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


class Daemon:
    """Started with `--daemonize`, and `words`; ended by its pid when its `with` ends."""

    def __init__(
        self, folder: Path, *words: str | Path, launcher: Sequence[str] = (), env: dict[str, str] | None = None
    ) -> None:
        self.address, self.subscriptions = free_address(), free_address()
        self.log, self.pid_file = folder / "daemon.log", folder / "daemon.pid"
        options = ["--listen", self.address, "--subscription-server", self.subscriptions, "--warm-timeout", "0"]
        files = ["--daemonize", self.log, "--pidfile", self.pid_file]
        command = [*map(str, [*launcher, *router_command(fastrouter=False), *options, *files, *words])]
        self.pid = 0
        self.done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if self.done.returncode == 0:
            self.pid = int(self.pid_file.read_text())

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def wait_line(self, text: str, count: int = 1) -> None:
        wait_for(lambda: sum(text in line for line in self.lines()) >= count, f"{count} lines with {text!r}", 30)

    @property
    def runs(self) -> bool:
        """A zombie is none; who its parent is is not our business."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    def wait_end(self) -> None:
        wait_for(lambda: not self.runs, "the daemon to end", 30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.pid and self.runs:
            with contextlib.suppress(OSError):
                os.killpg(os.getsid(self.pid), signal.SIGKILL)
        print(self.done.stderr, self.log.read_text() if self.log.exists() else "", sep="\n")
