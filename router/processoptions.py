"""The processes, and the configuration itself: a part of the table in options.py."""

from __future__ import annotations

from dataclasses import dataclass

from router.entry import option
from router.values import (
    MAX_PROCESSES,
    command,
    file_name,
    flag,
    group,
    log_file,
    permissions,
    seconds,
    text,
    user,
    whole,
)

PROCESS = "Processes"
DAEMON = "Daemon, log and user"
CONFIGURATION = "Configuration"


@dataclass(frozen=True)
class ProcessOptions:
    processes: int = option(
        1, whole(0, MAX_PROCESSES), PROCESS, "N",
        "run so many router processes",
        plain="processes workers", zero_is_default=True,
    )  # fmt: skip
    drain_timeout: int = option(
        30, seconds, PROCESS, "SECONDS",
        "give the requests in flight so long when stopping",
        plain="drain-timeout", ours=True,
    )  # fmt: skip
    state_file: str | None = option(
        None, file_name, PROCESS, "FILE",
        "keep what is known of the nodes here, and begin with it at the next start",
        plain="state-file", ours=True,
    )  # fmt: skip
    harakiri: int = option(
        0, seconds, PROCESS, "SECONDS",
        "kill a router process that is stuck for so long; 0 = never",
        plain="harakiri",
    )  # fmt: skip
    attach_daemon: tuple[str, ...] = option(
        (), command, PROCESS, "COMMAND",
        "run this beside the routers, by the shell, and again whenever it ends; repeatable",
        plain="attach-daemon", uwsgi="attach-daemon",
    )  # fmt: skip
    worker_binary: str | None = option(
        None, file_name, PROCESS, "FILE",
        "the uwsgi that runs the application of a configuration for both, router and worker (default: the one beside "
        "gfrouter's Python, else the one on PATH)",
        plain="worker-binary", ours=True,
    )  # fmt: skip
    daemonize: str | None = option(
        None, log_file, DAEMON, "FILE",
        "go to the background when everything is up, with the log in this file",
        plain="daemonize", uwsgi="daemonize",
    )  # fmt: skip
    daemonize2: str | None = option(
        None, log_file, DAEMON, "FILE",
        "the same, with the log in this file when all sockets are bound and privileges dropped",
        plain="daemonize2", uwsgi="daemonize2",
    )  # fmt: skip
    logto: str | None = option(
        None, log_file, DAEMON, "FILE",
        "write the log to this file, which is opened anew when it has been moved away",
        plain="logto", uwsgi="logto",
    )  # fmt: skip
    logto2: str | None = option(
        None, log_file, DAEMON, "FILE",
        "write it to this file when privileges are dropped",
        plain="logto2", uwsgi="logto2",
    )  # fmt: skip
    logfile_chmod: int | None = option(
        None, permissions, DAEMON, "MODE",
        "the permissions of the log file, as in 640",
        plain="logfile-chmod", uwsgi="logfile-chmod",
    )  # fmt: skip
    logfile_chown: bool = option(
        False, flag, DAEMON, "",
        "give the log file to the user and group that uid and gid name",
        plain="logfile-chown", uwsgi="logfile-chown",
    )  # fmt: skip
    pidfile: str | None = option(
        None, file_name, DAEMON, "FILE",
        "write the process's number to this file before privileges are dropped; vacuum removes it at the end",
        plain="pidfile", uwsgi="pidfile",
    )  # fmt: skip
    pidfile2: str | None = option(
        None, file_name, DAEMON, "FILE",
        "write it to this file after that",
        plain="pidfile2", uwsgi="pidfile2",
    )  # fmt: skip
    safe_pidfile: str | None = option(
        None, file_name, DAEMON, "FILE",
        "the same as pidfile",
        plain="safe-pidfile", uwsgi="safe-pidfile",
    )  # fmt: skip
    safe_pidfile2: str | None = option(
        None, file_name, DAEMON, "FILE",
        "the same as pidfile2",
        plain="safe-pidfile2", uwsgi="safe-pidfile2",
    )  # fmt: skip
    stop: str | None = option(
        None, file_name, DAEMON, "PIDFILE",
        "stop the gfrouter of this file, and do nothing else",
        plain="stop", uwsgi="stop",
    )  # fmt: skip
    reload: str | None = option(
        None, file_name, DAEMON, "PIDFILE",
        "have the gfrouter of this file start anew, and do nothing else",
        plain="reload", uwsgi="reload",
    )  # fmt: skip
    uid: int | None = option(
        None, user, DAEMON, "USER",
        "become this user, a name or a number, when all sockets are bound",
        plain="uid", uwsgi="uid fastrouter-uid",
    )  # fmt: skip
    gid: int | None = option(
        None, group, DAEMON, "GROUP",
        "become a member of this group then, a name or a number; left out, of the user's own",
        plain="gid", uwsgi="gid fastrouter-gid",
    )  # fmt: skip
    add_gid: tuple[int, ...] = option(
        (), group, DAEMON, "GROUP",
        "and of this one; repeatable",
        plain="add-gid", uwsgi="add-gid",
    )  # fmt: skip
    no_initgroups: bool = option(
        False, flag, DAEMON, "",
        "but of no other group of the user",
        plain="no-initgroups", uwsgi="no-initgroups",
    )  # fmt: skip
    umask: int | None = option(
        None, permissions, DAEMON, "MODE",
        "what new files and sockets are not allowed, as in 022; 000 in a daemon, if this is left out",
        plain="umask", uwsgi="umask",
    )  # fmt: skip
    chdir: str | None = option(
        None, file_name, DAEMON, "FOLDER",
        "go to this folder when privileges are dropped; sockets, logto and pidfile are found before that",
        plain="chdir", uwsgi="chdir",
    )  # fmt: skip
    procname: str | None = option(
        None, text, DAEMON, "NAME",
        "what ps shows of the processes (needs setproctitle)",
        plain="procname", uwsgi="procname",
    )  # fmt: skip
    procname_master: str | None = option(
        None, text, DAEMON, "NAME",
        "what it shows of the supervisor",
        plain="procname-master", uwsgi="procname-master",
    )  # fmt: skip
    procname_prefix: str | None = option(
        None, text, DAEMON, "TEXT",
        "what it shows before that",
        plain="procname-prefix", uwsgi="procname-prefix",
    )  # fmt: skip
    procname_prefix_spaced: str | None = option(
        None, text, DAEMON, "TEXT",
        "the same, with a blank behind it",
        plain="procname-prefix-spaced", uwsgi="procname-prefix-spaced",
    )  # fmt: skip
    procname_append: str | None = option(
        None, text, DAEMON, "TEXT",
        "what it shows behind that",
        plain="procname-append", uwsgi="procname-append",
    )  # fmt: skip
    auto_procname: bool = option(
        False, flag, DAEMON, "",
        "show uWSGI master and uWSGI fastrouter N",
        plain="auto-procname", uwsgi="auto-procname",
    )  # fmt: skip
    check: bool = option(
        False, flag, CONFIGURATION, "",
        "say of each setting what becomes of it, and end: status 0 where all of it can be used",
        plain="check", ours=True,
    )  # fmt: skip
    ini: tuple[str, ...] = option(
        (), file_name, CONFIGURATION, "FILE[:SECTION]",
        "read a configuration: its sections [uwsgi] and [gfrouter], or the one named; repeatable",
        plain="ini", uwsgi="ini",
    )  # fmt: skip
    strict: bool = option(
        False, flag, CONFIGURATION, "",
        "refuse unknown names in a configuration, which are placeholders otherwise",
        plain="strict", uwsgi="strict",
    )  # fmt: skip
