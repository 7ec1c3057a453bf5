from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bkrules.errors import BkError, UsageError
from bkrules.loading import modules
from bkrules.loading.workspace import Workspace, check_labels
from bkrules.model.label import Label, parse_label, parse_pattern
from bkrules.model.rule import Rule

IMPORT = "from bkrules import bk_dep, glob, load, thing, workspace\n"
MACROS = """from bkrules import glob, thing

SIZE = 3

def declared(name):
    thing(name = name, dep = "@lib//pkg:one")

def texts():
    return glob(["*.txt"])
"""


class Place:
    """A workspace with a module `lib`, which is a folder somewhere else."""

    def __init__(self, root: Path, rules: dict[str, Rule]) -> None:
        self.root, self.rules, self.lib = root / "workspace", rules, root / "lib"
        self.write("WORKSPACE.py", 'workspace(name = "main")\nbk_dep(name = "lib")\n')
        self.write("BUILD.py", "")
        self.of_lib("WORKSPACE.py", 'workspace(name = "lib")\nthing(name = "tool")\n')
        self.of_lib("pkg/BUILD.py", 'thing(name = "one", words = glob(["*.txt"]), deps = [":a.txt", "//:tool"])\n')
        (self.lib / "pkg/a.txt").write_text("a")
        (self.lib / "macros.py").write_text(MACROS)
        modules.override({"lib": str(self.lib)})

    def write(self, path: str, text: str) -> None:
        _write(self.root / path, text)

    def of_lib(self, path: str, text: str) -> None:
        _write(self.lib / path, text)

    def open(self) -> Workspace:
        return Workspace(str(self.root), self.rules, str(self.root / "bk-out/.state"))

    def fails(self, label: str = "//p:it") -> BkError:
        workspace = self.open()
        with pytest.raises(BkError) as caught:
            target = workspace.target(parse_label(label))
            assert target is not None
            check_labels(workspace, target)
        assert caught.value.where
        return caught.value


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_macros = path.name not in ("BUILD.py", "WORKSPACE.py")
    names = IMPORT if path.name == "WORKSPACE.py" else IMPORT.replace("bk_dep, ", "").replace(", workspace", "")
    path.write_text(text if is_macros else names + text)


@pytest.fixture
def place(tmp_path: Path, rules: dict[str, Rule]) -> Iterator[Place]:
    yield Place(tmp_path, rules)
    modules.override({})
    modules.installed_modules.cache_clear()


def test_labels_reach_into_a_module(place: Place) -> None:
    place.write("p/BUILD.py", 'load("@lib//:macros.py", "declared", "SIZE")\ndeclared(name = "it")\n')
    workspace = place.open()
    target = workspace.target(Label("p", "it"))
    assert target is not None
    (one,) = check_labels(workspace, target)
    assert (str(one.label), one.attributes["words"]) == ("@lib//pkg:one", ("a.txt",))
    (tool,) = check_labels(workspace, one)
    assert str(tool.label) == "@lib//:tool"
    assert workspace.place(Label("@lib/pkg", "a.txt").path) == f"{place.lib}/pkg/a.txt"
    assert workspace.is_file(Label("@lib/pkg", "a.txt"))
    assert not workspace.is_file(Label("@lib/pkg", "b.txt"))


def test_a_macro_of_a_module_globs_in_the_package_that_calls_it(place: Place) -> None:
    place.write("p/BUILD.py", 'load("@lib//:macros.py", "texts")\nthing(name = "it", words = texts())\n')
    (place.root / "p/own.txt").write_text("")
    target = place.open().target(Label("p", "it"))
    assert target is not None
    assert target.attributes["words"] == ("own.txt",)


def test_patterns_reach_into_a_module_by_its_name_alone(place: Place) -> None:
    place.write("p/BUILD.py", 'thing(name = "it")\n')
    workspace = place.open()

    def match(text: str) -> list[str]:
        return [str(target.label) for target in workspace.match([parse_pattern(text)])]

    assert match("//...") == ["//p:it"]
    assert match("@lib//...") == ["@lib//:tool", "@lib//pkg:one"]
    assert match("@lib//pkg:all") == ["@lib//pkg:one"]
    with pytest.raises(UsageError) as caught:
        match("@lip//...")
    assert caught.value.reason == "unknown-module"


