"""The article's setup, from the very files in contrib/article: what it shows is what happens, and the demo shows it."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from clients import announce, ask, get, request
from scripted import HELLO, ScriptedNode, wait_for
from servers import CONTRIB, NGINX, UWSGI, Process, Router, better, free_port, needs_nginx

GET = request("foo.com")


class Article:
    """A folder with the article's files, their four addresses moved to free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.router, self.subscriptions, self.front = free_port(), free_port(), free_port()
        ports = {"3031": self.router, "2626": self.subscriptions, "8080": self.front}
        for name in ("router.ini", "worker.ini", "app.py", "nginx.conf"):
            text = (CONTRIB / "article" / name).read_text()
            for port, free in ports.items():
                assert f":{port}" in text or port not in text
                text = re.sub(rf":{port}\b", f":{free}", text)
            (folder / name).write_text(text)

    def start_router(self) -> Router:
        return Router(
            ini=self.folder / "router.ini",
            address=f"127.0.0.1:{self.router}",
            subscriptions=f"127.0.0.1:{self.subscriptions}",
            cwd=self.folder,
        )

    def start_worker(self, name: str) -> Process:
        return Process(UWSGI, "--ini", "worker.ini", cwd=self.folder, env={"WORKER": name})

    def start_nginx(self) -> Process:
        assert NGINX
        # Started by root, nginx would serve as nobody, who may not enter a test's folder.
        user = ("-g", "user root;") if os.getuid() == 0 else ()
        nginx = Process(NGINX, "-p", self.folder, "-e", "stderr", *user, "-c", self.folder / "nginx.conf")
        nginx.wait_listens(self.front)
        return nginx


@pytest.fixture
def article(tmp_path: Path) -> Article:
    return Article(tmp_path)


@needs_nginx
@pytest.mark.slow
def test_the_article_from_the_first_line_to_the_second_worker(article: Article) -> None:
    with article.start_router() as router, article.start_nginx():
        pid = router.wait_line(r"^spawned uWSGI fastrouter 1 \(pid: (\d+)\)$")[1]
        assert int(pid) != router.pid
        router.wait_line("starting uWSGI fastrouter in cheap mode")
        with article.start_worker("one") as one:
            one.wait_line(rf"^subscribing to server=127\.0\.0\.1:{article.subscriptions},key=foo\.com$")
            router.wait_line(r"^\[uwsgi-subscription for pid \d+\] new pool: foo\.com \(hash key: 11571")
            router.wait_line(r"^\[uwsgi-subscription for pid \d+\] foo\.com => new node: 127\.0\.0\.1:\d+")
            router.wait_line(r"^\[uWSGI fastrouter pid \d+\] leaving cheap mode\.\.\.$")
            wait_for(lambda: get(article.front).worker == "one", "the page")
            assert get(article.front).body.startswith(b"Hello World!")
            with article.start_worker("two"):
                wait_for(lambda: get(article.front).worker == "two", "the second worker to be found")
                seen = [get(article.front).worker for _ in range(10)]
                assert (seen.count("one"), seen.count("two")) == (5, 5)


@needs_nginx
@pytest.mark.slow
def test_nginx_gives_the_name_in_lower_case_and_without_port(article: Article) -> None:
    with article.start_router(), article.start_nginx(), article.start_worker("one"):
        wait_for(lambda: get(article.front).worker == "one", "the page")
        assert get(article.front, host="FOO.com:8080").worker == "one"


@pytest.mark.slow
def test_the_router_goes_cheap_when_the_last_worker_leaves(article: Article) -> None:
    with article.start_router() as router:
        with article.start_worker("one") as one:
            router.wait_line("leaving cheap mode")
            one.send_signal(signal.SIGINT)
            address = router.wait_line(r"\[uWSGI fastrouter pid \d+\] foo\.com => marking (\S+) as failed")[1]
            assert router.line(rf"new node: {address}")
            router.wait_line(r"\[uWSGI fastrouter pid \d+\] no more nodes available\. Going cheap\.\.\.")


def test_a_worker_that_announces_a_bare_port_is_on_the_routers_host(article: Article) -> None:
    """The article's own log has `new node: :58743`: what a worker bound to `:58743` sends."""
    with article.start_router() as router, ScriptedNode() as node:
        bare = node.address.removeprefix("127.0.0.1")
        announce(router.subscriptions, "foo.com", bare)
        router.wait_line(rf"foo\.com => new node: {bare}")
        router.wait_line("leaving cheap mode")
        assert ask(router.address, GET) == HELLO


@better("speaks of its master and much else")
def test_the_articles_router_ini_gives_no_warning(article: Article) -> None:
    with article.start_router() as router:
        known = ("gfrouter", "bound on", "in cheap mode", "warming", "spawned uWSGI", "as root")
        assert [line for line in router.lines if not any(words in line for words in known)] == []


class Demo(Process):
    """contrib/demo.py, always with gfrouter, and with a mark by which all that it starts can be found."""

    def __init__(self, python: str | Path = sys.executable, **env: str) -> None:
        self.mark = f"{os.getpid()}.{free_port()}"
        super().__init__(python, CONTRIB / "demo.py", env={"ONCE": "", "ANY_PORTS": "1", "DEMO_MARK": self.mark, **env})

    def left_behind(self) -> list[str]:
        """The processes that carry the mark."""
        return [folder.name for folder in Path("/proc").glob("[0-9]*") if self._started(folder)]

    def _started(self, folder: Path) -> bool:
        try:
            return f"DEMO_MARK={self.mark}".encode() in (folder / "environ").read_bytes()
        except OSError:  # it ended while we looked, or is somebody else's
            return False


@pytest.mark.slow
@pytest.mark.parametrize("front", [pytest.param("nginx", marks=needs_nginx), "uwsgi"])
def test_the_demo_shows_what_it_promises(front: str) -> None:
    with Demo(ONCE="1", FRONT=front) as demo:
        assert demo.wait(60) == 0, demo.lines
        assert demo.line(f"✓ {front}")
        assert demo.line("Hello World!")
        assert demo.line(r"worker one killed \(SIGKILL\) under load: \d+ GETs, 0 failed")
        assert demo.line(r"worker one started again, and joined: \d+ GETs, 0 failed")
        assert demo.left_behind() == []


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "status"), [("✓ worker one", 130), ("up until Ctrl-C", 0)])
def test_ctrl_c_ends_the_demo_and_all_it_started(moment: str, status: int) -> None:
    with Demo() as demo:
        demo.wait_line(moment, 60)
        assert demo.left_behind()
        demo.send_signal(signal.SIGINT)
        assert demo.wait() == status
        assert demo.line("Traceback") is None
        assert demo.left_behind() == []


def test_a_demo_that_cannot_start_says_why_and_ends_with_1(tmp_path: Path) -> None:
    """It runs the commands beside its own Python; here one of them is no good."""
    (tmp_path / "gfrouter").write_text("#!/bin/sh\necho no luck today\nexit 3\n")
    (tmp_path / "gfrouter").chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    with Demo(tmp_path / "python") as demo:
        assert demo.wait() == 1
        assert demo.line("✗ gfrouter ended")
        assert demo.line("no luck today")
