"""The explanation of an exception in a build file, with a hint where there is one."""

from __future__ import annotations

import builtins
import re
from collections.abc import Collection

from bkrules.errors import LoadError, did_you_mean
from bkrules.loading.meter import Refused, shown
from bkrules.loading.runtime import BUILTINS

EXPLAINED = {
    "open": "build files do no I/O; name the file as a label in an attribute instead",
    "print": "build files have no output; use `bk query` to see what they declare",
    "set": "the order of a set changes from run to run; use a list or a dict",
}
_LONGEST = 1_000
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def explain(error: Exception, file: str, where: str, names: Collection[str], loaded: Collection[str] = ()) -> LoadError:
    """Return the error of loading for an exception at `where`. `names` are those that the file may import, `loaded` those
    that it has loaded.
    """
    if isinstance(error, Refused):
        return LoadError(error.reason, f"{file}: {error}", where=where, hint=error.hint)
    if isinstance(error, NameError) and error.name:
        name = error.name
        hint = EXPLAINED.get(name) or (
            f"write `from bkrules import {name}` first"
            if name in names
            else did_you_mean(name, [*names, *loaded, *BUILTINS[3:]], "available")
        )
        if hasattr(builtins, name) and name not in EXPLAINED:
            hint = "build files cannot use the host: only pure builtins are available\n" + hint
        return LoadError("unknown-name", f"{file}: {name!r} is not available in a build file", where=where, hint=hint)
    # the text of a KeyError is that of the key, however large
    message = shown(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)[:_LONGEST]
    text = _ADDRESS.sub("", f"{type(error).__name__}: {message}")
    return LoadError("evaluation", f"{file}: {text}", where=where)
