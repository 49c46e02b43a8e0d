"""The benchmark's own load generator and backend, run against each other without a router.

What they count must be right before a router is measured with them: every good reply, and every bad one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent / "bench"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the two programs, compiled with every warning an error."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: neither cc nor gcc is on PATH")
    folder = tmp_path_factory.mktemp("bench")
    for tool in ("load", "backend"):
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", str(folder / tool)]
        subprocess.run([compiler, *flags, str(BENCH / f"{tool}.c")], check=True)
    return folder


@pytest.fixture(params=["127.0.0.1:0", "unix"])
def node(request: pytest.FixtureRequest, tools: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the second of a backend's two nodes."""
    listen = str(tmp_path / "node") if request.param == "unix" else request.param
    command = [tools / "backend", "--listen", listen, "--nodes", "2", "--reply", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as backend:
        assert backend.stdout is not None
        yield json.loads(backend.stdout.readline())["nodes"][1]
        backend.kill()


def load(tools: Path, node: str, *options: str) -> dict[str, Any]:
    command = [str(tools / "load"), "--connect", node, "--requests", "200", *options]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=60).stdout))


@pytest.mark.parametrize("body", [0, 100_000])
def test_every_request_gets_the_whole_reply(tools: Path, node: str, body: int) -> None:
    seen = load(tools, node, "--reply", "1000", "--body", str(body))
    assert (seen["requests"], seen["errors"], seen["first_error"]) == (200, 0, "")


def test_a_reply_of_another_length_is_an_error(tools: Path, node: str) -> None:
    seen = load(tools, node, "--reply", "1001", "--clients", "1")
    assert (seen["requests"], seen["errors"]) == (0, 1)
    assert seen["first_error"] == "wrong bytes in the reply after 0 of 1001 bytes"
