"""Facts about a machine that help to compare two of them, and that tell nothing about its owner."""

from __future__ import annotations

import platform

from bkrules.system.files import text_or_nothing


def facts() -> dict[str, str]:
    """Return the distribution, kernel, architecture and Python of this machine."""
    names = dict(line.partition("=")[::2] for line in text_or_nothing("/etc/os-release").splitlines())
    return {
        "system": names.get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
