"""Results to report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bkrules.execution.result import CellReport, Result
from bkrules.model.action import Action, Cell
from bkrules.model.label import Label
from bkrules.model.status import FailureClass, Status

MATRIX = Label("t", "m")


@pytest.fixture
def cell() -> Callable[..., Result]:
    """Makes the result of a cell."""

    def make(
        status: str,
        worker: str = "oci",
        *,
        cached: bool = False,
        failure: str = "",
        reason: str = "",
        ran: CellReport | None = None,
        run: int = 0,
        runs: int = 0,
        jail: bool = False,
    ) -> Result:
        point = Cell(MATRIX, "test_it", worker, (("compression", "gzip"),), run, runs, jail=jail)
        action = Action(f"{MATRIX} {point.name}", MATRIX, "TestCell", ("{}",), (), ("test.log",), cell=point)
        return Result(action, Status(status), cached, 1.5, reason=reason, failure=FailureClass(failure), ran=ran)

    return make


@pytest.fixture
def step() -> Callable[..., Result]:
    """Makes the result of an ordinary action."""

    def make(status: str, failure: str = "") -> Result:
        label = Label("t", "tool")
        return Result(
            Action(f"{label} GoBuild", label, "GoBuild", (), (), ()), Status(status), failure=FailureClass(failure)
        )

    return make
