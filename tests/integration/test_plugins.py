"""Plugins come and go as distributions: the core learns of each from its entry point alone."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, failures, pip
from strangers import worker

STRANGER = Path(__file__).parents[1] / "plugins/stranger"


def test_an_uninstalled_worker_is_unknown(tools: Space, environment: str) -> None:
    space = dataclasses.replace(tools, python=environment)
    assert space.bk("build", "//targets:rootless").returncode == 0
    pip(environment, "uninstall", "--yes", "bk-worker-rootless")

    done = space.bk("build", "//targets:rootless")

    assert done.returncode == 1
    assert "error: //targets:rootless: unknown worker 'rootless'" in done.stderr
    assert "attribute 'plugin'" in done.stderr
    assert "installed: containerd, containerd+stargz, dockerd, oci\n" in done.stderr
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


IT = "def test_it(sandbox):\n    sandbox.run('debug workers')\n"
PACKAGE = {
    "pyproject.toml": """[build-system]
requires = ["flit_core>=3.12"]
build-backend = "flit_core.buildapi"

[project]
name = "bk-worker-near"
version = "1.0"
description = "A worker in a package"
dependencies = ["bkrules"]

[project.entry-points.bk]
near = "near_pack"

[tool.flit.module]
name = "near_pack"
""",
    "near_pack/__init__.py": '"""A plugin that is a package."""\n\nfrom .deep.worker import bk_register_workers\n',
    "near_pack/helper.py": "FLAGS = ['--oci-worker-snapshotter=native']\n",
    "near_pack/deep/__init__.py": "",
    "near_pack/deep/data.json": '{"LEVEL": "one"}',
    "near_pack/deep/worker.py": worker(
        "import json\nfrom pathlib import Path\nfrom ..helper import FLAGS",
        start="        flags = [*buildkitd.OCI_FLAGS, *FLAGS]\n"
        "        from .late import level\n"
        "        (daemons.logs / 'data.log').write_text(level())\n"
        "        assert not Path(__file__).parents[2].joinpath('undeclared.json').exists()\n",
    ),
    "near_pack/deep/late.py": "import json\nfrom importlib import resources\n\n\ndef level():\n"
    "    return json.loads((resources.files(__package__) / 'data.json').read_text())['LEVEL']\n",
    "undeclared.json": "{}",
}
"""Relative imports, a worker in a submodule, package data that is read in a cell, and a file that belongs to no package."""


@pytest.fixture
def near(tools: Space, environment: str, tmp_path: Path) -> Callable[[Mapping[str, str], str], Space]:
    """Install a plugin of these files, editable, in `tmp_path / "near"`; a workspace with a matrix //targets:m of a test on it."""

    def install(files: Mapping[str, str], test: str) -> Space:
        for name, text in files.items():
            path = tmp_path / "near" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        editable = ("--editable", str(tmp_path / "near"))
        pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", *editable)
        space = dataclasses.replace(tools, python=environment)
        build = space.root / "targets/BUILD.py"
        build.write_text(
            build.read_text().replace(", worker", ", test_matrix, worker", 1)
            + 'worker(name = "near", plugin = "near")\n'
            'test_matrix(name = "m", tests = ["//t:test_it.py"], workers = [":near"], mirror = ":mirror")\n'
        )
        space.write("t/BUILD.py", "")
        space.write("t/test_it.py", test)
        return space

    return install


