"""A command that a test may run: its words, its environment, and what comes of it."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.plugin.cell_log import note


class CommandFailed(AssertionError):
    """A command that a test ran ended with another status than 0. Its message holds all that it printed."""

    def __init__(self, arguments: Sequence[str], completed: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{shlex.join(arguments)}: exit status {completed.returncode}\n{completed.stdout}{completed.stderr}"
        )
        self.completed = completed


@dataclass(frozen=True)
class Command:
    """A command that is ready to be run. The folder `logs` has the cell's log, which tells of each run."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    logs: Path

    def run(self, *, timeout: float | None = None, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """Run it to its end, and print what it printed; `input` is what it reads.

        Raises CommandFailed when its status is not 0, and TimeoutExpired after `timeout` seconds.
        """
        words = shlex.join(self.arguments)
        note(self.logs, f"$ {words}")
        began = time.monotonic()
        try:
            completed = subprocess.run(
                self.arguments,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=timeout,
                input=input,
                check=False,
            )
        except subprocess.TimeoutExpired:
            note(self.logs, f"killed after {timeout:g} s: {words}")
            raise
        note(self.logs, f"exit status {completed.returncode} after {time.monotonic() - began:.3f} s: {words}")
        print(f"$ {words}\n{completed.stdout}{completed.stderr}", end="")
        if completed.returncode:
            raise CommandFailed(self.arguments, completed)
        return completed

    def start(self, **more: Any) -> subprocess.Popen[str]:
        """Start it, and do not wait; `more` goes to Popen, such as `stdout=subprocess.PIPE`."""
        note(self.logs, f"$ {shlex.join(self.arguments)} &")
        return subprocess.Popen(self.arguments, env=self.environment, text=True, **more)
