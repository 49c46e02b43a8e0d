"""What one source is asked for: keys that clients want and nobody knows, handed out one by one. It keeps no answers."""

from __future__ import annotations

from time import monotonic

from gevent.event import Event


class Asked:
    """Keys in the order in which they were asked for, each once. Several greenlets may take."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}  # that nobody has taken yet
        self._news = Event()

    def put(self, key: str) -> None:
        """The source is asked for this key."""
        self.keys[key] = None
        self._news.set()

    def drop(self, key: str) -> None:
        """Nobody waits for it any more. One that has been taken is ignored."""
        self.keys.pop(key, None)

    def take(self, timeout: float | None = None) -> str | None:
        """The next key. Waits for one; None if none comes within `timeout` seconds."""
        end = None if timeout is None else monotonic() + timeout
        while not self.keys:
            self._news.clear()
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                return None
            self._news.wait(left)
        key = next(iter(self.keys))
        del self.keys[key]
        return key
