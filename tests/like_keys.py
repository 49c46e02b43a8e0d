"""Cases of keys: which pool serves a request (section 2). Mountpoints are 2.1's: test_keyrules.py has its reading."""

from functools import partial

from clients import request
from like import Case, Stage, case


def keys(stage: Stage, *known: str) -> None:
    for key in known:
        stage.node(key=key)


def dotsplit(known: tuple[str, ...], host: str, stage: Stage) -> None:
    stage.start("--subscription-dotsplit")
    keys(stage, *known)
    stage.ask(request(host))


SPLITS = {
    "dotsplit_takes_the_exact_key_first": (("a.foo.com", ".foo.com"), "a.foo.com"),
    "dotsplit_takes_the_next_part": ((".foo.com", ".com", "foo.com"), "a.foo.com"),
    "dotsplit_takes_the_last_part": ((".com",), "a.foo.com"),
    "dotsplit_keeps_the_port": ((".foo.com:80", ".foo.com"), "a.foo.com:80"),
    "dotsplit_of_a_key_that_begins_with_a_dot": ((".com",), ".foo.com"),
    "dotsplit_asks_five_times": ((".e.f.g",), "a.b.c.d.e.f.g"),
    "dotsplit_does_not_ask_a_sixth_time": ((".f.g",), "a.b.c.d.e.f.g"),
    "dotsplit_knows_no_part_without_its_dot": (("foo.com",), "a.foo.com"),
}
DOTSPLIT = [Case(2, name, partial(dotsplit, *each), quick="next" in name) for name, each in SPLITS.items()]


@case(2)
def without_dotsplit_a_part_serves_nobody(stage: Stage) -> None:
    stage.start()
    keys(stage, ".foo.com")
    stage.ask(request("a.foo.com"))


@case(2)
def dotsplit_goes_on_where_the_exact_keys_node_refuses(stage: Stage) -> None:
    stage.start("--subscription-dotsplit")
    stage.call(refused := stage.dead_address(), "refused")
    stage.announce(refused, key="a.foo.com")
    keys(stage, ".foo.com")
    stage.see("turns", stage.turns(2, request("a.foo.com")))


@case(2)
def the_fallback_key_serves_where_the_keys_node_refuses(stage: Stage) -> None:
    stage.start(subscription_fallback_key="all.com")
    stage.call(refused := stage.dead_address(), "refused")
    stage.announce(refused)
    keys(stage, "all.com")
    stage.see("turns", stage.turns(2))


@case(2, why=["dotsplit-fallback"], differs={"turns": ("-", "A"), "node 1": ((), (request("a.org"),)),
      "stats all.com hits": (None, 1), **{f"stats all.com <node 1> {name}": (None, 1)
                                          for name in ("requests", "last_requests", "tx")},
      "stats all.com <node 1> rx": (None, len(request("a.org")))})  # fmt: skip
def the_fallback_key_beside_dotsplit(stage: Stage) -> None:
    stage.start("--subscription-dotsplit", subscription_fallback_key="all.com")
    keys(stage, "all.com")
    stage.see("turns", stage.turns(1, request("a.org")))
