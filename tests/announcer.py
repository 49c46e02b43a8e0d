"""`gfrouter announce` as a process, for the end-to-end tests.

Announce("--to", router.subscriptions, "--address", node.address)    for foo.com, unless it says otherwise
.joined() .left()       waits until it says that it has announced, or withdrawn
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from servers import Process


class Announce(Process):
    """`launcher` are words before the command, of something that executes it in its own place."""

    def __init__(
        self,
        *words: str | Path,
        key: str = "foo.com",
        command: Sequence[str | Path] = (),
        launcher: Sequence[str | Path] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        argv = (*launcher, sys.executable, "-P", "-m", "router", "announce", "--key", key, *words)
        super().__init__(*argv, *(("--", *command) if command else ()), env=env)

    def joined(self, address: str = "", timeout: float = 20) -> re.Match[str]:
        return self.wait_line(rf"\[gfrouter announce\] \S+ \+ {re.escape(address)}", timeout)

    def left(self, address: str = "", timeout: float = 20) -> re.Match[str]:
        return self.wait_line(rf"\[gfrouter announce\] \S+ - {re.escape(address)}", timeout)
