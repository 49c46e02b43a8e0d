"""Which settings of one configuration are the worker's, and when there is a worker at all."""

from pathlib import Path

import pytest

from router.configuration import load
from router.options import Options
from router.setting import OptionsError
from router.single import GRACEFUL, PRIVATE, Part, ini

# As uWSGI's documentation of the FastRouter has it ("Cheap mode and shared sockets").
DOCUMENTED = """[uwsgi]
;create a shared socket (the webserver will connect to it)
shared-socket = 127.0.0.1:3031

; bind the fastrouter to the shared socket
fastrouter = =0
; bind an instance to the same socket
socket = =0

; having a master is always a good thing...
master = true
; our subscription server
fastrouter-subscription-server = 192.168.0.100:4040
; our app
wsgi-file = /var/www/myheavyapp.wsgi
; a bunch of processes
processes = 4
; and put the fastrouter in cheap mode
fastrouter-cheap = true
"""
SHARED = ("shared-socket = 127.0.0.1:3031", "fastrouter = =0")
WORKER = ("socket = =0", "wsgi-file = app.py")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(*lines: str, more: str = "", words: tuple[str, ...] = ()) -> tuple[Options, list[str]]:
    Path("site.ini").write_text("\n".join(["[uwsgi]", *lines, more]))
    return load(["--ini", "site.ini", *words], {})


def part(*lines: str, words: tuple[str, ...] = ()) -> Part:
    found = loaded(*SHARED, *WORKER, *lines, words=words)[0].worker
    assert found
    return found


def settings(*lines: str) -> dict[str, str]:
    return dict(part(*lines).settings)


def refusal(*lines: str) -> str:
    with pytest.raises(OptionsError) as caught:
        loaded(*lines)
    return str(caught.value)


# --- is there a worker? -----------------------------------------------------------------------------------


def test_the_documented_example() -> None:
    Path("site.ini").write_text(DOCUMENTED)
    options, warnings = load(["--ini", "site.ini"], {})
    assert warnings == []
    assert (options.listen, options.cheap, options.processes) == (("=0",), True, 1)
    assert options.worker
    assert options.worker.settings == (
        ("socket", PRIVATE),
        ("wsgi-file", "/var/www/myheavyapp.wsgi"),
        ("processes", "4"),
    )
    assert ini(options.worker, 7) == (
        f"[uwsgi]\nmaster = true\nhook-master-start = {GRACEFUL}\nsocket = fd://7\n"
        "wsgi-file = /var/www/myheavyapp.wsgi\nprocesses = 4\n"
    )


@pytest.mark.parametrize(
    "lines",
    [
        ("master = true", "processes = 4", "plugins = fastrouter,python", "fastrouter-cheap = true"),
        ("wsgi-file = app.py", "processes = 4"),  # nobody could ask it
        ("socket = =0", "processes = 4"),  # it would have nothing to say
        ("http-socket = :8080", "wsgi-file = app.py"),
        ("stats = 127.0.0.1:1717", "threads = 2"),
    ],
)
def test_a_routers_file_starts_no_worker(lines: tuple[str, ...]) -> None:
    assert loaded(*SHARED, *lines)[0].worker is None


def test_a_workers_file_alone_starts_none_either() -> None:
    options, warnings = loaded("socket = 127.0.0.1:9", "wsgi-file = app.py")
    assert options.worker is None
    assert len(warnings) == 2


def test_what_stands_in_our_own_section_is_the_routers() -> None:
    options, warnings = loaded(*SHARED, more="[gfrouter]\nsocket = =0\nwsgi-file = app.py\n")
    assert options.worker is None
    assert len(warnings) == 2


@pytest.mark.parametrize(
    "app",
    ["wsgi = app", "module = app:application", "mount = /=app.py", "file = app.py", "pump = app", "paste = config:x",
     "psgi = app.pl"],
)  # fmt: skip
def test_every_kind_of_application_counts(app: str) -> None:
    assert loaded(*SHARED, "socket = =0", app)[0].worker


def test_the_command_line_may_say_it_all() -> None:
    words = ["--shared-socket=:3031", "--fastrouter", "=0", "--socket", "=0", "--wsgi-file", "app.py", "--threads=2"]
    options, warnings = load(words, {})
    assert warnings == []
    assert options.worker
    assert options.worker.settings == (("socket", PRIVATE), ("wsgi-file", "app.py"), ("threads", "2"))


def test_no_router_process_gets_it() -> None:
    options = loaded(*SHARED, *WORKER, "env = SECRET=1")[0]
    assert "SECRET" not in options.to_json()
    assert Options.from_json(options.to_json()).worker is None


# --- its settings -----------------------------------------------------------------------------------------


def test_they_keep_their_order_and_placeholders_are_replaced() -> None:
    found = part("base = /srv", "env = A=1", "wsgi-file = %(base)/app.py", "env = B=2", "enable-threads")
    assert found.settings[2:] == (
        ("base", "/srv"),
        ("env", "A=1"),
        ("wsgi-file", "/srv/app.py"),
        ("env", "B=2"),
        ("enable-threads", ""),
    )


def test_a_percent_sign_stands_twice_and_a_bare_name_bare() -> None:
    text = ini(part("logformat = %(addr) 5%%", "enable-threads"), 3)
    assert text.endswith("\nlogformat = %%(addr) 5%%\nenable-threads\n")


