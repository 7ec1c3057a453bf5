"""The C compiler of a GoBuild: one from a wheel, or one of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bkrules.model.action import FileNode, Node
from bkrules.rules.c_toolchain import COMPILER
from bkrules.runners.wheels import unpacked

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class Compiler(NamedTuple):
    """Variables for Go, folders that the sandbox shows, with whether they are writable, and links in it."""

    environment: Mapping[str, str] = {}
    binds: tuple[tuple[str, bool], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def compiler_of(inputs: Mapping[str, Node], cache: Path, goarch: str) -> Compiler:
    """Return the C compiler among the inputs of a build. Zig keeps the libraries that it has compiled next to Go's caches."""
    wheel = inputs.get(COMPILER)
    if isinstance(wheel, FileNode):
        folder, compiled = unpacked(wheel, cache, "ziglang/zig"), cache / "go/zig"
        compiled.mkdir(parents=True, exist_ok=True)
        command = f"'{folder}/ziglang/zig' cc -target {_ARCHITECTURES.get(goarch, goarch)}-linux-musl"
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(compiled))
        return Compiler({"CC": command, **caches}, ((str(folder), False), (str(compiled), True)))
    if any(path.startswith("host/") for path in inputs):  # it reads many files below /usr
        links = [(path, os.readlink(path)) for path in ("/bin", "/lib", "/lib64") if os.path.islink(path)]
        return Compiler(binds=(("/usr", False), ("/etc/alternatives", False)), links=tuple(links))
    return Compiler()
