"""The lines of a running build."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

from bkrules.execution import doing
from bkrules.execution.result import Result
from bkrules.report.progress import Progress, _Running


def test_a_row_says_what_runs_for_how_long_and_what_it_does(cell: Callable[..., Result]) -> None:
    action = dataclasses.replace(cell("passed").action, id="//t:tool", mnemonic="FetchFile", cell=None)
    title = action.title

    assert _Running(action, 100.0, None).at(101.5) == f"   1.5s  FetchFile {title}"
    doing.tell_bytes(action.id, 3 << 20, 12 << 20)
    assert _Running(action, 100.0, 62.2).at(101.5) == f"   1.5s of about 62s  FetchFile {title} (3.0 of 12.0 MiB)"
    doing.tell_bytes(action.id, 1 << 19, None)
    assert _Running(action, 100.0, 0.2).at(101.5) == f"   1.5s  FetchFile {title} (0.5 MiB)"
    progress = Progress(io.StringIO(), live=False)
    progress.start(action, 3.0)
    progress.end(dataclasses.replace(cell("passed"), action=action))
    assert doing.told(action.id) == ""
