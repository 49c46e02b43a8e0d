"""uWSGI's mappers among the options: which one answers, what becomes of the others, and what each becomes here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.configuration import OptionsError, load
from router.mappers import MAPPERS, nodes, urls
from router.options import Options
from router.sources import open_source


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, line: str = "", **environ: str) -> tuple[Options, list[str]]:
    Path("router.ini").write_text(text)
    return load(["--ini", "router.ini", *line.split()], environ)


LINES = {
    "use_cache": "use-cache = ./map",
    "use_pattern": "use-pattern = /run/app.sock",
    "subscription_server": "subscription-server = :2627",
    "use_base": "use-base = /run/",
    "use_code_string": "use-code-string = 0:map.py:node",
    "use_socket": "use-socket = 0",
    "to": "to = :4",
}


def configured(options: Options) -> list[str]:
    return [field for field in MAPPERS if field not in options.defaulted]


@pytest.mark.parametrize("first", range(len(MAPPERS)))
def test_of_a_fastrouters_mappers_the_first_one_answers_alone(first: int) -> None:
    """In whatever order they stand."""
    wanted = [f"fastrouter-{LINES[field]}" for field in reversed(MAPPERS[first:])]
    options, warnings = read("\n".join(["[uwsgi]", "fastrouter = :1", "socket = :3", *wanted]))
    assert configured(options) == [MAPPERS[first]]
    ignored = [line for line in warnings if "ignored, as a fastrouter does" in line]
    name = f"fastrouter-{LINES[MAPPERS[first]].split()[0]}"
    assert len(ignored) == len(MAPPERS) - first - 1
    assert all(f"beside {name}, which answers alone" in line for line in ignored)


def test_the_line_names_what_is_ignored_and_how_it_would_not_be() -> None:
    _, warnings = read(
        "[uwsgi]\nfastrouter = :1\nfastrouter-use-base = /run/\nfastrouter-to = :4\nfastrouter-to = :5\n"
    )
    assert warnings == [
        f"router.ini:{number}: fastrouter-to = :{port}: ignored, as a fastrouter does beside fastrouter-use-base, "
        "which answers alone (as --to, or to in [gfrouter], both are asked)"
        for number, port in ((4, 4), (5, 5))
    ]


def test_what_is_spelled_as_ours_is_asked_beside_it() -> None:
    text = "[uwsgi]\nfastrouter = :1\nfastrouter-use-base = /run/\nfastrouter-to = :4\n[gfrouter]\nto = :5\n"
    options, _ = read(text, "--use-pattern /x --discovery dns")
    assert (options.use_base, options.to, options.use_pattern) == ("/run/", (":5",), "/x")
    assert options.discovery == ("dns",)


def test_all_that_are_spelled_as_ours_are_asked() -> None:
    text = "\n".join(["[gfrouter]", "listen = :1", *LINES.values(), "[uwsgi]", "socket = :3"])
    options, warnings = read(text)
    assert configured(options) == list(MAPPERS)
    assert [line for line in warnings if "fastrouter" in line] == []


def test_on_the_command_line_and_in_the_environment_the_spelling_counts_as_well() -> None:
    options, warnings = load(["--fastrouter-to", ":4", "--fastrouter-use-base=/run/", "--to", ":5"], {})
    assert (options.use_base, options.to) == ("/run/", (":5",))
    assert len(warnings) == 1
    options, warnings = load(
        [], {"UWSGI_FASTROUTER_TO": ":4", "UWSGI_FASTROUTER_USE_BASE": "/run/", "GFROUTER_TO": ":5"}
    )
    assert (options.use_base, options.to) == ("/run/", (":5",))
    assert len(warnings) == 1


def test_each_becomes_a_source(folder: Path) -> None:
    options = Options(
        use_cache="./m?p", use_pattern="/run/%s.sock", use_base="/run/%41?/", use_code_string="0:map.py:node"
    )
    assert urls(options) == [
        f"cache://{folder}/m%3Fp",
        "pattern:///run/%s.sock",
        "base:///run/%2541%3F/",
        f"code://{folder}/map.py?function=node",
    ]
    names = [open_source(url).source.name for url in urls(options)]
    assert names == [f"cache@{folder}/m?p", "pattern@/run/%s.sock", "base@/run/%41?/", f"code@{folder}/map.py"[:80]]
    assert urls(Options(use_base="/run/%41/")) == ["base:///run/%2541/"]
    assert urls(Options()) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "use-cache",
            "gfrouter has no caches: write the items to a file, a line KEY VALUE for each, and give its path",
        ),
        ("use-cache = foobar", "gfrouter has no caches"),
        ("use-base =", "a beginning of addresses is missing"),
        ("use-pattern =", "a pattern is missing"),
        ("use-code-string = 0:map.py", "no function (legal: 0:FILE:FUNCTION)"),
        ("use-code-string = 0::node", "no function"),
        ("use-code-string = 0:map.py:no de", "no function"),
        ("use-code-string = 6:map.lua:node", "the language with modifier '6' is not there (legal: 0, which is Python)"),
        ("use-socket = first", "not a whole number"),
        ("use-socket = -1", "out of range"),
    ],
)
def test_what_cannot_be_is_refused(line: str, reason: str) -> None:
    with pytest.raises(OptionsError) as caught:
        read(f"[uwsgi]\nfastrouter-{line}\n")
    assert str(caught.value).startswith(f"router.ini:2: fastrouter-{line.strip()}")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("option", "address"),
    [("use-socket", "127.0.0.1:1"), ("use-socket = true", "127.0.0.1:1"), ("use-socket = 1", "/run/2.sock")],
)
def test_a_workers_socket_is_a_node_for_any_key(option: str, address: str) -> None:
    text = f"[uwsgi]\nfastrouter-{option}\nsocket = %(place):1\nuwsgi-socket = /run/2.sock\nplace = 127.0.0.1\n"
    options, _ = read(text)
    assert nodes(options) == (address,)
    assert nodes(Options(to=(":4",))) == (":4",)
    assert nodes(read(text, "--to :4")[0]) == (address, ":4")
    assert Options.from_json(options.to_json()) == options


def test_sockets_of_every_kind_are_counted_and_only_uwsgis_will_do() -> None:
    text = "[uwsgi]\nfastrouter-use-socket = {}\nhttp-socket = :1\nsocket = :2\n[gfrouter]\n"
    assert nodes(read(text.format(1))[0]) == (":2",)
    with pytest.raises(OptionsError, match="http-socket = :1: nobody speaks uwsgi there"):
        read(text.format(0))


def test_sockets_on_the_command_line_are_counted_and_the_last_number_counts() -> None:
    text = "[gfrouter]\nsocket = :8\nuse-socket = 5\n[uwsgi]\nsocket = :9\n"
    assert nodes(read(text, "--use-socket=0")[0]) == (":9",)
    options, _ = load(["--fastrouter-use-socket", "--socket", ":1"], {})
    assert nodes(options) == (":1",)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "192.*:0"])
def test_a_socket_whose_address_nobody_knows_is_refused(address: str) -> None:
    with pytest.raises(OptionsError, match=r"router.ini:2: fastrouter-use-socket: .*: no address to connect to: "):
        read(f"[uwsgi]\nfastrouter-use-socket\nsocket = {address}\n")


def test_without_such_a_socket_there_is_no_start() -> None:
    options, _ = read("[uwsgi]\nfastrouter-use-socket = 1\nsocket = :1\n")
    with pytest.raises(OptionsError, match="use-socket=1: the same configuration has no such line socket = ADDRESS"):
        nodes(options)


def test_a_socket_that_is_ignored_may_be_none() -> None:
    options, _ = read("[uwsgi]\nfastrouter-use-base = /run/\nfastrouter-use-socket\nsocket = 127.0.0.1:0\n")
    assert (options.use_socket, options.worker_socket) == (None, "")
    assert os.path.isabs(options.use_base)
