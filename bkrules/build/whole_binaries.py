"""Test binaries of Go of which the key of a cell has all bytes, and why it has not only what the test reaches."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from bkrules.execution.layout import WHOLE
from bkrules.execution.result import Result
from bkrules.model.action import Action, DirectoryNode, Output, ReachedOutput

_UNKNOWN = "the program that looks for less has said nothing of this test"


def whole_binary(
    action: Action, actions: Mapping[str, Action], results: Mapping[str, Result]
) -> tuple[str, str] | None:
    """Return the path of such a binary among the inputs of an action, and the reason in one line; None without one.

    The names in the folder that a binary was made with may come from a cache, so an odd character is shown as `?`.
    """
    for path, item in action.inputs:
        if not isinstance(item, Output) or item.producer not in results:
            continue
        if isinstance(item, ReachedOutput):
            reason = _told(item, results[item.producer])
        else:
            reason = _declared(actions[item.producer]) if path.startswith("tools/") else None
        if reason is not None:
            return path, "".join(letter if letter.isprintable() else "?" for letter in reason)
    return None


def _told(item: ReachedOutput, made: Result) -> str | None:
    """Return the reason that the program in `runners/reach` gives."""
    folder = made.outputs.get(item.reached)
    names = folder.names if isinstance(folder, DirectoryNode) else {}
    name = next((names[one] for one in (*item.names, "") if one in names), f"{WHOLE} {_UNKNOWN}")
    return unquote(name.removeprefix(WHOLE).strip()) or _UNKNOWN if name.startswith(WHOLE) else None


def _declared(build: Action) -> str | None:
    """Return the reason that follows from the declaration of a binary; None for one that has no tests."""
    if build.mnemonic != "GoBuild" or build.arguments[0] != "test":
        return None
    if dict(build.environment).get("CGO_ENABLED") == "1":
        return f"{build.label} has 'cc', so not all of its code is Go"
    if "-cover" in build.arguments:
        return f"{build.label} has 'coverpkg', so it counts its coverage"
    return "'args' or 'isolation' of the matrix decide what it runs"
