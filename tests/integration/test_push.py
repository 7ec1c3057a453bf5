"""Images to registries: what is there is not sent, and what another repository has is mounted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import registries
from registries import FILES, HASHED, ME, NAME, Forwarder, Proxy, whole
from spaces import Space

from bkrules.errors import ActionFailed
from bkrules.images.copy_all import copy_all
from bkrules.images.docker_auth import Credentials
from bkrules.images.layout_source import LayoutSource
from bkrules.images.push import Registry
from bkrules.images.registry_client import RegistryClient
from bkrules.images.storage import Tree
from bkrules.model.reference import Reference

ONE, TWO = Reference("x.example", "team/one", "1"), Reference("x.example", "team/two", "1")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The storage of the registry that is pushed to."""
    folder = tmp_path / "pushed"
    folder.mkdir()
    return folder


@pytest.fixture
def target(binary: Path, kept: Path) -> Iterator[Proxy]:
    """An empty registry that takes pushes, and what was asked of it."""
    with registries.registry(binary, kept, readonly=False) as address, registries.proxy(address) as found:
        yield found


@pytest.fixture
def sources(tmp_path: Path) -> dict[Reference, LayoutSource]:
    """Two images that share a layer."""
    base = tmp_path / "base"
    registries.image(base, FILES)
    return {
        one: LayoutSource(registries.image(tmp_path / one.repository, {"own": one.repository.encode()}, base=base))
        for one in (ONE, TWO)
    }


def push(
    address: str,
    sources: dict[Reference, LayoutSource],
    find: Callable[[str], Credentials | None] = lambda _: None,
    prefix: str = "",
) -> int:
    """Push the images; how many bytes were sent."""
    with closing(RegistryClient(address, find)) as client:
        digests, sent = copy_all({one: (source, "", "") for one, source in sources.items()}, Registry(client, prefix))
    assert digests == {one: source.top() for one, source in sources.items()}
    return sent


def sent(target: Proxy) -> list[str]:
    """The methods of what changes a registry, in order."""
    return [method for method, _, _ in target.asked if method not in ("GET", "HEAD")]


def test_an_image_arrives_with_all_its_blobs(target: Proxy, kept: Path, sources: dict[Reference, LayoutSource]) -> None:
    push(target.address, sources, prefix="mirror/of")
    tree = Tree(kept)
    for one, source in sources.items():
        there = Reference("x", f"mirror/of/{one.repository}", "1")
        assert tree.tagged(there) == source.top()
        assert set(tree.blobs(source.top())) == set(source.blobs(source.top()))
    assert whole(kept) == {digest for one in sources.values() for digest, _ in one.blobs(one.top())}


def test_what_is_there_is_not_sent_again(target: Proxy, sources: dict[Reference, LayoutSource]) -> None:
    assert push(target.address, sources) > len(FILES["bulk"])
    before = len(target.asked)
    assert push(target.address, sources) == 0
    again = target.asked[before:]
    assert {method for method, _, _ in again} == {"GET", "HEAD"}


def test_a_shared_layer_is_sent_once_and_mounted(target: Proxy, sources: dict[Reference, LayoutSource]) -> None:
    total = push(target.address, sources)
    assert total < 2 * len(FILES["bulk"])
    (mounted,) = [path for method, path, _ in target.asked if method == "POST" and "mount=" in path]
    others = {"team/one": "team%2Ftwo", "team/two": "team%2Fone"}
    (repository,) = [name for name in others if mounted.startswith(f"/v2/{name}/")]
    assert mounted.endswith(f"&from={others[repository]}")
    uploads = [path for method, path, _ in target.asked if method == "PUT" and "/blobs/uploads/" in path]
    assert len(uploads) == 5  # two configurations, two layers, and the one that they share


def test_a_registry_that_does_not_mount_is_sent_everything(
    target: Proxy, kept: Path, sources: dict[Reference, LayoutSource]
) -> None:
    def answer(request: Forwarder) -> bool:
        request.path = request.path.partition("?mount=")[0]  # as a registry that does not know the parameter
        return False

    target.answer = answer
    assert push(target.address, sources) > 2 * len(FILES["bulk"])
    assert len(whole(kept)) == 7


def test_an_image_of_the_same_registry_is_mounted_from_where_it_was(
    target: Proxy, sources: dict[Reference, LayoutSource]
) -> None:
    push(target.address, {ONE: sources[ONE]})
    before = len(target.asked)
    there = Reference(target.address, ONE.repository, ONE.tag)
    with closing(RegistryClient(target.address)) as client:
        _, copied = copy_all({there: (client, there.repository, there.tag)}, Registry(client, "copies"))
    assert copied == 0
    paths = [path for method, path, _ in target.asked[before:] if method == "POST"]
    assert len(paths) == 3
    assert {path.partition("&from=")[2] for path in paths} == {"team%2Fone"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [0, 500])
def test_an_upload_that_fails_is_begun_anew(
    target: Proxy, kept: Path, sources: dict[Reference, LayoutSource], status: int
) -> None:
    """By an error, or by a connection that ends in the middle."""
    failed: list[str] = []

    def answer(request: Forwarder) -> bool:
        if request.command != "PUT" or "/blobs/" not in request.path or len(failed) == 2:
            return False
        failed.append(request.path.partition("?")[0])
        request.close_connection = True
        return True if status == 0 else request.reply(status)

    target.answer = answer
    push(target.address, {ONE: sources[ONE]})
    assert len(set(failed)) == 2, "each upload has its own address"
    assert len(whole(kept / "docker/registry/v2/blobs")) == 4