def test_a_plugin_that_is_a_package(near: Callable[[Mapping[str, str], str], Space], tmp_path: Path) -> None:
    space = near(PACKAGE, "def test_it(sandbox):\n    assert sandbox.logs['data'] == 'one'\n")
    done = space.bk("build", "//targets:m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 cached" in space.bk("build", "//targets:m").stdout

    space.write(str(tmp_path / "near/near_pack/deep/data.json"), '{"LEVEL": "two"}')
    done = space.bk("build", "//targets:m")

    assert done.returncode == 3, "an edit of package data is noticed" + done.stdout + done.stderr


def test_a_null_build_notices_what_a_plugin_reads_of_the_machine(
    near: Callable[[Mapping[str, str], str], Space], tmp_path: Path
) -> None:
    file = tmp_path / "machine.conf"
    method = f"    def cache_key(self):\n        return {{'level': host.read({str(file)!r})}}\n"
    text = worker("from bkrules.plugin import host", methods=method)
    space = near(
        {"pyproject.toml": PACKAGE["pyproject.toml"].replace("near_pack", "near_worker"), "near_worker.py": text}, IT
    )
    space = dataclasses.replace(space, later=True)
    for _ in range(2):
        done = space.bk("build", "//targets:m")
        assert done.returncode == 0, done.stdout + done.stderr
    assert list((space.root / "bk-out/.state/answers").iterdir())
    assert "1 cached, 0 not" in space.bk("build", "//targets:m").stdout

    file.write_text("other")

    assert "0 cached, 1 not" in space.bk("build", "//targets:m").stdout
    file.unlink()
    assert "1 cached, 0 not" in space.bk("build", "//targets:m").stdout, "it is as it was at first"


MUTUAL = """import dataclasses
import subprocess

import pytest


@pytest.mark.parametrize("number", [1, 2])
def test_mutual_tls(sandbox, number):
    assert sandbox.address.startswith("tcp://")
    assert "linux" in sandbox.run("debug workers").stdout
    others = {
        "no certificate": dataclasses.replace(sandbox.tls, cert="", key=""),
        "no authority": dataclasses.replace(sandbox.tls, cacert=""),
        "another name": dataclasses.replace(sandbox.tls, servername="b.example"),
    }
    for what, tls in others.items():
        command = ["buildctl", *tls.flags, "debug", "workers"]
        done = subprocess.run(command, env=sandbox.environment, capture_output=True, text=True)
        assert done.returncode != 0, what
"""


def test_a_buildkitd_that_wants_certificates(
    near: Callable[[Mapping[str, str], str], Space], authority: Path, tmp_path: Path
) -> None:
    """The sandbox, a shared worker's reset and an action of commands reach it without a forwarder."""
    text = (
        worker(
            "from pathlib import Path\nfrom bkrules.plugin import Tls",
            start="""        certs = Path(__file__).with_name("certs")
        server, key, ca = (str(certs / name) for name in ("server.pem", "server.key", "ca.pem"))
        flags += [f"--tlscacert={ca}", f"--tlscert={server}", f"--tlskey={key}"]
        tls = Tls(cacert=ca, cert=server, key=key, servername="a.example")
        address = "tcp://127.0.0.1:1234"
""",
        )
        .replace(
            'buildkitd.backend(buildkitd.start(daemons, flags), "native")',
            'buildkitd.backend(address, "native", tls=tls)',
        )
        .replace(
            "        yield ",
            "        daemons.start('buildkitd', buildkitd.arguments(address, daemons.run, flags))\n        yield ",
        )
    )
    certs = {
        f"near_pack/certs/{name}": (authority / name).read_text() for name in ("server.pem", "server.key", "ca.pem")
    }
    space = near({"pyproject.toml": PACKAGE["pyproject.toml"], "near_pack/__init__.py": text, **certs}, MUTUAL)
    build = space.root / "targets/BUILD.py"
    build.write_text(
        build.read_text().replace('mirror = ":mirror")\n', 'mirror = ":mirror", isolation = "worker")\n')
        + 'estargz_image(name = "by_tls", image = ":busybox", worker = ":near")\n'
    )

    done = space.bk("build", "//targets:m", "//targets:by_tls")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_broken_plugin_has_no_worker_and_the_others_stay(tools: Space, environment: str, tmp_path: Path) -> None:
    source = shutil.copytree(STRANGER, tmp_path / "stranger")
    (source / "bk_worker_strange.py").write_text("import no_such_module\n")
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(source))
    space = dataclasses.replace(tools, python=environment)

    build = space.root / "targets/BUILD.py"
    build.write_text(build.read_text() + 'worker(name = "strange", plugin = "strange")\n')

    assert space.bk("build", "//targets:oci").returncode == 0
    done = space.bk("build", "//targets:strange")

    assert done.returncode == 1
    assert "error: //targets:strange: the worker 'strange' is unusable: the plugin bk-worker-strange 1.0" in done.stderr
    assert "cannot be loaded: No module named 'no_such_module'" in done.stderr
    done = space.bk("build", "//targets:strange", "--noplugin=bk-worker-strange")
    assert "the plugin bk-worker-strange 1.0 is blocked by --noplugin" in done.stderr


