"""What a cell's key covers, on a small workspace and in this process: each test changes one thing, and sees another key.

`test_mutations.py` takes these things out of the key and sees these tests fail, each the one of that thing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.analysis.runs import Runs
from bkrules.analyzed import analyze_patterns
from bkrules.build import Execution
from bkrules.options import Options
from bkrules.plugin.host import Host

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
        key, leaves, _ = execution.look_up(action)
        assert key is not None, leaves
        return key


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What bk keeps of the answers of the dynamic linker, which takes its time."""
    root = tmp_path_factory.mktemp("first")
    Cells(root).key()
    return list((root / "bk-out/.state").glob("libraries-*"))


@pytest.fixture
def cells(tmp_path: Path, libraries: list[Path]) -> Cells:
    found = Cells(tmp_path)
    for path in libraries:
        found.write(f"bk-out/.state/{path.name}", path.read_text())
    return found


def test_the_same_workspace_has_the_same_key(cells: Cells, tmp_path: Path) -> None:
    before = cells.key()
    assert cells.key() == before
    other = Cells(tmp_path / "elsewhere")
    assert other.key() == before


def test_the_environment(cells: Cells) -> None:
    assert cells.key(Runs(1, (("LEVEL", "debug"),))) != cells.key()
    assert cells.key(Runs(1, (("LEVEL", "debug"),))) != cells.key(Runs(1, (("LEVEL", "info"),)))


@pytest.mark.parametrize("tool", TOOLS)
def test_the_digest_of_each_tool(cells: Cells, tool: str) -> None:
    before = cells.key()
    cells.write(tool, "other bytes")
    assert cells.key() != before


def test_the_test_itself(cells: Cells) -> None:
    before = cells.key()
    cells.write("p/test_it.py", "import near\n\ndef test_it(sandbox):\n    assert near.far.X > 0\n")
    assert cells.key() != before


def test_a_direct_import(cells: Cells) -> None:
    before = cells.key()
    cells.write("p/near.py", "import far\nY = 1\n")
    assert cells.key() != before


def test_a_transitive_import(cells: Cells) -> None:
    before = cells.key()
    cells.write("p/far.py", "X = 2\n")
    assert cells.key() != before


def test_the_conftest(cells: Cells) -> None:
    before = cells.key()
    cells.write("p/conftest.py", "Y = 1\n")
    assert cells.key() != before


def test_the_value_on_an_axis(cells: Cells) -> None:
    before = cells.key()
    cells.build(value="'2'")
    assert cells.key() != before


def test_a_setting_of_the_worker(cells: Cells) -> None:
    before = cells.key()
    cells.build(settings=", snapshotter = 'native'")
    assert cells.key() != before


def test_the_configuration_of_the_daemons(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plugin that writes another one, though its own files are the same."""
    before = cells.key()
    worker = analyze_patterns(str(cells.root), ["//p:m"]).plugins.workers["oci"]
    monkeypatch.setattr(worker, "configuration", lambda *_: {"buildkitd.toml": {"debug": True}})
    assert cells.key() != before


def test_the_plugins_own_word(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells.key()
    worker = analyze_patterns(str(cells.root), ["//p:m"]).plugins.workers["oci"]
    monkeypatch.setattr(worker, "cache_key", lambda _: {"policy": "2"})
    assert cells.key() != before


def test_the_platform(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells.key()
    monkeypatch.setattr(Host, "features", property(lambda _: {"fuse": "perhaps"}))
    assert cells.key() != before


def test_the_installed_packages(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells.key()
    monkeypatch.setattr("bkrules.machine._packages", lambda: "pytest-0.1\n")
    assert cells.key() != before


def test_the_timeout(cells: Cells) -> None:
    before = cells.key()
    cells.write("p/BUILD.py", (cells.root / "p/BUILD.py").read_text().replace("timeout = 60", "timeout = 61"))
    assert cells.key() != before
