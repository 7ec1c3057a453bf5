"""pytest's own reports on the test of a cell, as the cell has written them: untrusted, and only there when it ran."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.system.files import read_regular
from bkrules.testing.pytest_text import REPORTS

_MOST = 16 << 20
"""The most bytes of them that bk reads."""


@dataclass(frozen=True)
class PytestReports:
    """The exit code of pytest, and the reports in its order, each as pytest writes it for another process."""

    exit_code: int
    reports: Sequence[Mapping[str, Any]] = ()


def read_reports(logs: Path) -> PytestReports | None:
    """Return the reports among the logs of a cell; None when there are none, or none that bk can read."""
    try:
        data = read_regular(logs / REPORTS, _MOST + 1)
        document = json.loads(data) if len(data) <= _MOST else {}
        code, reports = document["exit_code"], document["reports"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(code, int) or not isinstance(reports, list) or not all(isinstance(one, dict) for one in reports):
        return None
    return PytestReports(code, reports)
