"""How many announcements a sender may have heard: token buckets, and a filter in the kernel for those who flood.

A sender is a socket (address and port), and its host is one as well, with HOST_FACTOR times the quota: a loop in a
script costs nobody else on its machine a word, and one that changes its port each time is stopped all the same. An IPv6
host may have 2**64 addresses, so its network has a quota as well; but as others live there it is never blocked.

Reading a datagram only to drop it costs 3 to 7 µs, and while a flood fills the socket's buffer the kernel drops what
others say. So who goes on when its quota is spent is blocked by a classic BPF filter on the socket (SO_ATTACH_FILTER,
which needs no privilege): its datagrams cost us nothing then and take no room. That ends after BLOCK_S; for a socket it
lasts twice as long each time that its flood goes on. Where the kernel refuses filters, dropping by hand remains.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass

# Times the quota of one socket, as a host has many workers. At the default quota and tolerance a host that floods from
# ever new ports keeps HOST_FACTOR * BURST_S * 1,000 * 17 / BLOCK_S = 14,000 nodes alive, a quarter of what is kept.
HOST_FACTOR = 4
NETWORK_FACTOR = 16  # the same for a /64 of IPv6
BURST_S = 1.0  # a quiet sender has saved up so many seconds' worth: a machine that starts announces all it has at once
PATIENCE_S = (
    0.25  # so many seconds' worth beyond that, within a second, are a flood: what is sent by mistake ends sooner
)
BLOCK_S = 5.0  # what a sender is not heard for the first time; shorter than the 17 s after which its nodes leave
LONGEST_BLOCK_S = 60.0  # and the last; who does not flood for as long begins anew
MOST_SENDERS = 10_000  # whose buckets are kept, 2 MB
MOST_BLOCKED = 40  # a filter that is longer costs every sender more than a microsecond

SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_MEMINFO = 26, 27, 55  # socket(7); the socket module has no names for them
MEMINFO_WORDS, MEMINFO_DROPS = 9, 8  # SK_MEMINFO_VARS, SK_MEMINFO_DROPS: what never reached the buffer

# The filter's instructions, as in linux/filter.h; NETWORK is SKF_NET_OFF, where the IP header begins. What is loaded
# without it counts from the UDP header, which begins with the port of the sender.
LOAD_WORD, LOAD_HALF, LOAD_BYTE, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x28, 0x30, 0x54, 0x15, 0x06
NETWORK = 0xFFF00000
WHOLE, NOTHING = 0xFFFFFFFF, 0

NETWORK_PORT = -1

Sender = tuple[str, int]  # numeric host, and port; 0 = all of the host, NETWORK_PORT = all of its network


@dataclass(slots=True)
class Bucket:
    """What one sender has saved up; `over` counts what came beyond it since the time `since`.

    `blocks`: how often it was blocked, which is forgotten at `forgiven`. Times in seconds.
    """

    tokens: float
    filled: float
    over: int = 0
    since: float = 0.0
    blocks: int = 0
    forgiven: float = 0.0


class Quota:
    """Says of each datagram whether its sender may have it heard. `rate` in datagrams a second; 0 = no quota.

    `sock` is the datagram socket whose filter is ours. Times are the caller's monotonic seconds.
    """

    def __init__(self, sock: socket.socket, rate: int) -> None:
        self.sock = sock
        self.rate = rate
        self.buckets: OrderedDict[Sender, Bucket] = OrderedDict()
        self.blocked: dict[Sender, float] = {}  # until when
        self._flooding: dict[Sender, None] = {}  # since the last look
        self._set_filter()  # an inherited socket may have one from before a restart
        self._drops = self._kernel_drops()

    def admits(self, host: str, port: int, now: float) -> bool:
        """Whether this one is within the quota of its socket and its host. An empty host (a unix socket) has none."""
        if not self.rate or not host:
            return True
        return (
            self._take((host, port), self.rate, now)
            and self._take((host, 0), self.rate * HOST_FACTOR, now)
            and (":" not in host or self._take((_network(host), NETWORK_PORT), self.rate * NETWORK_FACTOR, now))
        )

    def _take(self, sender: Sender, rate: int, now: float) -> bool:
        bucket = self.buckets.get(sender)
        if bucket is None:
            if len(self.buckets) >= MOST_SENDERS:
                self.buckets.popitem(last=False)
            bucket = self.buckets[sender] = Bucket(rate * BURST_S, now)
        else:
            self.buckets.move_to_end(sender)  # one in use, as a host's, outlives those of its thousands of ports
        bucket.tokens = min(bucket.tokens + (now - bucket.filled) * rate, rate * BURST_S)
        bucket.filled = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return True
        if now - bucket.since >= 1.0:
            bucket.since, bucket.over = now, 0
        bucket.over += 1
        if bucket.over > rate * PATIENCE_S and sender[1] != NETWORK_PORT:
            self._flooding[sender] = None
        return False

    def flooders(self, now: float) -> list[Sender]:
        """Block those who flood and are not blocked yet, and give them; let go of those whose time is over."""
        over = [sender for sender, until in self.blocked.items() if until <= now]
        for sender in over:
            del self.blocked[sender]
        new = [sender for sender in self._flooding if sender not in self.blocked][: MOST_BLOCKED - len(self.blocked)]
        self._flooding.clear()
        for sender in new:
            self.blocked[sender] = now + self._sentence(sender, now)
        if new or over:
            self._set_filter()
        return new

    def _sentence(self, sender: Sender, now: float) -> float:
        """For how long this one is to be blocked, in seconds."""
        bucket = self.buckets[sender]  # it has just been used, so nobody has taken its place
        if now >= bucket.forgiven:
            bucket.blocks = 0
        # A host's other senders, whom the block hits as well, are heard again soon after its flood has ended.
        seconds = min(BLOCK_S * 2**bucket.blocks, LONGEST_BLOCK_S) if sender[1] else BLOCK_S
        bucket.blocks += 1
        bucket.forgiven = now + seconds + LONGEST_BLOCK_S
        return seconds

    def dropped(self) -> int:
        """Datagrams that the kernel has dropped since the last call, by the filter or as the buffer was full."""
        before, self._drops = self._drops, self._kernel_drops()
        return (self._drops - before) & WHOLE

    def _set_filter(self) -> None:
        code = b"".join(map(_drop, self.blocked)) + _instruction(RETURN, WHOLE)
        instructions = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
        try:
            if self.blocked:
                self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            else:
                self.sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        except OSError:  # a kernel without filters: what is over the quota is read and dropped
            return

    def _kernel_drops(self) -> int:
        try:
            meminfo = self.sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * MEMINFO_WORDS)
            return int(struct.unpack(f"@{MEMINFO_WORDS}I", meminfo)[MEMINFO_DROPS])
        except (OSError, struct.error):  # a kernel that does not tell
            return 0


def _network(host: str) -> str:
    """The first address of the /64 that an IPv6 host is in."""
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)[:8] + bytes(8))


def _drop(sender: Sender) -> bytes:
    """The part of a filter that drops what this sender sends, and falls through for all others."""
    host, port = sender
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    version, source_at = (0x60, 8) if len(packed) == 16 else (0x40, 12)
    loads = [
        (LOAD_WORD, NETWORK + source_at + at, int.from_bytes(packed[at : at + 4])) for at in range(0, len(packed), 4)
    ]
    if port:
        loads.append((LOAD_HALF, 0, port))
    steps = [(LOAD_BYTE, NETWORK), (AND, 0xF0), (JUMP_IF_EQUAL, version)]
    for load, at, value in loads:
        steps += [(load, at), (JUMP_IF_EQUAL, value)]
    steps.append((RETURN, NOTHING))
    # A comparison that fails leads behind the RETURN.
    return b"".join(
        _instruction(code, operand, len(steps) - 1 - index if code == JUMP_IF_EQUAL else 0)
        for index, (code, operand) in enumerate(steps)
    )


def _instruction(code: int, operand: int, otherwise: int = 0) -> bytes:
    """One struct sock_filter: code, jump if true (never), jump if false, operand."""
    return struct.pack("@HBBI", code, 0, otherwise, operand)