@pytest.mark.parametrize("readonly", [True, False])
def test_a_registry_that_takes_nothing_says_so(
    binary: Path, tmp_path: Path, sources: dict[Reference, LayoutSource], readonly: bool
) -> None:
    (tmp_path / "users").write_text(f"{HASHED}\n")
    auth = {} if readonly else {"auth": {"htpasswd": {"realm": "tests", "path": str(tmp_path / "users")}}}
    (tmp_path / "kept").mkdir()
    with registries.registry(binary, tmp_path / "kept", readonly=readonly, **auth) as address:
        said = "405 Method Not Allowed" if readonly else "authentication required, and no credentials found"
        with pytest.raises(ActionFailed, match=rf"{address}/team/\w+: .*{said}"):
            push(address, sources)
        if not readonly:
            push(address, sources, lambda _: ME)
            with pytest.raises(ActionFailed, match="401") as wrong:
                push(address, sources, lambda _: Credentials("me", "a-wrong-one"))
            assert "a-wrong-one" not in str(wrong.value)


def test_the_token_is_for_pushing(target: Proxy, sources: dict[Reference, LayoutSource]) -> None:
    """The first answer asks for a token to pull, and the upload for one to push, which may be of two repositories."""
    scopes: list[str] = []

    def answer(request: Forwarder) -> bool:
        if request.path.startswith("/token"):
            scopes.append(request.path)
            return request.reply(200, json.dumps({"token": "push" if "push" in request.path else "pull"}).encode())
        writes = request.command not in ("GET", "HEAD")
        known = request.headers.get("Authorization", "")
        if known == "Bearer push" or (known and not writes):
            return False
        wanted = "repository:team/one:pull,push repository:team/two:pull" if writes else "repository:team/one:pull"
        where = f'Bearer realm="http://{target.address}/token",service="tests",scope="{wanted}"'
        return request.reply(401, headers={"WWW-Authenticate": where})

    target.answer = answer
    push(target.address, {ONE: sources[ONE]})
    pushing = [path for path in scopes if "push" in path]
    assert pushing
    for path in pushing:
        assert path.count("scope=") == 2, path


def test_credentials_stay_with_the_registry(target: Proxy, sources: dict[Reference, LayoutSource]) -> None:
    """As with clouds, blobs are wanted elsewhere, at an address that needs no more than itself."""
    with registries.proxy(target.target) as elsewhere:

        def answer(request: Forwarder) -> bool:
            if not request.headers.get("Authorization"):
                return request.reply(401, headers={"WWW-Authenticate": 'Basic realm="tests"'})
            if request.command != "POST":
                return False
            status, body, headers = request.forward()
            place = headers["Location"].replace(target.address, elsewhere.address)
            return request.reply(status, body, {**headers, "Location": place})

        target.answer = answer
        push(target.address, {ONE: sources[ONE]}, lambda _: ME)
        assert {method for method, _, _ in elsewhere.asked} == {"PUT"}
        assert {sent for _, _, sent in elsewhere.asked} == {""}


def test_a_mirror_is_pushed(target: Proxy, kept: Path, host: str, space: Space) -> None:
    """From targets, and from another registry without a workspace; nothing is sent that is there."""
    space.write("hello.txt", "hello\n")
    space.write(
        "WORKSPACE.py",
        "from bkrules import image, image_mirror, workspace\nworkspace(name = 'test')\n"
        "image(name = 'i', files = {'hello.txt': 'hello.txt'})\n"
        "image_mirror(name = 'mirror', images = {'docker.io/library/hello:latest': ':i'})\n",
    )
    to = f"--to=docker://{target.address}/team"
    done = space.bk("mirror", "sync", to, "//:mirror", f"--disk_cache={space.cache}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"1 images in docker://{target.address}/team\n")
    assert Tree(kept).tagged(Reference("x", "team/library/hello", "latest"))

    for copied in ("3 MiB", "0 MiB"):
        done = space.bk("mirror", "sync", to, f"{host}/{NAME}:1")
        assert done.stdout.endswith(f"1 images, {copied} copied to docker://{target.address}/team\n"), done.stderr
    changed = sent(target)
    space.bk("mirror", "sync", to, f"{host}/{NAME}:1")
    assert sent(target) == changed, "all is there"
    shutil.rmtree(kept / "docker")
    assert "3 MiB" in space.bk("mirror", "sync", to, f"{host}/{NAME}:1").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "--to=docker://"], "'docker://' is no registry"),
        (["sync", "--to=docker://host", "a.example/b:1"], "'docker://host' is no registry"),
        (["sync", "--to=docker://a.example/Upper", "a.example/b:1"], "is no registry"),
        (["verify", "--to=docker://a.example"], "bk mirror verify: --to must be a folder, but is docker://a.example"),
        (["serve", "--to=docker://a.example"], "bk mirror serve: --to must be a folder"),
    ],
)
def test_wrong_usage(space: Space, words: list[str], said: str) -> None:
    done = space.bk("mirror", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
