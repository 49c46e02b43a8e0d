"""What a configuration may look at beyond its own text: the environment, files, the machine. The one place for it.

The dialect (gather.py, blocks.py, magic.py, expansion.py) asks nobody else, so a test can put it anywhere.
"""

from __future__ import annotations

import glob
import grp
import os
import pwd
import socket
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from router.folder import working_directory
from router.uwsgi import printable

# A file beyond it is no configuration, but a log or a device named by mistake.
MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Surroundings:
    """`reloading`: this start takes the place of one that ran. `binary`: the program's own path. `micros`: the time."""

    environ: Mapping[str, str]
    reloading: bool
    folder: str
    host: str
    cpus: int
    uid: int
    gid: int
    micros: int
    binary: str

    def user(self) -> str:
        """The user's name, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def group(self) -> str:
        """The group's name, or its number where it has none."""
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid)

    def contents(self, file: str) -> bytes:
        """What a file holds. ValueError with a reason where it cannot be read."""
        try:
            with open(self._there(file), "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot read {printable(file)}: {error.strerror or error}") from None
        except ValueError as error:  # a NUL inside the name
            raise ValueError(f"cannot read {printable(file)}: {error}") from None
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"cannot read {printable(file)}: over {MAX_FILE_BYTES} bytes, which is no configuration")
        return data

    def readable(self, file: str) -> bool:
        """Whether there is such a file or folder that may be read."""
        return "\0" not in file and os.access(self._there(file), os.R_OK)

    def is_file(self, file: str) -> bool:
        return stat.S_ISREG(self._mode(file))

    def is_folder(self, file: str) -> bool:
        return stat.S_ISDIR(self._mode(file))

    def matching(self, pattern: str) -> list[str]:
        """The names that glob(3) finds: sorted, folders with a slash behind them; the pattern where it finds none."""
        if "\0" in pattern:
            return [pattern]
        root = None if os.path.isabs(pattern) else self.folder
        found = sorted(glob.glob(pattern, root_dir=root), key=os.fsencode)
        return [f"{name}/" if self.is_folder(name) and name[-1] != "/" else name for name in found] or [pattern]

    def full_name(self, file: str) -> str:
        """Its path from the root; a link is not followed."""
        there = self._there(file)
        return there if "\0" in there or os.path.islink(there) else os.path.realpath(there)

    def inode(self, file: str) -> str:
        """The number of its inode, "" where there is none."""
        try:
            return str(os.lstat(file).st_ino)
        except (OSError, ValueError):
            return ""

    def _there(self, file: str) -> str:
        return os.path.join(self.folder, file) if file else ""

    def _mode(self, file: str) -> int:
        try:
            return os.stat(self._there(file)).st_mode
        except (OSError, ValueError):
            return 0


def here(environ: Mapping[str, str], reloading: bool = False) -> Surroundings:
    """Those of this process. Where its folder has been removed, relative names lead nowhere."""
    folder = working_directory()
    return Surroundings(
        environ,
        reloading,
        folder=folder,
        host=socket.gethostname(),
        cpus=os.sysconf("SC_NPROCESSORS_ONLN"),
        uid=os.getuid(),
        gid=os.getgid(),
        micros=time.time_ns() // 1000,
        binary=os.path.normpath(os.path.join(folder, sys.argv[0])),
    )
