"""A process that may have very many descriptors pays nothing for that: no table as long, no loop over all of them."""

import os
from pathlib import Path

import pytest

from servers import Router

HUGE = 1 << 26
MOST_MORE = 16 << 20  # bytes; a table with a pointer for each of so many has 512 MB

# What `ulimit -n` says is what the process asks for; the real one, nobody but root can raise.
PRETENDS = f"""
import os, resource
sysconf = os.sysconf
os.sysconf = lambda name: {HUGE} if name == "SC_OPEN_MAX" else sysconf(name)
resource.getrlimit = lambda _which: ({HUGE}, {HUGE})
"""


def memory(router: Router) -> list[int]:
    """Resident bytes of the supervisor and of its router, which has begun."""
    router.settle()
    (pid,) = router.pids().values()
    statm = [Path(f"/proc/{each}/statm").read_text().split() for each in (router.pid, pid)]
    return [int(fields[1]) * os.sysconf("SC_PAGESIZE") for fields in statm]


@pytest.mark.slow
def test_a_huge_limit_costs_no_memory_and_no_start(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PRETENDS)
    with Router() as router:
        plain = memory(router)
    with Router(env={"PYTHONPATH": str(tmp_path)}) as router:  # which waits some seconds only until all has begun
        huge = memory(router)
    assert [more - less < MOST_MORE for more, less in zip(huge, plain, strict=True)] == [True, True]
