"""Cases of the nodes that the options name (section 2): `to`, `fallback`, `fallback-on-no-key`."""

from typing import Any

from clients import packet, request
from like import ANSWER_S, CLOSED, GET, OPEN, OPEN_S, A, Stage, case
from scripted import ScriptedNode, answer, wait_for

UNANNOUNCED: dict[str, Any] = {
    "subscription_server": None
}  # the fastrouter looks at `to` only where it takes no announcements
INI = """[uwsgi]
master = true
fastrouter = {router}
fastrouter-stats = {stats}
"""


@case(2, quick=True)
def to_takes_turns_for_any_key(stage: Stage) -> None:
    stage.start(to=[stage.unknown_node(), stage.unknown_node()], **UNANNOUNCED)
    stage.see("alternating", stage.turns(6, request("any.com")) in ("ABABAB", "BABABA"))
    stage.leave_out("node")


@case(2)
def to_named_twice_has_two_turns(stage: Stage) -> None:
    first = stage.unknown_node()
    stage.start(to=[first, first, stage.unknown_node()], **UNANNOUNCED)
    stage.see("turns", sorted(stage.turns(6)))
    stage.leave_out("node", "stats static")  # shown as one node, or as two


@case(2)
def to_in_an_ini(stage: Stage) -> None:
    stage.start(ini=INI + f"fastrouter-to = {stage.unknown_node()}\nfastrouter-to = {stage.unknown_node()}\n")
    stage.see("turns", sorted(stage.turns(4)))
    stage.leave_out("node")


@case(2)
def to_at_a_path(stage: Stage) -> None:
    stage.start(to=[stage.unknown_node(address=str(stage.folder / "app.sock"))], **UNANNOUNCED)
    stage.ask()


@case(2)
def to_needs_a_key_all_the_same(stage: Stage) -> None:
    node = stage.unknown_node()
    stage.start(to=[node], fallback=[node], fallback_on_no_key=True, **UNANNOUNCED)
    stage.ask(packet([("REQUEST_METHOD", "GET")]))


@case(2)
def to_writes_modifiers_of_0(stage: Stage) -> None:
    stage.start(to=[stage.unknown_node()], **UNANNOUNCED)
    stage.ask(packet([("HTTP_HOST", "foo.com")], 5, 6))


@case(2, why=["static-modifiers"], differs={"modifiers": ((0, 0), (5, 6))})
def to_with_modifiers(stage: Stage) -> None:
    stage.start(to=[stage.unknown_node() + ",5,6"], **UNANNOUNCED)
    stage.ask()
    modifiers_that_came(stage)
    stage.leave_out("node", "stats static")  # the fastrouter shows the address with what stands behind it


def modifiers_that_came(stage: Stage) -> None:
    head = stage.nodes[-1].connections[0].head
    stage.see("modifiers", (head[0], head[3]))


@case(2)
def to_skips_a_node_that_has_failed(stage: Stage) -> None:
    stage.start(to=[stage.dead_address(), stage.unknown_node()], **UNANNOUNCED)
    stage.see("turns", stage.turns(6))


@case(2)
def to_tries_a_failed_node_again_after_gracetime(stage: Stage) -> None:
    address = stage.dead_address()
    stage.start(to=[address], gracetime=1, **UNANNOUNCED)
    stage.ask()
    with ScriptedNode(answer(b"Z"), address=address):
        stage.see("refused at first", stage.turns(1))
        wait_for(lambda: stage.turns(1) == "Z", "the node to be asked again")
    stage.leave_out("stats static", "log")


@case(2)
def to_where_all_have_failed(stage: Stage) -> None:
    stage.start(to=[stage.dead_address("first"), stage.dead_address("second")], **UNANNOUNCED)
    stage.ask()
    stage.ask()
    stage.leave_out("log [uwsgi-fastrouter] unable")  # which of both is asked first


@case(2)
def to_makes_4_connects_and_no_more(stage: Stage) -> None:
    stage.start(to=[stage.dead_address(f"dead {number}") for number in range(6)], **UNANNOUNCED)
    stage.ask()
    unable = r"unable to connect\(\) to node"
    wait_for(lambda: len(stage.lines(unable)) >= 4, "the lines in the log")
    stage.router.wait_idle()
    stage.see("connects", len(stage.lines(unable)))
    stage.leave_out("log", "stats static")


