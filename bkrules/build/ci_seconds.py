"""How long the cells of a matrix took, in the remote cache: `bk ci merge` writes it for the next `bk ci plan`, in a new clone.

The entry is named after its matrix, not after the inputs of cells, so it outlives every change. It is nobody's result, and
decides nothing but which job runs a cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.model import digest, reapi
from bkrules.model.action import FileNode, Form
from bkrules.model.digest import Digest
from bkrules.model.status import Status

FILE = "seconds.json"
_SCHEMA = 1
_MOST = 4 << 20  # bytes of the file, which has about 70 for a cell
_MOST_SECONDS = 7 * 86_400.0


def publish(cache: ActionCache, workspace: str, report: Mapping[str, Any]) -> None:
    """Send the seconds of the passed cells of a matrix's report, in the background."""
    cells = report["cells"]
    seconds = {cell["name"]: cell["seconds"] for cell in cells if cell["status"] == Status.PASSED}
    if seconds:
        name = cache.cas.put(json.dumps(seconds, sort_keys=True).encode())
        result = ActionResult({FILE: FileNode(name, cache.cas.path(name))}, 0.0)
        cache.put(key_of(workspace, report["label"]), result)


def published(cache: ActionCache, workspace: str, matrices: Iterable[str]) -> dict[str, float]:
    """Return the seconds of cells by their ids, of the matrices with these labels, as the remote cache has them."""
    found: dict[str, float] = {}
    for matrix in sorted(set(matrices)):
        for name, seconds in _ask(cache, key_of(workspace, matrix)).items():
            if isinstance(seconds, int | float) and 0 <= seconds <= _MOST_SECONDS:
                found[f"{matrix} {name}"] = float(seconds)
    return found


def _ask(cache: ActionCache, key: Digest) -> dict[str, object]:
    """Return an untrusted table; an empty one for what is none."""
    result = cache.ask(key, whole=False, declared={FILE: Form.FILE})
    if result is None:
        return {}
    node = result.outputs[FILE]
    assert isinstance(node, FileNode)
    if node.digest.size > _MOST or cache.fetch([node]):
        return {}
    try:
        table = json.loads(cache.cas.read(node.digest) or b"")
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def key_of(workspace: str, matrix: str) -> Digest:
    """Return the key of the entry of a matrix, which no action has."""
    salt = json.dumps(["bk ci seconds", _SCHEMA, workspace, matrix])
    return digest.of_bytes(reapi.encode("Action", {"salt": salt.encode()}))
