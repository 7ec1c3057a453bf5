"""The image of a terminal in README.md: `python docs/site/terminal_image.py docs/images/terminal.svg`.

It records a real run of bk, as root: two tests on four workers at two points of an axis. One of them wants the root of a
build step to be the machine's root, which it is not on a rootless worker. bk builds the tools that the disk cache lacks.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 122
SHARED = ("WORKSPACE.py", "plugins", "targets")
"""The files of this repository that the recorded workspace uses."""
COMMAND = ("test", "//hello:hello_matrix")
BUILD = """\
from bkrules import test_matrix

test_matrix(
    name = "hello_matrix",
    tests = ["test_hello.py"],
    workers = ["//targets:oci", "//targets:containerd", "//targets:containerd_stargz", "//targets:rootless"],
    mirror = "//targets:mirror",
    axes = {"compression": {"gzip": "latest", "estargz": "esgz"}},
)
"""
TESTS = """\
def build(sandbox, folder, step):
    image = f"docker.io/library/busybox:{sandbox.value('compression')}"
    (folder / "Dockerfile").write_text(f"FROM {image}\\nRUN {step} > /result\\n")
    folders = f"--local context={folder} --local dockerfile={folder}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={folder}/out")
    return (folder / "out/result").read_text().strip()


def test_hello(sandbox, tmp_path):
    assert build(sandbox, tmp_path, "echo hello") == "hello"


def test_root_is_root(sandbox, tmp_path):
    owner = build(sandbox, tmp_path, "read inside outside count < /proc/self/uid_map && echo $outside")
    assert owner == "0"
"""


def record() -> tuple[int, str]:
    """Run bk in a workspace of these files. Return its exit code and its output, with its colours."""
    with tempfile.TemporaryDirectory(prefix="bk-image-") as folder:
        for name in SHARED:
            Path(folder, name).symlink_to(ROOT / name)
        package = Path(folder, "hello")
        package.mkdir()
        (package / "BUILD.py").write_text(BUILD)
        (package / "test_hello.py").write_text(TESTS)
        command = [sys.executable, "-m", "bkrules", "--norc", *COMMAND, "--nocache_test_results", "--color=yes"]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    return done.returncode, done.stdout


def image(text: str) -> str:
    """Return the SVG of a terminal that shows a command and its output. It names no font of a server."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text.assemble(("$ ", "dim"), f"bk {' '.join(COMMAND)}"))
    console.print(Text.from_ansi(text.rstrip()), soft_wrap=False)
    drawn = console.export_svg(title="bk", unique_id="bk")
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return drawn.replace("Fira Code, monospace", "ui-monospace, monospace")


def main() -> int:
    """Record and write the image. Return 1 when the run does not end as described above."""
    parser = argparse.ArgumentParser(description="Makes the image of a terminal in README.md.")
    parser.add_argument("file", type=Path, help="the SVG to write")
    arguments = parser.parse_args()
    code, text = record()
    if code != 3:  # tests failed
        print(f"error: bk ended with exit code {code} instead of 3:\n{text}", file=sys.stderr)
        return 1
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_text(image(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
