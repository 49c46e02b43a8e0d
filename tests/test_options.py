"""The options: every spelling and source, what is stronger than what, and in which words the rest is refused.

They are read from real files in a folder of the test's own; nothing is bound.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router import __version__, foreign
from router.address import LEGAL
from router.configuration import HelpRequested, OptionsError, VersionRequested, load
from router.gather import AS_AN_INI
from router.help import help_text
from router.options import PLAIN, TABLE, UWSGI, Options
from servers import UWSGI as UWSGI_COMMAND

# The router.ini of the article that gfrouter answers.
ARTICLE = """\
[uwsgi]
plugins = fastrouter
master = true
shared-socket = 127.0.0.1:3031
fastrouter-subscription-server = 0.0.0.0:2626
fastrouter = =0
fastrouter-cheap = true
vacuum = true

# vim:ft=dosini et ts=2 sw=2 ai:
"""

# And its worker.ini, which a router may be given by mistake or because one file holds both.
ARTICLE_WORKER = """\
[uwsgi]
plugins = python
master = true
processes = 2
threads = 4
heartbeat = 10
socket = 192.*:0
subscribe2 = server=127.0.0.1:2626,key=foo.com
wsgi = app
vacuum = true
harakiri = 10
max-requests = 100
logformat = %(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) "%(referer)" "%(uagent)"

# vim:ft=dosini et ts=2 sw=2 ai:
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files are named without a folder, so that messages read here as they do at a terminal."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(line: str, **environ: str) -> Options:
    options, warnings = load(line.split(), environ)
    assert warnings == []
    return options


def from_ini(text: str, line: str = "", **environ: str) -> tuple[Options, list[str]]:
    Path("router.ini").write_text(text)
    return load(["--ini", "router.ini", *line.split()], environ)


def uwsgi(*lines: str) -> Options:
    options, warnings = from_ini("\n".join(["[uwsgi]", *lines]))
    assert warnings == []
    return options


def warnings_of(*lines: str) -> list[str]:
    return from_ini("\n".join(["[uwsgi]", *lines]))[1]


def refusal(line: str, **environ: str) -> str:
    with pytest.raises(OptionsError) as caught:
        load(line.split(), environ)
    return str(caught.value)


def ini_refusal(*lines: str, section: str = "uwsgi") -> str:
    with pytest.raises(OptionsError) as caught:
        from_ini("\n".join([f"[{section}]", *lines]))
    return str(caught.value)


# --- the seed article -------------------------------------------------------------------------------------


def test_the_articles_router_ini_is_understood_without_a_word() -> None:
    options, warnings = from_ini(ARTICLE)
    assert warnings == []
    assert options.listen == ("=0",)
    assert options.shared_socket == ("127.0.0.1:3031",)
    assert options.subscription_server == ("0.0.0.0:2626",)
    assert options.cheap is True
    assert options.vacuum is True
    assert options.ini == ("router.ini",)
    assert not {"listen", "subscription_server", "cheap", "vacuum"} & options.defaulted


def test_the_article_reads_the_same_with_crlf() -> None:
    assert from_ini(ARTICLE.replace("\n", "\r\n")) == from_ini(ARTICLE)


def test_the_articles_worker_ini_gets_one_warning_for_each_option_of_workers() -> None:
    _, warnings = from_ini(ARTICLE_WORKER)
    assert [warning.split(" = ")[0] for warning in warnings] == [
        "router.ini:4: processes",
        "router.ini:5: threads",
        "router.ini:6: heartbeat",
        "router.ini:7: socket",
        "router.ini:8: subscribe2",
        "router.ini:9: wsgi",
        "router.ini:11: harakiri",
        "router.ini:12: max-requests",
        "router.ini:13: logformat",
    ]
    assert warnings[1] == "router.ini:5: threads = 4: ignored, a router has no use for it"


# --- nothing said -----------------------------------------------------------------------------------------


def test_without_any_option_there_is_one_address_for_requests_and_one_for_announcements() -> None:
    options, warnings = load([], {})
    assert warnings == []
    assert options == dataclasses.replace(Options(), error_pages="on", defaulted=options.defaulted)
    assert options.listen == ("127.0.0.1:3031",)
    assert options.subscription_server == ("127.0.0.1:2626",)
    assert options.defaulted == {entry.field for entry in TABLE}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--listen", ":1"], "on"),
        (["--fastrouter", ":1"], "off"),
        (["--listen", ":1", "--fastrouter", ":2"], "off"),
        (["--fastrouter", ":1", "--error-pages", "on"], "on"),
        (["--listen", ":1", "--error-pages", "off"], "off"),
    ],
)
def test_error_pages_are_off_where_an_address_is_given_as_a_fastrouters(argv: list[str], expected: str) -> None:
    assert load(argv, {})[0].error_pages == expected


def test_what_is_not_given_is_defaulted_by_itself() -> None:
    options = words("--listen :80")
    assert options.subscription_server == ("127.0.0.1:2626",)
    assert "subscription_server" in options.defaulted
    assert "listen" not in options.defaulted
    assert words("--subscription-server :2626").listen == ("127.0.0.1:3031",)


# --- spellings --------------------------------------------------------------------------------------------

