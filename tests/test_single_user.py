"""One configuration for router and worker of which root makes another user's: the private socket must be that one's."""

from pathlib import Path

import pytest

from daemons import OPENED, OTHER, needs_root, open_folder
from servers import TESTS
from test_end_to_end_single import Single, family, wait_gone
from test_reload import start_anew

pytestmark = [pytest.mark.slow, needs_root]

PRIVATE = Path(f"/tmp/gfrouter-{OTHER}")


def users(pids: list[int]) -> set[int]:
    return {Path(f"/proc/{pid}").stat().st_uid for pid in pids}


def test_router_and_worker_are_of_that_user_over_a_reload() -> None:
    with open_folder() as folder:
        app = folder / "app.py"
        app.write_text((TESTS / "worker_app.py").read_text())
        with Single(folder, f"uid = {OTHER}", "gid = 7", app=app, launcher=OPENED, cwd=folder) as site:
            assert site.answers() == {"own"}
            first = site.worker()
            place = PRIVATE / f"worker-{site.pid}.sock"
            assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (OTHER, 0o600)
            assert PRIVATE.stat().st_mode & 0o777 == 0o700
            assert users(family(site.pid)) == {OTHER}
            start_anew(site)
            assert site.answers(times=3) == {"own"}
            second = site.worker(other_than=first)
            everybody = family(site.pid)
            assert users(everybody) == {OTHER} and second in everybody
            site.stop()
            wait_gone(everybody)
            assert not place.exists() and not place.with_suffix(".ini").exists()
