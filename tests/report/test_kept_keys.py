"""Keys in `bk-out`: leaves that cells share are in one file, and readers get the key whole."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from rounds import rounds

from bkrules.cache.file_digests import FileDigests
from bkrules.errors import MachineLacks
from bkrules.execution.layout import KEY, PREVIOUS, SHARED
from bkrules.execution.result import CellReport, Result
from bkrules.model import digest
from bkrules.model.action import Key
from bkrules.model.label import Label
from bkrules.report import kept_keys
from bkrules.report.artifacts import write_matrix
from bkrules.report.build_result import BuildResult
from bkrules.report.explain import opened
from bkrules.report.kept_keys import KeptKeys, read_leaves

MATRIX = Label("t", "m")
OF_MACHINE = {
    "salt": "bk/1",
    "platform/ISA": "x86_64",
    "input/host/python": "sha256:1",
    "input/bkrules/a.py": "sha256:2",
}
OF_WORKER = {"input/plugin/oci.py": "sha256:3", "input/registry/config.yml": "sha256:4"}
OWN = {"argument/0": '{"test": "ä\\ud800"}', "input/src/test_it.py": "sha256:5", "input/tools/own": "sha256:6"}
LEAVES = {**OF_MACHINE, **OF_WORKER, **OWN}


def key_of(leaves: Mapping[str, str]) -> Key:
    return Key(digest.of_bytes(json.dumps(leaves, sort_keys=True).encode()), dict(sorted(leaves.items())))


@pytest.fixture
def keyed(cell: Callable[..., Result]) -> Callable[..., Result]:
    """Makes the result of a cell with these leaves."""

    def make(leaves: Mapping[str, str], worker: str = "oci", *, cached: bool = False) -> Result:
        return replace(cell("passed", worker, cached=cached, ran=None if cached else CellReport()), key=key_of(leaves))

    return make


def written(out: Path, *results: Result) -> list[Path]:
    """The key.json of each cell, after a build with these results."""
    write_matrix(MATRIX, results, BuildResult(tuple(results), 1.0), out, FileDigests(""))
    return [out / "t/m" / result.action.cell.folder / KEY for result in results if result.action.cell]


def files(out: Path) -> set[Path]:
    return set((out / "t/m" / SHARED).iterdir())


def test_each_reader_gets_all_leaves_and_each_file_is_written_once(
    keyed: Callable[..., Result], tmp_path: Path
) -> None:
    results = [keyed({**LEAVES, "argument/0": str(number)}, f"w{number}") for number in range(5)]
    paths = written(tmp_path, *results)

    assert len(files(tmp_path)) == 2
    for path, result in zip(paths, results, strict=True):
        assert result.key is not None
        assert json.loads(path.read_text())["leaves"].keys() == OWN.keys()
        assert read_leaves(path) == result.key.leaves
        with opened(str(tmp_path), must_exist=True) as read:
            document = read(str(path.relative_to(tmp_path)))
        assert document is not None
        assert (document["key"], document["leaves"]) == (result.key.digest.hash, result.key.leaves)


def test_random_keys_come_back_as_they_were(keyed: Callable[..., Result], tmp_path: Path) -> None:
    random = Random(17)
    names = [
        *LEAVES,
        "env/A",
        "input/mirror/a/b",
        "input/config/x.toml",
        "input/host",
        "saltier",
        "timeout",
        "input/src/salt",
    ]
    for round_number in range(rounds(40)):
        results = []
        for number in range(random.randrange(1, 6)):
            leaves = {name: str(random.randrange(3)) for name in names if random.random() < 0.7}
            results.append(keyed(leaves, f"w{number}", cached=random.random() < 0.5))
        for path, result in zip(written(tmp_path / str(round_number % 7), *results), results, strict=True):
            assert result.key is not None
            assert read_leaves(path) == result.key.leaves


def test_leaves_in_parts_have_the_file_of_the_same_leaves_in_one(keyed: Callable[..., Result], tmp_path: Path) -> None:
    """A cell that ran has its leaves in one dictionary, and a cached one in several: its files must stay."""
    random = Random(18)
    for _ in range(rounds(40)):
        parts = [{name: str(random.randrange(3)) for name in LEAVES if random.random() < 0.5} for _ in range(3)]
        parts[0] = {name: parts[0][name] for name in parts[0] if name in OWN or random.random() < 0.1}
        keys = KeptKeys(tmp_path / "t/m")
        for own in (parts[0], {**parts[0], "argument/0": "2"}):
            key = Key(digest.of_bytes(b""), ChainMap(own, *parts[1:]))
            whole = Key(key.digest, dict(sorted(key.leaves.items())))
            assert keys.document(key, "TestCell", "a/b") == KeptKeys(tmp_path / "t/m").document(
                whole, "TestCell", "a/b"
            )


def test_a_key_of_an_earlier_layout_is_read(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text(json.dumps({"key": "k", "mnemonic": "TestCell", "leaves": LEAVES}))
    assert read_leaves(tmp_path / KEY) == LEAVES


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_a_damaged_file_is_noticed_and_repaired(keyed: Callable[..., Result], tmp_path: Path, damage: str) -> None:
    result = keyed(LEAVES, cached=True)
    [path] = written(tmp_path, result)
    for file in files(tmp_path):
        file.unlink()
        if damage == "other bytes":
            file.write_text(json.dumps({"input/host/python": "sha256:9"}))

    assert read_leaves(path) is None
    with opened(str(tmp_path), must_exist=True) as read, pytest.raises(MachineLacks, match="missing or damaged"):
        read(str(path.relative_to(tmp_path)))
    written(tmp_path, result)
    assert read_leaves(path) == LEAVES


@pytest.mark.parametrize(
    "shared",
    [
        "x",
        [1],
        ["/etc/passwd"],
        ["../../../../../../../etc/passwd"],
        [f"../../{SHARED}/../{'0' * 64}.json"],
        [f"{SHARED}/{'0' * 64}.json"],
    ],
)
def test_no_other_file_is_read(tmp_path: Path, shared: object) -> None:
    """A test can write to the folder of its cell."""
    document = {"key": "k", "shared": shared, "leaves": {"a": "b"}}

    def fetch(path: str) -> bytes:
        raise AssertionError(path)

    assert kept_keys.leaves_of(document, "t/m/test_it/worker=oci/key.json", fetch) == {"a": "b"}


def test_nothing_above_bk_out_is_read() -> None:
    document = {"key": "k", "shared": [f"../../../../{SHARED}/{'0' * 64}.json"], "leaves": {}}

    def fetch(path: str) -> bytes:
        raise AssertionError(path)

    assert kept_keys.leaves_of(document, "t/m/key.json", fetch) is None


def test_files_that_no_key_names_go_when_there_are_many(
    keyed: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_keys, "_MOST_FILES", 4)
    [one] = written(tmp_path, keyed(LEAVES, "one"))
    for number in range(3):
        changed = {**LEAVES, "input/host/python": str(number)}
        [two] = written(tmp_path, keyed(changed, "two"))
        if number == 0:
            two.with_name(PREVIOUS).write_bytes(two.read_bytes())

    assert len(files(tmp_path)) == 4  # those of `one`, of the last key of `two`, and of the key before that
    assert read_leaves(one) == LEAVES
    assert read_leaves(two) == {**LEAVES, "input/host/python": "2"}
    assert read_leaves(two.with_name(PREVIOUS)) == {**LEAVES, "input/host/python": "0"}
