"""The generated pages of docs/ say what the code says."""

import pytest

from generate import DOCS, PAGES


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_up_to_date(page: str) -> None:
    """Else: python docs/generate.py"""
    assert (DOCS / f"{page}.md").read_text() == PAGES[page]()
