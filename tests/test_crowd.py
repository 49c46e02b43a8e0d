"""A supervisor that is out of descriptors still answers, and does not spin; nor do few of them make it fail."""

import contextlib
import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from clients import read_to_end
from router import crowd
from router.crowd import LEAST_PLACES, SHARE, Crowd
from scripted import connect
from servers import Router, free_address

STATUS = b"GET /v1/status HTTP/1.0\r\n\r\n"


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def said(address: str, data: bytes = b"") -> bytes:
    with contextlib.suppress(OSError), connect(address, timeout=30) as client:
        client.sendall(data)
        return read_to_end(client)
    return b""


def test_places_are_a_part_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(limit: int) -> int:
        monkeypatch.setattr(crowd, "getrlimit", lambda _which: (limit, limit))
        return Crowd(64).free_count()

    assert [of(limit) for limit in (8, 80, 1 << 20)] == [LEAST_PLACES, 80 // SHARE, 64]


@pytest.mark.slow
def test_a_supervisor_that_is_out_of_descriptors_answers_and_does_not_spin() -> None:
    admin = free_address()
    with Router(admin=admin) as router, contextlib.ExitStack() as stack:
        router.settle()
        highest = max(map(int, os.listdir(f"/proc/{router.pid}/fd")))
        soft, hard = resource.prlimit(router.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (highest + 3, hard))
        before = cpu_seconds(router.pid)
        silent: list[socket.socket] = [stack.enter_context(connect(admin)) for _ in range(10)]
        time.sleep(0.3)  # all are accepted that can be
        for _ in range(3):
            assert json.loads(said(router.stats_address))["pid"] == router.pid
        time.sleep(1)
        assert cpu_seconds(router.pid) - before < 1
        assert said(admin, STATUS).startswith(b"HTTP/1.1 200"), "behind all those that are silent"
        assert json.loads(said(router.stats_address))["pid"] == router.pid
        for client in silent:
            client.close()
        resource.prlimit(router.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert said(admin, STATUS).startswith(b"HTTP/1.1 200")
        assert not router.line("Traceback")
