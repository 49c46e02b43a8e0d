"""Readers: the text of one option to its value.

Each takes a text and gives the value, or a ValueError that says what is wrong and what is legal; the place
and the text itself are added by router/configuration.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from grp import getgrnam
from ipaddress import ip_network
from pwd import getpwnam

from router.address import AddressError, HostName, Inet, Local, Shared, Unix, parse_local, parse_node
from router.static import static_node
from router.url import parse_url, url_of

# Longer waits than a year and more processes than machines have cores for are slips of the unit.
MAX_SECONDS = 365 * 24 * 3600
MAX_PROCESSES = 1024
MAX_RETRIES = 1000
MAX_FAILS = 1000
MAX_BACKLOG = 1_000_000
MAX_NODES = 10_000_000
MAX_QUOTA = 1_000_000
MAX_SOCKETS = 9999
MAX_MOUNTPOINTS = 16
MAX_BYTES = 2**50
LARGEST_UID = 2**32 - 2  # the next one means nobody
LAZY_MODE = 0o666

TRUE_WORDS = ("true", "on", "yes", "1")
FALSE_WORDS = ("false", "off", "no", "0")


def flag(text: str) -> bool:
    """A yes or no; a bare name is yes."""
    word = text.lower()
    if word and word not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError(f"neither yes nor no (legal: {', '.join(TRUE_WORDS + FALSE_WORDS)})")
    return word not in FALSE_WORDS


def whole(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    """A reader of whole numbers within bounds."""
    legal = f"(legal: {least} to {most}{unit and f' {unit}'})"

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise ValueError(f"{'not a whole number' if text else 'a number is missing'} {legal}")
        if len(text) > 18 or not least <= int(text) <= most:
            raise ValueError(f"out of range {legal}")
        return int(text)

    return read


seconds = whole(0, MAX_SECONDS, "seconds")
seconds_from_1 = whole(1, MAX_SECONDS, "seconds")


def one_of(*words: str) -> Callable[[str], str]:
    """A reader of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"unknown word (legal: {', '.join(words)})")
        return text

    return read


def address(text: str) -> str:
    """An address to bind."""
    if isinstance(_local(text), Shared):
        raise ValueError("=N means a shared socket, which only a listening address can be")
    return text


def address_or(word: str) -> Callable[[str], str]:
    """A reader of addresses, or of one word in their place."""
    return lambda text: text if text == word else address(text)


def listening_address(text: str) -> str:
    """As `address`, or `=N` for a shared socket; a bare number is what uWSGI's core option `listen` takes."""
    if text.isdecimal():
        raise ValueError(f"a bare number is no address (a port is :{text}, the queue's length is backlog)")
    local = _local(text)
    return f"={local.number}" if isinstance(local, Shared) else text


def _local(text: str) -> Local:
    try:
        return parse_local(text)
    except AddressError as error:
        raise ValueError(error.reason) from None


def node_address(text: str) -> str:
    """A node that an option names."""
    static_node(text)
    return text


def receiver(text: str) -> str:
    """Where a subscription server listens."""
    found = _local(text)
    if not isinstance(found, Inet | HostName | Unix):
        raise ValueError("nothing can be sent there (legal: HOST:PORT, [IPV6]:PORT, a path or @NAME)")
    if 0 in (found.sockaddr[1:2] if isinstance(found, Inet) else [found.port] if isinstance(found, HostName) else []):
        raise ValueError("port 0 is out of range (1 to 65535)")
    return text


def node_place(text: str) -> str:
    """Where somebody else may connect to."""
    try:
        parse_node(text)
    except AddressError as error:
        raise ValueError(error.reason) from None
    if len(os.fsencode(text)) > 255:
        raise ValueError("an address that is announced has 255 bytes at most")
    return text


def digest_and_file(text: str) -> str:
    """The name of a digest and a key's file."""
    digest, _, file = text.partition(":")
    if not (digest and file):
        raise ValueError("no digest and file (legal: DIGEST:FILE, as in SHA256:/etc/router.pem)")
    return text


def key(text: str) -> str:
    """A key as packets name it."""
    if not 0 < len(os.fsencode(text)) < 256:
        raise ValueError("a key has 1 to 255 bytes")
    return text


def network(text: str) -> str:
    """An IP network, or one host."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"no network: {error} (legal: 10.0.0.0/8, fd00::/8 or one address)") from None


def digest_and_folder(text: str) -> str:
    """DIGEST:DIR; which digests there are the subscriptions know."""
    digest, _, folder = text.partition(":")
    if not digest or not folder:
        raise ValueError("no digest and folder (legal: DIGEST:DIR, as in SHA256:/etc/uwsgi/keys)")
    return text


def folder_prefix(text: str) -> str:
    """The beginning of paths."""
    if not text or "\0" in text:
        raise ValueError("a folder is missing")
    return text


def file_mode(text: str) -> int:
    """The permissions of a file; none given means that everybody may, as uWSGI has it for the lazy."""
    return permissions(text) if text else LAZY_MODE


def permissions(text: str) -> int:
    """Those of a file, or a mask of them."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError("permissions are three octal digits, as in 660")
    return int(text, 8)


