"""Registries that attack their clients, and those that answer as the standards allow but few do."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import pytest
import registries
from peers import drip, peer, reply
from registries import ME, NAME, Forwarder, Proxy, copy, whole

from bkrules.errors import ActionFailed
from bkrules.images import registry_client
from bkrules.images.digests import ImageDigest
from bkrules.images.docker_auth import Credentials
from bkrules.images.registry_auth import check_realm
from bkrules.images.registry_client import RegistryClient
from bkrules.web.errors import HttpError
from bkrules.web.limits import Limits

BLOB = b"x" * 100_000
DIGEST = ImageDigest(f"sha256:{hashlib.sha256(BLOB).hexdigest()}")
BASIC = "Basic bWU6bGV0bWVpbg=="
Answer = Callable[[socket.socket, str], object]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are a hundredth."""
    monkeypatch.setattr(registry_client, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(registry_client, "DOCUMENT", Limits(connect=1, idle=0.3, total=0.5))
    monkeypatch.setattr(registry_client, "BLOB", Limits(connect=1, idle=0.3, least=64 << 10))


def client(port: int, known: Credentials | None = None) -> closing[RegistryClient]:
    return closing(RegistryClient(f"127.0.0.1:{port}", lambda _: known))


def after_probe(answer: Answer) -> Answer:
    """Answer the question for the scheme of the registry, and to all others as told."""

    def both(connection: socket.socket, head: str) -> object:
        if not head.startswith("GET /v2/ "):
            return answer(connection, head)
        connection.sendall(reply(200))
        return False

    return both


def endless(connection: socket.socket, _head: str) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


def continues(connection: socket.socket, _head: str) -> bool:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


DRIPS: dict[str, Answer] = {
    "a status": lambda connection, _head: drip(connection, b"HTTP/1.1 200 " + BLOB),
    "headers": lambda connection, _head: drip(connection, b"HTTP/1.1 200 OK\r\nA: " + BLOB),
    "a body": lambda connection, _head: drip(connection, reply(200, BLOB)),
    "interim answers": continues,
    "the body of an error": lambda connection, _head: drip(connection, reply(404, BLOB)),
    "an endless body": endless,
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", DRIPS)
@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_a_registry_that_drips_is_left(kind: str, what: str) -> None:
    with peer(after_probe(DRIPS[kind])) as server, client(server.port) as asked, pytest.raises(ActionFailed):
        if what == "manifest":
            asked.manifest(NAME, "1")
        else:
            list(asked.blob(NAME, DIGEST, len(BLOB)))


@pytest.mark.usefixtures("impatient")
def test_a_blob_that_is_slow_but_comes_arrives() -> None:
    """It takes several times the idle time, and longer than a manifest might."""
    data = bytes(1 << 20)
    digest = ImageDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")

    def answer(connection: socket.socket, _head: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n")
        for at in range(0, len(data), 1 << 14):
            connection.sendall(data[at : at + (1 << 14)])
            time.sleep(0.02)

    with peer(after_probe(answer)) as server, client(server.port) as asked:
        assert b"".join(asked.blob(NAME, digest, len(data))) == data


@pytest.mark.usefixtures("impatient")
def test_a_blob_in_many_parts_arrives_when_each_part_is_progress() -> None:
    """More connections end than a blob without progress may have tries."""
    data = bytes(10 << 20)
    digest = ImageDigest(f"sha256:{hashlib.sha256(data).hexdigest()}")

    def answer(connection: socket.socket, head: str) -> bool:
        at = int(head.partition("bytes=")[2].partition("-")[0] or 0)
        status = "206 Partial Content" if at else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(data) - at}\r\n\r\n".encode())
        connection.sendall(data[at : at + (1 << 20)])
        return True

    with peer(after_probe(answer)) as server, client(server.port) as asked:
        assert b"".join(asked.blob(NAME, digest, len(data))) == data


# Credentials


@pytest.mark.parametrize(
    ("realm", "base", "is_good"),
    [
        ("https://auth.example/token", "https://registry.example", True),
        ("https://registry.example/token", "https://registry.example", True),
        ("http://auth.example/token", "https://registry.example", False),
        ("http://registry.example/token", "https://registry.example", False),
        ("http://127.0.0.1:9/token", "https://registry.example", False),
        ("http://127.0.0.1:9/token", "http://127.0.0.1:5000", True),
        ("http://localhost:9/token", "http://[::1]:5000", True),
        ("http://auth.example/token", "http://127.0.0.1:5000", False),
        ("http://127.0.0.1.example/token", "http://127.0.0.1:5000", False),
        ("http://127.0.0.1@auth.example/token", "http://127.0.0.1:5000", False),
        ("ftp://127.0.0.1/token", "http://127.0.0.1:5000", False),
        ("file:///etc/passwd", "http://127.0.0.1:5000", False),
        ("//127.0.0.1/token", "http://127.0.0.1:5000", False),
        ("/token", "http://127.0.0.1:5000", False),
        ("", "http://127.0.0.1:5000", False),
    ],
)
def test_who_may_be_asked_for_a_token(realm: str, base: str, is_good: bool) -> None:
    if is_good:
        check_realm(realm, base)
        return
    with pytest.raises(HttpError):
        check_realm(realm, base)


def test_no_password_goes_to_a_realm_of_http(proxy: Proxy, tmp_path: Path) -> None:
    """The name of the realm does not matter: nothing is sent, so nothing has to be resolved."""
    where = 'Bearer realm="http://auth.invalid/token",service="s"'
    proxy.answer = lambda request: request.path != "/v2/" and request.reply(401, headers={"WWW-Authenticate": where})
    with pytest.raises(ActionFailed, match="it does not use https") as error:
        copy(proxy.address, tmp_path / "mirror", lambda _: ME)
    assert "letmein" not in str(error.value)


def _challenged(request: Forwarder, *values: str) -> bool:
    """Answer 401 with each value in a separate header."""
    request.send_response(401)
    for value in values:
        request.send_header("WWW-Authenticate", value)
    request.send_header("Content-Length", "0")
    request.end_headers()
    return True


@pytest.mark.parametrize(
    "values",
    [
        ['Basic realm="r"'],
        ["basic realm=r"],
        ['Basic realm="a, Bearer realm=b"'],
        ['Negotiate, Basic realm="r"'],
        ["Negotiate", 'Digest realm="d", nonce="n"', 'Basic realm="r", charset="UTF-8"'],
        ['Bearer realm="{token}",service="s"'],
        ['bearer service="s" , realm = "{token}"'],
        ["Bearer realm={token},service=s"],
        ['Basic realm="r", Bearer realm="{token}",service="s"'],
        ['Basic realm="r"', 'Bearer realm="{token}",service="s"'],
        ['Bearer realm="{token}",service="s, with \\"quotes\\"",scope="repository:x:pull,push repository:y:pull"'],
        ['Bearer realm="{refused}"', 'Basic realm="r"'],
    ],
)
def test_each_form_of_challenges(proxy: Proxy, tmp_path: Path, values: list[str]) -> None:
    realms = {"token": f"http://{proxy.address}/token?a=b", "refused": f"http://{proxy.address}/refused"}
    sent = [value.replace("{token}", realms["token"]).replace("{refused}", realms["refused"]) for value in values]
    tokens: list[str] = []

    def answer(request: Forwarder) -> object:
        if request.path.startswith("/refused"):
            return request.reply(403)
        if request.path.startswith("/token"):
            tokens.append(request.path)
            return request.reply(200, b'{"access_token": "good", "token": null}')
        good = request.headers.get("Authorization") in (BASIC, "Bearer good")
        return not good and request.path != "/v2/" and _challenged(request, *sent)

    proxy.answer = answer
    copy(proxy.address, tmp_path / "mirror", lambda _: ME)
    assert len(whole(tmp_path / "mirror")) == 3
    assert len(tokens) == ("{token}" in "".join(values))
    if tokens:
        assert tokens[0].startswith("/token?a=b&scope=repository%3A")
        assert BASIC not in [sent for _, path, sent in proxy.asked if not path.startswith("/token")]
    if "quotes" in "".join(values):
        assert "service=s%2C+with+%22quotes%22" in tokens[0]
        assert tokens[0].count("scope=") == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"null"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"token": null}'),
        (200, b'{"token": ["x"]}'),
        (200, b'{"token": 7}'),
        (200, b'{"token": ""}'),
        (200, b'{"token": "a\\r\\nX-Evil: b"}'),
        (200, b'{"token": "\\ud800"}'),
        (200, b'{"token": "a b"}'),
        (200, b"<html>log in</html>"),
        (200, b"[" * 200_000),
        (200, b" " * (2 << 20)),
        (200, b'{"token": "\xff"}'),
        (204, b""),
        (302, b""),
        (401, b"{}"),
        (500, b"{}"),
    ],
)
def test_an_answer_of_a_token_server_that_is_none(proxy: Proxy, tmp_path: Path, status: int, body: bytes) -> None:
    def answer(request: Forwarder) -> object:
        if request.path.startswith("/token"):
            return request.reply(status, body)
        return request.path != "/v2/" and _challenged(request, f'Bearer realm="http://{proxy.address}/token"')

    proxy.answer = answer
    with pytest.raises(ActionFailed, match=r"no token from 'http://127\.0\.0\.1:\d+/token'") as error:
        copy(proxy.address, tmp_path / "mirror", lambda _: ME)
    assert "letmein" not in str(error.value)
    assert "\n" not in error.value.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("what", ["/manifests/", "/blobs/"])
