"""Failures on one screen: excerpts of logs, equal failures as one, and the axis value that they share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bkrules.execution.result import Result
from bkrules.report.build_result import BuildResult
from bkrules.report.failures import blame, cause, excerpt, failures, traceback_in
from bkrules.report.summary import summarize

LOG = """============================= test session starts ==============================
collected 1 item

t/test_hello.py F                                                        [100%]

=================================== FAILURES ===================================
__________________________________ test_hello __________________________________

sandbox = Sandbox(name='test_hello/worker=oci', worker='oci', axes={})

    def test_hello(sandbox):
        one = 1
        two = 2
        three = 3
        four = 4
>       assert read(sandbox) == "helo"
E       AssertionError: assert 'hello' == 'helo'
E
E         - helo
E         + hello

t/test_hello.py:9: AssertionError
----------------------------- Captured stdout call -----------------------------
$ buildctl build
#1 load
#2 run
#3 DONE

=========================== short test summary info ============================
FAILED t/test_hello.py::test_hello - AssertionError: assert 'h...
============================== 1 failed in 0.94s ===============================
"""
SECTION = [
    "        three = 3",
    "        four = 4",
    '>       assert read(sandbox) == "helo"',
    "E       AssertionError: assert 'hello' == 'helo'",
    "E",
    "E         - helo",
    "E         + hello",
    "t/test_hello.py:9: AssertionError",
    "----------------------------- Captured stdout call -----------------------------",
    "#1 load",
    "#2 run",
    "#3 DONE",
]
WORKERS = ("oci", "oci+stargz", "containerd", "containerd+stargz", "rootless", "dockerd-containerd")
REASON = "t/test_hello.py:9: assert 'hello' == 'helo'"


@pytest.fixture
def logs(tmp_path: Path) -> Callable[..., Path]:
    """Writes logs of a cell; returns the folder of all outputs."""

    def write(result: Result, **texts: str) -> Path:
        cell = result.action.cell
        assert cell is not None
        folder = tmp_path / cell.matrix.package / cell.matrix.name / cell.folder
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / f"{name}.log").write_text(text)
        return tmp_path

    return write


def test_the_traceback_of_pytest_is_found() -> None:
    assert traceback_in(LOG) == SECTION


def pytests_own(folder: Path) -> str:
    """The output of a pytest that runs test_it.py in a folder."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=.", "test_it.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_an_error_in_a_library_shows_the_line_of_the_test(tmp_path: Path) -> None:
    """The section that pytest really prints of it ends with the line of pathlib."""
    (tmp_path / "helper.py").write_text("def read(path):\n    return path.read_text()\n")
    text = "from helper import read\n\ndef test_it(tmp_path):\n    assert read(tmp_path / 'none') == ''\n"
    (tmp_path / "test_it.py").write_text(text)
    section = traceback_in(pytests_own(tmp_path))

    assert section[:3] == ["helper.py:2: in read", "    return path.read_text()", " " * 11 + "^" * 16]
    assert section[3].startswith("E       FileNotFoundError: [Errno 2] No such file or directory")
    assert section[4].endswith(": FileNotFoundError")
    assert len(section) == 5


