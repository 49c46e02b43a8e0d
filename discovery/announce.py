"""`gfrouter announce`: any process as a node, at routers, Consul and etcd, for as long as it runs.

    targets        each in a greenlet of its own (announcetarget.py), each with its lookups (whereabouts.py)
    the command    is started first and announced when it accepts connections
    a stop signal  first everything is withdrawn, then the command may finish what it has (`--drain`), then it is told
    the end        whatever ends it, all is withdrawn, within FAREWELL_S, and the command's status is ours

A second stop signal is passed on at once. Whoever kills us leaves it to the router's tolerance, to Consul's and etcd's
time limits, to take the node out.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TextIO

import gevent
from gevent.event import Event

from discovery.announceoptions import NO_CHECK, Wish, WrongWords, read
from discovery.announcetarget import Accepts, Announcer, Registration, Target, Trouble
from discovery.ownaddress import accepts
from discovery.toconsul import ToConsul
from discovery.toetcd import ToEtcd
from discovery.torouter import ToRouter
from discovery.whereabouts import LEGAL
from discovery.wrapped import CannotStart, Wrapped

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # what a terminal's keys send to all in its foreground
FAREWELL_S = 3.0  # for all targets together; one that does not answer by then sees us expire
# Once all greenlets are gone, gevent takes who waits for a signal alone for a deadlock; a timer shows that it is none.
IDLE_S = 3600

TARGETS: dict[str, Callable[[str, Registration, Accepts], Target]] = {
    "consul": ToConsul,
    "etcd": ToEtcd,
    "udp": ToRouter,
    "unix": ToRouter,
}

log = logging.getLogger("gfrouter")


def main(argv: list[str]) -> int:
    """Announce a process as a node at routers, Consul or etcd, or run a command that is one."""
    try:
        wish = read(argv, os.environ)
        targets = [open_target(text, wish.said, checker(wish.check)) for text in wish.to]
    except (ValueError, Trouble) as error:
        print(f"gfrouter announce: {error}", file=sys.stderr)
        return 1
    log_to(sys.stderr)
    return Announcing(wish, targets).run()


def open_target(text: str, said: Registration, accepts: Accepts) -> Target:
    """What the word behind `--to` means. ValueError for what it cannot."""
    if not text:
        raise WrongWords(f"--to: a target is missing (legal: {LEGAL})")
    scheme = text.partition("://")[0] if "://" in text else "udp"
    if scheme not in TARGETS:
        raise WrongWords(f"--to {text}: {scheme}:// is unknown (known: {', '.join(TARGETS)})")
    try:
        return TARGETS[scheme](text, said, accepts)
    except ValueError as error:
        raise WrongWords(f"--to: {error}") from None


def checker(check: str) -> Accepts:
    """How to find out whether there is somebody at an address that is about to be announced."""
    if check == NO_CHECK:
        return lambda address: True
    return (lambda address: accepts(check)) if check else accepts


class Announcing:
    """From the first announcement to the last farewell."""

    def __init__(self, wish: Wish, targets: list[Target]) -> None:
        self.wish = wish
        self.announcers = [Announcer(target) for target in targets]
        self.command: Wrapped | None = None
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._farewell: gevent.Greenlet[[], None] | None = None
        self._end = Event()  # of the command, or of us without one
        self._stopping = False

    def run(self) -> int:
        """Announce until the command has ended, or a signal came; returns the exit status."""
        self._listen()
        if self.wish.command:
            try:
                self.command = Wrapped(self.wish.command)
            except CannotStart as error:
                log.error("%s", error)
                return error.status
            self.command.ended.rawlink(lambda _: self._end.set())
        for announcer in self.announcers:
            self._greenlets.append(gevent.spawn(announcer.target.where.run))
            self._greenlets.append(gevent.spawn(announcer.run))
        while not self._end.wait(IDLE_S):
            pass
        self._withdraw()
        return self.command.status if self.command else 0

    def _listen(self) -> None:
        """What is ignored here stays ignored, for the command as well: `nohup` means that."""
        for number in (*STOPS, signal.SIGHUP, *(PASSED_ON if self.wish.command else ())):
            if signal.getsignal(number) is not signal.SIG_IGN:
                gevent.signal_handler(number, self._hear, number)

    def _hear(self, number: int) -> None:
        if self.command is None:
            self._end.set()
        elif number not in STOPS or self._stopping:
            self._pass_on(number)
        else:
            self._stopping = True
            self._withdraw()
            self.command.ended.wait(self.wish.drain)
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        """To the command, unless the terminal has told it already."""
        assert self.command
        if not (number in FROM_TERMINAL and in_foreground()):
            self.command.send(number)

    def _withdraw(self) -> None:
        """Take everything back, once, and wait for that."""
        if self._farewell is None:
            self._farewell = gevent.spawn(self._say_farewell)
        self._farewell.join()

    def _say_farewell(self) -> None:
        gevent.killall(self._greenlets)
        gevent.joinall([gevent.spawn(announcer.withdraw) for announcer in self.announcers], timeout=FAREWELL_S)


def in_foreground() -> bool:
    """Whether a terminal's keys reach us, and so the command, too."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def log_to(stream: TextIO) -> None:
    """Lines that can be told from those of the command."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("[gfrouter announce] %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
