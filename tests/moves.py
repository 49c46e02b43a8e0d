"""Who joins and leaves a table, whatever for: a node that only stays where it was is in neither list."""

from router.table import Change, Table


class Moves:
    """From now on; `KEY ADDRESS` in each list."""

    def __init__(self, table: Table) -> None:
        self.joined: list[str] = []
        self.left: list[str] = []
        table.on_change = self._hear

    def _hear(self, change: Change) -> None:
        self.joined += [f"{change.key} {member.node.address}" for member in change.joined]
        self.left += [f"{change.key} {member.node.address}" for member in change.left]
