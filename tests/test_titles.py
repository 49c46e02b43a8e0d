"""What ps shows: uWSGI's names, with what was asked for around them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from router.options import Options
from router.titles import routers_title, show, supervisors_title
from scripted import wait_for
from servers import Router
from test_logfile import children

CASES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "", ""),
    ({"auto_procname": True}, "uWSGI master", "uWSGI fastrouter 2"),
    ({"procname": "shop"}, "shop", "shop"),
    ({"procname_master": "boss"}, "boss", "uWSGI fastrouter 2"),
    ({"procname": "shop", "procname_master": "boss"}, "boss", "shop"),
    ({"procname_prefix": "a-"}, "a-uWSGI master", "a-uWSGI fastrouter 2"),
    ({"procname_prefix_spaced": "a"}, "a uWSGI master", "a uWSGI fastrouter 2"),
    ({"procname_append": "-z", "procname": "shop"}, "shop-z", "shop-z"),
]


@pytest.mark.parametrize(("options", "supervisor", "router"), CASES)
def test_titles(options: dict[str, Any], supervisor: str, router: str) -> None:
    given = Options(**options)
    assert (supervisors_title(given), routers_title(given, 2)) == (supervisor, router)


def shown(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ")


def test_ps_shows_them() -> None:
    pytest.importorskip("setproctitle")
    with Router(auto_procname=True, procname_prefix_spaced="shop:", processes=2) as router:
        assert shown(router.pid) == "shop: uWSGI master"
        names = ["shop: uWSGI fastrouter 1", "shop: uWSGI fastrouter 2"]
        wait_for(lambda: sorted(map(shown, children(router.pid))) == names, "the routers' titles")


def test_without_the_package_a_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    assert (show("shop"), show("")) == (False, True)
    (tmp_path / "setproctitle.py").write_text("raise ImportError\n")
    with Router(procname="shop", env={"PYTHONPATH": str(tmp_path)}) as router:
        router.wait_line("procname: ps shows it where setproctitle is installed")
