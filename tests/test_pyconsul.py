"""py-consul, the maintained fork with the same import name, in the place of python-consul: its source's tests, again.

The two are never installed together: this one is in a folder of its own, which `make peers` fills, and which stands
before the installed packages in the child that runs the tests.
"""

import os
import subprocess
import sys

import pytest

from consul_server import PEERS, needs_consul
from servers import TESTS

FOLDER = PEERS / "py-consul"
# What reaches the client: on the stand-in of an agent all its requests, answers and errors, and what a source's run
# says first; on a real one a check and a token. The rest does not depend on the client.
SOME = {
    "scripted": "test_consulagent or first_word",
    "real": "check_takes or acls",
}
FILES = {"scripted": ("test_consulagent.py", "test_consul.py"), "real": ("test_end_to_end_consul.py",)}


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_consul
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("agent", SOME)
@pytest.mark.skipif(not FOLDER.exists(), reason="py-consul is not in build/peers: make peers")
def test_the_source_works_with_py_consul_as_well(agent: str) -> None:
    assert str(FOLDER) in run(
        "-P", "-c", "import consul.callback; print(consul.__file__)"
    )  # a module of py-consul alone
    files = [str(TESTS / name) for name in FILES[agent]]
    assert " passed" in run("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *files, "-k", SOME[agent])
