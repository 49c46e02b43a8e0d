"""The public keys of those who may announce: DIR/KEY.pem, as uWSGI names these files.

A file is read when its key is first announced and again when it has changed, so keys come, go and are replaced while
the router runs. What cannot be read, or is none, makes its key unknown, and is read again when it has changed, too.
"""

from __future__ import annotations

import logging
import os
import stat
import string
from collections import OrderedDict

from discovery.announcement import AnnouncementError
from discovery.signing import PublicKey, public_key
from router.uwsgi import printable

SAFE = frozenset((string.ascii_letters + string.digits + ".-_").encode())  # bytes; any other becomes _
MOST_KEYS = 10_000  # that are kept read, 20 MB
LARGEST_FILE = 65_536  # bytes; a key has some hundreds

Version = tuple[int, int, int, int]  # inode, size, times of the last change of content and of anything

log = logging.getLogger("gfrouter")


def owner_of(key: str, mountpoints: bool) -> str:
    """The name of the key's file without .pem; with mountpoints the key counts up to its first slash."""
    name = (key.partition("/")[0] if mountpoints else key).encode("utf-8", "surrogateescape")
    return bytes(byte if byte in SAFE else ord("_") for byte in name).decode()


class Keyring:
    """The keys in one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._keys: OrderedDict[str, tuple[Version, PublicKey | None]] = OrderedDict()

    def key_of(self, owner: str) -> PublicKey:
        """The owner's public key, else AnnouncementError."""
        path = f"{self.folder}/{owner}.pem"
        try:
            status = os.stat(path)
            version = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = self._keys.get(owner)
            if known is None or known[0] != version:
                known = version, self._read(path, owner)
                if len(self._keys) >= MOST_KEYS:
                    self._keys.popitem(last=False)
                self._keys[owner] = known
        except OSError as error:
            self._keys.pop(owner, None)
            raise AnnouncementError("no public key", f"{printable(path)}: {error.strerror}") from None
        if known[1] is None:
            raise AnnouncementError("no public key", f"{printable(path)} is no RSA or EC key")
        self._keys.move_to_end(owner)
        return known[1]

    def _read(self, path: str, owner: str) -> PublicKey | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hold us up
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ValueError("no regular file")
                if status.st_size > LARGEST_FILE:
                    raise ValueError(f"a file of {status.st_size} bytes")
                return public_key(os.read(descriptor, LARGEST_FILE))
            finally:
                os.close(descriptor)
        except ValueError as error:
            log.error("unable to load public key for %s (%s: %s)", owner, printable(path), error)
            return None
