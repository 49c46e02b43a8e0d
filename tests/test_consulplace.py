"""Where the agent is, by URL and environment; what cannot be meant is told, and a token never is."""

import re
from pathlib import Path

import pytest

from discovery.consul import Consul
from discovery.consulentry import Wanted
from discovery.consulplace import Place
from router.sources import open_source

TOKEN = "b1gs33cr3t"


def place(url: str, **environ: str) -> Place:
    return Consul(url, environ=environ).place


def test_a_bare_name_is_the_local_agent_and_the_tag() -> None:
    source = Consul("consul://", environ={})
    assert source.name == "consul@127.0.0.1:8500"
    assert source.place == Place("127.0.0.1", 8500)
    assert source.wanted == Wanted("uwsgi") and not source.services


def test_the_entry_point_is_installed() -> None:
    source = open_source("consul://127.0.0.1:1?service=a").source
    assert isinstance(source, Consul) and source.name == "consul@127.0.0.1:1?service=a"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("consul://?token-file=/t", "consul@127.0.0.1:8500"),
        ("consul://h:1?token-file=/t&dc=b&service=a&service=c", "consul@h:1?dc=b&service=a&service=c"),
        ("consul://?tag=x", "consul@127.0.0.1:8500?tag=x"),
    ],
)
def test_its_name_says_what_it_takes_from_where(url: str, name: str) -> None:
    assert Consul(url, environ={}).name == name


def test_its_name_has_the_agent_that_the_environment_names() -> None:
    assert Consul("consul://", environ={"CONSUL_HTTP_ADDR": "http://agent.lan:85"}).name == "consul@agent.lan:85"


def test_named_services_have_any_tag_unless_one_is_said() -> None:
    source = Consul("consul://h?service=a&service=b", environ={})
    assert source.services == {"a", "b"} and source.wanted == Wanted("")
    assert Consul("consul://h?service=a&tag=x&warning=yes", environ={}).wanted == Wanted("x", warning=True)
    assert Consul("consul://h?tag=x", environ={}).wanted == Wanted("x")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("consul://h", "h", 8500, False),
        ("consul://h:1/", "h", 1, False),
        ("consul://[::1]:1", "[::1]", 1, False),
        ("consul://[::1]", "[::1]", 8500, False),
        ("consul://h?tls=yes", "h", 8501, True),
        ("consul://h:1?tls=yes", "h", 1, True),
        ("consul://h?server-name=x", "h", 8501, True),
    ],
)
def test_the_place_in_a_url(url: str, host: str, port: int, tls: bool) -> None:
    found = place(url, CONSUL_HTTP_ADDR="https://other:1", CONSUL_HTTP_SSL="true")
    assert (found.host, found.port, found.tls) == (host, port, tls)


@pytest.mark.parametrize(
    ("written", "host", "port", "tls"),
    [
        ("", "127.0.0.1", 8500, False),
        ("h:1", "h", 1, False),
        ("h", "h", 8500, False),
        ("[::1]:1", "[::1]", 1, False),
        ("http://h:1", "h", 1, False),
        ("http://h:1/", "h", 1, False),
        ("http://h", "h", 80, False),
        ("https://h", "h", 443, True),
        ("https://h:8501", "h", 8501, True),
    ],
)
def test_the_place_in_the_environment(written: str, host: str, port: int, tls: bool) -> None:
    found = place("consul://", CONSUL_HTTP_ADDR=written)
    assert (found.host, found.port, found.tls) == (host, port, tls)


def test_tls_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    environ = {
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_CACERT": str(file),
        "CONSUL_CLIENT_CERT": str(file),
        "CONSUL_CLIENT_KEY": str(file),
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
    }
    assert place("consul://", **environ) == Place(
        "127.0.0.1", 8501, True, str(file), str(file), str(file), "server.dc1.consul"
    )


@pytest.mark.parametrize(
    ("url", "environ", "text"),
    [
        ("consul://a,b", {}, "several agents"),
        ("consul://h:0", {}, "port 0 is out of range"),
        ("consul://h/app", {}, "'/app' means nothing here (a service is ?service=NAME)"),
        ("consul://me:pw@h", {}, "consul://me:***@h: Consul knows no logins"),
        (f"consul://h?token={TOKEN}", {}, "consul://h: a token is not for a URL, which logs show (token-file=FILE)"),
        ("consul://h?tokn=x", {}, "setting 'tokn' is not known (known: ca, cert, dc, key, server-name, service, tag, "),
        ("consul://h?service=", {}, "service=: a name is missing"),
        ("consul://h?warning=perhaps", {}, "neither yes nor no"),
        ("consul://h?ca=/none/ca.pem", {}, "ca=/none/ca.pem: there is no such file"),
        (f"consul://h?key={__file__}", {}, "a key without its certificate"),
        ("consul://", {"CONSUL_HTTP_ADDR": "unix:///run/c"}, "CONSUL_HTTP_ADDR=unix:///run/c: unix:// is not spoken"),
        ("consul://", {"CONSUL_HTTP_ADDR": "ftp://h"}, "ftp:// is not spoken here (legal: HOST:PORT, http:// and "),
        ("consul://", {"CONSUL_HTTP_ADDR": "http://h/x"}, "'/x' means nothing"),
        ("consul://", {"CONSUL_HTTP_ADDR": "http://"}, "no address of an agent"),
        ("consul://", {"CONSUL_HTTP_ADDR": "h:x"}, "'h:x' is no place"),
        ("consul://", {"CONSUL_HTTP_ADDR": "h:1?x=1"}, "no address of an agent"),
        ("consul://", {"CONSUL_HTTP_TOKEN": f"{TOKEN}\n"}, "CONSUL_HTTP_TOKEN holds no token"),
    ],
)
def test_what_cannot_be_meant(url: str, environ: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        Consul(url, environ=environ)
    assert str(caught.value).startswith("consul://")
    assert TOKEN not in str(caught.value) and "pw" not in str(caught.value)


def test_a_token_is_in_no_description() -> None:
    found = place("consul://", CONSUL_HTTP_TOKEN=TOKEN)
    assert found.token == TOKEN and TOKEN not in repr(found)


def test_a_tokens_file_is_stronger_than_a_token() -> None:
    assert place("consul://?token-file=/a", CONSUL_HTTP_TOKEN=TOKEN, CONSUL_HTTP_TOKEN_FILE="/b").token_file == "/a"
    assert place("consul://", CONSUL_HTTP_TOKEN_FILE="/b").token_file == "/b"
