"""Where the admin API is when nobody says it: one unix socket a user, for the router and for those who ask it.
The private socket of a worker beside the router is in the same folder, with the worker's ini; where that cannot be had,
in the last of these:

    /run/gfrouter/admin.sock                 root's
    $XDG_RUNTIME_DIR/gfrouter/admin.sock     anybody else's, where a session has such a folder
    /tmp/gfrouter-UID/admin.sock             else

Its folder is the user's own, and nobody else can write there: in /tmp a stranger may have made one of that name before.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

RUN = "/run/gfrouter"
VARIABLE = "XDG_RUNTIME_DIR"
NAME = "admin.sock"
WORKER = re.compile(r"worker-[0-9]+\.sock")
FOLDER_MODE = 0o700
SOCKET_MODE = 0o600  # whatever chmod-socket says of those that web servers connect to


def default_place(environ: Mapping[str, str], uid: int) -> str:
    """The path of this user's socket."""
    runtime = environ.get(VARIABLE, "")
    if uid == 0:
        folder = RUN
    elif runtime.startswith("/"):
        folder = os.path.join(runtime, "gfrouter")
    else:
        folder = f"/tmp/gfrouter-{uid}"
    return os.path.join(folder, NAME)


def make_folder(folder: str, uid: int) -> None:
    """Make it where it is missing, and check it. ValueError for one that cannot be made, or that is not our own."""
    try:
        os.mkdir(folder, FOLDER_MODE)
        if uid != os.geteuid():  # who is root yet makes it for the user that is to be become
            os.chown(folder, uid, -1, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from None
    check_folder(folder, uid)


def private_place(environ: Mapping[str, str], uid: int, pid: int) -> str:
    """Where gfrouter `pid` has its worker's private socket; the folder is there. ValueError where none can be had."""
    folder = os.path.dirname(default_place(environ, uid))
    try:
        make_folder(folder, uid)
    except ValueError:
        folder = f"/tmp/gfrouter-{uid}"
        make_folder(folder, uid)
    return os.path.join(folder, f"worker-{pid}.sock")


def ini_beside(place: str) -> str:
    """The file of the worker's ini."""
    return place.removesuffix(".sock") + ".ini"


def leftovers(place: str) -> list[str]:
    """The private sockets in the folder of this one, where gfrouters that were killed have left theirs."""
    folder, own = os.path.split(place)
    return [os.path.join(folder, name) for name in os.listdir(folder) if WORKER.fullmatch(name) and name != own]


def check_folder(folder: str, uid: int) -> None:
    """ValueError where anybody else could put a socket there, or have put it."""
    try:
        found = os.lstat(folder)
    except OSError as error:
        raise ValueError(f"the folder {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{folder} is not a folder")
    if found.st_uid != uid:
        raise ValueError(f"the folder {folder} is user {found.st_uid}'s, not user {uid}'s")
    if found.st_mode & 0o022:
        raise ValueError(f"the folder {folder} is writable for others (mode {stat.S_IMODE(found.st_mode):o})")
