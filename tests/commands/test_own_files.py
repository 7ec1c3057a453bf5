"""The options that name a user's own files: what is no such file is an error of usage that says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules import cli
from bkrules.commands.harness import add_overrides, overrides_of
from bkrules.commands.parser import Parser
from bkrules.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, below a workspace; `tool` in it is executable."""
    (tmp_path / "WORKSPACE.py").write_text("")
    made = tmp_path / "p"
    made.mkdir()
    executable(made / "tool", b"#!/bin/sh\n")
    monkeypatch.chdir(made)
    return made


def executable(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o755)


def tools(*words: str) -> dict[str, str]:
    parser = Parser(prog="bk build")
    add_overrides(parser)
    return dict(overrides_of(parser.parse_args(words), {}).tools)


@pytest.mark.parametrize("path", ["tool", "./tool", "../p/tool", "%workspace%/p/tool"])
def test_a_path_is_relative_to_the_current_folder_or_to_the_workspace(folder: Path, path: str) -> None:
    assert tools(f"--override_tool=runc={path}") == {"runc": str(folder / "tool")}


def test_the_last_of_several_counts_when_the_first_is_undone(folder: Path) -> None:
    executable(folder / "other", b"#!/bin/sh\n")

    assert tools("--override-tool=a=tool", "--override_tool=a=tool", "--override_tool=b=other") == {
        "a": str(folder / "tool"),
        "b": str(folder / "other"),
    }
    assert tools("--override_tool=a=tool", "--override_tool=a=") == {}
    assert tools("--override_tool=a=tool", "--override_tool=a=", "--override_tool=a=other")["a"].endswith("/other")
    with pytest.raises(UsageError, match=r"--override_tool=a is given twice: .*/tool and .*/other"):
        tools("--override_tool=a=tool", "--override_tool=a=other")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.write_bytes(b"#!/bin/sh\n"), "is not executable; make it so:  chmod"),
        (lambda path: executable(path, b""), "is neither an ELF binary nor a script"),
        (lambda path: executable(path, b"text"), "is neither an ELF binary nor a script"),
        (lambda path: executable(path, b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + b"\xff\xff"), "another architecture"),
        (lambda path: executable(path, b"\x7fELF"), "another architecture"),
    ],
)
def test_what_is_no_binary(folder: Path, make: Callable[[Path], object], message: str) -> None:
    make(folder / "it")

    with pytest.raises(UsageError) as caught:
        tools("--override_tool=runc=it")

    assert f"runc: {folder / 'it'} " in caught.value.message
    assert message in caught.value.message


def test_a_target_may_be_named(folder: Path) -> None:
    assert tools("--override_tool=runc=//p:tool", "--override_tool=a=//p") == {"runc": "//p:tool", "a": "//p:p"}
    with pytest.raises(UsageError, match="'//p:a b' is not a label"):
        tools("--override_tool=runc=//p:a b")


@pytest.mark.parametrize("text", ["", "runc", "=tool", "a b=tool", "a/b=tool", "../x=tool"])
def test_what_names_no_tool(folder: Path, text: str) -> None:
    with pytest.raises(UsageError, match="must be NAME=PATH"):
        tools(f"--override_tool={text}")


def test_a_wrong_line_of_an_rc_file_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder.parent / ".bkrc").write_text("build --override_tool=runc=%workspace%/none\n")

    assert cli.main(["--nohome_rc", "build", "//:all"]) == 2

    said = capfd.readouterr().err
    assert f"runc: {folder.parent}/none does not exist" in said
    assert f"{folder.parent}/.bkrc:1" in said


def modules(*words: str) -> dict[str, str]:
    parser = Parser(prog="bk build")
    add_overrides(parser)
    return dict(overrides_of(parser.parse_args(words), {}).modules)


def test_a_folder_replaces_a_module(folder: Path) -> None:
    assert modules("--override_module=a.test/b=..", "--override-module=a.test/c=") == {"a.test/b": str(folder.parent)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be MODULE=DIR, but was ''"),
        ("a.test/b", "must be MODULE=DIR"),
        ("=..", "must be MODULE=DIR"),
        ("a.test/b=none", "a.test/b: {}/none does not exist"),
        ("a.test/b=tool", "a.test/b: {}/tool is not a folder"),
    ],
)
def test_what_is_no_folder_of_a_module(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        modules(f"--override_module={text}")

    assert message.format(folder) in caught.value.message
