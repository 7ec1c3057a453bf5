"""Whatever is done to a workspace and to what it rests on, the answer is that of a build from nothing; and each rule is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from random_edits import EDITS, RULES
from rounds import rounds

USUAL = 20
UNTIL_FOUND = 120
FOUND_BY = {
    "ctime": ("in_place_with_its_time,rsync_in_place", ""),
    "ctime of blobs": ("damaged_output,in_place", ""),
    "stamps of the first look": ("older_moved_in,renamed_over", "before the answer is kept,after loading"),
    "digests stamped before the read": ("in_place", "after a read"),
    "inputs that are still the same": ("in_place", "while an action runs"),
    "outputs that are looked at": ("damaged_output,in_place", ""),
    "folders of outputs that are looked at": ("output_that_comes", ""),
    "modes of blobs": ("another_mode_of_an_output", ""),
    "blobs that are looked at when stored": ("damaged_blob,result_that_goes", ""),
    "code of plugins": ("replaced_plugin,replaced_entry_points", ""),
}
"""The edits, and the moments during a build, by which it is found that a rule is missing."""


def run(repository: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "-m", sys.executable, "tests/random_edits.py", str(folder), *options]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def test_there_are_many_kinds_of_edits() -> None:
    assert len(EDITS) >= 25


@pytest.mark.soak
def test_every_answer_is_that_from_nothing(repository: Path, tmp_path: Path) -> None:
    done = run(repository, tmp_path, f"--rounds={rounds(USUAL)}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" rounds without a wrong answer\n")


@pytest.mark.soak
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule])
def test_without_a_rule_a_fault_is_found(repository: Path, tmp_path: Path, rule: str) -> None:
    only, during = FOUND_BY[rule]
    done = run(
        repository, tmp_path, f"--without={rule}", f"--only={only}", f"--during={during}", f"--rounds={UNTIL_FOUND}"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert ", seed 1, after " in done.stdout, done.stderr
