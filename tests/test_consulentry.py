"""Consul's answers as nodes: what an instance may say, what is dropped, and that nothing else ever happens."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.consulentry import Check, Wanted, changed_checks, read_catalog, read_checks, read_service, written_checks
from router.node import Node

SERF = {"Node": "n1", "CheckID": "serfHealth", "Status": "passing", "ServiceName": "", "ServiceID": ""}


def check(status: str) -> dict[str, Any]:
    return {"Node": "n1", "CheckID": "service:a1", "Status": status, "ServiceName": "app", "ServiceID": "a1"}


def instance(*statuses: str, tags: Any = ("uwsgi",), meta: Any = None, **service: Any) -> dict[str, Any]:
    """As /v1/health/service/app answers it; what a test says of the service goes into it as is."""
    said = {"ID": "a1", "Service": "app", "Tags": tags, "Address": "10.0.0.5", "Meta": meta, "Port": 3031, **service}
    said["Tags"] = list(tags) if isinstance(tags, tuple) else tags
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.1"},
        "Service": said,
        "Checks": [SERF, *map(check, statuses)],
    }


def pools(*entries: Any, wanted: Wanted = Wanted("uwsgi")) -> dict[str, list[Node]]:  # noqa: B008  # a frozen value
    found = read_service("app", list(entries), wanted)
    assert not found.malformed
    return found.pools


def malformed(entry: Any) -> str:
    """What is said of `entry`, which must cost itself alone."""
    other = instance(Address="10.0.0.9")
    found = read_service("app", [other, entry, other], Wanted("uwsgi"))
    assert found.pools == {"app": [Node("10.0.0.9:3031")] * 2}
    (text,) = found.malformed
    return text


def test_without_a_word_the_key_is_the_service() -> None:
    assert pools(instance("passing")) == {"app": [Node("10.0.0.5:3031")]}


def test_an_instance_without_checks_serves() -> None:
    assert pools({**instance(), "Checks": None}) == {"app": [Node("10.0.0.5:3031")]}


@pytest.mark.parametrize("tag", ["uwsgi", ""])
def test_only_instances_with_the_tag(tag: str) -> None:
    found = pools(instance(), instance(tags=("web",), Address="10.0.0.6"), wanted=Wanted(tag))
    assert [node.address for node in found["app"]] == ["10.0.0.5:3031", "10.0.0.6:3031"][: 1 if tag else 2]


@pytest.mark.parametrize(
    ("tags", "meta", "keys"),
    [
        (("uwsgi", "uwsgi-key=foo.com"), None, ["foo.com"]),
        (("uwsgi-key=foo.com", "uwsgi", "uwsgi-key=bar.com/app"), None, ["foo.com", "bar.com/app"]),
        (("uwsgi",), {"uwsgi-key": "foo.com, bar.com"}, ["foo.com", "bar.com"]),
        (("uwsgi", "uwsgi-key=foo.com"), {"uwsgi-key": "foo.com,bar.com"}, ["foo.com", "bar.com"]),
        (("uwsgi", "uwsgi-key"), {}, ["app"]),
        (("uwsgi",), {"uwsgi-key": "ü.example"}, ["ü.example"]),
    ],
)
def test_keys(tags: tuple[str, ...], meta: dict[str, str] | None, keys: list[str]) -> None:
    assert list(pools(instance(tags=tags, meta=meta))) == keys


@pytest.mark.parametrize("where", ["tags", "meta"])
def test_how_a_node_wants_to_be_used(where: str) -> None:
    said = {"uwsgi-weight": "3", "uwsgi-backup": "1", "uwsgi-modifier1": "5", "uwsgi-modifier2": "255"}
    said["uwsgi-algorithm"] = "lrc"
    tags = ("uwsgi", *(f"{name}={value}" for name, value in said.items())) if where == "tags" else ("uwsgi",)
    node = Node("10.0.0.5:3031", weight=3, backup=1, modifier1=5, modifier2=255, algorithm="lrc")
    assert pools(instance(tags=tags, meta=said if where == "meta" else None)) == {"app": [node]}


def test_the_meta_is_stronger_than_a_tag_and_the_first_tag_than_a_later_one() -> None:
    tags = ("uwsgi", "uwsgi-weight=2", "uwsgi-weight=9", "uwsgi-backup=2")
    assert pools(instance(tags=tags, meta={"uwsgi-backup": "1"})) == {"app": [Node("10.0.0.5:3031", 2, 1)]}


def test_consuls_own_weights() -> None:
    weights = {"Passing": 7, "Warning": 2}
    assert pools(instance("passing", Weights=weights)) == {"app": [Node("10.0.0.5:3031", 7)]}
    assert pools(instance("passing", Weights=weights, meta={"uwsgi-weight": "3"}))["app"][0].weight == 3
    warning = Wanted("uwsgi", warning=True)
    assert pools(instance("passing", "warning", Weights=weights), wanted=warning) == {"app": [Node("10.0.0.5:3031", 2)]}
    assert pools(instance("warning", Weights={"Passing": 7, "Warning": 0}), wanted=warning) == {}


def test_weight_0_is_no_requests() -> None:
    assert pools(instance(meta={"uwsgi-weight": "0"})) == {}


@pytest.mark.parametrize("status", ["warning", "critical", "maintenance", "", "PASSING"])
def test_one_check_that_is_not_passing_is_enough(status: str) -> None:
    assert pools(instance("passing", status, "passing")) == {}
    if status != "warning":
        assert pools(instance("warning", status), wanted=Wanted("uwsgi", warning=True)) == {}


def test_a_machine_that_fails_takes_its_instances_along() -> None:
    entry = instance("passing")
    entry["Checks"][0] = {**SERF, "Status": "critical"}
    assert pools(entry) == {}


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("", "10.0.0.1:3031"),
        (None, "10.0.0.1:3031"),
        ("::1", "[::1]:3031"),
        ("fe80::1%eth0", "[fe80::1%eth0]:3031"),
        ("app.internal", "app.internal:3031"),
    ],
)
def test_addresses(address: str | None, node: str) -> None:
    if "%" in node:
        node = node.replace("eth0", "lo")
        address = str(address).replace("eth0", "lo")
    assert pools(instance(Address=address)) == {"app": [Node(node)]}


@pytest.mark.parametrize("kind", ["connect-proxy", "mesh-gateway"])
def test_a_proxy_that_inherits_the_tags_is_no_node(kind: str) -> None:
    assert pools(instance(Kind=kind), instance(Kind="")) == {"app": [Node("10.0.0.5:3031")]}


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (None, "'app', instance without id: an instance is null, expected an object"),
        ([], "an instance is a list"),
        ({**instance(), "Node": 5}, "Node is a number, expected an object"),
        ({**instance(), "Service": "x"}, "instance without id: Service is a text"),
        ({**instance(), "Checks": {}}, "'a1': Checks is an object, expected a list"),
        ({**instance(), "Checks": [7]}, "a check is a number, expected an object"),
        ({**instance(), "Checks": [{"Status": 7}]}, "Status is a number, expected a text"),
        (instance(tags="uwsgi"), "Tags is a text, expected a list"),
        (instance(tags=["uwsgi", 7]), "a tag is a number, expected a text"),
        (instance(meta=["uwsgi-key"]), "Meta is a list, expected an object"),
        (instance(meta={"uwsgi-weight": 7}), "uwsgi-weight is a number, expected a text"),
        (instance(meta={"uwsgi-weight": "abc"}), "uwsgi-weight 'abc' is no number from 0 to 65535"),
        (instance(meta={"uwsgi-weight": ""}), "uwsgi-weight '' is no number"),
        (instance(meta={"uwsgi-weight": "65536"}), "uwsgi-weight '65536' is no number from 0 to 65535"),
        (instance(meta={"uwsgi-backup": "-1"}), "uwsgi-backup '-1' is no number"),
        (instance(meta={"uwsgi-algorithm": "fair"}), "uwsgi-algorithm 'fair' is no algorithm (legal: wrr, lrc, "),
        (instance(meta={"uwsgi-modifier1": "256"}), "uwsgi-modifier1 '256' is no number from 0 to 255"),
        (instance(tags=("uwsgi", "uwsgi-modifier2=²")), "uwsgi-modifier2 '²' is no number"),
        (instance(Weights=[1]), "Weights is a list"),
        (instance(Weights={"Passing": "1"}), "Passing is a text, expected a whole number"),
        (instance(Weights={"Passing": -1}), "Weights.Passing -1 is out of range (legal: 0 to 65535)"),
        (instance(Port="3031"), "Port is a text, expected a whole number"),
        (instance(Port=True), "Port is a truth value"),
        (instance(Port=3031.5), "Port is a number, expected a whole number"),
        (instance(Port=0), "address '10.0.0.5:0': port 0 is out of range (1 to 65535)"),
        (instance(Port=70000), "port 70000 is out of range"),
        (instance(Address=7), "Address is a number, expected a text"),
        (instance(Address="/run/app.sock", Port=0), "address '/run/app.sock:0' has no host"),
        (instance(Address="@app"), "address '@app:3031' has no host"),
        (instance(Address="10.0.0.5:80"), "address '10.0.0.5:80' is neither IPv4, IPv6 nor a host name"),
        (instance(Address="a b"), "address 'a b:3031': "),
        (instance(Address="224.0.0.1"), "multicast"),
        (instance(tags=("uwsgi", "uwsgi-key=")), "uwsgi-key '' has 0 bytes, expected 1 to 255"),
        (instance(meta={"uwsgi-key": "a,,b"}), "uwsgi-key '' has 0 bytes"),
        (instance(meta={"uwsgi-key": "ü" * 128}), "has 256 bytes, expected 1 to 255"),
        (instance(meta={"uwsgi-key": "\ud800"}), r"'\ud800' is no text"),
        ({**instance(Address=""), "Node": {"Node": "n1"}}, "address ':3031' has no host"),
    ],
)
def test_a_malformed_instance_costs_itself_alone(entry: Any, text: str) -> None:
    assert text in malformed(entry)


@pytest.mark.parametrize("answer", [None, {}, "", 5, True])
def test_an_answer_that_is_no_list_is_an_error(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"^the answer to /v1/health/.* is .*, expected a list$"):
        read_service("app", answer, Wanted())
    with pytest.raises(ValueError, match=r"^the answer to /v1/health/.* is .*, expected a list$"):
        read_checks(answer)


def test_the_machines_of_a_service_even_where_nothing_serves() -> None:
    assert read_service("app", [instance("critical")], Wanted("uwsgi")).machines == {"n1"}


def test_which_checks_changed() -> None:
    before, _ = read_checks([SERF, check("passing"), {**check("passing"), "CheckID": "x", "ServiceName": "b"}])
    assert changed_checks(before, before) == (set(), set())
    now, _ = read_checks([{**SERF, "Status": "critical"}, {**check("passing"), "Output": "new"}])
    assert changed_checks(before, now) == ({"b"}, {"n1"})
    now, _ = read_checks([SERF, check("critical"), {**check("passing"), "CheckID": "x", "ServiceName": "c"}])
    assert changed_checks(before, now) == ({"app", "b", "c"}, set())


def test_a_check_that_changed_to_and_fro_was_written() -> None:
    before, _ = read_checks([SERF, {**check("passing"), "ModifyIndex": 20}])
    now, _ = read_checks([{**SERF, "ModifyIndex": 1}, {**check("passing"), "ModifyIndex": 22}])
    assert changed_checks(before, now) == (set(), set())
    assert written_checks(before, now) == ({"app"}, {"n1"})
    assert written_checks(now, now) == (set(), set())


def test_a_malformed_check_costs_itself_alone() -> None:
    checks, wrong = read_checks([SERF, 5, {**SERF, "Status": []}])
    assert checks == {("n1", "serfHealth"): Check("", "passing")}
    assert wrong == ["a check is a number, expected an object", "Status is a list, expected a text"]


def test_the_catalog() -> None:
    services, wrong = read_catalog({"consul": [], "app": ["uwsgi", "a"], "b": None, "c": "uwsgi", "\ud800": []})
    assert services == {"consul": frozenset(), "app": {"uwsgi", "a"}, "b": frozenset()}
    assert wrong == ["'c': Tags is a text, expected a list", r"'\ud800': '\ud800' is no text"]
    with pytest.raises(ValueError, match=r"^the answer to /v1/catalog/services is a list, expected an object$"):
        read_catalog([])


WORDS = st.sampled_from(
    ["Node", "Service", "Checks", "Tags", "Meta", "Weights", "Passing", "Address", "Port", "Status", "ServiceName",
     "CheckID", "Kind", "uwsgi", "uwsgi-key", "uwsgi-key=a", "uwsgi-weight", "1", "passing",
     "10.0.0.1", "::1", "\ud800"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=6),
    max_leaves=20,
)


@given(JSON)
@pytest.mark.slow
def test_any_json_gives_a_value_or_the_one_error(answer: Any) -> None:
    for read, shape in (
        (lambda: read_service("app", answer, Wanted("uwsgi")), list),
        (lambda: read_checks(answer), list),
        (lambda: read_catalog(answer), dict),
    ):
        if isinstance(answer, shape):
            read()
        else:
            with pytest.raises(ValueError, match=r"^the answer to /v1/"):
                read()


@given(st.data())
@pytest.mark.slow
def test_one_field_of_any_type_costs_its_instance_alone(data: st.DataObject) -> None:
    entry = json.loads(json.dumps(instance("passing", meta={"uwsgi-weight": "2"}, Weights={"Passing": 1})))
    place: Any = entry
    while True:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[name], dict | list) and place[name] and data.draw(st.booleans()):
            place = place[name]
            continue
        place[name] = data.draw(JSON)
        break
    other = instance(Address="10.0.0.9")
    found = read_service("app", [other, entry], Wanted("uwsgi"))
    assert Node("10.0.0.9:3031") in found.pools["app"]
    assert len(found.malformed) <= 1
