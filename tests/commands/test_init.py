"""`bk init`: what it writes, what it leaves as it is, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.commands import rc
from bkrules.starter import files
from bkrules.starter.files import CI

PLAIN = [".bkrc", ".gitignore", "WORKSPACE.py", "hello/BUILD.py", "hello/test_hello.py"]


def tree(root: Path) -> dict[str, str]:
    """The files below a folder and their texts."""
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which bk runs."""
    root = tmp_path / "my-shop"
    root.mkdir()
    monkeypatch.chdir(root)
    yield root


def test_the_files_of_an_empty_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init"]) == 0
    written = tree(folder)
    assert sorted(written) == PLAIN
    assert 'workspace(name = "my_shop")' in written["WORKSPACE.py"]
    printed = capsys.readouterr().out
    assert [name for name in PLAIN if f"wrote {name}\n" not in printed] == []
    assert printed.endswith("\n  bk test //hello:hello_matrix\n")
    assert "note: " not in printed
    understood = [line for text in written.values() for line in text.splitlines() if line and not line.startswith("#")]
    assert len(understood) <= 25


def test_the_files_are_formatted_and_its_options_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["init"])
    assert cli.main(["fmt", "--check"]) == 0
    options = [
        line[1:] for line in (folder / ".bkrc").read_text().splitlines() if line.startswith("#") and line[1] != " "
    ]
    assert len(options) == 3
    (folder / "user.bkrc").write_text("\n".join(options))
    parsers = cli._parser(cli.MODULES)[1]
    lines = rc.read(str(folder), None, ())
    assert [line.command for line in lines] == ["test", "build", "test"]
    applied, _ = rc.RcFiles(parsers, lines).applied("test", ["--config=ci"])
    assert "--test_output=errors" in [word for line in applied for word in line.words]


@pytest.mark.parametrize(
    ("words", "name"),
    [(["new/shop-2"], "shop_2"), (["new/Ünï.x"], "n_x"), (["new/2048", "--name", "game"], "game")],
)
def test_the_name_is_that_of_the_folder(folder: Path, words: list[str], name: str) -> None:
    assert cli.main(["init", *words]) == 0
    assert f'workspace(name = "{name}")' in (folder / words[0] / "WORKSPACE.py").read_text()


def test_a_folder_elsewhere_is_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "a/b", "--package", "tests/images"]) == 0
    assert "tests/images/BUILD.py" in tree(folder / "a/b")
    assert capsys.readouterr().out.endswith("\n  cd a/b && bk test //tests/images:hello_matrix\n")


def test_an_existing_repository_keeps_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {
        ".gitignore": "/user.bkrc\n*.o\n",
        "pyproject.toml": "[project]\n",
        "tests/test_a.py": "",
        "hello/main.go": "",
    }
    for name, text in own.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    assert cli.main(["init"]) == 0
    after = tree(folder)
    assert {name: after[name] for name in own} == own
    assert set(after) == {*own, *PLAIN}
    printed = capsys.readouterr().out
    assert "\n.gitignore was there, and stays as it is; add to it:  /bk-out\n" in printed
    assert "note: pytest on the whole repository collects hello/test_hello.py too" in printed


