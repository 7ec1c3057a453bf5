"""The runner of ImageArchive: the files of a layout become an OCI archive."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping

from bkrules.execution.context import RunContext
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, DirectoryNode, Node
from bkrules.model.status import Status


def archive_image(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Write the archive, in which nothing is of a clock or a user."""
    (name,) = action.outputs
    path = context.scratch(action) / name
    image = inputs["image"]
    assert isinstance(image, DirectoryNode)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for place, node in sorted(image.files.items()):
            entry = tarfile.TarInfo(place)
            entry.size, entry.mode = node.digest.size, 0o644
            with open(node.path, "rb") as file:
                archive.addfile(entry, file)
    return Outcome(Status.PASSED, {name: str(path)})
