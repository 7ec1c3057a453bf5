"""What the tests of a Go package reach, by bk's program in Go: an edit changes the digests of the tests that it can change."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

import bkrules
from bkrules.rules.go import REACH, REACH_FILES
from bkrules.runners.go_reach import ALONE

Reach = Callable[..., dict[str, str]]
PACKAGE = """package g

// Add adds.
func Add(a, b int) int { return a + b }

type Shape struct{ side int }
"""
TESTS = """package g

import (
	"strings"
	"testing"
)

func TestA(t *testing.T) {
	if helper(1) != 2 { // is it?
		t.Fatal("no")
	}
}

func helper(n int) int { return Add(n, step) }

const step = 1

type box struct{ thing }
type thing struct{}

func (thing) Name() string { return strings.ToLower("X") }

func TestB(t *testing.T) {
	var it interface{ Name() string } = box{}
	t.Log(it.Name(), count)
}

var count int

var table = map[string]int{"a": 1}

func TestC(t *testing.T) { t.Log("c") }
"""
OUTSIDE = """package g_test

import (
	"testing"

	"example.com/g"
)

func TestOutside(t *testing.T) { t.Log(g.Exported(1), g.Add(1, 2)) }

func TestAlone(t *testing.T) {}
"""
EXPORTS = "package g\n\nfunc Exported(n int) int { return helper(n) }\n\nfunc (s Shape) Side() int { return s.side }\n"
ALL = {"TestA", "TestB", "TestC", "TestOutside", "TestAlone"}


@pytest.fixture(scope="module")
def program(built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, str]]:
    """The pinned Go, the program, and the environment in which both run."""
    go = next(iter(sorted(built.glob("toolchains/*/go/bin/go"))))
    folder = tmp_path_factory.mktemp("reach")
    sources = [str(Path(bkrules.__file__).parent / REACH / name) for name in REACH_FILES]
    caches = {"GOCACHE": str(built / "go/build"), "GOMODCACHE": str(built / "go/mod"), "HOME": str(folder)}
    environment = {"PATH": f"{go.parent}:{os.environ['PATH']}", **caches, **ALONE, "GOTOOLCHAIN": "local"}
    subprocess.run([go, "build", "-o", folder / "reach", *sources], env=environment, cwd=folder, check=True)
    own = {**environment, "GO111MODULE": "on", "GOFLAGS": "-mod=readonly", "GOPROXY": "off"}
    return str(go), folder / "reach", own


@pytest.fixture
def reach(program: tuple[str, Path, dict[str, str]], tmp_path: Path) -> Reach:
    """Returns the digests of the tests of a package with these files; `said` has what the program says, `reasons` why keys
    have the whole binary.
    """
    go, binary, environment = program
    count = 0

    def run(files: dict[str, str], said: list[str] | None = None, reasons: set[str] | None = None) -> dict[str, str]:
        nonlocal count
        count += 1
        root, out = tmp_path / f"module-{count}", tmp_path / f"out-{count}"
        out.mkdir()
        for name, text in {"go.mod": "module example.com/g\n\ngo 1.25\n", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        command = [str(binary), str(out), "salt", go, "-trimpath", "-buildvcs=false", "."]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if said is not None:
            said.append(done.stdout)
        if reasons is not None:
            reasons |= {unquote(path.name) for path in out.rglob("whole*")}
        found = {path.parent.name: path.name for path in out.glob("*/*")}
        return {name: digest for name, digest in found.items() if not digest.startswith("whole ")}

    return run


def base(**changed: str) -> dict[str, str]:
    names = {"package": "a.go", "tests": "a_test.go", "outside": "b_test.go", "exports": "export_test.go"}
    texts = {"package": PACKAGE, "tests": TESTS, "outside": OUTSIDE, "exports": EXPORTS, **changed}
    return {names.get(name, name): text for name, text in texts.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_an_edit_changes_the_tests_that_reach_it(reach: Reach) -> None:
    before = reach(base())
    assert before.keys() == ALL

    for old, new, tests in (
        ("is it?", "indeed?", set()),
        ('"c"', '"d"', {"TestC"}),
        ('t.Log("c")', 't.Log("c");\n\n\n\tt.Log("c")', {"TestC"}),
        ("const step = 1", "const step = 2", {"TestA", "TestOutside"}),
        ('ToLower("X")', 'ToUpper("x")', {"TestB"}),
        ("func (thing) Name", 'func (box) Name() string { return "" }\n\nfunc (thing) Name', {"TestB"}),
        ("var count int", "var count int8", {"TestB"}),
        ('{"a": 1}', '{"a": 2}', ALL),
        ("func TestC", "func init() {}\n\nfunc TestC", ALL),
        ("func TestC", "func TestD(t *testing.T) {}\n\nfunc TestC", {"TestD"}),
        ("func TestC", "func TestMain(m *testing.M) { m.Run() }\n\nfunc TestC", ALL),
    ):
        assert TESTS.count(old) == 1
        assert changed(before, reach(base(tests=TESTS.replace(old, new)))) == tests, new
    later = 'package g\n\nimport "testing"\n\nfunc TestLater(t *testing.T) {}\n'
    edits: tuple[tuple[dict[str, str], set[str]], ...] = (
        (base(package=PACKAGE.replace("a + b", "b + a")), ALL),
        (base(package=PACKAGE.replace("adds", "sums")), set()),
        (base(exports=EXPORTS.replace("helper(n)", "helper(n + 1)")), {"TestOutside"}),
        (base(exports=EXPORTS.replace("s.side", "s.side + 1")), ALL),  # a method of a type of the package
        (base(**{"later_test.go": later}), {"TestLater"}),
        (base(outside=OUTSIDE.replace("(1, 2)", "(2, 1)")), {"TestOutside"}),
    )
    for files, tests in edits:
        assert changed(before, reach(files)) == tests


def test_what_declarations_do_not_show(reach: Reach) -> None:
    run = 'import (\n\t"os"\n\t"os/exec"\n\t"testing"\n)\n\nfunc TestRun(t *testing.T) { exec.Command(%s).Run() }\n'
    failed = "the program that looks for less has failed; the log of the build has its output"
    for text, kept, reason in (
        (run % 'os.Args[0], "-x"', ALL, "it uses os.Args (more_test.go:9)"),
        (run % '"/proc/self/exe", os.Getenv("X")', ALL, 'it has the text "/proc/self/exe" (more_test.go:9)'),
        ('import "flag"\n\nfunc init() { flag.Set("v", "1") }\n', set(), "it uses flag.Set (more_test.go:5)"),
        (
            'import _ "unsafe"\n\n//go:linkname other runtime.other\nfunc other()\n',
            set(),
            "more_test.go:5 has the directive //go:linkname",
        ),
        ('import "unsafe"\n\nvar _ unsafe.Pointer\n', set(), 'more_test.go:3 imports "unsafe"'),
        ("//line other.go:1\nfunc other() {}\n", set(), "more_test.go:3 has the directive //line"),
        ("func other() { _ = undeclared }\n", set(), failed),
        ("func TestAlone(t *testing.T) {}\n", ALL - {"TestAlone"}, "two tests of this name"),
    ):
        reasons: set[str] = set()
        more = text if "testing" not in text or "import" in text else f'import "testing"\n\n{text}'
        assert reach(base(**{"more_test.go": f"package g\n\n{more}"}), reasons=reasons).keys() == kept, text
        assert len(reasons) == 1
        assert reasons.pop().endswith(reason)
    assert reach(base(**{"a.s": "TEXT ·x(SB), 4, $0\n\tRET\n"})).keys() == set()


def test_lines_count_where_code_asks_for_them(reach: Reach) -> None:
    asks = TESTS.replace('"strings"', '"runtime"\n\t"strings"').replace('t.Log("c")', "t.Log(runtime.Caller(0))")
    moved = asks.replace("func TestA", "var later int\n\nfunc TestA")

    assert changed(reach(base(tests=asks)), reach(base(tests=moved))) == {"TestC"}


def test_embedded_files_and_dependencies_count_as_a_whole(reach: Reach) -> None:
    imports = 'import (\n\t_ "embed"\n\n\t"example.com/g/dep"\n)\n'
    more = f"package g\n\n{imports}\n//go:embed data.txt\nvar data string\n\nvar _ = dep.Value\n"
    files = base(
        **{"c_test.go": more, "data.txt": "1", "dep/dep.go": "package dep\n\n// Value is one.\nconst Value = 1\n"}
    )
    before = reach(files)
    assert before.keys() == ALL

    assert changed(before, reach({**files, "data.txt": "2"})) == ALL
    assert changed(before, reach({**files, "dep/dep.go": files["dep/dep.go"].replace("= 1", "= 2")})) == ALL
    assert changed(before, reach({**files, "dep/dep.go": files["dep/dep.go"].replace("one", "two")})) == set()
    hostile = files["dep/dep.go"] + 'const Arguments = "-test.run=."\n'
    said: list[str] = []
    assert not reach({**files, "dep/dep.go": hostile}, said)
    assert said == [
        "every key has the whole binary: it depends on example.com/g/dep, which speaks of test.run: dep.go\n"
    ]


HARNESS = """package integration

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
)

