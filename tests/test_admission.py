"""Who may announce: signatures, credentials, networks. Real signed workers: test_end_to_end_signed.py."""

from __future__ import annotations

import array
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from announced import NODE, SUBSCRIBE, UNIX_SECONDS, UNSUBSCRIBE, Announced, packet
from discovery import credentials, signing
from discovery.announcement import AnnouncementError, parse_announcement
from discovery.keyring import Keyring, owner_of
from signed import EC, PRIVATE, PUBLIC, RSA, STRANGER, keys

SHA256 = signing.digest_named("SHA256")


def signed(
    command: int = SUBSCRIBE, at: int = 0, kind: str = RSA, key: str = "foo.com", address: str = NODE, **more: Any
) -> bytes:
    """Signed `at` seconds from now."""
    datagram = packet(command, key=key, address=address, **more)
    return signing.sign(datagram, SHA256, signing.private_key(PRIVATE[kind]), UNIX_SECONDS + at)


def as_farewell(datagram: bytes) -> bytes:
    """The same with another command, which nobody has signed."""
    return datagram[:3] + b"\1" + datagram[4:]


def as_announcement(datagram: bytes) -> bytes:
    return datagram[:3] + b"\0" + datagram[4:]


def checking(folder: Path, wall: float = UNIX_SECONDS + 0.9, **settings: Any) -> Announced:
    return Announced(wall=wall, sign_check=f"SHA256:{folder}", **settings)


@pytest.mark.parametrize("kind", [RSA, EC])
def test_the_owner_of_the_key_may_announce_and_leave(tmp_path: Path, kind: str) -> None:
    with checking(keys(tmp_path, kind=kind)) as announced:
        announced.take(signed(kind=kind))
        assert announced.addresses() == [NODE]
        announced.take(signed(UNSUBSCRIBE, kind=kind))
        assert announced.addresses() == []
        assert announced.feed.rejected == Counter()


REFUSED = {
    "unsigned": (packet(), "not signed"),
    "an empty signature": (packet(sign=""), "not signed"),
    "a stranger's": (signed(kind=STRANGER), "bad signature"),
    "of another kind of key": (signed(kind=EC), "bad signature"),
    "changed": (signed(weight="1").replace(b"weight\1\x001", b"weight\1\x009"), "bad signature"),
    "with more behind": (signed() + b"\1\0x\0\0", "bad signature"),
    "without a time": (packet(sign="x"), "too old"),
    "stale": (signed(at=-86_401), "too old"),
    "from the future": (signed(at=86_401), "from the future"),
    "of nobody known": (signed(key="bar.com"), "no public key"),
}


@pytest.mark.parametrize(("datagram", "reason"), REFUSED.values(), ids=REFUSED)
def test_others_are_dropped_and_counted(tmp_path: Path, datagram: bytes, reason: str) -> None:
    with checking(keys(tmp_path)) as announced:
        announced.take(datagram, signed(address="10.0.0.6:1"))
        assert announced.feed.rejected == Counter({reason: 1})
        assert announced.addresses() == ["10.0.0.6:1"]
        announced.take(signed(), as_farewell(datagram))
        assert NODE in announced.addresses()


@pytest.mark.parametrize("at", [-86_400, 86_400])
def test_the_tolerance_is_for_both_sides(tmp_path: Path, at: int) -> None:
    with checking(keys(tmp_path)) as announced:
        announced.take(signed(at=at))
        assert announced.addresses() == [NODE]


def test_without_a_tolerance_a_worker_comes_and_goes(tmp_path: Path) -> None:
    with checking(keys(tmp_path), sign_check_tolerance=0) as announced:
        announced.take(signed(at=-1))
        assert announced.addresses() == []
        announced.take(signed())
        assert announced.addresses() == [NODE]
        announced.take(signed(UNSUBSCRIBE))
        assert announced.addresses() == []


