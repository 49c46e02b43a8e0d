"""Cases of cheap mode, processes and signals (section 5), and of the addresses that are bound (section 6)."""

import contextlib
import os
import signal
import socket
import threading
from functools import partial

from like import CLOSED, GET, OPEN_S, REFUSED, A, Case, Stage, case
from scripted import address_of, answer, connect, freeze, listen, wait_for, when
from servers import UWSGI, Process, Router, as_words, free_address, free_port, router_command

# 5. Cheap mode, processes, privileges, signals.


@case(5, quick=True)
def cheap_until_a_node_comes_and_again_when_it_leaves(stage: Stage) -> None:
    stage.start(cheap=True)
    early = stage.send(GET)
    stage.see("cheap at first", stage.router.stats()["cheap"])
    address = stage.node()
    stage.router.wait_line("leaving cheap mode")
    stage.read(early)
    stage.ask()
    stage.withdraw(address)
    stage.router.wait_line("Going cheap")
    stage.ask(wait=OPEN_S)


@case(5)
def cheap_on_a_shared_socket(stage: Stage) -> None:
    stage.start(address="=0", shared_socket=(shared := free_address()), cheap=True)
    stage.call(shared, "shared")
    early = stage.send(GET, shared)
    stage.node()
    stage.read(early)


@case(5)
def cheap_when_the_only_node_refuses(stage: Stage) -> None:
    stage.start(cheap=True)
    stage.call(refused := free_address(), "refused")
    stage.announce(refused)
    stage.ask()
    stage.router.wait_line("Going cheap")
    stage.ask(wait=OPEN_S)


TWICE = {
    f"log [uwsgi-subscription for pid N] {text}": (2, 1)
    for text in ("new pool: foo.com (hash key: 11571)", "foo.com => new node: <node 1>")
}


@case(5, why=["one-map"], differs=TWICE)
def two_processes(stage: Stage) -> None:
    stage.start(processes=2)
    stage.node()
    for pid in stage.router.pids().values():
        freeze(pid)
        stage.ask()
        os.kill(pid, signal.SIGCONT)
    stage.leave_out("stats")


@case(5, why=["one-map"], differs={"requests": (0, 1)} | TWICE)
def stats_of_the_second_process(stage: Stage) -> None:
    stage.start(processes=2)
    address = stage.node()
    first = stage.router.pids()[1]
    freeze(first)
    stage.ask()
    os.kill(first, signal.SIGCONT)
    stage.router.wait_idle()
    stage.see("requests", stage.router.nodes("foo.com")[address]["requests"])
    stage.leave_out("stats")


@case(
    5,
    why=["one-map"],
    differs={"client 1": (CLOSED, A), "log *** fastrouter stats server enabled on <stats> fd: N ***": (2, 1)},
)
def a_killed_process_is_replaced(stage: Stage) -> None:
    stage.start()
    stage.node()
    os.kill(stage.router.pids()[1], signal.SIGKILL)
    stage.router.wait_line("respawned uWSGI fastrouter 1 ")
    stage.ask()
    stage.leave_out("stats", "node")


def ending(number: signal.Signals, stage: Stage) -> None:
    stage.start()
    stage.router.send_signal(number)
    if stage.fastrouter:
        stage.router.wait()  # what pyuwsgi is reloaded into is a bare Python, which takes uWSGI's options for its own
    else:
        wait_for(lambda: stage.router.returncode is not None or starts(stage.router) == 2, "it to end, or start anew")
    anew = starts(stage.router) == 2 or stage.router.line("binary reloading uWSGI")
    stage.see("then", "starts anew" if anew else f"ends with {stage.router.returncode}")
    stage.leave_out("log", "stats", "router")


def starts(router: Router) -> int:
    return sum("spawned uWSGI fastrouter 1 " in line for line in list(router.lines))


