"""The proxy of a request: what golang.org/x/net/http/httpproxy documents and tests, and some relatives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.web.client import origin
from bkrules.web.errors import Unreachable
from bkrules.web.proxies import NoProxy, Proxies

LISTED = (
    "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, "
    "2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64"
)
# A host on port 80, and whether the list above has it: the table of Go's own test.
HOSTS = {
    "localhost": True,
    "127.0.0.1": True,
    "127.0.0.2": True,
    "::1": True,
    "::2": False,
    "192.168.1.1": True,
    "192.168.1.2": False,
    "192.168.1.3": True,
    "192.168.1.4": False,
    "10.0.0.2": True,
    "2001:db8::52:0:1": True,
    "2001:db8::52:0:2": False,
    "2001:db8::52:0:3": True,
    "2002:db8:a::123": True,
    "fe80::424b:c8be:1643:a1b6": False,
    "barbaz.net": False,
    "www.barbaz.net": True,
    "foobar.com": True,
    "www.foobar.com": True,
    "foofoobar.com": False,
    "baz.com": False,
    "localhost.net": False,
    "local.localhost": False,
    "barbarbaz.net": False,
    "wildcard.io": False,
    "nested.wildcard.io": True,
    "awildcard.io": False,
}


def direct(no_proxy: str, host: str, port: int = 80) -> bool:
    found = Proxies({"HTTP_PROXY": "http://proxy.example", "NO_PROXY": no_proxy}).of("http", host, port)
    return found is None


@pytest.mark.parametrize("host", HOSTS)
def test_the_table_of_gos_test(host: str) -> None:
    assert direct(LISTED, host) == HOSTS[host]


@pytest.mark.parametrize("host", HOSTS)
def test_a_star_is_every_server(host: str) -> None:
    assert direct("*", host)
    assert direct("a.example, * ,b.example", host)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "is_direct"),
    [
        ("", "example.com", 80, False),
        (":1", "example.com", 80, False),
        (" , ,", "example.com", 80, False),
        ("example.com", "example.com", 80, True),
        ("EXAMPLE.com", "example.COM", 80, True),
        ("ample.com", "example.com", 80, False),
        (".example.com", "example.com", 80, False),
        ("example.com", "foo.example.com", 80, True),
        ("example.com:8080", "example.com", 8080, True),
        ("example.com:8080", "foo.example.com", 8080, True),
        ("example.com:8080", "example.com", 80, False),
        ("*.example.com:80", "a.example.com", 80, True),
        ("*.example.com:80", "a.example.com", 81, False),
        ("10.0.0.0/8", "10.200.3.4", 5000, True),
        ("10.0.0.0/8", "11.0.0.1", 5000, False),
        ("10.0.0.0/8", "10.example.com", 80, False),
        ("::ffff:10.1.2.3", "10.1.2.3", 80, True),
        ("10.1.2.3", "::ffff:10.1.2.3", 80, True),
        ("[2001:db8::1]", "2001:db8::1", 443, True),
        ("[2001:db8::1]:443", "2001:db8::1", 443, True),
        ("2001:db8::1", "2001:db8:0:0::1", 443, True),
        (".示例.com", "www.示例.com", 80, True),
        ("xn--fsq092h.com", "www.示例.com", 80, True),
        ("示例.com", "www.xn--fsq092h.com", 80, True),
        ("example.com", "1000::%25.example.com", 123, False),
        ("10.0.0.0/99, a.example", "a.example", 80, True),
        ("*", "example.com", 80, True),
        ("", "::ffff:127.0.0.1", 80, True),
        ("", "LOCALHOST", 80, True),
        ("", "127.255.0.9", 5000, True),
    ],
)
def test_forms_of_no_proxy(no_proxy: str, host: str, port: int, is_direct: bool) -> None:
    assert direct(no_proxy, host, port) == is_direct


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({"HTTP_PROXY": "127.0.0.1:8080"}, "http://example.com", "http://127.0.0.1:8080"),
        ({"HTTP_PROXY": "cache.corp.example.com:1234"}, "http://example.com", "http://cache.corp.example.com:1234"),
        ({"HTTP_PROXY": "cache.corp.example.com"}, "http://example.com", "http://cache.corp.example.com:80"),
        ({"HTTP_PROXY": "localhost"}, "http://example.com", "http://localhost:80"),
        ({"HTTP_PROXY": "https://cache.example.com"}, "http://example.com", "https://cache.example.com:443"),
        ({"HTTP_PROXY": "socks5://127.0.0.1"}, "http://example.com", "socks5://127.0.0.1:1080"),
        ({"HTTP_PROXY": "socks5h://[::1]:9"}, "http://example.com", "socks5h://::1:9"),
        ({"HTTP_PROXY": "http.proxy", "HTTPS_PROXY": "secure.proxy"}, "http://a.example", "http://http.proxy:80"),
        ({"HTTP_PROXY": "http.proxy", "HTTPS_PROXY": "secure.proxy"}, "https://a.example", "http://secure.proxy:80"),
        ({"HTTP_PROXY": "http.proxy"}, "https://a.example", ""),
        ({"http_proxy": "lower"}, "http://a.example", "http://lower:80"),
        ({"https_proxy": "lower"}, "https://a.example", "http://lower:80"),
        ({"HTTP_PROXY": "upper", "http_proxy": "lower"}, "http://a.example", "http://upper:80"),
        ({"HTTP_PROXY": "", "http_proxy": "lower"}, "http://a.example", "http://lower:80"),
        ({"HTTP_PROXY": "proxy", "no_proxy": "a.example"}, "http://a.example", ""),
        ({"HTTPS_PROXY": "proxy", "REQUEST_METHOD": "GET"}, "https://a.example", "http://proxy:80"),
        ({"HTTP_PROXY": "proxy", "REQUEST_METHOD": ""}, "http://a.example", "http://proxy:80"),
        ({"ALL_PROXY": "proxy", "all_proxy": "proxy"}, "http://a.example", ""),
        ({}, "http://a.example", ""),
    ],
)
def test_forms_of_proxies(environment: dict[str, str], url: str, expected: str) -> None:
    place = origin(url)
    found = Proxies(environment).of(place.scheme, place.host, place.port)
    assert (f"{found.scheme}://{found.host}:{found.port}" if found else "") == expected


def test_a_proxy_with_credentials() -> None:
    found = Proxies({"http_proxy": "http://me:p%40ss%3a@proxy.example:3128"}).of("http", "a.example", 80)
    assert found is not None
    assert (found.user, found.password, found.host, found.port) == ("me", "p@ss:", "proxy.example", 3128)
    assert found.authorization == "Basic bWU6cEBzczo="
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize("text", ["foo://host", "http://", "http://host:port", "http://[::1", "ftp://host:21"])
def test_what_is_no_proxy_is_said_without_its_value(text: str) -> None:
    with pytest.raises(Unreachable, match="http_proxy names"):
        Proxies({"http_proxy": text}).of("http", "a.example", 80)


def test_no_proxy_of_http_in_cgi() -> None:
    """A client of a CGI program chooses HTTP_PROXY, by a header of that name."""
    found = Proxies({"HTTP_PROXY": "http://10.1.2.3:8080", "REQUEST_METHOD": "GET"})
    with pytest.raises(Unreachable, match="REQUEST_METHOD"):
        found.of("http", "a.example", 80)
    assert found.of("http", "localhost", 80) is None


@settings(max_examples=rounds(100))
@given(st.text(max_size=60), st.text(alphabet="ab.:%[]*0123456789é", max_size=30))
def test_any_text_is_a_list(no_proxy: str, host: str) -> None:
    assert NoProxy(no_proxy).match(host, 80) in (True, False)
    assert NoProxy(f"{no_proxy},*").match(host, 80)
