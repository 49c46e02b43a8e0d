"""What holds for the whole suite: the header that names the build, the order, and skips that fail where none may be.

A skip means that something cannot be had on a user's machine, and says what. `.ci/run` sets GFROUTER_NO_SKIP=1: there
everything can be had, so a skip is a test that silently does not run, and fails.
"""

import importlib.util
import itertools
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from servers import FASTROUTER, NGINX

# The default place of the admin API is one for all routers of a user, and tests run side by side.
os.environ["GFROUTER_ADMIN"] = "off"
# Most tests are of the drop-in, which answers errors as the fastrouter does; those of the pages turn them on.
os.environ["GFROUTER_ERROR_PAGES"] = "off"
# The suite starts thousands of interpreters: ours must not compile all its modules each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
NO_SKIP = bool(os.environ.get("GFROUTER_NO_SKIP"))
# Half of hypothesis' own number: the suite runs often, each time with others, and is to end within minutes.
# How fast it draws depends on what else this machine does.
settings.register_profile("suite", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_report_header() -> list[str]:
    engine = importlib.util.find_spec("router.engine")
    build = "compiled" if engine and (engine.origin or "").endswith(".so") else "plain"
    router = "the real fastrouter" if FASTROUTER else f"gfrouter, {build}"
    return [f"router under test: {router}; nginx: {NGINX or 'none'}"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deals the long tests out to the heads of the workers' shares, so that none is left alone with one at the end.

    xdist's worksteal gives each worker an equal run of the list, and lets idle ones steal from the ends of others.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    long = [item for item in items if item.get_closest_marker("long")]
    short = [item for item in items if not item.get_closest_marker("long")]
    bounds = [len(items) * worker // workers for worker in range(workers + 1)]
    dealt: list[pytest.Item] = []
    for worker, (first, end) in enumerate(itertools.pairwise(bounds)):
        hand = long[worker::workers]
        rest = end - first - len(hand)
        dealt += hand + short[: max(rest, 0)]
        del short[: max(rest, 0)]
    items[:] = dealt + short


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if NO_SKIP and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"GFROUTER_NO_SKIP is set, but this was skipped: {reason}"
