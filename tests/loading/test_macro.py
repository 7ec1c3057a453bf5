from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bkrules.errors import LoadError
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target

MakeWorkspace = Callable[[Mapping[str, str]], Workspace]
Targets = Callable[..., dict[str, Target]]
Fails = Callable[..., LoadError]

MACROS = """from bkrules import glob, strict, thing

NAMES = ["x", "y"]
TABLE = {"a": {"b": [1]}}
PAIR = ([1], {"c": 2})
_PRIVATE = 1

def both(name, *, size = 1, **more):
    thing(
        name = name,
        size = size,
        **more
    )
    strict(name = name + "_strict", title = "%s of %d" % (name, size))

def files():
    return glob(["*.txt"])

def fails():
    return [][0]

def calls(function):
    return function()

def grow(default = []):
    default.append(1)
    return default

def holder():
    held = []
    def put(value):
        held.append(value)
        return held
    return put

put = holder()
add = NAMES.append
VALUES = TABLE.values()

def fresh():
    return [1]
"""


@pytest.fixture
def targets(make_workspace: MakeWorkspace) -> Targets:
    def run(build_file: str, files: Mapping[str, str] | None = None) -> dict[str, Target]:
        text = f"from bkrules import glob, load\n{build_file}\n"
        space = make_workspace({"lib/BUILD.py": "", "lib/defs.py": MACROS, "p/BUILD.py": text, **(files or {})})
        package = space.package("p")
        assert package is not None
        return package.targets

    return run


@pytest.fixture
def fails(targets: Targets) -> Fails:
    def run(build_file: str, files: Mapping[str, str] | None = None) -> LoadError:
        with pytest.raises(LoadError) as caught:
            targets(build_file, files)
        return caught.value

    return run


def load(*names: str) -> str:
    return f"load('//lib:defs.py', {', '.join(names)})"


def test_a_macro_declares_targets_in_the_package_that_calls_it(targets: Targets) -> None:
    found = targets(
        f"{load(repr('both'))}\n\nboth(\n  name = 'a',\n  size = 3,\n  deps = [':b'],\n)\nthing(name = 'b')"
    )
    assert list(found) == ["a", "a_strict", "b"]
    assert found["a"].label == Label("p", "a")
    assert found["a"].attributes["deps"] == (Label("p", "b"),)
    assert found["a_strict"].attributes["title"] == "a of 3"


def test_a_targets_place_is_in_the_build_file(targets: Targets) -> None:
    place = targets(f"{load(repr('both'))}\n\nboth(\n  name = 'a',\n  size = 3,\n)")["a"].location
    assert str(place) == "p/BUILD.py:5"
    assert place.of("size") == "p/BUILD.py:7, attribute 'size'"


@pytest.mark.parametrize(
    "statement",
    [
        "load('//lib:defs.py', 'NAMES')",
        "load('//lib:defs.py', NAMES = 'NAMES')",
        "load('//lib:other.py', NAMES = 'OTHER')",
        "load(':defs.py', 'NAMES')",
        "load(':sub/defs.py', 'NAMES')",
        "load('//p:defs.py', 'NAMES')",
        "load('//p:reexport.py', 'NAMES')",
    ],
)
def test_where_names_come_from(statement: str, targets: Targets) -> None:
    constant = "NAMES = ['x', 'y']\n"
    files = {
        "lib/other.py": "OTHER = ['x', 'y']",
        "p/defs.py": constant,
        "p/sub/defs.py": constant,
        "p/reexport.py": "from bkrules import load\nload(':defs.py', _names = 'NAMES')\nNAMES = _names\n",
    }
    assert list(targets(f"{statement}\n[thing(name = n) for n in NAMES]", files)) == ["x", "y"]


def test_a_load_by_another_name(targets: Targets) -> None:
    assert list(targets("from bkrules import load as take\ntake('//lib:defs.py', do = 'both')\ndo('a')")) == [
        "a",
        "a_strict",
    ]


