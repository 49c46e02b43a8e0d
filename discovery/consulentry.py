"""What Consul's answers say, as nodes: functions from parsed JSON to values. No I/O, no clock.

An instance of a service is a node for each of its keys. What it says of itself stands in its meta or, as NAME=VALUE,
in its tags; where both say something, the meta counts, and their keys add up:

    uwsgi-key          one key a tag, or several in the meta with commas between them; else the service's name
    uwsgi-weight       0 to 65535, 0 for no requests; else Consul's own weight of the service
    uwsgi-backup       the level: 0, the default, serves first
    uwsgi-modifier1, uwsgi-modifier2
    uwsgi-algorithm    of the pool that the instance opens

It serves while all checks of it and of its machine are passing (with `warning`, also while some warn; Consul's weight
for that counts then); so it does where there is none. Proxies that Consul puts beside a service are left out: they
inherit its tags, but speak no uwsgi.

A malformed instance costs itself alone: nothing is guessed for what cannot be read. An answer that is not of the
expected shape at all is a ValueError, so that none of it is taken for "there is nothing".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, NamedTuple

from router.address import AddressError, HostName, Inet, parse_node, quoted
from router.algorithmname import LEGAL, is_algorithm
from router.node import Node

CHECKS, CATALOG, SERVICE = "/v1/health/state/any", "/v1/catalog/services", "/v1/health/service/"

KEY, WEIGHT, BACKUP = "uwsgi-key", "uwsgi-weight", "uwsgi-backup"
MODIFIER1, MODIFIER2 = "uwsgi-modifier1", "uwsgi-modifier2"
ALGORITHM = "uwsgi-algorithm"

LONGEST_KEY = 255  # bytes; the router takes no longer one from a request
LARGEST_WEIGHT = 65_535  # Consul's own limit
LARGEST_BACKUP = 2**31 - 1  # as in an announcement
LARGEST_BYTE = 255  # modifiers, as the packet's header has them
DIGITS = 10  # of the largest of these

PASSING, WARNING = "passing", "warning"

Pools = dict[str, list[Node]]


class Check(NamedTuple):
    """One check: its service ("": it is the machine's), its status, and Consul's index when it was written last."""

    service: str
    status: str
    written: int = 0


Checks = dict[tuple[str, str], Check]  # by machine and the check's id
Written = tuple[tuple[str, str], Check | None, Check | None]  # the same; how it was, how it is


@dataclass(frozen=True)
class Wanted:
    """Which instances are ours: those with `tag` ("": any), and whether they serve while a check of them warns."""

    tag: str = ""
    warning: bool = False


@dataclass(frozen=True)
class Instances:
    """What one service has: its nodes by key, the machines that it is on, and what had to be dropped."""

    pools: Pools
    machines: frozenset[str]
    malformed: tuple[str, ...] = ()


class MalformedError(ValueError):
    """One entry that cannot be understood; the text says what of it."""


def read_service(name: str, answer: Any, wanted: Wanted) -> Instances:
    """What SERVICE and `name` answer; ValueError where that is no list."""
    pools: Pools = {}
    machines: set[str] = set()
    malformed: list[str] = []
    for entry in _list(answer, f"the answer to {SERVICE}{name}"):
        try:
            machine = _table(_table(entry, "an instance").get("Node"), "Node")
            machines.add(_text(machine, "Node"))
            for key, node in _instance(name, entry, machine, wanted):
                pools.setdefault(key, []).append(node)
        except MalformedError as error:
            malformed.append(f"{quoted(name)}, instance {_who(entry)}: {error}")
    return Instances(pools, frozenset(machines), tuple(malformed))


def read_checks(answer: Any) -> tuple[Checks, list[str]]:
    """(what CHECKS answers, what of it is malformed); ValueError where that is no list."""
    checks: Checks = {}
    malformed: list[str] = []
    for check in _list(answer, f"the answer to {CHECKS}"):
        try:
            table = _table(check, "a check")
            checks[_text(table, "Node"), _text(table, "CheckID")] = Check(
                _text(table, "ServiceName"), _text(table, "Status"), _whole(table, "ModifyIndex")
            )
        except MalformedError as error:
            malformed.append(str(error))
    return checks, malformed


def changed_checks(before: Checks, now: Checks) -> tuple[set[str], set[str]]:
    """(services, machines) of which a check came, went or has another status."""
    return _concerned(
        (where, old, new) for where, old, new in _written(before, now) if not (old and new and old[:2] == new[:2])
    )


def written_checks(before: Checks, now: Checks) -> tuple[set[str], set[str]]:
    """The same for every change, also to another status and back again, or of what a check says alone."""
    return _concerned(_written(before, now))


def _written(before: Checks, now: Checks) -> Iterator[Written]:
    for where, new in now.items():
        old = before.get(where)
        if old != new:
            yield where, old, new
    for where in before.keys() - now.keys():
        yield where, before[where], None


def _concerned(written: Iterable[Written]) -> tuple[set[str], set[str]]:
    services: set[str] = set()
    machines: set[str] = set()
    for (machine, _), *both in written:
        for check in filter(None, both):
            if check.service:
                services.add(check.service)
            else:
                machines.add(machine)
    return services, machines


def read_catalog(answer: Any) -> tuple[dict[str, frozenset[str]], list[str]]:
    """(service → its tags, what is malformed) of what CATALOG answers; ValueError where that is no object."""
    services: dict[str, frozenset[str]] = {}
    malformed: list[str] = []
    for name, tags in _table(answer, f"the answer to {CATALOG}").items():
        try:
            _encoded(name)  # what cannot be written into a URL cannot be asked for
            services[name] = frozenset(_tags([] if tags is None else tags))
        except MalformedError as error:
            malformed.append(f"{quoted(name)}: {error}")
    return services, malformed


def _instance(
    name: str, entry: Mapping[str, Any], machine: Mapping[str, Any], wanted: Wanted
) -> Iterator[tuple[str, Node]]:
    """(key, node) for each key that the instance serves now; none where it is not ours, or not to be asked."""
    service = _table(entry.get("Service"), "Service")
    tags = _tags(_given(service, "Tags", []))
    if (wanted.tag and wanted.tag not in tags) or service.get("Kind"):
        return
    said = {tag.partition("=")[0]: tag.partition("=")[2] for tag in reversed(tags) if "=" in tag}
    meta = _meta(service)
    said.update(meta)
    status = _status(entry)
    node = Node(
        _address(service, machine),
        weight=_number(said, WEIGHT, LARGEST_WEIGHT, _own_weight(service, status)),
        backup=_number(said, BACKUP, LARGEST_BACKUP, 0),
        modifier1=_number(said, MODIFIER1, LARGEST_BYTE, 0),
        modifier2=_number(said, MODIFIER2, LARGEST_BYTE, 0),
        algorithm=_algorithm(said),
    )
    keys = _keys(name, tags, meta)
    if node.weight and (status == PASSING or (status == WARNING and wanted.warning)):
        for key in keys:
            yield key, node


def _keys(name: str, tags: list[str], meta: Mapping[str, str]) -> list[str]:
    said = [tag.removeprefix(f"{KEY}=") for tag in tags if tag.startswith(f"{KEY}=")]
    if KEY in meta:
        said += [key.strip() for key in meta[KEY].split(",")]
    keys = list(dict.fromkeys(said or [name]))
    for key in keys:
        if not 0 < len(_encoded(key)) <= LONGEST_KEY:
            raise MalformedError(f"{KEY} {quoted(key)} has {len(_encoded(key))} bytes, expected 1 to {LONGEST_KEY}")
    return keys


def _address(service: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Its own address and port; the machine's address where it has none."""
    host = _text(service, "Address") or _text(machine, "Address")
    port = _whole(service, "Port")
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError:
            raise MalformedError(f"address {quoted(host)} is neither IPv4, IPv6 nor a host name") from None
        host = f"[{host}]"
    address = f"{host}:{port}"
    try:
        # Consul's own rules are loose: without a host it would mean the router's machine, and a path has no port.
        if not host or not isinstance(parse_node(address), Inet | HostName):
            raise MalformedError(f"address {quoted(address)} has no host")
    except AddressError as error:
        raise MalformedError(f"address {error}") from None
    return address


def _status(entry: Mapping[str, Any]) -> str:
    """The worst status of its checks. Maintenance is a check that is critical, and so is what we do not know."""
    states = {_text(_table(check, "a check"), "Status") for check in _list(_given(entry, "Checks", []), "Checks")}
    if states <= {PASSING}:
        return PASSING
    return WARNING if states <= {PASSING, WARNING} else "critical"


def _own_weight(service: Mapping[str, Any], status: str) -> int:
    field = "Warning" if status == WARNING else "Passing"
    weight = _whole(_table(_given(service, "Weights", {}), "Weights"), field, default=1)
    if not 0 <= weight <= LARGEST_WEIGHT:
        raise MalformedError(f"Weights.{field} {weight} is out of range (legal: 0 to {LARGEST_WEIGHT})")
    return weight


def _number(said: Mapping[str, str], name: str, largest: int, default: int) -> int:
    text = said.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS and int(text) <= largest):
        raise MalformedError(f"{name} {quoted(text)} is no number from 0 to {largest}")
    return int(text)


