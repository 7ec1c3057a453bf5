"""Images from registries: real ones, with and without passwords and TLS, and a proxy before one that misbehaves."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from registries import Forwarder, Proxy
from spaces import Space, wait_for

from bkrules import digest
from bkrules.errors import ActionFailed, UsageError
from bkrules.images import layout, registry_client
from bkrules.images.copy import Copier
from bkrules.images.docker_auth import Credentials, credentials
from bkrules.images.reference import Reference
from bkrules.images.registry_client import RegistryClient
from bkrules.images.storage import Tree

NAME = "library/sample"
HASHED = (
    "me:$2b$04$abcdefghijklmnopqrstuuPT0cs.zGMMB9aUG3xKmxLeI//6s0m5C"  # bcrypt of "letmein", all that a registry reads
)
ME = Credentials("me", "letmein")
FILES = {"hello.txt": b"hello\n", "bulk": os.urandom(3 << 20)}
HEAD = "from bkrules import image, image_mirror, workspace\nworkspace(name = 'test')\n"


@pytest.fixture(scope="session")
def binary(built: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of this repository."""
    return repository / "bk-out/registry/registry"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A storage tree with the image library/sample:1."""
    root = tmp_path / "storage"
    registries.fill(root, f"{NAME}:1", registries.image(tmp_path / "layout", FILES))
    return root


@pytest.fixture
def host(binary: Path, store: Path) -> Iterator[str]:
    with registries.registry(binary, store) as address:
        yield address


@pytest.fixture
def proxy(host: str) -> Iterator[Proxy]:
    with registries.proxy(host) as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries are a hundredth."""
    monkeypatch.setattr(registry_client, "_FIRST_WAIT", 0.001)


def copy(address: str, folder: Path, find: Callable[[str], Credentials | None] = lambda _: None, **more: str) -> str:
    """Copy the image to a storage tree; its digest."""
    tree = Tree(folder)
    client = RegistryClient(address, find)
    with Copier(tree) as copier:
        manifest = copier.image(client, NAME, more.pop("reference", "1"), **more)
    client.close()
    tree.add(Reference("x", NAME, "1"), manifest.digest)
    return manifest.digest


def whole(folder: Path) -> set[str]:
    """The digests of the blobs of a storage tree, each of which has the right bytes."""
    found = {f"sha256:{path.parent.name}": path for path in folder.rglob("data") if path.is_file()}
    for name, path in found.items():
        assert digest.of_file(path).hash == name.removeprefix("sha256:")
    return set(found)


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
        ("/manifests/", 401, {}, r"it wants credentials, and there are none"),
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
    pinned = Tree(store).tagged(Reference("x", NAME, "1"))
    proxy.answer = lambda request: "/manifests/" in request.path and request.reply(200, b"{}")
    with pytest.raises(ActionFailed, match=f"the manifest {pinned} has the digest"):
        copy(proxy.address, tmp_path / "mirror", reference=pinned)


def test_a_password(binary: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"{HASHED}\n")
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "users")}}
    with registries.registry(binary, store, auth=auth) as address:
        copy(address, tmp_path / "mirror", lambda _: ME)
        with pytest.raises(ActionFailed, match="it wants credentials, and there are none") as none:
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
def docker(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes Docker's configuration; the environment that leads there."""

    def make(config: object, helper: str = "") -> dict[str, str]:
        folder = tmp_path / "docker"
        folder.mkdir()
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        if helper:
            (folder / "docker-credential-tests").write_text(f"#!/bin/sh\nread host\n{helper}\n")
            (folder / "docker-credential-tests").chmod(0o755)
        return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}

    return make


