"""The same traffic, packets and faults against the real fastrouter and gfrouter: what differs is meant, and listed.

The table is in like_*.py, the harness in like.py, the differences and their reasons in differences.py.
"""

import re
from collections import Counter
from importlib.metadata import version
from typing import Any

import pytest

import like_bodies
import like_daemons
import like_keys
import like_mappers
import like_options
import like_processes
import like_requests
import like_static
import like_subscriptions
import like_views
from differences import DIFFERENCES, Difference
from like import SECTIONS, Case, apart, cases_of, observe
from servers import TESTS

MODULES = (
    *(like_requests, like_bodies, like_keys, like_static, like_mappers, like_subscriptions),
    *(like_processes, like_daemons, like_options, like_views),
)
CASES = [each for module in MODULES for each in cases_of(module)]
NAMES = [difference.name for difference in DIFFERENCES]


def parameter(case: Case) -> Any:
    return pytest.param(case, id=f"{case.section}-{case.name}", marks=[] if case.quick else pytest.mark.slow)


@pytest.mark.parametrize("case", [parameter(case) for case in CASES])
def test_like_the_fastrouter(case: Case) -> None:
    assert apart(*observe(case)) == case.differs


def test_the_oracle_is_recent_enough() -> None:
    assert tuple(map(int, version("pyuwsgi").split(".")[:3])) >= (2, 0, 30)


def test_every_section_has_its_cases() -> None:
    counted = Counter(case.section for case in CASES)
    assert set(counted) == set(SECTIONS)
    assert min(counted.values()) >= 5
    assert counted.total() >= 150


def test_no_two_cases_have_one_name() -> None:
    assert [name for name, times in Counter(case.name for case in CASES).items() if times > 1] == []


def test_each_case_that_differs_says_why() -> None:
    assert [case.name for case in CASES if bool(case.differs) != bool(case.why)] == []
    assert {name for case in CASES for name in case.why} <= set(NAMES)


def test_each_difference_is_whole_and_fits_into_a_table() -> None:
    for each in DIFFERENCES:
        cells = (each.fastrouter, each.gfrouter, each.why)
        assert all(cells) and not any(mark in cell for cell in cells for mark in "|\n"), each.name
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=NAMES)
def test_each_difference_is_shown(difference: Difference) -> None:
    """By a case, or by the test elsewhere that it names."""
    if difference.test:
        file, _, name = difference.test.partition("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), difference.test
    else:
        assert any(difference.name in case.why for case in CASES)
