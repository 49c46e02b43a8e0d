"""py-consul, the maintained fork with the same import name, in the place of python-consul: the source's tests again.

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
# Those with an agent of their own do not depend on the client in other ways than these.
SOME = "registration or check_takes or keeps_its_data or acls or tls"


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
@pytest.mark.skipif(not FOLDER.exists(), reason="py-consul is not in build/peers: make peers")
def test_the_source_works_with_py_consul_as_well() -> None:
    assert str(FOLDER) in run(
        "-P", "-c", "import consul.callback; print(consul.__file__)"
    )  # a module of py-consul alone
    pytest_words = ("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider")
    alone = [str(TESTS / name) for name in ("test_consulagent.py", "test_consul.py")]
    assert " passed" in run(*pytest_words, *alone)
    assert " passed" in run(*pytest_words, str(TESTS / "test_end_to_end_consul.py"), "-k", SOME)