@pytest.mark.parametrize("method", ["cache_key(self)", "preflight(self, host)"])
def test_a_method_that_raises_leaves_the_cells_of_other_workers_alone(
    near: Callable[[Mapping[str, str], str], Space], method: str
) -> None:
    """One that bk calls while it analyses, and one that it calls when a cell is to run, in the thread of a job."""
    text = worker(methods=f"    def {method}:\n        raise SystemExit(0)\n")
    project = PACKAGE["pyproject.toml"].replace("near_pack", "near_worker")
    space = near({"pyproject.toml": project, "near_worker.py": text}, IT)
    build = space.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace('[":near"]', '[":near", ":oci"]'))

    done = space.bk("build", "//targets:m", "--keep_going")

    assert done.returncode == 1, done.stdout + done.stderr
    name = method.partition("(")[0]
    assert f"the worker 'near' of the plugin bk-worker-near 1.0 failed in {name}: SystemExit: 0\n" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert ("1 failed" if name == "preflight" else "1 not run") in done.stdout


def test_two_workers_of_one_name_are_refused(tools: Space, environment: str, tmp_path: Path) -> None:
    source = shutil.copytree(STRANGER, tmp_path / "stranger")
    module = source / "bk_worker_strange.py"
    module.write_text(module.read_text().replace('name = "strange"', 'name = "oci"'))
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(source))
    space = dataclasses.replace(tools, python=environment)

    done = space.bk("build", "//targets:oci")

    assert done.returncode == 1
    assert "two plugins have a worker 'oci': bk-worker-oci 0.1.0 and bk-worker-strange" in done.stderr


def test_a_plugin_that_is_begun_passes_the_check(tools: Space, environment: str) -> None:
    space = dataclasses.replace(tools, python=environment)
    assert space.bk("plugin", "new", "narrow", "--folder", "mine").returncode == 0
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(space.root / "mine/narrow"))

    done = space.bk("plugin", "check", "//mine/narrow:narrow", "--disk_cache", str(space.cache))

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("//mine/narrow:narrow: narrow, by the plugin narrow\n")
    assert done.stdout.count("\n  ok      ") == 4
    assert "14 cells: 14 passed" in done.stdout
    assert "registry-1.docker.io" not in done.stdout
    own = [environment, "-m", "pytest", "-q", "--import-mode=importlib", "mine/narrow/tests"]
    done = subprocess.run(own, cwd=space.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_worker_does_wrong_is_found(tools: Space, environment: str) -> None:
    """Its key has the host's name, and it says another snapshotter than it starts."""
    space = dataclasses.replace(tools, python=environment)
    assert space.bk("plugin", "new", "narrow", "--folder", "mine").returncode == 0
    module = space.root / "mine/narrow/bk_worker_narrow.py"
    text = module.read_text().replace(
        "environment=environment), self.snapshotter)", 'environment=environment), "native")'
    )
    text = text.replace(
        "    def tools(self)",
        "    def cache_key(self):\n        return {'host': socket.gethostname()}\n\n    def tools(self)",
    )
    module.write_text(text.replace("from typing import Any", "import socket\nimport sys\nfrom typing import Any"))
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", str(space.root / "mine/narrow"))

    done = space.bk("plugin", "check", "//mine/narrow:narrow", "--disk_cache", str(space.cache))

    assert done.returncode == 3, done.stdout + done.stderr
    assert "FAILED  the values in keys are the same everywhere: cache_key() differ" in done.stdout
    failed = {line.split("/")[0] for line in failures(done.stdout) if line.startswith("FAILED: test_")}
    assert failed == {"FAILED: test_boots_as_it_says"}


def test_only_workers_are_checked(tools: Space) -> None:
    done = tools.bk("plugin", "check", "//targets:busybox", "--disk_cache", str(tools.cache))

    assert done.returncode == 4
    assert "no worker among //targets:busybox" in done.stderr
    assert tools.bk("plugin", "check", "//targets:oci", "--image", "docker.io/library/none:1").returncode == 2
