"""Loading is a pure function of the bytes: nothing around it changes the targets, and no bytes break or block it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bkrules.errors import LoadError
from bkrules.loading import meter
from bkrules.loading.loader import Loader, load
from bkrules.loading.package import Package
from bkrules.loading.sources import Sources
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Attr, Rule

RULE = Rule(
    "thing",
    "",
    {
        "words": Attr("strings", "", default=()),
        "table": Attr("dict", "", default={}),
        "size": Attr("count", "", default=1),
        "dep": Attr("label", ""),
        "by_name": Attr("label_dict", "", default={}),
    },
    lambda _context: (),
)
RULES = {"thing": RULE}
FIXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def targets(package: Package | None) -> list[object]:
    assert package is not None
    return [(str(one.label), list(one.attributes.items()), one.location) for one in package.targets.values()]


names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")  # what files and commands can hold
data = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.text(letters, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, max_size=3), inner, max_size=3),
    max_leaves=8,
)
calls = st.fixed_dictionaries(
    {},
    optional={
        "words": st.lists(st.text(letters, max_size=5), max_size=3),
        "table": st.dictionaries(st.text(letters, max_size=3), data, max_size=3),
        "size": st.integers(1, 5),
        "dep": names.map(":{}".format),
        "by_name": st.dictionaries(names, names, max_size=3),
    },
)
packages = st.dictionaries(names, calls, max_size=4)


def written(package: dict[str, dict[str, object]], order: Callable[[Sequence[str]], Sequence[str]] = tuple) -> str:
    lines = []
    for name, attributes in package.items():
        given = {"name": name, **attributes}
        lines.append(f"thing({', '.join(f'{key} = {given[key]!r}' for key in order(list(given)))})\n")
    return "from bkrules import thing\n" + "".join(lines)


@FIXED
@given(packages)
def test_what_is_written_is_what_is_loaded(package: dict[str, dict[str, object]]) -> None:
    found = load(written(package).encode(), "p/BUILD.py", "p", RULES)
    assert list(found.targets) == list(package)
    for name, attributes in package.items():
        loaded = found.targets[name].attributes
        for key in ("table", "size"):
            assert loaded[key] == attributes.get(key, loaded[key])
        assert list(loaded["words"]) == attributes.get("words", [])
        assert loaded["dep"] == (Label("p", str(attributes["dep"])[1:]) if "dep" in attributes else None)


@FIXED
@given(packages, st.randoms())
def test_the_order_of_arguments_does_not_matter(package: dict[str, dict[str, object]], random: object) -> None:
    def shuffled(keys: Sequence[str]) -> Sequence[str]:
        return sorted(keys, key=lambda _key: random.random())  # type: ignore[attr-defined]  # hypothesis hides its class

    other = load(written(package, shuffled).encode(), "p/BUILD.py", "p", RULES)
    assert targets(other) == targets(load(written(package).encode(), "p/BUILD.py", "p", RULES))


@FIXED
@given(package=packages)
def test_the_cache_gives_back_what_was_evaluated(
    package: dict[str, dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("cached")
    (root / "WORKSPACE.py").write_text(written(package))
    found = []
    for _ in range(2):
        workspace = Workspace(str(root), RULES, str(root / "state"))
        found.append(targets(workspace.package("")))
        workspace.save()
    assert found[0] == found[1]


PROGRAM = """
import json, sys
from bkrules.errors import LoadError
from bkrules.loading.workspace import Workspace
from bkrules.model.rule import Attr, Rule

rule = Rule("thing", "", {"words": Attr("strings", "", default=()), "table": Attr("dict", "", default={})}, lambda _: ())
workspace = Workspace(sys.argv[1], {"thing": rule})
found = {}
for name in sys.argv[2:]:
    try:
        found[name] = [(str(t.label), repr(t.attributes), str(t.location)) for t in workspace.package(name).targets.values()]
    except LoadError as error:
        found[name] = str(error)
