"""The command line of gfrouter announce: what it means, and each wrong one with its exact text."""

import os
import subprocess
import sys

import pytest

from discovery.announce import main, open_target
from discovery.announceoptions import Wish, WrongWords, read
from discovery.announcetarget import Registration
from discovery.toconsul import ToConsul
from discovery.toetcd import ToEtcd
from discovery.torouter import ToRouter

LEAST = ["--to", "router.internal", "--key", "foo.com", "--address", ":3031"]


def wrong(*words: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(WrongWords) as caught:
        read(words, environ or {})
    return str(caught.value)


def test_the_least_that_must_be_said() -> None:
    said = Registration(("foo.com",), ":3031", weight=1, backup=0, modifier1=0, modifier2=0, interval=10, ttl=30)
    assert read(LEAST, {}) == Wish(("router.internal",), said, check="", drain=0, command=())


def test_all_that_can_be_said() -> None:
    words = (
        "--to a:1 --to /run/b --key foo.com --key bar.com --address [::1]:3031 --weight 3 --backup 2 --modifier1 5 "
        "--modifier2 6 --interval 2 --ttl 9 --check 127.0.0.1:3031 --drain 7 -- uwsgi --ini x.ini -- y"
    )
    said = Registration(("foo.com", "bar.com"), "[::1]:3031", 3, 2, 5, 6, 2, 9)
    command = ("uwsgi", "--ini", "x.ini", "--", "y")
    assert read(words.split(), {}) == Wish(("a:1", "/run/b"), said, "127.0.0.1:3031", 7, command)


def test_a_command_has_a_second_to_finish_and_the_ttl_follows_the_interval() -> None:
    wish = read([*LEAST, "--interval", "4", "--", "true"], {})
    assert (wish.drain, wish.said.ttl) == (1, 12)


def test_the_environment_says_what_the_command_line_does_not() -> None:
    environ = {
        "GFROUTER_ANNOUNCE_TO": "a consul://b",
        "GFROUTER_ANNOUNCE_KEY": "foo.com bar.com",
        "GFROUTER_ANNOUNCE_ADDRESS": ":3031",
        "GFROUTER_ANNOUNCE_WEIGHT": "5",
        "GFROUTER_ANNOUNCE_DRAIN": "",
    }
    wish = read(["--weight", "2", "--key", "baz.com"], environ)
    assert (wish.to, wish.said.keys, wish.said.address, wish.said.weight) == (
        ("a", "consul://b"),
        ("baz.com",),
        ":3031",
        2,
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(["--help"], {})
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in ("--to TARGET", "--drain SECONDS", "consul://", "_SERVICE._udp.NAME"):
        assert word in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--to TARGET is missing"),
        (LEAST[:2], "--key KEY is missing"),
        (LEAST[:4], "--address ADDRESS is missing"),
        ([*LEAST, "--"], "--: a command is missing behind it"),
        ([*LEAST, "uwsgi"], "uwsgi: no option (a command to run stands behind --)"),
        ([*LEAST, "--wait", "3"], "--wait: no option (a command to run stands behind --)"),
        ([*LEAST, "--weight"], "--weight: expected one argument"),
        ([*LEAST, "--weight", "0"], "--weight: '0': out of range (legal: 1 to 2147483647)"),
        ([*LEAST, "--modifier1", "256"], "--modifier1: '256': out of range (legal: 0 to 255)"),
        ([*LEAST, "--interval", "x"], "--interval: 'x': not a whole number (legal: 1 to 86400 seconds)"),
        ([*LEAST, "--key", ""], "--key: '': a key of 0 bytes (legal: 1 to 255)"),
        ([*LEAST, "--key", "k" * 256], f"--key: {'k' * 256!r}: a key of 256 bytes (legal: 1 to 255)"),
        ([*LEAST, "--address", "a:b"], "--address: 'a:b': port 'b' is not a number"),
        ([*LEAST, "--address", ":0"], "--address: ':0': port 0 is out of range (1 to 65535)"),
        ([*LEAST, "--check", "maybe:"], "--check: 'maybe:': port '' is not a number"),
        (
            [*LEAST, "--interval", "30", "--ttl", "30"],
            "--ttl 30: no longer than --interval 30, so it would run out before it is renewed",
        ),
    ],
)
def test_what_is_wrong_is_named(words: list[str], said: str) -> None:
    assert wrong(*words) == said


