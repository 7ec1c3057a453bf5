from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bkrules.errors import LoadError
from bkrules.incremental import stamps
from bkrules.loading import cache as cache_module
from bkrules.loading import modules as modules_module
from bkrules.loading.glob import Found, Glob, search
from bkrules.loading.loader import Loader
from bkrules.loading.package import Package
from bkrules.loading.workspace import Workspace
from bkrules.model.rule import Attr, Rule

FILES = {
    "WORKSPACE.py": "from bkrules import thing, workspace\nworkspace(name = 'w')\nthing(name = 'top')\n",
    "lib/BUILD.py": "",
    "lib/a.py": "from bkrules import load, thing\nload(':b.py', 'SIZE')\ndef make(name):\n  thing(name = name, size = SIZE)\n",
    "lib/b.py": "SIZE = 2\n",
    "p/BUILD.py": (
        "from bkrules import glob, load, loose, thing\n"
        "load('//lib:a.py', 'make')\n"
        "make(\n  name = 'm')\n"
        "thing(name = 't', words = glob(['**/*.txt'], allow_empty = True), ready = True,\n"
        "  dep = ':m', deps = ['x', '//q:y'], by_name = {'n': '//lib'}, table = {'b': [1, (2, None)], 'a': {'x': 1.5}})\n"
        "loose(name = 'l', colour = ['red', {'x': True}])\n"
    ),
    "p/a.txt": "",
    "p/d/b.txt": "",
    "q/BUILD.py": "",
    "q/e/c.txt": "",
}


class Evaluated:
    """Which files were evaluated, in the workspaces that `open` gave."""

    def __init__(self, root: Path, rules: dict[str, Rule]) -> None:
        self.root = root
        self.rules = rules
        self.files: list[str] = []

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(self, name: str = "p") -> Package | None:
        self.files.clear()
        workspace = Workspace(str(self.root), self.rules, str(self.root / "bk-out/.state"))
        package = workspace.package(name)
        workspace.save()
        return package

    def store(self) -> Path:
        return self.root / "bk-out/.state/packages"


@pytest.fixture
def space(tmp_path: Path, rules: dict[str, Rule], monkeypatch: pytest.MonkeyPatch) -> Evaluated:
    made = Evaluated(tmp_path, rules)
    original = Loader._evaluate

    def evaluate(self: Any, text: bytes, file: str, *more: Any) -> Any:
        made.files.append(file)
        return original(self, text, file, *more)

    monkeypatch.setattr(Loader, "_evaluate", evaluate)
    for path, text in FILES.items():
        made.write(path, text)
    return made


def plain(package: Package | None) -> list[Any]:
    assert package is not None
    return [
        package.name,
        package.file,
        package.workspace,
        package.record.files,
        package.record.globs,
        package.record.exists,
        *(
            (name, one.label, one.rule.name, list(one.attributes.items()), one.extra, one.location, one.labels())
            for name, one in package.targets.items()
        ),
    ]


@pytest.fixture(params=["young", "old"])
def aged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, space: Evaluated) -> str:
    """Whether what stat says is believed: of files as young as these it is not."""
    if request.param == "old":
        monkeypatch.setattr(stamps, "RACY_NS", -1_000_000_000)
    return str(request.param)


@pytest.mark.parametrize("name", ["p", ""])
def test_an_unchanged_package_is_not_evaluated_again(name: str, space: Evaluated, aged: str) -> None:
    first = plain(space.load(name))
    assert space.files
    for _ in range(2):
        assert plain(space.load(name)) == first
        assert space.files == []


def test_folders_that_stat_vouches_for_are_not_searched(
    space: Evaluated, monkeypatch: pytest.MonkeyPatch, aged: str
) -> None:
    space.load()
    searched: list[object] = []

    def searching(root: str, one: Glob, charge: Callable[[int], None]) -> Found:
        searched.append(one)
        return search(root, one, charge)

    monkeypatch.setattr(modules_module, "search", searching)
    space.load()
    assert bool(searched) == (aged == "young")


