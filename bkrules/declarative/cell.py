"""The test of the cells of build_test and build_agreement: one build, what it made, and what was expected."""

import json
from pathlib import Path

import pytest

from bkrules.declarative.expectations import problems
from bkrules.declarative.observe import ROOT, observe
from bkrules.declarative.seen import CONTEXT, FILE, REQUEST, BuildRequest
from bkrules.testing.sandbox import Sandbox


def test_build(sandbox: Sandbox, tmp_path: Path) -> None:
    """Build, write what was seen, and fail with each expectation that does not hold."""
    request = BuildRequest.parse(json.loads(Path(ROOT, REQUEST).read_text()))
    Path(ROOT, CONTEXT).mkdir(exist_ok=True)
    seen, output = observe(sandbox, request, tmp_path)
    (sandbox.log_folder / FILE).write_text(seen.text)
    found = [] if request.records else problems(request.expect, seen, output)
    if found:
        pytest.fail("\n".join(found), pytrace=False)
