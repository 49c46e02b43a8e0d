"""Where a Consul agent is and who we are to it: by the URL, else by the environment variables of Consul's own tools.

CONSUL_HTTP_ADDR and CONSUL_HTTP_SSL count only where the URL names no agent; the token and the files of TLS are looked
for in the environment wherever the URL does not say them. Nothing is opened here but what a typing error would show.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from router.url import SourceUrl, parse_url, setting, without_password
from router.values import file_name, flag

TAG = "uwsgi"
LOCAL = "127.0.0.1"
PORTS = {"": 8500, "http": 80, "https": 443}  # by the scheme that an address is written with
TLS_PORT = 8501  # where an agent with TLS listens when nobody says otherwise
LONGEST_TOKEN = 4096  # characters; Consul's are 36


def word(text: str) -> str:
    """A name that is not empty."""
    if not text:
        raise ValueError("a name is missing")
    return text


@dataclass(frozen=True)
class Access:
    """What a URL may say behind its `?` of how to speak to the agent, whatever it is asked or told."""

    token_file: str = setting("", file_name, "FILE", "the ACL token; else CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN")
    tls: bool = setting(False, flag, "BOOL", "speak HTTPS, to port 8501 by default; any of the next four means it, too")
    ca: str = setting("", file_name, "FILE", "who signs the agent's certificate; else CONSUL_CACERT")
    cert: str = setting("", file_name, "FILE", "our certificate; else CONSUL_CLIENT_CERT")
    key: str = setting("", file_name, "FILE", "its key; else CONSUL_CLIENT_KEY")
    server_name: str = setting("", word, "NAME", "the name in the agent's certificate; else CONSUL_TLS_SERVER_NAME")


@dataclass(frozen=True)
class Settings(Access):
    """The same of the source's URL: also what is asked for."""

    service: tuple[str, ...] = setting((), word, "NAME", "this service alone, with any tag; repeatable")
    tag: str = setting("", word, "TAG", f"only instances with this tag; without service= it is {TAG}")
    warning: bool = setting(False, flag, "BOOL", "an instance serves even while one of its checks warns")
    dc: str = setting("", word, "NAME", "another datacenter than the agent's own")


@dataclass(frozen=True)
class Place:
    """One agent and how to speak to it. `host` is as in a URL, with brackets around IPv6."""

    host: str
    port: int
    tls: bool = False
    ca: str = ""  # a file; else what the system trusts
    cert: str = ""
    key: str = ""
    server_name: str = ""
    dc: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""


def place_of(url: SourceUrl, said: Access, environ: Mapping[str, str]) -> Place:
    """The agent that the URL, its settings and the environment mean; ValueError where they cannot be meant."""
    tls = said.tls or bool(said.ca or said.cert or said.key or said.server_name)
    host, port, tls = _named(url, tls) if _names_agent(url) else _local(url, tls, environ)
    token = environ.get("CONSUL_HTTP_TOKEN", "")
    token_file = said.token_file or environ.get("CONSUL_HTTP_TOKEN_FILE", "")
    if token and not token_file and not is_token(token):
        raise url.wrong("CONSUL_HTTP_TOKEN holds no token")
    place = Place(
        host,
        port,
        tls,
        ca=said.ca or environ.get("CONSUL_CACERT", ""),
        cert=said.cert or environ.get("CONSUL_CLIENT_CERT", ""),
        key=said.key or environ.get("CONSUL_CLIENT_KEY", ""),
        server_name=said.server_name or environ.get("CONSUL_TLS_SERVER_NAME", ""),
        token=token,
        token_file=token_file,
    )
    if tls:
        _check_files(url, place)
    return place


def refuse_token(url: SourceUrl) -> None:
    """ValueError, which does not show it, where a token stands in the URL itself."""
    if any(name == "token" for name, _ in url.query):
        shown = url.shown.partition("?")[0]
        raise ValueError(f"{shown}: a token is not for a URL, which logs show (token-file=FILE)")


def read_token(place: Place) -> str:
    """The token of now, "" for none; its file is read anew, as tokens are exchanged. ValueError where it holds none."""
    if not place.token_file:
        return place.token
    try:
        token = Path(place.token_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ValueError(f"token-file={place.token_file}: {reason}") from None
    if not is_token(token):
        raise ValueError(f"token-file={place.token_file}: holds no token")
    return token


def is_token(text: str) -> bool:
    """Whether `text` can stand in a header. What cannot, the HTTP client would show in its message."""
    return 0 < len(text) <= LONGEST_TOKEN and text.isascii() and text.isprintable() and " " not in text


def _names_agent(url: SourceUrl) -> bool:
    if url.user or url.password:
        raise url.wrong("Consul knows no logins (a token is token-file=FILE)")
    if url.path not in ("", "/"):
        raise url.wrong(f"{url.path!r} means nothing here (a service is ?service=NAME)")
    return bool(url.places)


def _named(url: SourceUrl, tls: bool) -> tuple[str, int, bool]:
    return *_one(url, TLS_PORT if tls else PORTS[""]), tls


def _local(url: SourceUrl, tls: bool, environ: Mapping[str, str]) -> tuple[str, int, bool]:
    """Where Consul's own tools would look."""
    tls = tls or environ.get("CONSUL_HTTP_SSL", "").lower() in ("1", "true")
    written = environ.get("CONSUL_HTTP_ADDR", "")
    scheme, _, rest = written.rpartition("://")
    if not written:
        return LOCAL, TLS_PORT if tls else PORTS[""], tls
    try:
        if scheme not in PORTS:
            raise ValueError(f"{scheme}:// is not spoken here (legal: HOST:PORT, http:// and https://)")
        there = parse_url(f"consul://{rest}")
        if not _names_agent(there) or there.query:
            raise ValueError("no address of an agent (legal: HOST:PORT, http:// and https://)")
        return *_one(there, PORTS[scheme]), tls or scheme == "https"
    except ValueError as error:
        raise url.wrong(f"CONSUL_HTTP_ADDR={without_password(written)}: {error}") from None


def _one(url: SourceUrl, port: int) -> tuple[str, int]:
    if len(url.places) != 1:
        raise url.wrong("several agents, but one is asked (it knows what the others know)")
    ((host, port),) = url.hosts(port)
    return f"[{host}]" if ":" in host else host, port


def _check_files(url: SourceUrl, place: Place) -> None:
    for name in ("ca", "cert", "key"):
        file = getattr(place, name)
        if file and not os.access(file, os.R_OK):
            raise url.wrong(f"{name}={file}: there is no such file, or it may not be read")
    if place.key and not place.cert:
        raise url.wrong("a key without its certificate (cert=FILE)")