REFUSED = {
    "a workspace": ({"WORKSPACE.py": "x"}, [], ["my-shop is a workspace already", "--ci=buildkite|github|gitlab"]),
    "a package": ({"hello/BUILD.py": "x"}, [], ["my-shop has hello/BUILD.py already", "--package=PACKAGE"]),
    "two files": (
        {"p/BUILD.py": "", "p/test_hello.py": ""},
        ["--package=p"],
        ["p/BUILD.py and p/test_hello.py already"],
    ),
    "a launcher": ({"bk": "x"}, ["--launcher"], ["my-shop has bk already", "move it away"]),
    "no launcher": ({"bk": "x"}, ["--ci=github"], ["my-shop has bk already"]),
    "a recipe": ({".gitlab-ci.yml": "x"}, ["--ci=gitlab"], ["my-shop has .gitlab-ci.yml already"]),
    "an unknown CI": ({}, ["--ci=travis"], ["'travis'", "buildkite, github, gitlab"]),
    "a bad name": ({}, ["--name=my-shop"], ["--name: 'my-shop' cannot be the name", "letters, digits and _"]),
    "the module's name": ({}, ["--name=bk_tools"], ["'bk_tools' cannot be the name"]),
    "a bad package": ({}, ["--package=../up"], ["'../up' cannot be a package"]),
    "no package": ({}, ["--package="], ["'' cannot be a package"]),
    "a hidden package": ({}, ["--package=.hidden"], ["'.hidden' cannot be a package"]),
    "a file": ({"file": "x"}, ["file"], ["my-shop/file is not a folder"]),
    "a bad folder's name": ({}, ["2048"], ["the name of", "/2048: '2048' cannot be the name", "--name=NAME"]),
    "wheels for nothing": ({}, ["--find_links=."], ["--find_links is for a launcher"]),
    "no wheels": ({}, ["--launcher", "--find_links=none"], ["none is not a folder"]),
    "wheels outside": ({}, ["--launcher", "--find_links=.."], ["is outside of", "copy it into the repository"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(folder: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    own, words, expected = REFUSED[case]
    for name, text in own.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    assert cli.main(["init", *words]) == 2
    printed = capsys.readouterr().err
    assert [one for one in expected if one not in printed] == []
    assert tree(folder) == own


def test_a_dangling_link_is_there_too(folder: Path) -> None:
    (folder / "WORKSPACE.py").symlink_to(folder.parent / "elsewhere")
    assert cli.main(["init"]) == 2
    assert not (folder.parent / "elsewhere").exists()


def test_inside_another_workspace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["init"])
    capsys.readouterr()
    assert cli.main(["init", "part"]) == 0
    assert (
        f"note: {folder} is a workspace too; from now on, {folder}/part is not part of it\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize("ci", CI)
def test_a_recipe_for_a_workspace_that_is_there(folder: Path, ci: str) -> None:
    """It runs the launcher that is there, and names the matrix of the package."""
    (folder / "WORKSPACE.py").write_text("x")
    launcher = folder / "bk"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    assert cli.main(["init", f"--ci={ci}", "--package=tests/images"]) == 0
    written = tree(folder)
    assert set(written) == {"WORKSPACE.py", "bk", CI[ci]}
    assert "./bk test " in written[CI[ci]]
    assert "hello/" not in written[CI[ci]] and "//hello" not in written[CI[ci]]


def read_only(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder of a file system with little room that nobody else sees."""
    mounted = f"mount -t tmpfs -o size=64k {root} {root} && cd {root} && {script}"
    command = ["unshare", "--mount", "sh", "-c", mounted, sys.executable]
    return subprocess.run(command, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, check=False)


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    done = read_only(folder, 'mount -o remount,ro . && "$0" -I -m bkrules init')
    assert done.returncode == 36
    assert f"error: {folder}/WORKSPACE.py: Read-only file system\n  make it writable\n" in done.stderr


def test_a_full_disk_leaves_no_half_of_a_workspace(folder: Path) -> None:
    fill = "mkdir hello .github && head -c 60000 /dev/zero >full; cat /dev/zero >rest 2>/dev/null;"
    done = read_only(folder, f'{fill} "$0" -I -m bkrules init; code=$?; find . -type f | sort; exit $code')
    assert done.returncode == 36
    assert "No space left on device" in done.stderr
    assert done.stdout == "./full\n./rest\n"


def test_another_process_is_first(tmp_path: Path) -> None:
    """What appears meanwhile is not written over, and nothing else is written."""
    (tmp_path / "b").write_text("theirs")
    with pytest.raises(FileExistsError):
        files.write(tmp_path, [files.File("a", "ours"), files.File("b", "ours")])
    assert tree(tmp_path) == {"b": "theirs"}
