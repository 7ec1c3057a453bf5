"""Copies are the original: real registries, a second reader (crane), and registries that mean no good."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import hostile_documents
import pytest
import registries
from hypothesis import HealthCheck, given, settings
from registries import INDEX, NAME, Forwarder, Proxy, copy, whole
from rounds import rounds
from shelf import CONFIG, Shelf, encoded, name_of
from spaces import Space

from bkrules import cli
from bkrules.errors import ActionFailed
from bkrules.images import layout
from bkrules.images.copy_all import copy_all
from bkrules.images.destination import Folder
from bkrules.images.digests import ImageDigest
from bkrules.images.documents import MANIFESTS
from bkrules.images.json_object import MANIFEST_LIMIT
from bkrules.images.layer import Entry, layer
from bkrules.images.push import Registry
from bkrules.images.registry_client import RegistryClient
from bkrules.images.storage import Tree
from bkrules.model.reference import ALL, Reference

REFERENCE = Reference("x.example", NAME, "1")
HEAD = "from bkrules import image, image_mirror, workspace\nworkspace(name = 'test')\n"
ANY_URL = {"validation": {"manifests": {"urls": {"allow": [".*"]}}}}
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def target(binary: Path, tmp_path: Path) -> Iterator[Proxy]:
    """An empty registry that takes pushes, and what was asked of it."""
    (tmp_path / "pushed").mkdir()
    started = registries.registry(binary, tmp_path / "pushed", readonly=False, **ANY_URL)
    with started as address, registries.proxy(address) as found:
        yield found


@pytest.fixture(scope="session")
def crane(built: Path, repository: Path) -> Callable[..., str]:
    """A second reader: runs crane."""
    command = [sys.executable, "-I", "-m", "bkrules", "build", "//tests/bench:crane"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    def run(*words: str) -> str:
        tool = repository / "bk-out/tests/bench/crane/crane"
        found = subprocess.run([tool, *words, "--insecure"], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    return run


def push(shelf: Shelf, address: str, *, referrers: bool = False) -> str:
    """Push what is on a shelf to a registry; its digest."""
    with closing(RegistryClient(address, lambda _: None)) as client:
        digests, _ = copy_all({REFERENCE: (shelf, NAME, "1")}, Registry(client), referrers=referrers)
    return digests[REFERENCE]


def pull(address: str, folder: Path, platform: str = ALL) -> str:
    """Copy from a registry to a folder; the digest."""
    with closing(RegistryClient(address, lambda _: None)) as client:
        digests, _ = copy_all({REFERENCE: (client, NAME, "1")}, Folder(Tree(folder)), platform)
    return digests[REFERENCE]


def real_layer(name: str) -> bytes:
    return gzip.compress(layer({name: Entry(name.encode())}), mtime=0)


def real_image(shelf: Shelf, name: str, **more: Any) -> dict[str, Any]:
    """An image that other clients can read too."""
    tar = layer({name: Entry(name.encode())})
    config = {**json.loads(CONFIG), "architecture": name, "rootfs": {"type": "layers", "diff_ids": [name_of(tar)]}}
    described = shelf.blob_of(encoded(config), layout.CONFIG)
    return shelf.image(gzip.compress(tar, mtime=0), config=described, **more)


def test_a_second_reader_sees_the_same_image(
    shelf: Shelf, target: Proxy, binary: Path, tmp_path: Path, crane: Callable[..., str]
) -> None:
    """Pushed, copied to a folder and served from it, an index with an index in it has all that it had."""
    inner = shelf.put(shelf.index(shelf.put(real_image(shelf, "arm64"), "arm", "linux/arm64")), "inner")
    entry = shelf.put(real_image(shelf, "amd64"), "amd", "linux/amd64")
    top = shelf.put(shelf.index(entry, inner))["digest"]
    assert push(shelf, target.address) == top
    assert pull(target.address, tmp_path / "kept") == top
    with registries.registry(binary, tmp_path / "kept") as served:
        for address in (target.target, served):
            assert crane("digest", f"{address}/{NAME}:1") == top
            assert crane("manifest", f"{address}/{NAME}:1").encode() == shelf.manifests[top]
            crane("validate", "--remote", f"{address}/{NAME}:1")
            assert json.loads(crane("manifest", f"{address}/{NAME}@{inner['digest']}"))["manifests"]
    crane("copy", f"{target.target}/{NAME}:1", f"{target.target}/other:1")
    assert whole(tmp_path / "kept") == whole(tmp_path / "pushed")


@pytest.mark.parametrize("kind", ["text/html", MANIFESTS[0], "", "application/octet-stream; charset=utf-8"])
def test_the_type_of_an_answer_is_not_believed(
    shelf: Shelf, target: Proxy, binary: Path, tmp_path: Path, kind: str
) -> None:
    """`--platform` narrows an index whatever it is called, and a push names the type that the document has."""
    arm = shelf.put(real_image(shelf, "arm"), "arm", "linux/arm64")
    top = shelf.put(shelf.index(shelf.put(real_image(shelf, "amd"), "amd", "linux/amd64"), arm))
    push(shelf, target.address)

    def answer(request: Forwarder) -> bool:
        if "/manifests/" not in request.path or request.command != "GET":
            return False
        status, body, headers = request.forward()
        return request.reply(status, body, {**headers, "Content-Type": kind})

    types: list[str] = []
    (tmp_path / "second").mkdir()

    def note(request: Forwarder) -> bool:
        if request.command == "PUT" and "/manifests/" in request.path:
            types.append(request.headers["Content-Type"])
        return False

    with (
        registries.registry(binary, tmp_path / "second", readonly=False) as address,
        registries.proxy(target.target) as source,
        registries.proxy(address) as second,
    ):
        source.answer, second.answer = answer, note
        assert pull(source.address, tmp_path / "kept", "linux/arm64") == arm["digest"]
        with closing(RegistryClient(source.address)) as one, closing(RegistryClient(second.address)) as other:
            digests, _ = copy_all({REFERENCE: (one, NAME, "1")}, Registry(other))
    assert digests[REFERENCE] == top["digest"]
    assert sorted(set(types)) == sorted({INDEX, layout.MANIFEST})
    assert whole(tmp_path / "second") == whole(tmp_path / "pushed")


def test_foreign_layers_and_empty_configurations_are_as_they_were(
    shelf: Shelf, target: Proxy, tmp_path: Path, crane: Callable[..., str]
) -> None:
    foreign = {"mediaType": FOREIGN, "digest": name_of(b"elsewhere"), "size": 9, "urls": ["https://b.example/layer"]}
    docker = shelf.image(real_layer("own"), mediaType=MANIFESTS[1])
    docker["layers"].append(foreign)
    docker["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    digest = shelf.put(docker)["digest"]
    assert push(shelf, target.address) == digest
    assert crane("digest", f"{target.target}/{NAME}:1") == digest
    assert pull(target.address, tmp_path / "kept") == digest
    assert len(whole(tmp_path / "kept")) == 3
    empty = {**shelf.blob_of(b"{}", "application/vnd.oci.empty.v1+json"), "data": "e30="}
    artifact = shelf.image(artifactType="application/vnd.x", config=empty, layers=[empty])
    digest = shelf.put(artifact)["digest"]
    assert push(shelf, target.address) == digest
    assert pull(target.address, tmp_path / "kept") == digest
    assert name_of(b"{}") in whole(tmp_path / "kept")


def test_what_refers_to_an_image_comes_along(shelf: Shelf, target: Proxy, tmp_path: Path, space: Space) -> None:
    """Through the tag that stands for the list of a registry that has none, and through such a list in two pages."""
    image = shelf.put(real_image(shelf, "image"))
    made = [shelf.put(shelf.image(one, subject=image), f"s{number}") for number, one in enumerate((b"1", b"2"))]
    shelf.put(shelf.index(*made), image["digest"].replace(":", "-"))
    push(shelf, target.address, referrers=True)
    command = ["mirror", "sync", f"{target.address}/{NAME}:1"]
    assert space.bk(*command, f"--to={tmp_path}/plain").returncode == 0
    assert len(whole(tmp_path / "plain")) == 3
    done = space.bk(*command, "--referrers", f"--to={tmp_path}/kept")
    assert done.returncode == 0, done.stderr
    assert whole(tmp_path / "kept") == whole(tmp_path / "pushed")

    def answer(request: Forwarder) -> bool:
        path, _, page = request.path.partition("?")
        if path != f"/v2/{NAME}/referrers/{image['digest']}":
            return "/referrers/" in path and request.reply(200, encoded(shelf.index()))
        more = {"Link": f'<{path}?page=2>; rel="next"'} if not page else {}
        return request.reply(200, encoded(shelf.index(made[1 if page else 0])), more)

    target.answer = answer
    done = space.bk(*command, "--referrers", f"--to={tmp_path}/listed")
    assert done.returncode == 0, done.stderr
    assert {one["digest"] for one in made} < whole(tmp_path / "listed")
    target.answer = lambda request: (
        "/referrers/" in request.path
        and request.reply(200, encoded(shelf.index()), {"Link": f'<{request.path}>; rel="next"'})
    )
    done = space.bk(*command, "--referrers", f"--to={tmp_path}/endless")
    assert done.returncode == 1
    assert "have more than 100 pages" in done.stderr
    assert space.bk("mirror", "sync", "--referrers").returncode == 2


def _with(**field: object) -> Callable[[Shelf], bytes]:
    return lambda shelf: encoded(shelf.image(b"layer", **field))


_ENDLESS = {"mediaType": layout.LAYER, "digest": name_of(b"x"), "size": 1}
_HOSTILE: list[tuple[str, Callable[[Shelf], bytes], str]] = [
    ("HTML", lambda _: b"<!doctype html><p>Log in", "it is HTML"),
    ("nothing", lambda _: b"", "it is not JSON"),
    ("cut", lambda shelf: encoded(shelf.image(b"layer"))[:-9], "it is not JSON"),
    ("deep", lambda _: b'{"manifests":' + b"[" * 900_000, "nested too deeply"),
    ("large", lambda _: b"[" + b"0," * (MANIFEST_LIMIT // 2) + b"0]", "it is larger than 4194304 bytes"),
    ("list", lambda _: b"[]", "must be an object"),
    ("path", _with(config={**_ENDLESS, "digest": "sha256:../../../../etc/passwd"}), "'config.digest'"),
    ("sha512", _with(config={**_ENDLESS, "digest": f"sha512:{'0' * 128}"}), "bk knows sha256 alone"),
    ("tag", lambda shelf: encoded(shelf.index({**_ENDLESS, "digest": "1"})), "'manifests[0].digest': '1' is no digest"),
    ("size", _with(layers=[{**_ENDLESS, "size": -1}]), "'layers[0].size' must be a number of bytes, but is -1"),
    ("schema 1", lambda _: b'{"schemaVersion": 1, "fsLayers": []}', "it is a manifest of schema 1"),
    ("surrogate", _with(mediaType="\ud800"), "'mediaType' must be a media type, but is '\\ud800'"),
]


@pytest.mark.parametrize(("document", "said"), [one[1:] for one in _HOSTILE], ids=[one[0] for one in _HOSTILE])
def test_a_document_that_means_no_good_is_an_error_with_its_name(
    proxy: Proxy, shelf: Shelf, tmp_path: Path, document: Callable[[Shelf], bytes], said: str
) -> None:
    data = document(shelf)
    proxy.answer = lambda request: "/manifests/" in request.path and request.reply(200, data)
    with pytest.raises(ActionFailed) as caught:
        copy(proxy.address, tmp_path / "kept")
    assert said in str(caught.value)
    assert f"{proxy.address}/{NAME}:1: " in str(caught.value)
    assert not list(tmp_path.rglob("kept/**/data"))


def _answer(manifest: bytes, blobs: dict[str, bytes], request: Forwarder) -> bool:
    if "/manifests/" in request.path:
        return request.reply(200, manifest)
    return "/blobs/" in request.path and request.reply(200, blobs.get(request.path.rpartition("/")[2], b""))


def test_no_file_of_the_machine_is_deleted_or_copied(proxy: Proxy, shelf: Shelf, space: Space, tmp_path: Path) -> None:
    """Through every command that reads manifests, as a user runs it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    name = f"{proxy.address}/{NAME}:1"
    for size in (11, 12):
        for digest in ("sha256:../secret", f"sha256:{secret}", "sha256:../../../../../secret"):
            layer = {"mediaType": layout.LAYER, "digest": digest, "size": size}
            described = shelf.put(shelf.image(layers=[layer]))
            data = shelf.manifests["1"]
            proxy.answer = partial(_answer, data, shelf.blobs)
            space.write(
                "WORKSPACE.py", f"{HEAD}image(name = 'i', reference = '{name}', digest = '{described['digest']}')\n"
            )
            for command in (["build", "//:i"], ["mirror", "sync", name, f"--to={tmp_path}/kept"]):
                done = space.bk(*command)
                assert done.returncode == 1, done.stdout + done.stderr
                assert f"the field 'layers[0].digest': '{digest[:100]}" in done.stdout + done.stderr
            assert secret.read_bytes() == b"of the host"
            assert not [
                path for path in space.root.rglob("*") if path.is_file() and path.read_bytes() == b"of the host"
            ]