# One legal text for each option, and the value it stands for.
EXAMPLES: dict[str, tuple[str, object]] = {
    "listen": ("10.0.0.1:80", ("10.0.0.1:80",)),
    "shared_socket": (":81", (":81",)),
    "subscription_server": (":2627", (":2627",)),
    "stats": ("/run/stats.sock", "/run/stats.sock"),
    "stats_http": ("true", True),
    "admin": ("off", "off"),
    "backlog": ("511", 511),
    "chmod_socket": ("660", 0o660),
    "chown_socket": ("7:8", (7, 8)),
    "vacuum": ("true", True),
    "reuse_port": ("true", True),
    "freebind": ("true", True),
    "timeout": ("7", 7),
    "head_timeout": ("4", 4),
    "first_byte_timeout": ("3", 3),
    "session_timeout": ("600", 600),
    "post_buffering": ("8192", 8192),
    "post_buffering_dir": ("/", "/"),
    "post_buffering_limit": ("1000000", 1_000_000),
    "error_pages": ("/srv/pages", "/srv/pages"),
    "unknown_key_status": ("503", "503"),
    "cheap": ("true", True),
    "warm_timeout": ("0", 0),
    "lookup_timeout": ("5", 5),
    "subscription_tolerance": ("19", 19),
    "subscription_tolerance_inactive": ("20", 20),
    "subscription_address": ("sender", "sender"),
    "subscription_quota": ("0", 0),
    "subscription_allow": ("10.0.0.0/8", ("10.0.0.0/8",)),
    "subscriptions_sign_check": ("SHA256:/keys", "SHA256:/keys"),
    "subscriptions_sign_check_tolerance": ("60", 60),
    "subscriptions_sign_skip_uid": ("1000", (1000,)),
    "subscriptions_use_credentials": ("true", True),
    "subscriptions_credentials_check": ("/own/", ("/own/",)),
    "resubscribe": ("10.0.0.1:2626", ("10.0.0.1:2626",)),
    "resubscribe_address": (":3031", ":3031"),
    "resubscribe_sign": ("SHA256:/etc/r.pem", "SHA256:/etc/r.pem"),
    "resubscribe_keys": ("all", "all"),
    "discovery": ("dns", ("dns",)),
    "to": (":1,7", (":1,7",)),
    "use_cache": ("/etc/map", "/etc/map"),
    "use_pattern": ("/run/app.sock", "/run/app.sock"),
    "use_base": ("/run/", "/run/"),
    "use_code_string": ("0:/etc/map.py:node", "0:/etc/map.py:node"),
    "use_socket": ("1", 1),
    "force_key": ("all.com", "all.com"),
    "subscription_mountpoints": ("2", 2),
    "mountpoints_shallower": ("true", True),
    "normalise_host": ("true", True),
    "wildcard_keys": ("true", True),
    "subscription_dotsplit": ("true", True),
    "subscription_fallback_key": ("all.com", "all.com"),
    "algorithm": ("hash:HTTP_X_USER", "hash:HTTP_X_USER"),
    "max_keys": ("1", 1),
    "max_nodes": ("10000000", 10_000_000),
    "connect_timeout": ("2", 2),
    "max_retries": ("5", 5),
    "retry": ("all-unsent", "all-unsent"),
    "retry_budget": ("0", 0),
    "max_fails": ("0", 0),
    "max_ejected": ("100", 100),
    "slow_start": ("30", 30),
    "max_connections": ("8", 8),
    "max_queue": ("0", 0),
    "queue_timeout": ("1", 1),
    "health_check": ("ping", "ping"),
    "health_interval": ("9", 9),
    "health_timeout": ("1", 1),
    "health_fall": ("1", 1),
    "health_rise": ("1", 1),
    "health_var": ("PATH_INFO=/up?a=b", ("PATH_INFO=/up?a=b",)),
    "health_status": ("200-204", "200-204"),
    "fallback": ("/run/app.sock", ("/run/app.sock",)),
    "fallback_on_no_key": ("true", True),
    "gracetime": ("9", 9),
    "quiet": ("true", True),
    "processes": ("4", 4),
    "drain_timeout": ("0", 0),
    "state_file": ("/run/state", "/run/state"),
    "attach_daemon": ("sleep 9", ("sleep 9",)),
    "worker_binary": ("/usr/bin/uwsgi", "/usr/bin/uwsgi"),
    "harakiri": ("5", 5),
    "daemonize": ("/log", "/log"),
    "daemonize2": ("/log", "/log"),
    "logto": ("/log", "/log"),
    "logto2": ("/log", "/log"),
    "logfile_chmod": ("640", 0o640),
    "logfile_chown": ("true", True),
    "pidfile": ("/run/pid", "/run/pid"),
    "pidfile2": ("/run/pid", "/run/pid"),
    "safe_pidfile": ("/run/pid", "/run/pid"),
    "safe_pidfile2": ("/run/pid", "/run/pid"),
    "stop": ("/run/pid", "/run/pid"),
    "reload": ("/run/pid", "/run/pid"),
    "uid": ("7", 7),
    "gid": ("8", 8),
    "add_gid": ("9", (9,)),
    "no_initgroups": ("true", True),
    "umask": ("022", 0o022),
    "chdir": ("/srv", "/srv"),
    "procname": ("shop", "shop"),
    "procname_master": ("shop", "shop"),
    "procname_prefix": ("shop", "shop"),
    "procname_prefix_spaced": ("shop", "shop"),
    "procname_append": ("shop", "shop"),
    "auto_procname": ("true", True),
    "check": ("true", True),
    "ini": ("more.ini", ("more.ini",)),
    "strict": ("true", True),
}


def test_every_option_has_an_example_here() -> None:
    assert EXAMPLES.keys() == {entry.field for entry in TABLE}
    assert EXAMPLES.keys() | {"defaulted", "worker_socket", "worker"} == {
        field.name for field in dataclasses.fields(Options)
    }


def got(options: Options, field: str) -> object:
    """The value, apart from what stands there only because a file was read."""
    value = getattr(options, field)
    return tuple(one for one in value if one != "router.ini") if field == "ini" else value


@pytest.mark.parametrize("name", sorted({*PLAIN, *UWSGI}))
def test_every_spelling_works_on_the_command_line(name: str) -> None:
    entry = PLAIN.get(name) or UWSGI[name]
    text, value = EXAMPLES[entry.field]
    Path("more.ini").write_text("[uwsgi]\n")
    for words_ in ([f"--{name}={text}"], *([] if entry.value_is_optional else [[f"--{name}", text]])):
        options, _ = load(words_, {})
        assert getattr(options, entry.field) == value
        assert entry.field not in options.defaulted


