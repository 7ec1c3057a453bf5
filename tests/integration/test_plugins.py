"""Plugins come and go as distributions: the core learns of each from its entry point alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space

STRANGER = Path(__file__).parents[1] / "plugins/stranger"


@pytest.fixture
def environment(tmp_path: Path) -> str:
    """The interpreter of a copy of this environment, in which a test may install and uninstall."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    shutil.copytree(sysconfig.get_path("purelib"), packages, dirs_exist_ok=True, copy_function=_link)
    return str(folder / "bin/python")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def pip(python: str, *arguments: str) -> None:
    done = subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_uninstalled_worker_is_unknown(tools: Space, environment: str) -> None:
    space = dataclasses.replace(tools, python=environment)
    assert space.bk("build", "//targets:rootless").returncode == 0
    pip(environment, "uninstall", "--yes", "bk-worker-rootless")

    done = space.bk("build", "//targets:rootless")

    assert done.returncode == 1
    assert "error: //targets:rootless: unknown worker 'rootless'" in done.stderr
    assert "attribute 'plugin'" in done.stderr
    assert "installed: containerd, containerd+stargz, oci\n" in done.stderr
    assert "bk-worker-rootless" in done.stderr
    assert space.bk("build", "//targets:oci").returncode == 0


def test_a_strangers_plugin_is_used_like_ours(
    tools: Space, environment: str, report: Callable[[Path, str], dict[str, Any]], tmp_path: Path
) -> None:
    source = shutil.copytree(STRANGER, tmp_path / "stranger")
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(source))
    space = dataclasses.replace(tools, python=environment)
    build = space.root / "targets/BUILD.py"
    build.write_text(
        build.read_text().replace(", worker", ", test_matrix, worker", 1)
        + 'worker(name = "strange", plugin = "strange")\n'
        'test_matrix(name = "m", tests = ["//t:test_it.py"], workers = [":strange"], mirror = ":mirror")\n'
    )
    space.write("t/BUILD.py", "")
    space.write(
        "t/test_it.py", "def test_it(sandbox):\n    assert 'native' in sandbox.run('debug workers --verbose').stdout\n"
    )

    done = space.bk("build", "//targets:m")

    assert done.returncode == 0, done.stdout + done.stderr
    assert report(space.root, "m")["cells"][0]["name"] == "test_it/worker=strange"


def test_a_broken_plugin_is_named(tools: Space, environment: str, tmp_path: Path) -> None:
    source = shutil.copytree(STRANGER, tmp_path / "stranger")
    (source / "bk_worker_strange.py").write_text("import no_such_module\n")
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(source))
    space = dataclasses.replace(tools, python=environment)

    done = space.bk("build", "//targets:oci")

    assert done.returncode == 1
    assert "the plugin bk-worker-strange 1.0 cannot be loaded: No module named 'no_such_module'" in done.stderr


def test_two_workers_of_one_name_are_refused(tools: Space, environment: str, tmp_path: Path) -> None:
    source = shutil.copytree(STRANGER, tmp_path / "stranger")
    module = source / "bk_worker_strange.py"
    module.write_text(module.read_text().replace('name = "strange"', 'name = "oci"'))
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(source))
    space = dataclasses.replace(tools, python=environment)

    done = space.bk("build", "//targets:oci")

    assert done.returncode == 1
    assert "two plugins have a worker 'oci': bk-worker-oci 0.1.0 and bk-worker-strange" in done.stderr
