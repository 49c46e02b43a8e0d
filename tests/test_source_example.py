"""contrib/source-example: a third party's source is installed, listed and used like one of gfrouter's own."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clients import ask, request
from scripted import HELLO, ScriptedNode, wait_for
from servers import CONTRIB, Router

EXAMPLE = CONTRIB / "source-example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that has the example; nothing is fetched for it."""
    target, copy = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("example")
    for file in ("pyproject.toml", "json_url.py"):  # a build leaves files beside what it builds
        (copy / file).write_bytes((EXAMPLE / file).read_bytes())
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(copy)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True, timeout=100)
    return {"PYTHONPATH": str(target)}


class Answers:
    """A web server that answers with `body`, or with status 503 where that is empty."""

    def __init__(self) -> None:
        self.body = b"{}"
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if answers.body else 503)
                self.end_headers()
                self.wfile.write(answers.body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.server.shutdown()
    answers.server.server_close()


def sources(env: dict[str, str]) -> str:
    argv = [sys.executable, "-P", "-m", "router", "sources"]
    return subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.mark.slow
def test_the_installed_example_is_listed_with_its_settings(installed: dict[str, str]) -> None:
    said = sources(installed)
    assert "\njson-url (of gfrouter-source-example): A web server that answers with keys and" in f"\n{said}"
    assert "\n  json-url://HOST[:PORT]/PATH\n    every=SECONDS             ask so often (default: 5)\n" in said
    assert "json-url" not in sources({})


@pytest.mark.slow
def test_requests_go_where_the_installed_example_says(installed: dict[str, str], answers: Answers) -> None:
    with ScriptedNode() as node:
        answers.body = json.dumps({"foo.com": [node.address, 7, "no address:x"], "bar.com": 3}).encode()
        url = f"json-url://127.0.0.1:{answers.port}/nodes.json?every=1"
        with Router(discovery=url, env=installed) as router:
            assert list(router.wait_for_nodes("foo.com", 1)) == [node.address]
            assert ask(router.address, request("foo.com")) == HELLO
            source = router.stats()["sources"][-1]
            assert source["name"] == f"json-url@127.0.0.1:{answers.port}"
            assert set(source["rejected"]) == {"no address", "no list of addresses", "bad node address"}

            answers.body = b""  # an error: the nodes stay
            wait_for(lambda: router.stats()["sources"][-1]["errors"], "an error to be counted")
            assert ask(router.address, request("foo.com")) == HELLO

            answers.body = b"{}"  # authoritatively nothing: they go
            router.wait_for_nodes("foo.com", 0, timeout=30)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("json-url:///nodes.json", "one server is needed"),
        ("json-url://a,b/nodes.json", "one server is needed"),
        ("json-url://a:x/", "'a:x' is no place"),
        ("json-url://a/?every=0", r"every=0: out of range \(legal: 1 to 3600 seconds\)"),
    ],
)
def test_a_wrong_url_is_named(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    from json_url import JsonUrl

    with pytest.raises(ValueError, match=message):
        JsonUrl(url)