@pytest.mark.parametrize("name", sorted(set(UWSGI) - {"ini"}))
def test_every_uwsgi_spelling_works_in_the_section_uwsgi(name: str) -> None:
    text, value = EXAMPLES[UWSGI[name].field]
    options, _ = from_ini(f"[uwsgi]\n{name} = {text}\n")
    assert getattr(options, UWSGI[name].field) == value


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"ini"}))
def test_every_plain_spelling_works_in_the_section_gfrouter(name: str) -> None:
    text, value = EXAMPLES[PLAIN[name].field]
    options, _ = from_ini(f"[gfrouter]\n{name} = {text}\n")
    assert getattr(options, PLAIN[name].field) == value


@pytest.mark.parametrize(
    ("prefix", "name"), [("UWSGI", n) for n in sorted(UWSGI)] + [("GFROUTER", n) for n in sorted(PLAIN)]
)
def test_every_spelling_works_in_the_environment(prefix: str, name: str) -> None:
    entry = (UWSGI if prefix == "UWSGI" else PLAIN)[name]
    text, value = EXAMPLES[entry.field]
    Path("more.ini").write_text("[uwsgi]\n")
    options, _ = load([], {f"{prefix}_{name.upper().replace('-', '_')}": text})
    assert getattr(options, entry.field) == value


def test_listen_in_uwsgi_is_the_queue_and_elsewhere_an_address() -> None:
    assert uwsgi("listen = 200").backlog == 200
    assert uwsgi("listen = 200").listen == ("127.0.0.1:3031",)
    assert from_ini("[gfrouter]\nlisten = :80\n")[0].listen == (":80",)
    assert load([], {"UWSGI_LISTEN": "200"})[0].backlog == 200
    assert load([], {"GFROUTER_LISTEN": ":80"})[0].listen == (":80",)
    assert refusal("--listen 100") == (
        "--listen 100: a bare number is no address (a port is :100, the queue's length is backlog)"
    )
    assert ini_refusal("listen = 100", section="gfrouter") == (
        "router.ini:2: listen = 100: a bare number is no address (a port is :100, the queue's length is backlog)"
    )
    assert ini_refusal("listen = 127.0.0.1:3031") == (
        "router.ini:2: listen = 127.0.0.1:3031: this is the queue's length, not an address "
        "(in [uwsgi] that is fastrouter = ...)"
    )


def test_processes_and_stats_in_uwsgi_are_the_workers() -> None:
    assert warnings_of("processes = 4", "stats = :1717", "cheap = true") == [
        "router.ini:2: processes = 4: ignored, a router has no use for it (the router's is fastrouter-processes)",
        "router.ini:3: stats = :1717: ignored, a router has no use for it (the router's is fastrouter-stats)",
        "router.ini:4: cheap = true: ignored, a router has no use for it (the router's is fastrouter-cheap)",
    ]
    assert from_ini("[uwsgi]\nprocesses = 4\nstats = :1717\n")[0].processes == 1
    assert from_ini("[gfrouter]\nprocesses = 4\n")[0].processes == 4


def test_a_section_that_was_asked_for_is_written_as_uwsgi() -> None:
    Path("both.ini").write_text("[uwsgi]\nfastrouter=:1\n[edge]\nfastrouter=:2\n[gfrouter]\nlisten=:3\n")
    assert words("--ini both.ini:edge").listen == (":2",)
    assert words("both.ini:gfrouter").listen == (":3",)
    assert words("both.ini").listen == (":1", ":3")


# --- the command line -------------------------------------------------------------------------------------


def test_unambiguous_beginnings_are_enough() -> None:
    options = words("--fastrouter-subscription-se :1 --list :2 --vac --fastrouter-stat /s")
    assert options.subscription_server == (":1",)
    assert options.listen == (":2",)
    assert options.vacuum is True
    assert options.stats == "/s"


def test_ambiguous_beginnings_are_refused_with_what_they_could_be() -> None:
    assert refusal("--fastrouter-subscription-s :1") == (
        "--fastrouter-subscription-s: ambiguous, it could be "
        "--fastrouter-subscription-server, --fastrouter-subscription-slot"
    )


def test_spellings_of_one_option_are_not_ambiguous() -> None:
    assert words("--fastrouter-st /s").stats == "/s"


def test_flags_take_a_word_only_where_it_is_one() -> None:
    Path("router.ini").write_text("[uwsgi]\nfastrouter-cheap = true\n")
    assert words("--cheap router.ini").cheap is True
    assert words("router.ini --cheap=false").cheap is False
    assert words("router.ini --cheap no").cheap is False
    assert words("--fastrouter-quiet true").quiet is True
    assert words("--quiet").quiet is True


def test_files_may_stand_by_themselves() -> None:
    Path("a.ini").write_text("[uwsgi]\nfastrouter = :1\n")
    Path("b.ini").write_text("[uwsgi]\nfastrouter = :2\n")
    options = words("a.ini --ini b.ini")
    assert options.listen == (":2", ":1")  # as getopt has it: what stands by itself comes last
    assert options.ini == ("b.ini", "a.ini")
    assert words("-- a.ini").listen == (":1",)


