"""bk's own test of the cell with a user's own build."""

from __future__ import annotations

from pathlib import Path

import bkrules
from bkrules.analysis.test_files import Module
from bkrules.analysis.test_marks import Test, read_tests
from bkrules.declarative.own_build import TEST
from bkrules.model.action import Artifact, HostFile

_PACKAGE = Path(bkrules.__file__).parent
_CODE = ("declarative/own_build.py", "declarative/own_build_cell.py")


def own_name() -> str:
    """Return the name of the test, as pytest has it."""
    return _module()[1].in_pytest


def own_test() -> dict[str, Artifact]:
    """Return the test as inputs of a cell, without the build."""
    module, test = _module()
    return {**module.staged(test), **{f"bkrules/{name}": HostFile(str(_PACKAGE / name)) for name in _CODE}}


def _module() -> tuple[Module, Test]:
    text = (_PACKAGE / _CODE[-1]).read_text()
    module = Module(TEST, text, read_tests(text))
    (test,) = module.tests
    return module, test
