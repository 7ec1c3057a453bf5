"""What a user sees of bad input: the exit code, and a message that says who, what, where, and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from spaces import Space
from terminals import Terminal

import bkrules
from bkrules import cli
from bkrules.commands.help import TOPICS

IMPORTS = (
    "from bkrules import workspace, go_binary, go_toolchain, host_binary, image, image_mirror, test_matrix, worker\n"
)

# The text of a BUILD.py, the exit code, and words that the message must have.
BAD_BUILD_FILES = {
    "unknown label": (
        "image_mirror(name = 'm', images = {'docker.io/library/a:1': ':bussybox'})\nimage(name = 'busybox')",
        1,
        ["//p:m", ":bussybox", "p/BUILD.py:2, attribute 'images'", "did you mean 'busybox'"],
    ),
    "unknown package": (
        "image(name = 'a', base = '//q:b')",
        1,
        ["//q:b", "p/BUILD.py:2, attribute 'base'", "//q has no BUILD.py"],
    ),
    "unknown rule": ("from bkrules import imagee", 1, ["'imagee'", "p/BUILD.py:2", "did you mean 'image'"]),
    "unknown attribute": (
        "image(\n    name = 'a',\n    fils = {},\n)",
        1,
        ["//p:a", "'fils'", "p/BUILD.py:4, attribute 'fils'", "did you mean 'files'"],
    ),
    "unknown worker": (
        "worker(name = 'w', plugin = 'containerd-stargz')",
        1,
        [
            "unknown worker 'containerd-stargz'",
            "p/BUILD.py:2, attribute 'plugin'",
            "did you mean 'containerd+stargz'? installed: containerd, containerd+stargz, dockerd, oci, rootless",
            "bk-worker-containerd-stargz",
        ],
    ),
    "unknown setting of a worker": (
        "worker(name = 'w', plugin = 'oci', snapshoter = 'stargz')",
        1,
        ["no setting 'snapshoter'", "p/BUILD.py:2, attribute 'snapshoter'", "did you mean 'snapshotter'"],
    ),
    "bad value of a setting": (
        "worker(name = 'w', plugin = 'oci', snapshotter = 'zfs')",
        1,
        ["'snapshotter' must be one of overlayfs, native, fuse-overlayfs, stargz, but was 'zfs'", "p/BUILD.py:2"],
    ),
    "a worker without its tool": (
        "worker(name = 'w', plugin = 'rootless')",
        1,
        ["//p:w", "'buildctl'", "there is no //:buildctl", "name a module that has it in WORKSPACE.py, as  bk_dep"],
    ),
    "bad axis": (
        "test_matrix(name = 't', tests = [], workers = [], mirror = ':m', axes = {'worker': {'a': 1}})\n"
        "image_mirror(name = 'm', images = {})",
        1,
        ["'worker' cannot be the name of an axis", "p/BUILD.py:2, attribute 'axes'"],
    ),
    "empty axis": (
        "test_matrix(name = 't', tests = [], workers = [], mirror = ':m', axes = {'c': {}})\n"
        "image_mirror(name = 'm', images = {})",
        1,
        ["the axis 'c' must map names to values", "p/BUILD.py:2, attribute 'axes'"],
    ),
    "empty matrix": (
        "test_matrix(name = 't', tests = [], workers = [], mirror = ':m')\nimage_mirror(name = 'm', images = {})",
        1,
        ["the matrix has no cell", "p/BUILD.py:2"],
    ),
    "duplicate name": (
        "image(name = 'a')\nimage(name = 'a')",
        1,
        ["//p:a: declared twice", "p/BUILD.py:3", "the first one is at p/BUILD.py:2"],
    ),
    "cycle": (
        "image(name = 'a', base = ':b')\nimage(name = 'b', base = ':a')",
        1,
        ["depends on itself", "p/BUILD.py:2, attribute 'base': //p:a -> //p:b", "p/BUILD.py:3"],
    ),
    "missing file": (
        "image(name = 'a', files = {'etc/motd': 'motd.txt'})",
        1,
        ["//p:motd.txt is neither a target nor a file", "p/BUILD.py:2, attribute 'files'"],
    ),
    "wrong kind": (
        "image_mirror(name = 'm', images = {'docker.io/library/a:1': ':w'})\nhost_binary(name = 'w')",
        1,
        ["'images' needs an image, but //p:w is a host_binary", "p/BUILD.py:2, attribute 'images'"],
    ),
    "wrong type": (
        "image(name = 'a', files = ['b'])",
        1,
        ["'files' must be a dictionary", "['b']", "p/BUILD.py:2"],
    ),
    "import of os": ("import os", 1, ["import of 'os' is not allowed", "p/BUILD.py:2"]),
    "an opened file": (
        "image(name = open('/etc/hostname').read())",
        1,
        ["'open' is not available", "p/BUILD.py:2", "build files do no I/O"],
    ),
    "a bad reference": (
        "image_mirror(name = 'm', images = {'busybox': ':a'})\nimage(name = 'a')",
        1,
        ["'busybox' is not a full reference", "docker.io/library/busybox:latest", "p/BUILD.py:2"],
    ),
}


@pytest.mark.parametrize("name", BAD_BUILD_FILES)
def test_a_bad_build_file(space: Space, name: str) -> None:
    text, exit_code, words = BAD_BUILD_FILES[name]
    space.write("p/BUILD.py", IMPORTS.replace("workspace, ", "") + text + "\n")

    done = space.bk("build", "//p:all")

    assert done.returncode == exit_code, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


BAD_COMMAND_LINES = {
    "no command": ([], ["the following arguments are required: COMMAND"]),
    "unknown command": (["bild", "//..."], ["bk has no command 'bild'", "did you mean 'build'?"]),
    "unknown flag": (["build", "--jbos=2", "//..."], ["bk build: ", "--jbos=2", "did you mean --jobs?"]),
    "an option of another command": (
        ["clean", "--jobs=2"],
        ["unrecognized arguments: --jobs=2\n  see `bk clean --help`"],
    ),
    "a shortened option": (["build", "--job=4", "//..."], ["unrecognized arguments: --job=4", "did you mean --jobs?"]),
    "bad runs": (["test", "--runs_per_test=0", "//..."], ["--runs_per_test", "positive number, but was '0'"]),
    "bad attempts": (["test", "--flaky_test_attempts=many", "//..."], ["--flaky_test_attempts", "but was 'many'"]),
    "bad pool": (["build", "--local_resources=gpu", "//..."], ["--local_resources", "must be NAME=N", "was 'gpu'"]),
    "bad timeout": (["build", "--test_timeout=1,2", "//..."], ["--test_timeout", "four numbers for small", "'1,2'"]),
    "bad profile": (
        ["build", "--profile=no/such/p.json", "//p:a"],
        ["--profile: cannot write the file", "such/p.json"],
    ),
    "bad value": (["test", "--cache_test_results=maybe", "//..."], ["'maybe'", "auto"]),
    "bad variable": (["test", "--test_env==x", "//..."], ["--test_env", "NAME=VALUE or NAME", "'=x'"]),
    "a variable of bk's own": (["test", "--test_env=PATH=/bin", "//..."], ["PATH is bk's own in a cell", "GOMAXPROCS"]),
    "the race detector's options": (
        ["test", "--test_env=GORACE=exitcode=0", "//..."],
        ["GORACE is bk's own in a cell"],
    ),
    "bad jobs": (["build", "-j", "0", "//..."], ["must be a positive number, but was '0'"]),
    "bad pattern": (["build", "//a:b:c"], ["'//a:b:c' is not a label", "//pkg/..."]),
    "unknown target": (["build", "//p:nmae"], ["//p:nmae: no such target", "did you mean 'name'"]),
    "unknown package": (["build", "//q:all"], ["//q:all: no targets there"]),
}


@pytest.mark.parametrize("name", BAD_COMMAND_LINES)
def test_a_bad_command_line(space: Space, name: str) -> None:
    arguments, words = BAD_COMMAND_LINES[name]
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'name')\n")

    done = space.bk(*arguments)

    assert done.returncode == 2, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def test_outside_a_workspace(space: Space, tmp_path: Path) -> None:
    (space.root / "WORKSPACE.py").unlink()

    done = space.bk("build", "//...")

    assert done.returncode == 2
    assert "no WORKSPACE.py" in done.stderr


def test_a_workspace_without_a_name(space: Space) -> None:
    space.write("WORKSPACE.py", "")

    done = space.bk("query", "//...")

    assert done.returncode == 1
    assert "WORKSPACE.py:1" in done.stderr


def test_the_pin_of_a_tool_must_agree_with_its_go_mod(space: Space) -> None:
    space.write("tool/go.mod", "module x\nrequire example.test/tool v1.2.3\n")
    space.write("tool/go.sum", "")
    space.write(
        "WORKSPACE.py",
        IMPORTS
        + "workspace(name = 'w')\ngo_toolchain(name = 'go', version = '1', sha256 = {'linux-x86_64': '0' * 64})\n"
        "go_binary(name = 't', module = 'example.test/tool', version = 'v1.2.4', mod = '//tool:go.mod')\n",
    )

    done = space.bk("build", "//:t")

    assert done.returncode == 1
    assert "says example.test/tool v1.2.4, but tool/go.mod pins v1.2.3" in done.stderr
    assert "WORKSPACE.py:4, attribute 'version'" in done.stderr


def test_a_wheel_with_another_digest_is_refused(space: Space) -> None:
    space.write(
        "WORKSPACE.py",
        IMPORTS + "workspace(name = 'w')\n"
        "go_toolchain(name = 'go', package = 'iniconfig', version = '2.3.1', sha256 = {'linux-x86_64': 'ab' * 32})\n",
    )

    done = space.bk("build", "//:go")

    assert done.returncode == 1, done.stderr
    assert "has another sha256 than the one pinned" in done.stdout
    assert "pinned:  " + "ab" * 32 in done.stdout
    assert list((space.root.parent / "cache/run").iterdir()) == []


def test_a_missing_command_of_this_machine(space: Space) -> None:
    space.write(
        "WORKSPACE.py", IMPORTS + "workspace(name = 'w')\nhost_binary(name = 'cc', binary = 'no-such-compiler')\n"
    )
    space.write("t/go.mod", "module x\n")
    space.write("t/go.sum", "")
    space.write("t/main.go", "package main\n")
    space.write(
        "t/BUILD.py",
        "from bkrules import go_binary, go_toolchain\n"
        "go_toolchain(name = 'go', package = 'iniconfig', version = '2.3.1', sha256 = {'linux-x86_64': 'ab' * 32})\n"
        "go_binary(name = 't', srcs = ['main.go'], mod = 'go.mod', cc = '//:cc', toolchain = ':go')\n",
    )

    done = space.bk("aquery", "--json", "//t:t")

    assert done.returncode == 0, done.stderr
    assert "no-such-compiler" in done.stdout


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "bkrules", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout == f"bk {bkrules.__version__}\n"


def test_the_start_stays_light() -> None:
    """pytest, requests and rich cost more than a whole cached build, so they are for those who need them. typing and what it
    imports cost a quarter of a null build.
    """
    code = "import sys, bkrules.__main__ as m; sys.argv = ['bk', '--version']; m.main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    heavy = {"pytest", "requests", "rich", "pluggy", "argparse", "typing", "re", "enum", "dataclasses", "json"}
    assert heavy.isdisjoint(done.stdout.split())


def test_a_build_does_not_import_what_it_does_not_need(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    code = f"import sys, bkrules.cli as c; c.main({space.command('build', '//...')[4:]}); print(*sys.modules)"
    for loads in (True, False):  # the second time, the package comes from the cache
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], cwd=space.root, capture_output=True, text=True, check=True
        )
        assert "1 action" in done.stdout
        assert [name for name in done.stdout.split() if name.startswith("bkrules.query")] == []
        assert ("bkrules.loading.loader" in done.stdout.split()) == loads


def test_a_build_does_not_import_what_only_cells_need(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    code = "import sys, bkrules.cli as c; c.main(['query', '//...']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=space.root, capture_output=True, text=True, check=True
    )

    assert "//p:a" in done.stdout
    assert {"pytest", "requests", "rich", "filelock"}.isdisjoint(done.stdout.split())


def test_a_command_imports_its_own_module_alone() -> None:
    code = "import sys, bkrules.cli as c; c.main(['cache', 'stats', '--disk_cache=/nowhere']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    own = {"build_arguments", "cache", "harness", "own_files", "parser", "rc", "remote_arguments", "variables"}
    loaded = {name.removeprefix("bkrules.commands.") for name in done.stdout.split() if "bkrules.commands." in name}
    assert loaded == own
    assert "bkrules.build.analysis" not in done.stdout.split()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        assert cli.main(["--norc", *words]) == 0
        return capsys.readouterr().out

    overview = told("help")
    assert "\n  test         run the tests of the matrices among the targets\n" in overview
    assert "\n  exit-codes   the meaning of the exit codes\n" in overview
    for code in (0, 1, 2, 3, 4, 8, 36, 37):
        assert f"\n  {code} " in told("help", "exit-codes")
    for topic in TOPICS:
        assert max(map(len, told("help", topic).splitlines())) <= 130
    assert told("help", ".bkrc") == told("help", "bkrc")
    test = told("help", "test")
    assert test.startswith("usage: bk test [OPTION...] PATTERN...\n")
    assert "--failed" in test
    assert "--strace" not in test
    assert told("help", "shell").startswith("usage: bk shell [--at_failure] CELL [-- COMMAND...]\n")
    assert cli.main(["--norc", "help", "lable"]) == 2
    assert "did you mean 'labels'?" in capsys.readouterr().err


def test_help_on_a_narrow_terminal(space: Space) -> None:
    """No word is cut, and nothing but text is printed."""
    with Terminal(space.command("help"), space.root, {**os.environ, "TERM": "xterm"}, columns=60) as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.shown
    lines = terminal.shown.replace("\r", "").splitlines()
    assert max(map(len, lines[:-1])) <= 60
    shown = " ".join(" ".join(lines).split())
    assert "mirror pin images, and fill, check or serve a mirror: sync, verify, serve" in shown


def test_an_annotation_on_a_terminal(space: Space) -> None:
    """A CI may give its jobs a terminal: the annotation is whole, on a line without colours, after the error for people."""
    space.write("p/BUILD.py", "image(\n")
    environment = {**os.environ, "TERM": "xterm", "GITHUB_ACTIONS": "true"}
    with Terminal(space.command("build", "//p:all"), space.root, environment, columns=60) as terminal:
        assert terminal.end() == 1
    lines = terminal.shown.replace("\r", "").splitlines()
    assert [line for line in lines if line.startswith("::error file=p/BUILD.py,line=1::")], terminal.shown
    assert lines[0].startswith("\x1b[1;31merror\x1b[0m: "), terminal.shown


def test_a_misspelt_option_is_named_also_without_a_pattern(space: Space) -> None:
    done = space.bk("build", "--keep-goin")
    assert done.returncode == 2
    assert "error: bk build: unrecognized arguments: --keep-goin\n  did you mean --keep_going? see" in done.stderr
    assert "arguments are required: PATTERN" in space.bk("build", "--keep-going", "--jobs=2").stderr


def test_completion_imports_no_command() -> None:
    line = ["bk", "__complete", "zsh", "bk", "test", "//"]
    code = f"import sys, bkrules.__main__ as m; sys.argv = {line}; m.main(); print(*sys.modules)"
    table = json.dumps(
        {"options": [], "tests": [], "commands": {"test": {"help": "", "options": [], "words": ["tests"]}}}
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        input=table,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "//targets/" in done.stdout
    assert {"argparse", "bkrules.cli", "bkrules.rules", "socket", "subprocess"}.isdisjoint(done.stdout.split())


def test_every_command_is_found_in_its_module() -> None:
    for module, names in cli.MODULES.items():
        assert tuple(cli._parser([module])[1]) == names


IMAGES = "from bkrules import image\nimage(name = 'a', files = {'x': 'motd'})\nimage(name = 'b', base = ':a')\n"


def test_query(space: Space) -> None:
    space.write("p/BUILD.py", IMAGES)
    space.write("p/motd", "")

    assert space.bk("query", "//...").stdout.split() == ["//p:a", "//p:b"]
    assert space.bk("query", "//p:b").stdout.split() == ["//p:b"]
    assert space.bk("query", "deps(//p:b)").stdout.split() == ["//p:a", "//p:b", "//p:motd"]
    assert space.bk("query", "somepath(//p:b, //p:motd)").stdout.split() == ["//p:b", "//p:a", "//p:motd"]
    assert space.bk("query", "//...", "-//p:a").stdout.split() == ["//p:b"]
    assert space.bk("query", "//p:a", "+", "//p:b").stdout.split() == ["//p:a", "//p:b"]
    assert '"location": "p/BUILD.py:3"' in space.bk("query", "--json", "//p:b").stdout
    assert space.bk("query", "--json", "//...").stdout == space.bk("query", "--output=json", "//...").stdout
    assert space.bk("query", "--output=label_kind", "//p:b").stdout == "image rule //p:b\n"


def test_a_query_without_an_answer_is_a_success(space: Space) -> None:
    space.write("p/BUILD.py", IMAGES)

    done = space.bk("query", "//... - //p:all")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_query_that_cannot_be_read_is_shown_with_a_caret(space: Space) -> None:
    done = space.bk("query", "//... + depz(//...)")

    assert done.returncode == 2
    assert done.stderr == (
        "error: unknown function 'depz'\n"
        "  column 9\n"
        "    //... + depz(//...)\n"
        "            ^\n"
        "  did you mean 'deps'? functions: allpaths, attr, deps, filter, kind, labels, rdeps, somepath, tag\n"
    )


def test_the_tools_of_a_worker_are_dependencies_that_may_be_left_out(space: Space) -> None:
    names = ["buildctl", "buildkitd", "registry", "runc"]
    space.write("WORKSPACE.py", IMPORTS + f"workspace(name = 'w')\n[host_binary(name = name) for name in {names}]\n")
    space.write("p/BUILD.py", "from bkrules import worker\nworker(name = 'w', plugin = 'oci')\n")

    assert space.bk("query", "deps(//p:w)").stdout.split() == [*(f"//:{name}" for name in names), "//p:w"]
    assert space.bk("query", "--noimplicit_deps", "deps(//p:w)").stdout.split() == ["//p:w"]


CELL_TOOLS = ("buildctl", "buildkitd", "registry", "rootlesskit", "runc")
CELL = """from bkrules import image_mirror, test_matrix, worker
image_mirror(name = "mirror", images = {})
worker(name = "rootless", plugin = "rootless")
test_matrix(name = "m", tests = ["test_it.py"], workers = [":rootless"], mirror = ":mirror")
"""


def test_aquery_chooses_actions(space: Space) -> None:
    space.write("p/BUILD.py", IMAGES)
    space.write("p/motd", "")

    def labels(*arguments: str) -> list[str]:
        done = space.bk("aquery", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [document["label"] for document in json.loads(done.stdout)]

    assert labels("//p:b") == labels("//...") == labels("//p:a + //p:b") == labels("deps(//p:b)") == ["//p:a", "//p:b"]
    assert labels("//...", "-//p:b") == ["//p:a"]
    assert labels("mnemonic('Im.*', //p:b)") == ["//p:a", "//p:b"]
    assert labels("mnemonic('Im', //p:b)") == []
    assert labels("inputs(base, //p:b)") == ["//p:b"]
    assert labels("inputs('files/0', outputs(layout, //p:b))") == ["//p:a"]
    assert space.bk("aquery", "mnemonic(None, //p:b)").stdout == ""
    assert space.bk("aquery", "//p:motd").returncode == 2


def test_aquery_has_the_parameters_of_actions_in_json(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a', cmd = ['/bin/sh'])\n")

    (document,) = json.loads(space.bk("aquery", "--json", "//p:a").stdout)

    assert document["parameters"]["cmd"] == ["/bin/sh"]
    assert json.loads(document["arguments"][-1]) == document["parameters"]
    assert list(document) == [
        *("label", "mnemonic", "cell", "arguments", "parameters", "environment", "platform", "timeout"),
        *("inputs", "outputs", "host", "key"),
    ]
    assert "parameters:" not in space.bk("aquery", "//p:a").stdout


def test_aquery_lists_what_an_action_takes_of_this_machine(space: Space) -> None:
    """Of a cell that is the interpreter, libraries, helpers, bk's own files and the folders of Python, and the kernel."""
    declared = "".join(f"host_binary(name = {name!r}, binary = {str(space.root / name)!r})\n" for name in CELL_TOOLS)
    space.write("WORKSPACE.py", f"from bkrules import host_binary, workspace\nworkspace(name = 'w')\n{declared}")
    for name in CELL_TOOLS:
        space.write(name, name)
    space.write("p/test_it.py", "def test_it(sandbox):\n    pass\n")
    space.write("p/BUILD.py", CELL)

    (document,) = json.loads(space.bk("aquery", "--json", "//p:m").stdout)

    host = document["host"]
    assert host["host/python"] == os.path.realpath(sys.executable)
    assert host["host/helpers/newuidmap"] == os.path.realpath(shutil.which("newuidmap") or "")
    assert any(path.endswith("/libc.so.6") for path in host.values())
    assert host["tools/runc"] == str(space.root / "runc")
    assert sys.prefix in [path for name, path in host.items() if name.startswith("folder/")]
    assert host["bkrules/runners/open_cell.py"].endswith("/runners/open_cell.py")
    assert {"kernel-release", "kernel-lsm", "kernel-cgroup"} <= document["platform"].keys()
    assert (
        "kernel-release"
        not in json.loads(space.bk("aquery", "--json", "--kernel_key=none", "//p:m").stdout)[0]["platform"]
    )
    assert f"    host/python: {os.path.realpath(sys.executable)}\n" in space.bk("aquery", "//p:m").stdout


