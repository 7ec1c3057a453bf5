"""Servers that a test starts, as seen by bkrules.testing: ready, ended, or never there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bkrules.testing import s3
from bkrules.testing.started import wait_until_ready


def python(script: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen([sys.executable, "-c", script], stdout=output, stderr=output, stdin=subprocess.PIPE)


def test_the_first_answer_is_what_it_returns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with python("import sys; print('at 7', flush=True); sys.stdin.read()", log) as process:
        assert wait_until_ready(process, log.read_text, log) == "at 7\n"
        process.communicate()


def test_a_server_that_ends_says_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        python("raise SystemExit('no room')", log) as process,
        pytest.raises(RuntimeError, match="did not start: no room"),
    ):
        wait_until_ready(process, lambda: None, log)


def test_a_cell_without_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(RuntimeError, match="no versitygw: add its go_binary to 'tools' of the test_matrix"),
        s3.s3_server(tmp_path),
    ):
        pass
