"""The distribution of each worker, as far as this workspace has ever seen it.

A new environment only has what is declared somewhere. For a worker that existed before, the error can then name its
distribution.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace

from bkrules.plugin.installed import Plugins
from bkrules.system.files import read_regular

NAME = "plugins"


def remembered(state: str) -> dict[str, str]:
    """Return the distribution of each worker, `name version`, from the folder `state`; empty when none is known."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_regular(f"{state}/{NAME}"))
        if isinstance(found, dict):
            return {str(worker): str(distribution) for worker, distribution in found.items()}
    return {}


def remember(state: str, plugins: Plugins) -> Plugins:
    """Add these workers to those remembered in the folder `state`. Return the plugins with all of them.

    When the folder cannot be written to, nothing is remembered.
    """
    known = remembered(state)
    found = replace(plugins, before={**known, **plugins.distributions})
    if found.before != known:
        scratch = f"{state}/{NAME}.{os.getpid()}.tmp"
        with suppress(OSError):
            os.makedirs(state, exist_ok=True)
            with open(scratch, "w", encoding="utf-8") as file:
                json.dump(found.before, file, sort_keys=True)
            os.replace(scratch, f"{state}/{NAME}")
    return found