def test_what_is_wrong_in_the_environment_is_named() -> None:
    text = wrong(*LEAST, environ={"GFROUTER_ANNOUNCE_KYE": "foo.com"})
    assert text.startswith("GFROUTER_ANNOUNCE_KYE: unknown (known: GFROUTER_ANNOUNCE_TO, GFROUTER_ANNOUNCE_KEY, ")
    assert wrong(*LEAST, environ={"GFROUTER_ANNOUNCE_WEIGHT": "x"}) == (
        "GFROUTER_ANNOUNCE_WEIGHT=x: 'x': not a whole number (legal: 1 to 2147483647)"
    )


SAID = Registration(("foo.com",), ":3031")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("router", ToRouter),
        ("router:1", ToRouter),
        ("10.0.0.1", ToRouter),
        ("[::1]", ToRouter),
        ("[::1]:9", ToRouter),
        ("udp://router:1", ToRouter),
        ("udp://225.1.1.1:2626", ToRouter),
        ("/run/router.sock", ToRouter),
        ("unix:///run/router.sock", ToRouter),
        ("@router", ToRouter),
        ("_gfrouter._udp.example.com", ToRouter),
        ("consul://", ToConsul),
        ("consul://10.0.0.1:8500?service=web&tag=x", ToConsul),
        ("etcd://", ToEtcd),
        ("etcd://a:1,b:2/prefix", ToEtcd),
    ],
)
def test_every_form_of_a_target(text: str, kind: type) -> None:
    assert type(open_target(text, SAID, lambda address: True)) is kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--to: a target is missing (legal: HOST:PORT, HOST, [IPV6]:PORT, a path, @NAME, _SERVICE._udp.NAME, "
             "consul://..., etcd://...)"),
        ("tcp://a:1", "--to tcp://a:1: tcp:// is unknown (known: consul, etcd, udp, unix)"),
        ("a:0", "--to: 'a:0': port 0 is out of range (1 to 65535)"),
        ("a:b", "--to: 'a:b': port 'b' is not a number"),
        ("no host", "--to: 'no host:2626': 'no host' is neither an IP address nor a host name"),
        ("192.*:1", "--to: '192.*:1' is nowhere to announce at (legal: HOST:PORT, HOST, [IPV6]:PORT, a path, @NAME, "
                    "_SERVICE._udp.NAME, consul://..., etcd://...)"),
        ("@", "--to: '@': the name of the abstract socket is missing after the @"),
        ("consul://a:0", "--to: consul://a:0: 'a:0': port 0 is out of range (legal: 1 to 65535)"),
        ("consul://?tgs=1", "--to: consul://?tgs=1: setting 'tgs' is not known "
                            "(known: ca, cert, key, server-name, service, tag, tls, token-file)"),
        ("etcd://u:secret@a?x=1", "--to: etcd://u:***@a?x=1: setting 'x' is not known "
                                  "(known: ca, cert, key, password-file, timeout, tls, user)"),
        ("etcd://?ca=/nowhere", "--to: etcd://?ca=/nowhere: [Errno 2] No such file or directory: '/nowhere'"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_is_named(text: str, said: str) -> None:
    with pytest.raises(WrongWords) as caught:
        open_target(text, SAID, lambda address: True)
    assert str(caught.value) == said


def test_consul_knows_no_unix_socket_and_no_great_weight() -> None:
    with pytest.raises(WrongWords, match=r"^--to: consul://: Consul knows no unix sockets \(/run/app.sock\)$"):
        open_target("consul://", Registration(("foo.com",), "/run/app.sock"), lambda address: True)
    with pytest.raises(WrongWords, match=r"^--to: consul://: Consul knows no weight over 65535$"):
        open_target("consul://", Registration(("foo.com",), ":1", weight=65536), lambda address: True)


def test_a_wrong_word_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LEAST, "--to", "a:0"]) == 1
    assert capsys.readouterr().err == "gfrouter announce: --to: 'a:0': port 0 is out of range (1 to 65535)\n"
    assert main([*LEAST, "--to", "consul://?token-file=/nowhere"]) == 1
    assert capsys.readouterr().err == "gfrouter announce: token-file=/nowhere: No such file or directory\n"


@pytest.mark.slow
def test_it_is_a_command_of_gfrouter() -> None:
    words = [sys.executable, "-P", "-m", "router", "announce", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ}, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: gfrouter announce --to TARGET --key KEY --address ADDRESS")