def test_an_error_in_a_library_that_the_test_calls_itself(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import json\n\ndef test_it():\n    a = 1\n    json.loads('[')\n")
    section = traceback_in(pytests_own(tmp_path))

    assert section[:4] == ["    def test_it():", "        a = 1", ">       json.loads('[')", "test_it.py:5:"]
    assert section[4].split(maxsplit=1)[1].startswith("json.decoder.JSONDecodeError: Expecting value")


def test_a_long_traceback_keeps_its_place() -> None:
    long = LOG.replace("E         + hello\n", "".join(f"E         line {number}\n" for number in range(100)))

    section = traceback_in(long)

    assert len(section) == 24
    assert section[2:4] == SECTION[2:4]
    assert section[-6:] == ["... 88 more lines", *SECTION[-5:]]


@pytest.mark.parametrize(
    "log", ["", "no pytest\n", "==== FAILURES ====", "==== FAILURES ====\n", "=== ERRORS ===\n_\n\n\n"]
)
def test_a_log_without_a_traceback_has_none(log: str) -> None:
    assert traceback_in(log) == []


def test_equal_failures_are_one_block(cell: Callable[..., Result], logs: Callable[..., Path]) -> None:
    results = [cell("failed", worker, failure="test", reason=REASON) for worker in WORKERS]
    out = logs(results[0], test=LOG, buildkitd='level=debug msg="layer"\nlevel=error msg="no space"\n')

    text = summarize(BuildResult(tuple(results), 1.0), out, width=80)

    lines = text.splitlines()
    assert len(lines) <= 29, "a terminal has 30 lines"
    assert max(len(line) for line in lines if str(out) not in line) < 130
    assert lines[0] == " test_it/worker=oci/compression=gzip and 5 more ".center(80, "_")
    assert [line for line in lines if "level=" in line] == ['    level=error msg="no space"']
    assert text.count("assert read(sandbox)") == 1
    assert f"FAILED: 6 cells: {REASON}" in lines
    assert f"  test_it/compression=gzip on {', '.join(WORKERS)}" in lines
    assert f"  see {out}/t/m/test_it/worker=oci/compression=gzip/test.log" in lines
    assert "  try: bk shell --at_failure '//t:m[test_it/worker=oci/compression=gzip]'" in lines
    assert lines[-2] == "6 cells: 6 failed (0 cached, 6 not); 0 actions: 0 ran, 0 cached"


def test_other_reasons_are_other_failures(cell: Callable[..., Result]) -> None:
    results = [cell("failed", "a", reason="x"), cell("failed", "b", reason="y"), cell("timed out", "c", reason="x")]
    assert [failure.results for failure in failures([*results, cell("passed", "d")])] == [(one,) for one in results]


def test_an_infrastructure_failure_has_the_ends_of_all_logs(
    cell: Callable[..., Result], logs: Callable[..., Path]
) -> None:
    result = cell("failed", failure="infrastructure", reason="buildkitd ended")
    out = logs(result, test=LOG, buildkitd="first\nlast\n", timeline="merged\n")

    text = excerpt(failures([result])[0], out)

    assert text.splitlines()[-3:] == ["  buildkitd.log", "    first", "    last"]
    assert "FAILED t/test_hello.py::test_hello" in text
    assert "merged" not in text
    assert excerpt(failures([cell("failed", "other")])[0], out) == ""


def test_lines_are_cut_at_the_width(cell: Callable[..., Result], logs: Callable[..., Path]) -> None:
    result = cell("failed", failure="test")
    text = excerpt(failures([result])[0], logs(result, test="x" * 100), width=20)
    assert text.splitlines()[1] == "x" * 17 + "..."


def with_axis(result: Result, choice: str) -> Result:
    assert result.action.cell is not None
    cell = replace(result.action.cell, axes=(("compression", choice),))
    return replace(result, action=replace(result.action, cell=cell))


def test_the_axis_value_that_only_failures_have_is_named(cell: Callable[..., Result]) -> None:
    bad = [with_axis(cell("failed", worker, reason="x"), "zstd") for worker in ("oci", "rootless")]
    good = [with_axis(cell("passed", worker), "gzip") for worker in ("oci", "rootless")]
    [failure] = failures(bad)

    assert blame(failure, [*bad, *good]) == ["compression=zstd"]
    assert "\n  only with compression=zstd\n" in f"{cause(failure, [*bad, *good], '')}\n"
    assert blame(failure, bad) == [], "nothing passed"
    also = with_axis(cell("passed", "containerd"), "zstd")
    assert blame(failure, [*bad, *good, also]) == [], "one of them passed"
    other = with_axis(cell("failed", "containerd", reason="y"), "gzip")
    assert blame(failure, [*bad, *good, other]) == [], "another one failed otherwise"
    one = cell("failed", "rootless", reason="x")
    assert blame(failures([one])[0], [one, cell("passed"), cell("skipped", "c")]) == ["worker=rootless"]
