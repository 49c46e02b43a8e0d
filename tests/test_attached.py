"""Programs that run beside the routers: started again when they end, and ended with us."""

import os
import signal
from pathlib import Path

import pytest

from scripted import wait_for
from servers import Router, free_address
from test_end_to_end_single import Single, wait_gone

pytestmark = pytest.mark.slow


def test_an_attached_daemon_lives_as_long_as_we_do(tmp_path: Path) -> None:
    starts, ends = tmp_path / "starts", tmp_path / "ends"
    once = f"trap 'echo end >> {ends}; exit 0' TERM; echo $$ >> {starts}; while :; do sleep 0.05; done"
    address = free_address()
    with Router(address=address, attach_daemon=[once, "exec sleep 1000", "exec sleep 1000"]) as router:

        def pids() -> list[int]:
            return [int(line) for line in starts.read_text().split()] if starts.exists() else []

        wait_for(pids, "the daemon to start")
        first = pids()[0]
        rows = router.stats()["beside"]
        assert [row["state"] for row in rows] == ["running"] * 3
        assert router.line(r'\[uwsgi-daemons\] spawning "trap .*" \(uid: \d+ gid: \d+\)')
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(pids()) == 2, "the daemon to start again")
        assert router.line(r'\[uwsgi-daemons\] respawning "trap ')
        router.send_signal(signal.SIGHUP)
        wait_for(lambda: len(pids()) == 3, "the daemon of the new start", 30)
        assert ends.read_text() == "end\n"
        wait_gone([pids()[1], *(row["pid"] for row in rows)])
        sleepers = [row["pid"] for row in router.stats()["beside"]]
        assert router.stop(signal.SIGTERM) == 0
        assert ends.read_text() == "end\nend\n"
        wait_gone([pids()[2], *sleepers])


def test_a_daemon_that_ends_soon_is_throttled_and_one_that_does_not_end_is_killed() -> None:
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    with Router(attach_daemon=["exit 3", stubborn]) as router:
        router.wait_line(r'"exit 3" \(pid: \d+\) ended with status 3')
        router.wait_line('throttling "exit 3" for 1 seconds')
        router.wait_line('throttling "exit 3" for 2 seconds')
        pid = router.stats()["beside"][1]["pid"]
        router.send_signal(signal.SIGTERM)
        router.wait_line("does not end within 3 s: killed")
        assert router.wait() == 0
        wait_gone([pid])


def test_a_daemon_ends_when_we_are_killed() -> None:
    with Router(attach_daemon="exec sleep 1000") as router:
        pid = wait_for(lambda: router.stats()["beside"][0]["pid"], "the daemon")
        router.send_signal(signal.SIGKILL)
        wait_gone([pid])


def test_with_a_worker_a_daemon_is_started_once(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with Single(tmp_path, f"attach-daemon = echo start >> {starts}; exec sleep 1000") as router:
        assert router.answers() == {"own"}
        wait_for(starts.exists, "the daemon to start")
        assert starts.read_text() == "start\n"
        assert next(row["name"] for row in router.beside()) == "worker"