def test_the_tools_of_a_module_are_those_of_its_workspace_which_may_have_its_own(place: Place) -> None:
    workspace = place.open()
    assert str(workspace.actual(Label("", "tool"))) == "@lib//:tool"
    assert str(workspace.actual(Label("p", "tool"))) == "//p:tool"
    place.write("WORKSPACE.py", 'workspace(name = "main")\nbk_dep(name = "lib")\nthing(name = "tool")\n')
    assert str(place.open().actual(Label("", "tool"))) == "//:tool"


def test_the_tools_of_the_modules_of_a_module(place: Place, tmp_path: Path) -> None:
    place.of_lib("WORKSPACE.py", 'workspace(name = "lib")\nbk_dep(name = "deep")\n')
    _write(tmp_path / "deep/WORKSPACE.py", 'workspace(name = "deep")\nbk_dep(name = "lib")\nthing(name = "tool")\n')
    modules.override({"lib": str(place.lib), "deep": str(tmp_path / "deep")})
    workspace = place.open()
    workspace.check_overrides()
    assert str(workspace.actual(Label("", "tool"))) == "@deep//:tool"
    assert workspace.target(Label("", "other")) is None
    place.write("p/BUILD.py", 'thing(name = "it", dep = "@deep//:tool")\n')
    assert place.fails().reason == "unknown-module"  # only what a WORKSPACE.py names itself


def test_a_workspace_may_call_its_own_targets_by_its_name(place: Place) -> None:
    place.write("p/BUILD.py", 'thing(name = "it", dep = "@main//q:other", deps = ["@main//q:file"])\n')
    place.write("q/BUILD.py", 'thing(name = "other")\n')
    (place.root / "q/file").write_text("")
    workspace = place.open()
    target = workspace.target(Label("p", "it"))
    assert target is not None
    assert [str(other.label) for other in check_labels(workspace, target)] == ["//q:other"]


def test_a_module_in_a_folder_of_the_workspace(place: Place) -> None:
    place.write("WORKSPACE.py", 'workspace(name = "main")\nbk_dep(name = "lib", path = "third/lib")\n')
    place.write("p/BUILD.py", 'thing(name = "it", dep = "@lib//pkg:one")\n')
    (place.root / "third").mkdir()
    place.lib.rename(place.root / "third/lib")
    modules.override({})
    for _ in range(2):  # the second time from the cache
        workspace = place.open()
        assert list(workspace.packages()) == ["", "p"]
        target = workspace.target(Label("p", "it"))
        assert target is not None
        assert [str(other.label) for other in check_labels(workspace, target)] == ["@lib//pkg:one"]
        workspace.save()


def test_a_module_that_moves_is_not_evaluated_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("p/BUILD.py", 'load("@lib//:macros.py", "declared")\ndeclared(name = "it")\n')
    workspace = place.open()
    assert workspace.target(Label("p", "it"))
    assert workspace.target(Label("@lib/pkg", "one"))
    workspace.save()
    moved = place.lib.rename(place.lib.with_name("moved"))
    modules.override({"lib": str(moved)})
    workspace = place.open()
    monkeypatch.setattr(Workspace, "_loader", None)
    target = workspace.target(Label("@lib/pkg", "one"))
    assert target is not None
    assert target.attributes["words"] == ("a.txt",)
    assert workspace.target(Label("p", "it"))
    (moved / "pkg/b.txt").write_text("")
    monkeypatch.undo()
    again = place.open().target(Label("@lib/pkg", "one"))
    assert again is not None
    assert again.attributes["words"] == ("a.txt", "b.txt")


