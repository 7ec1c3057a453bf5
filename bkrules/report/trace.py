"""The trace of a build in a page: the spans of a file that `--profile` wrote."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

from bkrules.errors import UsageError
from bkrules.system.files import open_regular

MOST_SPANS = 4000
"""The most spans of a page; the longest are kept."""
_MOST_BYTES = 256 << 20
Span = tuple[str, str, str, int, int]
"""The thread, the name and the category of a span, its start, and its length in microseconds."""


def read_spans(path: str) -> list[Span]:
    """Return the spans of a Chrome trace in the order of their starts. Raises UsageError for a file that is none."""
    try:
        with open_regular(path) as raw, gzip.open(raw) if path.endswith(".gz") else raw as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES >> 20} MiB")
        events = json.loads(data)["traceEvents"]
        threads = {event["tid"]: str(event["args"]["name"]) for event in events if event.get("name") == "thread_name"}
        spans = [_span(event, threads) for event in events if event.get("ph") == "X"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        hint = "name a file that `bk test --profile=FILE` wrote"
        raise UsageError("no-profile", f"--profile: {os.fspath(path)} cannot be read: {error}", hint=hint) from error
    longest = sorted(spans, key=lambda span: -span[4])[:MOST_SPANS]
    return sorted(longest, key=lambda span: span[3])


def _span(event: dict[str, Any], threads: dict[Any, str]) -> Span:
    """Return the span of an event."""
    thread = event["tid"]
    name = threads.get(thread, str(thread))
    return name, str(event["name"]), str(event.get("cat", "")), int(event["ts"]), max(0, int(event["dur"]))
