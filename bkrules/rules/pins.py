"""Pins by platform: an attribute `sha256` that has one for each."""

from __future__ import annotations

import platform
import re

from bkrules.analysis.context import Context
from bkrules.errors import MachineLacks


def pin_of_platform(context: Context, hint: str) -> str:
    """Return the SHA-256 of this platform; `hint` says how to find it.

    Raises LoadError for one that is none, and MachineLacks when only other platforms have one.
    """
    here = f"linux-{platform.machine()}"
    pins = context.attribute("sha256")
    pin = pins.get(here)
    if pin is None and pins:
        message = (
            f"{context.label} has no pin for this machine, {here!r}, only for {', '.join(map(repr, sorted(pins)))}"
        )
        where = context.target.location.of("sha256")
        raise MachineLacks("no-pin", message, where=where, hint=hint)
    if not isinstance(pin, str) or not re.fullmatch("[0-9a-f]{64}", pin):
        what = f"'sha256' must map {here!r} to 64 hexadecimal digits, but was {pin!r}"
        raise context.error("bad-pin", what if pins else "'sha256' is empty", "sha256", hint)
    return pin
