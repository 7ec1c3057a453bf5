"""`--remote_download_outputs`: which outputs of an engine and of a remote cache a build fetches, of genrules and of cells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import casd
import pytest
from spaces import Space, matrix

from bkrules.model import digest

WORKSPACE = """
from bkrules import genrule, host_binary, image, workspace
workspace(name = "test")
host_binary(name = "sh")
genrule(
    name = "one", srcs = ["one.txt"], outs = ["a/one"], tools = [":sh"],
    cmd = ["$(location :sh)", "-c", "read line < $<; echo $$line 1 > $@"],
)
genrule(
    name = "two", srcs = [":one"], outs = ["two"], tools = [":sh"],
    cmd = ["$(location :sh)", "-c", "read line < $<; echo $$line 2 > $@"],
)
genrule(
    name = "bad", outs = ["bad"], tools = [":sh"],
    cmd = ["$(location :sh)", "-c", "i=0; while test $$i -lt 9000; do echo line $$i; i=$$((i+1)); done; exit 7"],
)
image(name = "image", files = {"one": ":one"})
"""
ONE, TWO = b"text 1\n", b"text 1 2\n"
CELLS = """
def test_passes(sandbox):
    print("seen by nobody")

def test_fails(sandbox):
    print("these are my last words")
    assert 1 == 2
