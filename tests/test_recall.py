"""What each source does with the nodes from before the start, and with what it remembers of them.

They are served at once and stale until the source speaks; who is confirmed stays without a gap, who is denied goes, and
a side that does not answer takes nobody away. Consul before an agent: test_consul.py; etcd: test_etcdchannel.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from announced import NODE, UNSUBSCRIBE, Announced, packet
from discovery import subscription
from discovery.consul import Consul
from discovery.consulentry import Instances
from discovery.file import File
from moves import Moves
from router.feed import Feed
from router.node import Node
from router.saved import restore, save
from router.source import Recalling
from router.sourcestate import Watched
from router.table import Table
from servers import free_address
from test_dnssrv import NONE, ONE, SERVFAIL, SILENCE, TWO, Names
from test_file import at_once

WALL = 1_700_000_000.0
ONES, TWOS = ["10.0.0.1:3031"], ["10.0.0.1:3031", "10.0.0.2:3031"]
OTHER = "10.0.0.6:3031"


def restart(
    old: Feed, source: Any, new: Feed, fresh: Any, change: Callable[[Any], Any] = lambda memory: memory
) -> Moves:
    """What `source` and its feed leave behind goes to `fresh` and its own; `change` is for what was remembered."""
    before, after = Watched(source, old), Watched(fresh, new)
    before.name = after.name = "it"
    saved = json.loads(json.dumps(save(old._table, [before], now=0, wall=WALL)))
    saved["sources"]["it"]["memory"] = change(saved["sources"]["it"]["memory"])
    result = restore(saved, new._table, [after], now=0, wall=WALL + 60)
    assert (result.dropped, result.nodes) == (0, old.size)
    assert new.stale_since is not None and not new.spoken
    return Moves(new._table)


# Announcements.


def restarted(before: Announced, after: Announced, change: Callable[[Any], Any] = lambda memory: memory) -> Moves:
    return restart(before.feed, before.source, after.feed, after.source, change)


def test_who_announces_itself_again_stays_and_who_does_not_falls_due() -> None:
    with Announced() as before, Announced() as after:
        before.take(packet(), packet(address=OTHER))
        moves = restarted(before, after)
        assert after.addresses() == [NODE, OTHER]
        after.idle(10)
        assert after.feed.stale_since is not None
        after.take(packet())
        assert after.feed.stale_since is None
        after.idle(7)
        assert after.addresses() == [NODE, OTHER]
        after.idle(1)
        assert after.addresses() == [NODE]
        assert (moves.joined, moves.left) == ([], [f"foo.com {OTHER}"])


def test_the_tolerance_begins_at_the_start_and_not_when_the_source_was_made() -> None:
    with Announced() as before, Announced() as after:
        before.take(packet())
        after.now += 100  # the start took long
        restarted(before, after)
        after.idle(17)
        assert after.addresses() == [NODE]
        after.idle(1)
        assert after.addresses() == []


def test_who_was_served_before_the_start_can_say_goodbye() -> None:
    with Announced() as before, Announced() as after:
        before.take(packet(), packet(address=OTHER))
        moves = restarted(before, after)
        after.take(packet(UNSUBSCRIBE))
        assert (after.addresses(), moves.left) == ([OTHER], [f"foo.com {NODE}"])


def test_a_vassal_is_known_by_its_name() -> None:
    with Announced() as before, Announced() as after:
        before.take(packet(vassal="app.ini"))
        moves = restarted(before, after)
        after.take(packet(vassal="app.ini", address=b""))
        assert after.feed.stale_since is None and not after.source._inactive
        after.take(packet(vassal="app.ini", address=OTHER))
        assert (after.addresses(), moves.left) == ([OTHER], [f"foo.com {NODE}"])


def test_a_sender_gets_no_room_for_more_host_names_by_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "NAMES", 2)
    names = [packet(address=f"{name}.lan:3031") for name in "abc"]
    with Announced() as before, Announced() as after:
        before.take(*names)
        restarted(before, after)
        after.take(*names)
        assert after.feed.rejected == {"too many host names": 1}
        after.idle(18)
        after.take(names[2])
        assert list(after.feed.slices["foo.com"]) == ["c.lan:3031"]
        assert after.source._names == {"127.0.0.1": 1}


# DNS.


def named(url: str, before: Names) -> tuple[Names, Moves]:
    after = Names(url)
    return after, restart(before.feed, before.dns, after.feed, after.dns)


WATCHED = "dns:///_uwsgi._tcp.foo.com,_uwsgi._tcp.bar.com"


def test_a_watched_name_keeps_its_nodes_until_it_is_answered_itself() -> None:
    after, moves = named(WATCHED, Names(WATCHED).begin(foo=TWO, bar=TWO))
    after.begin(foo=SILENCE, bar=SILENCE)
    assert after.feed.stale_since is not None and moves.left == []
    after.says = {"_uwsgi._tcp.foo.com": ONE, "_uwsgi._tcp.bar.com": SERVFAIL}
    after.turn(60)
    assert (after.addresses("foo.com"), after.addresses("bar.com")) == (ONES, TWOS)
    assert after.feed.stale_since is None and not after.feed.spoken
    after.says["_uwsgi._tcp.bar.com"] = NONE
    after.turn(60)
    assert (after.addresses("foo.com"), after.addresses("bar.com")) == (ONES, [])
    assert after.feed.spoken and moves.joined == []


def test_the_log_says_how_many_nodes_are_kept_of_a_name_that_fails_from_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    after, _ = named(WATCHED, Names(WATCHED).begin(foo=TWO, bar=ONE))
    after.begin(foo=SERVFAIL, bar=ONE)
    assert caplog.messages == [f"{after.dns.name}: {SERVFAIL}; of foo.com nodes are kept: 2"]


def test_a_name_that_is_watched_no_more_goes_with_the_first_answer() -> None:
    after, moves = named("dns:///_uwsgi._tcp.foo.com,_uwsgi._tcp.new.com", Names(WATCHED).begin(foo=ONE, bar=ONE))
    after.begin(foo=SILENCE, new=SILENCE)
    assert (after.addresses("bar.com"), moves.left) == (ONES, [])
    after.says = {"_uwsgi._tcp.foo.com": ONE, "_uwsgi._tcp.new.com": SERVFAIL}
    after.turn(60)
    assert (after.addresses("foo.com"), after.addresses("bar.com"), moves.joined) == (ONES, [], [])


def on_demand(url: str = "dns://") -> Names:
    names = Names(url).begin(foo=TWO, bar=TWO)
    names.want("foo.com")
    names.want("bar.com")
    return names


def test_on_demand_a_key_keeps_its_nodes_until_it_is_answered_itself() -> None:
    after, moves = named("dns://", on_demand())
    after.begin(foo=SILENCE, bar=SILENCE)
    assert after.feed.stale_since is not None and (moves.joined, moves.left) == ([], [])
    after.says = {"_uwsgi._tcp.foo.com": ONE, "_uwsgi._tcp.bar.com": SERVFAIL, "_uwsgi._tcp.new.com": TWO}
    after.want("new.com")
    after.turn(60)
    assert [after.addresses(f"{host}.com") for host in ("foo", "bar", "new")] == [ONES, TWOS, TWOS]
    assert after.feed.stale_since is None and not after.feed.spoken
    after.says["_uwsgi._tcp.bar.com"] = NONE
    after.turn(60)
    assert [after.addresses(f"{host}.com") for host in ("foo", "bar", "new")] == [ONES, [], TWOS]
    assert after.feed.spoken and list(after.dns.names) == ["foo.com", "new.com"]
    assert after.dns.spellings == {"_uwsgi._tcp.foo.com": 1, "_uwsgi._tcp.new.com": 1}


def test_on_demand_a_key_that_nobody_asks_for_goes_in_the_usual_time() -> None:
    after, moves = named("dns://?keep=25", on_demand("dns://?keep=25"))
    after.begin(foo=TWO, bar=SERVFAIL)
    for _ in range(2):
        after.turn(10.1)
    assert (after.addresses("foo.com"), moves.joined, moves.left) == (TWOS, [], [])
    after.turn(10.1)
    assert (after.addresses("foo.com"), after.addresses("bar.com")) == ([], TWOS)
    after.says["_uwsgi._tcp.bar.com"] = TWO
    after.turn(9)  # of the two, one is out of use and one has just been seen, which makes the picture whole
    assert after.feed.spoken and after.addresses("foo.com") == []
    after.turn(30)
    assert (after.addresses("bar.com"), after.dns.names) == ([], {})


def test_on_demand_keys_that_would_not_be_looked_up_any_more_go() -> None:
    for url in ("dns://?domain=foo.com", "dns://?max-names=1"):
        after, moves = named(url, on_demand())
        after.begin(foo=SILENCE)
        assert moves.left == []
        after.says["_uwsgi._tcp.foo.com"] = TWO
        after.turn(60)
        assert (after.addresses("foo.com"), after.addresses("bar.com"), moves.joined) == (TWOS, [], [])
        assert after.feed.rejected == {}


# Files.


def test_a_file_that_is_just_being_written_empties_nothing(tmp_path: Path) -> None:
    (path := tmp_path / "nodes").touch()
    feeds = [Table().feed("file") for _ in range(2)]
    feeds[0].replace({"foo.com": [Node(address) for address in TWOS]})
    steps = iter(["foo.com", "foo.com 10.0.0.1:3031\n", None])
    stages: list[object] = []

    def sleep(_seconds: float) -> None:
        stages.append((sorted(feeds[1].slices.get("foo.com", ())), feeds[1].stale_since is not None))
        step = next(steps, "end")
        if step == "end":
            raise gevent.GreenletExit
        if step is not None:
            path.write_text(step)

    file = File(f"file://{path}", sleep=sleep, apart=at_once)
    moves = restart(feeds[0], None, feeds[1], file)
    with pytest.raises(gevent.GreenletExit):
        file.run(feeds[1])
    assert stages == [(TWOS, True)] * 3 + [(ONES, False)]
    assert (moves.joined, moves.left) == ([], ["foo.com 10.0.0.2:3031"])


def test_a_file_that_cannot_be_read_keeps_all(tmp_path: Path) -> None:
    feeds = [Table().feed("file") for _ in range(2)]
    feeds[0].replace({"foo.com": [Node(NODE)]})
    file = File(f"file://{tmp_path}/nodes", apart=at_once)
    moves = restart(feeds[0], None, feeds[1], file)
    for _ in range(3):
        file.look(feeds[1])
    assert feeds[1].stale_since is not None and moves.left == []


# Consul.

PLACES = {"foo.com": [Node(NODE), Node(OTHER)], "bar.com": [Node(OTHER)]}


def consul(**known: dict[str, list[Node]]) -> Consul:
    source = Consul(f"consul://{free_address()}", environ={})
    source.known = {service: Instances(pools, frozenset({"n1"})) for service, pools in known.items()}
    return source


def test_consul_remembers_which_service_has_which_node_of_a_key() -> None:
    before = consul(app={"foo.com": [Node(NODE)]}, web={"foo.com": [Node(OTHER)], "bar.com": [Node(OTHER)]}, none={})
    feeds = [Table().feed("consul") for _ in range(2)]
    feeds[0].replace(PLACES)
    after = consul()
    restart(feeds[0], before, feeds[1], after)
    assert {service: known.pools for service, known in after.known.items()} == {
        service: known.pools for service, known in before.known.items() if known.pools
    }
    assert after.remember() == {service: keys for service, keys in before.remember().items() if keys}


def test_an_agent_that_does_not_answer_takes_nobody_away() -> None:
    feed = Table().feed("consul")
    feed.recall(PLACES, WALL)
    after = consul()
    after.recall(feed.slices, None)
    moves = Moves(feed._table)
    with pytest.raises(Exception, match="refused"):
        after.run(feed)
    assert feed.stale_since == WALL and moves.left == []


# Whatever stands there.

SLICES = {"foo.com": {NODE: Node(NODE), "a.lan:1": Node("a.lan:1")}, "": {"x": Node("x", vassal="v")}}
words = st.sampled_from(["named", "foo.com", NODE, "a.lan:1", "", "app", "\ud800"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=15,
)


@given(json_values | st.fixed_dictionaries({"named": st.lists(st.lists(words, min_size=3, max_size=3))}))
def test_garbage_is_dropped_entry_by_entry(memory: object) -> None:
    with Announced() as announced:
        sources: list[Recalling] = [announced.source, consul()]
        for source in sources:
            source.recall(SLICES, memory)
            assert json.loads(json.dumps(source.remember())) is not None
        assert set(announced.source._named) <= {(key, address) for key, nodes in SLICES.items() for address in nodes}
        assert announced.source._names.total() == len(announced.source._named)


def test_the_good_entries_among_the_bad_ones_count() -> None:
    good = ["foo.com", "a.lan:3031", "10.0.0.9"]
    with Announced() as before, Announced() as after:
        before.feed.announce("foo.com", Node("a.lan:3031"))
        restarted(before, after, lambda memory: {"named": [None, [1, 2, 3], [*good, 4], ["x", "y", "z"], good, good]})
        assert after.source._names == {"10.0.0.9": 1}
    source = consul()
    source.recall(SLICES, {"app": {"foo.com": [1, None, [NODE], NODE], "gone.com": [NODE], "": 3}, "web": [], "x": {}})
    assert source.remember() == {"app": {"foo.com": [NODE]}}
