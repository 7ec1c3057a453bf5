"""The tests of a Go package as cells: those of its functions, and of subtests, on bk's workers."""

from __future__ import annotations

import json
from typing import Any

from spaces import Space

BUILD = """
go_binary(name = "g_test", srcs = ["//g:a_test.go", "//g:a.go"], mod = "//g:go.mod", test = True)
go_test(name = "suite", binary = ":g_test", subtests = ["TestTree", "TestHar*"])
image_archive(name = "archive", image = ":busybox")
go_test(
    name = "own",
    binary = ":g_test",
    subtests = ["TestHarness"],
    harness = {"oci": "oci", "rootless": "oci-rootless", "containerd": "containerd"},
    env = {"ARCHIVE": "/src/targets/archive.tar", "GORACE": "history_size=2"},
    data = [":archive"],
)
go_test(name = "odd", binary = ":g_test", env = {"COUNT": 3})
go_test(name = "sets", binary = ":g_test", env = {"TEST_TARGET": "x"})
go_test(name = "none", binary = ":empty_test")
go_binary(name = "empty_test", srcs = ["//g/empty:b_test.go"], mod = "//g/empty:go.mod", test = True)
go_test(name = "command", binary = "//:runc")
test_matrix(name = "go", tests = [":suite"], workers = [":oci", ":rootless"], mirror = ":mirror")
test_matrix(name = "harness", tests = [":own"], workers = [":oci", ":rootless"], mirror = ":mirror")
test_matrix(name = "late", tests = [":own"], workers = [":oci", ":containerd"], mirror = ":mirror")
test_matrix(name = "wrong", tests = [":own"], workers = [":dockerd"], mirror = ":mirror")
test_matrix(name = "extra", tests = [":own"], workers = [":oci"], extra_workers = [":rootless"], mirror = ":mirror")
test_matrix(name = "not_text", tests = [":odd"], workers = [":oci"], mirror = ":mirror")
test_matrix(name = "of_bk", tests = [":sets"], workers = [":oci"], mirror = ":mirror")
test_matrix(name = "empty", tests = [":none"], workers = [":oci"], mirror = ":mirror")
test_matrix(name = "no_tests", tests = [":command"], workers = [":oci"], mirror = ":mirror")
"""
PANICS = """
go_binary(name = "g_test", srcs = ["//g:a_test.go"], mod = "//g:go.mod", test = True)
go_test(name = "suite", binary = ":g_test", subtests = ["*"])
test_matrix(name = "panics", tests = [":suite"], workers = [":oci"], mirror = ":mirror")
"""
SOURCE = "package g\n\n// Add adds.\nfunc Add(a, b int) int { return a + b }\n"
TESTS = """package g

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestAdd(t *testing.T) {
	if Add(1, 2) != 3 {
		t.Fatal("no")
	}
}

func TestFails(t *testing.T) { t.Error("as it must") }

func TestHost(t *testing.T) {
	out, err := exec.Command("buildctl", "debug", "workers").CombinedOutput()
	if err != nil || os.Getenv("BUILDKIT_HOST") == "" || len(os.Args) < 2 {
		t.Fatal(err, string(out))
	}
}

func TestTree(t *testing.T) {
	for _, name := range []string{"a b", "c.d", "e/f", "g[h]"} {
		t.Run(name, func(t *testing.T) {
			if name == "c.d" {
				t.Skip("no dots")
			}
		})
	}
}

// As BuildKit's harness: daemons are the tests' own, and without them nothing runs.
func TestHarness(t *testing.T) {
	workers := []string{"oci"}
	modes := []string{"min"}
	if os.Getenv("ARCHIVE") != "" { // as BuildKit's Dockerfile tests choose their frontends
		modes = append(modes, "max")
	}
	if os.Getenv("BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR") == "1000:1000" {
		out, err := exec.Command("sudo", "-u", "#1000", "-i", "--", "exec", "unshare", "-U", "true").CombinedOutput()
		if err != nil {
			t.Fatal(err, string(out))
		}
		workers = append(workers, "oci-rootless")
	}
	alone := func(t *testing.T) {
		if _, err := exec.LookPath("buildkitd"); err != nil {
			t.Fatal(err)
		}
	}
	for _, worker := range workers {
		for _, name := range []string{"TestOneNoParallel", "TestOtherNoParallel"} {
			if !t.Run(name+"/worker="+worker, alone) { // as the harness, which goes no further then
				t.FailNow()
			}
		}
		for _, mode := range modes {
			t.Run("TestBoot/worker="+worker+"/mode="+mode, func(t *testing.T) {
				t.Parallel()
				for _, name := range []string{"buildkitd", "buildctl", "registry"} {
					if _, err := exec.LookPath(name); err != nil {
						t.Fatal(err)
					}
				}
				if host := os.Getenv("BUILDKIT_HOST"); host != "" {
					t.Fatal(host)
				}
				if options := os.Getenv("GORACE"); options != "halt_on_error=1 history_size=2" {
					t.Fatal(options)
				}
				outer, err := net.InterfaceByName("bk0")
				if err != nil || outer.Flags&net.FlagUp == 0 {
					t.Fatal(err, outer)
				}
				if addresses, err := outer.Addrs(); err != nil || addresses[0].String() != "198.51.100.1/24" {
					t.Fatal(err, addresses)
				}
				archive, err := os.ReadFile(os.Getenv("ARCHIVE"))
				if err != nil || !strings.HasPrefix(string(archive), "blobs/sha256/") {
					t.Fatal(err)
				}
				if err := os.WriteFile(os.Getenv("BUILDKIT_REGISTRY_MIRROR_DIR")+"/data/docker/new", archive, 0o644); err != nil {
					t.Fatal(err)
				}
				repository := "/data/docker/registry/v2/repositories/library/busybox"
				tags, err := os.ReadDir(os.Getenv("BUILDKIT_REGISTRY_MIRROR_DIR") + repository + "/_manifests/tags")
				if err != nil || len(tags) != 2 {
					t.Fatal(err, tags)
				}
				if worker == "oci-rootless" {
					out, err := exec.Command("sudo", "-u", "#1000", "-i", "--", "exec", "buildctl", "--version").CombinedOutput()
					if err != nil || !strings.Contains(string(out), "v0.34") {
						t.Fatal(err, string(out))
					}
				}
			})
		}
	}
	if os.Getenv("ARCHIVE") != "" && len(workers) == 1 {
		t.Run("TestLate/worker=containerd", alone)
	}
}
"""


