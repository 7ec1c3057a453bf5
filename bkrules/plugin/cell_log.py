"""The log of a cell itself: what bk and the test did in it, beside what the daemons say in theirs."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

NAME = "cell.log"


def note(logs: Path, message: str) -> None:
    """Append a line with the time to the cell's log in the folder `logs`, in the format of the daemons."""
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    with suppress(OSError), open(logs / NAME, "a") as file:  # when the folder is full, that is said elsewhere
        file.write(f'time="{time}" level=info msg={json.dumps(message)}\n')
