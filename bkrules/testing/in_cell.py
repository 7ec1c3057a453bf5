"""pytest inside a cell: one test function, one outcome."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import default_plugins

from bkrules.plugin.worker import Backend
from bkrules.testing import pytest_plugin
from bkrules.testing.sandbox import Sandbox

ROOT = "/src"
UNUSED = ("cacheprovider", "debugging", "doctest", "junitxml", "pastebin", "setuponly", "setupplan", "stepwise")


class _Recorder:
    """Collects what became of each test item."""

    def __init__(self) -> None:
        self.passed = 0
        self.failures: list[str] = []
        self.skips: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid}: {_last_line(report)}")
        elif report.skipped:
            self.skips.append(str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr))
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid}: {str(report.longrepr).strip().splitlines()[-1]}")

    def outcome(self, exit_code: int) -> dict[str, Any]:
        """The cell's status. A test that did not run has not passed."""
        if self.failures:
            return {"status": "failed", "class": "test", "reason": self.failures[0]}
        if exit_code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            return {"status": "failed", "class": "test", "reason": f"pytest ended with exit status {exit_code}"}
        if self.passed:
            return {"status": "passed"}
        if self.skips:
            return {"status": "skipped", "class": "skip", "reason": self.skips[0].removeprefix("Skipped: ")}
        return {"status": "failed", "class": "test", "reason": "the test was not collected, so nothing ran"}


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return str(text).strip().splitlines()[0]


def preload() -> None:
    """Import all that pytest would import when it is called, so that a fork of this process finds it there."""
    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")


def main(backend: Backend, spec: Mapping[str, Any], outcome: str) -> int:
    """Run the test that `spec` names and write what came of it to the file `outcome`; pytest's exit code."""
    pytest_plugin.CURRENT[:] = [Sandbox(spec["name"], spec["worker"], backend, spec["axes"], seen=spec.get("seen", {}))]
    sys.path.insert(0, ROOT)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    recorder = _Recorder()
    arguments = [
        *(word for name in UNUSED for word in ("-p", f"no:{name}")),
        *("-c", "/dev/null", f"--rootdir={ROOT}", f"--confcutdir={ROOT}"),
        *("-rA", "--color=no", "--basetemp=/tmp/pytest", spec["test"]),
    ]
    code = int(pytest.main(arguments, plugins=[pytest_plugin, recorder]))
    result = recorder.outcome(code)
    Path(outcome).write_text(json.dumps(result))
    return 0 if result["status"] in ("passed", "skipped") else 1
