"""A Go module of the workspace is built as Go builds it: packages, embedded files, nested modules, vendored ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import partial

import pytest
from spaces import Space
from terminals import Terminal

from bkrules.rules.go_platforms import PLATFORMS
from bkrules.runners.go import COUNT, COUNTED, traced

GO = "go 1.24\n"
MACH_O_OF_ARM64 = bytes.fromhex("cffaedfe0c000001")
FILES = {
    "m/go.mod": f"module example.test/m\n\n{GO}",
    "m/a/x.go": 'package a\n\nconst Word = "from a"\n',
    "m/b/x.go": 'package b\n\nimport _ "embed"\n\n//go:embed word.txt\nvar Word string\n',
    "m/b/word.txt": "from b",
    "m/cmd/it/main.go": (
        'package main\n\nimport (\n\t"fmt"\n\n\t"example.test/m/a"\n\t"example.test/m/b"\n)\n\n'
        "func main() { fmt.Println(a.Word, b.Word) }\n"
    ),
    # below what it needs, as the module of the commands of stargz-snapshotter is
    "m/tool/go.mod": (
        f"module example.test/tool\n\n{GO}\nrequire example.test/m v0.0.0\n\nreplace example.test/m => ../\n"
    ),
    "m/tool/main.go": 'package main\n\nimport "example.test/m/a"\n\nfunc main() { println(a.Word + ", by a tool") }\n',
    "v/go.mod": f"module example.test/v\n\n{GO}\nrequire example.test/lib v1.0.0\n",
    "v/main.go": 'package main\n\nimport "example.test/lib"\n\nfunc main() { println(lib.Word) }\n',
    "v/vendor/modules.txt": "# example.test/lib v1.0.0\n## explicit\nexample.test/lib\n",
    "m/b/x_test.go": 'package b\n\nimport "testing"\n\nfunc TestWord(t *testing.T) { t.Log("tested", Word) }\n',
    "w/go.work": f"{GO}\nuse (\n\t.\n\t./lib\n)\n",
    "w/go.mod": f"module example.test/w\n\n{GO}",
    "w/main.go": 'package main\n\nimport "example.test/wlib"\n\nfunc main() { println(wlib.Word) }\n',
    "w/lib/go.mod": f"module example.test/wlib\n\n{GO}",
    "w/lib/lib.go": 'package wlib\n\nconst Word = "from a workspace"\n',
    "v/vendor/example.test/lib/lib.go": 'package lib\n\nconst Word = "from a vendored module"\n',
}
BUILDS = {
    "w/BUILD.py": """from bkrules import go_binary, glob
go_binary(name = "w", mod = "go.mod", srcs = glob(["**/*.go", "go.work", "lib/go.mod"]))
""",
    "m/BUILD.py": """from bkrules import go_binary, glob
FILES = glob(["**/*.go", "**/*.mod", "**/*.txt"], exclude = ["go.mod", "tool/go.mod"])
go_binary(name = "it", mod = "go.mod", srcs = FILES, package = "cmd/it")
go_binary(name = "tool", mod = "tool/go.mod", srcs = FILES + ["go.mod"])
go_binary(name = "mac", mod = "tool/go.mod", srcs = FILES + ["go.mod"], goos = "darwin", goarch = "arm64")
go_binary(name = "tests", mod = "go.mod", srcs = FILES, package = "b", test = True)
""",
    "v/BUILD.py": """from bkrules import go_binary, glob
