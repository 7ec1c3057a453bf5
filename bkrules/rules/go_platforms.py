"""The platforms for which a go_binary can be built."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.errors import did_you_mean
from bkrules.plugin.host import goarch

PLATFORMS = {
    "aix": ("ppc64",),
    "darwin": ("amd64", "arm64"),
    "dragonfly": ("amd64",),
    "freebsd": ("386", "amd64", "arm", "arm64"),
    "illumos": ("amd64",),
    "js": ("wasm",),
    "linux": (
        *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"),
        *("riscv64", "s390x"),
    ),
    "netbsd": ("386", "amd64", "arm", "arm64"),
    "openbsd": ("386", "amd64", "arm", "arm64", "ppc64", "riscv64"),
    "plan9": ("386", "amd64", "arm"),
    "solaris": ("amd64",),
    "wasip1": ("wasm",),
    "windows": ("386", "amd64", "arm64"),
}
"""The architectures of each system in `go tool dist list`, without Android and iOS, which mostly need an external linker."""


def platform_of(context: Context) -> tuple[str, str]:
    """Return Go's names of the system and the architecture of a go_binary; by default those of this machine.

    Raises LoadError for a platform that Go does not know, and for one that the C compiler in 'cc' does not compile for.
    """
    system, architecture = context.attribute("goos") or "linux", context.attribute("goarch") or goarch()
    if system not in PLATFORMS:
        hint = did_you_mean(system, PLATFORMS, "Go builds for")
        raise context.error("bad-attribute", f"'goos' cannot be {system!r}", "goos", hint)
    if architecture not in PLATFORMS[system]:
        what = f"Go does not build for {system}/{architecture}"
        hint = did_you_mean(architecture, PLATFORMS[system], f"for {system}, 'goarch' can be")
        raise context.error("bad-attribute", what, "goarch", hint)
    if is_foreign(system, architecture) and context.attribute("cc"):
        what = f"'cc' compiles for this machine alone, but the binary is for {system}/{architecture}"
        raise context.error(
            "bad-attribute", what, "cc", "leave out 'cc': Go itself builds for other platforms, without cgo"
        )
    return system, architecture


def is_foreign(system: str, architecture: str) -> bool:
    """Return whether a platform is another one than that of this machine, by Go's names."""
    return (system, architecture) != ("linux", goarch())