type Sandbox interface{ Name() string }

type Test interface {
	Name() string
	Run(t *testing.T, sb Sandbox)
}

type testFunc struct {
	name string
	run  func(t *testing.T, sb Sandbox)
}

func (f testFunc) Name() string { return f.name }

func (f testFunc) Run(t *testing.T, sb Sandbox) { f.run(t, sb) }

func TestFuncs(funcs ...func(t *testing.T, sb Sandbox)) []Test {
	var tests []Test
	for _, f := range funcs {
		tests = append(tests, testFunc{name: getFunctionName(f), run: f})
	}
	return tests
}

type worker struct{ name string }

func (w worker) Name() string { return w.name }

func Run(t *testing.T, testCases []Test) {
	for _, br := range []worker{{"oci"}, {"containerd"}} {
		for _, tc := range testCases {
			fn := tc.Name()
			name := fn + "/worker=" + br.Name()
			t.Run(name, func(t *testing.T) { tc.Run(t, br) })
		}
	}
}

func getFunctionName(i any) string {
	fullname := runtime.FuncForPC(reflect.ValueOf(i).Pointer()).Name()
	dot := strings.LastIndex(fullname, ".") + 1
	return strings.Title(fullname[dot:]) //nolint:staticcheck // as the harness
}
"""
LISTS = """package g

