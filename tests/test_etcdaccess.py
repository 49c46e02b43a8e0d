"""The URL of etcd: what it may say, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from discovery.etcdaccess import read_access


def test_the_bare_name_means_this_machine() -> None:
    access = read_access("etcd://")
    assert (access.places, access.prefix, access.tls, access.user) == ((("127.0.0.1", 2379),), b"/gfrouter", False, "")
    assert access.name == "etcd@127.0.0.1:2379/gfrouter"


def test_places_prefix_and_login() -> None:
    access = read_access("etcd://bob:s%40t@a.lan,[::1]:2380,10.0.0.5:1/live/web%20/?timeout=9")
    assert access.places == (("a.lan", 2379), ("::1", 2380), ("10.0.0.5", 1))
    assert access.prefix == b"/live/web "
    assert (access.user, access.read_password(), access.settings.timeout) == ("bob", "s@t", 9)
    assert access.name == "etcd@a.lan:2379,[::1]:2380,10.0.0.5:1/live/web%20"


def test_a_password_is_shown_nowhere() -> None:
    access = read_access("etcd://bob:geheim@a")
    assert "geheim" not in repr(access) + access.name + access.url.shown


def test_a_password_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"one\r\nmore\n")
    access = read_access(f"etcd://a?user=bob&password-file={file}")
    assert access.read_password() == "one"
    file.write_text("two")
    assert access.read_password() == "two"


def test_files_make_it_tls(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    access = read_access(f"etcd://a?ca={tmp_path}/ca&cert={tmp_path}/cert&key={tmp_path}/key")
    assert access.tls
    assert access.read_certificates() == (b"ca", b"key", b"cert")
    assert read_access("etcd://a?tls=yes").tls
    assert read_access("etcd://a?tls=yes").read_certificates() == (None, None, None)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("etcd://a:0", "port 0 is out of range"),
        ("etcd://a,,b", "'' is no place"),
        ("etcd://" + ",".join("a" * 33), "33 places, but 32 is the limit"),
        ("etcd://a?tiemout=3", "'tiemout' is not known (known: ca, cert, key, password-file, timeout, tls, user)"),
        ("etcd://a?timeout=0", "timeout=0: out of range (legal: 1 to 60 seconds)"),
        ("etcd://bob@a", "a user needs a password"),
        ("etcd://:geheim@a", "a password needs a user"),
        ("etcd://bob:geheim@a?user=bob", "the user stands there twice"),
        ("etcd://bob:geheim@a?password-file=/dev/null", "the password stands there twice"),
        ("etcd://bob@a?password-file=/dev/null", "/dev/null: its first line is empty"),
        ("etcd://bob@a?password-file=/nowhere/at/all", "No such file or directory: '/nowhere/at/all'"),
        ("etcd://a?ca=/nowhere/at/all", "No such file or directory: '/nowhere/at/all'"),
        ("etcd://a?ca=/dev/zero", "/dev/zero: a file of more than 1000000 bytes"),
        ("etcd://a?cert=/dev/null", "cert and key go together"),
        ("etcd://a?key=/dev/null", "cert and key go together"),
    ],
)  # fmt: skip
def test_a_wrong_url_says_what_is_wrong(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^etcd://") as caught:
        read_access(url)
    assert why in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_password_that_is_no_text_is_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"geheim\xff")
    with pytest.raises(ValueError, match=r"its first line is not UTF-8$"):
        read_access(f"etcd://bob@a?password-file={file}")
