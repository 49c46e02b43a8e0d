"""What was accepted last from each signed place, so that nothing that somebody has overheard is accepted again.

A place is a key and an address; whoever holds the private key of its public key file is the place's owner. A signed
datagram carries the second at which it was made, its `unix`. The signature does not cover the command, so one that was
overheard may come back as it was, or an announcement as a farewell, or a farewell as an announcement. Hence:

    an announcement   must be newer than the last announcement of its place. After a farewell it may be one second
                      older than that, as farewells are stamped one second late and a worker that restarts is back
                      within the same one. So of a farewell that was overheard one announcement can be made, of a node
                      that has just left; it falls silent after the tolerance and cannot be said again
    a farewell        must be newer than all that was accepted of its place, and than the start of this process: what
                      was said in the moment before a crash, and not remembered, makes no farewell
    both              no older than the tolerance, which keeps out what is older than our memory, and as little ahead

A count is kept when its node has left, for as long as the tolerance would let an older datagram in. Room is bounded;
where it is used up, the owner with the most places loses its oldest counts, and gets a floor: of its places that have
no count only what is newer than the floor is accepted. So whoever signs for ever new addresses makes nobody else's
datagrams good again, nor those of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Place = tuple[str, str]  # key and address, or vassal where that has no address
Count = tuple[int, int]  # `unix` of the last announcement, and of the last farewell; 0 = none

MOST = 100_000  # places, 20 MB; twice as many as nodes are kept
SHARE = 8  # the part of its counts that an owner loses at once is one in so many


class Replays:
    """The counts of all places. `since`: a farewell must be newer than this, in unix seconds."""

    def __init__(self, since: int, most: int = MOST) -> None:
        self.since = since
        self.most = most
        self._counts: dict[str, dict[Place, Count]] = {}  # by owner
        self._floors: dict[str, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def repeats(self, owner: str, place: Place, subscribe: bool, unix: int) -> bool:
        """Whether this may have been said before."""
        floor = self._floors.get(owner, 0)
        announced, left = self._counts.get(owner, {}).get(place, (floor, floor))
        if subscribe:
            return unix <= announced or unix < left - 1
        return unix <= max(announced, left, self.since)

    def note(self, owner: str, place: Place, subscribe: bool, unix: int) -> None:
        """This was accepted."""
        counts = self._counts.setdefault(owner, {})
        if place not in counts:
            if self._size >= self.most:
                self._make_room()
                counts = self._counts.setdefault(owner, {})
            self._size += 1
            floor = self._floors.get(owner, 0)
            counts[place] = (floor, floor)
        announced, left = counts[place]
        counts[place] = (unix, left) if subscribe else (announced, unix)

    def forget(self, before: int) -> None:
        """Drop the counts of the owner whose turn it is that are older than `before`, in unix seconds."""
        owner = next(iter(self._counts), None)
        if owner is None:
            return
        counts = self._counts.pop(owner)
        kept = {place: count for place, count in counts.items() if max(count) >= before}
        self._size -= len(counts) - len(kept)
        if kept:
            self._counts[owner] = kept  # as the last one
        elif self._floors.get(owner, 0) < before:
            self._floors.pop(owner, None)

    def remember(self, before: int) -> dict[str, Any]:
        """What `recall` takes, JSON-able: all that is not older than `before`."""
        return {
            "unix": [
                [owner, *place, *count]
                for owner, counts in self._counts.items()
                for place, count in counts.items()
                if max(count) >= before
            ],
            "floors": [[owner, floor] for owner, floor in self._floors.items() if floor >= before],
        }

    def recall(self, memory: object, latest: int) -> None:
        """What was remembered before the start. Garbage is ignored, and what is newer than `latest` is garbage."""
        for row in _rows(memory, "floors"):
            match row:
                case [str(owner), int(floor)] if 0 <= floor <= latest:
                    self._floors[owner] = max(floor, self._floors.get(owner, 0))
        for row in _rows(memory, "unix"):
            match row:
                case [str(owner), str(key), str(address), int(announced), int(left)] if (
                    0 <= announced <= latest and 0 <= left <= latest
                ):
                    self.note(owner, (key, address), True, announced)
                    self.note(owner, (key, address), False, left)

    def _make_room(self) -> None:
        owner = max(self._counts, key=lambda owner: len(self._counts[owner]))
        counts = self._counts[owner]
        oldest = sorted(counts, key=lambda place: max(counts[place]))[: max(1, len(counts) // SHARE)]
        floor = max(max(counts.pop(place)) for place in oldest)
        self._floors[owner] = max(floor, self._floors.get(owner, 0))
        self._size -= len(oldest)
        if not counts:
            del self._counts[owner]


def _rows(memory: object, name: str) -> Iterator[object]:
    rows = memory.get(name) if isinstance(memory, dict) else None
    return iter(rows if isinstance(rows, list) else ())
