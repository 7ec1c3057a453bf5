"""Names of the files that bk writes into the folder of a cell."""

from __future__ import annotations

KEY, PREVIOUS = "key.json", "previous_key.json"
"""The key by which a cell ran, and the key of the run before."""
TIMELINE = "timeline.log"
"""All logs of a cell as one, where that was made."""