go_binary(name = "v", mod = "go.mod", srcs = glob(["**/*.go", "vendor/modules.txt"]))
""",
}


@pytest.fixture
def modules(tools: Space) -> Space:
    """A workspace with these modules."""
    for path, text in (FILES | BUILDS).items():
        tools.write(path, text)
    return tools


def output(space: Space, path: str, *words: str) -> str:
    done = subprocess.run([space.root / "bk-out" / path, *words], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip()


def test_a_terminal_shows_how_many_packages_are_compiled(modules: Space) -> None:
    """Of all that Go compiles: those that the listing counts are those that the trace of the build has."""
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    with Terminal(modules.command("build", "//m:it"), modules.root, environment, columns=120) as terminal:
        assert terminal.end() == 0, terminal.shown
    assert re.search(r"GoBuild //m:it \((\d+/\d+ packages|links)\)", terminal.shown), terminal.shown

    (go,) = (modules.cache / "toolchains").glob("*/go/bin/go")
    own = {**os.environ, "GOCACHE": str(modules.root / "gocache"), "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    run = partial(subprocess.run, cwd=modules.root / "m", env=own, capture_output=True, text=True, check=True)
    listed = run([go, "list", "-deps", "-f", COUNT, "./cmd/it"]).stdout.splitlines().count(COUNTED)
    trace, binary = modules.root / "trace.json", modules.root / "it"
    run([go, *traced(("build", "-o", str(binary), "./cmd/it"), trace)])
    plain = binary.read_bytes()
    assert listed > 40
    assert len(set(re.findall(r'action \(build (?!check)([^"]*)\)","ph":"E"', trace.read_text()))) == listed
    run([go, "build", "-o", str(binary), "./cmd/it"])
    assert binary.read_bytes() == plain, "a trace changes nothing of what is built"


def test_modules_of_the_workspace_are_built(modules: Space) -> None:
    done = modules.bk("build", "//m:it", "//m:tool", "//m:mac", "//m:tests", "//v", "//w")

    assert done.returncode == 0, done.stdout + done.stderr
    assert output(modules, "m/it/it") == "from a from b"
    assert output(modules, "m/tool/tool") == "from a, by a tool"
    assert (modules.root / "bk-out/m/mac/mac").read_bytes()[:8] == MACH_O_OF_ARM64
    assert output(modules, "v/v/v") == "from a vendored module"
    assert output(modules, "w/w/w") == "from a workspace"
    assert "tested from b" in output(modules, "m/tests/tests", "-test.v")

    modules.write("m/b/word.txt", "from elsewhere")
    again = modules.bk("build", "//m:it", "//m:tool", "//v")
    assert again.returncode == 0, again.stdout + again.stderr
    assert output(modules, "m/it/it") == "from a from elsewhere"


def test_the_platforms_are_those_of_the_pinned_go(modules: Space) -> None:
    done = modules.bk("go", "tool", "dist", "list")

    listed = {tuple(line.split("/")) for line in done.stdout.split() if not line.startswith(("android/", "ios/"))}
    assert listed == {(system, one) for system, architectures in PLATFORMS.items() for one in architectures}


def test_a_module_without_one_of_its_files_says_what_go_says(modules: Space) -> None:
    (modules.root / "m/a/x.go").unlink()

    done = modules.bk("build", "//m:it")

    assert done.returncode == 1
    (error,) = (line for line in done.stdout.splitlines() if "cmd/it/main.go:" in line)
    assert "example.test/m/a" in error
    assert "| .\n" not in done.stdout, "the lines by which bk counts the packages"


RACE = """package main

func main() {
	done := make(chan bool)
	shared := 0
	go func() { shared++; done <- true }()
	shared++
	<-done
}
"""
RACY_DAEMON = """package main

import (
	"net"
	"os"
)

// Says that it is ready, and has a race once a client comes.
func main() {
	notify, _ := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	notify.Write([]byte("READY=1"))
	listener, _ := net.FileListener(os.NewFile(3, "listener"))
	listener.Accept()
	done := make(chan bool)
	shared := 0
	go func() { shared++; done <- true }()
	shared++
	<-done
	select {}
}
"""
RACY_MATRIX = """
worker(name = "racy", plugin = "oci", id = "racy", tools = {"buildkitd": "//r"})
test_matrix(name = "racy_matrix", tests = ["//t:test_small.py"], workers = [":racy"], mirror = ":mirror")
"""
PINNED = """from bkrules import c_toolchain, go_binary
c_toolchain(
    name = "c", version = "0.17.0",
    sha256 = {"linux-x86_64": "97079827064a7492cce5541ceb438ae8003ce1e54e399676da2d62fb7a5dc08b"},
)
go_binary(name = "r", mod = "go.mod", srcs = ["main.go"], cc = ":c", race = True)
"""


@pytest.mark.soak
def test_a_pinned_compiler_builds_a_race_detector(tools: Space) -> None:
    tools.write("r/go.mod", f"module example.test/r\n\n{GO}")
    tools.write("r/main.go", RACE)
    tools.write("r/BUILD.py", PINNED)

    done = tools.bk("build", "//r")

    assert done.returncode == 0, done.stdout + done.stderr
    ran = subprocess.run([tools.root / "bk-out/r/r/r"], capture_output=True, text=True, check=False)
    assert ran.returncode == 66
    assert "WARNING: DATA RACE" in ran.stderr

    tools.write("r/main.go", RACY_DAEMON)
    tools.write("t/BUILD.py", "")
    tools.write("t/test_small.py", "def test_it(sandbox):\n    sandbox.run('debug workers')\n")
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", test_matrix, worker", 1) + RACY_MATRIX)

    done = tools.bk("test", "//targets:racy_matrix")

    assert done.returncode == 3, done.stdout + done.stderr
    (cell,) = json.loads((tools.root / "bk-out/targets/racy_matrix/report.json").read_text())["cells"]
    assert cell["class"] == "test"
    assert cell["reason"].startswith("a data race in buildkitd: main.main")
    assert "buildkitd ended during the test: exit status 66" in cell["reason"]
    assert len(cell["attempts"]) == 1
