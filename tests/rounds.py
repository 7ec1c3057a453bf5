"""How many rounds a test with random inputs, or with chances of time, makes."""

from __future__ import annotations

import os


def rounds(usual: int) -> int:
    """Return `usual`, multiplied by the environment variable BK_ROUNDS: `BK_ROUNDS=20` searches twenty times as long.

    CONTRIBUTING.md names the numbers for a release.
    """
    return usual * int(os.environ.get("BK_ROUNDS", "1"))