def test_uwsgis_own_options_are_skipped_with_their_values() -> None:
    line = "-M --plugins fastrouter --threads 4 --enable-threads --cheap"
    options, warnings = load(line.split(), {})
    assert options.cheap is True
    assert warnings == [
        "--threads 4: ignored, a router has no use for it",
        "--enable-threads: ignored, a router has no use for it",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lisen :80", "--lisen: unknown option, did you mean --listen?"),
        ("--lisen=:80", "--lisen=:80: unknown option, did you mean --listen?"),
        ("--fastruoter-cheap", "--fastruoter-cheap: unknown option, did you mean --fastrouter-cheap?"),
        ("--max_retries 1", "--max_retries: unknown option, did you mean --max-retries?"),
        ("--qqqq", "--qqqq: unknown option"),
        ("-x", "-x: unknown option"),
        ("-", "-: unknown option"),
        ("--=x", "--=x: unknown option"),
        ("--timeout", "--timeout: a value is missing"),
        ("--timeout --cheap", "--timeout: a value is missing, --cheap follows"),
        ("app.py", "app.py: neither an option (--NAME) nor a file that ends in .ini, nor a command as the first word"),
        ("router.xml", f"--ini router.xml: {AS_AN_INI}"),
        ("router.yaml:edge", f"--ini router.yaml:edge: {AS_AN_INI}"),
        ("--yaml router.txt", f"--yaml router.txt: {AS_AN_INI}"),
        ("--ini nope.ini", "--ini nope.ini: cannot read nope.ini: No such file or directory"),
        ("--pause /run/x.pid", "--pause /run/x.pid: pause is not supported yet by gfrouter 0.1.0"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_refused(line: str, message: str) -> None:
    assert refusal(line) == message


def test_help_and_version_are_for_the_caller_to_print() -> None:
    for line in ("--help", "-h", "--cheap --help", "--hel"):
        with pytest.raises(HelpRequested):
            load(line.split(), {})
    with pytest.raises(VersionRequested):
        load(["--version"], {})


def test_the_help_names_every_option_in_every_spelling() -> None:
    text = help_text(100)
    for entry in TABLE:
        assert f"  --{entry.plain[0]}" in text
        for name in (*entry.plain, *entry.uwsgi):
            assert f"--{name}" in text
    assert "in [uwsgi]: listen\n" in text
    assert text.count("also --fastrouter\n") == 1
    assert [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "Addresses:", "Requests:", "Announcements:", "Sources of nodes:", "Keys:", "Nodes that fail:",
        "Checks of nodes:", "Processes:", "Daemon, log and user:", "Configuration:",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_help_keeps_to_its_width(width: int) -> None:
    assert max(map(len, help_text(width).splitlines())) <= max(width, 70)


# --- which source is stronger -----------------------------------------------------------------------------


def test_the_command_line_is_stronger_than_files_and_files_than_the_environment() -> None:
    environ = {"UWSGI_FASTROUTER_TIMEOUT": "1", "GFROUTER_GRACETIME": "1", "GFROUTER_CONNECT_TIMEOUT": "1"}
    text = "[uwsgi]\nfastrouter-timeout = 2\nfastrouter-gracetime = 2\n"
    for line in ("--timeout 3 --ini router.ini", "--ini router.ini --timeout 3"):
        Path("router.ini").write_text(text)
        options, _ = load(line.split(), environ)
        assert (options.timeout, options.gracetime, options.connect_timeout) == (3, 2, 1)


def test_within_one_source_the_last_wins() -> None:
    assert words("--timeout 1 --fastrouter-timeout 2").timeout == 2
    assert uwsgi("fastrouter-timeout = 1", "fastrouter-timeout = 2").timeout == 2
    environ = {"GFROUTER_TIMEOUT": "2", "UWSGI_FASTROUTER_TIMEOUT": "1"}
    assert words("", **environ).timeout == 2


def test_repeatable_options_add_up_over_all_sources() -> None:
    options, _ = from_ini("[uwsgi]\nfastrouter = :2\nfastrouter = :3\n", "--listen :4", UWSGI_FASTROUTER=":1")
    assert options.listen == (":1", ":2", ":3", ":4")


def test_one_address_named_twice_is_one_socket_but_port_0_is_another_each_time() -> None:
    options = words("--listen :1 --listen :1 --listen 127.0.0.1:0 --listen 127.0.0.1:0")
    assert options.listen == (":1", "127.0.0.1:0", "127.0.0.1:0")


def test_the_environment_holds_other_things_too() -> None:
    environ = {
        "UWSGI_RELOADS": "1",
        "UWSGI_ORIGINAL_PROC_NAME": "uwsgi",
        "GFROUTER_COMPILE": "1",
        "GFROUTER_PORT_3031_TCP": "tcp://10.0.0.1:3031",
        "HOME": "/root",
    }
    assert load(["--strict"], environ)[1] == []


def test_a_misspelt_name_in_the_environment_is_worth_a_warning() -> None:
    assert load([], {"GFROUTER_TIMOUT": "1"})[1] == [
        "GFROUTER_TIMOUT=1 in the environment: unknown, so a mere placeholder; did you mean timeout?"
    ]


def test_a_wrong_value_in_the_environment_is_named_with_its_variable() -> None:
    assert refusal("", UWSGI_FASTROUTER_TIMEOUT="abc") == (
        "UWSGI_FASTROUTER_TIMEOUT=abc in the environment: not a whole number (legal: 0 to 31536000 seconds)"
    )


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["", "true", "TRUE", "on", "yes", "1"])
def test_words_for_yes(word: str) -> None:
    assert uwsgi(f"vacuum = {word}").vacuum is True


@pytest.mark.parametrize("word", ["false", "Off", "no", "0"])
def test_words_for_no(word: str) -> None:
    assert uwsgi("vacuum", f"vacuum = {word}").vacuum is False


@pytest.mark.parametrize("name", ["timeout", "gracetime", "processes", "max-retries"])
def test_0_means_the_default(name: str) -> None:
    options = uwsgi(f"fastrouter-{name} = 7", f"fastrouter-{name} = 0")
    assert getattr(options, PLAIN[name].field) == PLAIN[name].default


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fastrouter-timeout = abc", "not a whole number (legal: 0 to 31536000 seconds)"),
        ("fastrouter-timeout = 1.5", "not a whole number (legal: 0 to 31536000 seconds)"),
        ("fastrouter-timeout = ٣", "not a whole number (legal: 0 to 31536000 seconds)"),
        ("fastrouter-timeout = -1", "out of range (legal: 0 to 31536000 seconds)"),
        ("fastrouter-timeout =", "a number is missing (legal: 0 to 31536000 seconds)"),
        ("fastrouter-timeout", "a number is missing (legal: 0 to 31536000 seconds)"),
        ("fastrouter-processes = 100000", "out of range (legal: 0 to 1024)"),
        ("fastrouter-processes = 99999999999999999999", "out of range (legal: 0 to 1024)"),
        ("fastrouter-connect-timeout = 0", "out of range (legal: 1 to 31536000 seconds)"),
        ("subscription-tolerance = 0", "out of range (legal: 1 to 31536000 seconds)"),
        ("listen = 0", "out of range (legal: 1 to 1000000 connections)"),
        ("fastrouter-retry = always", "unknown word (legal: none, connect, idempotent, all-unsent)"),
        ("vacuum = maybe", "neither yes nor no (legal: true, on, yes, 1, false, off, no, 0)"),
        ("fastrouter =", f"an address is missing (legal: {LEGAL})"),
        ("fastrouter = =x", "=N wants the number of a shared socket, counted from 0"),
        ("fastrouter-stats = 1717", "a bare number is no address (a port is :1717)"),
        ("shared-socket = =0", "=N means a shared socket, which only a listening address can be"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_what_is_legal(line: str, message: str) -> None:
    assert ini_refusal(line) == f"router.ini:2: {line}: {message}"


@pytest.mark.parametrize("name", ["fastrouter", "fastrouter-stats", "fastrouter-subscription-server", "shared-socket"])
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", f"an address is missing (legal: {LEGAL})"),
        ("127.0.0.1", "the port is missing (legal: 127.0.0.1:PORT)"),
        (":65536", "port 65536 is out of range (0 to 65535)"),
        ("::1:80", "an IPv6 address stands in brackets, as in [::1]:3031"),
        ("[::1]", "after the ] of an IPv6 address stands :PORT"),
        ("a..b:80", "'a..b' is neither an IP address nor a host name"),
        ("@", "the name of the abstract socket is missing after the @"),
        ("fd://a:b", "fd:// wants the number of a descriptor, or the name under which systemd passed it"),
    ],
)
def test_all_options_that_take_an_address_have_one_grammar(name: str, address: str, message: str) -> None:
    assert ini_refusal(f"{name} = {address}") == f"router.ini:2: {name} = {address}".rstrip() + f": {message}"


ADDRESSES = ["[::1]:80", "localhost:80", ":80", "192.*:0", "@name", "/run/s", "run/s", "fd://3", "fd://web"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_all_of_them_take_every_form(address: str) -> None:
    options = uwsgi(
        f"fastrouter = {address}", f"fastrouter-stats = {address}", f"fastrouter-subscription-server = {address}",
        f"shared-socket = {address}", "fastrouter = =0",
    )  # fmt: skip
    assert options.listen == (address, "=0")
    assert options.stats == address
    assert options.subscription_server == options.shared_socket == (address,)


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0660", 0o660), ("000", 0), ("777", 0o777), ("", 0o666)])
def test_the_mode_of_sockets(text: str, mode: int) -> None:
    assert uwsgi(f"chmod-socket = {text}").chmod_socket == mode
    assert words(f"--chmod-socket={text}").chmod_socket == mode


def test_without_a_mode_everybody_may_and_without_a_word_the_umask_stands() -> None:
    assert uwsgi("chmod-socket").chmod_socket == 0o666
    assert words("--chmod --cheap").chmod_socket == 0o666
    assert Options().chmod_socket is None


def test_a_mode_on_the_command_line_stands_behind_a_sign_as_in_uwsgi() -> None:
    assert (
        refusal("--chmod-socket 660")
        == "660: neither an option (--NAME) nor a file that ends in .ini, nor a command as the first word"
    )
    assert "--chmod-socket[=MODE]" in help_text(100)


@pytest.mark.parametrize("text", ["66", "6660", "rw-rw----", "668", "-1", "0x1b0", "6 6", "٦٦٠"])
def test_what_is_no_mode(text: str) -> None:
    message = f"router.ini:2: chmod-socket = {text}: permissions are three octal digits, as in 660"
    assert ini_refusal(f"chmod-socket = {text}") == message


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("7", (7, -1)),
        ("7:", (7, -1)),
        ("7:8", (7, 8)),
        (":8", (-1, 8)),
        ("root", (0, -1)),
        ("root:root", (0, 0)),
        ("0:root", (0, 0)),
        (":root", (-1, 0)),
    ],
)
def test_the_owner_of_sockets(text: str, owner: tuple[int, int]) -> None:
    assert uwsgi(f"chown-socket = {text}").chown_socket == owner
    assert Options.from_json(words(f"--chown-socket {text}").to_json()).chown_socket == owner


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a user is missing (legal: USER, USER:GROUP or :GROUP)"),
        (":", "a user is missing (legal: USER, USER:GROUP or :GROUP)"),
        ("no-such", "there is no user named 'no-such'"),
        ("no-such:root", "there is no user named 'no-such'"),
        ("root:no-such", "there is no group named 'no-such'"),
        ("root:root:root", "there is no group named 'root:root'"),
        ("-1", "there is no user named '-1'"),
        ("9999999999", "there is no user named '9999999999'"),
    ],
)
def test_what_is_no_owner(text: str, message: str) -> None:
    assert ini_refusal(f"chown-socket = {text}") == f"router.ini:2: chown-socket = {text}".rstrip() + f": {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fastrouter-subscription-address = container", "unknown word (legal: announced, sender)"),
        ("fastrouter-subscription-quota = -1", "out of range (legal: 0 to 1000000)"),
        (
            "fastrouter-subscription-allow = 10.0.0.1/8",
            "no network: 10.0.0.1/8 has host bits set (legal: 10.0.0.0/8, fd00::/8 or one address)",
        ),
        (
            "subscriptions-sign-check = SHA1",
            "no digest and folder (legal: DIGEST:DIR, as in SHA256:/etc/uwsgi/keys)",
        ),
        ("subscriptions-sign-check-tolerance = -1", "out of range (legal: 0 to 31536000 seconds)"),
        ("subscriptions-sign-skip-uid = 0", "out of range (legal: 1 to 4294967294)"),
        ("subscriptions-credentials-check =", "a folder is missing"),
        ("fastrouter-max-keys = 0", "out of range (legal: 1 to 10000000)"),
        ("fastrouter-max-nodes = many", "not a whole number (legal: 1 to 10000000)"),
        ("subscription-tolerance-inactive = 0", "out of range (legal: 1 to 31536000 seconds)"),
        ("reuse-port = maybe", "neither yes nor no (legal: true, on, yes, 1, false, off, no, 0)"),
    ],
)
def test_more_wrong_values(line: str, message: str) -> None:
    assert ini_refusal(line) == f"router.ini:2: {line}: {message}"