print(json.dumps([found, {path: str(one) for path, one in sorted(workspace.reads.items())}], sort_keys=True))
"""
TREE = {
    "WORKSPACE.py": "",
    "lib/BUILD.py": "",
    "lib/defs.py": (
        "from bkrules import glob, thing\n"
        "def all_of(name, **more):\n"
        "  thing(name = name, words = glob(['**/*.txt']) + sorted(more), table = {k: more[k] for k in more})\n"
    ),
    "p/BUILD.py": "from bkrules import load\nload('//lib:defs.py', 'all_of')\nall_of('x', b = 1, a = 'ä')\n",
    "q/BUILD.py": "from bkrules import load\nload('//lib:defs.py', make = 'all_of')\n[make('y%d' % n) for n in range(3)]\n",
    "bad/BUILD.py": "\n{'a': 1}[len]\n",
    "worse/BUILD.py": "x = 1\nx = str(lambda: 0)\n",
}


def test_nothing_around_it_changes_what_is_loaded(tmp_path: Path) -> None:
    def run(root: Path, *order: str, cwd: str = "/", umask: int = 0o022, clock: int = 0, **environment: str) -> object:
        for position, name in enumerate(["z.txt", "a.txt", "m/ö.txt", "m/b.txt"][:: -1 if clock else 1]):
            for package in ("p", "q"):
                file = root / package / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
                os.utime(file, (clock + position, clock + position))
        for path, text in TREE.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        done = subprocess.run(
            [sys.executable, "-X", "utf8=1", "-c", PROGRAM, str(root), *order],
            cwd=cwd,
            umask=umask,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    order = ("p", "q", "bad", "worse")
    first = run(tmp_path / "one", *order, PYTHONHASHSEED="1", LANG="C", TZ="UTC")
    assert first == run(
        tmp_path / "a longer path/two",
        *reversed(order),
        cwd=str(tmp_path),
        umask=0o077,
        clock=1_000_000,
        PYTHONHASHSEED="2",
        LANG="tr_TR.UTF-8",
        LC_ALL="C.UTF-8",
        TZ="Asia/Kathmandu",
        HOME="/nowhere",
        PYTHONOPTIMIZE="2",
        PYTHONWARNINGS="error",
    )
    assert "y2" in json.dumps(first)


# Random build files: statements and expressions that often mean something, and often do not.

variables = st.sampled_from(["a", "b", "c", "thing", "len", "str", "map", "_d", "__e", "open", "load", "glob"])
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "<<", ">>", "|", "&", "^", "@", "==", "<", "in", "and", "or", "is"]
expressions = st.recursive(
    st.one_of(
        variables,
        st.integers(-(10**6), 10**6).map(str),
        st.text(max_size=4).map(repr),
        st.sampled_from(["[]", "{}", "()", "None", "1.5", "b'x'", "10**9", "'%s%d'", "..."]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(" ".join),
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.tuples(inner, inner).map(lambda parts: f"{{{parts[0]}: {parts[1]}, **{parts[1]}}}"),
        st.tuples(variables, inner, inner).map(lambda parts: f"{parts[0]}({parts[1]}, {parts[2]})"),
        st.tuples(variables, inner).map(lambda parts: f"{parts[0]}(*{parts[1]})"),
        st.tuples(inner, st.sampled_from(["append", "extend", "join", "replace", "format", "keys", "ljust", "sort"]), inner)
        .map(lambda parts: f"({parts[0]}).{parts[1]}({parts[2]})"),
        st.tuples(inner, variables, inner).map(lambda parts: f"[{parts[0]} for {parts[1]} in {parts[2]}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}:]"),
        inner.map(lambda one: f"(lambda a: {one})"),
        inner.map(lambda one: f"thing(name = {one}, words = {one})"),
        inner.map(lambda one: "f'{" + one.replace("'", '"').replace("\\", "") + "}'"),
    ),
    max_leaves=6,
)  # fmt: skip
simple = st.one_of(
    st.tuples(variables, expressions).map(" = ".join),
    st.tuples(variables, st.sampled_from(["+=", "*=", "|=", "-=", "%="]), expressions).map(" ".join),
    st.tuples(variables, expressions, expressions).map(lambda parts: f"{parts[0]}[{parts[1]}] = {parts[2]}"),
    expressions,
    st.sampled_from(["pass", "return", "break", "import os", "raise a", "del a", "global a", "yield", "await a"]),
)
statements = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.tuples(variables, expressions, inner).map(lambda parts: f"for {parts[0]} in {parts[1]}:\n{_in(parts[2])}"),
        st.tuples(expressions, inner).map(lambda parts: f"if {parts[0]}:\n{_in(parts[1])}"),
        st.tuples(variables, inner).map(lambda parts: f"def {parts[0]}(a = [], *b, c = 1):\n{_in(parts[1])}"),
        inner.map(lambda one: f"while True:\n{_in(one)}"),
        st.tuples(inner, inner).map("\n".join),
    ),
    max_leaves=5,
)


def _in(block: str) -> str:
    return "\n".join(f"  {line}" for line in block.split("\n"))


def loads_or_says_why(text: bytes) -> None:
    began = time.monotonic()
    try:
        Loader(RULES, Sources(None)).package(text, Package("p", "p/BUILD.py"))
    except LoadError as error:
        assert error.where.startswith("p/BUILD.py:")
        str(error).encode(errors="surrogatepass")
    assert time.monotonic() - began < 20


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "STEPS", 100_000)


@settings(FIXED, max_examples=400)
@given(st.lists(statements, max_size=6))
@example(["a = [0]", "for b in a: a.append(b)"])
@example(["a = [0]", "a += map(str, a)"])
@example(["a = [1]", "a.extend([a for b in a])", "str(a)"])
def test_a_random_build_file_loads_or_says_why(lines: list[str]) -> None:
    head = "from bkrules import glob, load, thing\na = [1, 2]\nb = {'x': a}\nc = 'text'\n"
    loads_or_says_why((head + "\n".join(lines) + "\n").encode(errors="surrogatepass"))


@FIXED
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
def test_random_bytes_load_or_say_why(text: bytes) -> None:
    loads_or_says_why(text)