def test_what_was_overheard_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, later = signed(), signed(at=10)
    with checking(keys(tmp_path)) as announced:
        announced.take(first, later)
        announced.idle(10)
        with caplog.at_level(logging.INFO, "gfrouter"):
            announced.take(later, first, as_farewell(first), as_farewell(later))
        announced.idle(8)  # 18 s after they were said: it falls silent
        assert announced.addresses() == []
        assert announced.feed.rejected == Counter({"said before": 4})
        line = (
            f"[uwsgi-subscription for pid {os.getpid()}] invalid (sniffed ?) packet sent for slot: foo.com "
            f"node: {NODE} unix_check: {UNIX_SECONDS + 10}"
        )
        assert [text for text in caplog.messages if "sniffed" in text] == [line]  # the others within one second


def test_the_count_outlives_its_node(tmp_path: Path) -> None:
    said, farewell = signed(), signed(UNSUBSCRIBE, at=10)
    with checking(keys(tmp_path)) as announced:
        announced.take(said, farewell, said, farewell)
        assert announced.addresses() == []
        announced.take(signed(at=20), farewell)
        assert announced.addresses() == [NODE]


def test_a_farewell_makes_one_announcement_at_most(tmp_path: Path) -> None:
    farewell = signed(UNSUBSCRIBE, at=10)
    with checking(keys(tmp_path)) as announced:
        announced.take(signed(), farewell, as_announcement(farewell))
        announced.idle(18)
        announced.take(as_announcement(farewell))
        assert announced.addresses() == []


def test_a_restart_makes_nothing_good_again(tmp_path: Path) -> None:
    """Not what it remembers, nor, as a farewell, what was said after the last write of its state."""
    folder = keys(tmp_path)
    farewell, gone = signed(UNSUBSCRIBE, at=1, address="10.0.0.6:1"), signed(address="10.0.0.6:1")
    with checking(folder) as before:
        before.take(signed(), gone, farewell)
        memory = json.loads(json.dumps(before.source.remember()))
        slices = {"foo.com": {NODE: before.nodes()[0]}}
    unwritten = signed(at=1)  # accepted, and then killed
    with checking(folder, wall=UNIX_SECONDS + 2) as after:
        after.feed.recall({"foo.com": list(slices["foo.com"].values())}, 0)
        after.source.recall(slices, memory)
        after.take(as_farewell(signed()), as_farewell(unwritten), gone, farewell)
        assert after.addresses() == [NODE]
        assert after.feed.rejected == Counter({"said before": 4})
        after.take(signed(UNSUBSCRIBE, at=3))
        assert after.addresses() == []


def test_vassals_without_an_address_count_each_for_itself(tmp_path: Path) -> None:
    with checking(keys(tmp_path)) as announced:
        announced.take(signed(address="", vassal="a.ini"), signed(address="", vassal="b.ini"))
        assert announced.feed.rejected == Counter()
        announced.take(signed(address="", vassal="a.ini"))
        assert announced.feed.rejected == Counter({"said before": 1})


def test_a_memory_of_the_future_locks_nobody_out(tmp_path: Path) -> None:
    with checking(keys(tmp_path)) as announced:
        announced.source.recall({}, {"unix": [["foo.com", "foo.com", NODE, UNIX_SECONDS + 86_401, 0]]})
        announced.take(signed())
        assert announced.addresses() == [NODE]


def test_a_key_is_read_when_it_comes_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = keys(tmp_path, "other.com")
    with checking(folder) as announced:
        announced.take(signed())
        keys(tmp_path)
        announced.take(signed())
        assert announced.addresses() == [NODE]
        (tmp_path / "new.pem").write_bytes(PUBLIC[EC])
        os.replace(tmp_path / "new.pem", folder / "foo.com.pem")
        announced.take(signed(at=1), signed(UNSUBSCRIBE, at=2))
        assert announced.addresses() == [NODE]
        announced.take(signed(UNSUBSCRIBE, at=3, kind=EC))
        assert announced.addresses() == []
        (folder / "foo.com.pem").unlink()
        announced.take(signed(at=4, kind=EC))
        assert announced.feed.rejected == Counter({"no public key": 2, "bad signature": 2})