def test_a_value_that_a_stronger_source_replaces_must_be_right_all_the_same() -> None:
    Path("router.ini").write_text("[uwsgi]\nfastrouter-timeout = abc\n")
    assert refusal("router.ini --timeout 3").startswith("router.ini:2: fastrouter-timeout = abc: ")


# --- shared sockets ---------------------------------------------------------------------------------------


def test_a_number_counts_the_shared_sockets_of_all_sources() -> None:
    options, _ = from_ini("[uwsgi]\nshared-socket = :1\nfastrouter = =01\n", "--shared-socket :2 --listen =0")
    assert options.shared_socket == (":1", ":2")
    assert options.listen == ("=1", "=0")


def test_a_shared_socket_that_is_not_there_is_named() -> None:
    assert ini_refusal("shared-socket = :1", "fastrouter = =2") == (
        "router.ini:3: fastrouter = =2, but only 1 shared-socket is given, counted from 0"
    )
    assert ini_refusal("fastrouter = =0") == "router.ini:2: fastrouter = =0, but no shared-socket is given"
    assert refusal("--shared-socket :1 --shared-socket :2 --listen =2") == (
        "--listen =2, but only 2 shared-sockets are given, counted from 0"
    )


def test_a_shared_socket_that_nobody_uses_is_worth_a_warning() -> None:
    assert warnings_of("shared-socket = :1", "shared-socket = :2", "fastrouter = =0") == [
        "shared-socket 1 (:2) is not used by any listening address (=1)"
    ]


