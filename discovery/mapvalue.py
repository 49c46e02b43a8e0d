"""What uWSGI's `use-cache` and `use-code-string` give for a key: `ADDRESS[,MODIFIER1[,MODIFIER2]]`. Text in, nodes out.

Several nodes are joined by `|` and take turns. (uWSGI's cache takes them by the hits of the item, so in turn as well, a
retry included.) A file of such values has a line `KEY VALUE` for each key, and reads like any file of nodes (nodes.py).
"""

from __future__ import annotations

from discovery.nodes import Line, Pools, decoded, key_of, parse, words_of
from router.node import Node
from router.static import alike, static_node

MOST = 1000  # nodes of one key


def nodes_of(value: str) -> list[Node]:
    """The nodes that the value names, one at least, else ValueError. One that is named twice has two turns."""
    texts = value.split("|")
    if len(texts) > MOST:
        raise ValueError(f"{len(texts)} nodes, but {MOST} is the limit")
    return alike(map(static_node, texts))


def parse_items(data: bytes) -> Pools:
    """Key → nodes of a file of `KEY VALUE` lines. `Unreadable` names the first wrong line."""
    return parse(data, _item)


def _item(line: bytes) -> Line | None:
    words = words_of(line)
    if not words:
        return None
    if len(words) != 2:
        raise ValueError("a line is KEY VALUE (legal: KEY ADDRESS[,MODIFIER1[,MODIFIER2]][|ADDRESS...])")
    return key_of(words[0]), nodes_of(decoded(words[1]).decode("utf-8", "surrogateescape"))