_MEASURED = """
import resource, sys
from pathlib import Path
from bkrules import cli
from bkrules.errors import ActionFailed
from registries import copy
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
try:
    print(copy(sys.argv[1], Path(sys.argv[2])))
except ActionFailed as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["a longer blob", "an endless blob", "a packed manifest", "an endless manifest"])
def test_a_registry_decides_nothing_of_memory_or_disk(
    proxy: Proxy, tmp_path: Path, repository: Path, kind: str
) -> None:
    """In a process that may have 250 MiB: a blob is as long as its manifest says, and a manifest at most 4 MiB."""
    bomb = gzip.compress(bytes(400 << 20), 1)
    sent: list[int] = []

    def answer(request: Forwarder) -> bool:
        if ("/blobs/" if "blob" in kind else "/manifests/") not in request.path:
            return False
        if kind == "a packed manifest":
            return request.reply(200, bomb, {"Content-Encoding": "gzip"})
        if kind == "a longer blob":
            status, body, headers = request.forward()
            return request.reply(status, body + b"x", {**headers, "Content-Length": str(len(body) + 1)})
        request.send_response(200)
        request.end_headers()
        request.close_connection = True
        try:
            for _ in range(1000):
                request.wfile.write(bytes(1 << 20))
                sent.append(1)
        except OSError:
            pass  # it has heard enough
        return True

    proxy.answer = answer
    command = [sys.executable, "-c", _MEASURED, proxy.address, str(tmp_path / "kept"), str(250 << 20)]
    done = subprocess.run(command, cwd=repository / "tests", capture_output=True, text=True, check=False)
    said = "more than its" if "blob" in kind else "it is larger than 4194304 bytes|an unsolicited encoding"
    assert any(one in done.stdout for one in said.split("|")), done.stderr
    assert len(sent) < 100
    assert not list(tmp_path.rglob("kept/**/data"))


def test_references_with_one_place_are_refused(space: Space, host: str, proxy: Proxy, tmp_path: Path) -> None:
    """On the command line, and in two targets that one command copies."""
    pair = [f"{host}/{NAME}:1", f"{proxy.address}/{NAME}:1"]
    done = space.bk("mirror", "sync", *pair, f"--to={tmp_path}/kept")
    assert done.returncode == 2
    assert f"{pair[0]} and {pair[1]} have the same place on a mirror" in done.stderr
    for name in "ab":
        space.write(name, name)
    image = "".join(f"image(name = 'i{name}', files = {{'{name}': '{name}'}})\n" for name in "ab")
    mirror = "image_mirror(name = 'm{}', images = {{'{}/library/x:1': ':i{}'}})\n"
    command = ["mirror", "sync", "//:all", f"--to={tmp_path}/kept", f"--disk_cache={space.cache}"]
    for host_of_b, said in (
        ("docker.io", "//:ma and //:mb have two images for docker.io/library/x:1"),
        ("b.example", "b.example/library/x:1 and docker.io/library/x:1 have the same place on a mirror"),
    ):
        mirrors = mirror.format("a", "docker.io", "a") + mirror.format("b", host_of_b, "b")
        space.write("WORKSPACE.py", HEAD + image + mirrors)
        done = space.bk(*command)
        assert done.returncode == 2, done.stderr
        assert {*said.split(" and ", 1)[0].split(), *said.split()} <= {*done.stderr.split()}
    space.write(
        "WORKSPACE.py", HEAD + image + mirror.format("a", "docker.io", "a") + mirror.format("b", "docker.io", "a")
    )
    done = space.bk(*command)
    assert done.returncode == 0, done.stderr
    digest = Tree(tmp_path / "kept/data").tagged(Reference("x", "library/x", "1"))
    assert isinstance(digest, ImageDigest)


def test_an_index_is_no_base_and_no_image_of_a_platform(space: Space, tmp_path: Path) -> None:
    """A base that cannot be built on is an error of the build, with its field."""
    shelf = Shelf()
    space.write("WORKSPACE.py", HEAD + "image(name = 'b', archive = 'b.tar')\nimage(name = 'i', base = ':b')\n")
    for document, said in (
        (shelf.index(shelf.put(shelf.image(b"x"), "x", "linux/amd64")), "it is no image of one platform"),
        (shelf.image(b"x"), "it names 0 layers of 1"),
        (shelf.image(config=shelf.blob_of(b"[]", layout.CONFIG)), "it must be an object, but is a list"),
    ):
        entry = shelf.put(document)
        folder = tmp_path / "layout"
        for data in [*shelf.blobs.values(), *shelf.manifests.values()]:
            path = folder / "blobs" / name_of(data).replace(":", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        layout.write_index(folder, entry)
        subprocess.run(["tar", "-cf", space.root / "b.tar", "-C", folder, "."], check=True)
        done = space.bk("build", "//:i")
        assert done.returncode == 1, done.stdout + done.stderr
        assert said in done.stdout


@settings(
    max_examples=rounds(15),
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(hostile_documents.any_documents())
def test_any_answer_of_a_registry_is_a_copy_or_an_error(proxy: Proxy, data: bytes) -> None:
    """Never a bug of bk, by its exit code; and what was copied is there the second time."""
    shelf = Shelf()
    shelf.put(shelf.image(b"x", b"y"))

    def answer(request: Forwarder) -> bool:
        name = request.path.rpartition("/")[2]
        found = {"1": data, name_of(data): data, **shelf.blobs}.get(name, shelf.manifests.get(name))
        return request.reply(200 if found is not None or not name else 404, found or b"")

    proxy.answer = answer
    for more in ([], ["--platform", "linux/amd64"], ["--referrers"]):
        with tempfile.TemporaryDirectory() as folder:
            command = ["mirror", "sync", f"{proxy.address}/{NAME}:1", f"--to={folder}/kept", *more]
            first = cli.main(command)
            assert first in (0, 1)
            assert cli.main(command) == first
