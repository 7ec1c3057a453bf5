"""Pins of Go modules: the go.mod and go.sum from which a go_binary builds a package of another module.

bk knows which module has a package, and does not ask for it: `go get -tool` asks a proxy for each folder above the package, and
ends when an answer is neither yes nor no. Loading the packages as their builds do completes both files.
"""

from __future__ import annotations

import difflib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bkrules.build.pinned_go import PinnedGo
from bkrules.cache import atomic
from bkrules.errors import ActionFailed, BkError, LoadError, MachineLacks, did_you_mean
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.model.semver import version_of
from bkrules.plugin.host import goarch
from bkrules.rules.go import sum_of
from bkrules.system.files import read_text
from bkrules.system.network import no_network

MODULE = "bk.invalid/pins"
"""The name of a new go.mod, which is no module that anybody imports."""
OFFLINE = {"GOPROXY": "off", "GOSUMDB": "off"}
_GO = "1.24"
"""The version of the language in a new go.mod, the first with tools. Go raises it to what the packages need."""
_LACKING = re.compile(r"module lookup disabled by GOPROXY=off")
_INCOMPLETE = re.compile(
    r"missing go\.sum entry|updates to go\.mod needed|disabled by -mod=readonly|no required module"
)
_ABSENT = re.compile(r": 4\d\d |no such file or directory|unknown revision|not found|should be v\d|version \S+ invalid")
_MOVED = re.compile(r"checksum mismatch|SECURITY ERROR")
_SUMS = re.compile(r"downloaded:|go\.sum:|.*verifying ")
_PROGRESS = ("go: downloading ", "go: finding ")
_NO_PACKAGE = re.compile(
    r"does not contain package|no matching versions for query|cannot find module providing package"
)
_NOTHING = "{{/**/}}"
"""A template by which `go list` prints nothing."""
_SHOWN = 6
"""How many changed lines of a file a report shows."""


class Load(NamedTuple):
    """How packages are built: as tests or not, the tags, cgo as `1` or `0`, and the platform."""

    test: bool
    tags: str
    cgo: str
    system: str
    architecture: str


@dataclass(frozen=True)
class Pins:
    """A go.mod, and the go_binary targets that build from the modules that it pins."""

    mod: Label
    targets: tuple[Target, ...]

    @property
    def modules(self) -> dict[str, str]:
        """The version of each module. Raises LoadError when two targets disagree."""
        found: dict[str, tuple[str, Target]] = {}
        for target in self.targets:
            module, version = target.attributes["module"], target.attributes["version"]
            if not version:
                what = f"{target.label}: 'version' is required with module {module!r}"
                raise LoadError("missing-attribute", what, where=target.location.of("module"))
            before, other = found.setdefault(module, (version, target))
            if before != version:
                what = f"{target.label} builds {module} {version}, but {other.label} {before}, with the same {self.mod.path}"
                hint = "give each its own go.mod, or both one version"
                raise LoadError("pin-mismatch", what, where=target.location.of("version"), hint=hint)
        return {module: version for module, (version, _) in sorted(found.items())}

    @property
    def toolchain(self) -> Label:
        """The toolchain of the first target."""
        label: Label = self.targets[0].attributes["toolchain"]
        return label

    def packages(self, *, test: bool) -> list[str]:
        """Return the import paths of the commands, or of the packages whose tests are built."""
        return sorted({_package(target) for target in self.targets if target.attributes["test"] == test})

    def loads(self) -> dict[Load, list[str]]:
        """Return the packages by how they are built."""
        found: dict[Load, set[str]] = {}
        for target in self.targets:
            values = target.attributes
            platform = values["goos"] or "linux", values["goarch"] or goarch()
            how = Load(values["test"], ",".join(values["build_tags"]), "1" if values["cc"] else "0", *platform)
            found.setdefault(how, set()).add(_package(target))
        return {how: sorted(found[how]) for how in sorted(found)}

    @property
    def label(self) -> Label:
        """The target to name in messages."""
        return self.targets[0].label


@dataclass(frozen=True)
class Files:
    """The texts of a go.mod and its go.sum."""

    mod: str
    sum: str


def pins_of(targets: Iterable[Target]) -> list[Pins]:
    """Return the pins of all go_binary targets that build a package of another module, by go.mod."""
    found: dict[Label, list[Target]] = {}
    for target in targets:
        if target.rule.name == "go_binary" and target.attributes["module"]:
            found.setdefault(target.attributes["mod"], []).append(target)
    return [Pins(mod, tuple(found[mod])) for mod in sorted(found)]


def read(workspace: Workspace, pins: Pins) -> Files | None:
    """Return the files in the workspace; None when there is no go.mod."""
    path = Path(workspace.root, pins.mod.path)
    if not path.is_file():
        return None
    sums = Path(workspace.root, sum_of(pins.mod).path)
    return Files(read_text(path), read_text(sums) if sums.is_file() else "")


