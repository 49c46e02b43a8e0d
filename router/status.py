"""`gfrouter status` and `gfrouter lookup KEY`: what a gfrouter that runs says of itself."""

from __future__ import annotations

import json

from router.ask import answered, arguments, ask
from router.pages import lookup_page, status_page

UNKNOWN_KEY = 1  # the exit status of a lookup


def status(argv: list[str]) -> int:
    """Say how the gfrouter that runs is doing, and what its sources say."""
    options = arguments("status", status.__doc__).parse_args(argv)

    def tell() -> int:
        said = ask(options.admin, "status")
        if options.json:
            print(json.dumps(said, indent=2))
        else:
            out = ask(options.admin, "nodes", {"state": "out"})["nodes"] if said["out"] else []
            print("\n".join(status_page(said, out)))
        return 0

    return answered(tell)


def lookup(argv: list[str]) -> int:
    """Say where a request for KEY goes, and why; 1 where no source knows it."""
    parser = arguments("lookup", lookup.__doc__)
    parser.add_argument("key", metavar="KEY", help="as in the request: usually the Host header")
    options = parser.parse_args(argv)

    def tell() -> int:
        said = ask(options.admin, "lookup", {"key": options.key})
        print(json.dumps(said, indent=2) if options.json else "\n".join(lookup_page(said)))
        return 0 if said["nodes"] else UNKNOWN_KEY

    return answered(tell)