def test_a_folder_with_a_workspace_of_its_own_is_not_in_this_one(place: Place) -> None:
    place.write("sub/WORKSPACE.py", 'workspace(name = "sub")\n')
    place.write("sub/p/BUILD.py", "")
    place.write("BUILD.py", "")
    place.write("q/BUILD.py", 'thing(name = "it", words = glob(["**/*.txt"]))\n')
    place.write("q/r/WORKSPACE.py", "")
    for folder in ("q", "q/r"):
        (place.root / folder / "a.txt").write_text("")
    workspace = place.open()
    assert list(workspace.packages()) == ["", "q"]
    target = workspace.target(Label("q", "it"))
    assert target is not None
    assert target.attributes["words"] == ("a.txt",)


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ('thing(name = "it", dep = "@lip//pkg:one")', "unknown-module", "did you mean 'lib'?"),
        ('load("@lip//:macros.py", "SIZE")', "unknown-module", "did you mean 'lib'?"),
        ('load("@other//:macros.py", "SIZE")', "unknown-module", "add to it:  bk_dep(name = 'other')"),
        ('load("@lib//:macros.py", "SIZE"); SIEZ', "unknown-name", "did you mean 'SIZE'?"),
        ('thing(name = "it", dep = "@lib//pkg:ome")', "unknown-label", "did you mean 'one'?"),
        ('thing(name = "it", dep = "@lib//pgk:two")', "unknown-label", "did you mean '@lib//pkg'?"),
        ('load("@lib//:macro.py", "SIZE")', "unknown-file", "did you mean 'macros.py'?"),
        ('load("@lib//nothing:macro.py", "SIZE")', "unknown-package", "@lib//nothing has no BUILD.py"),
        ('load("@lib//:WORKSPACE.py", "SIZE")', "bad-load", "other than"),
        ('thing(name = "it", dep = "@lib//../workspace/p:it")', "bad-attribute", "is not a label"),
        ('thing(name = "it", deps = ["@lib//pkg:../../x"])', "bad-attribute", "is not a label"),
    ],
)
def test_a_label_that_reaches_nothing(place: Place, text: str, reason: str, said: str) -> None:
    place.write("p/BUILD.py", text + "\n")
    error = place.fails()
    assert error.reason == reason
    assert error.where.startswith("p/BUILD.py:2")
    assert said in str(error)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('bk_dep("lib")', "bad-module"),
        ('bk_dep(name = "li" + "b")', "bad-module"),
        ('bk_dep(name = "a-b")', "bad-module"),
        ("bk_dep()", "bad-module"),
        ('bk_dep(name = "a", folder = "b")', "bad-module"),
        ('bk_dep(name = "a", path = 1)', "bad-module"),
        ('bk_dep(name = "a", path = "../b")', "bad-module"),
        ('bk_dep(name = "a", path = "/b")', "bad-module"),
        ('bk_dep(name = "a", path = "")', "bad-module"),
        ('bk_dep(name = "a", path = "b/../../c")', "bad-module"),
        ('[bk_dep(name = name) for name in ["lib"]]', "bad-module"),
        ('bk_dep(name = "lib")', "duplicate-name"),
    ],
)
def test_what_a_workspace_says_wrongly(place: Place, text: str, reason: str) -> None:
    place.write("WORKSPACE.py", f'workspace(name = "main")\nbk_dep(name = "lib")\n{text}\n')
    error = place.fails("//:it")
    assert (error.reason, error.where) == (reason, "WORKSPACE.py:4")


def test_only_a_workspace_file_names_modules(place: Place) -> None:
    (place.root / "p").mkdir()
    (place.root / "p/BUILD.py").write_text('from bkrules import bk_dep\nbk_dep(name = "lib")\n')
    assert place.fails().reason == "unknown-rule"


LINKS: dict[str, Callable[[Place, Path], object]] = {
    "a build file": lambda place, out: _link(place.lib / "pkg/BUILD.py", out / "BUILD.py"),
    "a folder": lambda place, out: _link(place.lib / "pkg", out),
    "a source": lambda place, out: _link(place.lib / "pkg/a.txt", out / "a.txt"),
    "the file of the workspace": lambda place, out: _link(place.lib / "WORKSPACE.py", out / "WORKSPACE.py"),
}


def _link(path: Path, target: Path) -> None:
    path.rename(path.with_name("old"))
    path.symlink_to(target)


@pytest.mark.parametrize("change", LINKS.values(), ids=LINKS.keys())
def test_no_link_leads_out_of_a_module(place: Place, tmp_path: Path, change: Callable[[Place, Path], object]) -> None:
    out = tmp_path / "out"
    _write(out / "BUILD.py", 'thing(name = "one")\n')
    _write(out / "WORKSPACE.py", 'workspace(name = "lib")\n')
    (out / "a.txt").write_text("secret")
    change(place, out)
    assert place.fails("@lib//pkg:one").reason in ("link-out", "unknown-label", "empty-glob")


