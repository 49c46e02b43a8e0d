"""When names are looked up, and what becomes of each kind of answer; with lookups and a clock of the test's own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gevent
import gevent.event
import pytest

from discovery import dnssrv
from discovery.dnsclient import Found, LookupFailed, Unreachable
from discovery.dnssrv import FAILED_TTL, LOOKUPS, NEWCOMERS, Dns
from router.node import Node
from router.sources import open_source
from router.table import Table
from scripted import wait_for

SERVFAIL = LookupFailed("_uwsgi._tcp.foo.com SRV: SERVFAIL (127.0.0.1:53)")
SILENCE = Unreachable("_uwsgi._tcp.foo.com SRV: no answer in time (127.0.0.1:53)")
NONE = Found((), 7)


def found(*addresses: str, ttl: int = 10) -> Found:
    return Found(tuple(Node(address) for address in addresses), ttl)


ONE, TWO = found("10.0.0.1:3031"), found("10.0.0.1:3031", "10.0.0.2:3031")


class Names:
    """A table with one feed, a DNS source, what is said of each name, and which names were looked up how often."""

    def __init__(self, url: str) -> None:
        self.now = 1000.0
        self.says: dict[str, Found | Exception | Callable[[], Found]] = {}
        self.asked: Counter[str] = Counter()
        self.answered: list[str] = []
        self.table = Table(on_answer=lambda feed, key: self.answered.append(key))
        self.feed = self.table.feed("dns")
        self.dns = Dns(url, lookup=self.lookup, clock=lambda: self.now, random=lambda: 0.0)

    def begin(self, **says: Found | Exception) -> Names:
        self.says = {f"_uwsgi._tcp.{host}.com": answer for host, answer in says.items()}
        self.dns._begin(self.feed)
        self.turn()
        return self

    def lookup(self, name: str) -> Found:
        self.asked[name] += 1
        answer = self.says.get(name, NONE)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Found) else answer()

    def turn(self, later: float = 0.0) -> float | None:
        """So much later, begin what is due and let it end. Seconds until something else is."""
        self.now += later
        self.dns.turn(self.feed)
        self.dns.pool.join()
        return self.dns.turn(self.feed)

    def want(self, key: str) -> None:
        """A client asks for this key; wait for what comes of it."""
        self.dns.want(self.feed, key)
        self.dns.newcomers.join()

    def addresses(self, key: str) -> list[str]:
        return [node.address for node in self.table.nodes(key)]


@pytest.fixture
def watched() -> Names:
    return Names("dns:///_uwsgi._tcp.foo.com,_uwsgi._tcp.bar.com")


@pytest.fixture
def on_demand() -> Names:
    return Names("dns://")


# What is watched.


def test_more_names_than_are_looked_up_at_once_that_all_fail_at_once_are_looked_up_again() -> None:
    hosts = [f"h{number}.com" for number in range(2 * LOOKUPS + 1)]
    names = Names("dns:///" + ",".join(f"_uwsgi._tcp.{host}" for host in hosts))
    names.says = {f"_uwsgi._tcp.{host}": SILENCE for host in hosts}
    run = gevent.spawn(names.dns.run, names.feed)
    wait_for(lambda: len(names.asked) == len(hosts), "all to be looked up", sleep=gevent.sleep)
    names.says.clear()
    names.now += 60
    names.dns.news.set()
    wait_for(lambda: names.feed.spoken, "all to be seen", sleep=gevent.sleep)
    run.kill()


def test_it_has_spoken_when_each_name_has_been_seen(watched: Names) -> None:
    watched.begin(foo=ONE, bar=SERVFAIL)
    assert watched.addresses("foo.com") == ["10.0.0.1:3031"]
    assert not watched.feed.spoken
    assert watched.feed.key_errors == {"bar.com": str(SERVFAIL)}
    watched.says["_uwsgi._tcp.bar.com"] = NONE
    watched.turn(5.0)
    assert watched.feed.spoken
    assert watched.feed.key_errors == {}
    assert watched.addresses("foo.com") == ["10.0.0.1:3031"]


def test_a_name_is_looked_up_again_when_its_ttl_ends(watched: Names) -> None:
    watched.begin(foo=found("10.0.0.1:3031", ttl=10), bar=found(ttl=7))
    assert watched.turn() == pytest.approx(7)
    assert watched.turn(7.1) == pytest.approx(2.9)
    assert watched.asked == {"_uwsgi._tcp.foo.com": 1, "_uwsgi._tcp.bar.com": 2}
    watched.says["_uwsgi._tcp.foo.com"] = TWO
    watched.turn(3.0)
    assert watched.addresses("foo.com") == ["10.0.0.1:3031", "10.0.0.2:3031"]


def test_up_to_a_tenth_of_the_ttl_earlier(watched: Names) -> None:
    watched.dns.random = lambda: 0.99
    assert watched.begin(foo=found(ttl=100), bar=found(ttl=200)).turn() == pytest.approx(90.1)


@pytest.mark.parametrize(("ttl", "wait"), [(0, 2), (1, 2), (5, 5), (20, 20), (21, 20), (2**31 - 1, 20)])
def test_the_ttl_has_a_floor_and_a_ceiling(ttl: int, wait: int) -> None:
    names = Names("dns:///_uwsgi._tcp.foo.com?min-ttl=2&max-ttl=20")
    assert names.begin(foo=found("10.0.0.1:3031", ttl=ttl)).turn() == pytest.approx(wait)


def test_what_is_not_there_any_more_is_removed(watched: Names) -> None:
    watched.begin(foo=TWO, bar=ONE)
    watched.says["_uwsgi._tcp.foo.com"] = NONE
    watched.turn(11)
    assert watched.addresses("foo.com") == []
    assert watched.addresses("bar.com") == ["10.0.0.1:3031"]


@pytest.mark.parametrize("error", [SERVFAIL, SILENCE, RuntimeError("a fault of ours")])
def test_a_lookup_that_fails_keeps_its_nodes_and_no_others(watched: Names, error: Exception) -> None:
    watched.begin(foo=TWO, bar=TWO)
    watched.says = {"_uwsgi._tcp.foo.com": error, "_uwsgi._tcp.bar.com": ONE}
    watched.turn(11)
    assert watched.addresses("foo.com") == ["10.0.0.1:3031", "10.0.0.2:3031"]
    assert watched.addresses("bar.com") == ["10.0.0.1:3031"]
    assert watched.feed.key_errors == {"foo.com": str(error)}


def test_nothing_changes_where_the_answer_is_the_same(watched: Names) -> None:
    watched.begin(foo=TWO, bar=NONE)
    changes: list[object] = []
    watched.table.on_change = changes.append
    for _ in range(5):
        watched.turn(11)
    assert watched.asked["_uwsgi._tcp.foo.com"] == 6
    assert changes == []


def test_what_fails_waits_longer_each_time_and_is_asked_at_once_when_a_server_is_back(watched: Names) -> None:
    watched.dns.random = lambda: 1.0
    watched.begin(foo=SILENCE, bar=SILENCE)
    for wait in (1, 2, 4, 8, 16, 30, 30):
        left = watched.turn()
        assert left == pytest.approx(wait)
        watched.turn(wait + 0.01)
    assert watched.feed.error == str(SILENCE)
    watched.says = {"_uwsgi._tcp.foo.com": ONE, "_uwsgi._tcp.bar.com": TWO}
    foo = watched.dns.names["foo.com"]
    watched.dns._schedule(foo, 0.0)
    watched.turn()
    watched.turn()
    assert (watched.addresses("foo.com"), watched.addresses("bar.com")) == ([
        "10.0.0.1:3031"], ["10.0.0.1:3031", "10.0.0.2:3031"])  # fmt: skip
    assert watched.feed.error is None
    assert watched.dns.failing == 0


def test_a_lookup_that_is_under_way_is_not_begun_again_when_a_server_is_back(watched: Names) -> None:
    watched.begin(foo=SILENCE, bar=SILENCE)
    gate = gevent.event.Event()

    def wait() -> Found:
        gate.wait()
        return ONE

    watched.says = {"_uwsgi._tcp.foo.com": wait, "_uwsgi._tcp.bar.com": ONE}
    watched.now += 5
    watched.dns.turn(watched.feed)
    wait_for(lambda: watched.addresses("bar.com"), "bar.com to be seen", sleep=gevent.sleep)
    watched.dns.turn(watched.feed)
    gevent.sleep(0)
    assert watched.asked["_uwsgi._tcp.foo.com"] == 2
    gate.set()
    watched.dns.pool.join()


def test_the_log_says_once_that_no_server_answers(watched: Names, caplog: pytest.LogCaptureFixture) -> None:
    watched.begin(foo=TWO, bar=TWO)
    watched.says = dict.fromkeys(watched.says, SILENCE)
    with caplog.at_level(logging.WARNING, "gfrouter"):
        for _ in range(5):
            watched.turn(40)
    assert caplog.messages == [
        f"dns/_uwsgi._tcp.foo.com,_uwsgi._tcp.bar.com: no server answers, all nodes stay: {SILENCE}"
    ]


def test_the_log_says_once_which_name_fails(watched: Names, caplog: pytest.LogCaptureFixture) -> None:
    watched.begin(foo=TWO, bar=TWO)
    watched.says["_uwsgi._tcp.foo.com"] = SERVFAIL
    with caplog.at_level(logging.WARNING, "gfrouter"):
        for _ in range(5):
            watched.turn(40)
    assert caplog.messages == [f"{watched.dns.name}: {SERVFAIL}; of foo.com nodes are kept: 2"]


def test_not_more_lookups_at_once_than_there_is_room_for() -> None:
    hosts = [f"h{n}.com" for n in range(LOOKUPS + 5)]
    names = Names("dns:///" + ",".join(f"_uwsgi._tcp.{host}" for host in hosts))
    gate = gevent.event.Event()

    def wait() -> Found:
        gate.wait()
        return ONE

    names.says = {f"_uwsgi._tcp.{host}": wait for host in hosts}
    names.dns._begin(names.feed)
    assert names.dns.turn(names.feed) is None
    gevent.sleep(0)
    assert names.asked.total() == LOOKUPS
    assert names.dns.turn(names.feed) is None
    gate.set()
    names.dns.pool.join()
    names.turn()
    assert names.asked == dict.fromkeys(names.says, 1)
    assert names.feed.spoken


# On demand.


def test_it_has_spoken_at_once(on_demand: Names) -> None:
    on_demand.begin()
    assert on_demand.feed.spoken
    assert on_demand.asked.total() == 0
    assert on_demand.turn() is None


@pytest.mark.parametrize("key", ["foo.com", "Foo.com:8080", "foo.com."])
def test_a_key_is_looked_up_as_its_host_and_answered_as_it_was_asked(on_demand: Names, key: str) -> None:
    on_demand.begin(foo=ONE).want(key)
    assert on_demand.asked == {"_uwsgi._tcp.foo.com": 1}
    assert on_demand.addresses(key) == ["10.0.0.1:3031"]
    assert on_demand.answered == [key]


def test_a_known_key_is_kept_up_to_date(on_demand: Names) -> None:
    on_demand.begin(foo=ONE).want("foo.com")
    on_demand.says["_uwsgi._tcp.foo.com"] = TWO
    assert on_demand.turn() == pytest.approx(10)
    on_demand.turn(10.1)
    assert on_demand.addresses("foo.com") == ["10.0.0.1:3031", "10.0.0.2:3031"]


def test_many_questions_for_one_key_are_one_lookup(on_demand: Names) -> None:
    on_demand.begin(foo=ONE)
    for _ in range(100):
        on_demand.dns.want(on_demand.feed, "foo.com")
    on_demand.dns.newcomers.join()
    assert on_demand.asked == {"_uwsgi._tcp.foo.com": 1}


def test_what_is_not_there_is_not_looked_up_again_for_as_long_as_its_zone_says(on_demand: Names) -> None:
    on_demand.begin()
    for wait, lookups in ((0, 1), (6, 1), (1.5, 2)):
        on_demand.turn(wait)
        on_demand.want("foo.com")
        assert on_demand.asked.total() == lookups
    assert on_demand.answered == ["foo.com"] * 3
    on_demand.turn(8)
    assert on_demand.dns.absent == {}


def test_a_lookup_that_fails_is_told_and_not_repeated_at_once(on_demand: Names) -> None:
    on_demand.begin(foo=SERVFAIL)
    on_demand.want("foo.com")
    on_demand.want("foo.com")
    assert on_demand.asked.total() == 1
    assert on_demand.answered == ["foo.com"] * 2
    assert on_demand.feed.key_errors == {"foo.com": str(SERVFAIL)}
    on_demand.turn(FAILED_TTL + 0.1)
    assert on_demand.feed.key_errors == {}
    on_demand.says["_uwsgi._tcp.foo.com"] = ONE
    on_demand.want("foo.com")
    assert on_demand.addresses("foo.com") == ["10.0.0.1:3031"]


def test_a_known_key_keeps_its_nodes_when_its_lookup_fails(on_demand: Names) -> None:
    on_demand.begin(foo=ONE).want("foo.com")
    on_demand.says["_uwsgi._tcp.foo.com"] = SILENCE
    for _ in range(20):
        on_demand.turn(1000)
    assert on_demand.addresses("foo.com") == ["10.0.0.1:3031"]
    on_demand.says["_uwsgi._tcp.foo.com"] = NONE
    on_demand.turn(1000)
    assert on_demand.addresses("foo.com") == []
    assert on_demand.dns.names == {}
    assert on_demand.dns.failing == 0


def test_a_key_out_of_use_is_withdrawn_and_one_in_use_comes_back_without_a_lookup() -> None:
    names = Names("dns://?keep=25").begin(foo=ONE, bar=ONE)
    names.want("foo.com")
    names.want("bar.com")
    for _ in range(3):
        names.turn(10.1)
    assert (names.addresses("foo.com"), names.addresses("bar.com")) == ([], [])
    lookups = names.asked.total()
    names.want("foo.com")
    assert names.addresses("foo.com") == ["10.0.0.1:3031"]
    assert names.asked.total() == lookups
    names.turn(10.1)
    assert list(names.dns.names) == ["foo.com"]
    assert names.asked["_uwsgi._tcp.foo.com"] == names.asked["_uwsgi._tcp.bar.com"] + 1


@pytest.mark.parametrize("key", ["10.0.0.1", "[::1]:80", "bücher.de", "a" * 64 + ".com", ".".join(["a" * 60] * 4), ""])
def test_what_is_no_host_name_is_refused_without_a_lookup(on_demand: Names, key: str) -> None:
    on_demand.begin().want(key)
    assert on_demand.asked.total() == 0
    assert on_demand.answered == [key]
    assert on_demand.feed.rejected == {"no host name": 1}


def test_only_hosts_in_the_domains_are_looked_up() -> None:
    names = Names("dns://?domain=foo.com&domain=bar.com").begin(foo=ONE)
    for key in ("foo.com", "x.bar.com", "evil.com", "barfoo.com"):
        names.want(key)
    assert set(names.asked) == {"_uwsgi._tcp.foo.com", "_uwsgi._tcp.x.bar.com"}
    assert names.feed.rejected == {"not in the domain": 2}
    assert names.answered == ["foo.com", "x.bar.com", "evil.com", "barfoo.com"]


def test_names_beyond_the_limit_are_refused_and_those_that_are_known_stay() -> None:
    names = Names("dns://?max-names=2").begin(foo=ONE, bar=ONE, baz=ONE)
    for key in ("foo.com", "bar.com", "baz.com"):
        names.want(key)
    assert names.addresses("baz.com") == []
    assert names.feed.rejected == {"too many names": 1}
    assert names.answered == ["foo.com", "bar.com", "baz.com"]
    names.says["_uwsgi._tcp.foo.com"] = NONE
    names.turn(10.1)
    names.want("baz.com")
    assert names.addresses("baz.com") == ["10.0.0.1:3031"]


def test_one_host_has_few_spellings(on_demand: Names) -> None:
    on_demand.begin(foo=ONE, bar=ONE)
    for port in range(20):
        on_demand.want(f"foo.com:{port}")
    assert len(on_demand.dns.names) == dnssrv.SPELLINGS
    assert on_demand.feed.rejected == {"too many spellings": 12}
    on_demand.want("bar.com")
    assert on_demand.addresses("bar.com") == ["10.0.0.1:3031"]
    on_demand.says["_uwsgi._tcp.foo.com"] = NONE
    on_demand.turn(10.1)
    assert on_demand.dns.spellings == {"_uwsgi._tcp.bar.com": 1}
    on_demand.says["_uwsgi._tcp.foo.com"] = ONE
    on_demand.turn(10.1)
    on_demand.want("foo.com:19")
    assert on_demand.addresses("foo.com:19") == ["10.0.0.1:3031"]


def test_a_flood_of_unknown_hosts_is_forgotten(on_demand: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnssrv, "MOST_ABSENT", 50)
    on_demand.begin(foo=ONE).want("foo.com")
    for n in range(200):
        on_demand.says[f"_uwsgi._tcp.h{n}.com"] = (SERVFAIL, NONE)[n % 2]
        on_demand.want(f"h{n}.com")
    assert len(on_demand.dns.absent) == 50
    assert len(on_demand.feed.key_errors) == 25
    assert len(on_demand.dns.due) == 51
    assert on_demand.addresses("foo.com") == ["10.0.0.1:3031"]
    on_demand.turn(8)
    on_demand.turn(3)
    assert (on_demand.dns.absent, on_demand.feed.key_errors) == ({}, {})
    assert len(on_demand.dns.due) == 1
    assert on_demand.asked["_uwsgi._tcp.foo.com"] == 2


def test_newcomers_that_are_slow_hold_up_no_known_name(on_demand: Names) -> None:
    gate = gevent.event.Event()

    def wait() -> Found:
        gate.wait()
        return NONE

    on_demand.begin(foo=ONE).want("foo.com")
    for n in range(NEWCOMERS):
        on_demand.says[f"_uwsgi._tcp.h{n}.com"] = wait
        on_demand.dns.want(on_demand.feed, f"h{n}.com")
    gevent.sleep(0)
    assert on_demand.dns.newcomers.full()
    on_demand.says["_uwsgi._tcp.foo.com"] = TWO
    on_demand.turn(10.1)
    assert on_demand.addresses("foo.com") == ["10.0.0.1:3031", "10.0.0.2:3031"]
    gate.set()
    on_demand.dns.newcomers.join()


def test_that_no_server_answers_is_seen_though_others_are_refused(on_demand: Names) -> None:
    on_demand.begin(foo=SILENCE).want("foo.com")
    on_demand.want("10.0.0.1")
    assert on_demand.feed.error == str(SILENCE)


# The whole of it.


def test_run_answers_the_feed_and_can_be_killed_and_run_again(on_demand: Names) -> None:
    on_demand.says["_uwsgi._tcp.foo.com"] = ONE
    for _ in range(2):
        running = gevent.spawn(on_demand.dns.run, on_demand.feed)
        wait_for(lambda: on_demand.feed.spoken, "it to speak", sleep=gevent.sleep)
        on_demand.feed.asked.put("foo.com")
        wait_for(lambda: on_demand.addresses("foo.com"), "the key to be known", sleep=gevent.sleep)
        running.kill()
    assert on_demand.addresses("foo.com") == ["10.0.0.1:3031"]


def test_a_key_that_was_withdrawn_does_not_come_back_with_the_next_run() -> None:
    names = Names("dns://?keep=5").begin(foo=ONE)
    names.want("foo.com")
    names.turn(10.1)
    names.dns._begin(names.feed)
    names.turn()
    assert (names.addresses("foo.com"), names.dns.names) == ([], {})


def test_a_fault_in_answering_ends_the_run_and_is_not_hidden(on_demand: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand.dns, "want", lambda feed, key: 1 / 0)
    on_demand.feed.asked.put("foo.com")
    with pytest.raises(ZeroDivisionError):
        on_demand.dns.run(on_demand.feed)


def test_without_a_server_in_resolv_conf_it_runs_and_says_so(tmp_path: Path) -> None:
    source = Dns("dns:///_uwsgi._tcp.foo.com", resolv_conf=str(tmp_path / "resolv.conf"))
    feed = Table().feed("dns")
    running = gevent.spawn(source.run, feed)
    wait_for(lambda: feed.error, "it to fail", sleep=gevent.sleep)
    running.kill()
    assert feed.error == "_uwsgi._tcp.foo.com SRV: no server to ask is known"


def test_it_is_installed() -> None:
    for text, name in {
        "dns": "dns",
        "dns://127.0.0.1:5353": "dns@127.0.0.1:5353",
        "dns://ns.lan/?max-names=5": "dns@ns.lan",
        "dns:///_uwsgi._tcp.foo.com": "dns/_uwsgi._tcp.foo.com",
    }.items():
        source = open_source(text).source
        assert isinstance(source, Dns)
        assert source.name == name
        assert source.on_demand is ("foo" not in text)


def test_the_nodes_take_turns_as_the_url_says() -> None:
    names = Names("dns:///_uwsgi._tcp.foo.com?algorithm=iphash")
    names.says["_uwsgi._tcp.foo.com"] = Found((Node("10.0.0.1:1"), Node("10.0.0.2:1")), 10)
    names.dns._begin(names.feed)
    names.turn()
    assert (names.addresses("foo.com"), names.table.pools["foo.com"].algorithm) == (
        ["10.0.0.1:1", "10.0.0.2:1"],
        "iphash",
    )
