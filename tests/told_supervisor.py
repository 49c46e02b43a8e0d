"""A gfrouter whose sources say what they are told, to be executed by told.py with one word of JSON:

    {"address": where it listens, "stats": where it tells them, "sources": [where each is told], "options": {...},
     "common": [what goes for each source]}

Each connection to a source is one verb and its arguments, as JSON; `said` is the answer.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
from contextlib import suppress  # noqa: E402
from itertools import count  # noqa: E402

import gevent  # noqa: E402

from clients import read_to_end  # noqa: E402
from router import net  # noqa: E402
from router.feed import Feed  # noqa: E402
from router.logs import log, log_to  # noqa: E402
from router.node import Node  # noqa: E402
from router.options import Options  # noqa: E402
from router.sources import Common, Opened  # noqa: E402
from router.supervisor import Supervisor  # noqa: E402


class Told:
    """A source that is told what to say."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.listener = net.bind(address)
        self.listener.setblocking(True)

    def run(self, feed: Feed) -> None:
        while True:
            client, _ = self.listener.accept()
            with client:
                verb, *arguments = json.loads(read_to_end(client))
                if verb == "return":
                    return
                self.say(feed, verb, *arguments)
                client.sendall(b"said")

    def say(self, feed: Feed, verb: str, *arguments: object) -> None:
        match verb, *arguments:
            case "replace", dict(pools):
                feed.replace({key: [Node(address) for address in nodes] for key, nodes in pools.items()})
            case "set", str(key), list(nodes):
                feed.set(key, [Node(address) for address in nodes])
            case "announce", str(key), str(address):
                feed.announce(key, Node(address))
            case "weigh", str(key), str(address), int(weight):
                feed.announce(key, Node(address, weight=weight))
            case "withdraw", str(key), str(address):
                feed.withdraw(key, address)
            case "fail", str(error), *key:
                feed.fail(error, *map(str, key))
            case "progress", *key:
                feed.progress(*map(str, key))
            case "spin", *_:
                spin()
            case "block", *_:
                block()
            case "spawn and spin", *_:
                gevent.spawn(gevent.spawn, spin)
                gevent.sleep(3600)
            case "swallow", *_:
                with suppress(Exception):
                    block()
            case "time out", *_:
                raise gevent.Timeout(1)
            case "storm", int(nodes):
                for round in count():
                    feed.replace({"storm.com": [Node(f"127.1.{n >> 8}.{n & 255}:1") for n in range(nodes)]})
                    gevent.sleep(0)
                    if round == 0:
                        log.info("it storms")
            case _:
                raise ValueError(f"{verb} of {arguments}")


def spin() -> None:
    while True:
        pass


def block() -> None:
    monkey.get_original("time", "sleep")(3600)


def main() -> None:
    what = json.loads(sys.argv[1])
    log_to(sys.stderr)
    told = [Told(f"told-{number}", address) for number, address in enumerate(what["sources"])]
    sources = [Opened(one, Common(**common)) for one, common in zip(told, what["common"], strict=True)]
    listener = net.bind(what["address"], clients_speak_first=True)
    stats = net.bind(what["stats"])
    Supervisor(Options(**what["options"]), [[listener]], sources, stats, [what["address"]], sys.stderr.fileno()).run()


main()