def write(workspace: Workspace, pins: Pins, files: Files) -> None:
    """Write the files to the workspace."""
    for label, text in ((pins.mod, files.mod), (sum_of(pins.mod), files.sum)):
        atomic.write(f"{workspace.root}/{label.path}", text.encode())


def resolved(go: PinnedGo, pins: Pins, before: Files | None) -> Files:
    """Return what the files must be, which is `before` when that is right. Asks the network only for what is not on this machine.

    New files have the least that the packages need. Of `before` stay what a user changed: `replace`, `exclude`, and modules at
    higher versions than needed. Raises LoadError for a version that does not exist, ActionFailed for a sum that differs, and
    MachineLacks without a network.
    """
    if before is not None and is_right(go, pins, before):
        return before
    document = _document(go, pins, before)
    raised = _raised(go, pins, document)
    with _Module.opened(go, pins, _text(pins.modules, pins, document, raised), "") as module:
        module.list("mod")
        module.sums.unlink(missing_ok=True)  # it has what Go looked at, of which not everything is needed
        module.list("mod")
        after = module.files
    if before is not None:
        _check_moved(pins, before, after)
    return after


def is_right(go: PinnedGo, pins: Pins, files: Files) -> bool:
    """Return whether the files have all that the packages need, at the versions of the targets.

    Raises ActionFailed for a sum that differs, and MachineLacks for what is not on this machine, without a network.
    """
    document = _document(go, pins, files)
    pinned = {one["Path"]: one["Version"] for one in document.get("Require") or []}
    tools = {one["Path"] for one in document.get("Tool") or []}
    if not pinned.items() >= pins.modules.items() or tools != set(pins.packages(test=False)):
        return False
    for variables in (OFFLINE, {}):
        with _Module.opened(go, pins, files.mod, files.sum, variables) as module:
            try:
                module.list("readonly")
                return True
            except _Fault as fault:
                if _INCOMPLETE.search(fault.text):
                    return False
                if not variables or not _LACKING.search(fault.text):
                    raise fault.error from None
    raise AssertionError("the network is the last that is asked")


