from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.cache import pack
from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.pack import MAGIC, Counts
from bkrules.errors import UsageError
from bkrules.model import digest
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.digest import Digest

Fresh = Callable[[str], ActionCache]


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    """Makes empty disk caches."""

    def make(name: str) -> ActionCache:
        cas = Cas(f"{tmp_path}/{name}/cas", FileDigests(""))
        return ActionCache(f"{tmp_path}/{name}/ac", cas)

    return make


def keep(cache: ActionCache, name: str, *contents: bytes) -> Digest:
    """Store a result with a folder of these files, and return its key."""
    files = {}
    for number, data in enumerate(contents):
        blob = cache.cas.put(data)
        files[f"{number}"] = FileNode(blob, cache.cas.path(blob))
    key = digest.of_bytes(name.encode())
    cache.put(key, ActionResult({"out": DirectoryNode(files)}, 1.0))
    return key


def packed(cache: ActionCache, path: Path, *keys: Digest) -> Counts:
    return pack.write(str(path), [key.hash for key in keys], cache)


def contents(cache: ActionCache, key: Digest) -> list[bytes | None]:
    result = cache.get(key)
    assert result is not None
    return [cache.cas.read(file.digest) for file in result.files()]


def files_of(cache: ActionCache) -> list[Path]:
    """All files of a disk cache."""
    return [path for path in Path(cache.root).parent.rglob("*") if path.is_file()]


def test_a_pack_has_what_was_asked_for_and_nothing_else(fresh: Fresh, tmp_path: Path) -> None:
    one, other = fresh("one"), fresh("other")
    key = keep(one, "a", b"first", b"", b"x" * 3_000_000)
    keep(one, "b", b"unused")
    counts = packed(one, tmp_path / "pack", key)
    assert counts == Counts(1, 4, len(index_of((tmp_path / "pack").read_bytes())[1]))

    assert pack.unpack([str(tmp_path / "pack")], other).results == 1
    assert contents(other, key) == [b"first", b"", b"x" * 3_000_000]
    assert len(files_of(other)) == 5
    assert pack.unpack([str(tmp_path / "pack")], other) == Counts(0, 0, 0)


def test_the_same_results_have_the_same_bytes(fresh: Fresh, tmp_path: Path) -> None:
    one, other = fresh("one"), fresh("other")
    keys = [keep(one, name, name.encode(), b"both") for name in "abc"]
    for name in "cba":
        keep(other, name, name.encode(), b"both")
    packed(one, tmp_path / "1", *keys)
    packed(other, tmp_path / "2", *reversed(keys), keys[0])
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_packs_are_merged(fresh: Fresh, tmp_path: Path) -> None:
    """Also when one has a result whose blobs only the other has."""
    one, all_of_them = fresh("one"), fresh("all")
    keys = [keep(one, name, name.encode(), b"both") for name in "ab"]
    for number, key in enumerate(keys):
        packed(one, tmp_path / str(number), key)
    paths = [str(tmp_path / "0"), str(tmp_path / "1")]
    assert pack.unpack(paths, all_of_them).results == 2
    assert [contents(all_of_them, key) for key in keys] == [[b"a", b"both"], [b"b", b"both"]]
    packed(all_of_them, tmp_path / "again", *keys)
    packed(one, tmp_path / "whole", *keys)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_the_cache_lacks_is_left_out(fresh: Fresh, tmp_path: Path) -> None:
    cache = fresh("one")
    whole, broken = keep(cache, "a", b"first"), keep(cache, "b", b"second")
    os.unlink(cache.cas.path(digest.of_bytes(b"second")))
    assert packed(cache, tmp_path / "pack", whole, broken, digest.of_bytes(b"never")).results == 1


def test_a_damaged_blob_makes_no_pack(fresh: Fresh, tmp_path: Path) -> None:
    cache = fresh("one")
    key = keep(cache, "a", b"first")
    path = cache.cas.path(digest.of_bytes(b"first"))
    os.chmod(path, 0o755)
    Path(path).write_bytes(b"fIrst")
    with pytest.raises(ValueError, match="not those of"):
        packed(cache, tmp_path / "pack", key)
    assert not (tmp_path / "pack").exists()


def index_of(data: bytes) -> tuple[dict[str, list[list[object]]], bytes]:
    line, _, rest = data.removeprefix(MAGIC).partition(b"\n")
    return json.loads(line), rest


def with_index(index: object, rest: bytes) -> bytes:
    return MAGIC + json.dumps(index).encode() + b"\n" + rest