# --- placeholders -----------------------------------------------------------------------------------------


def test_an_unknown_name_is_a_placeholder_even_before_it_is_defined() -> None:
    options = uwsgi("fastrouter = %(host):%(port)", "host = 10.0.0.1", "port = 80", "port = 81")
    assert options.listen == ("10.0.0.1:80",)


def test_placeholders_reach_over_files_sections_and_the_command_line() -> None:
    Path("common.ini").write_text("[uwsgi]\nhost = 10.0.0.1\n")
    options, warnings = from_ini("[gfrouter]\nlisten = %(host):1\n", "common.ini --listen %(host):2")
    assert options.listen == ("10.0.0.1:1", "10.0.0.1:2")
    assert warnings == []


def test_an_option_is_a_placeholder_too() -> None:
    assert uwsgi("fastrouter = :80", "fastrouter-stats = /run/%(fastrouter)").stats == "/run/:80"


def test_an_unknown_placeholder_stays_literal() -> None:
    assert uwsgi("fastrouter = /run/%(nothing)").listen == ("/run/%(nothing)",)


def test_the_values_of_all_sources_are_expanded() -> None:
    Path("word.txt").write_text("10.0.0.5\n")
    text = "[uwsgi]\nport = 80\nfastrouter = @(word.txt):%(port + 1)\nfastrouter-stats = /run/%n.$(NAME)\n"
    options, _ = from_ini(text, "--listen $(HOST):%(port)", HOST="10.0.0.6", NAME="s", GFROUTER_LISTEN=":%(port)")
    assert options.listen == (":80", "10.0.0.5:81", "10.0.0.6:80")
    assert options.stats == "/run/router.s"


def test_what_stays_in_a_value_of_ours_is_worth_a_warning() -> None:
    assert warnings_of("fastrouter = /run/$(NOPE)") == [
        "router.ini:2: fastrouter = /run/$(NOPE): $(NOPE) stays as it is, as in uWSGI"
    ]
    assert warnings_of("fastrouter-stats = %(b)", "b = %(c)", "c = /s") == [
        "router.ini:2: fastrouter-stats = %(b): %(c) stays as it is, as in uWSGI"
    ]
    assert warnings_of("fastrouter = /run/a%zb", "other = a%zb") == [
        "router.ini:2: fastrouter = /run/ab: %z stands for nothing and was taken out (a percent sign is %%)"
    ]


def test_a_placeholder_that_refers_to_itself_is_refused_where_it_stands() -> None:
    assert ini_refusal("a = x%(b)", "b = y%(a)", "fastrouter = %(a)") == (
        "router.ini:2: a = x%(b): grows past 65536 characters by its placeholders (does one refer to itself?)"
    )


def test_a_placeholder_of_the_command_line_is_the_first() -> None:
    Path("router.ini").write_text("[uwsgi]\nport = 80\nfastrouter = :%(port)\n")
    assert words("--set-placeholder port=81 router.ini").listen == (":81",)


def test_set_may_set_an_option_in_each_spelling() -> None:
    assert uwsgi("set = fastrouter-timeout=5").timeout == 5
    assert from_ini("[gfrouter]\nset = timeout=5\n")[0].timeout == 5
    assert words("--set timeout=5").timeout == 5
    assert uwsgi("strict", "set-ph = wait=5", "fastrouter-timeout = %(wait)").timeout == 5
    assert refusal("--strict --set tmeout=5").startswith("--set tmeout=5: unknown option, and strict is set")


# --- unknown names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("fastruoter-cheap = true", "fastrouter-cheap"),
        ("fastrouter-chaep = true", "fastrouter-cheap"),
        ("fastrouter_cheap = true", "fastrouter-cheap"),
        ("vacum = true", "vacuum"),
        ("subscriptions-sign-chek = SHA1:/keys", "subscriptions-sign-check"),
        ("timeout = 60", "fastrouter-timeout"),
        ("subscription-server = :2626", "fastrouter-subscription-server"),
    ],
)
def test_a_likely_misspelling_is_worth_a_warning(line: str, near: str) -> None:
    message = f"router.ini:2: {line}: unknown, so a mere placeholder; did you mean {near}?"
    assert warnings_of(line) == [message]