@case(
    2,
    why=["to-beside"],
    differs={"client 1": (CLOSED, A), "node 1": ((), (GET,)), "stats static <node 1> hits": (None, 1)},
)
def to_beside_a_subscription_server(stage: Stage) -> None:
    """An unknown key, and then one that is announced."""
    stage.start(to=[stage.unknown_node()])
    stage.ask()
    stage.node(key="known.com")
    stage.ask(request("known.com"))


@case(2, quick=True)
def fallback_where_the_only_node_fails(stage: Stage) -> None:
    stage.start(fallback=[stage.unknown_node()])
    stage.announce(stage.dead_address())
    stage.ask()


MARKING = "log [uwsgi-fastrouter] foo.com => marking <{}> as failed"


@case(2, why=["fallback-marked"], differs={MARKING.format("first"): (None, 1)})
def fallback_nodes_are_asked_in_their_order(stage: Stage) -> None:
    stage.start(fallback=[stage.dead_address("first"), stage.unknown_node(), stage.unknown_node()])
    stage.announce(stage.dead_address())
    stage.ask()


@case(2, why=["fallback-marked"], differs={MARKING.format(name): (None, 1) for name in ("first", "second")})
def fallback_nodes_that_all_fail(stage: Stage) -> None:
    stage.start(fallback=[stage.dead_address("first"), stage.dead_address("second")])
    stage.announce(stage.dead_address())
    stage.ask()


@case(2, why=["fallback-last"], differs={"letters": ("AB", "B")})
def fallback_where_the_pool_has_another_node(stage: Stage) -> None:
    stage.start(fallback=[stage.unknown_node()])
    stage.announce(stage.dead_address())
    stage.node()
    stage.see("letters", "".join(sorted(set(stage.turns(4)))))
    stage.leave_out("node", "stats", "log")


@case(2, why=["static-modifiers"], differs={"modifiers": ((5, 6), (0, 0))})
def fallback_after_a_node_with_modifiers(stage: Stage) -> None:
    stage.start(fallback=[stage.unknown_node()])
    stage.announce(stage.dead_address(), modifier1=5, modifier2=6)
    stage.ask()
    modifiers_that_came(stage)
    stage.leave_out("node")


@case(2)
def fallback_is_not_for_unknown_keys(stage: Stage) -> None:
    stage.start(fallback=[stage.unknown_node()])
    stage.ask()


@case(2, quick=True)
def fallback_on_no_key_for_unknown_keys(stage: Stage) -> None:
    stage.start(fallback=[stage.unknown_node(), stage.unknown_node()], fallback_on_no_key=True)
    stage.see("turns", stage.turns(3))


@case(2)
def fallback_on_no_key_in_an_ini(stage: Stage) -> None:
    options = f"fastrouter-fallback = {stage.unknown_node()}\nfastrouter-fallback-on-no-key = true\n"
    at_once = "[gfrouter]\nwarm-timeout = 0\n"
    stage.start(ini=INI + "fastrouter-subscription-server = {subscriptions}\n" + options + at_once)
    stage.ask()


@case(2)
def fallback_on_no_key_where_all_of_a_key_have_failed(stage: Stage) -> None:
    stage.start(fallback=[stage.unknown_node()], fallback_on_no_key=True)
    stage.announce(stage.dead_address())
    stage.see("turns", stage.turns(3))


@case(2)
def a_fallback_node_that_was_away_is_asked_at_once(stage: Stage) -> None:
    """The only fallback node was away for a moment: it is asked again at once, whatever `gracetime` says."""
    address = stage.dead_address()
    stage.start(fallback=[address], fallback_on_no_key=True)
    stage.ask()
    with ScriptedNode(answer(b"Z"), address=address):
        stage.see("turns", stage.turns(2))
    stage.leave_out("log")


@case(2)
def the_fallback_key_serves_keys_without_nodes(stage: Stage) -> None:
    stage.start(subscription_fallback_key="all.com")
    stage.node(key="all.com")
    stage.ask()


@case(
    5,
    why=["cheap-static"],
    differs={
        "client 1": (OPEN, A),
        "node 1": ((), (GET,)),
        "stats static <node 1> hits": (None, 1),
        "stats cheap": (1, None),
        "log [uWSGI fastrouter pid N] leaving cheap mode...": (None, 1),
    },
)
def cheap_with_nodes_that_options_name(stage: Stage) -> None:
    stage.start(cheap=True, to=[stage.unknown_node()], **UNANNOUNCED)
    stage.ask(wait=OPEN_S if stage.fastrouter else ANSWER_S)