"""
SMALL = "//targets:small"
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def server(casd_program: Path, tmp_path: Path) -> Iterator[casd.Casd]:
    """An engine that runs two actions at once."""
    with casd.engine(casd_program, tmp_path, ["--jobs=2"]) as running:
        yield running


def machine(space: Space, name: str) -> Space:
    """A machine with the same files, an empty disk cache and no outputs."""
    root = space.root.parent / name
    root.mkdir()
    for path in ("WORKSPACE.py", "one.txt"):
        (root / path).write_bytes((space.root / path).read_bytes())
    return Space(root, root.parent / f"{name}-cache")


def write(space: Space, text: str = "text") -> None:
    space.write("WORKSPACE.py", WORKSPACE)
    space.write("one.txt", f"{text}\n")


def build(space: Space, *words: str, code: int = 0) -> str:
    done = space.bk("build", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def fetched(space: Space, data: bytes) -> bool:
    """Whether the disk cache has these bytes."""
    name = digest.of_bytes(data).hash
    return (space.cache / "cas" / name[:2] / name).exists()


def state(space: Space) -> tuple[bool, bool, bool, bool]:
    """Whether the outputs of both genrules are in the disk cache, and whether they are in `bk-out`."""
    out = space.root / "bk-out"
    return fetched(space, ONE), fetched(space, TWO), (out / "one/a/one").exists(), (out / "two/two").exists()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("minimal", (False, False, False, False)),
        ("toplevel", (False, True, False, True)),
        ("all", (True, True, False, True)),
    ],
)
def test_outputs_of_an_engine_and_of_a_cache(
    space: Space, server: casd.Casd, word: str, expected: tuple[bool, bool, bool, bool]
) -> None:
    write(space)
    option = f"--remote_download_outputs={word}"
    said = build(space, "//:two", f"--remote_executor={server.url}", option)
    assert "2 actions: 2 ran, 0 cached" in said
    assert state(space) == expected

    for place in ("executor", "cache"):
        second = machine(space, f"second-{place}")
        events = second.root / "events"
        words = (f"--remote_{place}={server.url}", option, f"--build_event_json_file={events}")
        assert "hit remote 2, ran 0" in build(second, "//:two", *words)
        assert state(second) == expected
        named = [name for line in events.read_text().splitlines() for name in files_of(json.loads(line))]
        assert named == (["two"] if expected[3] else [])


def files_of(event: dict[str, Any]) -> list[str]:
    """The names of the files that an event shows."""
    return [file["name"] for file in event.get("namedSetOfFiles", {}).get("files", [])]


def test_toplevel_is_the_default(space: Space, server: casd.Casd) -> None:
    write(space)
    build(space, "//:two", f"--remote_executor={server.url}")
    assert state(space) == (False, True, False, True)


def test_a_bkrc_names_it(space: Space, server: casd.Casd) -> None:
    write(space)
    space.write(".bkrc", "build --remote_download_outputs=minimal\n")
    build(space, "//:two", f"--remote_executor={server.url}")
    assert state(space) == (False, False, False, False)


def test_minimal_leaves_no_output_of_an_earlier_build(space: Space, server: casd.Casd) -> None:
    """A file in `bk-out` that another key made would look like that of this build."""
    write(space, "older")
    build(space, "//:two")
    shown = space.root / "bk-out/two/two"
    assert shown.read_bytes() == b"older 1 2\n"
    write(space)
    words = ("//:two", f"--remote_executor={server.url}", "--remote_download_outputs=minimal")
    build(space, *words)
    assert not shown.exists()
    build(space, *words[:-1])
    assert shown.read_bytes() == TWO
    build(space, *words)
    assert shown.read_bytes() == TWO, "the disk has it"


@pytest.mark.parametrize("place", ["executor", "cache"])
def test_minimal_fetches_what_an_action_here_reads(space: Space, server: casd.Casd, place: str) -> None:
    """The image is made here, from an output of a genrule."""
    write(space)
    build(space, "//:one", f"--remote_executor={server.url}", "--remote_download_outputs=minimal")
    assert not fetched(space, ONE)
    second = machine(space, "second")
    said = build(second, "//:image", f"--remote_{place}={server.url}", "--remote_download_outputs=minimal")
    assert "hit remote 1, ran 1" in said
    assert fetched(second, ONE)
    assert list((second.root / "bk-out/image").rglob("*"))


def test_minimal_fetches_the_output_of_a_command_that_fails(space: Space, server: casd.Casd) -> None:
    write(space)
    words = (f"--remote_executor={server.url}", "--remote_download_outputs=minimal", "--keep_going")
    build(space, "//:bad", "//:two", *words, code=1)
    log = (space.root / "bk-out/bad/Genrule.log").read_text()
    assert log.startswith("line 0\n")
    assert log.endswith("line 8999\n")
    assert state(space) == (False, False, False, False)


def logs(space: Space) -> dict[str, set[str]]:
    """The files of each test in `bk-out`, without the keys."""
    folders = (space.root / "bk-out/targets/small").glob("test_*")
    return {
        folder.name: {path.name for path in folder.rglob("*") if path.is_file()} - {"key.json", "key.previous.json"}
        for folder in folders
    }


def test_cells_of_an_engine(tools: Space, casd_program: Path, tmp_path: Path, report: Report) -> None:
    """The logs of those that fail at an attempt are there in each case, and those of others when they are fetched."""
    matrix(tools, CELLS, "oci")
    with casd.engine(casd_program, tmp_path) as server:
        words = (SMALL, f"--remote_executor={server.url}")
        for word, passed in (("minimal", False), ("toplevel", True)):
            said = build(tools, *words, f"--remote_download_outputs={word}", "-t-", code=3)
            assert "these are my last words" in said
            assert ("test.log" in logs(tools)["test_passes"]) == passed, logs(tools)
            assert "test.log" in logs(tools)["test_fails"]
            found = {cell["name"]: (cell["status"], bool(cell["log"])) for cell in report(tools.root, "small")["cells"]}
            assert found == {
                "test_passes/worker=oci": ("passed", passed),
                "test_fails/worker=oci": ("failed", True),
            }


def test_cells_of_a_cache(tools: Space, casd_program: Path, tmp_path: Path, report: Report) -> None:
    """The first machine runs them, and the second has hits."""
    matrix(tools, CELLS[: CELLS.index("def test_fails")], "oci")
    with casd.casd(casd_program, tmp_path) as port:
        cache = f"--remote_cache=grpc://127.0.0.1:{port}"
        done = tools.bk("cache", "push", SMALL, cache)
        assert done.returncode == 0, done.stderr
        assert "1 cell: 1 passed (0 cached, 1 not)" in build(tools, SMALL, cache)
        assert logs(tools)["test_passes"] >= {"test.log", "result.json"}
        second = replace(tools, cache=tmp_path / "second")
        minimal = (SMALL, cache, "--remote_download_outputs=minimal")
        assert "1 cell: 1 passed (1 cached, 0 not)" in build(second, *minimal)
        assert logs(tools)["test_passes"] >= {"test.log", "result.json"}
        shutil.rmtree(tools.root / "bk-out")
        build(second, *minimal)
        assert logs(tools)["test_passes"] == set()
        (cell,) = report(tools.root, "small")["cells"]
        assert (cell["status"], cell["cache"], cell["log"]) == ("passed", "remote", None)
        assert "seen by nobody" in build(second, *minimal, "--test_output=all")
        build(second, *minimal[:-1])
    assert logs(tools)["test_passes"] >= {"test.log", "result.json"}