def test_an_unknown_fastrouter_option_is_worth_a_warning_whatever_it_is_like() -> None:
    assert warnings_of("fastrouter-xyzzy-plugh = 1") == [
        "router.ini:2: fastrouter-xyzzy-plugh = 1: unknown, so a mere placeholder"
    ]


def test_a_placeholder_in_use_is_no_misspelling() -> None:
    assert warnings_of("timeout = 7", "fastrouter-timeout = %(timeout)") == []


def test_a_mere_placeholder_is_passed_over() -> None:
    assert warnings_of("project = shop", "base = /srv/shop") == []


def test_strict_refuses_unknown_names_in_files_wherever_it_is_set() -> None:
    where = "router.ini:2: fastrouter-chaep = 1"
    message = f"{where}: unknown option, and strict is set, did you mean fastrouter-cheap?"
    assert ini_refusal("fastrouter-chaep = 1", "strict = true") == message
    Path("router.ini").write_text("[uwsgi]\nfastrouter-chaep = 1\n")
    assert refusal("--strict router.ini") == message
    assert ini_refusal("zzzz = 1", "strict") == "router.ini:2: zzzz = 1: unknown option, and strict is set"


def test_strict_knows_uwsgis_own_names() -> None:
    warnings = warnings_of("strict", "threads = 4", "wsgi-file = app.py", "module = app", "http = :8080")
    assert len(warnings) == 4


# --- what uWSGI has and gfrouter has not ------------------------------------------------------------------


def test_an_option_of_workers_is_warned_of_once() -> None:
    assert warnings_of("env = A=1", "env = B=2") == ["router.ini:2: env = A=1: ignored, a router has no use for it"]


@pytest.mark.parametrize("line", ["master = true", "plugins = fastrouter", "plugin = x", "die-on-term"])
def test_what_holds_of_gfrouter_anyway_is_accepted_without_a_word(line: str) -> None:
    assert warnings_of(line) == []


@pytest.mark.parametrize("name", ["events", "buffer-size", "subscription-slot"])
def test_what_tunes_nothing_here_is_accepted_with_a_warning(name: str) -> None:
    assert warnings_of(f"fastrouter-{name} = 64") == [
        f"router.ini:2: fastrouter-{name} = 64: has no effect in gfrouter"
    ]


