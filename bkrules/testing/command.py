"""A command that a test may run: its words, its environment, and its result."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.plugin.cell_log import note

_ERROR = re.compile(r"error\b", re.IGNORECASE)


class CommandFailed(AssertionError):
    """A command of a test ended with another status than 0. The message begins with why, and ends with the whole output."""

    def __init__(self, arguments: Sequence[str], completed: subprocess.CompletedProcess[str]) -> None:
        output = f"{completed.stdout}{completed.stderr}"
        end = f"{arguments[0]} ended with exit status {completed.returncode}"
        super().__init__(f"{_cause(output)} ({end})\n$ {shlex.join(arguments)}\n{output}")
        self.completed = completed


def _cause(output: str) -> str:
    """Return the line of an output that says why a command failed: the last one with an error, or the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["no output"])[-1]


@dataclass(frozen=True)
class Command:
    """A command that is ready to run. The folder `logs` has the cell's log, which records each run."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    logs: Path

    def run(self, *, timeout: float | None = None, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """Run the command to its end, and print its output; `input` is its standard input.

        Raises CommandFailed when its status is not 0, and TimeoutExpired after `timeout` seconds.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
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
        """Start the command without waiting; `more` goes to Popen, such as `stdout=subprocess.PIPE`."""
        note(self.logs, f"$ {shlex.join(self.arguments)} &")
        return subprocess.Popen(self.arguments, env=self.environment, text=True, **more)
