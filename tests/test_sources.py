"""The installed sources: found by name or URL, and what is said of those that cannot be had."""

from importlib.metadata import EntryPoint

import pytest

from discovery.subscription import Subscription
from router import sources
from router.sources import load_source, open_source, words


def test_a_url_opens_the_source_of_its_scheme() -> None:
    source = open_source("udp://127.0.0.1:0").source
    assert isinstance(source, Subscription)
    source.close()


def test_an_unknown_name_lists_the_installed_ones() -> None:
    with pytest.raises(
        ValueError, match=r"^no source named 'zk' is installed \(installed: .*subscription, udp, unix\)$"
    ):
        open_source("zk")


@pytest.mark.parametrize("text", ["", "a b", "udp:/x", "/etc/hosts"])
def test_what_is_neither_name_nor_url(text: str) -> None:
    with pytest.raises(ValueError, match="no URL of a source"):
        open_source(text)


def test_a_source_whose_library_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (real,) = [entry for entry in sources.installed() if entry.name == "udp"]
    broken = EntryPoint("consul", "discovery.no_such_module:Consul", sources.GROUP)._for(real.dist)  # type: ignore[attr-defined]
    monkeypatch.setattr(sources, "installed", lambda: [broken])
    with pytest.raises(
        ValueError, match=r"'consul' cannot be loaded: No module named .*pip install 'gfrouter\[consul\]'"
    ):
        load_source("consul")


def test_an_environment_variable_may_hold_several() -> None:
    assert words(["dns", " consul  etcd://a:1 "]) == ["dns", "consul", "etcd://a:1"]