def test_the_routers_own_options_are_not_passed_on() -> None:
    names = {name for name, _ in part("fastrouter-timeout = 9", "fastrouter-nonsense = 1", "die-on-term", "strict=0",
                                      "attach-daemon = sleep 1").settings}  # fmt: skip
    assert names == {"socket", "wsgi-file"}


def test_what_holds_of_all_sockets_is_for_both() -> None:
    lines = ("socket = /run/w.sock", "chmod-socket = 660", "vacuum = true", "listen = 50")
    options = loaded(*SHARED, *WORKER, *lines)[0]
    assert (options.chmod_socket, options.vacuum, options.backlog) == (0o660, True, 50)
    assert dict(part(*lines).settings).items() >= {"chmod-socket": "660", "vacuum": "true", "listen": "50"}.items()
    assert "vacuum" not in settings("vacuum = true", "chmod-socket = 660")  # no file is its own


def test_the_processes_are_the_workers_and_ours_have_a_name_of_their_own() -> None:
    options = loaded(*SHARED, *WORKER, "processes = 4", "fastrouter-processes = 2")[0]
    assert options.processes == 2
    assert options.worker
    assert dict(options.worker.settings)["processes"] == "4"


@pytest.mark.parametrize("name", ["attach-daemon2", "smart-attach-daemon", "smart-attach-daemon2"])
def test_a_daemon_of_the_workers_kind_is_its_own_and_refused_without_a_worker(name: str) -> None:
    assert settings(f"{name} = /run/x.pid sleep 1")[name] == "/run/x.pid sleep 1"
    assert f"{name} is not supported yet" in refusal(*SHARED, f"{name} = /run/x.pid sleep 1")


# --- its sockets ------------------------------------------------------------------------------------------


def test_a_socket_that_is_named_twice_is_one() -> None:
    assert [value for _, value in part("uwsgi-socket = =0").settings].count(PRIVATE) == 1


def test_a_shared_socket_where_the_router_does_not_listen_is_the_workers_own() -> None:
    options, _ = loaded(*SHARED, "shared-socket = 127.0.0.1:3032", "socket = =1", "wsgi-file = app.py")
    assert options.worker
    assert options.worker.settings[0] == ("socket", "127.0.0.1:3032")
    assert not options.worker.is_private


@pytest.mark.parametrize("name", ["http", "http-socket", "https", "rawrouter"])
def test_a_router_of_its_own_takes_such_a_shared_socket_as_well(name: str) -> None:
    options, warnings = loaded(*SHARED, *WORKER, "shared-socket = 127.0.0.1:3032", f"{name} = =1,foo.crt,foo.key")
    assert options.worker
    assert (name, "127.0.0.1:3032,foo.crt,foo.key") in options.worker.settings
    assert not [text for text in warnings if "is not used" in text]


def test_a_socket_of_its_own_stays() -> None:
    found = part("socket = 127.0.0.1:9", "http-socket = :8080")
    assert found.is_private
    assert [value for name, value in found.settings if name.endswith("socket")] == [PRIVATE, "127.0.0.1:9", ":8080"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("http-socket = =0", "site.ini:6: http-socket = =0: the router takes requests there, and they are uwsgi's"),
        ("http = =0", "site.ini:6: http = =0: the router takes requests there, and they are uwsgi's"),
        ("socket = =1", "site.ini:6: socket = =1, but only 1 shared-socket is given, counted from 0"),
    ],
)
def test_a_socket_that_cannot_be(line: str, reason: str) -> None:
    assert refusal(*SHARED, *WORKER, line) == reason


def test_a_socket_where_the_router_listens_without_sharing() -> None:
    lines = ("fastrouter = 127.0.0.1:9", "socket = 127.0.0.1:9", "wsgi-file = app.py")
    assert "the router listens there (a shared-socket is for both of them, as =0)" in refusal(*lines)
    shared = ("shared-socket = 127.0.0.1:9", "fastrouter = =0", *lines[1:])
    assert "the router listens there (a shared-socket is for both of them, as =0)" in refusal(*shared)


def test_a_line_feed_from_elsewhere() -> None:
    with pytest.raises(OptionsError, match="a line feed"):
        part(words=("--env", "A=1\nattach-daemon = x"))


# --- what it subscribes to --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("subscribe-to = 127.0.0.1:2626:foo.com", {"foo.com": 1}),
        ("subscribe-to = 127.0.0.1:2626:foo.com:8080,5", {"foo.com:8080": 1}),
        ("subscribe = /run/router.sock:foo.com", {"foo.com": 1}),
        ("subscribe-to = =0=127.0.0.1:2626:foo.com", {}),  # another socket's word
        ("subscribe-to = 127.0.0.1:2626:@/etc/keys", {}),
        ("subscribe-to = nonsense", {}),
        ("subscribe2 = server=127.0.0.1:2626,key=foo.com,weight=3", {"foo.com": 1}),
        ("subscribe2 = server=127.0.0.1:2626,key=foo.com,backup=0", {"foo.com": 0}),
        ("subscribe2 = server=127.0.0.1:2626,key=foo.com,backup=x", {"foo.com": 1}),
        ("subscribe2 = server=127.0.0.1:2626,key=foo.com,addr=10.0.0.1:3031", {}),
        ("subscribe2 = key,server=127.0.0.1:2626", {}),
    ],
)
def test_it_is_a_backup_of_the_keys_that_it_subscribes_to(line: str, keys: dict[str, int]) -> None:
    assert dict(part(line).keys) == keys