def cells(space: Space, matrix: str) -> dict[str, dict[str, Any]]:
    report = json.loads((space.root / f"bk-out/targets/{matrix}/report.json").read_text())
    return {cell["name"]: cell for cell in report["cells"]}


LISTED_IN_PART = """package g

import "testing"

func TestP(t *testing.T) {
	t.Run("a", func(t *testing.T) { panic("no daemon") })
	t.Run("b", func(t *testing.T) {})
}
"""
LISTED_WHOLE = """package g

import (
	"os"
	"testing"
)

func TestP(t *testing.T) {
	for _, name := range []string{"a", "b/c"} {
		t.Run(name, func(sub *testing.T) {
			sub.Parallel()
			sub.Run("deep/"+name, func(inner *testing.T) {
				if os.Getenv("BUILDKIT_HOST") == "" {
					t.FailNow()
				}
			})
		})
	}
}
"""


def declare(space: Space, targets: str) -> None:
    """Add targets to the package of the workers, and a Go module without files."""
    build = space.root / "targets/BUILD.py"
    imports = ", go_binary, go_test, image_archive, test_matrix, worker"
    build.write_text(build.read_text().replace(", worker", imports, 1) + targets)
    space.write("g/BUILD.py", "")
    space.write("g/go.mod", "module example.com/g\n\ngo 1.25\n")


def test_a_binary_that_does_not_list_all_of_its_subtests(tools: Space) -> None:
    declare(tools, PANICS)
    tools.write("g/a_test.go", LISTED_IN_PART)

    done = tools.bk("test", "//targets:panics")

    assert done.returncode == 1
    assert "ended with 2 while it listed the subtests of TestP, so some may be missing" in done.stderr


def test_a_panic_after_all_subtests_are_listed(tools: Space) -> None:
    """As BuildKit's harness without a registry: a parallel subtest fails its parent, which ends the binary."""
    declare(tools, PANICS)
    tools.write("g/a_test.go", LISTED_WHOLE)

    done = tools.bk("test", "//targets:panics")

    assert done.returncode == 0, done.stdout + done.stderr
    assert cells(tools, "panics").keys() == {"TestP/a/worker=oci", "TestP/b/c/worker=oci"}


