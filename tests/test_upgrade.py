"""The upgrade guide, command by command, as docs/upgrade.md has it: from the real fastrouter to gfrouter and back.

Under load, through a real nginx, with real workers that nobody touches.
"""

import json
import os
import re
import sys
from pathlib import Path
from pwd import getpwuid

import pytest

from clients import Load, read_to_end
from scripted import connect, wait_for
from servers import FORMS, NGINX, TESTS, Process, Worker, free_address, free_port, needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.long, needs_nginx]

GUIDE = (TESTS.parent / "docs" / "upgrade.md").read_text()
BLOCKS = [re.sub("^    ", "", text, flags=re.MULTILINE) for text in re.findall("(?:^    .*\n)+", GUIDE, re.MULTILINE)]

# One shell runs the guide; around its commands stands what is there already, and what this test waits for.
SCRIPT = """\
set -eu
PATH="@BIN@:$PATH"
nginx() { @NGINX@ -p "$PWD" -e stderr "$@"; }
pause() { echo "$1"; until [ -e "$2" ]; do sleep 0.1; done; }
nginx -c "$PWD/nginx.conf" &
uwsgi --ini router.ini & echo $! > router.pid
@setup@
pause "all is as it was" begin
@forward@
pause "gfrouter is there" return
@back@
echo "all is as it was before"
wait
"""


def commands(name: str) -> str:
    """The guide's commands in the blocks that begin with the comment `# NAME`."""
    return "".join(block for block in BLOCKS if block.startswith(f"# {name}\n"))


def as_nginx(address: str) -> str:
    return f"unix:{address}" if address.startswith("/") else address


def version(stats_address: str) -> str:
    """Of the router that answers there."""
    with connect(stats_address) as sock:
        return str(json.loads(read_to_end(sock))["version"])


@pytest.mark.parametrize("form", ["ipv4", "path"])
def test_there_and_back_without_a_lost_request(form: str, tmp_path: Path) -> None:
    assert form in FORMS
    stats, subscriptions = free_address(), free_address()
    here = {
        "127.0.0.1:3031": free_address(form, tmp_path),
        "127.0.0.1:3032": free_address(form, tmp_path),
        "127.0.0.1:2626": subscriptions,
        "127.0.0.1:9191": stats,
        "127.0.0.1:9192": free_address(),
    }

    def local(text: str) -> str:
        for there, address in here.items():
            text = text.replace(f"ask_at {there}", f"ask_at {as_nginx(address)}").replace(there, address)
        return text

    port = free_port()
    # With a master process, to be reloaded; its processes may then reach a socket in this test's folder.
    user = f"user {getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    config = (TESTS / "nginx.conf.in").read_text().replace("master_process off;", user)
    router = as_nginx(here["127.0.0.1:3031"])
    for name, value in {"ROUTER": router, "MORE": "", "STREAMING_PORT": free_port(), "PORT": port}.items():
        config = config.replace(f"@{name}@", str(value))
    (tmp_path / "nginx.conf").write_text(config)
    (tmp_path / "router.ini").write_text(local(next(block for block in BLOCKS if block.startswith("[uwsgi]"))))
    script = SCRIPT
    for name, text in {
        "BIN": str(Path(sys.executable).parent),
        "NGINX": str(NGINX),
        **{name: local(commands(name)) for name in ("setup", "forward", "back")},
    }.items():
        script = script.replace(f"@{name}@", text)

    with Process("sh", "-c", script, cwd=tmp_path) as shell, Worker(subscriptions), Worker(subscriptions):
        shell.wait_line("all is as it was")
        shell.wait_listens(port)
        wait_for(lambda: _nodes(stats) == 2, "both workers to be known", timeout=20)
        fastrouter = version(stats)
        with Load(port, clients=16) as load:
            load.more(50)
            (tmp_path / "begin").touch()
            shell.wait_line("gfrouter is there", timeout=60)
            assert version(stats) != fastrouter
            load.more(50)
            (tmp_path / "return").touch()
            shell.wait_line("all is as it was before", timeout=60)
            assert version(stats) == fastrouter
            load.more(50)
    assert not load.failures
    assert len(load.answers) == 2


def _nodes(stats_address: str) -> int:
    try:
        with connect(stats_address) as sock:
            pools = json.loads(read_to_end(sock))["subscriptions"]
    except OSError:
        return 0
    return sum(len(pool["nodes"]) for pool in pools)
