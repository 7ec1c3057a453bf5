"""The launcher that `bk init --launcher` writes, on a machine with Python alone and folders with wheels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launchers import unkind

import bkrules
from bkrules import cli
from bkrules.errors import BkError
from bkrules.starter.own_plugins import own_plugins

BUILD = 'SOURCE_DATE_EPOCH=1700000000 PYTHON="$0" exec .ci/wheels "$1"'


@pytest.fixture
def folder(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wheels of this repository in `wheels`, in which bk runs."""
    root = tmp_path / "shop"
    root.mkdir()
    subprocess.run(
        ["sh", "-c", BUILD, sys.executable, root / "wheels"], cwd=repository, check=True, capture_output=True
    )
    monkeypatch.chdir(root)
    return root


def run(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(root.parent), **variables}
    command = ["sh", "-c", 'umask 777; exec ../bk "$@"', "sh", *arguments]
    return subprocess.run(command, cwd=root / "hello", env=environment, capture_output=True, text=True, check=False)


def test_the_life_of_a_launcher(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All in one test, since an environment takes its time: two first runs make it once, and other pins make another one."""
    assert cli.main(["init", "--launcher", "--find_links=wheels"]) == 0
    pins = folder / "bk-requirements.txt"
    text = pins.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("#", "--find-links=./wheels"))]
    assert [
        line for line in lines if line and not re.fullmatch(r"[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}", line)
    ] == []
    names = {line.partition("==")[0] for line in lines if line}
    assert names > {"bkrules", "bk-worker-oci", "bk-worker-containerd-stargz", "pytest", "requests", "certifi"}

    evil = {**unkind(tmp_path / "evil"), "PIP_CACHE_DIR": str(tmp_path / "pip")}
    command = ["./bk", "plugin", "list"]
    variables = {**os.environ, "HOME": str(tmp_path), **evil}
    both = [
        subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    assert sorted(err for _, err in outputs) == ["", "bk: installing what bk-requirements.txt pins into .bk\n"]
    assert "bk-worker-rootless 0.1.0: rootless" in outputs[0][0] == outputs[1][0]
    assert (folder / ".bk/.gitignore").read_text() == "*\n"

    version = run(folder, "--version", **evil)
    assert (version.stdout, version.stderr) == (f"bk {bkrules.__version__}\n", "")
    query = run(folder, "query", "kind(test_matrix, :all)", "--output=label")
    assert "installing" not in query.stderr

    os.utime(pins, (1, 1))
    pins.write_text(text.replace("bk-worker-oci==", "#"))
    os.utime(pins, (1, 1))
    other = run(folder, "plugin", "list", **evil)
    assert other.returncode == 0, other.stderr
    assert other.stderr == "bk: installing what bk-requirements.txt pins into .bk\n"
    assert "bk-worker-oci " not in other.stdout
    assert (folder / ".bk/venv/bin").stat().st_mode & 0o777 == 0o755

    pins.write_text(re.sub("(iniconfig.*sha256:)[0-9a-f]{64}", rf"\g<1>{'0' * 64}", text))
    refused = run(folder, "--version", **evil)
    assert refused.returncode == 36
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert "the packages in bk-requirements.txt could not be installed" in refused.stderr

    pins.unlink()
    lost = run(folder, "--version")
    assert lost.returncode == 36
    assert "bk-requirements.txt is not next to" in lost.stderr
    assert run(folder, "__complete").returncode == 0


def test_plugins_of_the_repository(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are installed from their folders: pins have what they need, and new, changed and removed ones count at once."""
    assert cli.main(["plugin", "new", "narrow"]) == 0
    narrow = folder / "plugins/narrow/pyproject.toml"
    narrow.write_text(narrow.read_text().replace('["bkrules"]', '["bkrules", "sortedcontainers", "bk_worker.wide"]'))
    (folder / "plugins/lint").mkdir()
    (folder / "plugins/lint/pyproject.toml").write_text('[project]\nname = "lint"\nversion = "1"\n')
    assert cli.main(["plugin", "new", "wide"]) == 0
    capsys.readouterr()
    assert cli.main(["init", "--launcher", "--find_links=wheels"]) == 0
    assert "./bk installs these plugins from their folders: plugins/narrow, plugins/wide\n" in capsys.readouterr().out
    names = {line.partition("==")[0] for line in (folder / "bk-requirements.txt").read_text().splitlines()}
    assert {"sortedcontainers", "flit-core", "bk-worker-oci"} <= names
    assert names.isdisjoint({"bk-worker-narrow", "bk-worker-wide", "lint"})

    installing = "bk: installing what bk-requirements.txt pins into .bk\n"
    first = run(folder, "plugin", "list")
    assert (first.returncode, first.stderr) == (0, installing)
    assert "bk-worker-narrow 0.1.0: narrow\n" in first.stdout
    assert "bk-worker-wide 0.1.0: wide\n" in first.stdout
    assert run(folder, "--version").stderr == ""
    module = folder / "plugins/wide/bk_worker_wide.py"
    module.write_text(module.read_text().replace('name = "wide"', 'name = "wider"'))
    edited = run(folder, "plugin", "list")
    assert (edited.stderr, "bk-worker-wide 0.1.0: wider\n" in edited.stdout) == ("", True)

    new = run(folder, "plugin", "new", "third", "--folder=../plugins")
    assert "./bk installs it when it runs next" in new.stdout
    (folder / "plugins/wide").rename(folder / "wide")
    without = run(folder, "plugin", "list")
    assert without.returncode == 36
    assert "bk-worker-narrow 0.1.0 requires bk-worker-wide, which is not installed." in without.stderr
    assert "error: the environment could not be made: the plugins in plugins/ could not be installed" in without.stderr
    narrow.write_text(narrow.read_text().replace(', "bk_worker.wide"', ""))
    mended = run(folder, "plugin", "list")
    assert (mended.returncode, mended.stderr) == (0, installing)
    assert "bk-worker-third 0.1.0: third\n" in mended.stdout
    assert "wide" not in mended.stdout

    narrow.write_text("[project\n")
    broken = run(folder, "--version")
    assert broken.returncode == 36
    assert "plugins/narrow/pyproject.toml: Expected ']'" in broken.stderr
    (folder / "plugins").rename(folder / "others")
    assert "third" not in run(folder, "plugin", "list").stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[project\n", "Expected ']' at the end of a table declaration (at line 1, column 9)"),
        ("[project.entry-points]\nbk = {}\n", "'project' has no 'name'"),
        ("project = 1\n", "'project' must be a table"),
        (
            "[project]\nname = 'a'\ndependencies = 'b'\nentry-points.bk.a = 'a'\n",
            "'dependencies' must be a list of requirements",
        ),
    ],
)
def test_a_plugin_of_the_repository_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plugins/narrow").mkdir(parents=True)
    (tmp_path / "plugins/narrow/pyproject.toml").write_text(text)
    with pytest.raises(BkError, match=re.escape(message)) as caught:
        own_plugins(tmp_path)
    assert (caught.value.reason, caught.value.where) == ("bad-plugin", "plugins/narrow/pyproject.toml")


