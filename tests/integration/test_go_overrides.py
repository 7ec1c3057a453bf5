"""A folder in place of a Go module: what is of the module, and what depends on it, is built from there."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from spaces import Space, wait_for

GO = "go 1.24\n"
LIB = "example.test/lib"
CHECKOUT = {
    "go.mod": f"module {LIB} // the root\n\n{GO}",
    "lib.go": 'package lib\n\nimport _ "embed"\n\n//go:embed word.txt\nvar Word string\n',
    "word.txt": "from the checkout",
    "lib_test.go": 'package lib\n\nimport "testing"\n\nfunc TestWord(t *testing.T) { t.Log(Word) }\n',
    "cmd/go.mod": (
        f"module {LIB}/cmd\n\n{GO}\nrequire (\n\t{LIB} v0.0.0\n\t{LIB}/part v0.0.0\n)\n\n"
        f"replace (\n\t{LIB} => ../\n\t{LIB}/part => ../part\n)\n"
    ),
    "cmd/it/main.go": (
        f'package main\n\nimport (\n\t"{LIB}"\n\t"{LIB}/part"\n)\n\nfunc main() {{ println(lib.Word, part.Word) }}\n'
    ),
    "part/go.mod": f"module {LIB}/part\n\n{GO}",
    "part/part.go": 'package part\n\nconst Word = "and its part"\n',
    "vendor/go.mod": "module example.test/ignored\n",
    ".git/HEAD": "ref: refs/heads/main\n",
}
WORKSPACE = {
    # built of the module
    "pins/go.mod": f"module pins.test/it\n\n{GO}\nrequire {LIB}/cmd v1.0.0\n",
    "pins/go.sum": "",
    # depends on it, and says so by another replacement too
    "user/go.mod": f"module user.test/it\n\n{GO}\nrequire {LIB} v1.2.3\n\nreplace {LIB} => {LIB} v1.0.0\n",
    "user/main.go": (
        f'package main\n\nimport (\n\t"os"\n\n\t"{LIB}"\n)\n\n'
        "func main() { os.WriteFile(os.Args[1], []byte(lib.Word), 0o644) }\n"
    ),
    "BUILD.py": f"""from bkrules import genrule, go_binary
go_binary(name = "it", mod = "pins/go.mod", module = "{LIB}/cmd", version = "v1.0.0", package = "it")
go_binary(name = "user", mod = "user/go.mod", srcs = ["user/main.go"])
go_binary(name = "tests", mod = "own/go.mod", srcs = ["own/lib.go"], test = True)
genrule(name = "runs", outs = ["said"], tools = [":user"], cmd = ["$(location :user)", "$@"])
""",
    "own/go.mod": f"module {LIB}\n\n{GO}",
    "own/lib.go": "package lib\n",
}
OPTION = f"--override_module={LIB}=../checkout"


@pytest.fixture
def overridden(tools: Space) -> Space:
    """A workspace with tools of a module, and a checkout of the module next to it."""
    for path, text in WORKSPACE.items():
        tools.write(f"p/{path}", text)
    for path, text in CHECKOUT.items():
        tools.write(f"../checkout/{path}", text)
    return tools


def build(space: Space, *words: str) -> str:
    done = space.bk("build", *words, OPTION)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def output(space: Space, name: str, *words: str) -> str:
    binary = space.root / "bk-out/p" / name / name
    done = subprocess.run([binary, *words], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip()


def said(space: Space) -> str:
    return (space.root / "bk-out/p/runs/said").read_text()


def test_tools_are_built_from_a_folder(overridden: Space) -> None:
    build(overridden, "//p:it", "//p:runs", "//p:tests")

    assert output(overridden, "it") == "from the checkout and its part"
    assert said(overridden) == "from the checkout"
    assert "from the checkout" in output(overridden, "tests", "-test.v"), "with -C, the tests of a package"
    assert sorted(path.name for path in (overridden.root / "../checkout").iterdir()) == sorted(
        {path.partition("/")[0] for path in CHECKOUT}
    ), "nothing was written to the folder"


def test_an_edit_reruns_what_it_must(overridden: Space) -> None:
    """A comment, or a function that nothing calls, leaves the binary as it was, so its users are cached.

    A build without an edit gives the kept answer.
    """
    later = replace(overridden, later=True)
    checkout = overridden.root / "../checkout"
    build(later, "//p:runs")

    (checkout / "lib.go").write_text((checkout / "lib.go").read_text() + "\nfunc unused() {} // and a comment\n")
    assert "3 actions: 1 ran, 2 cached" in build(later, "//p:runs")
    wait_for(lambda: at_once(later))

    (checkout / "word.txt").write_text("edited")
    assert "3 actions: 2 ran, 1 cached" in build(later, "//p:runs")
    assert said(overridden) == "edited"

    wait_for(lambda: at_once(later))
    (checkout / "more.go").write_text('package lib\n\nfunc init() { Word += ", and more" }\n')
    why = overridden.bk("why", "//p:user", OPTION)
    assert f"input/override/{LIB}/more.go is new" in why.stdout, why.stdout + why.stderr
    build(later, "//p:runs")
    assert said(overridden) == "edited, and more"


def at_once(space: Space) -> bool:
    """Return whether a build gives the kept answer, without loading anything.

    It does not when another test has just linked to a blob of this cache, which changes the blob's ctime; the build then
    keeps its answer again.
    """
    command = space.command("build", "//p:runs", OPTION)
    command.insert(1, "-Ximporttime")
    done = subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=True)
    return "bkrules.cli" not in done.stderr


def test_the_place_of_the_folder_counts_for_nothing(overridden: Space) -> None:
    build(overridden, "//p:it", "//p:runs")
    (overridden.root / "../checkout").rename(overridden.root / "inside")

    done = overridden.bk("build", "//p:it", "//p:runs", f"--override_module={LIB}=%workspace%/inside")

    assert "4 actions: 0 ran, 4 cached" in done.stdout, done.stdout + done.stderr
