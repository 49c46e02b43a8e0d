"""contrib/compose: what the file says is run, each service on a machine of its own in a network of namespaces.

It shows that the commands, the environment, the names and the addresses fit together. Images are not built here.
"""

import importlib
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lan import Host, Lan, needs_lan
from scripted import wait_for
from servers import CONTRIB, FASTROUTER, NGINX, Process, needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.skipif(FASTROUTER, reason="the file names gfrouter")]

yaml: Any = importlib.import_module("yaml")
FOLDER = CONTRIB / "compose"
GET = """
import urllib.request
request = urllib.request.Request("http://127.0.0.1:8080/", headers={"Host": "foo.com"})
for _ in range(%d):
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(answer.headers["X-Worker"])
"""


class Compose:
    """The services of compose.yaml, their files in `folder`, in place of containers."""

    def __init__(self, lan: Lan, folder: Path, stack: ExitStack) -> None:
        self.said = yaml.safe_load((FOLDER / "compose.yaml").read_text())
        self.folder = folder
        for name in ("worker.ini", "app.py", "nginx.conf"):
            shutil.copy(FOLDER / name, folder)
        self.hosts: dict[str, Host] = {}
        self.processes: dict[str, Process] = {}
        for name, service in self.said["services"].items():
            replicas = service.get("deploy", {}).get("replicas", 1)
            for one in [name] if replicas == 1 else [f"{name}-{number}" for number in range(1, replicas + 1)]:
                self.hosts[one] = lan.host(one)
                self.processes[one] = stack.enter_context(self._start(one, service))

    def _start(self, name: str, service: dict[str, Any]) -> Process:
        """Its command, in the folder that is /srv there, with the network's names."""
        words = [word.replace("/srv", str(self.folder)) for word in service["command"]]
        if words[0] == "nginx":
            assert NGINX
            user = ("-g", "user root;") if os.getuid() == 0 else ()  # nobody may not enter a test's folder
            words = [
                NGINX,
                "-e",
                "stderr",
                *user,
                *(str(self.folder) if word == "/tmp" else word for word in words[1:]),
            ]
        else:
            words[0] = str(Path(sys.executable).with_name(words[0]))
            words = [str(Path(sys.executable).with_name("uwsgi")) if word == "uwsgi" else word for word in words]
        # The folder is entered by the command itself, as nsenter would leave it.
        launcher = (*self.hosts[name].launcher, "sh", "-c", 'cd "$0" && exec "$@"', self.folder)
        return Process(*launcher, *words, env={**service.get("environment", {}), "HOSTNAME": name})

    def get(self, count: int = 1) -> Counter[str]:
        """Who answers so many requests to the front, on its own machine; every one must be answered."""
        return Counter(self.hosts["nginx"].run(sys.executable, "-c", GET % count).split())


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    with Lan(tmp_path) as lan, ExitStack() as stack:
        yield Compose(lan, tmp_path, stack)


@needs_lan
@needs_nginx
def test_the_services_find_each_other_and_workers_leave_without_a_failed_request(compose: Compose) -> None:
    router = compose.processes["router"]
    fixed = compose.said["services"]["router"]["networks"]["default"]["ipv4_address"]
    assert compose.hosts["router"].address == fixed
    workers = {"worker-1", "worker-2", "plain"}
    for name in workers:
        address = compose.hosts[name].address
        said = ":3031" if name == "plain" else f"{address}:3031"
        router.wait_line(rf"foo\.com => new node: ({said}|{address}:3031)$", timeout=30)
    wait_for(lambda: set(compose.get(30)) == workers, "all three to answer", timeout=30)
    assert compose.processes["worker-1"].stop(signal.SIGTERM, timeout=20) == 0
    assert set(compose.get(30)) == {"worker-2", "plain"}
    assert compose.processes["plain"].stop(signal.SIGTERM, timeout=20) == 0
    assert set(compose.get(30)) == {"worker-2"}
    assert router.stop(signal.SIGTERM, timeout=40) == 0


def test_what_is_built_is_there() -> None:
    """The image's recipe copies and installs what is in the repository."""
    said = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    builds = [service["build"] for service in said["services"].values() if "build" in service]
    top = (FOLDER / builds[0]["context"]).resolve()
    assert all(build == builds[0] for build in builds)
    recipe = (top / builds[0]["dockerfile"]).read_text()
    for line in recipe.splitlines():
        if line.startswith("COPY"):
            assert all((top / source).exists() for source in line.split()[1:-1])
    for service in said["services"].values():
        for volume in service.get("volumes", []):
            assert (FOLDER / volume.partition(":")[0]).exists()
