"""`gfrouter sources`: what is installed, in words and in its own colours, whatever it leaves out or breaks."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint

from router import sources
from router.listing import Listed, listed, page
from router.url import setting, settings_of
from router.values import whole


@dataclass(frozen=True)
class Settings:
    wait: int = setting(30, whole(1, 60, "seconds"), "SECONDS", " ".join(["ask so long"] * 9))
    tag: tuple[str, ...] = setting(("a", "b"), str, "TAG", "only with this one")
    a_setting_with_quite_a_long_name: int = setting(0, whole(0, 9), "N", "keep so many")


class Whole:
    """Nodes that the tests made up.

    For which nobody asks.
    """

    form = "whole://PLACE"
    settings = Settings


def silent(url: str) -> None: ...


class Odd:
    """One that has the words and means something else."""

    form = None
    settings = "none"


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, sources.GROUP)


def ours(name: str, value: str) -> EntryPoint:
    """As if it were one of gfrouter's own."""
    dist = sources.installed()[0].dist
    return entry(name, value)._for(dist)  # type: ignore[attr-defined]


def test_what_a_source_says_of_itself_is_listed() -> None:
    (found,) = listed([entry("whole", "test_listing:Whole")])
    assert found == Listed(
        ("whole",), "", "Nodes that the tests made up.", "whole://PLACE", tuple(settings_of(Settings))
    )


def test_several_names_of_one_object_are_one_source() -> None:
    found = listed(
        [entry("a", "test_listing:Whole"), entry("b", "test_listing:silent"), entry("c", "test_listing:Whole")]
    )
    assert [one.names for one in found] == [("a", "c"), ("b",)]


def test_one_that_says_nothing_is_listed_by_its_name() -> None:
    assert listed([ours("silent", "test_listing:silent")]) == [Listed(("silent",), "gfrouter")]
    assert page([Listed(("x",), "their-package")], ()) == "x (of their-package): says nothing of itself"


def test_one_whose_attributes_mean_something_else_costs_nothing() -> None:
    (found,) = listed([entry("odd", "test_listing:Odd")])
    assert (found.form, found.settings) == ("", ())


def test_a_missing_library_is_told_with_its_remedy() -> None:
    found, other = listed([ours("consul", "discovery.no_such_module:X"), entry("whole", "test_listing:Whole")])
    assert found.trouble == (
        "cannot be loaded: No module named 'discovery.no_such_module' "
        "(pip install 'gfrouter[consul]' brings what it needs)"
    )
    assert not other.trouble
    assert "pip install 'gfrouter[consul]'" in " ".join(page([found], ()).split())


def test_one_that_is_broken_in_any_way_costs_itself_alone() -> None:
    found, other = listed([entry("a", "test_listing:nothing"), entry("whole", "test_listing:Whole")])
    assert found.trouble.startswith("cannot be loaded: ")
    assert other.about


def test_the_page_in_full() -> None:
    sources = listed([entry("whole", "test_listing:Whole")])
    assert (
        page(sources, settings_of(Settings)[1:2])
        == """\
whole: Nodes that the tests made up.
  whole://PLACE
    wait=SECONDS              ask so long ask so long ask so long ask so long
                              ask so long ask so long ask so long ask so long
                              ask so long (default: 30)
    tag=TAG                   only with this one (default: a, b)
    a-setting-with-quite-a-long-name=N
                              keep so many

Any source:
    tag=TAG                   only with this one (default: a, b)"""
    )


def test_the_command_lists_all_that_is_installed() -> None:
    argv = [sys.executable, "-m", "router", "sources"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "subscription, udp, unix: uWSGI's own announcements" in said
    assert "\n    quota=N " in said
    named = {name for line in said.splitlines() if line[:1].isalpha() for name in line.partition(":")[0].split(", ")}
    assert {one.name for one in sources.installed()} <= named
    assert max(map(len, said.splitlines())) <= 80
