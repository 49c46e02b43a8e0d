"""etcd as a source: an entry below the prefix is a node, for as long as it is there; a lease is the node's life.

Strategy: list everything as of one revision, then watch from the next one on, so that nothing is missed and nothing is
seen twice. Whatever ends the watch ends the run; the next one lists again. There is no other repair, and a long outage,
a compaction and a restored backup are all the same to it.

Invariants: an entry that cannot be understood is dropped, counted and costs no other one; what is in the feed is what
etcd held at some revision, never a part of a list.
"""

from __future__ import annotations

from typing import Any

from discovery.etcdaccess import Settings, read_access
from discovery.etcdchannel import Members, rpc
from discovery.etcdentry import Entries, EntryError
from router.feed import Feed


class Etcd:
    """Nodes that stand in etcd as PREFIX/KEY/ADDRESS.

    `etcd://` alone means 127.0.0.1:2379 and /gfrouter. ValueError for a URL that is wrong.
    """

    form = "etcd://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...][/PREFIX]"
    settings = Settings

    def __init__(self, url: str) -> None:
        access = read_access(url)
        self.name = access.name
        self._prefix = access.prefix + b"/"
        self._members = Members(access)

    def run(self, feed: Feed) -> None:
        """Follow etcd until killed; EtcdError when it cannot be followed any more."""
        with self._members.connect() as etcd:
            entries = Entries(self._prefix, feed.max_nodes)
            news = 0  # the first revision that the list does not hold
            for page, revision in etcd.pages(self._prefix):
                for one in page:
                    _put(entries, one, feed)
                news = revision + 1
            feed.replace(entries.pools())
            for response in etcd.watch(self._prefix, news):
                _follow(entries, response.events, feed)


def _follow(entries: Entries, events: Any, feed: Feed) -> None:
    """Take in what happened, and tell the feed once of each key that it bears on."""
    touched: dict[str | None, None] = {}
    for event in events:
        deleted = event.type == rpc.kv__pb2.Event.DELETE
        touched[entries.delete(event.kv.key) if deleted else _put(entries, event.kv, feed)] = None
    touched.pop(None, None)
    if not touched:
        feed.progress()
    for key in touched:
        if key is not None:
            feed.set(key, entries.nodes(key))


def _put(entries: Entries, entry: Any, feed: Feed) -> str | None:
    """Take in an entry, or drop it; gives the key on which that bears."""
    try:
        return entries.put(entry.key, entry.value)
    except EntryError as error:
        feed.reject(error.reason, str(error))
        return entries.delete(entry.key)
