"""An example of a source for gfrouter: it reads nodes from a web server, again and again.

What the server answers is one object of JSON, the addresses of each key's nodes:

    {"foo.com": ["10.0.0.5:3031", "10.0.0.6:3031"], "bar.com": ["10.0.0.7:3031"]}

All that a source has to do is here: read its URL, say what it sees, and raise when it cannot see. Waiting longer after
each failure, keeping the nodes meanwhile, merging with the other sources and telling the routers is gfrouter's.
"""

import json
import time
import urllib.request
from dataclasses import dataclass

from router.feed import Feed
from router.node import Node
from router.url import parse_url, read_settings, setting
from router.values import whole

LARGEST_ANSWER = 10_000_000  # bytes; whoever sends more is not the server that was meant


@dataclass(frozen=True)
class Settings:
    """What may stand behind the `?` of the URL: each with its default, its reader, and its line in the list."""

    every: int = setting(5, whole(1, 3600, "seconds"), "SECONDS", "ask so often")
    wait: int = setting(10, whole(1, 600, "seconds"), "SECONDS", "wait so long for the answer")


class JsonUrl:
    """A web server that answers with keys and nodes, as JSON."""

    # For `gfrouter sources`, which shows the line above as well.
    form = "json-url://HOST[:PORT]/PATH"
    settings = Settings

    def __init__(self, url: str) -> None:
        """ValueError for a wrong URL stops the start of gfrouter, with this text."""
        parts = parse_url(url)
        self.options = read_settings(parts, Settings)
        if len(parts.places) != 1:
            raise parts.wrong("one server is needed, as in json-url://10.0.0.9:8000/nodes.json")
        parts.hosts(80)  # says what is wrong with the place
        self.address = f"http://{parts.places[0]}{parts.path or '/'}"
        self.name = f"json-url@{parts.places[0]}"  # in logs, stats and `gfrouter status`

    def run(self, feed: Feed) -> None:
        """Keep the feed current; whatever is raised here is logged, and `run` is called again after a while."""
        while True:
            # Only a whole and legal answer comes to this line. So half of one, or an error, takes no node away.
            feed.replace(self.ask(feed))
            time.sleep(self.options.every)  # gevent's: the process that runs the sources is monkey-patched

    def ask(self, feed: Feed) -> dict[str, list[Node]]:
        with urllib.request.urlopen(self.address, timeout=self.options.wait) as answer:
            body = answer.read(LARGEST_ANSWER + 1)
        if len(body) > LARGEST_ANSWER:
            raise ValueError(f"{self.address} answers with more than {LARGEST_ANSWER} bytes")
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError(f"{self.address} answers with no object of JSON")
        return {key: nodes_of(key, addresses, feed) for key, addresses in said.items()}


def nodes_of(key: str, addresses: object, feed: Feed) -> list[Node]:
    """One malformed entry costs itself alone: it is counted, and the rest of the answer counts.

    Whether an address is one, the feed sees for itself.
    """
    if not isinstance(addresses, list):
        feed.reject("no list of addresses", f"of {key!r}: {addresses!r:.100}")
        return []
    for address in addresses:
        if not isinstance(address, str):
            feed.reject("no address", f"of {key!r}: {address!r:.100}")
    return [Node(address) for address in addresses if isinstance(address, str)]
