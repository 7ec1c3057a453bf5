"""Twice as many cells cost twice the work: counts of calls and bytes, never seconds."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

import growth
import pytest

from bkrules.build.analysis import Analysis, analyze_patterns
from bkrules.build.execute import Execution, Known
from bkrules.build.request import Options
from bkrules.model.action import Action, Text

Result = TypeVar("Result")
SIZES = (50, 100, 200, 400)
MARGIN = 1.05
"""How much more the work of the cells that come last may be than that of the first ones: containers grow in steps."""


def calls(work: Callable[[], Result]) -> tuple[int, Result]:
    """How many calls of functions, Python's and C's, some work makes, and its result."""
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return count, result


def analyzed(root: Path) -> Analysis:
    return analyze_patterns(str(root), ["//..."])


def looked_up(execution: Execution, wanted: Sequence[Action]) -> list[Known]:
    return [execution.look_up(action) for action in wanted]


def bytes_of_texts(analysis: Analysis) -> int:
    """The bytes that bk hashes for the keys of cells, each text once."""
    texts = {
        id(item): item for action in analysis.wanted().values() for _, item in action.inputs if isinstance(item, Text)
    }
    return sum(len(text.data) for text in texts.values())


def assert_linear(counts: list[int]) -> None:
    """Twice as many cells more have at most twice as much more work."""
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert all(after <= 2 * MARGIN * before for before, after in itertools.pairwise(steps)), counts


@pytest.mark.parametrize("form", growth.FORMS)
def test_analysis_and_keys(tmp_path: Path, form: str) -> None:
    work: list[int] = []
    sizes: list[int] = []
    keys: list[int] = []
    for cells in (10, *SIZES):  # the first one imports modules
        root = tmp_path / str(cells)
        growth.write(root, form, cells)
        count, analysis = calls(partial(analyzed, root))
        work.append(count)
        wanted = [action for action in analysis.wanted().values() if action.cell]
        assert len(wanted) == cells
        execution = Execution(analysis, Options(1, str(root / "cache")), print, show=False)
        count, known = calls(partial(looked_up, execution, wanted))
        assert len({one.key for one in known} - {None}) == cells
        keys.append(count)
        sizes.append(bytes_of_texts(analysis))
    for counts in (work, sizes, keys):
        assert_linear(counts[1:])
