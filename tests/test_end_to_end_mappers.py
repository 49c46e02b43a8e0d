"""gfrouter with uWSGI's mappers: what they name is served, and what goes wrong with one key costs that key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients import ask, request
from scripted import ScriptedNode, answer, wait_for
from servers import Process, Router, free_address, router_command

A = answer(b"A")
B = answer(b"B")


@pytest.mark.slow
def test_a_function_that_hangs_or_raises_costs_its_key_alone(tmp_path: Path) -> None:
    with ScriptedNode(A) as node:
        (tmp_path / "map.py").write_text(
            "import time\n"
            "def node(key: str):\n"
            "    if key.startswith('hang'): time.sleep(3600)\n"
            "    if key == 'raise.com': raise KeyError(key)\n"
            f"    return '{node.address}'\n"
        )
        url = f"code://{tmp_path}/map.py?function=node&processes=4&timeout=60"
        with Router(discovery=url, subscription_server=None, lookup_timeout=2) as router:
            with ThreadPoolExecutor() as pool:
                hanging = [pool.submit(ask, router.address, request(f"hang{n}.com")) for n in range(2)]
                wait_for(lambda: router.stats()["lookups"]["open"] == 2, "both to be asked")
                assert [ask(router.address, request(key)) for key in ("foo.com", "raise.com", "bar.com")] == [
                    b"A",
                    b"",
                    b"A",
                ]
                assert not any(each.done() for each in hanging)
                assert [each.result() for each in hanging] == [b"", b""]
            assert router.line("function raised: raise.com: KeyError: 'raise.com'")


@pytest.mark.slow
def test_with_our_spellings_all_are_one_map(tmp_path: Path) -> None:
    (tmp_path / "map.py").write_text("def node(key):\n    return None\n")
    (tmp_path / "map").write_text("")
    with ScriptedNode(A, address=str(tmp_path / "foo.com")) as base, ScriptedNode(B) as to:
        with Router(
            f"--use-cache={tmp_path}/map",
            use_base=f"{tmp_path}/",
            use_code_string=f"0:{tmp_path}/map.py:node",
            to=to.address,
            cheap=True,
        ) as router:
            assert router.line("cheap mode is off: base@.*, code@.* knows a node only")
            assert ask(router.address, request("foo.com")) == b"A"
            (tmp_path / "map").write_text(f"bar.com {to.address}\n")
            router.wait_for_nodes("bar.com", 1)
            assert ask(router.address, request("bar.com")) == b"B"
            assert ask(router.address, request("a/../b.com")) == b"B"
            assert base.address in router.nodes("foo.com")


def test_a_node_that_comes_back_is_found_within_a_second_or_two(tmp_path: Path) -> None:
    with Router(use_base=f"{tmp_path}/", subscription_server=None) as router:
        assert ask(router.address, request("foo.com")) == b""
        with ScriptedNode(A, address=str(tmp_path / "foo.com")):
            wait_for(lambda: ask(router.address, request("foo.com")) == b"A", "it to be asked again")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("fastrouter-use-socket", "use-socket=0: the same configuration has no such line socket = ADDRESS"),
        ("fastrouter-use-pattern = /run/%%d", "%d means nothing here"),
    ],
)
def test_check_finds_what_is_wrong(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "router.ini").write_text(f"[uwsgi]\nfastrouter = {free_address()}\n{line}\n")
    with Process(*router_command(fastrouter=False), "--check", "--ini", tmp_path / "router.ini") as check:
        assert check.wait(30) == 1
        assert any(reason in text for text in check.lines)
