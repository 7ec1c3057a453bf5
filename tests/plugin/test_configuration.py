"""What a plugin's worker says of its configuration and its modules, and is wrong: the error names the plugin and the worker."""

from __future__ import annotations

from pathlib import Path

import pytest
import strangers
from one_cell import NEAR, Cells

from bkrules.errors import BkError


def fault(cells: Cells, folder: Path, methods: str) -> str:
    """The error of a cell with the worker of a plugin with these methods; it names the plugin and the worker."""
    with strangers.installed(folder, {"near_worker.py": strangers.worker(methods=methods)}):
        cells.write("p/BUILD.py", NEAR)
        with pytest.raises(BkError) as caught:
            cells.key()
    assert (caught.value.exit_code, caught.value.reason) == (1, "broken-plugin")
    start, _, what = str(caught.value).partition(" is broken: ")
    assert start == "//p:oci: the worker 'near' of the plugin bk-worker-near 1.0"
    return what


def test_modules_that_leave_out_the_workers_own(cells: Cells, tmp_path: Path) -> None:
    what = fault(cells, tmp_path / "plugin", "    def modules(self):\n        return ()\n")

    assert what.startswith("its modules() leaves out near_worker, the module of the worker itself\n")


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "../../x", "a/../../x", "a/..", "..", ".", "./x", "a/./x", "/x", "/", "", "a//x", "x/"),
        *("a\0b", "a\nb", "\udc80"),
    ],
)
def test_names_of_configuration_files_that_leave_their_folder(cells: Cells, tmp_path: Path, name: str) -> None:
    methods = f"    def configuration(self, mirror):\n        return {{{name!r}: {{}}}}\n"

    what = fault(cells, tmp_path / "plugin", methods)

    assert what.startswith(f"its configuration() has a file of the name {name!r}\n")


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("None", "its configuration() returns None"),
        ("['buildkitd.toml']", "its configuration() returns ['buildkitd.toml']"),
        ("{1: {}}", "its configuration() has a file of the name 1"),
        ("{'a': {'x': None}}", "its configuration() has a document that is not TOML: "),
        ("{'a': 'text'}", "its configuration() has a document that is not TOML: "),
        ("{'a': {}, 'a/b': {}}", "its configuration() has 'a' as a file and as a folder"),
    ],
)
def test_configuration_that_is_none(cells: Cells, tmp_path: Path, documents: str, message: str) -> None:
    what = fault(cells, tmp_path / "plugin", f"    def configuration(self, mirror):\n        return {documents}\n")

    assert what.startswith(message)


def test_configuration_files_in_folders(cells: Cells, tmp_path: Path) -> None:
    methods = (
        "    def configuration(self, mirror):\n        return {'a/b.toml': {}, 'c d.toml': {}, '..x': {}, 'ü': {}}\n"
    )
    with strangers.installed(tmp_path / "plugin", {"near_worker.py": strangers.worker(methods=methods)}):
        cells.write("p/BUILD.py", NEAR)
        assert cells.key()
