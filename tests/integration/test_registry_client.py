"""Images from registries: real ones, with and without passwords and TLS, and a proxy before one that misbehaves."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import registries
from registries import HASHED, ME, NAME, Forwarder, Proxy, copy, whole

from bkrules.errors import ActionFailed
from bkrules.images import resolve_tags
from bkrules.images.docker_auth import Credentials
from bkrules.images.storage import Tree
from bkrules.model.reference import Reference


def test_an_image_arrives_with_all_its_blobs(host: str, store: Path, tmp_path: Path) -> None:
    assert copy(host, tmp_path / "mirror") == Tree(store).tagged(Reference("x", NAME, "1"))
    assert whole(tmp_path / "mirror") == whole(store)


def test_what_is_there_is_not_fetched_again(proxy: Proxy, tmp_path: Path) -> None:
    copy(proxy.address, tmp_path / "mirror")
    assert proxy.count("/blobs/") == 2
    copy(proxy.address, tmp_path / "mirror")
    assert proxy.count("/blobs/") == 2


@pytest.mark.usefixtures("quick")
def test_a_blob_that_ends_early_is_taken_up_where_it_ended(proxy: Proxy, tmp_path: Path) -> None:
    ranges = []

    def answer(request: Forwarder) -> bool:
        if "/blobs/" not in request.path:
            return False
        status, body, headers = request.forward()
        if len(body) < 1 << 20:
            return request.reply(status, body, headers)
        ranges.append(request.headers.get("Range", ""))
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[: 1 << 20])
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True
        return True

    proxy.answer = answer
    copy(proxy.address, tmp_path / "mirror")
    assert len(whole(tmp_path / "mirror")) == 3
    assert ranges[0] == ""
    assert [int(one.removeprefix("bytes=").rstrip("-")) for one in ranges[1:]] == [1 << 20, 2 << 20]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_is_asked_again_when_it_says(proxy: Proxy, tmp_path: Path, status: int) -> None:
    times: list[float] = []

    def answer(request: Forwarder) -> bool:
        if request.path == "/v2/":
            return False
        times.append(time.monotonic())
        return len(times) == 1 and request.reply(status, headers={"Retry-After": "1"})

    proxy.answer = answer
    copy(proxy.address, tmp_path / "mirror")
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize(
    ("part", "status", "headers", "said"),
    [
        ("/manifests/", 429, {"Retry-After": "3600"}, r"it is busy \(429\) and asks to wait 3600 s"),
        ("/manifests/", 500, {}, r"manifests/1: 500 Internal Server Error, 5 times"),
        ("/manifests/", 404, {}, r"manifests/1: 404 Not Found"),
        ("/manifests/", 403, {}, r"manifests/1: 403 Forbidden"),
        ("/blobs/", 404, {}, r"blobs/sha256:\w+: 404 Not Found"),
        ("/manifests/", 401, {}, r"authentication required, and no credentials found"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_goes_wrong_is_said(
    proxy: Proxy, tmp_path: Path, part: str, status: int, headers: dict[str, str], said: str
) -> None:
    proxy.answer = lambda request: part in request.path and request.reply(status, headers=headers)
    with pytest.raises(ActionFailed, match=rf"{proxy.address}/{NAME}: {said}"):
        copy(proxy.address, tmp_path / "mirror")
    assert not list((tmp_path / "mirror").rglob("link"))


@pytest.mark.usefixtures("quick")
def test_other_bytes_are_never_kept(proxy: Proxy, tmp_path: Path) -> None:
    def answer(request: Forwarder) -> bool:
        status, body, headers = request.forward()
        return "/blobs/" in request.path and request.reply(status, body[:-1] + b"!", headers)

    proxy.answer = answer
    with pytest.raises(ActionFailed, match=r"blob sha256:\w+ has \d+ bytes with the digest"):
        copy(proxy.address, tmp_path / "mirror")
    assert not list((tmp_path / "mirror").rglob("data"))


def test_another_manifest_than_its_digest_says(proxy: Proxy, tmp_path: Path, store: Path) -> None:
    pinned = registries.tagged(store, Reference("x", NAME, "1"))
    proxy.answer = lambda request: "/manifests/" in request.path and request.reply(200, b"{}")
    with pytest.raises(ActionFailed, match=f"@{pinned}: it has the digest"):
        copy(proxy.address, tmp_path / "mirror", reference=pinned)


def test_a_password(binary: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"{HASHED}\n")
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "users")}}
    with registries.registry(binary, store, auth=auth) as address:
        copy(address, tmp_path / "mirror", lambda _: ME)
        with pytest.raises(ActionFailed, match="authentication required, and no credentials found") as none:
            copy(address, tmp_path / "none")
        assert none.value.hint == f"docker login {address}"
        with pytest.raises(ActionFailed, match="401") as wrong:
            copy(address, tmp_path / "wrong", lambda _: Credentials("me", "a-wrong-one"))
        assert "a-wrong-one" not in str(wrong.value)
    assert len(whole(tmp_path / "mirror")) == 3


@pytest.mark.parametrize("known", [ME, Credentials("", "an-identity"), None], ids=["password", "identity", "nobody"])
def test_a_token(proxy: Proxy, tmp_path: Path, known: Credentials | None) -> None:
    """The registry sends us to a token server with the scope that it wants; the token is asked for once."""
    asked: list[tuple[str, str, str]] = []

    def answer(request: Forwarder) -> bool:
        if request.path.startswith("/token"):
            body = request.rfile.read(int(request.headers.get("Content-Length", 0))).decode()
            asked.append((request.path, request.headers.get("Authorization", ""), body))
            return request.reply(200, b'{"token": "good"}')
        if request.headers.get("Authorization") == "Bearer good":
            return False
        where = f'Bearer realm="http://{proxy.address}/token",service="tests",scope="repository:{NAME}:pull"'
        return request.reply(401, headers={"WWW-Authenticate": where})

    proxy.answer = answer
    copy(proxy.address, tmp_path / "mirror", lambda _: known)
    ((path, sent, body),) = asked
    words = "scope=repository%3Alibrary%2Fsample%3Apull"
    if known and not known.user:
        assert (path, sent) == ("/token", "")
        assert words in body
        assert "refresh_token=an-identity" in body
    else:
        assert words in path
        assert sent == (f"Basic {base64.b64encode(b'me:letmein').decode()}" if known else "")


def test_credentials_do_not_follow_a_redirect_to_another_host(proxy: Proxy, tmp_path: Path) -> None:
    """As hubs do, blobs are elsewhere."""
    with registries.proxy(proxy.target) as elsewhere:

        def answer(request: Forwarder) -> bool:
            if not request.headers.get("Authorization"):
                return request.reply(401, headers={"WWW-Authenticate": 'Basic realm="tests"'})
            target = f"http://localhost:{elsewhere.address.rpartition(':')[2]}{request.path}"
            return "/blobs/" in request.path and request.reply(307, headers={"Location": target})

        proxy.answer = answer
        copy(proxy.address, tmp_path / "mirror", lambda _: ME)
        assert {sent for _, _, sent in elsewhere.asked} == {""}
        assert elsewhere.count("/blobs/") == 2


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_tls_with_an_authority_of_ones_own(
    binary: Path, store: Path, tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    tls = {"certificate": f"{authority}/server.pem", "key": f"{authority}/server.key"}
    with registries.registry(binary, store, http={"tls": tls}) as address:
        with pytest.raises(ActionFailed, match="its certificate is not trusted"):
            copy(address, tmp_path / "mirror")
        monkeypatch.setenv(name, f"{authority}/ca.pem")
        copy(address, tmp_path / "mirror")
    assert len(whole(tmp_path / "mirror")) == 3


@pytest.fixture
def many(binary: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A registry with an index of three platforms; its address, and the digest of the index."""
    made = [registries.image(tmp_path / name, {"name": name.encode()}, name) for name in ("amd64", "arm64", "arm")]
    root = tmp_path / "many"
    index = registries.fill(root, f"{NAME}:1", *made, platforms=["linux/amd64", "linux/arm64/v8", "linux/arm/v7"])
    with registries.registry(binary, root) as address:
        yield address, index


