"""What contrib/etcd shows: a uWSGI worker that registers itself with etcd, and is forgotten when it is gone."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import ask, request
from etcd_server import Etcd, needs_etcd
from scripted import wait_for
from servers import CONTRIB, UWSGI, Process, Router, free_address

pytestmark = [needs_etcd, pytest.mark.slow]


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server


def worker(etcd: Etcd, folder: Path, address: str, ttl: int) -> Process:
    """uWSGI with the worker.ini of contrib/etcd, with ports of our own."""
    text = (CONTRIB / "etcd" / "worker.ini").read_text()
    for ours, theirs in {
        "127.0.0.1:3031": address,
        "127.0.0.1:2379": etcd.address,
        "%d": f"{CONTRIB}/etcd/",
        "register.py": f"register.py --ttl {ttl}",
    }.items():
        assert ours in text
        text = text.replace(ours, theirs)
    ini = folder / "worker.ini"
    ini.write_text(text)
    return Process(UWSGI, "--ini", ini)


def test_the_entry_is_there_as_long_as_the_worker(etcd: Etcd, tmp_path: Path) -> None:
    address = free_address()
    with Router(discovery=f"etcd://{etcd.address}") as router, worker(etcd, tmp_path, address, ttl=600) as uwsgi:
        router.wait_for_nodes("foo.com", 1)
        assert ask(router.address, request("foo.com")).startswith(b"HTTP/1.1 200 OK")
        assert etcd.names() == [f"/gfrouter/foo.com/{address}".encode()]
        uwsgi.stop(signal.SIGTERM)
        router.wait_for_nodes("foo.com", 0)


def test_a_lease_that_etcd_has_lost_is_begun_again(etcd: Etcd, tmp_path: Path) -> None:
    address = free_address()
    entry = f"/gfrouter/foo.com/{address}".encode()
    with worker(etcd, tmp_path, address, ttl=3):
        wait_for(lambda: entry in etcd.names(), "the entry")
        etcd.restart(empty=True)
        wait_for(lambda: entry in etcd.names(), "the entry once more", 20)


def test_a_worker_that_dies_with_all_that_is_his_leaves_when_the_lease_ends(etcd: Etcd, tmp_path: Path) -> None:
    address = free_address()
    entry = f"/gfrouter/foo.com/{address}".encode()
    with worker(etcd, tmp_path, address, ttl=2) as uwsgi:
        wait_for(lambda: entry in etcd.names(), "the entry")
        uwsgi.kill()
        wait_for(lambda: entry not in etcd.names(), "the entry to go", 20)


def test_it_does_not_outlive_its_parent(etcd: Etcd, tmp_path: Path) -> None:
    address = free_address()
    entry = f"/gfrouter/foo.com/{address}".encode()
    with worker(etcd, tmp_path, address, ttl=600) as uwsgi:
        wait_for(lambda: entry in etcd.names(), "the entry")
        uwsgi.send_signal(signal.SIGKILL)  # the master alone
        wait_for(lambda: entry not in etcd.names(), "the entry to go", 20)


def test_everything_that_can_be_said() -> None:
    with Etcd() as etcd, Router(discovery=f"etcd://{etcd.address}/live") as router:
        words = ("--etcd", etcd.url, "--prefix", "/live", "--value", '{"modifier1": 9}', "foo.com/a b", "/run/app.sock")
        with Process("python3", CONTRIB / "etcd" / "register.py", *words):
            assert router.wait_for_nodes("foo.com/a b", 1)["/run/app.sock"]["modifier1"] == 9
            assert etcd.names() == [b"/live/foo.com%2Fa%20b/%2Frun%2Fapp.sock"]


def test_the_readme_names_the_ports_of_the_files() -> None:
    readme, ini = ((CONTRIB / "etcd" / name).read_text() for name in ("README.md", "worker.ini"))
    assert set(re.findall(r"127\.0\.0\.1:\d+", ini)) <= set(re.findall(r"127\.0\.0\.1:\d+", readme))
    assert os.access(CONTRIB / "etcd" / "register.py", os.R_OK)