def owner(text: str) -> tuple[int, int]:
    """USER, USER:GROUP or :GROUP, by names or numbers, as (uid, gid); -1 leaves one as it is."""
    its_user, _, its_group = text.partition(":")
    if not its_user and not its_group:
        raise ValueError("a user is missing (legal: USER, USER:GROUP or :GROUP)")
    return user(its_user) if its_user else -1, group(its_group) if its_group else -1


def user(text: str) -> int:
    """The number of a user, who is named, or whose number it is."""
    try:
        return int(text) if _is_id(text) else getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f"there is no user named {text!r}" if text else "a user is missing") from None


def group(text: str) -> int:
    """The number of a group, likewise."""
    try:
        return int(text) if _is_id(text) else getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ValueError(f"there is no group named {text!r}" if text else "a group is missing") from None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def queue_length(text: str) -> int:
    """How many connections may wait; an address here comes from taking uWSGI's `listen` for ours."""
    if ":" in text or "/" in text:
        raise ValueError("this is the queue's length, not an address (in [uwsgi] that is fastrouter = ...)")
    return whole(1, MAX_BACKLOG, "connections")(text)


def file_name(text: str) -> str:
    """FILE or FILE:SECTION."""
    if not text:
        raise ValueError("a file name is missing")
    return text


def folder(text: str) -> str:
    """A folder that is there."""
    if not os.path.isdir(text):
        raise ValueError("there is no such folder")
    return text


def log_file(text: str) -> str:
    """A file for the log; uWSGI takes anything with a colon in it for a log server."""
    if ":" in text:
        raise ValueError("log servers are not supported yet (legal: a file)")
    return file_name(text)


def text(text: str) -> str:
    """Any, but none at all."""
    if not text:
        raise ValueError("a text is missing")
    return text


def command(text: str) -> str:
    if not text.strip():
        raise ValueError("a command is missing")
    return text


def source_names(text: str) -> str:
    """NAME or a URL of a source of nodes, or several with blanks between them."""
    for word in text.split():
        parse_url(url_of(word))
    if not text.split():
        raise ValueError("a source's name is missing (gfrouter sources lists them)")
    return text


def base(text: str) -> str:
    """What stands before the key in a node's address."""
    if not text or "\0" in text:
        raise ValueError("a beginning of addresses is missing (legal: a folder, as /run/app/, or HOST:)")
    return text


def pattern(text: str) -> str:
    """A node's address with %s where the key stands."""
    if not text or "\0" in text:
        raise ValueError("a pattern is missing (legal: an address with %s where the key stands)")
    if stray := re.search("%(.?)", re.sub("%[s%]", "", text)):
        raise ValueError(f"{stray[0]} means nothing here (legal: %s for the key, %% for a percent sign)")
    return text


def code_string(text: str) -> str:
    """0:FILE:FUNCTION."""
    modifier, colon, rest = text.partition(":")
    file, colon, function = rest.partition(":")
    if not colon or not file or not function.isidentifier():
        raise ValueError("no function (legal: 0:FILE:FUNCTION)")
    if modifier != "0":
        raise ValueError(f"the language with modifier {modifier!r} is not there (legal: 0, which is Python)")
    return text


def cache_file(text: str) -> str:
    """The path of a file of cache values. uWSGI has the name of a cache here."""
    if "/" not in text:
        raise ValueError(
            "gfrouter has no caches: write the items to a file, a line KEY VALUE for each, and give its path, "
            "which has a slash in it"
        )
    return text


def socket_number(text: str) -> int:
    """Which of the sockets, from 0; a bare option means the first one, as does what is no number in uWSGI's eyes."""
    return 0 if text in ("", *TRUE_WORDS[:-1]) else whole(0, MAX_SOCKETS)(text)


def pages(text: str) -> str:
    """`on`, `off`, or the folder of own error pages."""
    if not text:
        raise ValueError("a word is missing (legal: on, off, or a folder)")
    if text not in ("on", "off") and "/" not in text:
        raise ValueError("neither on nor off, nor a folder, which has a slash in it (legal: on, off, or a folder)")
    return text


def variable(text: str) -> str:
    """NAME=VALUE for a request's vars."""
    name, equals, _ = text.partition("=")
    if not name or not equals:
        raise ValueError("no variable (legal: NAME=VALUE)")
    return text


def statuses(text: str) -> str:
    """An HTTP status, or FIRST-LAST."""
    found = re.fullmatch("([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", text)
    if found is None:
        raise ValueError("no HTTP status (legal: 100 to 599, as in 200 or 200-399)")
    if found[2] and found[2] < found[1]:
        raise ValueError("the first status is after the last one")
    return text