def test_an_index_is_narrowed_or_kept_whole(many: tuple[str, str], tmp_path: Path) -> None:
    address, index = many
    assert copy(address, tmp_path / "all") == index
    assert len(whole(tmp_path / "all")) == 10
    amd64 = copy(address, tmp_path / "one", platform="linux/amd64")
    assert amd64 in whole(tmp_path / "all") - {index}
    assert len(whole(tmp_path / "one")) == 3
    assert copy(address, tmp_path / "arm", platform="linux/arm64") != amd64
    with pytest.raises(ActionFailed, match="has no manifest for linux/riscv64") as caught:
        copy(address, tmp_path / "none", platform="linux/riscv64")
    assert caught.value.hint == "it has: linux/amd64, linux/arm/v7, linux/arm64/v8"


def test_many_tags_are_resolved(
    binary: Path, store: Path, tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are resolved by TLS, as with remote registries, up to the first that is missing."""
    made = registries.image(tmp_path / "one", {"a": b"1"})
    digest = registries.fill(store, "many/image:00", made)
    for number in range(1, 40):
        registries.fill(store, f"many/image:{number:02}", made)
    monkeypatch.setenv("SSL_CERT_FILE", f"{authority}/ca.pem")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setattr(resolve_tags, "is_loopback", lambda _host: False)
    tls = {"certificate": f"{authority}/server.pem", "key": f"{authority}/server.key"}
    with registries.registry(binary, store, http={"tls": tls}) as address:
        wanted = [Reference(address, "many/image", f"{number:02}") for number in range(40)]
        assert resolve_tags.resolve_tags(wanted) == dict.fromkeys(wanted, digest)
        missing = Reference(address, "many/image", "19b")
        assert resolve_tags.resolve_tags([*wanted, missing]) == dict.fromkeys(wanted[:20], digest)
        monkeypatch.setenv("SSL_CERT_FILE", f"{authority}/server.pem")
        assert resolve_tags.resolve_tags(wanted) == {}
    assert resolve_tags.resolve_tags(wanted) == {}
