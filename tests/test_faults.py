"""The table of faults holds, for the real fastrouter and for ours."""

import pytest

import fault_nodes
import fault_others
from faults import FAULTS, Fault, play

assert fault_nodes and fault_others  # which fill the table


@pytest.mark.slow
@pytest.mark.parametrize("each", FAULTS, ids=lambda each: each.what.replace(" ", "_"))
def test_what_becomes_of_requests(each: Fault) -> None:
    assert play(each) == (each.theirs, each.ours)