SIGNALS = {
    signal.SIGINT: ("ends with 0", "ends with 0"),
    signal.SIGQUIT: ("ends with 0", "ends with 0"),
    signal.SIGTERM: ("starts anew", "ends with 0"),
    signal.SIGHUP: ("starts anew", "starts anew"),
}
STOPS = [
    Case(5, number.name, partial(ending, number), *((["signals"], {"then": then}) if then[0] != then[1] else ()))
    for number, then in SIGNALS.items()
]


@case(5, why=["signals"], differs={"client 1": (CLOSED, A)})
def a_stop_with_a_request_in_flight(stage: Stage) -> None:
    stage.start()
    released = threading.Event()
    stage.node(when(released, answer(b"A")))
    client = stage.send(GET)
    stage.wait_to_arrive(GET)
    stage.router.send_signal(signal.SIGINT)
    wait_for(lambda: stage.router.returncode is not None or not listens(stage.router.address), "the listener to close")
    released.set()
    stage.read(client)
    stage.router.wait()
    stage.leave_out("log", "stats", "router")


def listens(address: str) -> bool:
    with contextlib.suppress(OSError), connect(address):
        return True
    return False


@case(5)
def harakiri(stage: Stage) -> None:
    stage.start("--fastrouter-harakiri", "5")
    stage.leave_out("log", "stats")


@case(5, why=["master"], differs={"router": ("returns at once", "supervises")})
def without_master(stage: Stage) -> None:
    command = [UWSGI] if stage.fastrouter else router_command(fastrouter=False)
    with Process(*command, *as_words({"listen": free_address()}, stage.fastrouter)) as process:
        process.wait_line("spawned uWSGI fastrouter 1")
        if stage.fastrouter:
            process.wait()
        stage.see("router", "supervises" if process.returncode is None else "returns at once")


# 6. Addresses for binding.


def listening(address: str, stage: Stage) -> None:
    place = address.format(folder=stage.folder, port=free_port())
    if stage.start(address=place):
        stage.node()
        stage.ask(address=place)


@case(6, quick=True)
def a_unix_socket(stage: Stage) -> None:
    listening("{folder}/router.sock", stage)
    stage.see("mode", oct((stage.folder / "router.sock").stat().st_mode))


@case(6)
def an_abstract_socket(stage: Stage) -> None:
    listening("@{folder}", stage)


@case(6)
def an_ipv6_address(stage: Stage) -> None:
    listening("[::1]:{port}", stage)


@case(6)
def an_inherited_descriptor(stage: Stage) -> None:
    with listen("127.0.0.1:0") as inherited:
        stage.call(place := address_of(inherited), "inherited")
        fd = inherited.fileno()
        stage.start(address=f"fd://{fd}", pass_fds=[fd])
    stage.node()
    stage.ask(address=place)


@case(6)
def two_addresses(stage: Stage) -> None:
    stage.call(second := free_address(), "second")
    stage.start("--fastrouter" if stage.fastrouter else "--listen", second)
    stage.node()
    stage.ask()
    stage.ask(address=second)


def as_written(written: str, real: str) -> dict[str, tuple[object, object]]:
    """What shows where gfrouter tells the real address in place of the one that was written."""
    return {
        "stats fastrouter": ((written, "<subscriptions>"), (real, "<subscriptions>")),
        f"log uWSGI fastrouter bound on {written} fd N": (1, None),
        f"log uWSGI fastrouter bound on {real} fd N": (None, 1),
    }


@case(6, why=["real-address"], differs=as_written("<router>", "<all addresses>"))
def a_port_alone(stage: Stage) -> None:
    port = free_port()
    stage.call(f"0.0.0.0:{port}", "all addresses")
    stage.start(address=f":{port}")
    stage.node()
    stage.ask(address=f"127.0.0.1:{port}")


@case(6, why=["real-address"], differs=as_written("<router>", "<real>"))
def a_host_name(stage: Stage) -> None:
    stage.call(real := free_address(), "real")
    stage.start(address=real.replace("127.0.0.1", "localhost"))
    stage.node()
    stage.ask(address=real)


