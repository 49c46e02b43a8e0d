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
# Of a line of /proc/net/unix before the path: proc_pid_net(5). A listener is unconnected (SS_UNCONNECTED).
UNIX_FIELDS, UNIX_STATE, UNCONNECTED = 7, 5, "01"


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


def connections(path: str) -> int:
    """Those at the unix socket `path`: accepted and not closed, or waiting for it."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(maxsplit=UNIX_FIELDS) for line in file]
    except OSError:
        return 0
    return sum(fields[UNIX_FIELDS:] == [path] and fields[UNIX_STATE] != UNCONNECTED for fields in lines)