REFUSED = """
    immediate-uid chroot log-syslog pause
"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_what_would_change_the_router_and_is_not_there_is_refused(name: str) -> None:
    assert ini_refusal(f"{name} = 1") == (
        f"router.ini:2: {name} = 1: {name} is not supported yet by gfrouter {__version__}"
    )
    assert refusal(f"--{name}=1") == f"--{name} 1: {name} is not supported yet by gfrouter {__version__}"
    environ = {f"UWSGI_{name.upper().replace('-', '_')}": "1"}
    assert refusal("", **environ).endswith(f"{name} is not supported yet by gfrouter {__version__}")


@pytest.mark.parametrize("name", foreign.POSTPONED)
def test_what_is_postponed_is_refused_and_says_so(name: str) -> None:
    assert f"router.ini:2: {name} = 1: postponed: gfrouter {__version__} has no " in ini_refusal(f"{name} = 1")
    assert ": postponed: gfrouter" in refusal(f"--{name}=1")
    if name != "fastrouter-zerg":  # zerg is another option of uWSGI's as well
        assert ": postponed: gfrouter" in ini_refusal(f"{name.removeprefix('fastrouter-')} = 1", section="gfrouter")


@pytest.mark.parametrize("name", sorted(foreign.REASONS.keys() - foreign.POSTPONED.keys()))
def test_what_is_left_out_of_the_dialect_is_refused_with_a_reason(name: str) -> None:
    assert ini_refusal(f"{name} = x") == f"router.ini:2: {name} = x: {foreign.REASONS[name]}"
    assert len(foreign.REASONS[name]) > 30


@pytest.mark.parametrize("line", ["chroot = /srv", "pause = /run/x.pid"])
def test_their_plain_spellings_are_refused_too(line: str) -> None:
    name = line.split(" = ")[0]
    assert ini_refusal(line, section="gfrouter") == (
        f"router.ini:2: {line}: {name} is not supported yet by gfrouter {__version__}"
    )
    assert refusal(f"--{line.replace(' = ', ' ')}").endswith("is not supported yet by gfrouter 0.1.0")


def test_what_is_refused_may_stand_there_when_it_asks_for_nothing() -> None:
    assert warnings_of("drop-after-init = false", "jailed = 0") == []


@pytest.mark.parametrize("name", ["fair", "", "WRR", "hash", "hash:", "hash:A B", f"hash:{'X' * 65}"])
def test_an_unknown_algorithm_is_refused_with_the_legal_ones(name: str) -> None:
    legal = "no algorithm (legal: wrr, lrc, wlrc, iphash, p2c, load or hash:VAR)"
    assert ini_refusal(f"subscription-algo = {name}").endswith(legal)


@pytest.mark.parametrize("name", ["uid", "gid"])
def test_a_user_of_the_gateway_and_another_one_of_the_instance_are_refused(name: str) -> None:
    assert getattr(uwsgi(f"{name} = 7", f"fastrouter-{name} = 7"), name) == 7
    assert getattr(uwsgi(f"{name} = 8", f"{name} = 7"), name) == 7
    assert ini_refusal(f"{name} = 7", f"fastrouter-{name} = 8") == (
        f"router.ini:3: fastrouter-{name} = 8, but router.ini:2: {name} = 7: all processes are of one user"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("uid = no-such", "there is no user named 'no-such'"),
        ("gid = no-such", "there is no group named 'no-such'"),
        ("add-gid = -1", "there is no group named '-1'"),
        ("umask = 8", "permissions are three octal digits, as in 660"),
        ("logto = 127.0.0.1:514", "log servers are not supported yet (legal: a file)"),
        ("daemonize = udp:127.0.0.1:514", "log servers are not supported yet (legal: a file)"),
    ],
)
def test_what_a_process_cannot_be_is_refused(line: str, reason: str) -> None:
    assert ini_refusal(line) == f"router.ini:2: {line}: {reason}"


def test_d_is_daemonize() -> None:
    assert words("-d /log").daemonize == "/log"


def test_every_option_of_the_real_uwsgi_has_a_verdict() -> None:
    if not UWSGI_COMMAND.exists():
        pytest.skip("no uwsgi command beside this python (pip install pyuwsgi)")
    done = subprocess.run([UWSGI_COMMAND, "--help"], capture_output=True, text=True, timeout=30, check=False)
    names = {name for line in done.stdout.splitlines() for name in words_after_dashes(line)}
    assert len(names) > 800
    assert names - {"help", "usage", "version"} - {*UWSGI, *foreign.KNOWN} == set()


def words_after_dashes(line: str) -> list[str]:
    """`    -s|--socket    bind to ...` names socket; what stands in the explanation does not count."""
    first = line.split()[:1]
    return [part[2:] for part in first[0].split("|") if part.startswith("--")] if first else []


def test_no_name_is_ours_and_foreign_at_once() -> None:
    assert not {*UWSGI} & {*foreign.KNOWN}


# --- across processes -------------------------------------------------------------------------------------


def test_options_survive_json() -> None:
    options, _ = load(["--listen", "/run/\udcff.sock", "--listen", ":1", "--cheap", "--stats", ":2"], {})
    text = options.to_json()
    assert "\n" not in text
    assert Options.from_json(text) == options
    assert Options.from_json(Options().to_json()) == Options()


def test_options_are_frozen_and_hashable() -> None:
    options = Options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.timeout = 1  # type: ignore[misc]
    assert hash(options) == hash(Options())


# --- anything ---------------------------------------------------------------------------------------------

NAMES = st.sampled_from([*UWSGI, *PLAIN, "master", "uid", "threads", "for", "fastruoter", "a", ""])
VALUES = st.sampled_from(
    [
        "",
        "=0",
        "=1",
        "1",
        ":1",
        "[::1]:1",
        "@a",
        "fd://a",
        "a*:1",
        "660",
        "root",
        "%(a)",
        "%(a b)",
        "%n",
        "$(A)",
        "/s",
        "no",
        "\x1b",
        "é",
    ]
)
LINES = st.one_of(
    st.tuples(NAMES, VALUES).map(lambda pair: " = ".join(pair).encode()),
    st.sampled_from([b"[uwsgi]", b"[gfrouter]", b"[", b"#", b"\0", b"\xff"]),
    st.binary(max_size=12),
)


@settings(deadline=None)
@given(st.binary() | st.lists(LINES).map(lambda lines: b"[uwsgi]\n" + b"\n".join(lines)))
@example(b"[uwsgi]\nfastrouter = %(" + b" " * 60_000)
@example(b"[uwsgi]\nfastrouter = " + b"%(a" * 20_000)
def test_no_ini_raises_anything_but_an_options_error(data: bytes) -> None:
    Path("any.ini").write_bytes(data)
    lines_are_fit_for_a_log(["any.ini"], {})


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, VALUES).map(lambda pair: f"--{pair[0]}={pair[1]}") | st.text(max_size=9)),
    st.dictionaries(NAMES.map(lambda name: f"UWSGI_{name.upper()}"), VALUES, max_size=3),
)
def test_no_words_raise_anything_but_an_options_error(argv: list[str], environ: dict[str, str]) -> None:
    lines_are_fit_for_a_log(argv, environ)


def lines_are_fit_for_a_log(argv: list[str], environ: dict[str, str]) -> None:
    try:
        options, lines = load(argv, environ)
    except OptionsError as error:
        lines = [str(error)]
    except (HelpRequested, VersionRequested):
        lines = []
    else:
        assert Options.from_json(options.to_json()) == options
    for line in lines:
        assert line.isprintable()
        assert len(line) < 500


def test_an_address_without_its_port_is_no_unix_socket() -> None:
    with pytest.raises(OptionsError) as caught:
        load(["--listen", "127.0.0.1"], {})
    assert "the port is missing (legal: 127.0.0.1:PORT)" in str(caught.value)


def test_options_of_another_version_are_left_out() -> None:
    text = json.dumps(json.loads(Options(timeout=7).to_json()) | {"invented-later": 1})
    assert Options.from_json(text) == Options(timeout=7)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--to x:99999", "--to x:99999: port 99999 is out of range (0 to 65535)"),
        (
            "--fallback a:1,300",
            "--fallback a:1,300: modifier 300 is out of range "
            "(legal: ADDRESS[,MODIFIER1[,MODIFIER2]], modifiers from 0 to 255)",
        ),
        ("--subscription-fallback-key=", "--subscription-fallback-key: a key has 1 to 255 bytes"),
    ],
)
def test_nodes_and_keys_in_options_are_looked_at(line: str, message: str) -> None:
    assert refusal(line) == message


def test_what_uwsgi_does_not_have_makes_no_beginning_of_its_names_ambiguous() -> None:
    assert words("--fastrouter-st /s").stats == "/s"
    assert words("--fastrouter-state /f").state_file == "/f"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--error-pages no", "neither on nor off, nor a folder, which has a slash in it (legal: on, off, or a folder)"),
        ("--health-var X", "no variable (legal: NAME=VALUE)"),
        ("--health-var =X", "no variable (legal: NAME=VALUE)"),
        ("--health-status 600", "no HTTP status (legal: 100 to 599, as in 200 or 200-399)"),
        ("--health-status 300-200", "the first status is after the last one"),
        ("--retry-budget 101", "out of range (legal: 0 to 100 percent)"),
    ],
)
def test_what_is_said_of_nodes_that_fail_is_refused_with_a_reason(line: str, reason: str) -> None:
    assert refusal(line) == f"{line}: {reason}"