def test_credentials_stay_with_the_registry(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, what: str
) -> None:
    """Another port is another origin, whatever netrc has for its host."""
    (tmp_path / "netrc").write_text("default login me password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with registries.proxy(proxy.target) as elsewhere:

        def answer(request: Forwarder) -> object:
            if request.path != "/v2/" and not request.headers.get("Authorization"):
                return _challenged(request, 'Basic realm="r"')
            place = f"http://u:p@{elsewhere.address}{request.path}"
            return what in request.path and request.reply(status, headers={"Location": place})

        proxy.answer = answer
        copy(proxy.address, tmp_path / "mirror", lambda _: ME)
        assert elsewhere.count(what) > 0
        assert {sent for _, _, sent in elsewhere.asked} == {""}


def test_another_server_does_not_learn_credentials_by_asking(proxy: Proxy, tmp_path: Path) -> None:
    """It asks for a token of its own realm; its 401 is an error that names it."""
    with registries.proxy(proxy.target) as elsewhere:
        elsewhere.answer = lambda request: _challenged(request, f'Bearer realm="http://{elsewhere.address}/token"')
        where = f"http://{elsewhere.address}/blob"
        proxy.answer = lambda request: "/blobs/" in request.path and request.reply(307, headers={"Location": where})
        with pytest.raises(ActionFailed, match=f"401 Unauthorized from {elsewhere.address}"):
            copy(proxy.address, tmp_path / "mirror", lambda _: ME)
        assert elsewhere.count("/token") == 0


def test_a_token_server_that_sends_on_gets_no_password_to_another(proxy: Proxy, tmp_path: Path) -> None:
    with registries.proxy(proxy.target) as elsewhere:
        elsewhere.answer = lambda request: request.reply(200, b'{"token": "good"}')

        def answer(request: Forwarder) -> object:
            if request.path.startswith("/token"):
                return request.reply(307, headers={"Location": f"http://{elsewhere.address}/token"})
            good = request.headers.get("Authorization") == "Bearer good"
            return (
                not good
                and request.path != "/v2/"
                and _challenged(request, f'Bearer realm="http://{proxy.address}/token"')
            )

        proxy.answer = answer
        copy(proxy.address, tmp_path / "mirror", lambda _: ME)
        assert {sent for _, _, sent in elsewhere.asked} == {""}
        elsewhere.asked.clear()
        with pytest.raises(ActionFailed, match="no token from"):
            copy(proxy.address, tmp_path / "other", lambda _: Credentials("", "an-identity"))
        assert elsewhere.asked == []


def test_from_https_only_what_has_a_digest_goes_to_http(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{authority}/ca.pem")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setattr(registry_client, "is_loopback", lambda _host: False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{authority}/server.pem", f"{authority}/server.key")
    document = json.dumps({"schemaVersion": 2, "manifests": []}).encode()

    def elsewhere(connection: socket.socket, head: str) -> None:
        connection.sendall(reply(200, BLOB if "blob" in head else document))

    with peer(elsewhere) as plain:

        def answer(connection: socket.socket, head: str) -> None:
            if "Authorization" not in head:
                connection.sendall(reply(401, WWW_Authenticate='Basic realm="r"'))
            elif head.startswith("POST"):
                connection.sendall(reply(202, Location=f"{plain.url}/upload"))
            else:
                connection.sendall(reply(307, Location=f"{plain.url}{head.split()[1]}"))

        with peer(answer, context) as server, client(server.port, ME) as asked:
            monkeypatch.setattr(registry_client, "_FIRST_WAIT", 0.001)
            assert b"".join(asked.blob(NAME, DIGEST, len(BLOB))) == BLOB
            with pytest.raises(ActionFailed, match="from https to http"):
                asked.manifest(NAME, "1")
            with pytest.raises(ActionFailed, match="names no place of https"):
                asked.upload(NAME, DIGEST, len(BLOB), lambda: [BLOB])
        assert plain.header("Authorization") == []


# Waiting


@pytest.mark.parametrize(
    ("value", "least"),
    [("1", 1.0), ("0.3", 0.3), ("DATE+1", 0.5), ("DATE-100", 0.0), ("soon", 0.0), ("-5", 0.0), ("nan", 0.0)],
)
@pytest.mark.usefixtures("quick")
def test_each_form_of_retry_after(proxy: Proxy, tmp_path: Path, value: str, least: float) -> None:
    """A time of day is the registry's own: its clock is an hour ahead."""
    times: list[float] = []

    def answer(request: Forwarder) -> object:
        if request.path == "/v2/":
            return False
        times.append(time.monotonic())
        there = int(time.time()) + 3600
        when = formatdate(there + int(value[4:]), usegmt=True) if value.startswith("DATE") else value
        if len(times) > 1:
            return False
        request.send_response_only(503)
        for name, text in {"Retry-After": when, "Date": formatdate(there, usegmt=True), "Content-Length": "0"}.items():
            request.send_header(name, text)
        request.end_headers()
        return True

    proxy.answer = answer
    copy(proxy.address, tmp_path / "mirror")
    assert least <= times[1] - times[0] < 30


@pytest.mark.parametrize("value", ["31", "86400.5", "9" * 9, "Sun, 29 Nov 2099 00:00:00 GMT"])
def test_a_wait_that_is_too_long_is_an_error(proxy: Proxy, tmp_path: Path, value: str) -> None:
    proxy.answer = lambda request: request.path != "/v2/" and request.reply(429, headers={"Retry-After": value})
    with pytest.raises(ActionFailed, match=r"it is busy \(429\) and asks to wait \d+ s"):
        copy(proxy.address, tmp_path / "mirror")


# Other answers


@pytest.mark.parametrize("location", ["", "ftp://a/b", "http://[::1", "file:///etc/passwd", "http://a:b/"])
@pytest.mark.usefixtures("quick")
def test_a_place_for_a_blob_that_is_none(location: str) -> None:
    answer = after_probe(lambda connection, _head: connection.sendall(reply(202, Location=location)))
    with (
        peer(answer) as server,
        client(server.port) as asked,
        pytest.raises(ActionFailed, match=r"names no (place|address) for a blob"),
    ):
        asked.upload(NAME, DIGEST, len(BLOB), lambda: [BLOB])


@pytest.mark.parametrize("value", ["", "sha256:" + "0" * 63, "sha256:../../x", "md5:0", "\xff"])
def test_a_digest_in_a_header_that_is_none_is_not_believed(proxy: Proxy, value: str) -> None:
    """The tag's digest is then that of its bytes."""

    def answer(request: Forwarder) -> object:
        status, body, headers = request.forward()
        return request.reply(
            status, body, {**headers, "Docker-Content-Digest": value} if request.command == "HEAD" else headers
        )

    proxy.answer = answer
    with closing(RegistryClient(proxy.address, lambda _: None)) as asked:
        found = asked.digest(NAME, "1")
        assert found == asked.manifest(NAME, "1").digest
        assert asked.has(NAME, "manifests/1") == "manifests/1"


def test_a_registry_without_head(proxy: Proxy) -> None:
    proxy.answer = lambda request: request.command == "HEAD" and request.reply(405)
    with closing(RegistryClient(proxy.address, lambda _: None)) as asked:
        assert asked.digest(NAME, "1") == asked.manifest(NAME, "1").digest
        assert asked.has(NAME, "manifests/1") == ""


def test_the_loopback_has_no_proxy(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(lambda connection, _head: connection.sendall(reply(502))) as other:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        copy(proxy.address, tmp_path / "mirror")
        assert other.heads == []