def test_a_recipe_brings_the_launcher_that_it_runs(folder: Path) -> None:
    assert cli.main(["init", "--ci=gitlab", "--find_links=wheels"]) == 0
    assert {path.name for path in folder.iterdir()} >= {"bk", "bk-requirements.txt", ".gitlab-ci.yml"}
    assert os.access(folder / "bk", os.X_OK)


def test_wheels_that_pip_does_not_find(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "none").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert cli.main(["init", "--launcher", "--find_links=none"]) == 1
    printed = capfd.readouterr().err
    assert "ERROR: Cannot install bk-worker-containerd==" in printed
    assert "error: bk init: pip does not find a wheel of each package that the launcher installs: bk-" in printed
    assert "--find_links=FOLDER-or-URL" in printed
    assert {path.name for path in folder.iterdir()} == {"wheels", "none"}


def functions(text: str) -> dict[str, str]:
    """The functions of a shell script by their names."""
    return dict(re.findall(r"^(\w+)\(\) [{(]\n(.*?)^[})]$", text, re.MULTILINE | re.DOTALL))


def test_both_launchers_have_the_same_functions(repository: Path) -> None:
    """bk's own launcher and the one for others find Python, install packages and clean the environment in the same way."""
    own = functions((repository / "bk").read_text().replace("$root/.venv.log", "$root/.bk/log"))
    other = functions((repository / "bkrules/starter/launcher.sh").read_text())
    assert {"find_python", "missing_packages", "install_packages", "clean", "fail"} <= own.keys() & other.keys()
    assert [
        name for name in own.keys() & other.keys() - {"fresh", "make_environment"} if own[name] != other[name]
    ] == []
