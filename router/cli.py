"""The composition root: options in, sockets bound, sources made, the supervisor run. The only place where all meet."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic, time
from typing import cast
from urllib.parse import quote, urlencode

from router import __version__, commands, daemon, mappers, net, privileges, verdicts
from router.attached import Attachments
from router.configuration import Examination, HelpRequested, VersionRequested, examine
from router.daemon import Launcher
from router.errors import own_pages
from router.handover import Estate, inherited
from router.help import help_text
from router.logfile import first_file
from router.logs import log, log_to
from router.options import Options
from router.pidfile import tell
from router.resubscribe import announcers
from router.saved import restore
from router.settle import change_folder, settle
from router.sockets import Sockets
from router.sources import Common, Listening, Opened, load_source, open_source, words
from router.static import Static
from router.supervisor import Supervisor
from router.surroundings import here
from router.systemd import passed_sockets
from router.table import Table
from router.uwsgi import printable
from router.worker import find_binary, programs

ANYWHERE = ":1"  # in place of an address that is known once it is bound
SUBSCRIPTION = "subscription"  # the source that has sockets of its own among the options


def main(argv: Sequence[str]) -> int:
    """Run gfrouter, or one of its commands; returns the exit status. What is wrong with the input is one line and 1."""
    if command := commands.named(argv):
        return commands.run(command, list(argv[1:]))
    try:
        estate = inherited(os.environ, os.getpid(), os.getppid())
        found = examine(argv, here(os.environ, estate.resumed))
        if found.check:
            return commands.printing(lambda: report(found, estate))
        options = found.options
        if options is None:
            raise ValueError(in_one_line(found.problems))
        for file, number in (options.stop, signal.SIGINT), (options.reload, signal.SIGHUP):
            if file is not None:
                tell(file, number)
                return 0
    except HelpRequested:
        return commands.printing(show_help)
    except VersionRequested:
        print(f"gfrouter {__version__}")
        return 0
    except ValueError as error:
        print(f"gfrouter: {error}", file=sys.stderr)
        return 1
    # In a container the log is what the first process writes to its standard output.
    stream = sys.stdout if os.getpid() == 1 else sys.stderr
    try:
        launcher = prepare(options, estate.resumed)
    except ValueError as error:
        print(f"gfrouter: {error}", file=sys.stderr)
        return 1
    log_to(stream)
    for line in found.warnings:
        log.warning("%s", line)
    try:
        with ExitStack() as stack:
            compose(options, stack, stream.fileno(), estate, launcher).run()
    except ValueError as error:
        log.error("gfrouter: %s", error)
        launcher.failed(f"gfrouter: {error}")
        return 1
    return 0


def show_help() -> int:
    print(help_text(), commands.help_text(), sep="\n", end="")
    return 0


def prepare(options: Options, resumed: bool) -> Launcher:
    """The log's file and the background, before there is anything else. ValueError where one of them cannot be had.

    Where the start is `resumed`, it is in the background already, if it is to be.
    """
    if options.umask is not None:
        os.umask(options.umask)
    first, where = first_file(options), options.daemonize or options.daemonize2
    if where is None or resumed:
        if first is not None:
            first.take_over(resumed)
        return Launcher()
    daemon.refuse(os.environ, os.getpid())
    log_fd = first.open() if first is not None else None
    launcher = daemon.detach(os.environ, log_fd, where)
    if options.umask is None:
        os.umask(0)
    return launcher


def compose(options: Options, stack: ExitStack, log_fd: int, estate: Estate, launcher: Launcher) -> Supervisor:
    """Bind everything, so that what cannot be had stops the start; `stack` closes it again. Raises ValueError."""
    log.info("*** gfrouter %s, a uWSGI fastrouter ***", __version__)
    log.info("spawned uWSGI master process (pid: %d)", os.getpid())
    raise_descriptor_limit()
    backlog = net.listen_backlog(options.backlog)
    if options.backlog is not None and options.backlog > backlog:
        log.warning("a queue of %d is more than the kernel allows (net.core.somaxconn): %d", options.backlog, backlog)
    sockets = Sockets(options, stack, passed_sockets(os.environ, os.getpid()), estate, own=set(estate.descriptors()))
    listeners = sockets.listeners()
    names = [printable(net.bound_name(listener)) for listener in listeners[0]]
    for name, listener in zip(names, listeners[0], strict=True):
        log.info("uWSGI fastrouter bound on %s fd %d", name, listener.fileno())
    beside, workers = programs(options, sockets, stack, log_fd)
    sources = [*(Opened(worker, Common()) for worker in workers), *discover(options, sockets)]
    stats_listener = sockets.stats()
    if stats_listener is not None:
        where, fd = printable(net.bound_name(stats_listener)), stats_listener.fileno()
        log.info("*** fastrouter stats server enabled on %s fd: %d ***", where, fd)
    announcing = [one.source.address for one in sources if isinstance(one.source, Listening)]
    admin_listener = admin(options, sockets)
    if "listen" in options.defaulted:
        log.warning("no address given, listening on %s", ", ".join(names))
    if "subscription_server" in options.defaulted and announcing and not options.discovery:
        log.warning("no source of nodes given, taking subscriptions on %s", ", ".join(announcing))
    for one in sockets.unused():
        log.warning("systemd has passed %s as descriptor %d, and no option uses it", one.name, one.fd)
    estate.close_rest(options.vacuum)
    log_file = settle(options, stack, estate)
    return Supervisor(
        options,
        listeners,
        sources,
        stats_listener,
        [*names, *announcing],
        log_fd,
        admin_listener,
        estate,
        sockets.held,
        sorted(sockets.used),
        log_file,
        launcher.ready,
        Attachments(beside, estate.beside),
        announcers(options, net.bound_name(listeners[0][0])),
    )


def report(found: Examination, estate: Estate) -> int:
    """Say what will happen, option by option, and return the exit status. The last line is the reason, if not 0."""
    problems = found.problems
    if found.options is not None:
        problems = check(found.options, estate)
    print(verdicts.page(found, problems), end="", flush=True)
    if problems:
        print(f"gfrouter: {in_one_line(problems)}", file=sys.stderr)
    return 1 if problems else 0


def in_one_line(problems: Sequence[str]) -> str:
    """The first of them, and where the others are."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more, which --check lists)" if more else "")


