"""The benchmark's programs for tests: `compiled(folder)` builds them, and a Flooder is one of them at work.

with Flooder(tools, router.subscriptions, rate=100_000, seconds=2) as flood:
    ...
flood.sent                          how many announcements it has sent; waits until it has ended
flood.announced                     the keys that it announced
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from servers import Process

BENCH = Path(__file__).parent / "bench"


def compiled(folder: Path) -> Path:
    """`folder`, with load, backend and flood in it, compiled with every warning an error."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: neither cc nor gcc is on PATH")
    for tool in ("load", "backend", "flood"):
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", str(folder / tool)]
        subprocess.run([compiler, *flags, str(BENCH / f"{tool}.c")], check=True)
    return folder


class Flooder(Process):
    """Announces nodes of KEY-N.example to `server`, each once, from one or more loopback addresses; ends by itself.

    Each has a key of its own, unless there are so many `keys`.
    """

    def __init__(
        self,
        tools: Path,
        server: str,
        key: str = "flood",
        host: str = "127.0.0.9",
        hosts: int = 1,
        ports: int = 1,
        keys: int = 0,
        *,
        rate: float,
        seconds: float,
    ) -> None:
        self._key, self._keys, self._seconds = key, keys, seconds
        super().__init__(
            *(tools / "flood", "--to", server, "--key", key, "--from", host, "--hosts", str(hosts)),
            *("--ports", str(ports), "--rate", str(rate), "--seconds", str(seconds)),
            *(("--keys", str(keys)) if keys else ()),
        )

    @property
    def sent(self) -> int:
        told = json.loads(self.wait_line(r"^\{.*\}$", timeout=self._seconds + 20).group())
        assert told["failed"] == 0
        return int(told["sent"])

    @property
    def announced(self) -> set[str]:
        """The keys; waits as `sent` does."""
        return {f"{self._key}-{number:010}.example" for number in range(self._keys or self.sent)}
