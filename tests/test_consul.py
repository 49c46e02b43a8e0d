"""The Consul source before a scripted agent: what its feed hears, verb by verb, whatever the agent does."""

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from consul_server import ScriptedAgent, entry
from scripted import wait_for
from servers import TESTS, Process

NODE, OTHER = "10.0.0.1:1", "10.0.0.2:2"
SERVICE = "/v1/health/service/"
CHECKS, CATALOG = "/v1/health/state/any", "/v1/catalog/services"

CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]"
WRONG: list[bytes | int] = [500, 403, b"", b"garbage", b"5", b"null", b"[[[", CUT]


class Told(Process):
    """consul_child.py before this agent; what its feed has heard since the last `since`."""

    def __init__(
        self,
        agent: ScriptedAgent,
        query: str = "",
        *,
        reread: float = 600,
        wait: float = 20,
        read_limit: float = 10,
        recalled: tuple[dict[str, list[str]], Any] = ({}, None),
    ) -> None:
        limits = [str(seconds) for seconds in (reread, wait, read_limit)]
        child = TESTS / "consul_child.py"
        super().__init__(sys.executable, "-P", child, agent.url(query), *limits, json.dumps(recalled))
        self._from = 0

    @property
    def verbs(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.lines[self._from :] if line.startswith("[")]

    def hear(self, *verb: Any) -> None:
        """Until this is among them; None stands for anything."""

        def heard() -> bool:
            return any(
                len(one) >= len(verb) and all(w is None or w == o for w, o in zip(verb, one, strict=False))
                for one in self.verbs
            )

        with contextlib.suppress(AssertionError):
            wait_for(heard, f"{verb}")
        assert heard(), f"{verb} is not among {self.verbs} ({self.lines[-3:]})"

    def since(self) -> None:
        """Forget what has been heard so far."""
        self._from = len(self.lines)


@pytest.fixture
def agent() -> Iterator[ScriptedAgent]:
    with ScriptedAgent() as agent:
        agent.services = {"app": [entry(NODE)], "web": [entry(OTHER)]}
        yield agent


def change(agent: ScriptedAgent, **services: list[Any]) -> None:
    agent.services.update(services)
    agent.moved()


def look_at_the_checks(agent: ScriptedAgent) -> None:
    """The watch gets an answer, and has understood it."""
    looks = agent.count(CHECKS)
    agent.moved()
    wait_for(lambda: agent.count(CHECKS) > looks, "the checks to be looked at")


