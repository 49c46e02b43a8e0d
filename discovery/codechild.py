"""A process that calls one function of the user's for one key after the other. Executed by codepool.py, never imported.

`python -m discovery.codechild FD FILE FUNCTION SECONDS`. A question on the socket FD is a key's length (u16) and the
key, an answer a mark and a length (u8, u32, network order) and so many bytes; the first answer comes by itself, when
FILE has been read. It ends when the socket does, and by SIGALRM when a call takes SECONDS, so that it outlives nobody
who would have ended it. The standard library alone is used, so that such a process is there at once.
"""

from __future__ import annotations

import inspect
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct
from types import ModuleType
from typing import Any

QUESTION = Struct("!H")
ANSWER = Struct("!BI")
NONE, NODES, RAISED = range(3)  # marks
LONGEST = 65_535  # bytes of an answer
START = 10.0  # seconds in which the user's file is read
LATER = 1.0  # seconds after the time of a call, or of the start, in which we end if nobody has come to kill us

MODULE = "uwsgi_fastrouter"  # what the file's module is called in uWSGI


def main(argv: Sequence[str]) -> None:
    fd, file, name, seconds = argv
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):  # a terminal sends them to all of us
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(int(fd), False)
    with socket.socket(fileno=int(fd)) as sock:
        sock.setblocking(True)
        signal.setitimer(signal.ITIMER_REAL, START + LATER)
        try:
            function = loaded(file, name)
            as_text = wants_text(function)
        except BaseException as error:
            send(sock, RAISED, described(error))
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(sock, NONE, b"")
        while head := receive(sock, QUESTION.size):
            key = receive(sock, *QUESTION.unpack(head))
            signal.setitimer(signal.ITIMER_REAL, float(seconds) + LATER)
            mark, data = called(function, key.decode("utf-8", "surrogateescape") if as_text else key)
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(sock, mark, data)


def loaded(file: str, name: str) -> Callable[[Any], Any]:
    """The function of this name in FILE, a text in Python or the folder of a package, as uWSGI reads it."""
    sys.path.insert(0, ".")
    module = ModuleType(MODULE)
    path = Path(file)
    if path.is_dir():
        module.__path__ = [file]
        path /= "__init__.py"
    module.__file__ = str(path)
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    sys.modules[MODULE] = module
    exec(code, module.__dict__)
    function = getattr(module, name, None)
    if not callable(function):
        raise LookupError(f"no function {name} in {path}")
    return function


def wants_text(function: Callable[[Any], Any]) -> bool:
    """Whether its parameter is annotated as str; uWSGI gives it the key as bytes."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of something built in
        return False
    return bool(parameters) and parameters[0].annotation in (str, "str")


def called(function: Callable[[Any], Any], key: bytes | str) -> tuple[int, bytes]:
    """(mark, data) of the answer."""
    try:
        value = function(key)
    except BaseException as error:  # SystemExit as well: it costs its key alone
        return RAISED, described(error)
    if value is None:
        return NONE, b""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if not isinstance(data, bytes):
        return RAISED, f"gave {type(value).__name__}, neither bytes nor str nor None".encode()
    if len(data) > LONGEST:
        return RAISED, f"gave {len(data)} bytes, but {LONGEST} is the limit".encode()
    return (NODES, data) if data else (NONE, b"")


def described(error: BaseException) -> bytes:
    """`ZeroDivisionError: division by zero (map.py:3)`."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text}{where}".encode("utf-8", "backslashreplace")[:LONGEST]


def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer where the other side has ended."""
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def send(sock: socket.socket, mark: int, data: bytes) -> None:
    sock.sendall(ANSWER.pack(mark, len(data)) + data)


if __name__ == "__main__":
    main(sys.argv[1:])