@pytest.mark.parametrize(
    ("config", "host", "found"),
    [
        (
            {"auths": {"a.example": {"auth": base64.b64encode(b"me:let:me").decode()}}},
            "a.example",
            Credentials("me", "let:me"),
        ),
        (
            {"auths": {"https://index.docker.io/v1/": {"username": "me", "password": "x"}}},
            "docker.io",
            Credentials("me", "x"),
        ),
        ({"auths": {"https://a.example": {"identitytoken": "t"}}}, "a.example", Credentials("", "t")),
        ({"auths": {"a.example": {}}}, "a.example", None),
        ({"auths": {"b.example": {"username": "me", "password": "x"}}}, "a.example", None),
        ({}, "a.example", None),
    ],
)
def test_dockers_configuration(
    docker: Callable[..., dict[str, str]], config: object, host: str, found: Credentials | None
) -> None:
    assert credentials(host, docker(config)) == found


def test_a_credential_helper(docker: Callable[..., dict[str, str]]) -> None:
    found = """[ "$1 $host" = "get a.example" ] && echo '{"Username": "me", "Secret": "x"}'"""
    say = f"{found} || {{ echo credentials not found; exit 1; }}"
    environment = docker({"credHelpers": {"a.example": "tests"}, "credsStore": "tests"}, say)
    assert credentials("a.example", environment) == ("me", "x")
    assert credentials("b.example", environment) is None
    assert "x" not in repr(credentials("a.example", environment)).replace("example", "")


