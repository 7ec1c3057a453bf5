"""`bk record`: a user's own build in one file, and the same outcome elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
import registries
from leftovers import Leftovers
from reproductions import forge, put, unpack
from spaces import WORKERS, Space, wait_for

from bkrules.declarative.own_build import REQUEST, TEST
from bkrules.model.action import FileNode

DOCKERFILE = """
FROM docker.io/library/busybox:latest
ARG GREETING=hello
COPY . /context
RUN ls -la /context/empty /context/link && cat /context/link && echo "$GREETING" && exit 3
"""
FAILED = 'failed to solve: process "/bin/sh -c ls -la /context/empty /context/link && cat /context/link && echo'
SECRETS = {"NPM_TOKEN": "secret-of-the-token", "HTTPS_PROXY": "http://me:secret-of-the-proxy@127.0.0.1:9"}


@pytest.fixture
def project(tools: Space) -> Path:
    """A folder with a Dockerfile that fails, outside of the workspace."""
    folder = tools.root.parent / "project"
    (folder / "empty").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "text").write_text("the text\n")
    (folder / "link").symlink_to("text")
    (folder / ".dockerignore").write_text(".env\n")
    (folder / ".env").write_text("left out by .dockerignore\n")
    return folder


def run(
    space: Space,
    *words: str,
    after: tuple[str, ...] = (),
    folder: Path | None = None,
    cache: Path | None = None,
    variables: Mapping[str, str] = SECRETS,
) -> subprocess.CompletedProcess[str]:
    """Run bk with a command after `--`."""
    command = space.command(*words, "--disk_cache", str(cache or space.cache))
    return subprocess.run(
        [*command, *(["--", *after] if after else [])],
        cwd=folder or space.root,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def of(project: Path, *more: str) -> tuple[str, ...]:
    """Return a build of the folder."""
    folders = ("--local", f"context={project}", "--local", f"dockerfile={project}")
    return ("buildctl", "build", "--frontend=dockerfile.v0", *folders, *more)


def recorded(space: Space, project: Path, worker: str, *words: str, more: tuple[str, ...] = ()) -> Path:
    """Return the file of the build on a worker."""
    file = space.root.parent / f"{worker}{len(words)}.tgz"
    done = run(space, "record", f"//targets:{worker}", "-o", str(file), *words, after=of(project, *more))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"//targets:{worker}: failed: error: {FAILED}" in done.stdout
    assert "the mirror served docker.io/library/busybox:latest@sha256:" in done.stdout
    assert "build.log | error: failed to solve" in done.stderr
    return file


def elsewhere(space: Space) -> Space:
    """Return a workspace in another folder with the tools of this one alone."""
    other = Space(space.root.parent / "elsewhere", space.cache)
    other.write("WORKSPACE.py", (space.root / "WORKSPACE.py").read_text())
    (other.root / "targets").mkdir()
    for name in ("targets/tools", "plugins"):
        (other.root / name).symlink_to(space.root / name)
    return other


def check_replay(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout.startswith(f"reproduced: failed: error: {FAILED}")) == (0, True), (
        done.stdout + done.stderr
    )
    assert "command: buildctl build --progress=plain --frontend=dockerfile.v0 --local=context=/src/local/context" in (
        done.stderr
    )


@pytest.mark.parametrize("worker", ["oci", "containerd"])
def test_a_build_fails_again_from_its_file(worker: str, tools: Space, project: Path, leftovers: Leftovers) -> None:
    before = leftovers(tools.cache)
    file = recorded(tools, project, worker)
    members = unpack(file)
    manifest = json.loads(members["bk-repro.json"])
    assert (manifest["schema"], manifest["kind"], manifest["matrix"]) == (2, "build", f"//targets:{worker}")
    assert {"build.log", "buildkitd.log", "test.log"} <= set(manifest["result"]["logs"])
    images = {name for name in manifest["made"] if name.startswith("mirror/")}
    assert not images, "the mirror has large images, and the build pulls none of them"
    context = next(data for data in members.values() if data.startswith(b".dockerignore\0"))
    with tarfile.open(fileobj=BytesIO(context)) as tar:
        assert tar.getnames() == [".dockerignore", "Dockerfile", "empty", "link", "text"]
    done = run(elsewhere(tools), "replay", str(file))
    check_replay(done)
    assert "images: docker.io/library/busybox:latest\n" in done.stderr
    assert "differs here" not in done.stderr
    assert leftovers(tools.cache) == before


def test_tools_that_cannot_be_built_are_the_machine_s_fault(
    tools: Space, project: Path, repository: Path, tmp_path: Path
) -> None:
    """The proxy of the variables is not there, so the compiler cannot be fetched."""
    subprocess.run(["git", "clone", "--quiet", repository, tmp_path / "clone"], check=True)
    fresh = Space(tmp_path / "clone", tmp_path / "empty")
    done = run(fresh, "replay", str(recorded(tools, project, "oci")))
    assert done.returncode == 36, done.stderr
    assert "FetchWheel has no answer from the network" in done.stderr
    assert "bug of bk" not in done.stderr


@pytest.mark.soak
def test_a_build_on_each_worker_fails_again_in_a_fresh_clone(
    tools: Space, project: Path, repository: Path, tmp_path: Path
) -> None:
    """The tools are those that the cache has; a cell's replay in `test_repro.py` compiles them from their pins."""
    subprocess.run(["git", "clone", "--quiet", repository, tmp_path / "clone"], check=True)
    fresh = Space(tmp_path / "clone", tools.cache)
    for worker in WORKERS:
        for words in ((), ("--self_contained",)):
            check_replay(run(fresh, "replay", str(recorded(tools, project, worker, *words))))