def test_the_workspace_file_loads_too(make_workspace: MakeWorkspace) -> None:
    text = "from bkrules import load\nload(':defs.py', 'both')\nboth('a')\n"
    package = make_workspace({"WORKSPACE.py": text, "defs.py": MACROS}).package("")
    assert package is not None
    assert list(package.targets) == ["a", "a_strict"]


@pytest.mark.parametrize(
    ("statement", "reason", "hint"),
    [
        (load("'boht'"), "unknown-name", "did you mean 'both'?"),
        (load("'thing'"), "unknown-name", "it defines: "),
        (load("'_PRIVATE'"), "private-name", "are private to their file"),
        (load("x = '_PRIVATE'"), "private-name", "are private to their file"),
        ("load('//lib:dfs.py', 'both')", "unknown-file", "did you mean 'defs.py'?"),
        ("load('//lib:folder.py', 'both')", "unknown-file", "files of //lib"),
        ("load('//none:defs.py', 'both')", "unknown-package", "an empty BUILD.py"),
        ("load('//:lib/defs.py', 'both')", "unknown-file", "write //lib:defs.py"),
        ("load('//lib:BUILD.py', 'both')", "bad-load", ""),
        ("load('//:WORKSPACE.py', 'both')", "bad-load", ""),
        ("load('//lib:defs.txt', 'both')", "bad-load", ""),
        ("load('//lib:../defs.py', 'both')", "bad-load", ""),
        ("load('defs.py', 'both')", "bad-load", ""),
        ("load('/etc/defs.py', 'both')", "bad-load", ""),
        ("load('//lib:defs.py')", "bad-load", "write  load("),
        ("load()", "bad-load", "write  load("),
        ("load('//lib:defs.py', *['both'])", "bad-load", "write  load("),
        ("load('//lib:defs.py', **{'a': 'both'})", "bad-load", "write  load("),
        ("load('//lib:' + 'defs.py', 'both')", "bad-load", "write  load("),
        ("x = load('//lib:defs.py', 'both')", "bad-load", "at the top level"),
        ("if True: load('//lib:defs.py', 'both')", "bad-load", "at the top level"),
        ("def f(): load('//lib:defs.py', 'both')\nf()", "bad-load", "at the top level"),
        (load("'both', 'both'"), "duplicate-name", ""),
        (load("'both', both = 'NAMES'"), "duplicate-name", ""),
        (load("thing = 'both'"), "duplicate-name", ""),
        (load("__step = 'both'"), "forbidden-name", "leads out"),
    ],
)
def test_a_load_of_nothing_is_refused_at_its_line(statement: str, reason: str, hint: str, fails: Fails) -> None:
    error = fails(f"\n{statement}", {"lib/folder.py/x": ""})
    assert (error.reason, error.where) == (reason, "p/BUILD.py:4")
    assert hint in error.hint