def test_go_tests_are_cells(tools: Space) -> None:
    declare(tools, BUILD)
    tools.write("g/a.go", SOURCE)
    tools.write("g/a_test.go", TESTS)
    tools.write("g/empty/BUILD.py", "")
    tools.write("g/empty/go.mod", "module example.com/empty\n\ngo 1.25\n")
    tools.write("g/empty/b_test.go", "package empty\n")

    done = tools.bk("test", "//targets:go", "//targets:harness", "--keep_going")

    assert done.returncode == 3, done.stdout + done.stderr
    assert "  ListGoTests //targets:suite\n" in done.stderr
    phases = next(line for line in done.stdout.splitlines() if line.startswith("Phases: "))
    assert {"loading", "analysis", "GoBuild", "ListGoTests", "TestCell"} <= set(phases.split()[1::2])
    found = cells(tools, "go")
    trees = ("TestTree/a_b", "TestTree/c.d", "TestTree/e/f", "TestTree/g[h]")
    solos = ("TestHarness/TestOneNoParallel/worker=oci", "TestHarness/TestOtherNoParallel/worker=oci")
    boots = ("TestHarness/TestBoot/worker=oci/mode=min",)
    names = ("TestAdd", "TestFails", "TestHost", *trees, *solos, *boots)
    assert found.keys() == {f"{name}/worker={worker}" for name in names for worker in ("oci", "rootless")}
    statuses = {name: (cell["status"], cell["reason"]) for name, cell in found.items() if cell["worker"] == "rootless"}
    assert statuses.pop("TestFails/worker=rootless") == (
        "failed",
        "exit status 1; 1 of 1 cases failed: TestFails (as it must)",
    )
    assert statuses.pop("TestTree/c.d/worker=rootless") == ("skipped", "no dots")
    for name in boots:  # bk started a daemon, and there is no mirror in a folder
        assert statuses.pop(f"{name}/worker=rootless")[0] == "failed"
    assert {status for status, _ in statuses.values()} == {"passed"}

    own = cells(tools, "harness")
    for test in ("TestOneNoParallel", "TestOtherNoParallel"):
        assert {own[f"TestHarness/{test}/worker={worker}"]["status"] for worker in ("oci", "rootless")} == {"passed"}
    # Without tools, the binary does not list the rootless worker, so all tests of others are expected there.
    assert "the binary ran no test" in own["TestHarness/TestLate/worker=rootless"]["reason"]
    assert "TestHarness/TestLate/worker=oci" not in own
    late = tools.bk("test", "//targets:late", "--test_filter=*/TestLate/*")
    assert late.returncode == 0, late.stdout + late.stderr
    assert cells(tools, "late").keys() == {"TestHarness/TestLate/worker=containerd"}
    boot = {name: cell for name, cell in own.items() if "TestBoot" in name}
    assert boot.keys() == {
        f"TestHarness/TestBoot/worker={worker}/mode={mode}" for worker in ("oci", "rootless") for mode in ("min", "max")
    }
    assert [cell["reason"] for cell in boot.values()] == [None] * 4
    assert boot["TestHarness/TestBoot/worker=rootless/mode=max"]["axes"] == {"mode": "max"}

    tools.write("g/a.go", SOURCE.replace("adds", "sums"))  # a comment, which no byte of the binary shows
    again = tools.bk("test", "//targets:go", "--keep_going")

    assert "(16 cached, 4 not)" in again.stdout  # those that failed

    tools.write("g/a_test.go", TESTS.replace('t.Fatal("no")', 't.Log("lines move")\n\t\tt.Fatal("no")'))
    edited = tools.bk("test", "//targets:go", "--keep_going")

    assert "(12 cached, 8 not)" in edited.stdout
    cell = "//targets:go[TestHost/worker=oci]"
    why = tools.bk("why", cell, "--json", "--disk_cache", str(tools.cache))
    [told] = json.loads(why.stdout)
    assert told["whole_binary"] == "it uses os.Args (a_test.go:22)"
    assert "it ran in the last build: input/tools/g_test was " in told["why"]
    assert told["why"].endswith("; the key has the whole binary: it uses os.Args (a_test.go:22)")
    sums = tools.bk("why", "//targets:go[TestTree/a_b/worker=oci]", "--json", "--disk_cache", str(tools.cache))
    assert [one["whole_binary"] for one in json.loads(sums.stdout)] == [None]

    for target, reason in (
        ("wrong", "//targets:own is on BuildKit's harness, and its 'harness' has no worker for 'dockerd-containerd'"),
        ("extra", "all 'tests' start their daemons themselves, on BuildKit's harness, so no cell has another worker"),
        ("not_text", "the variable 'COUNT' must be a string, but is 3"),
        ("of_bk", "'TEST_TARGET' is a variable that bk sets"),
        ("empty", "//targets:none: empty_test has no test function"),
        ("no_tests", "//targets:command: runc failed with exit status 1"),
    ):
        done = tools.bk("test", f"//targets:{target}")
        assert done.returncode == 1
        assert reason in done.stderr