@case(6, why=["real-address"], differs=as_written("<router>", "<real>"))
def port_0(stage: Stage) -> None:
    stage.start(address="127.0.0.1:0")
    if not stage.fastrouter:
        stage.call(stage.router.wait_line(r"fastrouter bound on (\S+)")[1], "real")


@case(6)
def a_shared_socket(stage: Stage) -> None:
    stage.call(shared := free_address(), "shared")
    stage.start(address="=0", shared_socket=shared)
    stage.node()
    stage.ask(address=shared)


@case(6)
def a_shared_socket_by_prefix(stage: Stage) -> None:
    stage.start(address="=0", shared_socket=f"127.*:{(port := free_port())}")
    stage.call(f"127.0.0.1:{port}", "shared")
    stage.node()
    stage.ask(address=f"127.0.0.1:{port}")


@case(6, why=["prefix"], differs={"listens": (False, True)} | as_written("<router>", "<real>"))
def an_address_by_prefix(stage: Stage) -> None:
    port = free_port()
    stage.call(f"127.0.0.1:{port}", "real")
    stage.start(address=f"127.*:{port}")
    stage.see("listens", listens(f"127.0.0.1:{port}"))


@case(6)
def a_shared_socket_that_is_not_there(stage: Stage) -> None:
    stage.start(address="=1", shared_socket=free_address())


@case(6)
def an_address_in_use(stage: Stage) -> None:
    with listen("127.0.0.1:0") as other:
        stage.start(address=f"127.0.0.1:{other.getsockname()[1]}")


@case(6, why=["in-use"], differs=REFUSED)
def a_subscription_address_in_use(stage: Stage) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        stage.start(subscriptions=f"127.0.0.1:{other.getsockname()[1]}")
    stage.leave_out("log", "stats")


@case(6, why=["unlink"], differs=REFUSED | {"data": (None, "kept")})
def a_path_that_holds_a_file(stage: Stage) -> None:
    file = stage.folder / "precious"
    file.write_text("data")
    stage.start(address=str(file))
    if file.is_file():
        stage.see("data", "kept")
    stage.leave_out("log", "stats")


@case(6, why=["unlink"], differs=REFUSED | {"its owner": ("cut off", "goes on")})
def a_unix_socket_that_is_served(stage: Stage) -> None:
    path = str(stage.folder / "router.sock")
    with listen(path) as owner:
        stage.start(address=path)
        owner.settimeout(0)
        with contextlib.suppress(OSError), connect(path):
            owner.accept()[0].close()
            stage.see("its owner", "goes on")
    stage.seen.setdefault("its owner", "cut off")
    stage.leave_out("log", "stats")


@case(6)
def a_unix_socket_that_nobody_serves(stage: Stage) -> None:
    listen(str(stage.folder / "router.sock")).close()
    listening("{folder}/router.sock", stage)


@case(6)
def a_path_without_its_folder(stage: Stage) -> None:
    stage.start(address=str(stage.folder / "missing" / "router.sock"))


@case(6, why=["vacuum"], differs={"socket": ("left there", None)})
def vacuum(stage: Stage) -> None:
    path = stage.folder / "router.sock"
    stage.start(address=str(path), vacuum=True)
    stage.router.stop()
    if path.exists():
        stage.see("socket", "left there")


def mode_after(word: str, stage: Stage) -> None:
    path = stage.folder / "router.sock"
    stage.start(word, address=str(path))
    stage.see("mode", oct(path.stat().st_mode))


MODES = [
    Case(6, name, partial(mode_after, word))
    for name, word in [("chmod_socket_620", "--chmod-socket=620"), ("chmod_socket", "--chmod-socket")]
]


@case(6)
def reuse_port(stage: Stage) -> None:
    stage.start(reuse_port=True, processes=2)
    stage.see("turns", stage.turns(1))


@case(6)
def an_address_that_is_not_of_this_machine(stage: Stage) -> None:
    stage.start(address=f"192.0.2.1:{free_port()}")