@pytest.mark.parametrize("kind", ["garbage", "folder", "huge", "fifo"])
def test_what_is_no_key_costs_its_owner_alone(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = keys(tmp_path, "bar.com")
    file = folder / "foo.com.pem"
    match kind:
        case "garbage":
            file.write_bytes(b"\0\xff")
        case "folder":
            file.mkdir()
        case "huge":
            file.write_bytes(PUBLIC[RSA] + bytes(65_536))
        case "fifo":
            os.mkfifo(file)
    with checking(folder) as announced:
        announced.take(signed(), signed(at=1), signed(key="bar.com"))
        assert announced.addresses("bar.com") == [NODE]
        assert announced.feed.rejected == Counter({"no public key": 2})
    assert len([line for line in caplog.messages if "unable to load public key for foo.com" in line]) == 1


def test_a_key_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "out.pem").write_bytes(PUBLIC[RSA])
    folder = keys(tmp_path, "inside")
    with checking(folder) as announced:
        for key in ("../out", "..", "/etc/passwd", f"{tmp_path}/out", "inside\0", "./inside", "\udcff", "x" * 255):
            announced.take(signed(key=key))
        assert announced.feed.rejected == Counter({"no public key": 8})


def test_the_name_of_a_keys_file_is_uwsgis() -> None:
    assert owner_of("foo.com:8080/a b", False) == "foo.com_8080_a_b"
    assert owner_of("ä-_.Z9\udcff", False) == "__-_.Z9_"
    assert owner_of("foo.com/app", True) == "foo.com"


def test_with_mountpoints_one_key_is_for_all_paths_of_a_host(tmp_path: Path) -> None:
    with checking(keys(tmp_path), mountpoints="true") as announced:
        announced.take(signed(key="foo.com/app"))
        assert announced.addresses("foo.com/app") == [NODE]


def test_so_many_keys_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.keyring.MOST_KEYS", 2)
    ring = Keyring(str(keys(tmp_path, "a", "b", "c")))
    for owner in "abcab":
        assert ring.key_of(owner)
        assert len(ring._keys) <= 2


# Credentials.

ME = credentials.Credentials(os.getpid(), os.getuid(), os.getgid())


def unix(folder: Path, **settings: Any) -> Announced:
    return Announced(f"unix://{folder}/s.sock", use_credentials="true", **settings)


def test_the_kernel_says_who_announces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unix(tmp_path, sign_skip_uid="1") as announced:
        assert caplog.messages == []
        announced.take(packet())
        (node,) = announced.nodes()
        assert (node.pid, node.uid, node.gid) == ME


def test_where_it_cannot_nobody_announces() -> None:
    with Announced(use_credentials="true") as announced:
        announced.take(packet())
        assert announced.feed.rejected == Counter({"no credentials": 1})
        assert announced.nodes() == []


