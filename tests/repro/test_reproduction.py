"""A reproduction of a stranger is checked before anything of it is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from reproductions import PARAMETERS, Made, extra_worker, made, pack

from bkrules.declarative.own_build import REQUEST, OwnBuild, archive_of
from bkrules.declarative.own_build import TEST as OWN_TEST
from bkrules.errors import ActionFailed
from bkrules.model.parameters import CellLimits, TestProgram, WorkerUpdate
from bkrules.repro import archive, outcome
from bkrules.repro.archive import BLOBS, MANIFEST
from bkrules.repro.inputs import may_be_given
from bkrules.repro.manifest import Recorded, read
from bkrules.repro.replay import sources
from bkrules.repro.reproduction import Reproduction, open_reproduction


def opened(one: Made, folder: Path) -> Reproduction:
    with archive.opened(one.write(folder / "file"), folder) as file:
        return open_reproduction(file, lambda name: f"/cas/{name.hash}")


def refused(one: Made, folder: Path) -> str:
    with pytest.raises(ActionFailed) as caught:
        opened(one, folder)
    assert caught.value.reason == "bad-reproduction"
    return caught.value.message


def build(request: bytes) -> Made:
    """Return a reproduction of a user's build with this request."""
    one = Made(replace(PARAMETERS, module=OWN_TEST), manifest={"kind": "build", "schema": 2})
    one.files |= {f"src/{OWN_TEST}": b"", f"src/{REQUEST}": request}
    return one


def test_a_build_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = build(b'{"words": ["build", "--x=y"], "folders": ["context"]}')
    one.files[f"src/{archive_of('context')}"] = b""
    assert opened(one, tmp_path).build == OwnBuild(("build", "--x=y"), ("context",))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = opened(Made(), tmp_path)
    assert found.parameters == PARAMETERS
    assert (found.title, found.timeout, found.outputs) == ("test_it/worker=oci", 60, ("test.log",))
    assert found.files["tools/registry"].executable
    assert found.files["src/t/test_it.py"].path == f"/cas/{found.files['src/t/test_it.py'].digest.hash}"


@pytest.mark.parametrize(
    "name",
    [
        *("etc/passwd", "packages/opt/bk/bin/runc", "packages/etc/bk/x", "packages/var/run/x", "packages/src/x"),
        *("extra/one/other/x", "out/x", "opt/x"),
    ],
)
def test_inputs_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    one = Made()
    one.files[name] = b""
    assert f"it has the input {name!r}" in refused(one, tmp_path)
    assert not may_be_given(name)


@pytest.mark.parametrize("name", ["src/../../etc/passwd", "src/./x", "src//x"])
def test_paths_out_of_the_input_root_are_refused(name: str, tmp_path: Path) -> None:
    one = Made()
    one.files[name] = b""
    assert "its action is malformed" in refused(one, tmp_path)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (made(extra_workers=(extra_worker("../../../../usr"),)), "an extra worker of the name '../../../../usr'"),
        (made(extra_workers=(extra_worker(".."),)), "an extra worker of the name '..'"),
        (made(limits=CellLimits(0, 1, 1)), "limits"),
        (made(limits=CellLimits(1 << 30, 1 << 40, 1 << 30)), "limits"),
        (made(mirror=("../../x",)), "not a full reference"),
        (made(module="../../etc/passwd"), "it lacks the file '../../etc/passwd'"),
        (made(update=WorkerUpdate(mirror={"unknown": 1})), "unknown key"),
        (Made(mnemonic="GoBuild"), "not a test in a cell"),
        (Made(environment={"GOCOVERDIR": "/../../../etc"}), "the variable 'GOCOVERDIR'"),
        (Made(environment={"LD_PRELOAD": "/src/x.so"}), "the variable 'LD_PRELOAD'"),
        (Made(environment={"HOME": "/elsewhere"}), "the variable 'HOME'"),
        (Made(environment={"TEST_RUN_NUMBER": "x"}), "the variable 'TEST_RUN_NUMBER'"),
        (Made(manifest={"schema": 3}), "its format is 3, and this bk reads formats up to 2"),
        (Made(manifest={"schema": 2}), "its format is 2, which no cell has"),
        (Made(manifest={"kind": "build"}), "its format is 1, which no build has"),
        (Made(manifest={"kind": "odd"}), "'kind' is malformed"),
        (Made(manifest={"kind": "build", "schema": 2}), "its cell does not run a build"),
        (build(b"{"), "its action is malformed"),
        (build(b"[" * 100_000), "its action is malformed"),
        (build(b'{"words": []}'), "'words' is malformed"),
        (build(b'{"words": ["a\\u0000"]}'), "'words' is malformed"),
        (build(json.dumps({"words": ["x"] * 10_001}).encode()), "'words' is malformed"),
        (build(json.dumps({"words": ["x" * 100_001]}).encode()), "'words' is malformed"),
        (build(b'{"words": ["x"], "folders": ["../../etc"]}'), "'folders' is malformed"),
        (build(b'{"words": ["x"], "folders": ["context"]}'), "it lacks the local folder 'context'"),
        (build(bytes(5 << 20)), "may have 4194304"),
        (Made(manifest={"axes": "x"}), "'axes' is malformed"),
        (Made(manifest={"action": {"hash": "../../x", "size": 1}}), "'action' is malformed"),
        (Made(manifest={"more": 1}), "'more' is unknown"),
        (Made(manifest={"result": {"status": "odd"}}), "'result' is malformed"),
    ],
)
def test_what_no_bk_writes_is_refused(one: Made, why: str, tmp_path: Path) -> None:
    assert why in refused(one, tmp_path)


