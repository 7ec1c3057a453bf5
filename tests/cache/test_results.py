"""Action results and Trees that others wrote: what is not exactly an action's outputs is a miss, and is never kept."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.cache import results
from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.maintenance import Maintenance
from bkrules.cache.results import Declared, Entry, write_result, write_tree
from bkrules.model import digest, reapi
from bkrules.model.action import DirectoryNode, FileNode, Form, to_message
from bkrules.model.digest import EMPTY

KEY = digest.of_bytes(b"an action")
DECLARED: Declared = {"log": Form.FILE, "layout": Form.FOLDER}
FILE = {"digest": to_message(EMPTY)}
META = {"virtual_execution_duration": {"seconds": 1}}
TREE = write_tree(DirectoryNode({"a": FileNode(EMPTY, ""), "b/c": FileNode(EMPTY, "")}))[0]
TREE_DIGEST = to_message(digest.of_bytes(TREE))


def message(**fields: object) -> bytes:
    described = {
        "output_files": [{"path": "log", **FILE}],
        "output_directories": [{"path": "layout", "tree_digest": TREE_DIGEST}],
        "execution_metadata": META,
        **fields,
    }
    return reapi.encode("ActionResult", described)


def folder(path: str) -> dict[str, object]:
    return {"path": path, "tree_digest": TREE_DIGEST}


def read(data: bytes, tree: bytes = TREE, declared: Declared | None = DECLARED) -> ActionResult:
    return Entry(data, declared).result(lambda _name: tree, lambda name: name.hash)


def test_what_is_right_is_read() -> None:
    found = read(message())

    assert found.seconds == 1
    assert isinstance(found.outputs["layout"], DirectoryNode)
    assert list(found.outputs["layout"].files) == ["a", "b/c"]
    blobs: dict[digest.Digest, bytes] = {}

    def put(data: bytes) -> digest.Digest:
        blobs[digest.of_bytes(data)] = data
        return digest.of_bytes(data)

    data, trees = write_result(found, put)
    assert trees == [digest.of_bytes(TREE)]
    assert blobs == {trees[0]: TREE}
    assert read(data).outputs == found.outputs


def link(path: str) -> dict[str, str]:
    return {"path": path, "target": "/etc/passwd"}


HUGE = {"hash": "0" * 64, "size_bytes": (1 << 63) - 1}
RESULTS: dict[str, Callable[[], bytes]] = {
    "a folder where a file is declared": lambda: message(
        output_files=[], output_directories=[folder("layout"), folder("log")]
    ),
    "a file where a folder is declared": lambda: message(
        output_files=[{"path": "log", **FILE}, {"path": "layout", **FILE}], output_directories=[]
    ),
    "an output less": lambda: message(output_files=[]),
    "an output more": lambda: message(output_files=[{"path": "log", **FILE}, {"path": "more", **FILE}]),
    "an output twice": lambda: message(output_files=[{"path": "log", **FILE}] * 2),
    "an output as a file and as a folder": lambda: message(output_directories=[folder("layout"), folder("log")]),
    "an absolute path": lambda: message(output_files=[{"path": "/log", **FILE}]),
    "a path that leads up": lambda: message(output_files=[{"path": "a/../log", **FILE}]),
    "a path with a slash at its end": lambda: message(output_files=[{"path": "log/", **FILE}]),
    "a path with a NUL": lambda: message(output_files=[{"path": "log\0", **FILE}]),
    "no path": lambda: message(output_files=[{"path": "", **FILE}]),
    "a symbolic link next to": lambda: message(output_symlinks=[link("more")]),
    "a file that is a symbolic link": lambda: message(output_files=[], output_file_symlinks=[link("log")]),
    "a folder that is a symbolic link": lambda: message(
        output_directories=[], output_directory_symlinks=[link("layout")]
    ),
    "a digest of 63 digits": lambda: message(
        output_files=[{"path": "log", "digest": {"hash": "0" * 63, "size_bytes": 1}}]
    ),
    "a digest of capitals": lambda: message(
        output_files=[{"path": "log", "digest": {"hash": "A" * 64, "size_bytes": 1}}]
    ),
    "a digest with a line break": lambda: message(output_files=[{"path": "log", "digest": {"hash": "0" * 64 + "\n"}}]),
    "a digest of another alphabet": lambda: message(output_files=[{"path": "log", "digest": {"hash": "\u0660" * 64}}]),
    "a size below 0": lambda: message(output_files=[{"path": "log", "digest": {"hash": "0" * 64, "size_bytes": -1}}]),
    "a Tree of 8 EiB": lambda: message(output_directories=[{"path": "layout", "tree_digest": HUGE}]),
    "a Tree without a digest": lambda: message(output_directories=[{"path": "layout"}]),
    "a failure": lambda: message(exit_code=1),
    "a failure below 0": lambda: message(exit_code=-9),
    "a time below 0": lambda: message(execution_metadata={"virtual_execution_duration": {"seconds": -1}}),
    "a time of ages": lambda: message(execution_metadata={"virtual_execution_duration": {"seconds": (1 << 63) - 1}}),
    "nanoseconds of more than a second": lambda: message(
        execution_metadata={"virtual_execution_duration": {"nanos": 10**9}}
    ),
    "no metadata": lambda: message(execution_metadata=None),
    "a million empty outputs": lambda: b"\x12\x00" * 1_000_000 + message(),
    "nothing": lambda: b"",
    "5 MiB": lambda: bytes(5 << 20),
}


@pytest.mark.parametrize("wrong", RESULTS)
def test_a_wrong_result_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(RESULTS[wrong]())


def directory(files: list[str], directories: dict[str, bytes] | None = None) -> bytes:
    below = [{"name": name, "digest": to_message(digest.of_bytes(data))} for name, data in (directories or {}).items()]
    return reapi.encode("Directory", {"files": [{"name": name, **FILE} for name in files], "directories": below})


def tree(root: bytes, *children: bytes) -> bytes:
    return reapi.encode("Tree", {"root": root, "children": list(children)})


def deep(count: int, name: str = "d") -> bytes:
    data = directory(["f"])
    children = [data]
    for _ in range(count):
        data = directory([], {name: data})
        children.append(data)
    return tree(children[-1], *children[:-1])


def bomb() -> bytes:
    data = directory(["f"])
    children = [data]
    for _ in range(40):
        data = directory([], {"a": data, "b": data})
        children.append(data)
    return tree(children[-1], *children[:-1])


LINKED = b"\x1a\x0e\x0a\x01l\x12\x09/etc/host"  # Directory.symlinks
TREES: dict[str, Callable[[], bytes]] = {
    "a name of 300 bytes": lambda: tree(directory(["x" * 300])),
    "a name of 256 bytes of UTF-8": lambda: tree(directory(["ä" * 128])),
    "a folder's name of 300 bytes": lambda: tree(directory([], {"x" * 300: directory([])}), directory([])),
    "a path of 2000 bytes": lambda: deep(10, "x" * 200),
    "a name with a slash": lambda: tree(directory(["a/b"])),
    "an absolute name": lambda: tree(directory(["/a"])),
    "a name with a NUL": lambda: tree(directory(["a\0"])),
    "a name of two dots": lambda: tree(directory([".."])),
    "a name of one dot": lambda: tree(directory(["."])),
    "a folder of two dots": lambda: tree(directory([], {"..": directory(["a"])}), directory(["a"])),
    "no name": lambda: tree(directory([""])),
    "a name twice": lambda: tree(directory(["a", "a"])),
    "names out of order": lambda: tree(directory(["b", "a"])),
    "folders out of order": lambda: tree(
        directory([], {"b": directory(["a"]), "a": directory(["a"])}), directory(["a"])
    ),
    "a file and a folder of one name": lambda: tree(directory(["a"], {"a": directory(["b"])}), directory(["b"])),
    "a symbolic link": lambda: tree(directory(["a"]) + LINKED),
    "a symbolic link in a folder": lambda: tree(directory([], {"a": LINKED}), LINKED),
    "a folder that is not there": lambda: tree(directory([], {"a": directory(["b"])})),
    "a folder with another size": lambda: tree(
        reapi.encode(
            "Directory",
            {"directories": [{"name": "a", "digest": {**to_message(digest.of_bytes(directory(["b"]))), "size_bytes": 1}}]},
        ),
        directory(["b"]),
    ),
    "a file without a digest": lambda: tree(reapi.encode("Directory", {"files": [{"name": "a"}]})),
    "a root that is its own child": lambda: tree(directory([], {"a": b""}) + b""),
    "2000 folders in each other": lambda: deep(2000),
    "2^40 files": bomb,
    "no root": lambda: b"",
    "two roots": lambda: b"\x0a\x00\x0a\x00",
    "a length of two bytes where one would do": lambda: b"\x0a\x80\x00",
    "a field that bk does not know": lambda: tree(directory(["a"])) + b"\x22\x00",
    "50,000 empty folders": lambda: b"\x12\x00" * 50_000,
    "half of a Tree": lambda: TREE[: len(TREE) // 2],
    "a page": lambda: b"<html>",
}  # fmt: skip


@pytest.mark.parametrize("wrong", TREES)
def test_a_wrong_tree_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_MESSAGES", results.MOST_MESSAGES // 20)  # to count memory takes its time
    data = TREES[wrong]()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            read(message(), data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_names_at_the_limit_are_names(tmp_path: Path) -> None:
    for name in ("x" * 255, "ä" * 127, " ", "a\nb", "...", "-"):
        found = read(message(), tree(directory([name])))
        assert isinstance(found.outputs["layout"], DirectoryNode)
        (tmp_path / next(iter(found.outputs["layout"].files))).touch()
    assert len(os.listdir(tmp_path)) == 6


@pytest.fixture
def actions(tmp_path: Path) -> ActionCache:
    cas = Cas(str(tmp_path / "cache/cas"), FileDigests(str(tmp_path / "digests")))
    cas.put(b"")
    cas.put(TREE)
    return ActionCache(str(tmp_path / "cache/ac"), cas)


def keep(actions: ActionCache, data: bytes) -> Path:
    path = Path(actions.path(KEY))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("wrong", [name for name in TREES if "empty folders" not in name])
def test_a_wrong_tree_in_the_disk_cache_is_a_miss_that_verify_finds(actions: ActionCache, wrong: str) -> None:
    """As one that an earlier bk kept: its bytes are those of its digest."""
    name = actions.cas.put(TREES[wrong]())
    path = keep(actions, message(output_directories=[{"path": "layout", "tree_digest": to_message(name)}]))

    assert actions.get(KEY, DECLARED) is None
    removed = Maintenance(str(Path(actions.root).parent), actions.cas).verify()
    assert (removed.results, removed.blobs) == (1, 0)
    assert not path.exists()


UNDECLARED = ("an output less", "an output more", "a folder where", "a file where")


@pytest.mark.parametrize("wrong", RESULTS)
def test_a_wrong_result_in_the_disk_cache_is_a_miss(actions: ActionCache, wrong: str) -> None:
    """What `verify` cannot see without the action, a build sees."""
    path = keep(actions, RESULTS[wrong]())

    assert actions.get(KEY, DECLARED) is None
    Maintenance(str(Path(actions.root).parent), actions.cas).verify()
    assert path.exists() == wrong.startswith(UNDECLARED)


@pytest.mark.parametrize("what", ["FIFO", "folder", "link", "dangling link"])
def test_what_is_no_file_is_a_miss(actions: ActionCache, what: str, tmp_path: Path) -> None:
    path = keep(actions, b"")
    path.unlink()
    if what == "FIFO":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "link" else tmp_path / "nowhere")

    assert actions.get(KEY, DECLARED) is None


def test_what_is_right_in_the_disk_cache_is_a_hit(actions: ActionCache) -> None:
    keep(actions, message())

    assert actions.get(KEY, DECLARED) is not None
    assert Maintenance(str(Path(actions.root).parent), actions.cas).verify().results == 0


# Any bytes at all, and bytes that are nearly right


def varint(number: int) -> bytes:
    return reapi.encode("Digest", {"size_bytes": number})[1:] or b"\0"


NAMES = st.one_of(
    st.sampled_from(
        ["log", "layout", "..", ".", "", "/", "a/b", "a\0", "x" * 300, "a", "b", "ä", "/etc/passwd", "log/"]
    ),
    st.text(max_size=20),
)
HASHES = st.one_of(
    st.sampled_from([EMPTY.hash, digest.of_bytes(TREE).hash, "0" * 64, "../" * 21 + "x", "A" * 64, ""]),
    st.text(max_size=70),
)
SIZES = st.one_of(st.sampled_from([0, -1, len(TREE), 1 << 62, -(1 << 63)]), st.integers(-(1 << 63), (1 << 63) - 1))
DIGESTS = st.builds(lambda text, size: {"hash": text, "size_bytes": size}, HASHES, SIZES) | st.sampled_from(
    [to_message(EMPTY), TREE_DIGEST]
)
FILES = st.builds(lambda name, found: {"path": name, "digest": found}, NAMES, DIGESTS)
FOLDERS = st.builds(lambda name, found: {"path": name, "tree_digest": found}, NAMES, DIGESTS)
LINKS = st.builds(lambda name, target: {"path": name, "target": target}, NAMES, NAMES)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "output_files": st.lists(FILES, max_size=3),
        "output_directories": st.lists(FOLDERS, max_size=3),
        "output_symlinks": st.lists(LINKS, max_size=1),
        "exit_code": st.integers(-2, 2),
        "execution_metadata": st.one_of(
            st.none(),
            st.builds(lambda a, b: {"virtual_execution_duration": {"seconds": a, "nanos": b}}, SIZES, SIZES),
        ),
    },
)
NODES = st.builds(lambda name, found: {"name": name, "digest": found}, NAMES, DIGESTS)
DIRECTORIES = st.recursive(
    st.builds(lambda files: reapi.encode("Directory", {"files": files}), st.lists(NODES, max_size=3)),
    lambda inner: st.builds(
        lambda files, below: reapi.encode("Directory", {"files": files, "directories": below}),
        st.lists(NODES, max_size=3),
        st.lists(
            st.builds(lambda name, data: {"name": name, "digest": to_message(digest.of_bytes(data))}, NAMES, inner),
            max_size=3,
        ),
    ),
    max_leaves=4,
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some of them changed, taken out, or put in."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        new = draw(
            st.one_of(st.binary(max_size=4), st.integers(0, 1 << 64).map(lambda number: varint(number % (1 << 64))))
        )
        data = data[:at] + new + data[at + draw(st.integers(0, 4)) :]
    return data


RESULT_BYTES = st.one_of(FIELDS.map(lambda fields: message(**fields)), mutated(message()), st.binary(max_size=100))
TREE_BYTES = st.one_of(
    st.builds(lambda root, children: tree(root, *children), DIRECTORIES, st.lists(DIRECTORIES, max_size=3)),
    mutated(TREE),
    st.binary(max_size=100),
)


def is_right(found: ActionResult) -> bool:
    """Whether a result can be placed below a folder, and holds what is declared."""
    paths = [path for node in found.outputs.values() if isinstance(node, DirectoryNode) for path in node.files]
    kinds = {
        path: Form.FOLDER if isinstance(node, DirectoryNode) else Form.FILE for path, node in found.outputs.items()
    }
    placed = [os.path.normpath(f"/out/{path}") == f"/out/{path}" and "\0" not in path for path in paths]
    return kinds == DECLARED and all(placed) and all(len(one.digest.hash) == 64 for one in found.files())


@settings(max_examples=rounds(150))
@given(RESULT_BYTES)
def test_any_action_result_is_right_or_refused(data: bytes) -> None:
    try:
        found = read(data)
    except ValueError:
        return
    assert is_right(found)


@settings(max_examples=rounds(150))
@given(TREE_BYTES)
def test_any_tree_is_right_or_refused(data: bytes) -> None:
    try:
        found = read(message(), data)
    except ValueError:
        return
    assert is_right(found)
    files = found.outputs["layout"]
    assert isinstance(files, DirectoryNode)
    again = read(message(), write_tree(files)[0]).outputs["layout"]
    assert isinstance(again, DirectoryNode)
    assert again.files == files.files


def test_the_limits_leave_room() -> None:
    """An image of many files fits."""
    many = DirectoryNode({f"{number:06}": FileNode(EMPTY, EMPTY.hash) for number in range(results.MOST_NODES)})
    found = read(message(), write_tree(many)[0]).outputs["layout"]
    assert isinstance(found, DirectoryNode)
    assert len(found.files) == results.MOST_NODES
