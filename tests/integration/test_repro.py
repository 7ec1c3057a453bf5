"""`bk repro` and `bk replay`: a failing cell in one file, and the same failure elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from leftovers import Leftovers
from reproductions import forge, pack, put, unpack
from spaces import ATTEMPT, WORKERS, Space, matrix

from bkrules.model.action import FileNode
from bkrules.model.digest import Digest

FAILS = """
def test_fails(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\\nRUN echo hello > /hello.txt\\n")
    folders = f"--local context={tmp_path} --local dockerfile={tmp_path}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/hello.txt").read_text() == "good bye\\n"
"""
FAILED = "failed: t/test_small.py:6: assert 'hello\\n' == 'good bye\\n'"
IDS = {worker: worker.replace("_", "+") for worker in WORKERS}
ENVIRONMENT = """
import os

def test_mode(sandbox):
    print(os.environ["MODE"], os.environ["PASSWORD"])
    assert os.environ["MODE"] == "good"
"""


@pytest.fixture
def failing(tools: Space) -> Space:
    """A workspace with a cell that fails on each worker, and a mirror with one small image."""
    matrix(tools, FAILS, *WORKERS)
    build = tools.root / "targets/BUILD.py"
    text = build.read_text()
    assert text.count('mirror = ":mirror",\n    \n') == 1
    text = text.replace('mirror = ":mirror",\n    \n', 'mirror = ":plain",\n')
    build.write_text(
        f'{text}\nimage_mirror(name = "plain", images = {{"docker.io/library/busybox:latest": ":busybox"}})\n'
    )
    return tools


def run(
    space: Space,
    *words: str,
    cache: Path | None = None,
    folder: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run bk in the workspace, or in another folder and with another cache."""
    command = [*space.command(*words), "--disk_cache", str(cache or space.cache)]
    return subprocess.run(
        command,
        cwd=folder or space.root,
        env={**os.environ, **(more or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def recorded(space: Space, worker: str, *words: str) -> Path:
    """Return the reproduction of the cell on a worker."""
    file = space.root.parent / f"{worker}{len(words)}.tgz"
    done = run(space, "repro", f"//targets:small[test_fails/worker={IDS[worker]}]", "-o", str(file), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert FAILED in done.stdout
    return file


def elsewhere(space: Space) -> Space:
    """Return a workspace in another folder with the tools and images of this one, and without its tests."""
    other = Space(space.root.parent / "elsewhere", space.cache)
    other.write("WORKSPACE.py", (space.root / "WORKSPACE.py").read_text())
    (other.root / "targets").mkdir()
    (other.root / "targets/tools").symlink_to(space.root / "targets/tools")
    (other.root / "plugins").symlink_to(space.root / "plugins")
    return other


def test_each_worker_fails_again_from_its_small_file(failing: Space, leftovers: Leftovers) -> None:
    other = elsewhere(failing)
    before = leftovers(failing.cache)
    for worker in WORKERS:
        file = recorded(failing, worker)
        assert file.stat().st_size < 2 << 20
        done = run(other, "replay", str(file))
        assert (done.returncode, done.stdout) == (0, f"reproduced: {FAILED}\n"), done.stderr
        assert f"test_fails/worker={IDS[worker]} of //targets:small\nrecorded: {FAILED}\n" in done.stderr
        assert "in a jail, without a network" in done.stderr
        assert "differs here: isolation\n" in done.stderr
    assert leftovers(failing.cache) == before
    again = failing.root.parent / "again.tgz"
    done = run(failing, "repro", "test_fails/worker=rootless", "-o", str(again))
    assert "FAILED" not in done.stderr, "the outcome of the last run is kept, so the cell does not run again"
    assert again.read_bytes() == recorded(failing, "rootless").read_bytes()


def test_a_self_contained_file_needs_no_workspace_and_no_cache(failing: Space, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    for worker in ("oci", "containerd_stargz"):
        file = recorded(failing, worker, "--self_contained")
        empty = tmp_path / f"empty-{worker}"
        done = run(failing, "replay", str(file), "--trust", "--json", cache=empty, folder=nowhere)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert (found["reproduced"], found["differences"]) == (True, [])
        assert found["key"]["here"] == found["key"]["recorded"], "all that the key covers is the same"
        assert not (empty / "ac").exists(), "a replay stores no result"
        assert not (empty / "go").exists(), "a replay builds nothing"

        lost = run(failing, "replay", str(file), cache=empty, folder=nowhere)
        assert (lost.returncode, "the replay needs //:registry" in lost.stderr) == (36, True)


GO = """
go_binary(name = "g_test", srcs = ["//g:a_test.go"], mod = "//g:go.mod", test = True)
go_test(name = "suite", binary = ":g_test", subtests = ["TestTree"])
host_binary(name = "bash", binary = "/bin/bash")
test_matrix(
    name = "other",
    tests = [":suite", "//t:build.sh"],
    workers = [":oci", ":rootless"],
    mirror = ":plain",
    tools = [":bash"],
    data = ["//t:Dockerfile"],
)
"""
GO_TEST = """package g

import "testing"

func TestTree(t *testing.T) {
	for _, name := range []string{"good", "b a/d"} {
		t.Run(name, func(t *testing.T) {
			if name != "good" {
				t.Errorf("the leaf %s fails", name)
			}
		})
	}
}
"""
PROGRAM = """#!/bin/bash
echo "1..2"
buildctl build --frontend=dockerfile.v0 --local context=t --local dockerfile=t --progress=plain && echo "ok 1 - builds"
echo "not ok 2 - is $BK_WORKER on $BK_SNAPSHOTTER"
exit 1
"""
GO_LEAF = "TestTree/b_a/d"
OTHERS = {
    GO_LEAF: "failed: exit status 1; 1 of 1 cases failed: TestTree/b_a/d (the leaf b a/d fails)",
    "build.sh": "failed: exit status 1; 1 of 2 cases failed: is ",
}
"""Tests that are none of pytest's, and the beginning of how each fails."""


@pytest.mark.parametrize(
    ("test", "worker", "words"), [(GO_LEAF, "oci", ()), ("build.sh", "rootless", ("--self_contained",))]
)
def test_a_go_test_and_a_program_fail_again(test: str, worker: str, words: tuple[str, ...], failing: Space) -> None:
    build = failing.root / "targets/BUILD.py"
    rules = ", go_binary, go_test, host_binary, test_matrix"
    build.write_text(build.read_text().replace(", test_matrix", rules, 1) + GO)
    for name, text in {"g/BUILD.py": "", "g/a_test.go": GO_TEST, "g/go.mod": "module g\n\ngo 1.24\n"}.items():
        failing.write(name, text)
    failing.write("t/Dockerfile", "FROM docker.io/library/busybox:latest\nRUN echo hello\n")
    failing.write("t/build.sh", PROGRAM).chmod(0o755)
    file = failing.root.parent / "file.tgz"
    done = run(failing, "repro", f"//targets:other[{test}/worker={worker}]", "-o", str(file), *words)
    assert (done.returncode, OTHERS[test] in done.stdout) == (0, True), done.stdout + done.stderr
    again = run(elsewhere(failing), "replay", str(file))
    assert (again.returncode, again.stdout.startswith(f"reproduced: {OTHERS[test]}")) == (0, True), (
        again.stdout + again.stderr
    )


@pytest.mark.soak
def test_each_worker_fails_again_in_a_fresh_clone_with_an_empty_cache(
    failing: Space, repository: Path, tmp_path: Path
) -> None:
    """The tools are compiled from their pins."""
    subprocess.run(["git", "clone", "--quiet", repository, tmp_path / "clone"], check=True)
    fresh = Space(tmp_path / "clone", tmp_path / "empty")
    for worker in WORKERS:
        for words in ((), ("--self_contained",)):
            file = recorded(failing, worker, *words)
            done = run(fresh, "replay", str(file))
            assert (done.returncode, done.stdout) == (0, f"reproduced: {FAILED}\n"), done.stderr
            print(worker, *words, file.stat().st_size)


def test_no_secret_gets_into_a_file(tools: Space, tmp_path: Path) -> None:
    secrets = {
        "GITHUB_TOKEN": "ghp-secret-of-the-token",
        "BK_REMOTE_HEADER": "Authorization: Bearer secret-of-the-header",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-cloud",
        "HTTPS_PROXY": "http://me:secret-of-the-proxy@127.0.0.1:9",
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text('{"auths": {"r.example": {"identitytoken": "secret-of-docker"}}}')
    matrix(tools, ENVIRONMENT, "oci")
    file = tmp_path / "file.tgz"
    variables = ("--test_env=MODE=bad-mode", "--test_env=PASSWORD=secret-of-the-test")
    done = run(tools, "repro", "test_mode", "-o", str(file), *variables, more=secrets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it has no values of --test_env: a replay needs MODE, PASSWORD" in done.stdout
    values = [value.encode() for value in (*secrets.values(), "bad-mode", "secret-of")]
    members = unpack(file)
    log = next(data for data in members.values() if b"*** ***" in data)
    assert b"test_mode" in log, "what the test printed is masked"
    for name, data in members.items():
        for value in values:
            assert value not in data, (name, value)
    assert str(tmp_path).encode() not in b"".join(members.values()), "no path of this machine either"

    lacking = run(tools, "replay", str(file))
    assert (lacking.returncode, "--test_env=MODE=VALUE --test_env=PASSWORD=VALUE" in lacking.stderr) == (2, True)
    same = run(tools, "replay", str(file), *variables)
    assert same.returncode == 0, same.stdout + same.stderr
    other = run(tools, "replay", str(file), "--test_env=MODE=good", "--test_env=PASSWORD=x")
    assert (other.returncode, other.stdout.splitlines()[0]) == (5, "not reproduced: passed"), (
        other.stdout + other.stderr
    )
    assert "differs here: isolation: cell, here jail\n  if you trust the file, --trust runs" in other.stdout

    leaking = tools.write("t/test_small.py", ENVIRONMENT + "# ghp-secret-of-the-token\n")
    refused = run(tools, "repro", "test_mode", "-o", str(tmp_path / "no.tgz"), *variables, more=secrets)
    assert refused.returncode == 1
    assert "the input src/t/test_small.py contains the value of GITHUB_TOKEN, so bk wrote no file" in refused.stderr
    leaking.write_text(ENVIRONMENT)
    build = tools.root / "targets/BUILD.py"
    axes = "axes = {'kind': {'a': 'secret-of-docker'}},"
    build.write_text(
        build.read_text().replace('tests = ["//t:test_small.py"],', f'tests = ["//t:test_small.py"], {axes}')
    )
    refused = run(tools, "repro", "test_mode", "-o", str(tmp_path / "no.tgz"), *variables, more=secrets)
    assert refused.returncode == 1
    assert "its action contains the value of Docker's configuration, so bk wrote no file" in refused.stderr
    assert not (tmp_path / "no.tgz").exists()


def test_a_hostile_file_gets_nothing_out_of_its_jail(failing: Space, tmp_path: Path) -> None:
    file = recorded(failing, "oci", "--self_contained")
    mark = tmp_path / "mark"

    def evil(blobs: dict[str, bytes], files: dict[str, FileNode]) -> None:
        script = put(blobs, f"#!/bin/sh\ntouch {mark}\n".encode())
        files["tools/registry"] = FileNode(script, "", True)
        files["bkrules/errors.py"] = FileNode(script, "")
        files["host/python"] = FileNode(Digest("0" * 64, 1), "", files["host/python"].executable)

    forged = forge(file, tmp_path / "forged.tgz", evil)
    done = run(failing, "replay", str(forged), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {each["name"] for each in json.loads(done.stdout)["differences"]}
    assert {"tools/registry", "bkrules/errors.py", "host/python", "isolation"} <= names
    assert not mark.exists(), "neither the registry nor the code of the file ran on this machine"

    shown = run(failing, "replay", str(forged), "--show")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "builds: //:registry\n" in shown.stderr
    assert "differs here: bkrules/errors.py, host/python, isolation\n" in shown.stderr


def test_a_file_with_another_tool_or_an_unknown_worker_does_not_run_here(failing: Space, tmp_path: Path) -> None:
    file = recorded(failing, "oci")
    members = unpack(file)
    manifest = json.loads(members["bk-repro.json"])
    assert {one["label"].partition("//")[2] for one in manifest["made"].values()} >= {":buildkitd", ":buildctl"}
    assert manifest["plugin"].startswith("bk-worker-oci ")

    missing = run(failing, "replay", str(tmp_path / "none"))
    assert (missing.returncode, "there is no file" in missing.stderr) == (2, True)
    (tmp_path / "text").write_text("text")
    wrong = run(failing, "replay", str(tmp_path / "text"))
    assert (wrong.returncode, "it is not a tar file" in wrong.stderr) == (1, True)
    without = run(failing, "replay", str(file), "--noplugin=bk-worker-oci")
    assert (without.returncode, "no installed plugin has the worker 'oci' of the file" in without.stderr) == (36, True)

    def older(blobs: dict[str, bytes], files: dict[str, FileNode]) -> None:
        text = json.dumps({**manifest["made"]["tools/buildkitd"]["content"], "hash": "0" * 64})
        files["tools/buildkitd"] = FileNode(
            Digest("0" * 64, json.loads(text)["size"]), "", files["tools/buildkitd"].executable
        )

    forged = forge(file, tmp_path / "forged.tgz", older)
    lost = run(failing, "replay", str(forged))
    assert (lost.returncode, "it lacks the bytes of the input 'tools/buildkitd'" in lost.stderr) == (1, True)


def test_a_flaky_cell_is_sent_with_its_failure(tools: Space, tmp_path: Path) -> None:
    matrix(tools, f"{ATTEMPT}\ndef test_flaky(sandbox):\n    assert attempt() > 1\n", "oci", more="flaky = True,")
    file = tmp_path / "file.tgz"
    done = run(tools, "repro", "test_flaky", "-o", str(file))
    assert "FLAKY test_flaky/worker=oci" in done.stderr, done.stderr
    assert (done.returncode, "test_flaky/worker=oci: failed: t/test_small.py:7: assert 1 > 1\n" in done.stdout) == (
        0,
        True,
    )
    again = run(tools, "replay", str(file), "--trust")  # a jail hides the number of the attempt
    assert (again.returncode, again.stdout) == (0, "reproduced: failed: t/test_small.py:7: assert 1 > 1\n"), (
        again.stderr
    )


def test_a_file_of_another_architecture_does_not_run_here(failing: Space, tmp_path: Path) -> None:
    members = unpack(recorded(failing, "oci"))
    manifest = json.loads(members["bk-repro.json"])
    manifest["facts"]["architecture"] = "s390x"
    other = pack(tmp_path / "other.tgz", {**members, "bk-repro.json": json.dumps(manifest).encode()})
    done = run(failing, "replay", str(other))
    assert (done.returncode, "on a machine of the architecture s390x, and this one is" in done.stderr) == (36, True)


def test_a_target_without_cells_is_named(tools: Space) -> None:
    done = run(tools, "repro", "//targets:oci")
    assert (done.returncode, "error: //targets:oci has no cells\n" in done.stderr) == (4, True), done.stderr