def _document(go: PinnedGo, pins: Pins, files: Files | None) -> dict[str, Any]:
    """Return a go.mod as Go reads it; an empty one when there is none. Raises LoadError when it is not valid."""
    if files is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="bk-pin-") as folder:
        Path(folder, "go.mod").write_text(files.mod)
        done = go.run(["mod", "edit", "-json"], Path(folder), {})
    if done.returncode:
        hint = f"{done.stderr.strip()}\nremove it, and `bk pin {pins.label}` writes a new one"
        raise LoadError("bad-pins", f"{pins.label}: {pins.mod.path} is not valid", where=pins.mod.path, hint=hint)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _raised(go: PinnedGo, pins: Pins, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the modules that a user raised above what the pinned versions need, as in a go.mod that Go read."""
    given = {one["Path"]: one["Version"] for one in document.get("Require") or []}
    old = {module: given[module] for module in pins.modules if module in given}
    if old.keys() != pins.modules.keys():
        return {}
    with _Module.opened(go, pins, _text(old, pins, document, {}), "") as module:
        module.list("mod")
        needed = {one["Path"]: one["Version"] for one in _document(go, pins, module.files).get("Require") or []}
    return {
        path: version
        for path, version in given.items()
        if path in needed and path not in old and _is_newer(version, needed[path])
    }


def _is_newer(one: str, other: str) -> bool:
    first, second = version_of(one), version_of(other)
    return first is not None and second is not None and first > second


def _text(modules: Mapping[str, str], pins: Pins, document: Mapping[str, Any], raised: Mapping[str, str]) -> str:
    """Return a go.mod that requires modules, and has of another one what a user changed."""
    lines = [f"module {document.get('Module', {}).get('Path', MODULE)}", f"go {document.get('Go', _GO)}"]
    lines += [f"tool {package}" for package in pins.packages(test=False)]
    lines += [f"require {path} {version} // indirect" for path, version in sorted({**raised, **modules}.items())]
    lines += [f"replace {_place(one['Old'])} => {_place(one['New'])}" for one in document.get("Replace") or []]
    lines += [f"exclude {_place(one)}" for one in document.get("Exclude") or []]
    return "\n\n".join(lines) + "\n"


def _place(module: Mapping[str, str]) -> str:
    return " ".join(filter(None, [module["Path"], module.get("Version", "")]))


def _check_moved(pins: Pins, before: Files, after: Files) -> None:
    """Raise ActionFailed when a module at the same version has another sum than before."""
    old = {tuple(line.split()[:2]): line for line in before.sum.splitlines()}
    for line in after.sum.splitlines():
        if (was := old.get(tuple(line.split()[:2]), line)) != line:
            raise _moved(pins, f"pinned:  {was}\nfetched: {line}")


def _moved(pins: Pins, text: str) -> ActionFailed:
    path = sum_of(pins.mod).path
    what = f"{pins.label}: {path}: a module has other bytes than those that were pinned"
    hint = f"{text}\nif the new bytes are the right ones, remove the pinned line, and run `bk pin {pins.label}`"
    return ActionFailed("pin-moved", what, where=pins.targets[0].location.of("version"), hint=hint)


class _Fault(Exception):
    """Go failed, with this text."""

    def __init__(self, text: str, error: BkError) -> None:
        super().__init__(text)
        self.text, self.error = text, error


@dataclass(frozen=True)
class _Module:
    """A go.mod with its go.sum in a temporary folder, which Go edits."""

    go: PinnedGo
    pins: Pins
    folder: Path
    variables: Mapping[str, str]

    @classmethod
    @contextmanager
    def opened(
        cls, go: PinnedGo, pins: Pins, mod: str, sums: str, variables: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[_Module]:
        """Write the files, and remove them at the end."""
        with tempfile.TemporaryDirectory(prefix="bk-pin-") as folder:
            module = cls(go, pins, Path(folder), variables)
            (module.folder / "go.mod").write_text(mod)
            if sums:
                module.sums.write_text(sums)
            yield module

    @property
    def sums(self) -> Path:
        """The go.sum."""
        return self.folder / "go.sum"

    @property
    def files(self) -> Files:
        """The texts of both files."""
        return Files((self.folder / "go.mod").read_text(), self.sums.read_text() if self.sums.exists() else "")

    def list(self, mode: str) -> None:
        """Load the packages as their builds do, with Go's -mod `mode`: `mod` writes the files, `readonly` checks them.

        Raises _Fault in the mode `readonly`, else BkError.
        """
        variables = {"GOFLAGS": f"-mod={mode}", **self.variables}
        for how, packages in self.pins.loads().items():
            flags = [*["-test"] * how.test, *(["-tags", how.tags] if how.tags else [])]
            command = ["list", "-deps", *flags, "-f", _NOTHING, *packages]
            own = {"CGO_ENABLED": how.cgo, "GOOS": how.system, "GOARCH": how.architecture}
            done = self.go.run(command, self.folder, {**variables, **own})
            if done.returncode:
                error = _fault(self.go, self.pins, done.stderr)
                raise _Fault(done.stderr, error) if mode == "readonly" else error


def _fault(go: PinnedGo, pins: Pins, text: str) -> BkError:
    """Return the error for what Go says."""
    where = pins.targets[0].location.of("version")
    modules = ", ".join(f"{module} {version}" for module, version in pins.modules.items())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_PROGRESS)]
    said = "\n".join(lines[-_SHOWN:])
    if _MOVED.search(text):
        return _moved(pins, "\n".join(line for line in lines if _SUMS.match(line)))
    if _NO_PACKAGE.search(text):
        where = pins.targets[0].location.of("package")
        return LoadError("unknown-package", f"{pins.label}: {modules} lacks a package", where=where, hint=said)
    if no_network(text):
        what = f"{pins.label}: {modules} cannot be fetched: no answer from the module proxy"
        hint = f"{said}\nthe variable GOPROXY names another one"
        return MachineLacks("no-network", what, where=where, hint=hint)
    if _ABSENT.search(text):
        known = [name for module in pins.modules for name in versions(go, module)]
        near = did_you_mean(next(iter(pins.modules.values())), known, "versions") if known else ""
        what = f"{pins.label}: {modules} cannot be fetched: the module proxy has no such version"
        return LoadError("unknown-version", what, where=where, hint=f"{said}\n{near}".strip())
    return ActionFailed("command-failed", f"{pins.label}: Go cannot load {modules}", where=where, hint=said)


def versions(go: PinnedGo, module: str) -> list[str]:
    """Return the released versions of a module, the oldest first; none when the proxy has no answer."""
    with tempfile.TemporaryDirectory(prefix="bk-pin-") as folder:
        done = go.run(["list", "-m", "-versions", "-json", module], Path(folder), {"GOFLAGS": "-mod=mod"})
    document: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    found = [version for text in document.get("Versions") or [] if (version := version_of(text)) is not None]
    return [version.text for version in sorted(found)]


def differences(before: Files | None, after: Files, mod: Label) -> list[str]:
    """Return lines that tell how the files differ from what they must be."""
    if before is None:
        return [f"{mod.path} is missing"]
    lines = []
    for label, old, new in ((mod, before.mod, after.mod), (sum_of(mod), before.sum, after.sum)):
        changed = [
            line
            for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
            if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip()
        ]
        lines += [f"{label.path}: {line}" for line in changed[:_SHOWN]]
        if len(changed) > _SHOWN:
            lines.append(f"{label.path}: and {len(changed) - _SHOWN} more lines")
    return lines


def _package(target: Target) -> str:
    return "/".join(filter(None, [target.attributes["module"], target.attributes["package"]]))
