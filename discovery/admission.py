"""Who may announce: by the sender's network, by the kernel's word of who sends, by a signature. All of it by option.

An announcement and a farewell are judged alike. Whatever is refused raises AnnouncementError, so it is dropped and
counted by its reason. What costs least is looked at first: a signature is verified for what is not refused without it,
so whoever floods with forged ones costs us 0.1 ms for each of those that the quota lets in.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from discovery import credentials as unix_credentials
from discovery.announcement import Announcement, AnnouncementError
from discovery.credentials import Credentials
from discovery.replays import Replays
from discovery.settings import Settings
from router.uwsgi import printable

LINE_EVERY = 1.0  # seconds between two of uWSGI's lines about what was overheard; all of it is counted
HOSTS = 10_000  # senders of which it is kept whether they may announce

log = logging.getLogger("gfrouter")


class Admission:
    """Judges what came in, by `options`. `wall` gives unix seconds."""

    def __init__(self, options: Settings, wall: Callable[[], float]) -> None:
        self.options = options
        self._wall = wall
        self._line_at = 0.0
        self._replays = Replays(int(wall()))
        self.allows = lru_cache(HOSTS)(self._allows)
        if options.sign_check:
            from discovery import signing  # the package `cryptography` is there for those who sign
            from discovery.keyring import Keyring, owner_of

            digest, folder = signing.split(options.sign_check)
            self._signing, self._owner_of = signing, owner_of
            self._digest, self._keyring = signing.digest_named(digest), Keyring(folder)
        if not options.use_credentials and (options.credentials_check or options.sign_skip_uid):
            log.warning(
                "without subscriptions-use-credentials nobody's are known: %s",
                "nobody may announce" if options.credentials_check else "everybody must sign",
            )

    def _allows(self, host: str) -> bool:
        """Whether this host may announce. An empty one is a unix socket, whose file says who may."""
        allowed = self.options.allow
        return not allowed or not host or any(ip_address(host) in network for network in allowed)

    def judge(self, said: Announcement, datagram: bytes, sender: Credentials | None) -> None:
        """AnnouncementError for what is not to be acted on."""
        options = self.options
        if options.use_credentials and sender is None:
            raise AnnouncementError("no credentials", "the kernel does not say who has sent it")
        if options.credentials_check and not (
            sender and unix_credentials.own(said.key, options.credentials_check, sender)
        ):
            who = f"uid {sender.uid}, gid {sender.gid}" if sender else "nobody known"
            raise AnnouncementError("wrong credentials", f"key {said.key!r} does not belong to {who}")
        if options.sign_check and not (sender and sender.uid in options.sign_skip_uid):
            self._check_signature(said, datagram)

    def _check_signature(self, said: Announcement, datagram: bytes) -> None:
        if not said.sign:
            raise AnnouncementError("not signed", f"key {said.key!r}")
        signed = self._signing.signed_part(datagram, said.sign)
        if signed is None:
            raise AnnouncementError("bad signature", "sign is not the last field")
        now, tolerance = int(self._wall()), self.options.sign_check_tolerance
        owner, place = self._owner_of(said.key, self.options.mountpoints), (said.key, said.address or said.vassal)
        if said.unix < now - tolerance:
            raise self._overheard(said, "too old", f"{now - said.unix} s, and {tolerance} are tolerated")
        if said.unix > now + max(tolerance, 1):  # a farewell is stamped one second ahead
            raise self._overheard(said, "from the future", f"{said.unix - now} s, and {tolerance} are tolerated")
        if self._replays.repeats(owner, place, said.subscribe, said.unix):
            raise self._overheard(said, "said before", f"key {said.key!r}, {said.address!r}, unix {said.unix}")
        if not self._signing.verify(signed, said.sign, self._digest, self._keyring.key_of(owner)):
            raise AnnouncementError("bad signature", f"key {said.key!r}")
        self._replays.note(owner, place, said.subscribe, said.unix)

    def _overheard(self, said: Announcement, reason: str, text: str) -> AnnouncementError:
        """The error to raise, after uWSGI's own line."""
        now = self._wall()
        if not 0 <= now - self._line_at < LINE_EVERY:
            self._line_at = now
            log.warning(
                "[uwsgi-subscription for pid %d] invalid (sniffed ?) packet sent for slot: %s node: %s unix_check: %d",
                *(os.getpid(), printable(said.key), printable(said.address), said.unix),
            )
        return AnnouncementError(reason, text)

    def tidy(self) -> None:
        """Forget a part of what need not be known any more; to be called now and then."""
        self._replays.forget(self._oldest())

    def remember(self) -> dict[str, Any]:
        return self._replays.remember(self._oldest())

    def recall(self, memory: object) -> None:
        now = int(self._wall())
        self._replays.recall(memory, now + max(self.options.sign_check_tolerance, 1))

    def _oldest(self) -> int:
        """What is older than this is refused by its age."""
        return int(self._wall()) - self.options.sign_check_tolerance
