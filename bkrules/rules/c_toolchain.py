"""`c_toolchain`: a pinned C compiler, for Go programs that need cgo."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.model.providers import CompilerInfo
from bkrules.model.rule import Rule
from bkrules.rules.wheels import fetched_wheel, wheel_attributes

COMPILER = "cc.whl"


def _analyze(context: Context) -> tuple[object, ...]:
    return (CompilerInfo(fetched_wheel(context)),)


C_TOOLCHAIN = Rule(
    "c_toolchain",
    "A C compiler with a C library, musl, for `cc` of go_binary: Zig, from the wheel that carries it in the Python package index.",
    wheel_attributes("The version of Zig, as in '0.17.0'.", "ziglang"),
    _analyze,
)
