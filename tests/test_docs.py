"""The documentation is current: pages made from the code say what the code says."""

import generate


def test_the_pages_that_are_made_from_the_code_are_current() -> None:
    assert list(generate.stale()) == [], "run python docs/generate.py"
