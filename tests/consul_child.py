"""A Consul source alone in a patched process, whose feed says on stdout what it hears; for test_consul.py.

    python -P tests/consul_child.py URL REREAD WAIT READ_LIMIT [RECALLED]

RECALLED is [{key: [address, ...]}, memory], what there is from before. Each line that it says is a JSON list:
["replace", {key: [address, ...]}], ["set", key, [address, ...]], ["fail", error, key], ["reject", reason, detail],
["progress", key], ["left", key, [address, ...]]: nodes are gone, ["raised", error, greenlets, descriptors]: the run has
ended, and the next one begins. SIGTERM kills the run, says ["killed", greenlets, descriptors], and ends the process.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterable, Mapping  # noqa: E402

import gevent  # noqa: E402

from discovery import consul, consulagent  # noqa: E402
from discovery.consul import Consul  # noqa: E402
from router.feed import Feed  # noqa: E402
from router.node import Node  # noqa: E402
from router.table import UNLIMITED, Change, Table  # noqa: E402

PAUSE = 0.05  # seconds between two runs


def tell(*words: object) -> None:
    print(json.dumps(words), flush=True)


class TellingFeed(Feed):
    """A feed of a table of its own, which tells each verb before it acts on it."""

    def set(self, key: str, nodes: Iterable[Node]) -> None:
        nodes = list(nodes)
        tell("set", key, [node.address for node in nodes])
        super().set(key, nodes)

    def replace(self, pools: Mapping[str, Iterable[Node]]) -> None:
        pools = {key: list(nodes) for key, nodes in pools.items()}
        tell("replace", {key: [node.address for node in nodes] for key, nodes in pools.items()})
        super().replace(pools)

    def fail(self, error: object, key: str | None = None) -> None:
        tell("fail", str(error), key)
        super().fail(error, key)

    def reject(self, reason: str, detail: str = "", times: int = 1) -> None:
        tell("reject", reason, detail)
        super().reject(reason, detail, times)

    def progress(self, key: str | None = None) -> None:
        if key is not None and sys._getframe(1).f_code.co_name != "_take":  # of `set`
            tell("progress", key)
        super().progress(key)


def left() -> tuple[int, int]:
    """(greenlets that live, open descriptors)"""
    gc.collect()
    living = [one for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.ready()]
    return len(living), len(os.listdir("/proc/self/fd"))


def tell_who_left(change: Change) -> None:
    if change.left:
        tell("left", change.key, [member.node.address for member in change.left])


def main(url: str, reread: float, wait: float, read_limit: float, recalled: str = "[{}, null]") -> None:
    consul.REREAD = reread
    consulagent.READ_LIMIT = read_limit
    source = Consul(url, wait=wait)
    table = Table(on_change=tell_who_left)
    feed = TellingFeed(table, source.name, UNLIMITED, UNLIMITED)
    table.feeds.append(feed)
    pools, memory = json.loads(recalled)
    feed.recall({key: [Node(address) for address in addresses] for key, addresses in pools.items()}, 1.0)
    source.recall(feed.slices, memory)

    def runs() -> None:
        while True:
            try:
                source.run(feed)
            except Exception as error:
                tell("raised", str(error), *left())
            gevent.sleep(PAUSE)

    running = gevent.spawn(runs)
    gevent.signal_handler(signal.SIGTERM, running.kill, block=False)
    running.join()
    tell("killed", *left())


if __name__ == "__main__":
    url, reread, wait, read_limit, *recalled = sys.argv[1:]
    main(url, float(reread), float(wait), float(read_limit), *recalled)
