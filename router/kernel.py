"""What the kernel tells of a process and of a listening socket, for the stats; zeros where it does not tell."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGESIZE")
MICROSECONDS_A_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")

# In /proc/PID/stat after the command's name, which may hold anything: fields 14, 15, 23 and 24 of proc_pid_stat(5).
USER, SYSTEM, VIRTUAL, RESIDENT = 11, 12, 20, 21
# struct tcp_info: 8 bytes of flags, four u32, then what on a listening socket is the length of its queue.
UNACKED = struct.Struct("24xI")


class Usage(NamedTuple):
    """What a process takes: `rss` and `vsz` in bytes, `running_time` in microseconds of CPU."""

    rss: int = 0
    vsz: int = 0
    running_time: int = 0


def usage(pid: int) -> Usage:
    """Of a process that may have ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return Usage()
    ticks = int(fields[USER]) + int(fields[SYSTEM])
    return Usage(int(fields[RESIDENT]) * PAGE, int(fields[VIRTUAL]), ticks * MICROSECONDS_A_TICK)


def listen_queue(listener: socket.socket) -> int:
    """Connections that wait to be accepted, on TCP; of unix sockets, and of one that is closed, it is not known."""
    try:
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            return 0
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, UNACKED.size)
    except OSError:
        return 0
    return int(UNACKED.unpack(info)[0])
