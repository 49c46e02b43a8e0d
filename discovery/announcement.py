"""What a uWSGI worker says of itself in one datagram. No I/O: bytes to an Announcement or AnnouncementError, and back.

Strategy: a datagram is a uwsgi packet whose vars are the fields. It is taken whole or not at all, more
strictly than uWSGI itself does, which makes garbage of what is no number and opens pools without a name. Each
error carries a short reason to count by, and a text with the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.algorithmname import LONGEST_ALGORITHM
from router.node import Node
from router.uwsgi import HEADER, PacketError, build, iter_vars

LARGEST_DATAGRAM = 4096  # bytes; uWSGI reads no more, so a longer one would be cut somewhere in its vars
LARGEST_NAME = 255  # bytes of a key, an address or a vassal; uWSGI keeps their lengths in a byte
MODIFIERS1 = (224, 0)  # of the header: what uWSGI's workers send, and what simple scripts do
SUBSCRIBE, UNSUBSCRIBE = 0, 1  # modifier2 of the header: 0 subscribes, anything else does not
LARGEST_BYTE = 2**8 - 1  # modifiers, as the packet's header has them
LARGEST_INT = 2**31 - 1  # weight and backup: workers read theirs as a C int
LARGEST_COUNT = 2**64 - 1  # cores, load, unix: uWSGI's uint64_t
DIGITS = 20  # of the largest count; more are not converted


class AnnouncementError(ValueError):
    """A datagram that is dropped. `reason` is one of a few fixed texts to count by; str() has the numbers."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one datagram says. Numbers as sent (a weight of 0, too), "" and 0 for what it does not say.

    `unix` (seconds) and `sign` stand only in signed ones. `notify` and `sni_*` are paths over there.
    """

    subscribe: bool
    key: str
    address: str = ""
    modifier1: int = 0
    modifier2: int = 0
    cores: int = 0
    load: int = 0
    weight: int = 0
    backup: int = 0
    proto: str = ""
    algo: str = ""
    unix: int = 0
    sign: bytes = b""
    notify: str = ""
    sni_key: str = ""
    sni_crt: str = ""
    sni_ca: str = ""
    vassal: str = ""
    routers: str = ""  # ours alone: who is on the way to a worker, first who says this; a worker has none
    clear: bool = False

    def node(self, heard: float, sender: tuple[int, int, int] = (0, 0, 0)) -> Node:
        """The node that it describes; `heard` in unix seconds, `sender` are pid, uid and gid."""
        return Node(
            self.address,
            weight=max(1, self.weight),
            backup=self.backup,
            modifier1=self.modifier1,
            modifier2=self.modifier2,
            proto=self.proto[:1],  # one character, says uWSGI, and shows no more
            vassal=self.vassal,
            via=self.routers,
            algorithm=self.algo[:LONGEST_ALGORITHM],
            sni=bool(self.sni_key and self.sni_crt),
            cores=self.cores,
            load=self.load,
            last_check=heard,
            pid=sender[0],
            uid=sender[1],
            gid=sender[2],
        )


def parse_announcement(datagram: bytes) -> Announcement:
    """What `datagram` says, or AnnouncementError.

    Its length counts, not its datasize. Unknown fields are ignored. Of a field that stands there twice the
    last one counts, as for uWSGI. Signatures are kept, not verified.
    """
    if len(datagram) > LARGEST_DATAGRAM:
        raise AnnouncementError("oversized datagram", f"more than {LARGEST_DATAGRAM} bytes")
    if len(datagram) < HEADER:
        raise AnnouncementError("malformed packet", f"a datagram of length {len(datagram)}, expected {HEADER} or more")
    if datagram[0] not in MODIFIERS1:
        raise AnnouncementError("bad modifier1", f"modifier1 {datagram[0]}, expected 224 or 0")
    try:
        fields = dict(iter_vars(datagram, len(datagram)))
    except PacketError as error:
        raise AnnouncementError("malformed packet", str(error)) from None
    key = _name(fields, "key", "bad key")
    if not key:
        raise AnnouncementError("bad key", "no key")
    return Announcement(
        subscribe=datagram[3] == SUBSCRIBE,
        key=key,
        address=_name(fields, "address", "bad node address"),
        modifier1=_number(fields, "modifier1", LARGEST_BYTE),
        modifier2=_number(fields, "modifier2", LARGEST_BYTE),
        cores=_number(fields, "cores", LARGEST_COUNT),
        load=_number(fields, "load", LARGEST_COUNT),
        weight=_number(fields, "weight", LARGEST_INT),
        backup=_number(fields, "backup", LARGEST_INT),
        proto=_text(fields, "proto"),
        algo=_text(fields, "algo"),
        unix=_number(fields, "unix", LARGEST_COUNT),
        sign=fields.get(b"sign", b""),
        notify=_text(fields, "notify"),
        sni_key=_text(fields, "sni_key"),
        sni_crt=_text(fields, "sni_crt"),
        sni_ca=_text(fields, "sni_ca"),
        vassal=_name(fields, "vassal", "bad vassal"),
        routers=_name(fields, "routers", "bad routers"),
        clear=_number(fields, "clear", LARGEST_COUNT) > 0,
    )


def build_announcement(said: Announcement) -> bytes:
    """The datagram that says so, with the fields that we send, in the order in which uWSGI has them."""
    fields: dict[str, object] = {
        "key": said.key,
        "address": said.address,
        "modifier1": said.modifier1,
        "modifier2": said.modifier2,
        "cores": said.cores,
        "load": said.load,
        "weight": said.weight,
    }
    if said.backup:  # not known before uWSGI 2.1
        fields["backup"] = said.backup
    if said.routers:
        fields["routers"] = said.routers
    vars = [(name.encode(), str(value).encode("utf-8", "surrogateescape")) for name, value in fields.items()]
    return build(vars, MODIFIERS1[0], SUBSCRIBE if said.subscribe else UNSUBSCRIBE)


def _text(fields: Mapping[bytes, bytes], field: str) -> str:
    return fields.get(field.encode(), b"").decode("utf-8", "surrogateescape")


def _name(fields: Mapping[bytes, bytes], field: str, reason: str) -> str:
    """A text that uWSGI keeps with a length of one byte."""
    size = len(fields.get(field.encode(), b""))
    if size > LARGEST_NAME:
        raise AnnouncementError(reason, f"{field} of {size} bytes, at most {LARGEST_NAME}")
    return _text(fields, field)


def _number(fields: Mapping[bytes, bytes], field: str, largest: int) -> int:
    digits = fields.get(field.encode())
    if digits is None:
        return 0
    if not digits.isdigit():
        raise AnnouncementError("bad number", f"{field} {digits[:DIGITS]!r} is not a number")
    if len(digits) > DIGITS or int(digits) > largest:
        raise AnnouncementError("bad number", f"{field} {digits[: DIGITS + 1].decode()} is over {largest}")
    return int(digits)