def test_the_tree_must_be_that_of_the_action(tmp_path: Path) -> None:
    other = Made()
    other.files["src/more.py"] = b""
    manifest, blobs = Made().blobs()
    foreign, more = other.blobs()
    document = {**json.loads(manifest), "tree": json.loads(foreign)["tree"]}
    members = {BLOBS + name: data for name, data in {**blobs, **more}.items()}
    file = pack(tmp_path / "file", {MANIFEST: json.dumps(document).encode(), **members})
    with pytest.raises(ActionFailed, match="not those of its action"), archive.opened(file, tmp_path) as found:
        open_reproduction(found, str)


def test_a_program_needs_no_module(tmp_path: Path) -> None:
    program = TestProgram(arguments=("/src/x",), environment={})
    assert opened(made(module="x", program=program), tmp_path).parameters.program == program


def test_the_registry_never_comes_from_a_stranger(tmp_path: Path) -> None:
    with archive.opened(Made().write(tmp_path / "file"), tmp_path) as file:
        found = open_reproduction(file, str)
        given = sources(found, file, trusted=False)
        assert given.targets == ["//:registry"]
        assert set(given.held) == {"src/t/test_it.py", "mirror/docker.io/library/busybox/latest/index.json"}
        assert "tools/registry" in sources(found, file, trusted=True).held


def test_an_input_from_nowhere_is_an_error(tmp_path: Path) -> None:
    manifest, blobs = Made().blobs()
    lost = next(name for name, data in blobs.items() if data.startswith(b"def test_it"))
    del blobs[lost]
    file = pack(tmp_path / "file", {MANIFEST: manifest, **{BLOBS + name: data for name, data in blobs.items()}})
    with (
        archive.opened(file, tmp_path) as found,
        pytest.raises(ActionFailed, match="lacks the bytes of the input 'src/t"),
    ):
        sources(open_reproduction(found, str), found, trusted=False)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"schema": 1}', b"[" * 100_000, b'{"schema": "1"}'])
def test_a_malformed_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ActionFailed, match="its manifest is malformed"):
        read(data)


def test_outcomes_are_the_same_but_for_what_varies() -> None:
    one = Recorded.parse(
        {"status": "failed", "class": "test", "place": "t.py:9", "reason": "got 17 of 4f3a9c0d in /tmp/x1\nmore"}
    )
    assert outcome.is_same(one, replace(one, reason="got 18 of 00ff in /tmp/x2"))
    hinted = replace(one, reason="got 17 of 4f3a9c0d in /tmp/x1; t/x.py is in the workspace: name it in 'data'")
    assert outcome.is_same(one, hinted)
    assert outcome.is_same(hinted, one)
    ended = replace(one, reason="ended with exit code: 3 after 12 s, exit status 1")
    assert outcome.is_same(ended, replace(ended, reason="ended with exit code: 3 after 13 s, exit status 1"))
    assert not outcome.is_same(ended, replace(ended, reason="ended with exit code: 4 after 12 s, exit status 1"))
    assert not outcome.is_same(ended, replace(ended, reason="ended with exit code: 3 after 12 s, exit status 2"))
    for other in (
        replace(one, reason="got 17"),
        replace(one, place="t.py:8"),
        replace(one, reason="wanted 17 of 4f3a9c0d in /tmp/x1"),
        Recorded.parse({"status": "failed", "class": "leak", "place": "t.py:9", "reason": one.reason}),
        Recorded.parse({"status": "passed"}),
    ):
        assert not outcome.is_same(one, other)
    assert outcome.shown(replace(one, reason="\x1b[2Jx")) == "failed, t.py:9: ?[2Jx"
