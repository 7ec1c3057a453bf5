"""`test_suite`: matrices under one name."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.providers import MatrixInfo
from bkrules.model.rule import Attr, Rule


def _analyze(context: Context) -> tuple[object, ...]:
    labels = context.attribute("tests")
    if not labels:
        raise context.error("bad-attribute", "'tests' names no matrix", "tests")
    found = [context.provider("tests", label, MatrixInfo, "a test_matrix or a test_suite") for label in labels]
    return (MatrixInfo(tuple(dict.fromkeys(cell for one in found for cell in one.cells))),)


TEST_SUITE = Rule(
    "test_suite",
    "Matrices under one name, for `bk test`.",
    {"tests": Attr("labels", "Each a test_matrix or a test_suite.", required=True)},
    _analyze,
)
