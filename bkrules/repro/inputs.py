"""The inputs of a cell by their names: which belong to the machine, and which a stranger may give."""

from __future__ import annotations

import re

from bkrules.analysis.extra_workers import FOLDER
from bkrules.analysis.host_inputs import REGISTRY

TOOL = "tools/registry"
"""The registry behind the mirror. bk runs it outside of the cell, as root, so it never comes from a stranger."""
PACKAGES = "python/packages"
_OF_HERE = re.compile(rf"(?:host|bkrules|plugin|python|registry)/.*|{FOLDER}/[^/]+/plugin/.*").fullmatch
_GIVEN = re.compile(rf"(?:tools|config|mirror|src|updaters)/.*|{FOLDER}/[^/]+(?:/(?:tools|config)/.*)?").fullmatch
_PACKAGE = re.compile(r"packages/(?:usr|etc|opt|var/lib|var/cache)/.*").fullmatch
_NO_PACKAGE = re.compile(r"packages/(?:etc/bk|etc/buildkit|opt/bk)(?:/.*)?").fullmatch


def is_of_here(name: str) -> bool:
    """Return whether an input is always one of the machine on which the cell runs: the interpreter, its libraries, bk, plugins."""
    return bool(_OF_HERE(name))


def may_be_given(name: str) -> bool:
    """Return whether a stranger may give an input of this name. All of these are only read in the cell.

    Files of packages become links in the root of the cell, and must not lead from the folders of bk.
    """
    return bool(_GIVEN(name) or (_PACKAGE(name) and not _NO_PACKAGE(name)))


assert is_of_here(REGISTRY)
