from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.model import digest, reapi
from bkrules.model.action import DirectoryNode, FileNode, Node, merkle
from bkrules.model.digest import Digest

KEY = digest.of_bytes(b"an action")


def stored(actions: ActionCache, data: bytes, *, executable: bool = False) -> FileNode:
    name = actions.cas.put(data)
    return FileNode(name, actions.cas.path(name), executable)


def overwrite(path: str, data: bytes) -> None:
    Path(path).unlink()
    Path(path).write_bytes(data)


@pytest.fixture
def outputs(actions: ActionCache) -> dict[str, Node]:
    files = {
        "index.json": stored(actions, b"{}"),
        "blobs/sha256/aa": stored(actions, b"aa"),
        "blobs/sha256/bb": stored(actions, b"bb", executable=True),
        "blobs/other/aa": stored(actions, b"aa"),
    }
    return {
        "tool": stored(actions, b"tool", executable=True),
        "test.log": stored(actions, b""),
        "layout": DirectoryNode(files),
        "empty": DirectoryNode({}),
    }


@pytest.fixture
def entry(actions: ActionCache, outputs: Mapping[str, Node]) -> str:
    """The path of a stored entry."""
    actions.put(KEY, ActionResult(outputs, 1.5))
    return actions.path(KEY)


def tree_blob(actions: ActionCache, entry: str, output: str) -> str:
    message = reapi.decode("ActionResult", Path(entry).read_bytes())
    [found] = [item["tree_digest"] for item in message["output_directories"] if item["path"] == output]
    return actions.cas.path(Digest(found["hash"], found["size_bytes"]))


def test_an_action_that_was_never_run_is_a_miss(actions: ActionCache) -> None:
    assert actions.get(KEY) is None


def test_a_result_comes_back(actions: ActionCache, outputs: dict[str, Node]) -> None:
    actions.put(KEY, ActionResult(outputs, 12.25))
    assert actions.get(KEY) == ActionResult(outputs, 12.25)
    assert actions.get(digest.of_bytes(b"another action")) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.1, 59.999999999, 1e6])
def test_seconds_come_back_to_the_nanosecond(actions: ActionCache, seconds: float) -> None:
    actions.put(KEY, ActionResult({}, seconds))
    found = actions.get(KEY)
    assert found is not None
    assert found.seconds == pytest.approx(seconds, abs=2e-9)


def test_an_entry_lies_below_the_start_of_its_key(actions: ActionCache, entry: str) -> None:
    assert Path(entry) == Path(actions.root, KEY.hash[:2], KEY.hash)
    assert Path(entry).is_file()


def test_an_entry_is_the_same_bytes_for_the_same_result(
    actions: ActionCache, outputs: dict[str, Node], entry: str
) -> None:
    before = Path(entry).read_bytes()
    actions.put(KEY, ActionResult(dict(reversed(outputs.items())), 1.5))
    assert Path(entry).read_bytes() == before


def test_a_directory_is_a_tree_that_other_clients_can_read(
    actions: ActionCache, outputs: dict[str, Node], entry: str
) -> None:
    layout = outputs["layout"]
    assert isinstance(layout, DirectoryNode)
    root, blobs = merkle(layout.files)
    tree = reapi.decode("Tree", Path(tree_blob(actions, entry, "layout")).read_bytes())
    assert reapi.encode("Directory", tree["root"]) == blobs[root]
    children = {reapi.encode("Directory", child) for child in tree["children"]}
    assert children == {data for name, data in blobs.items() if name != root}


def test_a_new_result_replaces_the_old_one(actions: ActionCache, entry: str) -> None:
    actions.put(KEY, ActionResult({}, 2.0))
    assert actions.get(KEY) == ActionResult({}, 2.0)
    assert [path.name for path in Path(entry).parent.iterdir()] == [KEY.hash]


def test_a_dropped_entry_is_a_miss(actions: ActionCache, entry: str) -> None:
    actions.drop(KEY)
    assert actions.get(KEY) is None
    actions.drop(KEY)
    assert not Path(entry).exists()


