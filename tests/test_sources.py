"""The installed sources: found by name or URL, and what is said of those that cannot be had."""

from importlib.metadata import EntryPoint

import pytest

from discovery.subscription import Subscription
from router import sources
from router.feed import Feed
from router.sources import Common, Opened, load_source, open_source, unique_names, words


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


class Named:
    """A source that says nothing; asked by key where its URL says so."""

    def __init__(self, url: str) -> None:
        self.name = "named"
        self.url = url
        self.on_demand = "on-demand" in url

    def run(self, feed: Feed) -> None:
        raise NotImplementedError


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "load_source", lambda name: Named)


def test_what_goes_for_every_source_is_taken_out_of_its_url(named: None) -> None:
    opened = open_source(
        r"named://me:secret@a/?x=1&max-stale=30&key-match=(.*)%2dprod&min-nodes=3&key-to=\1.com&name=n"
    )
    assert isinstance(opened.source, Named)
    assert opened.source.url == "named://me:secret@a/?x=1"
    assert opened.common == Common("n", max_stale=30, min_nodes=3, key_match="(.*)-prod", key_to=r"\1.com")
    assert opened.url.startswith("named://me:***@a/?x=1&max-stale=30")
    rewrite = opened.common.rewriter()
    assert rewrite and [rewrite("foo-prod"), rewrite("foo-prod2")] == ["foo.com", "foo-prod2"]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("key-match=(a", r"key-match=(a: no regular expression: missing ), unterminated subpattern at position 0"),
        ("key-match=a", "key-match and key-to go together, and one of them is missing"),
        ("key-to=a", "key-match and key-to go together, and one of them is missing"),
        (r"key-match=a&key-to=\1", r"key-to=\1: no template for key-match: invalid group reference 1 at position 1"),
        (r"key-match=a&key-to=\g<x>", r"key-to=\g<x>: no template for key-match: unknown group name 'x'"),
        ("max-stale=-1", "max-stale=-1: out of range (legal: 0 to 31536000 seconds)"),
        ("min-nodes=x", "min-nodes=x: not a whole number (legal: 0 to 10000000)"),
        ("name=", "name=: a name is printable characters, one at least"),
        ("on-demand&key-match=a&key-to=b", "key-match cannot be where clients' keys are asked for"),
    ],
)  # fmt: skip
def test_a_wrong_setting_stops_the_start_and_is_named(named: None, query: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^named://") as caught:
        open_source(f"named://a?{query}")
    assert str(caught.value) == f"named://a?{query}: {error}"


def test_an_unknown_setting_names_those_of_any_source_as_well() -> None:
    with pytest.raises(ValueError, match=r"^file:///x\?min-nodes=3&minnodes=3: ") as caught:
        open_source("file:///x?min-nodes=3&minnodes=3")
    known = "key-match, key-to, max-stale, min-nodes, name"
    assert str(caught.value).endswith(f": setting 'minnodes' is not known (known: {known})")


def test_names_are_unique_in_the_order_of_the_sources() -> None:
    said = [("", "consul"), ("", "consul"), ("west", "consul"), ("consul 2", "dns"), ("", "consul")]
    opened = []
    for given, own in said:
        source = Named("")
        source.name = own
        opened.append(Opened(source, Common(given)))
    assert unique_names(opened) == ["consul", "consul 2", "west", "consul 2 2", "consul 3"]
