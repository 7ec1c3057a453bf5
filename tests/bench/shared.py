"""The shared parts of the benches: how they run, tables, a description of the machine, progress messages."""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import enclosure
from bench.kinds import Failed

from bkrules import __version__

_NUMBER = re.compile(r"(?=[\d-])[^a-z]*(to [\d.]+)?$")


def disk_cache() -> Path:
    """The user's disk cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bk")


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what is within, so that it removes what it has made."""
    before = {
        number: signal.signal(number, lambda received, _: sys.exit(128 + received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ran(bench: Callable[[Path], None]) -> int:
    """Run a bench in a temporary folder. Return its exit code: 0, or 1 when a side failed.

    The folder is next to the disk cache, so that files of the cache can be linked to it.
    """
    parent = disk_cache().parent
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with ended_in_order(), tempfile.TemporaryDirectory(prefix="bk-bench-", dir=parent) as folder:
            bench(Path(folder))
    except (Failed, enclosure.Broken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if _NUMBER.match(text) else text.ljust(width)
            for text, width in zip(row, widths, strict=True)
        )
        for row in rows
    )


def machine(loads: Sequence[float]) -> list[str]:
    """What was measured on: processors, memory, kernel, bk, Python, and the load before and after each round."""
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    during = f", {min(loads[1:]):.2f} to {max(loads[1:]):.2f} after each round" if loads[1:] else ""
    return [
        f"machine: {os.cpu_count()} x {model or platform.machine()}, {memory} GiB, {platform.system()} {platform.release()}",
        f"bk {__version__}, Python {platform.python_version()}",
        f"load average: {loads[0]:.2f} before{during}",
    ]


def say(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """A number of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, but was {text!r}")
    return int(text)


def numbers(text: str) -> list[int]:
    """Numbers of the command line, with commas between them."""
    return [positive(word) for word in text.split(",")]
