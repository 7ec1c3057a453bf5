"""A small workspace with one cell, whose key is computed in this process."""

from __future__ import annotations

from pathlib import Path

from bkrules.analysis.runs import Runs
from bkrules.build.analysis import analyze_patterns
from bkrules.build.execute import Execution
from bkrules.build.request import Options

TOOLS = ("buildctl", "buildkitd", "registry", "runc")
BUILD = """from bkrules import image_mirror, test_matrix, worker
image_mirror(name = "mirror", images = {})
worker(name = "oci", plugin = "oci"SETTINGS)
test_matrix(
    name = "m",
    tests = ["test_it.py"],
    workers = [":oci"],
    mirror = ":mirror",
    axes = {"size": {"small": VALUE}},
    timeout = 60,
)
"""
NEAR = BUILD.replace("SETTINGS", "").replace("VALUE", "'1'").replace('"oci")', '"near")')
"""The build file, with the worker of a plugin that a test writes."""


class Cells:
    """A workspace with one cell."""

    def __init__(self, root: Path) -> None:
        self.root = root
        binaries = "".join(f"host_binary(name = {name!r}, binary = {str(root / name)!r})\n" for name in TOOLS)
        self.write("WORKSPACE.py", f"from bkrules import host_binary, workspace\nworkspace(name = 'w')\n{binaries}")
        for name in TOOLS:
            self.write(name, f"the bytes of {name}")
        self.build()
        self.write("p/test_it.py", "import near\n\ndef test_it(sandbox):\n    assert near.far.X\n")
        self.write("p/near.py", "import far\n")
        self.write("p/far.py", "X = 1\n")
        self.write("p/conftest.py", "")

    def write(self, path: str, text: str) -> None:
        """Write a file of the workspace."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def build(self, *, settings: str = "", value: str = "'1'") -> None:
        """Declare the matrix, with these settings of its worker and this value on its axis."""
        self.write("p/BUILD.py", BUILD.replace("SETTINGS", settings).replace("VALUE", value))

    def key(self, runs: Runs | None = None) -> str:
        """The cell's key."""
        analysis = analyze_patterns(str(self.root), ["//p:m"], runs=runs or Runs())
        execution = Execution(analysis, Options(1, str(self.root / "cache")), print, show=False)
        (action,) = analysis.wanted().values()
        known = execution.look_up(action)
        execution.digests.save()
        assert known.key is not None, known.leaves
        return known.key