def test_the_first_word_is_all_that_there_is(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace", {"app": [NODE], "web": [OTHER]})
        assert told.verbs[0][0] == "replace"


def test_nothing_is_a_word_too() -> None:
    with ScriptedAgent() as agent, Told(agent) as told:
        told.hear("replace", {})


def test_named_services_alone_with_any_tag(agent: ScriptedAgent) -> None:
    agent.services["app"] = [entry(NODE, Tags=["x"])]
    with Told(agent, "?service=app&service=none") as told:
        told.hear("replace", {"app": [NODE]})
        assert not agent.count(f"{SERVICE}web") and not agent.count(f"{SERVICE}none")


def test_a_check_that_changes_has_its_service_read_alone(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        wait_for(lambda: agent.count(CATALOG) == 2, "the catalog to be watched")
        agent.still.add(CATALOG)
        reads = agent.count(f"{SERVICE}web")
        change(agent, app=[entry(NODE, "critical")])
        told.hear("set", "app", [])
        assert agent.count(f"{SERVICE}web") == reads


def test_a_check_that_changes_and_changes_back_between_two_looks(agent: ScriptedAgent) -> None:
    """The service is read in between for another reason; the watch shows no change of status afterwards."""
    with Told(agent) as told:
        told.hear("replace")
        agent.still.add(CHECKS)
        change(agent, app=[entry(NODE, "critical")])  # the catalog has moved: all are read again
        told.hear("set", "app", [])
        agent.still.add(CATALOG)
        told.since()
        change(agent, app=[entry(NODE, written=99)])
        agent.still.discard(CHECKS)
        agent.moved()
        told.hear("set", "app", [NODE])


def test_a_check_that_changes_back_while_its_service_is_read(agent: ScriptedAgent) -> None:
    """The service's answer is from in between, and comes when the watch has seen the end."""
    with Told(agent) as told:
        told.hear("replace")
        agent.still.add(CATALOG)
        look_at_the_checks(agent)  # after the first read of all
        agent.still.discard(CATALOG)
        held = agent.held[f"{SERVICE}app"] = threading.Event()
        reads = agent.count(f"{SERVICE}app")
        agent.still.add(CHECKS)
        change(agent, app=[entry(NODE, "critical")])
        wait_for(lambda: agent.count(f"{SERVICE}app") > reads, "the service to be read")
        agent.still.add(CATALOG)
        time.sleep(0.2)  # the answer is made right after the question has been noted
        change(agent, app=[entry(NODE, written=99)])
        agent.still.discard(CHECKS)
        look_at_the_checks(agent)
        told.since()
        held.set()
        told.hear("set", "app", [])
        told.hear("set", "app", [NODE])


def test_a_key_has_the_nodes_of_all_services_that_name_it(agent: ScriptedAgent) -> None:
    meta = {"uwsgi-key": "foo.com,bar.com"}
    agent.services = {"app": [entry(NODE, Meta=meta)], "web": [entry(OTHER, Tags=["uwsgi", "uwsgi-key=foo.com"])]}
    with Told(agent) as told:
        told.hear("replace")
        pools = next(verb[1] for verb in told.verbs if verb[0] == "replace")
        assert {key: set(nodes) for key, nodes in pools.items()} == {"foo.com": {NODE, OTHER}, "bar.com": {NODE}}
        del agent.services["app"]
        agent.moved()
        told.hear("set", "bar.com", [])
        told.hear("set", "foo.com", [OTHER])


def test_a_service_that_loses_its_tag_goes(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        change(agent, app=[entry(NODE, Tags=["other"])])
        told.hear("set", "app", [])
        agent.answers[CATALOG] = json.dumps({"consul": [], "web": ["uwsgi"]}).encode()
        agent.moved()
        told.since()
        change(agent, web=[])
        told.hear("set", "web", [])


@pytest.mark.slow
def test_a_service_that_cannot_be_read_stays_alone_as_it_was(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        for number, answer in enumerate(WRONG):
            agent.answers[f"{SERVICE}app"] = answer
            told.since()
            change(agent, app=[], web=[entry(f"10.0.1.{number}:1")])
            told.hear("fail", None, "app")
            told.hear("set", "web", [f"10.0.1.{number}:1"])
            assert ["set", "app", []] not in told.verbs
            del agent.answers[f"{SERVICE}app"]
            told.hear("set", "app", [])
            told.hear("progress", "app")
            told.since()
            change(agent, app=[entry(NODE)])
            told.hear("set", "app", [NODE])
        assert len([line for line in told.lines if "cannot be read" in line]) == len(WRONG)
        assert not [line for line in told.lines if "raised" in line]


def test_one_service_that_fails_at_first_holds_up_no_other(agent: ScriptedAgent) -> None:
    agent.answers[f"{SERVICE}app"] = 500
    with Told(agent) as told:
        told.hear("set", "web", [OTHER])
        told.hear("fail", None, "app")
        assert "replace" not in [verb[0] for verb in told.verbs]  # for it has not spoken of all
        del agent.answers[f"{SERVICE}app"]
        told.hear("replace", {"app": [NODE], "web": [OTHER]})


@pytest.mark.parametrize("path", [CHECKS, CATALOG])
@pytest.mark.slow
def test_a_watch_that_fails_takes_nobody_away(agent: ScriptedAgent, path: str) -> None:
    with Told(agent) as told:
        told.hear("replace")
        for number, answer in enumerate(WRONG):
            told.since()
            agent.answers[path] = answer
            agent.moved()
            told.hear("raised")
            assert not [verb for verb in told.verbs if verb[0] == "replace" or (verb[0] == "set" and not verb[2])]
            agent.services["web"] = [entry(f"10.0.1.{number}:1")]
            del agent.answers[path]
            told.hear("replace", {"app": [NODE], "web": [f"10.0.1.{number}:1"]})


@pytest.mark.slow
def test_no_check_at_all_is_a_token_that_sees_nothing(agent: ScriptedAgent) -> None:
    agent.answers[CHECKS] = b"[]"
    agent.services = {}
    with Told(agent) as told:
        told.hear("raised", f"{CHECKS}: no check at all; the token lacks node:read, or no server is there yet")
        assert [verb[0] for verb in told.verbs] == ["raised"] * len(told.verbs)


@pytest.mark.parametrize("path", [CATALOG, f"{SERVICE}app"])
def test_a_token_that_loses_its_rights_takes_nobody_away(agent: ScriptedAgent, path: str) -> None:
    """What may not be seen is left out of an answer; older agents do not say so."""
    agent.still.add(CHECKS)  # of which nothing is heard meanwhile
    with Told(agent, reread=0.5) as told:
        told.hear("replace")
        told.since()
        agent.answers |= {CHECKS: b"[]", path: b"{}" if path == CATALOG else b"[]"}
        agent.moved()
        told.hear("raised", f"{CHECKS}: no check at all; the token lacks node:read, or no server is there yet")
        assert not [verb for verb in told.verbs if verb[0] == "replace" or (verb[0] == "set" and not verb[2])]


def test_a_service_that_could_never_be_read_fails_no_longer_when_it_is_gone(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        agent.answers[f"{SERVICE}new"] = 500
        change(agent, new=[entry("10.0.0.3:3")])
        told.hear("fail", None, "new")
        told.since()
        del agent.services["new"]
        agent.moved()
        told.hear("progress", "new")


@pytest.mark.slow
def test_an_index_that_falls(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        agent.services["app"] = []
        agent.moved(3)
        told.hear("set", "app", [])
        change(agent, web=[])
        told.hear("set", "web", [])
        assert not [verb for verb in told.verbs if verb[0] == "raised"]


@pytest.mark.slow
def test_whoever_went_between_two_runs_is_missed(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        told.since()
        agent.answers[CHECKS] = 500
        agent.moved()
        told.hear("raised")
        del agent.services["app"]
        agent.answers[f"{SERVICE}web"] = 500  # though nothing can be said of all
        del agent.answers[CHECKS]
        told.hear("set", "app", [])


@pytest.mark.slow
def test_what_no_watch_sees_is_seen_later(agent: ScriptedAgent) -> None:
    with Told(agent, reread=0.5) as told:
        told.hear("replace")
        agent.services["app"] = [entry(OTHER)]  # as when the address of a machine changes: nothing moves
        told.hear("set", "app", [OTHER])


@pytest.mark.slow
def test_a_malformed_entry_is_told_once(agent: ScriptedAgent) -> None:
    agent.services["app"].append(entry(OTHER, Meta={"uwsgi-weight": "abc"}))
    with Told(agent) as told:
        told.hear("replace", {"app": [NODE], "web": [OTHER]})
        for number in range(3):
            agent.services["web"] = [entry(f"10.0.1.{number}:1")]
            agent.moved()
            told.hear("set", "web", [f"10.0.1.{number}:1"])
        text = f"'app', instance '{OTHER}': uwsgi-weight 'abc' is no number from 0 to 65535"
        assert [verb for verb in told.verbs if verb[0] == "reject"] == [["reject", "malformed entry", text]]


@pytest.mark.slow
def test_a_busy_cluster_costs_few_reads(agent: ScriptedAgent) -> None:
    with Told(agent) as told:
        told.hear("replace")
        asked, reads = agent.count(CATALOG), agent.count(f"{SERVICE}web")
        while agent.count(CATALOG) < asked + 40:  # at 20 a second
            agent.moved()
        assert agent.count(f"{SERVICE}web") - reads < 20


@pytest.mark.slow
def test_a_run_that_ends_leaves_nothing_behind(agent: ScriptedAgent) -> None:
    agent.answers[CATALOG] = 500
    with Told(agent) as told:
        wait_for(lambda: len(told.verbs) >= 20, "20 runs")
        ends = [verb[2:] for verb in told.verbs if verb[0] == "raised"]
        del agent.answers[CATALOG]
        told.hear("replace")
        told.send_signal(signal.SIGTERM)
        told.hear("killed")
        for greenlets, descriptors in (ends[-1], told.verbs[-1][1:]):
            assert greenlets <= ends[0][0] and descriptors <= ends[0][1] + 2  # a run has eight, and up to six


@pytest.mark.slow
def test_an_agent_that_falls_silent(agent: ScriptedAgent) -> None:
    with Told(agent, wait=0.1, read_limit=0.5) as told:
        told.hear("replace")
        told.hear("raised")  # this server waits for longer than it is told
        assert "timed out" in next(verb[1] for verb in told.verbs if verb[0] == "raised")
        assert not [verb for verb in told.verbs if verb[0] == "set" and not verb[2]]


@pytest.mark.slow
def test_an_agent_that_says_a_byte_now_and_then(agent: ScriptedAgent) -> None:
    agent.dripping.add(f"{SERVICE}app")
    with Told(agent, read_limit=0.5) as told:
        told.hear("fail", f"{SERVICE}app: no whole answer within 4 s", "app")
        told.hear("set", "web", [OTHER])


# From before the start.

THIRD, FOURTH = "10.0.0.3:3", "10.0.0.4:4"
BEFORE = {"app": [NODE, THIRD], "web": [OTHER], "old": [FOURTH]}
WHOSE = {service: {service: addresses} for service, addresses in BEFORE.items()}


def who_left(told: Told) -> list[list[Any]]:
    return sorted(verb[1:] for verb in told.verbs if verb[0] == "left")


@pytest.mark.parametrize("memory", [WHOSE, ["garbage"]], ids=["remembered", "nobody knows which service had it"])
def test_what_is_recalled_goes_where_it_is_denied_and_stays_without_a_gap(agent: ScriptedAgent, memory: Any) -> None:
    with Told(agent, recalled=(BEFORE, memory)) as told:
        told.hear("replace", {"app": [NODE], "web": [OTHER]})
        told.hear("left", "app", [THIRD])
        told.hear("left", "old", [FOURTH])
        assert len(who_left(told)) == 2


def test_what_is_recalled_of_a_service_that_cannot_be_read_stays_alone(agent: ScriptedAgent) -> None:
    """Also under a key that another service serves as well; and who is denied does not wait for it."""
    agent.services["web"] = [entry(OTHER, Meta={"uwsgi-key": "app"})]
    agent.answers[f"{SERVICE}app"] = 500
    whose = {"app": {"app": [NODE]}, "web": {"app": [OTHER]}, "old": {"old": [FOURTH]}}
    with Told(agent, recalled=({"app": [NODE, OTHER], "old": [FOURTH]}, whose)) as told:
        told.hear("fail", None, "app")
        told.hear("set", "app", [NODE, OTHER])
        told.hear("left", "old", [FOURTH])
        assert "replace" not in [verb[0] for verb in told.verbs]
        del agent.answers[f"{SERVICE}app"]
        told.hear("replace", {"app": [NODE, OTHER]})
        assert who_left(told) == [["old", [FOURTH]]]