def test_a_self_contained_file_needs_no_workspace_and_no_cache(tools: Space, project: Path, tmp_path: Path) -> None:
    (tmp_path / "nowhere").mkdir()
    file = recorded(tools, project, "containerd_stargz", "--self_contained")
    empty = tmp_path / "empty"
    done = run(tools, "replay", str(file), "--trust", "--json", folder=tmp_path / "nowhere", cache=empty)
    assert (done.returncode, json.loads(done.stdout)["reproduced"]) == (0, True), done.stdout + done.stderr
    assert not (empty / "ac").exists(), "a replay stores no result"
    assert not (empty / "go").exists(), "a replay builds nothing"


def test_no_secret_gets_into_a_file(tools: Space, project: Path, tmp_path: Path) -> None:
    (tmp_path / "npmrc").write_text("secret-of-a-file")
    arguments = [f"build-arg:NPM_TOKEN={SECRETS['NPM_TOKEN']}", "build-arg:GREETING=secret-of-the-token"]
    more = ("--secret", f"id=npm,src={tmp_path}/npmrc", "--ssh", f"default={tmp_path}/npmrc")
    file = tmp_path / "file.tgz"
    words = of(project, *more, *(f"--opt={text}" for text in arguments))
    done = run(tools, "record", "//targets:oci", "-o", str(file), after=words)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("--secret id=npm", "--ssh default", "--opt build-arg:NPM_TOKEN", "--opt build-arg:GREETING"):
        assert f"left out: {line} (a secret)\n" in done.stderr
    for name, data in unpack(file).items():
        for value in (b"secret-of", str(tmp_path).encode(), b"left out by .dockerignore"):
            assert value not in data, (name, value)

    file.unlink()
    (project / "config").write_text(f"token={SECRETS['NPM_TOKEN']}")
    refused = run(tools, "record", "//targets:oci", "-o", str(file), after=of(project))
    assert (refused.returncode, file.exists()) == (1, False)
    assert f"{project}/config contains the value of NPM_TOKEN, so bk wrote no file" in refused.stderr


def test_an_image_that_the_mirror_lacks_is_an_error(tools: Space, project: Path) -> None:
    file = project.parent / "file.tgz"
    for image in ("docker.io/library/python:3.12", "registry.example/python:3.12"):
        (project / "Dockerfile").write_text(f"FROM {image}\n")
        done = run(tools, "record", "//targets:oci", "-o", str(file), after=of(project))
        assert (done.returncode, file.exists()) == (1, False), done.stdout + done.stderr
        assert f"the build needs {image}, which the mirror //targets:mirror does not have" in done.stderr


