"""Which plugins a workspace leaves out: `workspace(noplugins = [...])`, read by syntax."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import strangers

from bkrules import cli
from bkrules.build.analysis import open_workspace
from bkrules.errors import BkError, LoadError, UsageError
from bkrules.loading.plugins import left_out, load_plugins
from bkrules.plugin import manager

HEAD = "from bkrules import workspace\n"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    manager.block(())
    manager.leave_out(())


def write(folder: Path, text: str) -> str:
    (folder / "WORKSPACE.py").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f'{HEAD}workspace(name = "w", noplugins = ["a", "b"])', ("a", "b")),
        (f'{HEAD}workspace(name = "w", noplugins = ("a",))', ("a",)),
        (f'{HEAD}workspace(name = "w", noplugins = [])', ()),
        (f'{HEAD}workspace(name = "w")', ()),
        ("no_such_name()\nworkspace(noplugins = ['a'])", ("a",)),
        ("def (", ()),
        ("\0", ()),
        ("", ()),
    ],
)
def test_the_names_are_read_by_syntax(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    assert left_out(write(tmp_path, text)) == names


def test_without_the_file_there_are_none(tmp_path: Path) -> None:
    assert left_out(str(tmp_path)) == ()


@pytest.mark.parametrize("value", ["NAMES", "['a' + 'b']", "[1]", "'oci'", "[*NAMES]", "[n for n in NAMES]", "None"])
def test_names_that_are_computed_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(LoadError) as caught:
        left_out(write(tmp_path, f"NAMES = ['oci']\n{HEAD}workspace(name = 'w', noplugins = {value})"))
    assert caught.value.where == "WORKSPACE.py:3, attribute 'noplugins'"
    assert "each written out, but was" in caught.value.message


def test_it_is_joined_with_the_flag_and_takes_names_that_are_not_installed(tmp_path: Path) -> None:
    root = write(tmp_path, f'{HEAD}workspace(name = "w", noplugins = ["bk-worker-oci", "not-installed-here"])')
    manager.block(["rootless"])

    plugins = load_plugins(root)

    assert {"containerd", "containerd+stargz", "dockerd"} == set(plugins.workers)
    assert str(plugins.fault_of("oci")).endswith("is blocked by 'noplugins' in WORKSPACE.py")
    assert str(plugins.fault_of("rootless")).endswith("is blocked by --noplugin")
    assert "oci" in load_plugins(None).workers
    manager.block(["not-installed-here"])
    with pytest.raises(UsageError, match="no plugin 'not-installed-here' is installed"):
        load_plugins(root)


def test_what_is_left_out_is_not_imported_and_every_command_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "below").mkdir()
    build = "from bkrules import worker\nworker(name = 'near', plugin = 'near')\n"
    (tmp_path / "below/BUILD.py").write_text(build)
    write(tmp_path, f'{HEAD}workspace(name = "w", noplugins = ["near"])')
    monkeypatch.chdir(tmp_path / "below")
    with strangers.installed(tmp_path / "plugin", {"near_worker.py": "raise SystemExit('imported')\n"}):
        codes = [cli.main(words) for words in (["plugin", "list"], ["workers"], ["query", "deps(:near)"])]
        listed = capsys.readouterr()
        assert cli.main(["build", ":near"]) == 1
        failed = capsys.readouterr().err

    assert codes == [0, 0, 0]
    assert "imported" not in listed.out + listed.err + failed
    assert "error: the plugin bk-worker-near 1.0 is blocked by 'noplugins' in WORKSPACE.py\n" in listed.out
    assert "unusable: the plugin bk-worker-near 1.0 is blocked by 'noplugins' in WORKSPACE.py\n" in failed


def test_a_null_build_notices_an_edit(tmp_path: Path) -> None:
    """The plugins that are left out are a part of the answer."""
    root = write(tmp_path, f"{HEAD}workspace(name = 'w')\n")
    program = "import sys, time\nreal = time.time_ns\ntime.time_ns = lambda: real() + 3600 * 10**9\n"
    program += "from bkrules.__main__ import main\nsys.exit(main())"
    build = f"{HEAD.replace('workspace', 'worker')}worker(name = 'oci', plugin = 'oci', tools = {{}})\n"
    (tmp_path / "p").mkdir()
    (tmp_path / "p/BUILD.py").write_text(build)
    binaries = "".join(f"host_binary(name = {name!r}, binary = 'cat')\n" for name in ("buildkitd", "runc"))
    binaries += "".join(f"host_binary(name = {name!r}, binary = 'cat')\n" for name in ("buildctl", "registry"))
    head = "from bkrules import host_binary, workspace\n"

    def run(more: str) -> subprocess.CompletedProcess[str]:
        write(tmp_path, f"{head}workspace(name = 'w'{more})\n{binaries}")
        command = [sys.executable, "-c", program, "--norc", "build", "//p:oci", f"--disk_cache={tmp_path}/cache"]
        return subprocess.run(command, cwd=root, env=dict(os.environ), capture_output=True, text=True, check=False)

    assert [run("").returncode for _ in range(3)] == [0, 0, 0]
    blocked = run(", noplugins = ['oci']")
    assert blocked.returncode == 1, blocked.stdout
    assert "is blocked by 'noplugins' in WORKSPACE.py" in blocked.stderr
    assert run("").returncode == 0


WORKERS = """from bkrules import filegroup, installed_workers
[filegroup(name = worker, srcs = []) for worker in installed_workers()]
"""


def names(root: str) -> list[str]:
    """The targets of the workspace: one for each installed worker."""
    package = open_workspace(root).package("")
    assert package is not None
    return sorted(package.targets)


def test_build_files_know_the_workers_that_are_installed(tmp_path: Path) -> None:
    root = write(
        tmp_path, WORKERS.replace("import", "import workspace,") + "workspace(name = 'w', noplugins = ['oci'])\n"
    )
    assert {"containerd", "containerd+stargz", "rootless"} <= set(names(root))
    assert "oci" not in names(root)
    manager.block(["rootless"])
    assert "rootless" not in names(root)
    manager.block([])

    with strangers.installed(tmp_path / "plugin", {"near_worker.py": strangers.worker()}):
        assert "near" in names(root)
    assert "near" not in names(root)


def test_a_broken_plugin_is_not_left_out_in_silence(tmp_path: Path) -> None:
    root = write(tmp_path, WORKERS.replace("import", "import workspace,") + "workspace(name = 'w')\n")
    with (
        strangers.installed(tmp_path / "plugin", {"near_worker.py": "raise RuntimeError('no')\n"}),
        pytest.raises(BkError, match="bk-worker-near"),
    ):
        names(root)


def test_a_macro_file_does_not_ask_for_workers_at_its_top_level(tmp_path: Path) -> None:
    root = write(tmp_path, f"{HEAD}workspace(name = 'w')\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/BUILD.py").write_text('from bkrules import load\nload(":m.py", "ALL")\n')
    (tmp_path / "p/m.py").write_text("from bkrules import installed_workers\nALL = installed_workers()\n")

    with pytest.raises(LoadError, match="installed_workers is called at the top level of a file that others load"):
        open_workspace(root).package("p")
