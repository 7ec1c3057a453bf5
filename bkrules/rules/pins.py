"""Pins by platform: an attribute `sha256` that has one for each."""

from __future__ import annotations

import platform
import re

from bkrules.analysis.context import Context


def pin_of_platform(context: Context, hint: str) -> str:
    """Return the SHA-256 of this platform. Raises LoadError when there is none; `hint` says how to find it."""
    here = f"linux-{platform.machine()}"
    pin = context.attribute("sha256").get(here)
    if not isinstance(pin, str) or not re.fullmatch("[0-9a-f]{64}", pin):
        what = (
            f"'sha256' has nothing for {here!r}"
            if pin is None
            else (f"'sha256' must map {here!r} to 64 hexadecimal digits, but was {pin!r}")
        )
        raise context.error("bad-pin", what, "sha256", hint)
    return pin