import (
	"testing"

	"example.com/g/util/testutil/integration"
)

var first = []func(t *testing.T, sb integration.Sandbox){testOne, testTwo}

var second = integration.TestFuncs(testThree)

func TestIntegration(t *testing.T) {
	run(t, append(first, testFour)...)
	integration.Run(t, second)
}

func run(t *testing.T, funcs ...func(t *testing.T, sb integration.Sandbox)) {
	tests := integration.TestFuncs(funcs...)
	tests = append(tests, more()...)
	integration.Run(t, tests)
}

type special struct{ name string }

func (s special) Name() string { return s.name }

func (s special) Run(t *testing.T, sb integration.Sandbox) { t.Log("special") }

func more() (tests []integration.Test) {
	tests = append(tests, func() []integration.Test { return []integration.Test{special{"TestSpecial"}} }()...)
	return tests
}

func testOne(t *testing.T, sb integration.Sandbox) { common(t, sb, "one") }

func testTwo(t *testing.T, sb integration.Sandbox) { testOne(t, sb); common(t, sb, "two") }

func testThree(t *testing.T, sb integration.Sandbox) { t.Log("three") }

func testFour(t *testing.T, sb integration.Sandbox) { t.Log("four") }

func common(t *testing.T, sb integration.Sandbox, text string) { t.Log(sb.Name(), text) }
"""
FILES = {"l_test.go": LISTS, "util/testutil/integration/run.go": HARNESS}
ENTRY = "TestIntegration"
OTHER = f"{ENTRY}+"
"""The tests of other names than those of functions."""
LISTED = {OTHER, *(f"{ENTRY}+{name}" for name in ("TestOne", "TestTwo", "TestThree", "TestFour"))}


def test_the_harness_calls_the_functions_that_it_is_asked_for(reach: Reach) -> None:
    before = reach(FILES)
    assert before.keys() == {ENTRY, *LISTED}

    for old, new, names in (
        ('"one"', '"1"', {"TestOne", "TestTwo"}),
        ('"two"', '"2"', {"TestTwo"}),
        ('"three"', '"3"', {"TestThree"}),
        ('"four"', '"4"', {"TestFour"}),
        ("sb.Name(), text", "text", {"TestOne", "TestTwo"}),
    ):
        after = reach({**FILES, "l_test.go": LISTS.replace(old, new)})
        assert changed(before, after) == {ENTRY, *(f"{ENTRY}+{name}" for name in names)}, new
    for old, new in (("first = ", "first, _ = 1, "), ('"special"', '"other"'), ("integration.Run(t, second)", "")):
        after = reach({**FILES, "l_test.go": LISTS.replace(old, new)})
        assert changed(before, after) >= LISTED, new


def test_other_ways_to_call_a_test_of_the_harness(reach: Reach) -> None:
    """Each may call functions that have another name than the cell's, so their cells have the keys of the whole function."""
    for text in (
        "func helper(t *testing.T, sb integration.Sandbox) { first[0](t, sb) }",
        "func helper(t *testing.T, sb integration.Sandbox) { second[0].Run(t, sb) }",
        "func helper(t *testing.T, sb integration.Sandbox) { call := second[0].Run; call(t, sb) }",
        "func helper(t *testing.T, sb integration.Sandbox) { f := testOne; f(t, sb) }",
        'var table = map[string]func(*testing.T, integration.Sandbox){"a": testOne}',
        "var table = []struct{ f func(*testing.T, integration.Sandbox) }{{testOne}}",
        "var anything any = testOne",
        "var anything = []any{first}",
        "func each[T any](all []T, f func(T)) { for _, one := range all { f(one) } }\n\nfunc init() { each(first, nil) }",
        'func TestOther(t *testing.T) { t.Run("TestOne", func(t *testing.T) { integration.Run(t, second) }) }',
        'func TestOther(t *testing.T) { t.Run("TestOne", inner) }\n\nfunc inner(t *testing.T) { run(t) }',
        "var again = integration.Run",
        "var more2 = integration.TestFuncs(again)\n\nfunc again(t *testing.T, sb integration.Sandbox) { run(t) }",
    ):
        found = reach({**FILES, "l_test.go": f"{LISTS}\n{text}\n"})
        assert ENTRY in found, text
        assert not LISTED & found.keys(), text
    for old, new in (
        ("strings.Title(", "strings.ToUpper("),
        ("for _, br := range", "testCases[0].Run(t, worker{})\n\tfor _, br := range"),
    ):
        found = reach({**FILES, "util/testutil/integration/run.go": HARNESS.replace(old, new)})
        assert found.keys() == {ENTRY}, new


def test_names_that_stand_for_two_functions(reach: Reach) -> None:
    probe = "\nfunc %s(t *testing.T, sb integration.Sandbox) {}\n"
    both = LISTS.replace("testThree)", "testThree, probe, Probe)") + probe % "probe" + probe % "Probe"
    before = reach({**FILES, "l_test.go": both})
    assert before.keys() == {ENTRY, f"{ENTRY}+Probe", *LISTED}
    after = reach({**FILES, "l_test.go": both.replace("{}\n\nfunc Probe", "{ _ = 1 }\n\nfunc Probe")})
    assert changed(before, after) == {ENTRY, f"{ENTRY}+Probe"}
    more = both.replace('t.Log("four")', "os.Args = nil").replace("import (", 'import (\n\t"os"')
    assert reach({**FILES, "l_test.go": more}).keys() == {f"{ENTRY}+Probe", *LISTED} - {f"{ENTRY}+TestFour"}
