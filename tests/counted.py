"""gfrouter, and beside it a socket that tells how much its supervisor holds, to be executed before a router's command:

    counted.py SOCKET PYTHON -P -m router OPTION ...

Each connection to SOCKET, a path, is answered with JSON: greenlets, threads, descriptors, resident KiB.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402

SOCKET, OPTIONS = sys.argv[1], sys.argv[sys.argv.index("router") + 1 :]
sys.argv[1:] = OPTIONS

import gevent  # noqa: E402
from greenlet import greenlet  # noqa: E402

from router import net  # noqa: E402
from router.__main__ import run  # noqa: E402


def held() -> dict[str, int]:
    gc.collect()
    resident = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert resident
    return {
        "greenlets": sum(issubclass(type(thing), greenlet) and not thing.dead for thing in gc.get_objects()),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "resident": int(resident[1]),
    }


def serve() -> None:
    listener = net.bind(SOCKET)
    listener.setblocking(True)
    while True:
        client, _ = listener.accept()
        with client:
            client.sendall(json.dumps(held()).encode())


gevent.spawn(serve)
run()