@pytest.mark.parametrize(
    ("config", "helper", "said"),
    [
        ("{", "", "cannot be read"),
        ({"auths": {"a.example": {"auth": "?"}}}, "", "the entry of a.example makes no sense"),
        ({"credsStore": "not-there"}, "", "docker-credential-not-there cannot be run"),
        ({"credsStore": "tests"}, "echo locked; exit 1", "docker-credential-tests failed for a.example: locked"),
        ({"credsStore": "tests"}, "echo {}", "docker-credential-tests gave no credentials for a.example"),
    ],
)
def test_a_configuration_that_makes_no_sense(
    docker: Callable[..., dict[str, str]], config: object, helper: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        credentials("a.example", docker(config, helper))


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


def targets(space: Space, address: str, more: str = "") -> None:
    name = f"{address}/{NAME}:1"
    space.write(
        "WORKSPACE.py",
        f"{HEAD}image(name = 'sample', reference = '{name}', {more})\n"
        "image_mirror(name = 'mirror', images = {'docker.io/library/sample:latest': ':sample'})\n",
    )


def test_a_reference_is_pinned_pulled_and_kept(proxy: Proxy, space: Space, tmp_path: Path) -> None:
    targets(space, proxy.address)
    unpinned = space.bk("build", "//:sample")
    assert unpinned.returncode == 1
    assert f"nothing says which digest {proxy.address}/{NAME}:1 has" in unpinned.stderr
    assert "bk mirror sync" in unpinned.stderr

    folder = tmp_path / "kept"
    done = space.bk("mirror", "sync", "--to", str(folder), f"--disk_cache={space.cache}")
    assert done.returncode == 0, done.stdout + done.stderr
    pins = json.loads((space.root / "bk.lock").read_text())["images"]
    assert list(pins) == [f"{proxy.address}/{NAME}:1"]
    tree = Tree(folder / "data")
    assert tree.tagged(Reference("docker.io", NAME, "latest")) == pins[f"{proxy.address}/{NAME}:1"]["digest"]
    assert len(whole(folder)) == 3

    assert space.bk("build", "//:sample").returncode == 0
    before = len(proxy.asked)
    again = space.bk("build", "//:mirror")
    assert "1 cached" in again.stdout
    assert len(proxy.asked) == before, "what is pinned and cached is not asked for"
    with registries.proxy(proxy.target) as elsewhere:
        other = json.loads((space.root / "bk.lock").read_text())
        other["images"] = {f"{elsewhere.address}/{NAME}:1": pins[f"{proxy.address}/{NAME}:1"]}
        (space.root / "bk.lock").write_text(json.dumps(other))
        targets(space, elsewhere.address)
        moved = space.bk("build", "//:mirror")
        assert "1 cached" in moved.stdout, "the same digest elsewhere is the same image"
        assert elsewhere.asked == []
    (space.root / "bk.lock").write_text(json.dumps({"version": 1, "images": pins}))
    targets(space, proxy.address)
    shutil.rmtree(space.root / "bk-out")
    (space.cache / "ac").rename(space.cache / "ac-away")
    assert space.bk("build", "//:sample").returncode == 0
    assert not [path for _, path, _ in proxy.asked[before:] if "/blobs/" in path], "its blobs were still there"


def test_a_moved_tag_is_an_error_with_both_digests(proxy: Proxy, store: Path, space: Space, tmp_path: Path) -> None:
    targets(space, proxy.address)
    name = f"{proxy.address}/{NAME}:1"
    cache = f"--disk_cache={space.cache}"
    assert space.bk("mirror", "sync", cache).returncode == 0
    assert space.bk("mirror", "verify", cache).stdout == "1 references, 0 blobs, 0 problems\n"
    old = Tree(store).tagged(Reference("x", NAME, "1"))
    new = registries.fill(store, f"{NAME}:1", registries.image(tmp_path / "other", {"b": b"2"}))

    for command in ("sync", "verify"):
        done = space.bk("mirror", command, cache)
        assert done.returncode == 1
        assert f"{name} was {old} and is {new}" in done.stdout + done.stderr
    assert space.bk("mirror", "sync", "--update", cache).returncode == 0
    assert json.loads((space.root / "bk.lock").read_text())["images"][name]["digest"] == new

    targets(space, proxy.address, f"digest = 'sha256:{'0' * 64}'")
    lost = space.bk("build", "//:sample")
    assert lost.returncode == 1
    assert f"{name} is {new} now, and sha256:{'0' * 64} is pinned" in lost.stdout


def test_a_damaged_mirror_is_found(host: str, tmp_path: Path, space: Space) -> None:
    folder = tmp_path / "kept"
    assert space.bk("mirror", "sync", f"{host}/{NAME}:1", "--to", str(folder)).returncode == 0
    assert "4 blobs, 0 problems" in space.bk("mirror", "verify", "--to", str(folder)).stdout.replace(
        "3 blobs", "4 blobs"
    )
    blobs = sorted(folder.rglob("data"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    blobs = [path for path in blobs if path.is_file()]
    blobs[-1].write_bytes(b"other")
    blobs[0].unlink()
    done = space.bk("mirror", "verify", "--to", str(folder))
    assert done.returncode == 1
    assert f"{NAME}:1: blob sha256:{blobs[-1].parent.name} has the digest" in done.stdout
    assert f"{NAME}:1: blob sha256:{blobs[0].parent.name} is missing" in done.stdout


def test_references_are_copied_side_by_side(host: str, store: Path, tmp_path: Path, space: Space) -> None:
    for number in range(2, 6):
        registries.fill(
            store, f"{NAME}:{number}", registries.image(tmp_path / f"i{number}", {"n": str(number).encode()})
        )
    names = [f"{host}/{NAME}:{number}" for number in range(1, 6)]
    done = space.bk("mirror", "sync", *names, "--to", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("5 images, 3 MiB copied")
    assert (
        space.bk("mirror", "sync", *names, "--to", str(tmp_path / "kept"))
        .stdout.splitlines()[-1]
        .startswith("5 images, 0 MiB copied")
    )
    assert whole(tmp_path / "kept") == whole(store)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "busybox"], "'busybox' is not a full reference"),
        (["sync", "a.example/b:1"], "--to says where references are copied to"),
        (["verify", "a.example/b:1"], "is no target pattern"),
        (["serve", "//:nothing"], "//:nothing"),
    ],
)
def test_wrong_usage(space: Space, words: list[str], said: str) -> None:
    environment = {"BUILDKIT_REGISTRY_MIRROR_DIR": ""}
    done = dataclasses.replace(space, environment=environment).bk("mirror", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_an_archive_is_an_image(space: Space, tmp_path: Path) -> None:
    registries.image(tmp_path / "layout", FILES)
    subprocess.run(["tar", "-cf", space.root / "oci.tar", "-C", tmp_path / "layout", "."], check=True)
    docker_archive(tmp_path / "layout", space.root / "docker.tar")
    (space.root / "bad.tar").write_bytes(b"no archive")
    text = "".join(f"image(name = '{name}', archive = '{name}.tar')\n" for name in ("oci", "docker", "bad"))
    space.write("WORKSPACE.py", HEAD + text)
    for name in ("oci", "docker"):
        done = space.bk("build", f"//:{name}")
        assert done.returncode == 0, done.stdout + done.stderr
        folder = space.root / f"bk-out/{name}/layout"
        assert len(list((folder / "blobs/sha256").iterdir())) == 3
        for path in (folder / "blobs/sha256").iterdir():
            assert digest.of_file(path).hash == path.name
    done = space.bk("build", "//:bad")
    assert done.returncode == 1
    assert "//:bad: the archive holds no image: it is no tar file" in done.stdout


def docker_archive(folder: Path, archive: Path) -> None:
    """The image of a layout as `docker save` of old wrote it."""
    manifest: dict[str, Any] = layout.read_manifest(folder)
    config, (layer,) = manifest["config"]["digest"], manifest["layers"]
    blobs = folder / "blobs/sha256"
    listed = [{"Config": "config.json", "RepoTags": ["sample:1"], "Layers": ["a/layer.tar"]}]
    (folder.parent / "manifest.json").write_text(json.dumps(listed))
    with tarfile.open(archive, "w") as tar:
        tar.add(blobs / config.removeprefix("sha256:"), "config.json")
        tar.add(blobs / layer["digest"].removeprefix("sha256:"), "a/layer.tar")
        tar.add(folder.parent / "manifest.json", "manifest.json")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("reference = 'busybox'", "'busybox' is not a full reference"),
        (
            "reference = 'a.example/b:1', digest = 'x'",
            "'digest' must be 'sha256:' and 64 hexadecimal digits, but was 'x'",
        ),
        ("reference = 'a.example/b:1', files = {'a': 'WORKSPACE.py'}", "'files' does not go with 'reference'"),
        ("reference = 'a.example/b:1', archive = 'WORKSPACE.py'", "'archive' does not go with 'reference'"),
        ("digest = 'sha256:1'", "'digest' goes with 'reference' alone"),
        (f"reference = 'a.example/b:1', digest = 'sha256:{'0' * 64}', platform = 'arm64'", "'arm64' is no platform"),
        ("archive = 'not-there.tar'", "not-there.tar"),
    ],
)
def test_a_rule_that_makes_no_sense(space: Space, attributes: str, said: str) -> None:
    space.write("WORKSPACE.py", f"{HEAD}image(name = 'i', {attributes})\n")
    done = space.bk("build", "//:i")
    assert done.returncode == 1
    assert said in done.stderr
    assert "WORKSPACE.py:3" in done.stderr


def test_a_lock_that_makes_no_sense(space: Space) -> None:
    targets(space, "a.example")
    space.write("bk.lock", '{"version": 7}')
    done = space.bk("build", "//:sample")
    assert done.returncode == 1
    assert "bk.lock cannot be read: its version is 7, and this bk reads 1" in done.stderr


def test_a_mirror_is_served(tools: Space, host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = tools.command("mirror", "serve", "//targets:mirror", f"--port={port}", f"--disk_cache={tools.cache}")
    log = tools.root / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=tools.root, stdout=output, stderr=output)
    try:
        place = f"http://127.0.0.1:{port}/v2/library/busybox/tags/list"

        def served() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(place, timeout=5) as answer:
                    return set(json.load(answer)["tags"]) == {"esgz", "latest"}
            except OSError:
                return False

        wait_for(served)
    finally:
        process.send_signal(2)
        assert process.wait(10) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
