"""The client of HTTP against servers and proxies that are wrong on purpose: each request ends within its limits."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import Peer, drip, peer, reply
from rounds import rounds

from bkrules.web.client import Body, HttpClient
from bkrules.web.errors import BadAnswer, HttpError, TooSlow, Unreachable, Untrusted
from bkrules.web.limits import Limits
from bkrules.web.proxies import Proxies

QUICK = Limits(connect=1, idle=0.3, total=0.6)
MOST = 1 << 20
SECRET = {"Authorization": "Basic c2VjcmV0"}


def get(url: str, limits: Limits = QUICK, client: HttpClient | None = None, most: int = MOST) -> tuple[int, bytes]:
    own = client or HttpClient(ssl.create_default_context, Proxies({}))
    try:
        with own.request("GET", url, limits=limits) as response:
            return response.status, response.read(most)
    finally:
        if client is None:
            own.close()


Answer = Callable[[socket.socket, str], object]


def sends(data: bytes) -> Answer:
    def answer(connection: socket.socket, _head: str) -> bool:
        connection.sendall(data)
        return True

    return answer


def repeats(data: bytes) -> Answer:
    def answer(connection: socket.socket, _head: str) -> bool:
        while True:
            connection.sendall(data)

    return answer


def drips(data: bytes, first: bytes = b"") -> Answer:
    def answer(connection: socket.socket, _head: str) -> bool:
        connection.sendall(first)
        drip(connection, data)
        return True

    return answer


def silent(connection: socket.socket, _head: str) -> bool:
    connection.recv(1)
    return True


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
LONG = b"x" * 100_000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# What a server does, and what the client says of it.
WRONG: dict[str, tuple[Answer, type[HttpError]]] = {
    "says nothing": (silent, TooSlow),
    "drips a status line": (drips(b"HTTP/1.1 200 " + LONG), TooSlow),
    "drips headers": (drips(b"HTTP/1.1 200 OK\r\nA: " + LONG), TooSlow),
    "drips short headers": (drips(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000), TooSlow),
    "drips a body": (drips(LONG, HEAD), TooSlow),
    "drips chunks": (drips(b"1\r\nx\r\n" * 10_000, CHUNKED), TooSlow),
    "drips an extension of a chunk": (drips(b"1;a=" + LONG, CHUNKED), TooSlow),
    "drips interim answers": (drips(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), TooSlow),
    "repeats 100 Continue": (repeats(b"HTTP/1.1 100 Continue\r\n\r\n"), BadAnswer),
    "repeats 102 Processing": (repeats(b"HTTP/1.1 102 Processing\r\n\r\n"), BadAnswer),
    "repeats 103 Early Hints": (repeats(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"), BadAnswer),
    "has 101 headers": (sends(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n"), BadAnswer),
    "has a header of 1 MiB": (sends(b"HTTP/1.1 200 OK\r\nA: " + b"x" * (1 << 20) + b"\r\n\r\n"), BadAnswer),
    "has headers without an end": (repeats(b"A: " + b"x" * 60_000 + b"\r\n"), BadAnswer),
    "has interim headers without an end": (
        repeats(b"HTTP/1.1 100 Continue\r\n" + b"A: b\r\n" * 50 + b"\r\n"),
        BadAnswer,
    ),
    "has a status line of 1 MiB": (sends(b"HTTP/1.1 200 " + b"x" * (1 << 20) + b"\r\n\r\n"), BadAnswer),
    "has trailers without an end": (
        lambda connection, head: (
            sends(CHUNKED + b"1\r\nx\r\n0\r\n")(connection, head) and repeats(b"A: b\r\n")(connection, head)
        ),
        HttpError,
    ),
    "has extensions larger than chunks": (
        lambda connection, head: (
            sends(CHUNKED)(connection, head) and repeats(b"1;" + b"x" * 60_000 + b"\r\nx\r\n")(connection, head)
        ),
        BadAnswer,
    ),
    "speaks HTTP/0.9": (sends(b"<html>"), BadAnswer),
    "speaks HTTP/2": (sends(b"HTTP/2 200\r\n\r\n"), BadAnswer),
    "speaks SSH": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), BadAnswer),
    "speaks TLS": (sends(b"\x15\x03\x01\x00\x02\x02\x50"), BadAnswer),
    "closes": (sends(b""), BadAnswer),
    "closes within the status": (sends(b"HTTP/1.1 2"), BadAnswer),
    "closes within a body": (sends(HEAD + b"x"), BadAnswer),
    "closes within a chunk": (sends(CHUNKED + b"5\r\nabc"), BadAnswer),
    "closes between chunks": (sends(CHUNKED + b"1\r\na\r\n"), BadAnswer),
    "has a status of letters": (sends(b"HTTP/1.1 abc OK\r\n\r\n"), BadAnswer),
    "has a status of 5 digits": (sends(b"HTTP/1.1 20000 OK\r\n\r\n"), BadAnswer),
    "has a chunk below 0": (sends(CHUNKED + b"-5\r\nabcde\r\n"), BadAnswer),
    "has a chunk of no number": (sends(CHUNKED + b"zz\r\nabcde\r\n0\r\n\r\n"), BadAnswer),
    "has a body larger than may be": (sends(reply(200, bytes(MOST + 1))), BadAnswer),
    "has a body without an end": (
        lambda connection, head: (
            sends(b"HTTP/1.1 200 OK\r\n\r\n")(connection, head) and repeats(LONG)(connection, head)
        ),
        BadAnswer,
    ),
    "declares 8 EiB": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nx"), BadAnswer),
    "declares 100 digits": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 100 + b"\r\n\r\nx"), BadAnswer),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_server_is_an_error_in_time(wrong: str) -> None:
    answer, expected = WRONG[wrong]
    with peer(answer) as server, pytest.raises(expected) as caught:
        get(server.url)
    assert str(caught.value)


HEADS = [name for name in WRONG if "drips" in name and "body" not in name and "chunk" not in name]


@pytest.mark.parametrize("wrong", HEADS)
def test_a_head_ends_with_the_idle_time(wrong: str) -> None:
    """The bytes come faster than the idle time, and the total has no end."""
    with peer(WRONG[wrong][0]) as server, pytest.raises(TooSlow, match=r"no answer in 0\.3 s"):
        get(server.url, Limits(idle=0.3))


@pytest.mark.parametrize("wrong", ["drips a body", "drips chunks", "drips an extension of a chunk"])
def test_a_body_ends_with_the_total_or_without_progress(wrong: str) -> None:
    with peer(WRONG[wrong][0]) as server:
        with pytest.raises(TooSlow, match=r"not there after 0\.6 s"):
            get(server.url)
        with pytest.raises(TooSlow, match=r"only \d+ bytes"):
            get(server.url, Limits(idle=0.3, least=64 << 10))


def test_a_body_may_take_long_when_it_makes_progress() -> None:
    """There is no total: the time of the whole body is several times the idle time."""

    def answer(connection: socket.socket, _head: str) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(60):
            connection.sendall(bytes(1000))
            time.sleep(0.01)
        return True

    with peer(answer) as server:
        assert get(server.url, Limits(idle=0.1, least=1000))[1] == bytes(60_000)
        with pytest.raises(TooSlow, match=r"only \d+ bytes"):
            get(server.url, Limits(idle=0.1, least=100_000))


def test_a_slow_reader_is_not_a_slow_server() -> None:
    """Only the time that the client waits counts against the server."""
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(sends(reply(200, bytes(3 << 20)))) as server:
        with client.request("GET", server.url, limits=Limits(idle=0.3, least=1 << 20)) as response:
            total = 0
            for chunk in response.chunks(4 << 20):
                total += len(chunk)
                time.sleep(0.05)
        assert total == 3 << 20


def test_a_server_that_does_not_read_is_left() -> None:
    blocked = threading.Event()

    def answer(_connection: socket.socket, _head: str) -> bool:
        blocked.wait(10)
        return True

    client = HttpClient(ssl.create_default_context, Proxies({}))
    body = Body(1 << 30, lambda: (bytes(1 << 16) for _ in range(1 << 14)))
    with contextlib.closing(client), peer(answer) as server:
        with pytest.raises(TooSlow):
            client.request("PUT", server.url, body=body, limits=QUICK)
        blocked.set()


def test_an_answer_before_the_body_was_sent_is_the_answer() -> None:
    """As from a server that refuses a large upload."""

    def answer(connection: socket.socket, _head: str) -> bool:
        connection.sendall(reply(413, b"too large", Connection="close"))
        connection.shutdown(socket.SHUT_RDWR)
        return True

    client = HttpClient(ssl.create_default_context, Proxies({}))
    body = Body(64 << 20, lambda: (bytes(1 << 16) for _ in range(1 << 10)))
    with contextlib.closing(client), peer(answer) as server:
        try:
            with client.request("PUT", server.url, body=body, limits=Limits(idle=5)) as response:
                assert response.status == 413
        except BadAnswer:
            pass  # the kernel had thrown the answer away with the connection


@pytest.mark.parametrize("pieces", [[b"ab"], [b"abc", b"d"], []])
def test_a_body_of_another_size_is_never_sent_as_whole(pieces: list[bytes]) -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(silent) as server, pytest.raises(BadAnswer, match="the announced 3 bytes"):
        client.request("PUT", server.url, body=Body(3, lambda: pieces), limits=QUICK)


def test_what_the_body_raises_is_raised() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("the caller's own")

    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(silent) as server, pytest.raises(KeyError):
        client.request("PUT", server.url, body=Body(3, broken), limits=QUICK)


def test_interim_answers_come_before_the_answer() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + reply(200, b"body")
    with peer(sends(data)) as server:
        assert get(server.url) == (200, b"body")


def test_a_connection_is_kept_and_replaced_when_it_was_closed() -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))

    def answer(connection: socket.socket, head: str) -> bool:
        connection.sendall(reply(200, b"a"))
        return "/last" in head

    with contextlib.closing(client), peer(answer) as server:
        for path in ("/1", "/2", "/last", "/3", "/4"):
            assert get(f"{server.url}{path}", client=client) == (200, b"a")
        assert server.connections == 2


def test_a_kept_connection_outlives_the_limits_of_its_last_request() -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(lambda connection, _head: connection.sendall(reply(404, b"a"))) as server:
        for _ in range(3):
            with client.request("GET", server.url, limits=Limits(total=0.2)) as response:
                assert response.status == 404
            time.sleep(0.3)
        assert server.connections == 1


def test_bytes_that_nobody_asked_for_are_no_answer() -> None:
    """A server that sends two answers to one request would else answer the next one with what it likes."""
    client = HttpClient(ssl.create_default_context, Proxies({}))

    def answer(connection: socket.socket, head: str) -> None:
        evil = reply(200, b"evil") if head.startswith("GET /1") else b""
        connection.sendall(reply(200, head[5:6].encode()) + evil)

    with contextlib.closing(client), peer(answer) as server:
        assert [get(f"{server.url}/{number}", client=client)[1] for number in range(1, 4)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "url", ["ftp://a", "file:///etc/passwd", "http://", "http://a:b", "http://a b/", "//a", "", "http://[::1"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Unreachable):
        get(url)


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "a..b.invalid", "\udcff.invalid", "name.invalid"])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(HttpError):
        get(f"http://{host}:1/")


def test_a_target_and_headers_cannot_add_lines() -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(sends(reply())) as server:
        get(f"{server.url}/a b\x00é?c=\x7f d", client=client)
        assert server.heads[0].startswith("GET /a%20b%00%C3%A9?c=%7F%20d HTTP/1.1\r\n")
        for headers in ({"A": "b\r\nC: d"}, {"A\r\nB": "c"}, {"A": "\x00"}, {"": "a"}, {"A:": "b"}):
            with pytest.raises(BadAnswer, match="cannot be sent"):
                client.request("GET", server.url, headers)
        assert len(server.heads) == 1


# Redirects, and who gets credentials.


def sent_on(target: str, status: int = 307) -> Answer:
    return lambda connection, _head: connection.sendall(reply(status, Location=target))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_stay_with_their_origin(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login me password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.ExitStack() as stack:
        stack.callback(client.close)
        other = stack.enter_context(peer(sends(reply(200, b"a"))))
        first = stack.enter_context(peer(sent_on(f"http://me:pass@127.0.0.1:{other.port}/b", status)))
        with client.request("GET", first.url, secret=SECRET, limits=QUICK, redirects=True) as response:
            assert response.read(MOST) == b"a"
            assert response.url == f"{other.url}/b"
        assert first.header("Authorization") == ["Basic c2VjcmV0"]
        assert other.header("Authorization") == []


def test_credentials_follow_within_an_origin() -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))

    def answer(connection: socket.socket, head: str) -> None:
        connection.sendall(reply(200) if "/b" in head else reply(307, Location="../b?c=d#e"))

    with contextlib.closing(client), peer(answer) as server:
        with client.request("GET", f"{server.url}/x/y", secret=SECRET, redirects=True) as response:
            assert response.url == f"{server.url}/b?c=d"
        assert server.header("Authorization") == ["Basic c2VjcmV0"] * 2


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[::1", "gopher://a", "http://a:b/"]
)
def test_a_redirect_to_what_is_no_server(target: str) -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(sent_on(target)) as server, pytest.raises(HttpError):
        client.request("GET", server.url, limits=QUICK, redirects=True)


def test_redirects_end() -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))
    again = pytest.raises(BadAnswer, match="redirects more than 10 times")
    with contextlib.closing(client), peer(sent_on("/again")) as server, again:
        client.request("GET", server.url, redirects=True)


def test_redirects_share_the_time() -> None:
    """Each answer comes within the limits, but not all of them."""
    client = HttpClient(ssl.create_default_context, Proxies({}))

    def answer(connection: socket.socket, _head: str) -> None:
        time.sleep(0.2)
        connection.sendall(reply(307, Location="/again"))

    with contextlib.closing(client), peer(answer) as server, pytest.raises(TooSlow):
        client.request("GET", server.url, limits=QUICK, redirects=True)


def test_what_is_posted_is_not_sent_on() -> None:
    client = HttpClient(ssl.create_default_context, Proxies({}))
    with contextlib.closing(client), peer(sends(reply())) as other, peer(sent_on(other.url)) as server:
        with client.request("POST", server.url, body=b"secret", limits=QUICK) as response:
            assert response.status == 307
        assert other.heads == []


# TLS


@pytest.fixture
def server_tls(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{authority}/server.pem", f"{authority}/server.key")
    return context


def trusting(authority: Path) -> Callable[[], ssl.SSLContext]:
    return lambda: ssl.create_default_context(cafile=f"{authority}/ca.pem")


def test_tls_is_kept_and_checked(authority: Path, server_tls: ssl.SSLContext) -> None:
    client = HttpClient(trusting(authority), Proxies({}))

    def answer(connection: socket.socket, _head: str) -> None:
        connection.sendall(reply(200, b"a" * 300_000))

    with contextlib.closing(client), peer(answer, server_tls) as server:
        url = server.url.replace("http:", "https:")
        for _ in range(3):
            assert len(get(url, client=client)[1]) == 300_000
        assert server.connections == 1
        with pytest.raises(Untrusted, match="its certificate is not trusted"):
            get(url)
        with pytest.raises(Unreachable):
            get(f"https://127.0.0.1:{server.port}/".replace("127.0.0.1", "127.0.0.2"), client=client)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03"])
def test_what_is_no_tls(authority: Path, data: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        if data.startswith(b"\x16"):
            while connection.recv(1 << 10):  # until the client has gone
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = HttpClient(trusting(authority), Proxies({}))
        with contextlib.closing(client), pytest.raises(Unreachable):
            get(f"https://127.0.0.1:{listening.getsockname()[1]}/", Limits(connect=0.5), client)
        thread.join()


def test_nothing_goes_from_https_to_http(authority: Path, server_tls: ssl.SSLContext) -> None:
    client = HttpClient(trusting(authority), Proxies({}))
    with (
        contextlib.closing(client),
        peer(sends(reply(200, b"a"))) as plain,
        peer(sent_on(plain.url), server_tls) as server,
    ):
        url = server.url.replace("http:", "https:")
        with pytest.raises(BadAnswer, match="from https to http"):
            client.request("GET", url, secret=SECRET, redirects=True)
        assert plain.heads == []
        with client.request("GET", url, secret=SECRET, redirects=True, plain=True) as response:
            assert response.read(MOST) == b"a"
        assert plain.header("Authorization") == []


# Proxies


@contextlib.contextmanager
def proxy(context: ssl.SSLContext | None = None, refuse: bytes = b"") -> Iterator[Peer]:
    """A proxy of HTTP: it tunnels, or answers requests for whole URLs itself."""

    def answer(connection: socket.socket, head: str) -> bool:
        if refuse:
            connection.sendall(refuse)
            return True
        if not head.startswith("CONNECT "):
            connection.sendall(reply(200, b"from the proxy"))
            return False
        host, _, port = head.split()[1].rpartition(":")
        with socket.create_connection(("127.0.0.1", int(port))) as server:
            assert host
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            join(connection, server)
        return True

    with peer(answer, context) as found:
        yield found


def join(one: socket.socket, other: socket.socket) -> None:
    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=pump, args=(one, other), daemon=True)
    thread.start()
    pump(other, one)
    thread.join(5)


def test_http_through_a_proxy_with_credentials() -> None:
    with proxy() as found:
        client = HttpClient(ssl.create_default_context, Proxies({"http_proxy": f"me:pa%20ss@127.0.0.1:{found.port}"}))
        with contextlib.closing(client):
            for _ in range(2):
                assert get("http://a.example:81/b?c", client=client) == (200, b"from the proxy")
        assert found.heads[0].startswith("GET http://a.example:81/b?c HTTP/1.1\r\n")
        assert found.header("Host") == ["a.example:81"] * 2
        assert found.header("Proxy-Authorization") == [f"Basic {base64.b64encode(b'me:pa ss').decode()}"] * 2
        assert found.connections == 1


@pytest.mark.parametrize("secured", [False, True], ids=["plain proxy", "proxy with TLS"])
def test_https_through_a_proxy(authority: Path, server_tls: ssl.SSLContext, secured: bool) -> None:
    """The loopback never has a proxy, so another name leads there."""
    with proxy(server_tls if secured else None) as found, peer(sends(reply(200, b"a" * 400_000)), server_tls) as server:
        scheme = "https" if secured else "http"
        environment = {"https_proxy": f"{scheme}://me:x@127.0.0.1:{found.port}"}

        client = HttpClient(trusting(authority), Proxies(environment))
        with contextlib.closing(client):
            assert len(get(f"https://a.example:{server.port}/", Limits(idle=5, total=10), client)[1]) == 400_000
        assert found.heads[0].startswith(f"CONNECT a.example:{server.port} HTTP/1.")
        assert found.header("Proxy-Authorization") == ["Basic bWU6eA=="]
        assert server.header("Proxy-Authorization") == []


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        (reply(407), "status 407: it requires other credentials"),
        (reply(502), "status 502"),
        (b"SSH-2.0\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "TLS failed|reset"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "interim answers"),
    ],
)
def test_a_proxy_that_refuses(refuse: bytes, said: str) -> None:
    with proxy(refuse=refuse) as found:
        client = HttpClient(ssl.create_default_context, Proxies({"https_proxy": f"127.0.0.1:{found.port}"}))
        with contextlib.closing(client), pytest.raises(HttpError, match=said):
            get("https://a.example/", client=client)


def test_a_proxy_that_drips() -> None:
    with peer(drips(b"HTTP/1.1 200 Connected\r\nA: " + LONG)) as found:
        client = HttpClient(ssl.create_default_context, Proxies({"https_proxy": f"127.0.0.1:{found.port}"}))
        with contextlib.closing(client), pytest.raises(HttpError):
            get("https://a.example/", Limits(connect=0.4, idle=0.3), client)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("user", ["", "me:pass@"])
def test_a_proxy_of_socks(scheme: str, user: str) -> None:
    asked: list[bytes] = []

    def serve(listening: socket.socket, port: int) -> None:
        connection, _ = listening.accept()
        with connection, socket.create_connection(("127.0.0.1", port)) as server:
            methods = connection.recv(2 + (2 if user else 1))
            connection.sendall(b"\x05" + (b"\x02" if b"\x02" in methods[2:] else b"\x00"))
            if user:
                asked.append(connection.recv(64))
                connection.sendall(b"\x01\x00")
            asked.append(connection.recv(64))
            connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
            join(connection, server)

    with peer(sends(reply(200, b"a"))) as server, socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening, server.port), daemon=True)
        thread.start()
        environment = {"http_proxy": f"{scheme}://{user}127.0.0.1:{listening.getsockname()[1]}"}
        client = HttpClient(ssl.create_default_context, Proxies(environment))
        with contextlib.closing(client):
            assert get("http://a.example:8080/b", client=client) == (200, b"a")
        thread.join(5)
    assert asked[-1] == b"\x05\x01\x00\x03\x09a.example" + struct.pack(">H", 8080)
    assert asked[0] == (b"\x01\x02me\x04pass" if user else asked[-1])
    assert server.heads[0].startswith("GET /b HTTP/1.1\r\n")


@pytest.mark.parametrize("answer", [b"", b"\x04\x00", b"\x05\xff", b"\x05\x00\x05\x05\x00\x01", b"HTTP/1.1 400\r\n"])
def test_a_proxy_of_socks_that_refuses(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer)
                connection.settimeout(2)
                with contextlib.suppress(OSError):  # the client may have left
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(64):
                        pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        environment = {"http_proxy": f"socks5://127.0.0.1:{listening.getsockname()[1]}"}
        client = HttpClient(ssl.create_default_context, Proxies(environment))
        with contextlib.closing(client), pytest.raises(HttpError):
            get("http://a.example/", client=client)
        thread.join(5)


def test_the_loopback_has_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as found, peer(sends(reply(200, b"a"))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{found.port}")
        client = HttpClient(ssl.create_default_context)
        with contextlib.closing(client):
            for host in ("127.0.0.1", "localhost", "127.0.0.1"):
                assert get(f"http://{host}:{server.port}/", client=client)[1] == b"a"
        assert found.heads == []


# Any bytes at all


PARTS = st.sampled_from(
    b"HTTP/1.1 |200 OK|100 Continue|\r\n|\n|Content-Length: |Transfer-Encoding: chunked\r\n|5|-1|0|ffffffffffffffff|: |"
    b"Connection: keep-alive|abcde|\x00|\xff|0\r\n\r\n".split(b"|")
)


@settings(max_examples=rounds(80))
@given(st.lists(st.one_of(PARTS, st.binary(max_size=20)), max_size=30).map(b"".join), st.booleans())
def test_any_bytes_are_an_answer_or_an_error(data: bytes, valid: bool) -> None:
    sent = (b"HTTP/1.1 200 OK\r\n" if valid else b"") + data
    with peer(sends(sent)) as server:
        try:
            status, body = get(server.url, most=1000)
        except HttpError as error:
            assert str(error)
        else:
            assert 100 <= status < 1000
            assert len(body) <= 1000


def test_a_connection_that_is_closed_without_a_word_is_replaced_once() -> None:
    count = 0

    def answer(connection: socket.socket, _head: str) -> bool:
        nonlocal count
        count += 1
        if count != 1:
            connection.sendall(reply(200, b"a"))
        return True

    with peer(answer) as server:
        assert get(server.url) == (200, b"a")
        assert server.connections == 2