CHANGES: dict[str, Callable[[Path], object]] = {
    "build file": lambda root: (root / "p/BUILD.py").write_text(FILES["p/BUILD.py"].replace("'l'", "'k'")),
    "macro file": lambda root: (root / "lib/a.py").write_text(
        FILES["lib/a.py"].replace("name = name", "name = name + 'x'")
    ),
    "macro of a macro": lambda root: (root / "lib/b.py").write_text("SIZE = 3\n"),
    "new match": lambda root: (root / "p/c.txt").touch(),
    "new match deeper": lambda root: (root / "p/d/c.txt").touch(),
    "new folder": lambda root: (root / "q/e").rename(root / "p/e"),
    "removed match": lambda root: (root / "p/d/b.txt").unlink(),
    "renamed match": lambda root: (root / "p/d/b.txt").rename(root / "p/d/c.txt"),
    "new package below": lambda root: (root / "p/d/BUILD.py").touch(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, space: Evaluated, aged: str) -> None:
    before = plain(space.load())
    space.load()
    CHANGES[change](space.root)
    after = plain(space.load())
    assert "p/BUILD.py" in space.files
    assert after[6:] != before[6:]
    assert plain(space.load()) == after
    assert space.files == []


@pytest.mark.parametrize("path", ["lib/a.py", "lib/b.py", "lib/BUILD.py"])
def test_what_is_gone_is_an_error(path: str, space: Evaluated, aged: str) -> None:
    space.load()
    (space.root / path).unlink()
    with pytest.raises(LoadError) as caught:
        space.load()
    assert caught.value.reason in ("unknown-file", "unknown-package")


def test_a_package_that_is_gone_is_gone(space: Evaluated, aged: str) -> None:
    space.load()
    size = space.store().stat().st_size
    (space.root / "p/BUILD.py").unlink()
    assert space.load() is None
    assert space.store().stat().st_size < size - 500


def test_a_macro_file_that_becomes_one_of_another_package_is_refused(space: Evaluated, aged: str) -> None:
    space.write("lib/deep/c.py", "SIZE = 2")
    space.write("lib/a.py", FILES["lib/a.py"].replace(":b.py", ":deep/c.py"))
    space.load()
    (space.root / "lib/deep/BUILD.py").touch()
    with pytest.raises(LoadError) as caught:
        space.load()
    assert caught.value.reason == "unknown-file"


def test_an_edit_that_stat_does_not_show_is_seen_in_a_young_file(space: Evaluated) -> None:
    space.load()
    file = space.root / "lib/b.py"
    before = file.stat()
    file.write_text("SIZE = 4\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    package = space.load()
    assert package is not None
    assert package.targets["m"].attributes["size"] == 4


def test_what_does_not_match_changes_nothing(space: Evaluated, aged: str) -> None:
    first = plain(space.load())
    (space.root / "p/other.md").touch()
    (space.root / "p/BUILD.py").touch()
    for _ in range(2):
        assert plain(space.load()) == first
        assert space.files == []


def test_a_link_whose_target_appears_is_seen(space: Evaluated, aged: str) -> None:
    (space.root / "p/link.txt").symlink_to("../q/later.txt")
    before = plain(space.load())
    (space.root / "q/later.txt").touch()
    assert plain(space.load()) != before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"x",
        lambda data: data[: len(data) // 2],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: zlib.crc32(b"\xff").to_bytes(4, "big") + b"\xff",
        lambda data: zlib.crc32(b"N").to_bytes(4, "big") + b"N",
        lambda data: data.replace(b"colour", b"colouR"),
    ],
    ids=["empty", "short", "half", "a bit", "the last bit", "no marshal", "none", "text"],
)
def test_a_spoilt_cache_is_no_cache(spoil: Callable[[bytes], bytes], space: Evaluated) -> None:
    first = plain(space.load())
    space.store().write_bytes(spoil(space.store().read_bytes()))
    assert plain(space.load()) == first
    assert "p/BUILD.py" in space.files
    assert plain(space.load()) == first
    assert space.files == []


def test_a_spoilt_entry_is_no_entry(space: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plain(space.load())
    original = cache_module._read

    def read(*given: Any) -> Any:
        return {name: (*entry[:-1], b"[\x01\0\0\0N") for name, entry in original(*given).items()}

    monkeypatch.setattr(cache_module, "_read", read)
    assert plain(space.load()) == first
    assert "p/BUILD.py" in space.files


def test_other_rules_are_another_cache(space: Evaluated) -> None:
    space.load()
    thing = space.rules["thing"]
    more: Mapping[str, Attr] = {**thing.attributes, "more": Attr("string", "More.", default="x")}
    space.rules = {**space.rules, "thing": Rule("thing", "", more, thing.analyze)}
    package = space.load()
    assert package is not None
    assert package.targets["t"].attributes["more"] == "x"


@pytest.mark.parametrize("name", ["FORMAT", "_code"])
def test_another_bk_is_another_cache(name: str, space: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    space.load()
    monkeypatch.setattr(cache_module, name, 99 if name == "FORMAT" else lambda: ())
    space.load()
    assert "p/BUILD.py" in space.files


def test_loading_works_where_nothing_can_be_kept(space: Evaluated) -> None:
    space.write("bk-out", "a file")
    assert plain(space.load())[0] == "p"


def test_all_that_was_read_is_known_from_the_cache_too(space: Evaluated) -> None:
    def reads() -> tuple[dict[str, Any], object, object]:
        workspace = Workspace(str(space.root), space.rules, str(space.root / "bk-out/.state"))
        workspace.package("p")
        workspace.save()
        return dict(workspace.reads), dict(workspace.globs), dict(workspace.checks)

    first = reads()
    space.files.clear()
    assert reads() == first
    assert space.files == []
    assert sorted(first[0]) == ["lib/a.py", "lib/b.py", "p/BUILD.py"]
