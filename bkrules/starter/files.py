"""The files of a new workspace, and how they reach its folder: all of them or none, and never over an existing file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WORKSPACE = """\
# The name of this workspace, and the modules that its build files use.
from bkrules import bk_dep, workspace

workspace(name = "{name}")
bk_dep(name = "bk_tools")  # pinned tools, workers and small images: `bk query @bk_tools//...`
"""
BUILD = """\
from bkrules import load, test_matrix

load("@bk_tools//:macros.py", "standard_workers")

test_matrix(
    name = "hello_matrix",
    tests = ["test_hello.py"],
    workers = standard_workers(),
    mirror = "@bk_tools//images:mirror",
)
"""
TEST = """\
def test_hello(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox:latest\\nRUN echo hello > /hello.txt\\n")
    folders = f"--local context={tmp_path} --local dockerfile={tmp_path}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/hello.txt").read_text() == "hello\\n"
"""
IGNORED = """\
/bk-out
/user.bkrc
"""
RC = """\
# Default options of bk here: in each line a command and options of it. `bk help bkrc` tells more; remove the # of what you want.

# Finish what does not depend on a failure; run a failed cell once more, and call it flaky when it then passes.
#test --keep_going --flaky_test_attempts=2

# Share results with others and with a CI.
#build --remote_cache=https://cache.example.com/bk

# More for `bk test --config=ci //...`.
#test:ci --keep_going --test_output=errors

# Options that only you want: git ignores this file.
try-import %workspace%/user.bkrc
"""
CI = {"buildkite": ".buildkite/pipeline.yml", "github": ".github/workflows/bk.yml", "gitlab": ".gitlab-ci.yml"}
"""The CIs for which there is a recipe, and the file in which each of them expects its own."""
PACKAGE = "hello"
KEPT = (".bkrc", ".gitignore")
"""Files that a repository may have before: they stay as they are."""
LAUNCHER, REQUIREMENTS = "bk", "bk-requirements.txt"

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class File:
    """A file to write: its path in the workspace, its text, and whether it is a program."""

    path: str
    text: str
    is_program: bool = False


def workspace_files(name: str, package: str) -> list[File]:
    """Return the files of a workspace of that name with a matrix in that package."""
    return [
        File("WORKSPACE.py", WORKSPACE.format(name=name)),
        File(f"{package}/BUILD.py", BUILD),
        File(f"{package}/test_hello.py", TEST),
        File(".bkrc", RC),
        File(".gitignore", IGNORED),
    ]


def recipe(ci: str, package: str) -> File:
    """Return the recipe for a CI; its matrix is the one in that package."""
    text = (_FOLDER / f"ci/{ci}.yml").read_text()
    return File(
        CI[ci],
        text.replace(f"{PACKAGE}/{PACKAGE}_matrix", f"{package}/hello_matrix").replace(
            f"//{PACKAGE}:", f"//{package}:"
        ),
    )


def launcher(requirements: str) -> list[File]:
    """Return the launcher and the file with the versions and hashes of what it installs."""
    return [
        File(LAUNCHER, (_FOLDER / "launcher.sh").read_text(), is_program=True),
        File(REQUIREMENTS, requirements),
    ]


def write(root: Path, files: Sequence[File]) -> None:
    """Write files below a folder, which is made when it does not exist. Each is new; after an error, none of them is there.

    Raises OSError, as FileExistsError for a file that another process has made meanwhile.
    """
    written: list[Path] = []
    try:
        for file in files:
            path = root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as out:
                written.append(path)
                out.write(file.text)
            if file.is_program:
                path.chmod(path.stat().st_mode | 0o111)
    except BaseException:
        for path in written:
            with suppress(OSError):  # the first error counts
                path.unlink()
        raise


def lines_missing(path: Path, text: str) -> list[str]:
    """Return the lines of a text that a file does not have."""
    known = path.read_text(errors="replace").splitlines()
    return [line for line in text.splitlines() if line not in known]
