"""`c_toolchain`: a pinned C compiler, for Go programs that need cgo."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.parameters import FetchWheel
from bkrules.model.providers import CompilerInfo
from bkrules.model.rule import Attr, Rule
from bkrules.rules.pins import pin_of_platform

COMPILER = "cc.whl"


def _analyze(context: Context) -> tuple[object, ...]:
    pin = pin_of_platform(context, "take it from `pip download --no-deps ziglang==VERSION` and sha256sum")
    requirement = f"{context.attribute('package')}=={context.attribute('version')}"
    action = context.declare("FetchWheel", FetchWheel(requirement, pin), {}, ["toolchain.whl"])
    return (CompilerInfo(context.output(action, "toolchain.whl")),)


C_TOOLCHAIN = Rule(
    "c_toolchain",
    "A C compiler with a C library, musl, for `cc` of go_binary: Zig, from the wheel that carries it in the Python package index.",
    {
        "version": Attr("string", "The version of Zig, as in '0.17.0'.", required=True),
        "sha256": Attr("dict", "The wheel's SHA-256 by platform, as in {'linux-x86_64': '...'}.", required=True),
        "package": Attr("string", "The package in the index.", default="ziglang"),
    },
    _analyze,
)
