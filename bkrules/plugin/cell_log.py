"""The log of a cell itself: events of bk and the test, in addition to the logs of the daemons."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

NAME = "cell.log"


def note(logs: Path, message: str) -> None:
    """Append a line with the time to the cell's log in the folder `logs`, in the format of the daemons."""
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    with suppress(OSError), open(logs / NAME, "a") as file:  # a full folder is reported elsewhere
        file.write(f'time="{time}" level=info msg={json.dumps(message)}\n')
