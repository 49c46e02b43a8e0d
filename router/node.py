"""One worker as one key's source describes it: a frozen value that travels from a source to the engine.

A `Node` says where a worker listens and how it wants to be used. It never says how the worker is doing: that is the
`Endpoint`'s affair (endpoint.py), and what has been counted for it stands in the `Member` (pool.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """A worker's address and what its source says of it, for one key.

    `address` is the identity, exactly as announced (`10.0.0.5:3031`, `:3031`, `/run/app.sock`, `app.internal:3031`). Of
    a host name the table makes one node for each of its addresses, and `host` is then the name. `weight` is 1 or more,
    `backup` is the level (0 serves first), the modifiers are bytes written into each packet's header. `cores`, `load`
    and `last_check` (unix seconds) change with nearly every announcement, and the ids of the process that announces it
    (0 = unknown) steer nothing: they take no part in `==`, so two nodes are equal when the routers need not hear of the
    difference. What pools that steer by load must hear of it has a message of its own (pair.py).
    """

    address: str
    weight: int = 1
    backup: int = 0
    modifier1: int = 0
    modifier2: int = 0
    proto: str = ""
    vassal: str = ""
    algorithm: str = ""  # wanted for the pool that this node opens; empty = the default
    sni: bool = False  # the announcement named TLS files; shown in the stats only
    via: str = ""  # the routers on the way to a worker, first the one that listens here, as words; "" for a worker
    host: str = ""  # the address that was announced, where it is a host name and `address` one of those it stands for
    cores: int = field(default=0, compare=False)
    load: int = field(default=0, compare=False)
    last_check: float = field(default=0, compare=False)
    pid: int = field(default=0, compare=False)
    uid: int = field(default=0, compare=False)
    gid: int = field(default=0, compare=False)
