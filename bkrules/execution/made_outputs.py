"""Store what a run made: its outputs go from the folder of the run into the disk cache, and are untrusted until then."""

from __future__ import annotations

import os

from bkrules.cache.cas import Cas
from bkrules.errors import ActionFailed
from bkrules.execution.result import RESOURCES, Outcome
from bkrules.model.action import Action, DirectoryNode, FileNode, Node
from bkrules.sandbox import outputs
from bkrules.sandbox.outputs import BadOutput, Room, TooLarge


def store(action: Action, outcome: Outcome, cas: Cas) -> dict[str, Node]:
    """Return the outputs of a run, in the CAS. Raises ActionFailed for an output that is missing or not as declared."""
    room = Room(outcome.most)
    nodes: dict[str, Node] = {}
    for name, path in outcome.outputs.items():
        try:
            nodes[name] = _store(name, path, cas, room, folder=name in action.folders)
        except FileNotFoundError:
            what = f"{action.label}: {action.mnemonic} did not make {os.path.basename(path)}"
            raise ActionFailed("missing-output", what) from None
        except TooLarge as error:
            what = f"{action.label}: its outputs are larger than its disk of {outcome.most >> 20} MiB: {error}"
            raise ActionFailed(RESOURCES, what, hint="give it more with the attribute 'disk'") from None
        except BadOutput as error:
            hint = "an output must be what was declared, a file or a folder; bk follows no link that an action made"
            raise ActionFailed("bad-output", f"{action.label}: the output {error}", hint=hint) from None
    return nodes


def _store(name: str, path: str, cas: Cas, room: Room, *, folder: bool) -> Node:
    above, inner = (path[: -len(name) - 1], name) if path.endswith(f"/{name}") else os.path.split(path)
    with outputs.opened(above) as top:
        if not folder:
            return _file(top, inner, cas, room)
        return DirectoryNode({file: _file(top, f"{inner}/{file}", cas, room) for file in outputs.files(top, inner)})


def _file(top: int, name: str, cas: Cas, room: Room) -> FileNode:
    stored, executable = outputs.store(top, name, cas, room)
    return FileNode(stored, cas.path(stored), executable)