def check(options: Options, estate: Estate) -> list[str]:
    """Why they cannot be used. Addresses are bound where a start before us asks, in whose place they would be, and
    whose `estate` we have; anybody else may ask while a gfrouter runs.
    """
    problems: list[str] = []
    with noted(problems):
        if options.worker:
            find_binary(options)
    with noted(problems):
        announcers(options, ANYWHERE)
    if not estate.resumed:
        for word in [*words(options.discovery), *mappers.urls(options)]:
            with noted(problems):
                if word != SUBSCRIPTION:
                    open_source(word)
        with noted(problems):
            mappers.nodes(options)
    else:
        with noted(problems):
            restore(estate.state, Table(), (), now=monotonic(), wall=time())
        with noted(problems), ExitStack() as stack:
            passed = passed_sockets(os.environ, os.getppid())
            sockets = Sockets(options, stack, passed, estate, own=set(estate.descriptors()), trial=True)
            sockets.listeners()
            if options.worker and options.worker.is_private:
                sockets.worker(sockets.worker_place())
            discover(options, sockets)
            sockets.stats()
            admin(options, sockets)
        with noted(problems):
            privileges.drop(options)
    with noted(problems):
        change_folder(options, estate)
        if estate.resumed:
            privileges.check_state_file(options)
    with noted(problems):
        own_pages(options.error_pages)
    return problems


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """What is wrong goes into the list, and the next thing is looked at."""
    try:
        yield
    except ValueError as error:
        problems.append(str(error))


def admin(options: Options, sockets: Sockets) -> socket.socket | None:
    """The admin API's listener. Only where it was asked for by its address it must be had."""
    try:
        listener = sockets.admin()
    except ValueError as error:
        if "admin" not in options.defaulted:
            raise
        log.warning("no admin API, as for its default place: %s (--admin ADDRESS gives it another one)", error)
        return None
    if listener is not None:
        log.info("admin API on %s", printable(net.bound_name(listener)))
    return listener


def discover(options: Options, sockets: Sockets) -> list[Opened]:
    """The sources that the options name, the first to describe a node first; without a word or node, subscriptions.

    The subscription servers come first, or where the word `subscription` stands.
    """
    named = words(options.discovery)
    servers: list[Opened] = []
    mapped = mappers.urls(options)
    to = mappers.nodes(options)
    if not (named or mapped or to) or SUBSCRIPTION in named or "subscription_server" not in options.defaulted:
        servers = [Opened(subscription(server, options), Common()) for server in sockets.subscription_servers()]
    if SUBSCRIPTION not in named:
        named = [SUBSCRIPTION, *named]
    opened = []
    for word in dict.fromkeys(named):
        opened += servers if word == SUBSCRIPTION else [open_source(word)]
    opened += map(open_source, mapped)
    if to or options.fallback:
        opened.append(Opened(Static(to, options.fallback), Common()))
    return opened


def subscription(server: socket.socket, options: Options) -> Listening:
    """The source that takes in uWSGI's own announcements at this socket."""
    settings = {
        "tolerance": options.subscription_tolerance,
        "tolerance-inactive": options.subscription_tolerance_inactive,
        "quota": options.subscription_quota,
        "address": options.subscription_address,
        "allow": options.subscription_allow,
        "sign-check": options.subscriptions_sign_check or (),
        "sign-check-tolerance": options.subscriptions_sign_check_tolerance,
        "sign-skip-uid": options.subscriptions_sign_skip_uid,
        "use-credentials": options.subscriptions_use_credentials,
        "credentials-check": options.subscriptions_credentials_check,
        "mountpoints": options.subscription_mountpoints > 0,
    }
    query = urlencode(settings, doseq=True, safe="/:", quote_via=quote, errors="surrogateescape")
    url = f"fd://{server.fileno()}?{query}"
    source = cast(Listening, load_source(SUBSCRIPTION)(url))
    log.info("uWSGI fastrouter subscription server bound on %s fd %d", source.address, server.fileno())
    return source


def raise_descriptor_limit() -> None:
    """Each request takes two descriptors: use all that the process may have. The routers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # an unlimited hard limit may be above what the kernel takes
            log.warning("cannot raise the limit of %d open descriptors to %d: %s", soft, hard, error)