@pytest.mark.usefixtures("entry")
@pytest.mark.parametrize("data", [b"tool", b"", b"{}", b"aa", b"bb"])
def test_a_missing_blob_is_a_miss(actions: ActionCache, data: bytes) -> None:
    Path(actions.cas.path(digest.of_bytes(data))).unlink()
    assert actions.get(KEY) is None
    actions.cas.put(data)
    assert actions.get(KEY) is not None


@pytest.mark.usefixtures("entry")
@pytest.mark.parametrize("data", [b"tool", b"aa"])
def test_a_cut_blob_is_a_miss(actions: ActionCache, data: bytes) -> None:
    overwrite(actions.cas.path(digest.of_bytes(data)), data[:-1])
    assert actions.get(KEY) is None


@pytest.mark.usefixtures("entry")
@pytest.mark.parametrize("data", [b"tool", b"aa"])
def test_a_blob_that_was_found_damaged_is_a_miss(actions: ActionCache, data: bytes) -> None:
    name = digest.of_bytes(data)
    overwrite(actions.cas.path(name), bytes(len(data)))
    assert not actions.cas.intact(name)
    assert actions.get(KEY) is None


@pytest.mark.parametrize("output", ["layout", "empty"])
def test_a_missing_or_damaged_tree_is_a_miss(actions: ActionCache, entry: str, output: str) -> None:
    path = tree_blob(actions, entry, output)
    overwrite(path, bytes(Path(path).stat().st_size))
    assert actions.get(KEY) is None
    Path(path).unlink()
    assert actions.get(KEY) is None


def test_a_tree_that_lacks_a_directory_is_a_miss(actions: ActionCache, entry: str) -> None:
    tree = reapi.decode("Tree", Path(tree_blob(actions, entry, "layout")).read_bytes())
    name = actions.cas.put(reapi.encode("Tree", {**tree, "children": tree["children"][1:]}))
    described = {"path": "layout", "tree_digest": {"hash": name.hash, "size_bytes": name.size}}
    overwrite(entry, reapi.encode("ActionResult", {"output_directories": [described]}))
    assert actions.get(KEY) is None


def test_an_entry_cut_anywhere_is_a_miss(actions: ActionCache, entry: str) -> None:
    """A machine that lost its power leaves short files, empty ones most of all."""
    data = Path(entry).read_bytes()
    hits = []
    for size in range(len(data)):
        overwrite(entry, data[:size])
        if actions.get(KEY) is not None:
            hits.append(size)
    assert hits == []


@pytest.mark.parametrize(
    "message",
    [
        {"output_files": [{"path": "a"}]},
        {"output_files": [{"path": "a", "digest": {"hash": "ab", "size_bytes": 1}}]},
        {"output_files": [{"path": "a", "digest": {"hash": "\0" * 64}}]},
        {"output_files": [{"path": "a", "digest": {"hash": "/" * 64}}]},
        {"output_files": [{"path": "a", "digest": {"hash": "0" * 64, "size_bytes": (1 << 63) - 1}}]},
        {"output_directories": [{"path": "a"}]},
        {"output_directories": [{"path": "a", "tree_digest": {"hash": "0" * 64}}]},
    ],
)
def test_an_entry_of_nonsense_is_a_miss(actions: ActionCache, entry: str, message: reapi.Message) -> None:
    overwrite(entry, reapi.encode("ActionResult", message))
    assert actions.get(KEY) is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(garbage=st.binary(min_size=1, max_size=200))
def test_a_garbage_entry_is_a_miss_or_names_what_is_there(actions: ActionCache, garbage: bytes) -> None:
    path = Path(actions.path(KEY))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(garbage)
    found = actions.get(KEY)
    assert found is None or found.outputs == {}


def test_an_entry_that_is_a_folder_is_a_miss(actions: ActionCache) -> None:
    Path(actions.path(KEY)).mkdir(parents=True)
    assert actions.get(KEY) is None
