"""The runners of Image and EstargzImage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tarfile import LNKTYPE

from bkrules.cell.protocol import Program
from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext
from bkrules.execution.result import Outcome
from bkrules.images import layer, layout
from bkrules.images.layer import Entry
from bkrules.model.action import Action, DirectoryNode, FileNode, Node
from bkrules.model.parameters import Image, parameters_of
from bkrules.model.status import Status
from bkrules.rules.image_paths import xattr_bytes
from bkrules.rules.pulled_image import LAYOUT
from bkrules.runners.open_cell import run_in_cell
from bkrules.runners.pull_image import unpacked
from bkrules.sandbox import outputs


def make_image(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Write an image with what its action names."""
    spec = parameters_of(action, Image)
    folder = context.scratch(action)
    entries = _entries(spec, inputs)
    base = inputs.get("base")
    layout.write_image(
        folder / LAYOUT,
        layer.layer(entries) if entries else None,
        architecture=spec.architecture,
        cmd=spec.cmd,
        entrypoint=spec.entrypoint,
        env=spec.env,
        labels=spec.labels,
        base=unfold(base, folder / "base") if isinstance(base, DirectoryNode) else None,
    )
    return Outcome(Status.PASSED, {LAYOUT: str(folder / LAYOUT)})


def _entries(spec: Image, inputs: Mapping[str, Node]) -> dict[str, Entry]:
    """Return the entries of an image's layer by their paths."""
    entries: dict[str, Entry] = {}
    for number, path in enumerate(spec.files):
        node = inputs[f"files/{number}"]
        assert isinstance(node, FileNode)
        entries[path] = Entry(Path(node.path).read_bytes(), 0o755 if node.executable else 0o644)
    entries |= {path: layer.symlink(target) for path, target in spec.symlinks.items()}
    entries |= {path: Entry(layer.noise(path, size)) for path, size in spec.noise.items()}
    entries |= {path: layer.directory(int(mode, 8)) for path, mode in spec.directories.items()}
    entries |= {path: layer.device(words) for path, words in spec.devices.items()}
    for path, mode in spec.modes.items():
        entries[path] = replace(entries[path], mode=int(mode, 8))
    for path, owner in spec.owners.items():
        user, group = owner.split(":")
        entries[path] = replace(entries[path], owner=(int(user), int(group)))
    for path, values in spec.xattrs.items():
        entries[path] = replace(entries[path], xattrs={name: xattr_bytes(value) for name, value in values.items()})
    entries |= {
        path: replace(entries[target], kind=LNKTYPE, data=b"", link=target) for path, target in spec.hardlinks.items()
    }
    removed = [*map(layer.whiteout, spec.whiteouts), *map(layer.opaque, spec.opaque)]
    return entries | {path: Entry() for path in removed}


def convert_to_estargz(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Let a real buildkitd export the image as eStargz. Raises ActionFailed when that fails."""
    folder = context.scratch(action)
    out = folder / "out"
    out.mkdir()
    result = run_in_cell(action, inputs, context, str(out), Program.COMMANDS)
    outputs.clean(out)
    if result.status != Status.PASSED:
        logs = "".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in sorted(out.glob("*.log")))
        context.log(action).write_text(logs)
        raise ActionFailed(
            "conversion",
            f"{action.label}: the conversion failed: {result.reason}",
            hint=f"logs: {context.log(action)}",
            log=logs,
        )
    unpacked(action, out / "image.tar", folder / LAYOUT)
    return Outcome(Status.PASSED, {LAYOUT: str(folder / LAYOUT)})


def unfold(node: DirectoryNode, folder: Path) -> Path:
    """Put a folder's files at their paths, as links to the stored bytes."""
    for path, file in node.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file.path, target)
    return folder
