"""Names of files that bk writes: into the folder of a cell, and of what a test of Go reaches."""

from __future__ import annotations

KEY, PREVIOUS = "key.json", "previous_key.json"
"""The key with which a cell ran, and the key of its previous run."""
SHARED = "key.leaves"
"""The folder of a matrix with the leaves that keys of its cells share."""
RESULT = "result.json"
"""The result of the last run of a cell. It is an output, so a cached cell has it too."""
ATTEMPT = "attempt_"
"""The begin of the names of the folders with the logs of earlier attempts of a cell; the number follows, from 1."""
TIMELINE = "timeline.log"
"""All logs of a cell merged into one, where bk made it."""
WHOLE = "whole"
"""The begin of a name in the place of a digest: a test reaches more than its declarations show. The reason follows."""
