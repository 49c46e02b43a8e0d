"""A gfrouter whose sources say what they are told, to be executed by test_warming.py with one word of JSON:

    {"address": where it listens, "stats": where it tells them, "sources": [where each is told], "options": {...}}

Each connection to a source is one verb and its arguments, as JSON; `said` is the answer.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402

from clients import read_to_end  # noqa: E402
from router import net  # noqa: E402
from router.feed import Feed  # noqa: E402
from router.logs import log_to  # noqa: E402
from router.node import Node  # noqa: E402
from router.options import Options  # noqa: E402
from router.sources import Common, Opened  # noqa: E402
from router.supervisor import Supervisor  # noqa: E402


class Told:
    """A source that is told what to say."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.listener = net.bind(address)

    def run(self, feed: Feed) -> None:
        while True:
            client, _ = self.listener.accept()
            with client:
                self.say(feed, *json.loads(read_to_end(client)))
                client.sendall(b"said")

    def say(self, feed: Feed, verb: str, *arguments: object) -> None:
        match verb, *arguments:
            case "replace", dict(pools):
                feed.replace({key: [Node(address) for address in nodes] for key, nodes in pools.items()})
            case "set", str(key), list(nodes):
                feed.set(key, [Node(address) for address in nodes])
            case "announce", str(key), str(address):
                feed.announce(key, Node(address))
            case "withdraw", str(key), str(address):
                feed.withdraw(key, address)
            case "fail", str(error):
                feed.fail(error)
            case _:
                raise ValueError(f"{verb} of {arguments}")


def main() -> None:
    what = json.loads(sys.argv[1])
    log_to(sys.stderr)
    sources = [Opened(Told(f"told-{number}", address), Common()) for number, address in enumerate(what["sources"])]
    listener = net.bind(what["address"], clients_speak_first=True)
    stats = net.bind(what["stats"])
    Supervisor(Options(**what["options"]), [[listener]], sources, stats, [what["address"]], sys.stderr.fileno()).run()


main()
