"""uWSGI's `use-cache`, its values in a file: `cache:///PATH`, watched as file.py watches any file of nodes."""

from __future__ import annotations

from collections.abc import Callable

from discovery.file import File, Settings
from discovery.mapvalue import parse_items
from discovery.nodes import Pools


class Cache(File):
    """Nodes from a file of uWSGI's cache values, a key a line: KEY ADDRESS[,MODIFIER1[,MODIFIER2]][|ADDRESS...]."""

    form = "cache:///PATH"
    settings = Settings
    kind = "cache"
    parse: Callable[[bytes], Pools] = staticmethod(parse_items)