def test_descriptors_that_a_sender_attaches_do_not_come_in(tmp_path: Path) -> None:
    with unix(tmp_path) as announced, open(os.devnull, "rb") as file:
        before = len(os.listdir("/proc/self/fd"))
        rights = array.array("i", [file.fileno()])
        announced.sender.sendmsg([packet()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        announced.source.turn(announced.feed)
        assert announced.addresses() == [NODE]
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_came_before_the_kernel_was_asked_is_nobodys(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(str(tmp_path / "s"))
        sender.sendto(b"early", str(tmp_path / "s"))
        credentials.ask_for(receiver)
        assert credentials.receive(receiver, 100)[2] is None
        sender.sendto(b"late", str(tmp_path / "s"))
        assert credentials.receive(receiver, 100)[2] == ME


def test_a_key_belongs_to_the_owner_and_group_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "foo.com").touch()
    for key in "bar.com", "baz.com":
        (tmp_path / "own" / key).touch()
    if os.getuid() == 0:
        os.chown(tmp_path / "own" / "bar.com", 1, os.getgid())
        os.chown(tmp_path / "own" / "baz.com", os.getuid(), 1)
    else:
        (tmp_path / "own" / "bar.com").unlink()
        (tmp_path / "own" / "baz.com").unlink()
    with unix(tmp_path, credentials_check=[f"{tmp_path}/none/", f"{tmp_path}/own/"]) as announced:
        for command in SUBSCRIBE, UNSUBSCRIBE:
            announced.take(packet(command, key="bar.com"), packet(command, key="baz.com"))
        announced.take(packet())
        assert sorted(announced.table.pools) == ["foo.com"]
        assert announced.feed.rejected == Counter({"wrong credentials": 4})


@pytest.mark.parametrize("key", ["../out", ".", "..", "own/../../out", "a\0b"])
def test_a_key_never_leads_out_of_the_folder_of_owners(tmp_path: Path, key: str) -> None:
    (tmp_path / "out").touch()
    (tmp_path / "own").mkdir()
    assert not credentials.own(key, [f"{tmp_path}/own/"], ME)
    (tmp_path / "own" / "a").touch()
    assert credentials.own("a", [f"{tmp_path}/own/"], ME)


def test_a_key_that_the_locale_has_no_letters_for_is_looked_up_as_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "\u0142.com").touch()
    code = (
        "import os; from discovery.credentials import Credentials, own; "
        "print(own('\\u0142.com', [os.environ['OWNERS']], Credentials(1, os.getuid(), os.getgid())))"
    )
    more = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OWNERS": f"{tmp_path}/"}  # ASCII alone
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **more}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_without_credentials_nobody_passes_the_check_and_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with Announced(credentials_check="/") as announced:  # root's file, for whom the fastrouter takes everybody
        announced.take(packet(key="etc"))
        assert announced.feed.rejected == Counter({"wrong credentials": 1})
    assert "nobody may announce" in caplog.text


def test_a_key_file_that_turns_into_a_fifo_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = keys(tmp_path)
    before = os.stat(folder / "foo.com.pem")
    os.unlink(folder / "foo.com.pem")
    os.mkfifo(folder / "foo.com.pem")
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for who writes"))
    signal.alarm(5)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", lambda path: before)  # it was a file when it was looked at
            with pytest.raises(AnnouncementError, match="no RSA or EC key"):
                Keyring(str(folder)).key_of("foo.com")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def test_a_user_may_be_spared_the_signature(tmp_path: Path) -> None:
    folder = keys(tmp_path)
    with unix(tmp_path, sign_check=f"SHA256:{folder}", sign_skip_uid=["1", "4242"]) as announced:
        admission = announced.source._admission
        said = parse_announcement(packet())
        admission.judge(said, packet(), credentials.Credentials(1, 4242, 0))
        for uid in 0, 2:
            with pytest.raises(ValueError, match=r"foo\.com"):
                admission.judge(said, packet(), credentials.Credentials(1, uid, 0))


def test_without_credentials_nobody_is_spared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with checking(keys(tmp_path), sign_skip_uid="1") as announced:
        announced.take(packet())
        assert announced.feed.rejected == Counter({"not signed": 1})
    assert "everybody must sign" in caplog.text


# Networks.


def test_only_the_allowed_networks_may_announce_over_udp() -> None:
    with Announced(allow=["127.0.0.8/30", "fd00::/8"]) as announced:
        for host in "127.0.0.9", "127.0.0.12":
            announced.another(host).send(packet(address=f"{host}:1"))
        announced.source.turn(announced.feed)
        assert announced.addresses() == ["127.0.0.9:1"]
        assert announced.feed.rejected == Counter({"not allowed": 1})


def test_an_ipv4_host_that_comes_through_ipv6_is_itself() -> None:
    with Announced("udp://[::]:0", allow="127.0.0.9") as announced:
        port = announced.source.socket.getsockname()[1]
        announced.another("127.0.0.9", ("127.0.0.1", port)).send(packet())
        announced.source.turn(announced.feed)
        assert announced.addresses() == [NODE]


def test_a_unix_socket_is_not_concerned(tmp_path: Path) -> None:
    with Announced(f"unix://{tmp_path}/s.sock", allow="10.0.0.0/8") as announced:
        announced.take(packet())
        assert announced.addresses() == [NODE]
