"""Who we are among routers that tell each other of themselves: a word that no other one has.

It holds for one process, and over a reload, which is the same process: what others have learned of us stays true.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

START = 19  # where the start time of a process stands in /proc/PID/stat, behind the command's name (proc(5))
BOOT = "/proc/sys/kernel/random/boot_id"


def _identity() -> str:
    try:
        born = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()[START]
        parts = [Path(BOOT).read_text(), str(os.stat("/proc/self/ns/pid").st_ino), str(os.getpid()), born]
    except (OSError, IndexError):
        return os.urandom(4).hex()
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


IDENTITY = _identity()
