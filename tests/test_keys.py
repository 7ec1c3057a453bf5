"""What a cell's key covers, on a small workspace and in this process: each test changes one thing, and sees another key.

`test_mutations.py` takes these things out of the key and sees these tests fail, each the one of that thing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import strangers
from one_cell import NEAR, TOOLS, Cells

from bkrules.analysis import host_inputs
from bkrules.analysis.runs import Runs
from bkrules.build.analysis import analyze_patterns
from bkrules.plugin.host import Host
from bkrules.system import kernel

TRUE = kernel.texts()
BINFMT = "proc/sys/fs/binfmt_misc"


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


def test_a_helper_of_a_plugin(cells: Cells, tmp_path: Path) -> None:
    files = {"near_worker.py": strangers.worker("from near_helper import FLAGS"), "near_helper.py": "FLAGS = []\n"}
    with strangers.installed(tmp_path / "plugin", files) as folder:
        cells.write("p/BUILD.py", NEAR)
        before = cells.key()
        (folder / "near_helper.py").write_text("FLAGS = ['--trace']\n")
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


def tell(monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """Let the kernel say something else of itself."""
    names = {
        "release": kernel.RELEASES,
        "lsm": "sys/kernel/security/lsm",
        "mounts": kernel.MOUNTS,
        "handler": f"{BINFMT}/arm",
    }
    told = {names[name]: text for name, text in texts.items()}
    monkeypatch.setattr("bkrules.system.kernel.texts", lambda _: {**TRUE, **told})


def test_the_series_of_the_kernel(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same digests gave another result on 5.4, where a release of runc failed. A patch release is no other kernel."""
    tell(monkeypatch, release="5.4.0-150-generic #1")
    before = cells.key()
    tell(monkeypatch, release="5.4.0-151-generic #2")
    assert cells.key() == before
    tell(monkeypatch, release="6.8.0-31-generic #1")
    assert cells.key() != before


def test_security_modules(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lsm="capability,landlock,apparmor")
    before = cells.key()
    tell(monkeypatch, lsm="capability,selinux")
    assert cells.key() != before


def test_how_cgroups_are_mounted(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    unified = "/ /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    tell(monkeypatch, mounts=unified)
    before = cells.key()
    tell(monkeypatch, mounts=f"{unified}\n/ /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu")
    assert cells.key() != before


def test_binary_formats(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, handler="enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic 7f\n")
    before = cells.key()
    tell(monkeypatch, handler="enabled\ninterpreter /usr/bin/qemu\nflags: \noffset 0\nmagic 7f\n")
    assert cells.key() != before


def test_how_much_of_the_kernel_is_an_option(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for release in ("6.8.0-31-generic #1", "6.8.0-32-generic #2", "5.4.0-150-generic #1"):
        tell(monkeypatch, release=release)
        keys |= {(key, cells.key(Runs(kernel_key=key))) for key in kernel.KEYS}

    assert sorted(key for key, _ in keys) == ["none", "release", "release", "release", "series", "series"]


def put(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Let one of the files that a cell takes from this machine be another one."""
    true = host_inputs.load

    def load(*arguments: str) -> host_inputs.Machine:
        found = true(*arguments)
        assert name in dict(found.runtime)
        return replace(found, runtime=tuple((one, str(path) if one == name else it) for one, it in found.runtime))

    monkeypatch.setattr(host_inputs, "load", load)


AROUND = [
    *(
        "mirror/proxy",
        "mirror/registry",
        "runners/cell_pool",
        "runners/open_cell",
        "runners/test_cell",
        "sandbox/spawner",
    )
]
INSIDE = ["cell/init", "cell/supervisor", "sandbox/cgroups", "sandbox/devices", "sandbox/syscalls"]


@pytest.mark.parametrize("file", AROUND)
def test_the_code_around_cells(cells: Cells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str) -> None:
    """It decides on binds, links and limits, on the mirror, and on what becomes of a test's end."""
    before = cells.key()
    put(monkeypatch, f"bkrules/{file}.py", tmp_path / "p/near.py")
    assert cells.key() != before


def test_the_code_of_the_mirrors_storage_tree(cells: Cells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = cells.key()
    put(monkeypatch, "bkrules/images/storage.py", tmp_path / "p/near.py")
    assert cells.key() != before


@pytest.mark.parametrize("file", INSIDE)
def test_the_code_inside_of_cells(cells: Cells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str) -> None:
    before = cells.key()
    put(monkeypatch, f"bkrules/{file}.py", tmp_path / "p/near.py")
    assert cells.key() != before


def test_the_configuration_of_the_registry(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells.key()
    monkeypatch.setattr("bkrules.analysis.cell_inputs.CONFIGURATION", "version: 0.1\n")
    assert cells.key() != before


def test_the_limits_of_a_cell(cells: Cells) -> None:
    before = cells.key()
    cells.write(
        "p/BUILD.py", (cells.root / "p/BUILD.py").read_text().replace("timeout = 60", "timeout = 60, pids = 100")
    )
    assert cells.key() != before


def test_the_installed_packages(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells.key()
    monkeypatch.setattr("bkrules.analysis.host_inputs._packages", lambda _: "pytest-0.1\n")
    assert cells.key() != before


def test_the_timeout(cells: Cells) -> None:
    before = cells.key()
    cells.write("p/BUILD.py", (cells.root / "p/BUILD.py").read_text().replace("timeout = 60", "timeout = 61"))
    assert cells.key() != before
