"""Names of the files that bk writes into the folder of a cell."""

from __future__ import annotations

KEY, PREVIOUS = "key.json", "previous_key.json"
"""The key with which a cell ran, and the key of its previous run."""
TIMELINE = "timeline.log"
"""All logs of a cell merged into one, where bk made it."""
