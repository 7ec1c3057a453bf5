"""The lines of a running build."""

from __future__ import annotations

import dataclasses
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from spaces import wait_for
from terminals import Terminal

from bkrules.execution import doing
from bkrules.execution.result import Result
from bkrules.report.progress import Progress, Silence, _Running, shown


def test_a_row_says_what_runs_for_how_long_and_what_it_does(cell: Callable[..., Result]) -> None:
    action = dataclasses.replace(cell("passed").action, id="//t:tool", mnemonic="FetchFile", cell=None)
    title = action.title

    assert _Running(action, 100.0, None, title).at(101.5) == f"   1.5s  FetchFile {title}"
    doing.tell_bytes(action.id, 3 << 20, 12 << 20)
    assert (
        _Running(action, 100.0, 62.2, title).at(101.5) == f"   1.5s of about 62s  FetchFile {title} (3.0 of 12.0 MiB)"
    )
    doing.tell_bytes(action.id, 1 << 19, None)
    assert _Running(action, 100.0, 0.2, title).at(101.5) == f"   1.5s  FetchFile {title} (0.5 MiB)"
    progress = Progress(io.StringIO(), live=False)
    progress.start(action, 3.0)
    progress.end(dataclasses.replace(cell("passed"), action=action))
    assert doing.told(action.id) == ""


def test_a_log_says_what_runs_when_nothing_else_is_said(cell: Callable[..., Result]) -> None:
    """And no more once the build is over. A function tells what an action does when somebody looks."""
    tools = [dataclasses.replace(cell("passed").action, id=f"//t:{n}", mnemonic="GoBuild", cell=None) for n in range(5)]
    done = iter(range(212, 843))
    doing.tell(tools[0].id, lambda: f"{next(done)}/843 packages")
    log = io.StringIO()
    progress = Progress(log, live=False, silence=0.05)
    progress.total = 7
    for number, tool in enumerate(tools):
        progress.start(tool, 300.0 if number == 0 else None, f"//t:tool{number}")
    wait_for(lambda: "running" in log.getvalue())
    progress.close()
    lines = log.getvalue().splitlines()
    assert lines[:5] == [f"  GoBuild //t:tool{number}" for number in range(5)]
    rows = ["GoBuild //t:tool0 (212/843 packages) 0s of about 300s", "GoBuild //t:tool1 0s", "GoBuild //t:tool2 0s"]
    assert lines[5] == f"[0/7] running: {'; '.join(rows)}; and 2 more"
    for tool in tools:
        progress.count(tool)
    assert doing.told(tools[0].id) == ""


def test_silence_is_broken_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of half an hour that says nothing has a dozen lines in its log, whatever it says at first."""
    clock, spoken = [1000.0], list[float]()

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock[0] += timeout or 0.0
            if clock[0] == 1030.0:
                silence.broken()
                clock[0] += 5.0
            return clock[0] > 2800.0

    class Now(threading.Thread):
        def start(self) -> None:
            pass

    monkeypatch.setattr("bkrules.report.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("bkrules.report.progress.threading.Event", Over)
    monkeypatch.setattr("bkrules.report.progress.threading.Thread", Now)
    silence = Silence(lambda: spoken.append(clock[0] - 1030.0), 30.0)
    silence._watch()
    assert spoken == [30.0, 90.0, 210.0, 450.0, 750.0, 1050.0, 1350.0, 1650.0]


def test_a_command_without_a_build_shows_what_happens() -> None:
    """In a log by a line now and then; on a terminal in one row, of which nothing is left."""
    log = io.StringIO()
    with shown(log, lambda: "copies 1 of 2", silence=0.05):
        wait_for(lambda: bool(log.getvalue()))
    assert set(log.getvalue().splitlines()) == {"copies 1 of 2"}

    code = (
        "import sys; from bkrules.report.progress import shown\n"
        "with shown(sys.stderr, lambda: 'copies ' + 99 * '.'): input()\n"
        "print('over')"
    )
    environment = {**os.environ, "TERM": "xterm"}
    with Terminal([sys.executable, "-c", code], Path.cwd(), environment, columns=40) as terminal:
        terminal.until(f"copies {32 * '.'}\x1b[K")
        terminal.type("\n")
        assert terminal.end() == 0
    assert "\r\x1b[Kover\r\n" in terminal.shown
