"""Where etcd is, and as whom to speak to it: `etcd://[USER[:PASSWORD]@]HOST[:PORT][,..]/PREFIX` and its settings.

No I/O but reading the files that the URL names: once when it is read, so that a missing one stops the start, and again
for each connection, so that a password or certificate that was exchanged counts from then on. The environment is not
looked at (no ETCDCTL_*): the URL says it all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes

from router.url import SourceUrl, parse_url, read_settings, setting
from router.values import file_name, flag, whole

PORT = 2379
HERE = ("127.0.0.1", PORT)  # where etcd listens when it is told nothing
PREFIX = b"/gfrouter"
LARGEST_FILE = 1_000_000  # bytes; a bundle of all public authorities is a quarter of it
MOST_PLACES = 32  # members of a cluster; etcd's own advice is seven at most


@dataclass(frozen=True)
class Settings:
    """What the URL may say behind its `?`."""

    timeout: int = setting(5, whole(1, 60, "seconds"), "SECONDS", "how long etcd may take to answer")
    user: str = setting("", str, "USER", "as the USER before the @")
    password_file: str = setting("", file_name, "FILE", "the password is this file's first line")
    tls: bool = setting(False, flag, "yes", "speak TLS; `ca` and `cert` say so, too")
    ca: str = setting("", file_name, "FILE", "who signs etcd's certificate (PEM; default: the public authorities)")
    cert: str = setting("", file_name, "FILE", "a certificate to show to etcd (PEM), with `key`")
    key: str = setting("", file_name, "FILE", "the key of `cert` (PEM)")


@dataclass(frozen=True)
class Access:
    """A URL read. `prefix` ends without a slash; `password` is the URL's own."""

    url: SourceUrl
    settings: Settings
    places: tuple[tuple[str, int], ...]
    prefix: bytes
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """How a log calls it: the places and the prefix, nobody's secrets."""
        places = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places)
        return f"etcd@{places}{quote_from_bytes(self.prefix)}"

    @property
    def tls(self) -> bool:
        return self.settings.tls or bool(self.settings.ca or self.settings.cert)

    def read_password(self) -> str:
        """The password of now. OSError or ValueError where its file cannot be read."""
        if not self.settings.password_file:
            return self.password
        data = read_file(self.settings.password_file)
        try:
            password = data.partition(b"\n")[0].removesuffix(b"\r").decode()
        except UnicodeDecodeError:  # whose text would tell a byte of it
            raise ValueError(f"{self.settings.password_file}: its first line is not UTF-8") from None
        if not password:
            raise ValueError(f"{self.settings.password_file}: its first line is empty, but should be a password")
        return password

    def read_certificates(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """(authorities, key, certificate), None for what is not named. OSError or ValueError as above."""
        ca, key, cert = (
            read_file(name) if name else None for name in (self.settings.ca, self.settings.key, self.settings.cert)
        )
        return ca, key, cert


def read_access(text: str) -> Access:
    """What the URL `text` says; ValueError that names what is wrong."""
    url = parse_url(text)
    settings = read_settings(url, Settings)
    places = tuple(url.hosts(PORT)) or (HERE,)
    if len(places) > MOST_PLACES:
        raise url.wrong(f"{len(places)} places, but {MOST_PLACES} is the limit")
    if url.user and settings.user:
        raise url.wrong("the user stands there twice: before the @, and as user=")
    if url.password and settings.password_file:
        raise url.wrong("the password stands there twice: before the @, and as password-file=")
    user = url.user or settings.user
    if bool(user) != bool(url.password or settings.password_file):
        raise url.wrong("a user needs a password (or password-file=), and a password needs a user")
    if bool(settings.cert) != bool(settings.key):
        raise url.wrong("cert and key go together")
    prefix = unquote_to_bytes(url.path).rstrip(b"/") or PREFIX
    access = Access(url, settings, places, prefix, user, url.password)
    try:
        access.read_password()
        access.read_certificates()
    except (OSError, ValueError) as error:
        raise url.wrong(str(error)) from None
    return access


def read_file(name: str) -> bytes:
    """All of it. OSError where it cannot be read, ValueError where it is too large to be what it should be."""
    with open(name, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{name}: a file of more than {LARGEST_FILE} bytes")
    return data
