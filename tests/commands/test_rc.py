"""`.bkrc`: what its lines mean for a command line, and what is wrong with them; without a build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.commands import rc
from bkrules.errors import UsageError

Options = Callable[..., list[str]]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """The words that a command line comes to, with these lines in the workspace's file and those in the home folder's."""

    def apply(text: str, *words: str, home: str = "") -> list[str]:
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "root/.bkrc").write_text(text)
        (tmp_path / "home/.bkrc").write_text(home)
        commands = cli._parser(cli.MODULES)[1]
        lines = rc.read(str(tmp_path / "root"), str(tmp_path / "home"), ())
        found, rest = rc.RcFiles(commands, lines).applied(words[0], words[1:])
        return [*(word for line in found for word in line.words), *rest]

    return apply


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("build --jobs=4", ["build", "//a"], ["--jobs=4", "//a"]),
        ("build --jobs 4 -k", ["build", "//a"], ["--jobs", "4", "-k", "//a"]),
        ("build -j4", ["build", "//a", "-j2"], ["-j4", "-j2", "//a"]),
        ("build --jobs=4", ["test", "//a"], ["--jobs=4", "//a"]),
        ("test --jobs=4", ["build", "//a"], ["//a"]),
        ("test --jobs=4\nbuild --jobs=2", ["test", "//a"], ["--jobs=2", "--jobs=4", "//a"]),
        ("build --jobs=2\nbuild --jobs=4", ["build", "//a"], ["--jobs=2", "--jobs=4", "//a"]),
        ("build --jobs=2\ncommon --disk_cache=/x", ["build", "//a"], ["--disk_cache=/x", "--jobs=2", "//a"]),
        ("common --disk_cache=/x", ["query", "//a"], ["//a"]),
        ("common --disk_cache=/x", ["reap"], ["--disk_cache=/x"]),
        ("build --jobs=4 --disk_cache=/x", ["aquery", "//a"], ["--disk_cache=/x", "//a"]),
        ("test --test_env=A=b --jobs=4", ["why", "//a"], ["--test_env=A=b", "//a"]),
        ("test --test_env=A=b", ["aquery", "//a"], ["//a"]),
        ("\n# a remark\n\n  build   --jobs=4 # another\n", ["build", "//a"], ["--jobs=4", "//a"]),
        ("build --jobs=4 \\\n  -k\ntest -j1", ["test", "//a"], ["--jobs=4", "-k", "-j1", "//a"]),
        ("build --test_env='A=b c' --test_env=D=\"e # f\"", ["build"], ["--test_env=A=b c", "--test_env=D=e # f"]),
        ("build --cache_test_results", ["build", "//a"], ["-t", "//a"]),
        ("build --keep-going", ["build", "//a"], ["--keep_going", "//a"]),
        ("", ["build", "//a", "-j", "2", "//b", "-k", " -//c"], ["-j", "2", "-k", "//a", "//b", " -//c"]),
        ("build:ci -k", ["build", "//a"], ["//a"]),
        ("build:ci -k\nbuild -j1", ["build", "--config=ci", "//a"], ["-j1", "-k", "//a"]),
        ("build:ci -k", ["build", "//a", "--config", "ci", "-j2"], ["-k", "-j2", "//a"]),
        ("build:ci -j4", ["build", "-j2", "--config=ci"], ["-j2", "-j4"]),
        ("build:ci -j4", ["build", "--config=ci", "-j2"], ["-j4", "-j2"]),
        ("test:ci -t\nbuild:ci -k\ncommon:ci -j1", ["test", "--config=ci"], ["-j1", "-k", "-t"]),
        ("build --config=ci -j2\nbuild:ci -k", ["build"], ["-k", "-j2"]),
        ("build:ci --config=slow\nbuild:slow -j1", ["build", "--config=ci"], ["-j1"]),
        ("build:a -j1\nbuild:b -j2", ["build", "--config=b", "--config=a"], ["-j2", "-j1"]),
    ],
)  # fmt: skip
def test_what_lines_mean(options: Options, text: str, words: list[str], expected: list[str]) -> None:
    assert options(text, *words) == expected


def test_the_home_folder_counts_more_than_the_workspace_and_the_command_line_most(options: Options) -> None:
    assert options("build -j1", "build", "-j3", home="build -j2") == ["-j1", "-j2", "-j3"]
    assert options("test -j1", "test", home="build -j2") == ["-j2", "-j1"]
    assert options("build:ci -j1", "build", "--config=ci", home="build:ci -j2") == ["-j1", "-j2"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("build --jobs=4\nbuild --jbos=4", 2, "bk build has no option --jbos"),
        ("common --jbos=4", 1, "no command of bk has the option --jbos"),
        ("query --jobs=4", 1, "bk query has no option --jobs"),
        ("\n\nbiuld --jobs=4", 3, "there is no command 'biuld'"),
        ("build //targets:all", 1, "'//targets:all' is not an option"),
        ("build:ci --nonsense", 1, "bk build has no option --nonsense"),
        ("build --config=ci", 1, "no .bkrc has a line for build:ci"),
        ("build:a --config=b\nbuild:b --config=a\nbuild --config=a", 2, "--config=a needs itself: a -> b -> a"),
        ("build --test_env='A=b", 1, "unclosed quote: No closing quotation"),
        ("import %workspace%/more.rc", 1, "file not found"),
        ("import more.rc", 1, "'more.rc' is not an absolute path"),
        ("import", 1, "import takes one file"),
        ("import %workspace%/.bkrc", 1, "imports itself"),
        ("build -k \\\n  -j4\nbuild --nonsense", 3, "bk build has no option --nonsense"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    options: Options, tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        options(text, "build", "//a")

    assert message in caught.value.message
    assert caught.value.where == f"{tmp_path}/root/.bkrc:{line}"
    assert caught.value.exit_code == 2


def test_a_configuration_that_is_not_there(options: Options) -> None:
    with pytest.raises(UsageError, match=r"no \.bkrc has a line for build:fats") as caught:
        options("build:fast -k", "build", "--config=fats")
    assert "did you mean 'fast'" in caught.value.hint


def test_a_near_miss_is_named(options: Options) -> None:
    with pytest.raises(UsageError) as caught:
        options("build --remote_cahce=http://secret@host", "build")
    assert caught.value.hint == "did you mean --remote_cache?"
    assert "secret" not in str(caught.value)


def test_imports(options: Options, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/more.rc").write_text("build -j2\ntry-import %workspace%/none.rc\n")
    (tmp_path / "other.rc").write_text("build -j3\n")
    text = f"build -j1\nimport %workspace%/more.rc\ntry-import {tmp_path}/other.rc\ntry-import {tmp_path}/none.rc\nbuild -j4\n"

    assert options(text, "build") == ["-j1", "-j2", "-j3", "-j4"]


def test_more_files_are_read_after_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"build --test_env={name}=1\n")
    paths = [str(tmp_path / name) for name in ("a", "b")]

    assert [line.words for line in rc.read(None, None, paths)] == [("--test_env=a=1",), ("--test_env=b=1",)]
    assert [line.words for line in rc.read(None, None, [paths[0], "/dev/null", paths[1]])] == [("--test_env=a=1",)]
    with pytest.raises(UsageError, match="file not found"):
        rc.read(None, None, [str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["build", "//a"], ([], "build", ["//a"])),
        (["--norc", "build", "//a"], (["--norc"], "build", ["//a"])),
        (["--bkrc", "x", "--nohome_rc", "build"], (["--bkrc", "x", "--nohome_rc"], "build", [])),
        (["--bkrc=x", "build", "build"], (["--bkrc=x"], "build", ["build"])),
        (["--help"], (["--help"], "", [])),
        ([], ([], "", [])),
    ],
)
def test_a_command_line_has_three_parts(words: list[str], parts: tuple[list[str], str, list[str]]) -> None:
    assert rc.split(cli._parser(cli.MODULES)[0], words) == parts


def test_what_a_file_switches_on_the_command_line_switches_off() -> None:
    parser = cli._parser(cli.MODULES)[0]
    assert parser.parse_args(["build", "-k", "--nokeep_going", "//a"]).keep_going is False
    assert parser.parse_args(["build", "--nokeep_going", "--keep_going", "//a"]).keep_going is True
    assert parser.parse_args(["build", "//a"]).keep_going is False
