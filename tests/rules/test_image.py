"""What image declares; nothing is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.build.analysis import analyze_patterns
from bkrules.errors import LoadError
from bkrules.images.layer import Entry, layer, symlink
from bkrules.model.action import Action
from bkrules.rules.image_paths import collisions, path_problem

Declared = Callable[[str], Action]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The action of an image with these attributes; `a.txt` and `b.txt` are files."""
    (tmp_path / "WORKSPACE.py").write_text("from bkrules import workspace\nworkspace(name = 'test')\n")
    (tmp_path / "p").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "p" / name).write_text(name)
    monkeypatch.chdir(tmp_path)

    def declare(attributes: str) -> Action:
        (tmp_path / "p/BUILD.py").write_text(f"from bkrules import image\nimage(name = 'i', {attributes})\n")
        (action,) = analyze_patterns(".", ["//p:i"]).wanted().values()
        return action

    return declare


def test_files_links_and_noise_stand_side_by_side(declared: Declared) -> None:
    assert declared("files = {'bin/a': 'a.txt', 'b': 'b.txt'}, symlinks = {'bin/c': 'a'}, noise = {'bin/d': 0}")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("files = {'a': 'a.txt', 'a/b': 'b.txt'}", "'a' of 'files' is not a folder, but 'a/b' of 'files' lies in it"),
        ("files = {'a/b/c/d': 'a.txt', 'a/b': 'b.txt'}", "'a/b' of 'files' is not a folder, but 'a/b/c/d' of 'files'"),
        ("files = {'a': 'a.txt'}, symlinks = {'a': 'b'}", "'a' is in 'files' and in 'symlinks'"),
        ("files = {'a': 'a.txt'}, noise = {'a': 1}", "'a' is in 'files' and in 'noise'"),
        ("symlinks = {'a': 'b'}, noise = {'a': 1}", "'a' is in 'symlinks' and in 'noise'"),
        (
            "symlinks = {'bin': 'usr/bin'}, files = {'bin/x': 'a.txt'}",
            "'bin' of 'symlinks' is not a folder, but 'bin/x'",
        ),
        ("noise = {'a': 1, 'a/b': 1}", "'a' of 'noise' is not a folder"),
        ("labels = {'a': 1}", "the label 'a' must be a string, but is 1"),
        ("files = {'a/': 'a.txt'}", "'a/' must be written 'a'"),
        ("files = {'./a': 'a.txt', 'a': 'b.txt'}", "'./a' must be written 'a'"),
        ("files = {'a//b': 'a.txt'}", "'a//b' must be written 'a/b'"),
        ("symlinks = {'a/./b': 'c'}", "'a/./b' must be written 'a/b'"),
        ("noise = {'.': 1}", "'.' must be written ''"),
        ("files = {'../a': 'a.txt'}", "'../a' is not relative to the image's root"),
        ("files = {'a/..': 'a.txt'}", "is not relative to the image's root"),
        ("files = {'/a': 'a.txt'}", "is not relative to the image's root"),
        ("files = {'': 'a.txt'}", "is not relative to the image's root"),
        ("files = {'a\\0b': 'a.txt'}", "that no file or command can hold"),
        ("files = {'a\\ud800': 'a.txt'}", "that no file or command can hold"),
        ("files = {'a' * 256: 'a.txt'}", "has a name of more than 255 bytes"),
        ("files = {'\\u00e9' * 128: 'a.txt'}", "has a name of more than 255 bytes"),
        ("files = {'a/' * 2100 + 'a': 'a.txt'}", "more than 4095 in all"),
        ("symlinks = {'a': ''}", "'a' must lead to a path"),
        ("symlinks = {'a': 7}", "'a' must lead to a path"),
        ("symlinks = {'a': 'b' * 5000}", "'a' leads to more than 4095 bytes"),
        ("symlinks = {'a': 'b\\0'}", "that no file or command can hold"),
        ("symlinks = {'a': '\\ud800'}", "that no file or command can hold"),
        ("noise = {'a': -1}", "'a' must have a number of bytes up to"),
        ("noise = {'a': '1'}", "must have a number of bytes up to 68719476736, but has '1'"),
        ("noise = {'a': 1.5}", "but has 1.5"),
        ("noise = {'a': True}", "but has True"),
        ("noise = {'a': 1 << 62}", "must have a number of bytes up to"),
        ("files = {'etc/.wh.motd': 'a.txt'}", "name what to remove in 'whiteouts'"),
        (
            "directories = {'tmp': 1777}",
            "'tmp' must have a mode of three or four octal digits as text, '0755', but has 1777",
        ),
        ("directories = {'tmp': '1888'}", "must have a mode of three or four octal digits"),
        ("directories = {'a': '755'}, files = {'a': 'a.txt'}", "'a' is in 'files' and in 'directories'"),
        ("devices = {'null': 'c 1'}", "must have 'c MAJOR MINOR', 'b MAJOR MINOR' or 'p', but has 'c 1'"),
        (
            "devices = {'a': 'p'}, noise = {'a/b': 1}",
            "'a' of 'devices' is not a folder, but 'a/b' of 'noise' lies in it",
        ),
        ("hardlinks = {'a': 'b'}", "'hardlinks': 'b' is in none of 'files', 'noise', 'devices'"),
        ("hardlinks = {'a': 'b'}, symlinks = {'b': 'c'}", "'b' is in none of"),
        ("modes = {'a': '4755'}", "'modes': 'a' is in none of 'files', 'noise', 'devices'"),
        ("modes = {'a': '4755'}, directories = {'a': '755'}", "'a' is in none of"),
        ("owners = {'a': 'root'}, noise = {'a': 1}", "must have an owner 'UID:GID' in numbers, but has 'root'"),
        ("owners = {'a': '0:4294967295'}, noise = {'a': 1}", "must have an owner 'UID:GID'"),
        ("owners = {'a': '0:0'}", "'owners': 'a' is in none of"),
        (
            "xattrs = {'a': {'note': 'x'}}, noise = {'a': 1}",
            "has the extended attribute 'note'; names begin with 'user.'",
        ),
        ("xattrs = {'a': {'user.x': '0s?'}}, noise = {'a': 1}", "has no value for 'user.x'"),
        ("xattrs = {'a': {}}, noise = {'a': 1}", "must have a dictionary of names and values"),
        ("xattrs = {'a': {'user.x': 'y'}}, symlinks = {'a': 'b'}", "'xattrs': 'a' is in none of"),
        ("whiteouts = ['a']", "'whiteouts' needs a 'base', from which it removes"),
        ("whiteouts = ['a'], noise = {'a/b': 1}", "'a' of 'whiteouts' is not a folder"),
        ("opaque = ['a'], noise = {'a': 1}", "'a' of 'noise' is not a folder, but 'a/*' of 'opaque' lies in it"),
        ("opaque = ['a/b'], whiteouts = ['a']", "'a' of 'whiteouts' is not a folder, but 'a/b/*' of 'opaque'"),
        ("directories = {'tmp': '755'}, reference = 'a.example/b:1'", "'directories' does not go with 'reference'"),
    ],
)
def test_paths_that_lose_or_double_content_are_refused(declared: Declared, attributes: str, said: str) -> None:
    with pytest.raises(LoadError) as caught:
        declared(attributes)
    assert said in caught.value.message
    assert "p/BUILD.py:2" in caught.value.where


