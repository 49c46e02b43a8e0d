"""gfrouter with its nodes from a file, and all that is done to such a file, under traffic through nginx."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients import Load, request
from scripted import ScriptedNode, answer, connect, wait_for
from servers import FASTROUTER, Nginx, Router, Worker, free_address, needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.skipif(FASTROUTER, reason="the fastrouter knows no files of nodes")]


@dataclass
class Served:
    """A router that reads `path`, two workers, and clients that never stop asking."""

    path: Path
    router: Router
    workers: tuple[Worker, Worker]
    load: Load

    def line(self, worker: int) -> str:
        return f"foo.com {self.workers[worker].address}\n"

    def wait_for(self, worker: int) -> None:
        """Until this worker is the only node, and has answered."""
        name = self.workers[worker].address
        wait_for(lambda: list(self.router.nodes("foo.com")) == [name], f"{name} to be the node")
        self.load.more(20, self.workers[worker].name)

    def wait_for_error(self, error: str) -> None:
        wait_for(lambda: error in self.source()["error"], f"the error {error!r}")

    def source(self) -> Any:
        return next(each for each in self.router.stats()["sources"] if each["name"] == f"file@{self.path}")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The file's path leads over two symlinks, as in a volume of Kubernetes."""
    path = tmp_path / "nodes"
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(free_address())) for _ in range(2)]
        for worker in workers:
            (folder := tmp_path / f"v{workers.index(worker)}").mkdir()
            (folder / "nodes").write_text(f"foo.com {worker.address}\n")
            worker.wait_line("spawned uWSGI worker 2 ")
        (tmp_path / "..data").symlink_to("v0")
        path.symlink_to("..data/nodes")
        router = stack.enter_context(Router(subscription_server=None, discovery=[f"file://{path}"], processes=2))
        router.wait_for_nodes("foo.com", 1)
        nginx = stack.enter_context(Nginx(router.address))
        load = stack.enter_context(Load(nginx.port, clients=4))
        yield Served(path, router, (workers[0], workers[1]), load)


@needs_nginx
def test_whatever_is_done_to_the_file_no_request_fails(served: Served, tmp_path: Path) -> None:
    path = served.path
    served.wait_for(0)

    (tmp_path / "..new").symlink_to("v1")
    (tmp_path / "..new").rename(tmp_path / "..data")  # a symlink turns elsewhere
    served.wait_for(1)

    (tmp_path / "new").write_text(served.line(0))
    (tmp_path / "new").rename(path)  # as an editor does it, and mv
    served.wait_for(0)

    path.write_text(served.line(1))  # in place
    served.wait_for(1)

    path.write_text(served.line(0) + "foo.com 10.0.0.5:3031 weight=heavy\n")
    served.wait_for_error("line 2: weight=heavy: not a whole number (legal: 1 to 2147483647)")
    served.wait_for(1)
    path.write_text(served.line(0))
    served.wait_for(0)
    assert served.source()["error"] == ""

    path.unlink()
    served.wait_for_error("No such file or directory")
    served.wait_for(0)
    path.mkdir()
    served.wait_for_error("a directory")
    served.wait_for(0)
    path.rmdir()
    path.write_text(served.line(1))
    served.wait_for(1)

    with path.open("r+") as file:  # emptied, and written in two pieces with the half of a line between them
        file.truncate(0)
        file.flush()
        served.load.more(3)
        file.write(served.line(0)[:-3])
        file.flush()
        file.write(served.line(0)[-3:])
    served.wait_for(0)

    served.load.stop()
    assert served.load.failures == []

    os.truncate(path, 0)  # for good
    served.router.wait_for_nodes("foo.com", 0)
    said = [line for line in served.router.lines if "stay as they are" in line]
    assert len(said) == 3, said


def test_a_file_that_is_missing_at_the_start_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    with (
        ScriptedNode(answer(b"A")) as node,
        Router(subscription_server=None, warm_timeout=60, discovery=[f"file://{path}"]) as router,
    ):
        router.wait_line(f"file@{path}: No such file or directory")
        router.wait_line(f"warming: requests for unknown keys wait for file@{path}, up to 60 s")
        with connect(router.address, timeout=30) as client:
            client.sendall(request("foo.com"))
            wait_for(lambda: router.stats()["waiting"] == 1, "the request to wait")
            path.write_text(f"foo.com {node.address} modifier1=7\n")
            assert client.recv(100) == b"A"
        assert node.connections[0].head[0] == 7
