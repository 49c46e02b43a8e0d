"""The sockets that the options ask for, bound: the routers' listeners slot by slot, and the supervisor's own.

One socket serves all routers; with `reuse_port` each router has one of its own for every TCP address, and the kernel
shares the connections out. The supervisor holds them all, so a router that is replaced finds its queue as it was.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from socket import SOCK_DGRAM, SOCK_STREAM

from router import net
from router.address import AddressError, Inherited, Shared, parse_local
from router.handover import Estate, Held
from router.logs import log
from router.options import Options
from router.place import SOCKET_MODE, default_place, ini_beside, leftovers, make_folder, private_place
from router.privileges import new_owner, socket_owner
from router.requestoptions import ADMIN_OFF
from router.systemd import Passed

KINDS = {int(SOCK_STREAM): "stream", int(SOCK_DGRAM): "datagram"}


@dataclass
class Sockets:
    """Binds what it is asked for; `stack` closes it again. Everything raises AddressError.

    `passed` are the sockets that systemd passed: `fd://NAME` means those of that name, and where no address was given
    those that no option names are used.
    """

    options: Options
    stack: ExitStack
    passed: Sequence[Passed]
    estate: Estate = field(default_factory=Estate)  # what a start before this one has bound
    trial: bool = False  # only whether it could be bound is asked for: nothing stays, and nothing is taken away
    used: set[int] = field(default_factory=set)  # descriptors of `passed` that somebody serves
    own: set[int] = field(default_factory=set)  # descriptors of what was bound here
    held: list[Held] = field(default_factory=list)  # to be handed over to the next start

    def listeners(self) -> list[list[socket.socket]]:
        """For each router slot what it accepts from."""
        shared = [self._shared(address) for address in self.options.shared_socket]
        columns: list[list[socket.socket]] = []
        for address in self._addresses("listen", self.options.listen, SOCK_STREAM):
            local = parse_local(address)
            columns.append(shared[local.number] if isinstance(local, Shared) else self._by_slot(address))
        slots = zip(*columns, strict=True)
        # By descriptor: `fastrouter = =0` twice is one listener.
        return [list({listener.fileno(): listener for listener in slot}.values()) for slot in slots]

    def _shared(self, address: str) -> list[socket.socket]:
        """The same for a shared socket; nothing where it is the worker's beside us, who binds it."""
        worker = self.options.worker
        return [] if worker and worker.binds(address) else self._by_slot(self._the_one(address, SOCK_STREAM))

    def subscription_servers(self) -> list[socket.socket]:
        """A datagram socket for each address where workers announce themselves."""
        addresses = self._addresses("subscription_server", self.options.subscription_server, SOCK_DGRAM)
        return [self._bind(address, kind=SOCK_DGRAM) for address in addresses]

    def stats(self) -> socket.socket | None:
        """The listener of the stats server; None where there is none."""
        address = self.options.stats
        return None if address is None else self._bind(self._the_one(address, SOCK_STREAM), clients_speak_first=False)

    def admin(self) -> socket.socket | None:
        """The listener of the admin API; None where it is off. At its default place it leaves no file behind."""
        address = self.options.admin
        if address == ADMIN_OFF:
            return None
        if address:
            return self._bind(self._the_one(address, SOCK_STREAM), clients_speak_first=False, private=True)
        user = os.geteuid()
        place = default_place(os.environ, 0)
        taken = self.estate.take(place, SOCK_STREAM)  # from before we dropped privileges
        if taken is None:
            place = default_place(os.environ, user)
            make_folder(os.path.dirname(place), user)
        return self._private(place, taken)

    def worker_place(self) -> str:
        """Where the private socket of the worker beside us is to be. ValueError where there is no place for it."""
        uid, _ = new_owner(self.options)
        # Who is to become another user has no folder of that user's session.
        environ, user = (os.environ, os.geteuid()) if uid is None else ({}, uid)
        return private_place(environ, user, os.getppid() if self.trial else os.getpid())

    def worker(self, place: str) -> socket.socket:
        """The private socket of the worker beside us. What those before us could not remove is removed."""
        for path in [] if self.trial else leftovers(place):
            if not net.is_served(os.fsencode(path), SOCK_STREAM):
                for left in (path, ini_beside(path)):
                    with suppress(OSError):
                        os.unlink(left)
        return self._private(place, owner=socket_owner(self.options))

    def _private(
        self, place: str, taken: socket.socket | None = None, owner: tuple[int, int] | None = None
    ) -> socket.socket:
        taken = taken or self.estate.take(place, SOCK_STREAM)
        listener = taken or net.bind(place, mode=SOCKET_MODE, owner=owner, backlog=self.options.backlog)
        self._hold(place, SOCK_STREAM, listener)
        return self.stack.enter_context(_closed(listener, vacuum=not (self.trial and taken)))

    def unused(self) -> list[Passed]:
        """What systemd passed and nobody serves: whoever connects there would wait for ever."""
        return [one for one in self.passed if one.fd not in self.used]

    def _addresses(self, option: str, addresses: Sequence[str], kind: int) -> list[str]:
        """The addresses of an option, with each name of passed sockets replaced by their descriptors."""
        if option in self.options.defaulted and (free := [one for one in self._unclaimed() if one.kind == kind]):
            return [f"fd://{one.fd}" for one in free]
        found = [one for address in addresses for one in self._named(address, kind)]
        # A descriptor may be named by its number and by its name; an address with port 0 is another one each time.
        return [one for at, one in enumerate(found) if not one.startswith("fd://") or one not in found[:at]]

    def _unclaimed(self) -> list[Passed]:
        """What systemd passed and no option names."""
        options = self.options
        alone = [one for one in (options.stats, options.admin) if one and one != ADMIN_OFF]
        said = [*options.listen, *options.shared_socket, *options.subscription_server, *alone]
        named = {local.which for local in map(parse_local, said) if isinstance(local, Inherited)}
        return [one for one in self.passed if one.fd not in named and one.name not in named]

    def _named(self, address: str, kind: int) -> list[str]:
        local = parse_local(address)
        if not isinstance(local, Inherited) or isinstance(local.which, int):
            return [address]
        found = [f"fd://{one.fd}" for one in self.passed if one.name == local.which and one.kind == kind]
        if not found:
            there = ", ".join(f"{one.name} ({KINDS.get(one.kind, 'other')})" for one in self.passed) or "none"
            reason = f"systemd has passed no {KINDS[kind]} socket under that name (it has passed: {there})"
            raise AddressError(address, reason, "cannot bind ")
        return found

    def _the_one(self, address: str, kind: int) -> str:
        found = self._named(address, kind)
        if len(found) > 1:
            raise AddressError(
                address, f"{len(found)} sockets have that name, and there can be only one", "cannot bind "
            )
        return found[0]

    def _by_slot(self, address: str) -> list[socket.socket]:
        processes = self.options.processes
        own = self.options.reuse_port and not isinstance(parse_local(address), Inherited)
        first = self._bind(address, reuse_port=own)
        if not own or first.family == socket.AF_UNIX or self.trial:  # a further one would be given connections
            return [first] * processes
        if not first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):  # bound by a start that had no reuse-port
            log.warning("%s serves all routers until the next stop, as it was bound without reuse-port", address)
            return [first] * processes
        # The real address: port 0 must not be another one for each router.
        return [first, *(self._bind(net.bound_name(first), reuse_port=True) for _ in range(processes - 1))]

    def _bind(
        self,
        address: str,
        *,
        kind: int = SOCK_STREAM,
        clients_speak_first: bool = True,
        reuse_port: bool = False,
        private: bool = False,
    ) -> socket.socket:
        """`private`: whatever the options say of others', the file of this one is for this user alone."""
        local = parse_local(address)
        if isinstance(local, Inherited) and isinstance(local.which, int):
            if local.which in self.own:  # it was free when we were started, and the kernel gave it to us
                raise AddressError(address, f"descriptor {local.which} is not open", "cannot bind ")
            if local.which in self.used:
                raise AddressError(address, f"descriptor {local.which} has a use already", "cannot bind ")
            self.used.add(local.which)
        taken = self.estate.take(address, kind)
        if taken is not None and kind == SOCK_STREAM and not self.trial:
            taken.listen(net.listen_backlog(self.options.backlog))
        listener = taken or net.bind(
            address,
            kind=kind,
            backlog=self.options.backlog,
            clients_speak_first=clients_speak_first,
            mode=SOCKET_MODE if private else self.options.chmod_socket,
            owner=None if private else self.options.chown_socket or socket_owner(self.options),
            freebind=self.options.freebind,
            reuse_port=reuse_port,
        )
        self.own.add(listener.fileno())
        if not isinstance(local, Inherited):  # those are there again after an exec
            self._hold(address, kind, listener)
        vacuum = not taken if self.trial else self.options.vacuum
        return self.stack.enter_context(_closed(listener, vacuum and not isinstance(local, Inherited)))

    def _hold(self, address: str, kind: int, listener: socket.socket) -> None:
        self.held.append(Held(address, kind, listener.fileno(), net.identity(listener)))


@contextmanager
def _closed(listener: socket.socket, vacuum: bool) -> Iterator[socket.socket]:
    """At the end the socket is closed, and under `vacuum` its file removed if it is still ours."""
    name, identity = net.bound_name(listener), net.identity(listener)
    try:
        yield listener
    finally:
        listener.close()
        if identity is not None and vacuum:
            net.unlink_own(name, identity)
