"""Everything that can be configured: one table, one frozen value.

The table is the dataclass `Options` itself, which has four parts, each in a room of its own: one field written with
`option()` is one option, with its type, default, spellings and help. Command line, ini, environment and `--help` all
come from it (configuration.py reads the former three); a new option is one entry in one of the parts.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from router.entry import rows
from router.failureoptions import FailureOptions
from router.nodeoptions import NodeOptions
from router.processoptions import ProcessOptions
from router.requestoptions import RequestOptions
from router.single import Part


@dataclass(frozen=True)
class Options(ProcessOptions, FailureOptions, NodeOptions, RequestOptions):
    """What gfrouter was told to do. The parts stand in the order of the help from the last one on: dataclasses begin
    with the fields of the last base.

    `defaulted` names the fields that nobody set; `worker_socket` is the address that `use_socket` means; `worker` is
    the part of a worker beside the router, which no router needs to know.
    """

    defaulted: frozenset[str] = frozenset()
    worker_socket: str = ""
    worker: Part | None = None

    def to_json(self) -> str:
        """One line of JSON for `from_json`, as the supervisor sends it to its routers."""
        return json.dumps(dataclasses.asdict(self) | {"defaulted": sorted(self.defaulted), "worker": None})

    @classmethod
    def from_json(cls, text: str) -> Options:
        """The options that `to_json` wrote. What only another version knows is left out.

        That happens where gfrouter is upgraded on disk under a supervisor that runs, and starts routers afresh.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items() if name in known}
        return cls(**values | {"defaulted": frozenset(values["defaulted"])})


TABLE = rows(Options)
PLAIN = {name: entry for entry in TABLE for name in entry.plain}
UWSGI = {name: entry for entry in TABLE for name in entry.uwsgi}