def test_a_file_outside_of_the_workspace_is_not_read(
    fails: Fails, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "defs.py"
    outside.write_text("X = 1")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/link.py").symlink_to(outside)
    assert fails("load('//lib:link.py', 'X')").reason == "unknown-file"


@pytest.mark.parametrize("call", ["thing(name = 'a')", "glob(['*'])", "def f(): thing(name = 'a')\nf()"])
def test_a_macro_file_declares_nothing_at_its_top_level(call: str, fails: Fails) -> None:
    error = fails("load(':m.py', 'X')", {"p/m.py": f"from bkrules import glob, thing\nX = 1\n{call}\n"})
    assert (error.reason, error.where) == ("top-level-call", "p/m.py:3")


def test_a_macro_file_cannot_name_the_workspace(fails: Fails) -> None:
    assert fails("load(':m.py', 'X')", {"p/m.py": "from bkrules import workspace"}).reason == "unknown-rule"


@pytest.mark.parametrize(
    ("text", "reason"), [("import os", "forbidden-import"), ("x = (", "syntax-error"), ("open", "unknown-name")]
)
def test_a_macro_file_is_as_strict(text: str, reason: str, fails: Fails) -> None:
    error = fails("load(':m.py', 'X')", {"p/m.py": f"X = 1\n{text}\n"})
    assert (error.reason, error.where) == (reason, "p/m.py:2")


@pytest.mark.parametrize(
    ("statements", "reason", "where"),
    [
        ("both(name = 'a', size = 0)", "bad-attribute", "p/BUILD.py:4\nlib/defs.py:11, attribute 'size'"),
        ("both(name = 'a', wrods = 0)", "unknown-attribute", "p/BUILD.py:4\nlib/defs.py:9, attribute 'wrods'"),
        ("fails()", "evaluation", "p/BUILD.py:4\nlib/defs.py:20"),
        ("def f():\n  return fails()\nf()", "evaluation", "p/BUILD.py:5\nlib/defs.py:20"),
        ("calls(lambda: 1 / 0)", "evaluation", "p/BUILD.py:4\nlib/defs.py:23\np/BUILD.py:4"),
        ("files()", "empty-glob", "p/BUILD.py:4\nlib/defs.py:17"),
    ],
)  # fmt: skip
def test_an_error_in_a_macro_shows_the_way_there(statements: str, reason: str, where: str, fails: Fails) -> None:
    error = fails(f"{load(*map(repr, ('both', 'fails', 'calls', 'files')))}\n{statements}")
    assert (error.reason, error.where) == (reason, where)


def test_a_glob_in_a_macro_is_of_the_package_that_calls_it(targets: Targets) -> None:
    found = targets(f"{load(repr('files'))}\nthing(name = 'a', words = files())", {"p/a.txt": "", "lib/b.txt": ""})
    assert found["a"].attributes["words"] == ("a.txt",)


def test_files_that_load_each_other_are_shown_edge_by_edge(fails: Fails) -> None:
    error = fails(
        "load(':a.py', 'X')",
        {
            "p/a.py": "from bkrules import load\nload('//lib:b.py', 'X')\n",
            "lib/b.py": "from bkrules import load\n\nload('//p:c.py', 'X')\n",
            "p/c.py": "from bkrules import load\nload('//lib:b.py', 'X')\n",
        },
    )
    assert error.reason == "load-cycle"
    assert error.where.splitlines() == ["lib/b.py:3: lib/b.py -> p/c.py", "p/c.py:2: p/c.py -> lib/b.py"]


def test_a_file_that_loads_itself(fails: Fails) -> None:
    error = fails("load(':a.py', 'X')", {"p/a.py": "from bkrules import load\nload(':a.py', 'X')\n"})
    assert (error.reason, error.where) == ("load-cycle", "p/a.py:2: p/a.py -> p/a.py")


@pytest.mark.parametrize(
    "statement",
    [
        "NAMES.append('z')",
        "NAMES += ['z']",
        "NAMES[0] = 'z'",
        "NAMES[0] += 'z'",
        "NAMES[0:1] = []",
        "NAMES *= 2",
        "[0 for NAMES[0] in ['z']]",
        "for NAMES[0] in ['z']: pass",
        "NAMES[0], x = 1, 2",
        "NAMES.sort()",
        "NAMES.pop()",
        "NAMES.clear()",
        "x = NAMES\nx.reverse()",
        "[one for one in [NAMES]][0].extend([])",
        "TABLE['z'] = 1",
        "TABLE |= {}",
        "TABLE.update(z = 1)",
        "TABLE.setdefault('z', 1)",
        "TABLE.popitem()",
        "TABLE['a']['b'].append(1)",
        "PAIR[0].append(1)",
        "PAIR[1]['c'] = 3",
        "list(VALUES)[0]['b'] = 1",
        "add('z')",
        "grow()",
        "put('z')",
    ],
)
def test_what_was_loaded_is_frozen(statement: str, fails: Fails) -> None:
    names = ("NAMES", "TABLE", "PAIR", "VALUES", "add", "grow", "put")
    error = fails(f"{load(*map(repr, names))}\n{statement}")
    assert error.reason == "frozen"
    assert error.where.startswith(f"p/BUILD.py:{4 + statement.count(chr(10))}")
    assert "lib/defs.py" in error.message


def test_copies_and_what_a_macro_makes_are_not_frozen(targets: Targets) -> None:
    found = targets(
        f"{load(*map(repr, ('NAMES', 'fresh', 'grow')))}\n"
        "mine = list(NAMES) + ['z']\nmine.append('w')\nx = fresh()\nx.append(2)\ny = grow([])\ny.append(1)\n"
        "thing(name = 'a', words = mine, table = {'x': x, 'y': y})"
    )
    assert found["a"].attributes["words"] == ("x", "y", "z", "w")
    assert found["a"].attributes["table"] == {"x": [1, 2], "y": [1, 1]}


def test_a_macro_file_is_evaluated_once(make_workspace: MakeWorkspace) -> None:
    text = "from bkrules import load\nload('//lib:defs.py', 'both')\nboth('a')\n"
    space = make_workspace({"lib/BUILD.py": "", "lib/defs.py": MACROS, "p/BUILD.py": text, "q/BUILD.py": text})
    assert space.package("p") is not None
    Path(space.root, "lib/defs.py").write_text("syntax error")
    package = space.package("q")
    assert package is not None
    assert package.targets["a"].label == Label("q", "a")


def test_loading_knows_all_that_it_read(make_workspace: MakeWorkspace) -> None:
    text = "from bkrules import glob, load\nload('//lib:a.py', 'X')\nglob(['*.t', '**/*.t'], exclude = ['x*'])\n"
    space = make_workspace(
        {
            "lib/BUILD.py": "",
            "lib/a.py": "from bkrules import load\nload(':b.py', 'Y')\nX = Y\n",
            "lib/b.py": "Y = 1",
            "p/BUILD.py": text,
            "p/a.t": "",
            "p/d/b.t": "",
        }
    )
    package = space.package("p")
    assert package is not None
    assert sorted(space.reads) == sorted(package.record.files) == ["lib/a.py", "lib/b.py", "p/BUILD.py"]
    assert space.reads["lib/b.py"].size == 5
    assert [(one.package, one.include, one.exclude, names) for one, names in space.globs.items()] == [
        ("p", ("*.t", "**/*.t"), ("x*",), ("a.t", "d/b.t"))
    ]
    assert space.checks == {"lib/BUILD.py": True}
    assert space.package("none") is None
    assert space.checks["none/BUILD.py"] is False
    assert list(space.packages("p")) == ["p"]
    assert space.listings == {"p": ("p",)}


@pytest.mark.parametrize(("length", "reason"), [(60, ""), (70, "too-deep"), (3000, "too-deep")])
def test_a_chain_of_loads_has_an_end(length: int, reason: str, make_workspace: MakeWorkspace) -> None:
    files = {
        f"lib/m{number}.py": f"from bkrules import load\nload(':m{number + 1}.py', X0 = 'X')\nX = X0\n"
        for number in range(length)
    }
    text = "from bkrules import load, thing\nload('//lib:m0.py', 'X')\nthing(name = X)\n"
    space = make_workspace({"lib/BUILD.py": "", **files, f"lib/m{length}.py": "X = 'x'\n", "p/BUILD.py": text})
    if not reason:
        package = space.package("p")
        assert package is not None and "x" in package.targets
        return
    with pytest.raises(LoadError) as caught:
        space.package("p")
    assert caught.value.reason == reason


def test_many_ways_to_one_file_are_one(make_workspace: MakeWorkspace) -> None:
    """Each of these loads both of the next row: there are 2 ** 40 ways."""
    files = {
        f"lib/{side}{row}.py": "from bkrules import load\n"
        f"load(':a{row + 1}.py', A = 'X')\nload(':b{row + 1}.py', B = 'X')\nX = [A, B]\n"
        for row in range(40)
        for side in "ab"
    }
    ends = {"lib/a40.py": "X = 1\n", "lib/b40.py": "X = 2\n"}
    text = "from bkrules import load, thing\nload('//lib:a0.py', 'X')\nthing(name = str(len(X)))\n"
    package = make_workspace({"lib/BUILD.py": "", **files, **ends, "p/BUILD.py": text}).package("p")
    assert package is not None and "2" in package.targets