FAULTS: dict[str, tuple[Callable[[Place], object], str, str]] = {
    "no folder": (lambda place: place.lib.rename(place.lib.with_name("gone")), "bad-module", "is no folder"),
    "no workspace": (lambda place: (place.lib / "WORKSPACE.py").unlink(), "bad-module", "has no WORKSPACE.py"),
    "another name": (
        lambda place: place.of_lib("WORKSPACE.py", 'workspace(name = "bil")\n'),
        "misnamed-module",
        "calls itself 'bil'",
    ),
    "no name": (lambda place: place.of_lib("WORKSPACE.py", ""), "misnamed-module", "does not say its name"),
    "not installed": (lambda place: modules.override({}), "module-not-installed", "the distribution lib;"),
}


@pytest.mark.parametrize(("change", "reason", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_module_that_is_not_what_it_should_be(
    place: Place, change: Callable[[Place], object], reason: str, said: str
) -> None:
    place.write("p/BUILD.py", 'thing(name = "it", dep = "@lib//pkg:one")\n')
    change(place)
    error = place.fails()
    assert error.reason == reason
    assert said in str(error)


def test_an_override_of_what_nothing_uses(place: Place) -> None:
    modules.override({"lip": str(place.lib)})
    with pytest.raises(UsageError) as caught:
        place.open().check_overrides()
    assert caught.value.reason == "unused-override"
    assert "did you mean 'lib'?" in caught.value.hint


def distribution(folder: Path, name: str, points: Mapping[str, str]) -> None:
    """Put the metadata of an installed distribution into a folder of the import path."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"{module} = {value}\n" for module, value in points.items()]
    (info / "entry_points.txt").write_text(f"[bkrules.modules]\n{''.join(lines)}")


@pytest.fixture
def installed(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the import path, with the module `lib` as the folder `data` of a package that cannot be imported."""
    folder = tmp_path / "site"
    place.lib.rename(tmp_path / "kept")
    (folder / "lib_package").mkdir(parents=True)
    (folder / "lib_package/__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "kept").rename(folder / "lib_package/data")
    monkeypatch.syspath_prepend(str(folder))
    modules.override({})
    modules.installed_modules.cache_clear()
    return folder


def test_an_installed_module_is_found_without_an_import(place: Place, installed: Path) -> None:
    distribution(installed, "lib-dist", {"lib": "lib_package.data"})
    target = place.open().target(Label("@lib/pkg", "one"))
    assert target is not None
    assert target.attributes["words"] == ("a.txt",)
    assert "lib_package" not in sys.modules


def test_the_first_distribution_of_a_name_counts_as_in_python(
    place: Place, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(installed, "lib-dist", {"lib": "lib_package.data"})
    distribution(tmp_path / "later", "lib-dist", {"lib": "another"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "later")])
    assert place.open().target(Label("@lib/pkg", "one"))


@pytest.mark.parametrize("value", ["nothing", "lib_package.other", "lib_package", "not a name", "sys", ".lib", ""])
def test_an_entry_point_without_a_module(place: Place, installed: Path, value: str) -> None:
    distribution(installed, "lib-dist", {"lib": value})
    place.write("p/BUILD.py", 'thing(name = "it", dep = "@lib//pkg:one")\n')
    error = place.fails()
    assert error.reason in ("bad-module", "module-not-installed")  # a line that is no entry point is none
    assert "lib" in error.message


def test_two_distributions_with_one_module(place: Place, installed: Path) -> None:
    distribution(installed, "lib-dist", {"lib": "lib_package.data"})
    distribution(installed, "lib-other", {"lib": "lib_package.data"})
    place.write("p/BUILD.py", 'thing(name = "it", dep = "@lib//pkg:one")\n')
    error = place.fails()
    assert error.reason == "duplicate-module"
    assert "lib-dist and lib-other" in error.message


def test_a_distribution_whose_entry_points_cannot_be_read_has_none(place: Place, installed: Path) -> None:
    distribution(installed, "lib-dist", {"lib": "lib_package.data"})
    distribution(installed, "broken", {})
    (installed / "broken-1.dist-info/entry_points.txt").write_bytes(b"[bkrules.modules]\n\xff = \xfe\n")
    assert place.open().target(Label("@lib/pkg", "one"))
