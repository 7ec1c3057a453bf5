"""A workspace of a test's own, and bk run in it as a user runs it."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bkrules.cache.atomic import place

MATRIX = """
test_matrix(
    name = "small",
    tests = ["//t:test_small.py"],
    workers = [{workers}],
    mirror = ":mirror",
    {more}
)
"""
WORKERS = ("oci", "oci_stargz", "containerd", "containerd_stargz", "rootless")


LATER = """
import sys, time
real = time.time_ns
time.time_ns = lambda: real() + 3600 * 10**9
from bkrules.__main__ import main
sys.exit(main())
"""
"""bk, an hour from now: what has just been written is old enough to be believed."""


@dataclass(frozen=True)
class Space:
    """A workspace in a temporary folder, with its own disk cache."""

    root: Path
    cache: Path
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    later: bool = False
    """Whether bk's clock is an hour ahead."""

    def write(self, path: str, text: str) -> Path:
        """Write a file of the workspace."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def command(self, *arguments: str) -> list[str]:
        """The command line of bk, which is not to be changed by whose home folder it is."""
        cached = arguments and arguments[0] in ("build", "test", "aquery", "reap", "pin", "bisect")
        disk_cache = ["--disk_cache", str(self.cache)] if cached else []
        program = ["-c", LATER] if self.later else ["-m", "bkrules"]
        return [self.python, "-I", *program, "--nohome_rc", *arguments, *disk_cache]

    def bk(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run bk to its end in this workspace; `prefix` is a command that runs it, such as unshare."""
        command = [*prefix, *self.command(*arguments)]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)


def matrix(space: Space, test: str, *workers: str, more: str = "") -> None:
    """Give the workspace a matrix //targets:small with that test file."""
    build = space.root / "targets/BUILD.py"
    listed = ", ".join(f'":{worker}"' for worker in workers)
    build.write_text(
        build.read_text().replace(", worker", ", test_matrix, worker", 1) + MATRIX.format(workers=listed, more=more)
    )
    space.write("t/BUILD.py", "")
    space.write("t/test_small.py", test)


def copy_of_cache(built: Path, cache: Path) -> Path:
    """A new disk cache at `cache` with all results of `built`, by hard links where there can be some, and Go's own caches."""
    cache.mkdir()
    for part in ("ac", "cas"):
        # Another test may build with the same disk cache now: a file that is not whole yet goes away.
        shutil.copytree(built / part, cache / part, copy_function=_link, ignore=shutil.ignore_patterns("*.tmp"))
    for part in ("go", "toolchains"):
        (cache / part).symlink_to(built / part)
    return cache


def interruptible(command: list[str]) -> list[str]:
    """The command with SIGINT as in a terminal. A shell starts what runs in the background with SIGINT ignored, these tests too.

    `preexec_fn` would do it in a fork of this process, which a gRPC server in it may not survive.
    """
    return ["env", "--default-signal=INT", *command]


def place_tools(root: Path, folder: Path, *more: str) -> None:
    """Put the tools that bk has built of @bk_tools//:all in a workspace into one folder, and more binaries by their paths in
    bk-out.
    """
    out = root / "bk-out"
    for binary in [*out.glob("@bk_tools/*/*"), *(out / path for path in more)]:
        if binary.name == binary.parent.name and binary.is_file():
            place(str(binary), folder / binary.name)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Return when the condition holds. Fails after that many seconds, which a machine with much other work does not need."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {seconds:g} s"
        time.sleep(0.05)


ATTEMPT = """
def attempt():
    from pathlib import Path
    return 1 + int(Path("/proc/self/cgroup").read_text().split("/bk-")[1].split()[0].split("/")[0].split("-")[2])
"""
"""A function for a test that runs alone: which of the cells of its run it is in, by the name of the cell's cgroup."""


def cgroup_name() -> str:
    """Return a name for a cgroup of a test, as runs name theirs: if this process is killed, `bk reap` removes the group."""
    return f"bk-{os.getpid()}-{secrets.token_hex(3)}-0"


def out_folders(run: int) -> list[Path]:
    """The folders /out of the cells of a bk that runs as that process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text() == "cell\n" and f"/bk-{run}-" in (folder / "cgroup").read_text():
                found.append(folder / "root/out")
        except OSError:
            continue  # it has ended
    return found


def pip(python: str, *arguments: str) -> None:
    """Run pip with that interpreter."""
    done = subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


_CAUSE = re.compile(r"(\[\d+/\d+\] )?(error|FAILED|TIMED OUT|SKIPPED|NOT RUN|FLAKY)\b")


def check(code: int, output: str, expected: int = 0) -> str:
    """Return the output of a bk that has ended. Fails when its exit code is another one than expected.

    The first line of the failure has the causes that bk names, since a CI may show little else of it.
    """
    lines = output.splitlines()
    causes = [line for line in lines if _CAUSE.match(line)][:3]
    end = "\n".join(lines[-20:])
    assert code == expected, (
        f"exit code {code} instead of {expected}: {' | '.join(causes) or 'bk names no error'}\n{end}"
    )
    return output


def failures(output: str) -> list[str]:
    """Return a line for each failure in an output: `FAILED: CELL: REASON` for each cell of a block of equal ones too."""
    lines, found = output.splitlines(), []
    for number, line in enumerate(lines):
        block = re.fullmatch(r"(FAILED.*: )\d+ cells: (.*)", line)
        if block is None:
            found += [line] if line.startswith("FAILED") else []
            continue
        for row in itertools.takewhile(lambda row: row.startswith("  "), lines[number + 1 :]):
            if match := re.fullmatch(r"  ([^/ ]+)(/\S+)? on (.+)", row):
                cells = [f"{match[1]}/worker={worker}{match[2] or ''}" for worker in match[3].split(", ")]
                found += [f"{block[1]}{cell}: {block[2]}" for cell in cells]
    return found