def _algorithm(said: Mapping[str, str]) -> str:
    name = said.get(ALGORITHM, "")
    if name and not is_algorithm(name):
        raise MalformedError(f"{ALGORITHM} {quoted(name)} is no algorithm (legal: {LEGAL})")
    return name


# JSON's types: Consul leaves out what is empty, or says null, and an answer may come from anything.


def _given(table: Mapping[str, Any], name: str, default: Any) -> Any:
    value = table.get(name)
    return default if value is None else value


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(f"{name} is {_kind(value)}, expected an object")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedError(f"{name} is {_kind(value)}, expected a list")
    return value


def _text(table: Mapping[str, Any], name: str) -> str:
    value = _given(table, name, "")
    if not isinstance(value, str):
        raise MalformedError(f"{name} is {_kind(value)}, expected a text")
    return value


def _whole(table: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = _given(table, name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(f"{name} is {_kind(value)}, expected a whole number")
    return value


def _tags(value: Any) -> list[str]:
    tags = _list(value, "Tags")
    for tag in tags:
        if not isinstance(tag, str):
            raise MalformedError(f"a tag is {_kind(tag)}, expected a text")
    return tags


def _meta(service: Mapping[str, Any]) -> dict[str, str]:
    meta = _table(_given(service, "Meta", {}), "Meta")
    return {name: _text(meta, name) for name in meta if name.startswith("uwsgi-")}


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise MalformedError(f"{quoted(text)} is no text") from None


def _kind(value: Any) -> str:
    """How a JSON value is called in a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _who(entry: Any) -> str:
    """An instance's id for a message, where it has one."""
    service = entry.get("Service") if isinstance(entry, dict) else None
    identity = service.get("ID") if isinstance(service, dict) else None
    return quoted(identity) if isinstance(identity, str) else "without id"
