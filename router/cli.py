"""The composition root: options in, sockets bound, sources made, the supervisor run. The only place where all meet."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from typing import Protocol, cast
from urllib.parse import urlencode

from router import __version__, net
from router.logs import log, log_to
from router.options import HelpRequested, Options, OptionsError, VersionRequested, help_text, load
from router.source import Source
from router.supervisor import Supervisor

SOURCES = "gfrouter.discovery"  # the entry-point group; each entry is called with a URL and returns a Source


def main(argv: Sequence[str]) -> int:
    """Run gfrouter; returns its exit status. Whatever is wrong with the input is one line and status 1."""
    try:
        options, warnings = load(argv, os.environ)
    except HelpRequested:
        print(help_text())
        return 0
    except VersionRequested:
        print(f"gfrouter {__version__}")
        return 0
    except OptionsError as error:
        print(f"gfrouter: {error}", file=sys.stderr)
        return 1
    # In a container the log is what the first process writes to its standard output.
    stream = sys.stdout if os.getpid() == 1 else sys.stderr
    log_to(stream)
    for line in [*warnings, *defaults(options)]:
        log.warning("%s", line)
    try:
        with ExitStack() as stack:
            supervisor = compose(options, stack, stream.fileno())
            again = supervisor.run()
    except (net.AddressError, ValueError) as error:
        log.error("gfrouter: %s", error)
        return 1
    if again:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new start listens to it again
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


def compose(options: Options, stack: ExitStack, log_fd: int) -> Supervisor:
    """Bind everything, so that what cannot be had stops the start; `stack` closes it again. Raises ValueError."""
    log.info("*** gfrouter %s, a uWSGI fastrouter ***", __version__)
    log.info("spawned uWSGI master process (pid: %d)", os.getpid())
    raise_descriptor_limit()
    backlog = net.listen_backlog(options.backlog)
    if options.backlog is not None and options.backlog > backlog:
        log.warning("a queue of %d is more than the kernel allows (net.core.somaxconn): %d", options.backlog, backlog)

    def bind(address: str, clients_speak_first: bool = True) -> socket.socket:
        return stack.enter_context(bound(address, options, clients_speak_first))

    shared = [bind(address) for address in options.shared_socket]
    listeners = {}  # by descriptor: `fastrouter = =0` twice is one listener
    for address in options.listen:
        listener = shared[int(address[1:])] if address.startswith("=") else bind(address)
        listeners[listener.fileno()] = listener
        log.info("uWSGI fastrouter bound on %s fd %d", net.bound_name(listener), listener.fileno())
    sources = [subscription(address, options) for address in options.subscription_server]
    stats_listener = bind(options.stats, clients_speak_first=False) if options.stats is not None else None
    if stats_listener is not None:
        name, fd = net.bound_name(stats_listener), stats_listener.fileno()
        log.info("*** fastrouter stats server enabled on %s fd: %d ***", name, fd)
    addresses = [*map(net.bound_name, listeners.values()), *(source.address for source in sources)]
    return Supervisor(options, list(listeners.values()), sources, stats_listener, addresses, log_fd)


@contextmanager
def bound(address: str, options: Options, clients_speak_first: bool) -> Iterator[socket.socket]:
    """A listening socket; at the end it is closed, and with `vacuum` its file removed if it is still ours."""
    listener = net.bind(address, backlog=options.backlog, clients_speak_first=clients_speak_first)
    name = net.bound_name(listener)
    identity = net.identity(listener)
    try:
        yield listener
    finally:
        listener.close()
        if identity is not None and options.vacuum:
            net.unlink_own(name, identity)


class Listening(Source, Protocol):
    """A source that has bound an address of its own, as the subscriptions do."""

    address: str

    def fileno(self) -> int: ...


def subscription(address: str, options: Options) -> Listening:
    """The source that takes in uWSGI's own announcements at `address`."""
    url = f"udp://{address}?{urlencode({'tolerance': options.subscription_tolerance})}"
    source = cast(Listening, open_source("subscription", url))
    log.info("uWSGI fastrouter subscription server bound on %s fd %d", source.address, source.fileno())
    return source


def open_source(name: str, url: str) -> Source:
    """The installed source of this name, told what to watch. Raises ValueError naming the ones that are installed."""
    for entry in entry_points(group=SOURCES, name=name):
        source: Source = entry.load()(url)
        return source
    installed = ", ".join(sorted(entry_points(group=SOURCES).names)) or "none"
    raise ValueError(f"no source named {name!r} is installed (installed: {installed})")


def defaults(options: Options) -> Iterator[str]:
    """What was not said and matters: where it listens, and where it learns of nodes."""
    if "listen" in options.defaulted:
        yield f"no address given, listening on {', '.join(options.listen)}"
    if "subscription_server" in options.defaulted:
        yield f"no source of nodes given, taking subscriptions on {', '.join(options.subscription_server)}"


def raise_descriptor_limit() -> None:
    """Each request takes two descriptors: use all that the process may have. The routers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # an unlimited hard limit may be above what the kernel takes
            log.warning("cannot raise the limit of %d open descriptors to %d: %s", soft, hard, error)
