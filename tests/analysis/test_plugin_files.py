"""Which files of a plugin are in the key of a cell in which it acts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from strangers import installed, worker

from bkrules.analysis.plugin_files import plugin_files
from bkrules.plugin.ask import WorkerFault
from bkrules.plugin.manager import load


def files(folder: Path, texts: dict[str, str], module: str = "near_worker") -> list[str]:
    """The paths of the files of the worker `near` of a plugin with these files."""
    with installed(folder, texts, module):
        plugin = next(one for one in load().installed if one.distribution == "bk-worker-near")
        assert plugin.error is None, plugin.error
        found = plugin_files(load().workers["near"].from_settings({}))
    assert all(file == str(folder / path) for path, file in found.items())
    return list(found)


@pytest.mark.parametrize(
    "statement",
    [
        "import near_helper",
        "import near_helper as other",
        "from near_helper import flags",
        "from near_helper import *",
        "def later():\n    from near_helper import flags",
        "try:\n    import near_helper\nexcept ImportError:\n    pass",
        "import importlib\ndef later():\n    return importlib.import_module('near_helper')",
    ],
)
def test_a_helper_counts_however_it_is_imported(tmp_path: Path, statement: str) -> None:
    texts = {"near_worker.py": worker(statement), "near_helper.py": "flags = []\n", "near_other.py": ""}

    assert files(tmp_path, texts) == ["near_helper.py", "near_worker.py"]


def test_a_helper_of_a_helper(tmp_path: Path) -> None:
    texts = {
        "near_worker.py": worker("from near_helper import flags"),
        "near_helper.py": "from near_deep import flags\n",
        "near_deep.py": "from near_helper import __name__\nflags = []\n",
    }

    assert files(tmp_path, texts) == ["near_deep.py", "near_helper.py", "near_worker.py"]


PACKAGE = {
    "near_pack/__init__.py": "from near_pack.deep.worker import bk_register_workers\n",
    "near_pack/deep/__init__.py": "",
    "near_pack/deep/worker.py": worker("from ..helper import flags"),
    "near_pack/helper.py": "flags = []\n",
    "near_pack/data/daemon.json": "{}",
    "near_pack/__pycache__/helper.cpython-311.pyc": "",
    "near_elsewhere.py": "",
}


def test_a_package_counts_as_a_whole_with_its_data(tmp_path: Path) -> None:
    assert files(tmp_path, PACKAGE, "near_pack") == [
        *("near_pack/__init__.py", "near_pack/data/daemon.json", "near_pack/deep/__init__.py"),
        *("near_pack/deep/worker.py", "near_pack/helper.py"),
    ]


def test_of_a_namespace_only_what_is_imported(tmp_path: Path) -> None:
    texts = {
        "near_space/worker/__init__.py": worker(
            "from near_space import helper\nfrom . import own\nfrom .. import more"
        ),
        "near_space/worker/own.py": "",
        "near_space/helper.py": "",
        "near_space/more.py": "",
        "near_space/other.py": "",
    }

    assert files(tmp_path, texts, "near_space.worker") == [
        *("near_space/helper.py", "near_space/more.py"),
        *("near_space/worker/__init__.py", "near_space/worker/own.py"),
    ]


def test_not_what_other_parts_of_the_key_cover(tmp_path: Path) -> None:
    """The standard library, bk itself, and the packages of the locked environment."""
    texts = {"near_worker.py": worker("import json, pluggy, requests\nfrom bkrules.plugin import Host")}

    assert files(tmp_path, texts) == ["near_worker.py"]


def test_what_is_missing_or_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    texts = {
        "near_pack/__init__.py": worker("try:\n    import near_missing.part\nexcept ImportError:\n    pass"),
        "near_pack/template.py": "def {{ name }}(:\n",
    }

    assert files(tmp_path, texts, "near_pack") == ["near_pack/__init__.py", "near_pack/template.py"]


def test_nothing_is_imported_to_find_them(tmp_path: Path) -> None:
    texts = {
        "near_worker.py": worker("def later():\n    import near_pack.helper"),
        "near_pack/__init__.py": "raise SystemExit('imported')\n",
        "near_pack/helper.py": "",
    }

    assert files(tmp_path, texts) == ["near_pack/__init__.py", "near_pack/helper.py", "near_worker.py"]
    assert "near_pack" not in sys.modules


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("    def modules(self):\n        return ()\n", "its modules() leaves out near_worker"),
        ("    def modules(self):\n        import json\n        return (json,)\n", "leaves out near_worker"),
        ("    def modules(self):\n        return 'near_worker'\n", "its modules() returns 'near_worker'"),
        ("    def modules(self):\n        return None\n", "its modules() returns None"),
        ("    def modules(self):\n        return ('near_worker',)\n", "has 'near_worker', which is not a module"),
    ],
)
def test_modules_that_are_none_or_leave_out_its_own(tmp_path: Path, methods: str, message: str) -> None:
    with pytest.raises(WorkerFault) as caught:
        files(tmp_path, {"near_worker.py": worker(methods=methods)})

    assert message in str(caught.value)
    assert caught.value.hint


def test_an_installed_plugin_counts_and_its_locked_dependencies_do_not(tmp_path: Path) -> None:
    """In a separate environment, whose packages the key has by what they installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "venv/lib" / version / "site-packages"
    texts = {
        "near_worker.py": worker("import near_helper, near_dependency"),
        "near_helper.py": "",
        "bk_worker_near-1.0.dist-info/METADATA": "Name: bk-worker-near\nVersion: 1.0\n",
        "bk_worker_near-1.0.dist-info/entry_points.txt": "[bk]\nnear = near_worker\n",
        "bk_worker_near-1.0.dist-info/RECORD": "near_worker.py,,\nnear_helper.py,,\n",
        "near_dependency.py": "",
        "near_dependency-1.0.dist-info/METADATA": "Name: near-dependency\nVersion: 1.0\n",
        "near_dependency-1.0.dist-info/RECORD": "near_dependency.py,,\n",
        "here.pth": "\n".join(path for path in sys.path if path),
    }
    for name, text in texts.items():
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_text(text)
    program = (
        "from bkrules.analysis.plugin_files import plugin_files\nfrom bkrules.plugin.manager import load\n"
        "print(*plugin_files(load().workers['near'].from_settings({})))"
    )

    done = subprocess.run([tmp_path / "venv/bin/python", "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout == "near_helper.py near_worker.py\n", done.stderr