def test_a_build_that_does_not_end_ends_at_its_limit_and_by_ctrl_c(
    tools: Space, project: Path, leftovers: Leftovers, tmp_path: Path
) -> None:
    before = leftovers(tools.cache)
    (project / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\nRUN echo begins && sleep 3600\n")
    file = tmp_path / "file.tgz"
    done = run(tools, "record", "//targets:oci", "-o", str(file), "--timeout=10", after=of(project))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "//targets:oci: timed out: it took more than 10 s\n" in done.stdout
    manifest = json.loads(unpack(file)["bk-repro.json"])
    assert b"begins" in unpack(file)[f"blobs/sha256/{manifest['result']['logs']['build.log']['hash']}"]

    other = tmp_path / "other.tgz"
    command = tools.command("record", "//targets:oci", "-o", str(other), "--disk_cache", str(tools.cache))
    log = tools.root / "bk-out/targets/oci/own_build/worker=oci/build.log"
    log.unlink()
    with subprocess.Popen([*command, "--", *of(project)], cwd=tools.root, stderr=subprocess.PIPE) as bk:
        wait_for(lambda: log.exists() and b"begins" in log.read_bytes())
        bk.send_signal(signal.SIGINT)
        _, errors = bk.communicate()
    assert (bk.returncode, other.exists()) == (8, False), errors
    assert leftovers(tools.cache) == before


def test_a_forged_file_runs_the_build_that_it_shows(tools: Space, project: Path, tmp_path: Path) -> None:
    """bk's own test runs the build, whatever test is in the file."""
    file = recorded(tools, project, "oci")

    def evil(blobs: dict[str, bytes], files: dict[str, FileNode]) -> None:
        files[f"src/{TEST}"] = FileNode(put(blobs, b"def test_build(): assert False, 'another test'\n"), "")

    done = run(tools, "replay", str(forge(file, tmp_path / "forged.tgz", evil)))
    check_replay(done)
    assert f"differs here: src/{TEST}\n" in done.stderr

    def shapeless(blobs: dict[str, bytes], files: dict[str, FileNode]) -> None:
        files[f"src/{REQUEST}"] = FileNode(put(blobs, b'{"words": [], "folders": ["../x"]}'), "")

    done = run(tools, "replay", str(forge(file, tmp_path / "forged.tgz", shapeless)))
    assert (done.returncode, "its action is malformed" in done.stderr) == (1, True), done.stderr


def test_an_image_of_a_registry_is_in_the_file(tools: Space, project: Path, binary: Path, tmp_path: Path) -> None:
    """It is pushed to a registry, pulled from there, built from under its name there, also by Docker's daemon, and needs no
    registry any more when the file runs.
    """
    images = "image_mirror(name = 'busybox_alone', images = {'docker.io/library/app:1': ':busybox'})\n"
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text() + images)
    (tmp_path / "storage").mkdir()
    with registries.registry(binary, tmp_path / "storage", readonly=False) as address:
        pushed = run(tools, "mirror", "sync", "//targets:busybox_alone", f"--to=docker://{address}/team")
        assert pushed.returncode == 0, pushed.stdout + pushed.stderr
        image = f"{address}/team/library/app:1"
        more = (
            f"image(name = 'app', reference = '{image}')\nimage_mirror(name = 'ours', images = {{'{image}': ':app'}})\n"
        )
        build.write_text(build.read_text() + more)
        synced = run(tools, "mirror", "sync")
        assert f"pinned {image} sha256:" in synced.stdout, synced.stdout + synced.stderr
        (project / "Dockerfile").write_text(DOCKERFILE.replace("docker.io/library/busybox:latest", image))
        done = {
            worker: run(
                tools,
                *("record", f"//targets:{worker}", "--mirror=//targets:ours", "-o", str(tmp_path / f"{worker}.tgz")),
                after=of(project),
            )
            for worker in ("oci", "dockerd")
        }
    other = elsewhere(tools)
    for worker, one in done.items():
        assert one.returncode == 0, one.stdout + one.stderr
        assert f"//targets:{worker}: failed: error: {FAILED}" in one.stdout
        assert f"the mirror served {image}@sha256:" in one.stdout
        check_replay(run(other, "replay", str(tmp_path / f"{worker}.tgz")))


@pytest.mark.parametrize(
    ("words", "after", "why"),
    [
        ((), (), "there is no command after `--`"),
        (("//targets:oci", "build"), (), "the words of the command come after `--`"),
        (("nobody",), ("build", "--frontend=x"), "no worker targets are called 'nobody'"),
        ((), ("build", "--frontend=x"), "worker targets\n  say which one: //targets:containerd"),
        (("//targets:oci", "-o", "/nowhere/x"), ("build", "--frontend=x"), "cannot write the file /nowhere/x"),
        (("//targets:oci",), ("build", "--frontend=x", "--local", "context=/nowhere"), "/nowhere does not exist"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], after: tuple[str, ...], why: str, tools: Space) -> None:
    done = run(tools, "record", *words, after=after)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