def test_aquery_shows_keys_only_when_they_are_known(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\nimage(name = 'b', base = ':a')\n")

    before = space.bk("aquery", "//p:b").stdout
    assert space.bk("build", "//p:b").returncode == 0
    after = space.bk("aquery", "//p:b").stdout

    assert "base: not known until it is built" in before
    assert "base: folder sha256:" in after
    assert after.count("  key: ") == 2


def test_an_image_is_built_once_and_shown(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a', files = {'etc/motd': 'motd'})\n")
    space.write("p/motd", "hello\n")

    first, second = space.bk("build", "//p:a"), space.bk("build", "//p:a")

    assert "1 action: 1 ran, 0 cached" in first.stdout, first.stderr
    assert "1 action: 0 ran, 1 cached" in second.stdout
    assert (space.root / "bk-out/p/a/layout/index.json").exists()


def test_a_failing_action_stops_the_build_and_says_so(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a', files = {'x': 'gone'})\n")
    space.write("p/gone", "x").chmod(0o000)
    if os.access(space.root / "p/gone", os.R_OK):
        (space.root / "p/gone").unlink()
        (space.root / "p/gone").symlink_to("/proc/self/mem")

    done = space.bk("build", "//p:a")

    assert done.returncode == 1, done.stdout
    assert "//p:a: cannot read p/gone" in done.stdout


def test_tests_are_needed_for_test(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")

    done = space.bk("test", "//...")

    assert done.returncode == 4
    assert "no test_matrix among //..." in done.stderr


def test_workers_are_listed_with_their_settings(space: Space) -> None:
    done = space.bk("workers")

    assert done.returncode == 0
    assert "containerd+stargz  (bk-worker-containerd-stargz 0.1.0)" in done.stdout
    assert "snapshotter = 'overlayfs'" in done.stdout


def test_a_bug_shows_its_traceback_and_has_an_exit_code_of_its_own(space: Space) -> None:
    code = (
        "import sys, bkrules.cli as c, bkrules.commands.build as b\n"
        "def broken(*_, **__): raise RuntimeError('boom')\n"
        "b.analyze_patterns = broken\n"
        "sys.exit(c.main(['build', '//...']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=space.root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 37
    assert "Traceback" in done.stderr
    assert "RuntimeError: boom" in done.stderr


def test_a_terminal_gets_a_live_display_and_a_pipe_plain_lines(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a', noise = {'x': 40000000})\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(space.root)
        os.environ["TERM"] = "xterm"
        os.execv(space.python, space.command("build", "//p:a"))
    shown = bytearray()
    with contextlib.suppress(OSError):  # which is how a terminal says that its last user has gone
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert b"0/1 actions, 1 running" in shown
    assert b"\x1b[" in shown
    shutil.rmtree(space.cache)
    plain = space.bk("build", "//p:a")
    assert "  Image //p:a\n[1/1] Image //p:a" in plain.stderr
    assert "\x1b[" not in plain.stderr + plain.stdout


def test_the_cache_is_counted_and_thinned_out(space: Space) -> None:
    cache = ["--disk_cache", str(space.cache)]
    assert json.loads(space.bk("cache", "stats", "--json", *cache).stdout)["results"] == 0

    done = space.bk("cache", "gc", *cache)
    assert (done.returncode, "--max_size" in done.stderr) == (2, True)
    done = space.bk("cache", "gc", "--max_age", "many", *cache)
    assert (done.returncode, "must be a span such as 30d" in done.stderr) == (2, True)
    assert "removed 0 results" in space.bk("cache", "gc", "--max_age", "1d", *cache).stdout
    assert "whole" in space.bk("cache", "verify", *cache).stdout

    blob = space.write(f"../cache/cas/ab/{'ab' * 32}", "not that")
    done = space.bk("cache", "verify", *cache)
    assert (done.returncode, blob.exists()) == (1, False)
    assert "removed 1 damaged blobs" in done.stdout


def test_clean_removes_the_outputs_and_on_demand_the_cache(space: Space) -> None:
    kept, out = space.write("../cache/mine", ""), space.write("bk-out/x", "")
    module = space.write("../cache/go/mod/read-only/file", "")
    module.parent.chmod(0o555)
    cache = ["--disk_cache", str(space.cache)]

    assert space.bk("clean", *cache).returncode == 0
    assert (out.exists(), module.exists()) == (False, True)
    assert space.bk("clean", "--expunge", *cache).returncode == 0
    assert (kept.exists(), module.exists()) == (True, False)


def test_why_says_why_in_one_line(space: Space) -> None:
    def why(*options: str) -> str:
        done = space.bk("why", "//:small", *options, "--disk_cache", str(space.cache))
        assert done.returncode == 0, done.stderr
        return done.stdout

    declare = "from bkrules import image, workspace\nworkspace(name = 'test')\nimage(name = 'small', env = ['A={}'])\n"
    space.write("WORKSPACE.py", declare.format(1))
    assert why() == "//:small: would run: no earlier run is known\n"
    assert space.bk("build", "//:small").returncode == 0
    assert why() == "//:small: cached\n"
    space.write("WORKSPACE.py", declare.format(2))
    assert why() == '//:small: would run: env was ["A=1"] and is ["A=2"]\n'
    shutil.copytree(space.root / "bk-out", space.root.parent / "other")
    assert space.bk("build", "//:small").returncode == 0
    assert why() == '//:small: cached; it ran in the last build: env was ["A=1"] and is ["A=2"]\n'
    against = ("--against", str(space.root.parent / "other"))
    assert why(*against) == '//:small: another key: env was ["A=1"] and is ["A=2"]\n'
    assert json.loads(why("--json"))[0]["cached"] is True

    done = space.bk("why", "test_none/worker=oci", "--disk_cache", str(space.cache))
    assert (done.returncode, "no cell is called test_none/worker=oci" in done.stderr) == (4, True)


def test_keep_going_leaves_out_what_has_errors(space: Space) -> None:
    image = "from bkrules import image\n"
    space.write("good/BUILD.py", image + "image(name = 'a')\nimage(name = 'b', base = '//refused:x')\n")
    space.write("broken/BUILD.py", "image(")
    space.write("below/BUILD.py", image + "image(name = 'a', base = '//broken:x')\nimage(name = 'b', base = ':a')\n")
    space.write("refused/BUILD.py", image + "image(name = 'x', files = {'../up': 'BUILD.py'})\n")

    assert (space.bk("build", "//...").returncode, (space.root / "bk-out/good").exists()) == (1, False)
    done = space.bk("build", "-k", "//...")

    assert done.returncode == 1, done.stderr
    assert "1 action: 1 ran" in done.stdout
    assert (space.root / "bk-out/good/a").is_dir()
    assert done.stderr.count("error: ") == 2, done.stderr
    assert done.stderr.count("error: broken/BUILD.py") == 1, done.stderr
    assert "//refused:x" in done.stderr
    again = space.bk("build", "-k", "//...")
    assert (again.returncode, again.stderr.count("error: ")) == (1, 2)
    only = space.bk("build", "-k", "//broken:x")
    assert (only.returncode, only.stderr.count("error: ")) == (1, 1)


MANUAL = "from bkrules import image\nimage(name = 'a')\nimage(name = 'b', tags = ['manual'])\n"


def test_a_manual_target_is_built_when_it_is_named(space: Space) -> None:
    space.write("p/BUILD.py", MANUAL)

    assert "1 action: 1 ran" in space.bk("build", "//...").stdout
    assert not (space.root / "bk-out/p/b").exists()
    assert "1 action: 0 ran, 1 cached" in space.bk("build", "//p:b").stdout  # tags are in no key
    assert (space.root / "bk-out/p/b/layout/index.json").exists()
    assert space.bk("query", "//...").stdout.split() == ["//p:a", "//p:b"]


def test_a_build_of_no_target_is_no_success(space: Space) -> None:
    space.write("p/BUILD.py", MANUAL)

    done = space.bk("build", "//...", "-//p:a")

    assert done.returncode == 4
    assert "no target is left of //... -//p:a" in done.stderr
    assert "'manual'" in done.stderr


def test_a_bad_value_in_an_rc_file_is_said_with_its_line(space: Space) -> None:
    space.write(".bkrc", "test -k\nbuild --jobs=many\n")
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    done = space.bk("build", "//...")
    assert done.returncode == 2
    assert "must be a positive number, but was 'many'" in done.stderr
    assert f"{space.root}/.bkrc:2" in done.stderr
    assert space.bk("query", "//...").returncode == 0  # which takes nothing from that line
    assert "must be a positive number, but was 'few'" in space.bk("build", "--jobs=few", "//...").stderr


def test_rc_files_can_be_left_out(space: Space, tmp_path: Path) -> None:
    space.write(".bkrc", "build --nonsense\n")
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    other = tmp_path / "other"
    other.write_text("build --rubbish\n")

    assert "no option --nonsense" in space.bk("query", "//...").stderr
    for switch in ("--norc", "--noworkspace_rc", "--ignore_all_rc_files"):
        done = subprocess.run([*space.command()[:4], switch, "query", "//..."], cwd=space.root, check=False)
        assert done.returncode == 0
    command = [*space.command()[:4], "--noworkspace_rc", f"--bkrc={other}", "query", "//..."]
    done_with = subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=False)
    assert done_with.returncode == 2
    assert f"bk build has no option --rubbish\n  {other}:1" in done_with.stderr


def test_patterns_and_options_in_any_order(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\nimage(name = 'b')\n")
    done = space.bk("build", "//p:a", "-j", "1", "//p:b", "-k")
    assert done.returncode == 0, done.stderr
    assert "2 actions: " in done.stdout


def test_every_command_that_reads_build_files_takes_modules() -> None:
    """A line `common --override_module=...` of a .bkrc is for all of them."""
    without = {
        "clean",
        "completion",
        "fmt",
        "help",
        "init",
        "reap",
        "report",
        "run-action",
        "worker",
        "workers",
    }
    parsers = cli._parser(cli.MODULES)[1]
    assert {name for name, one in parsers.items() if "--override_module" not in one.format_help()} == without