_PATHS = st.lists(st.sampled_from(["a", "b", "é", "x" * 120]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=rounds(150))
@given(st.dictionaries(_PATHS, st.sampled_from(["files", "symlinks"]), max_size=8), st.integers(1, 300))
def test_every_entry_is_in_the_layer_once(
    tmp_path_factory: pytest.TempPathFactory, owners: dict[str, str], length: int
) -> None:
    """Paths that are accepted are the members of the layer, each with its content, however long they are."""
    import io
    import tarfile

    given_paths: dict[str, dict[str, object]] = {"files": {}, "symlinks": {}}
    for path, owner in owners.items():
        given_paths[owner][path] = ""
    if any(collisions(given_paths)) or any(map(path_problem, owners)):
        return
    entries = {
        path: symlink("t" * length) if owner == "symlinks" else Entry(path.encode()) for path, owner in owners.items()
    }
    with tarfile.open(fileobj=io.BytesIO(layer(entries))) as tar:
        members = tar.getmembers()
        found = {one.name: one for one in members if not one.isdir()}
        assert len({one.name for one in members}) == len(members)
        assert set(found) == set(entries)
        for path, entry in entries.items():
            if entry.link:
                assert found[path].linkname == entry.link
            else:
                content = tar.extractfile(found[path])
                assert content is not None
                assert content.read() == entry.data


def test_two_paths_in_one_place_have_their_own_reason(declared: Declared) -> None:
    with pytest.raises(LoadError) as caught:
        declared("files = {'a': 'a.txt'}, noise = {'a': 1}")
    assert caught.value.reason == "duplicate-path"
