"""Connections to etcd and what they leave behind, in a patched process; etcd itself is real, or nobody at all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_server import Etcd, needs_etcd
from scripted import NodeConnection, ScriptedNode, hang
from servers import free_address

SCENES = Path(__file__).with_name("etcd_scenes.py")


def play(scene: str, url: str = "etcd://", **env: str) -> None:
    """One scene of etcd_scenes.py; a warning is an error there, too."""
    words = [sys.executable, "-W", "error", str(SCENES), scene, url]
    env = {**os.environ, **env}
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server


def rubbish(connection: NodeConnection) -> None:
    connection.read()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" * 20)


@needs_etcd
@pytest.mark.slow
def test_a_source_that_is_killed_while_it_watches_leaves_nothing(etcd: Etcd) -> None:
    etcd.put("/gfrouter/foo.com/127.0.0.1:3031")
    play("killed_while_it_watches", f"etcd://{etcd.address}")


@needs_etcd
@pytest.mark.slow
def test_what_is_recalled_stays_until_etcd_denies_it(etcd: Etcd) -> None:
    etcd.put("/gfrouter/foo.com/127.0.0.1:3031")
    play("what_was_recalled", f"etcd://{etcd.address}", NOBODY=free_address())


@needs_etcd
@pytest.mark.slow
def test_grpc_has_no_threads_of_its_own_that_outlive_a_run(etcd: Etcd) -> None:
    play("a_killed_run_is_all_there_is", f"etcd://{etcd.address}")


@pytest.mark.slow
def test_a_source_that_is_killed_while_nobody_answers_leaves_nothing() -> None:
    with ScriptedNode(hang) as node:
        play("killed_while_nobody_answers", f"etcd://{node.address}?timeout=60")


@pytest.mark.slow
def test_a_refused_connection_is_told_and_leaves_nothing() -> None:
    play("failed_runs", f"etcd://{free_address()}")


@pytest.mark.slow
def test_rubbish_is_told_and_leaves_nothing() -> None:
    with ScriptedNode(rubbish) as node:
        play("failed_runs", f"etcd://{node.address}")


@needs_etcd
@pytest.mark.slow
def test_a_revision_that_was_compacted_cannot_be_watched(etcd: Etcd) -> None:
    etcd.compact()
    play("the_watch_of_a_forgotten_revision", f"etcd://{etcd.address}")


@needs_etcd
@pytest.mark.slow
def test_a_watch_that_never_begins_is_given_up(etcd: Etcd) -> None:
    try:
        play("the_watch_that_never_begins", f"etcd://{etcd.address}", ETCD_PID=str(etcd.process.pid))
    finally:
        etcd.thaw()


@needs_etcd
@pytest.mark.slow
def test_a_list_comes_in_pages_however_large_its_values(etcd: Etcd) -> None:
    for number in range(120):
        etcd.put(f"/pages/{number:04}")
    for number in range(5):
        etcd.put(f"/large/{number:02}", b"x" * 400_000)
    play("pages", f"etcd://{etcd.address}")


@needs_etcd
@pytest.mark.slow
def test_a_token_that_etcd_does_not_know_any_more_is_exchanged() -> None:
    with Etcd() as server:
        server.put("/gfrouter/foo.com/127.0.0.1:3031")
        server.enable_auth("bob", "geheim", b"/gfrouter/")
        play("logs_in_again", f"etcd://bob:geheim@{server.address}")


@needs_etcd
@pytest.mark.slow
def test_members_are_taken_in_turn(etcd: Etcd) -> None:
    play("members_in_turn", f"etcd://{free_address()},{free_address()},{etcd.address}")


@needs_etcd
@pytest.mark.slow
def test_many_sources_leave_names_a_thread_to_be_looked_up_in(etcd: Etcd) -> None:
    play("many_sources_and_a_name", f"etcd://{etcd.address}")


@pytest.mark.slow
def test_what_the_import_needs_is_not_left_in_the_environment() -> None:
    play("the_environment_is_as_before")


def test_without_its_libraries_the_source_cannot_be_imported() -> None:
    code = "import sys; sys.modules['etcd3'] = None\ntry: import discovery.etcd\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "etcd3" in done.stdout


@pytest.mark.slow
def test_protobuf_in_the_wrong_implementation_is_an_import_error_that_says_so() -> None:
    code = "import google.protobuf.descriptor\ntry: import discovery.etcd\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("protobuf was imported before with an implementation that etcd3 cannot use")