def changed(data: bytes, part: str, entry: list[object]) -> bytes:
    """A pack whose first entry of a part is another one."""
    index, rest = index_of(data)
    index[part][0] = entry
    return with_index(index, rest)


def without_blobs(data: bytes) -> bytes:
    index, rest = index_of(data)
    size = sum(int(str(entry[1])) for entry in index["results"])
    return with_index({**index, "blobs": []}, rest[:size])


def twice(data: bytes) -> bytes:
    index, rest = index_of(data)
    first = int(str(index["results"][0][1]))
    return with_index({**index, "results": index["results"][:1] + index["results"]}, rest[:first] + rest)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


HASH = "0" * 64
HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "it is not a pack"),
    "a tar": (lambda _: b"\0" * 10240, "it is not a pack"),
    "no index": (lambda _: MAGIC, "it is truncated"),
    "no JSON": (lambda data: data.replace(b"{", b"[", 1), "its index is damaged"),
    "deep JSON": (lambda _: MAGIC + b"[" * 100_000 + b"\n", "its index is damaged"),
    "cut by a byte": (lambda data: data[:-1], "it is truncated"),
    "cut in half": (lambda data: data[: len(data) // 2], "it is truncated"),
    "one byte more": (lambda data: data + b"x", "it is too long"),
    "another last byte": (lambda data: flipped(data, len(data) - 1), "is damaged"),
    "a path as key": (lambda data: changed(data, "results", ["../" * 20 + "etc", 1]), "is no digest"),
    "a path as blob": (lambda data: changed(data, "blobs", ["/" + HASH[1:], 1]), "is no digest"),
    "capital letters": (lambda data: changed(data, "blobs", ["A" * 64, 1]), "is no digest"),
    "negative": (lambda data: changed(data, "blobs", [HASH, -1]), "is no digest"),
    "enormous": (lambda data: changed(data, "blobs", [HASH, 1 << 70]), "it is truncated"),
    "no number": (lambda data: changed(data, "blobs", [HASH, "1"]), "its index is damaged"),
    "one field more": (lambda data: changed(data, "blobs", [HASH, 1, 2]), "its index is damaged"),
    "twice": (twice, "it has an entry twice"),
    "results without blobs": (without_blobs, "a folder of it is missing"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pack_writes_nothing(name: str, fresh: Fresh, tmp_path: Path) -> None:
    """Nor does a whole pack on the same command line."""
    make, reason = HOSTILE[name]
    cache, target = fresh("one"), fresh("target")
    packed(cache, tmp_path / "good", keep(cache, "a", b"first"))
    packed(cache, tmp_path / "bad", keep(cache, "b", b"second"))
    data = (tmp_path / "bad").read_bytes()
    (tmp_path / "bad").write_bytes(make(data))
    with pytest.raises(UsageError, match=reason) as caught:
        pack.unpack([str(tmp_path / "good"), str(tmp_path / "bad")], target)
    assert caught.value.message.startswith(str(tmp_path / "bad"))
    assert files_of(target) == []


@pytest.mark.parametrize("part", ["result", "blob"])
def test_each_byte_counts(part: str, fresh: Fresh, tmp_path: Path) -> None:
    """A byte that is changed anywhere in a blob is noticed; one in a result makes it malformed or lacking, or is harmless."""
    cache = fresh("one")
    key = keep(cache, "a", b"first")
    packed(cache, tmp_path / "pack", key)
    data = (tmp_path / "pack").read_bytes()
    index, rest = index_of(data)
    start, size = len(data) - len(rest), int(str(index["results"][0][1]))
    places = range(start, start + size) if part == "result" else range(start + size, len(data))
    for at in places:
        (tmp_path / "bad").write_bytes(flipped(data, at))
        target = fresh(f"target-{at}")
        try:
            pack.unpack([str(tmp_path / "bad")], target)
        except UsageError:
            assert files_of(target) == []
        else:
            assert part == "result"
            assert target.get(key) is not None


def test_a_pack_that_is_no_file(fresh: Fresh, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in (".", "none", "fifo"):
        with pytest.raises(UsageError, match="cannot be read"):
            pack.unpack([str(tmp_path / name)], fresh("target"))


def test_a_result_that_is_there_stays(fresh: Fresh, tmp_path: Path) -> None:
    one, other = fresh("one"), fresh("other")
    key = keep(one, "a", b"theirs")
    packed(one, tmp_path / "pack", key)
    keep(other, "a", b"ours")
    assert pack.unpack([str(tmp_path / "pack")], other).results == 0
    assert contents(other, key) == [b"ours"]
