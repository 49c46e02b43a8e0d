"""The URL of a DNS source: servers, names, settings; and what is said of a wrong one."""

import pytest

from discovery.dnssettings import Settings, read_url


def test_the_bare_name_looks_up_on_demand_at_the_servers_of_resolv_conf() -> None:
    wanted = read_url("dns://")
    assert (wanted.servers, wanted.names, wanted.settings) == ((), {}, Settings())


def test_a_server_alone_is_asked_on_demand() -> None:
    wanted = read_url("dns://127.0.0.1:5353,[::1],ns.lan/?domain=foo.com&domain=bar.com&service=_http._TCP&max-names=5")
    assert wanted.servers == (("127.0.0.1", 5353), ("::1", 53), ("ns.lan", 53))
    assert wanted.names == {}
    assert wanted.settings == Settings(domain=("foo.com", "bar.com"), service="_http._tcp", max_names=5)


def test_names_are_watched_under_their_hosts_key() -> None:
    assert read_url("dns:///_uwsgi._tcp.Foo.com.,_x._udp.bar.com,plain.com").names == {
        "foo.com": "_uwsgi._tcp.foo.com", "bar.com": "_x._udp.bar.com", "plain.com": "plain.com"
    }  # fmt: skip


def test_a_key_of_its_own() -> None:
    wanted = read_url("dns://ns.lan/pool.foo.com?port=3031&key=foo.com%3A8080")
    assert wanted.names == {"foo.com:8080": "pool.foo.com"}
    assert wanted.settings.port == 3031


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("dns://ns/a..b", r"'a\.\.b' is no DNS name \(legal: labels of 1 to 63 letters, digits, - and _\)"),
        ("dns://ns/foo.com,", "a DNS name is missing"),
        ("dns://ns/foo.com/bar", "'foo.com/bar' is no DNS name"),
        ("dns://ns:0/", "port 0 is out of range"),
        ("dns://ns:53:53/", "'ns:53:53' is no place"),
        ("dns://me:secret@ns/", r"dns://me:\*\*\*@ns/: a DNS server asks for no user"),
        ("dns://?tt=1", r"setting 'tt' is not known \(known: .*domain, .*timeout\)"),
        ("dns://?timeout=0", r"timeout=0: out of range \(legal: 1 to 60 seconds\)"),
        ("dns://?min-ttl=20&max-ttl=10", "min-ttl=20 is more than max-ttl, 10"),
        ("dns://?service=uwsgi", r"service=uwsgi: no service \(legal: _NAME._tcp\)"),
        ("dns://?domain=a..b", "domain=a..b: 'a..b' is no DNS name"),
        ("dns://?family=5", r"family=5: unknown word \(legal: any, 4, 6\)"),
        ("dns://?key=foo.com", "key goes with a URL with a name, as in dns://SERVER/NAME"),
        ("dns://ns/?port=1", "port goes with a URL with a name"),
        ("dns://ns/foo.com?keep=5", "keep goes with a URL without a name behind the /"),
        ("dns://ns/foo.com?domain=foo.com", "domain goes with a URL without a name"),
        ("dns://ns/a.com,b.com?key=c", r"a.com and b.com both serve the key 'c' \(give each a source of its own\)"),
        ("dns://ns/_a._tcp.c,_b._tcp.c", "_a._tcp.c and _b._tcp.c both serve the key 'c'"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, error: str) -> None:
    with pytest.raises(ValueError, match=f": {error}" if not error.startswith("dns://") else error) as caught:
        read_url(url)
    assert "secret" not in str(caught.value)
