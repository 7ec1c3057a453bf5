"""The test of a cell with a user's own build: it passes when buildctl does."""

import subprocess
from pathlib import Path

import pytest

from bkrules.declarative.own_build import LOG, REQUEST, archive_of, folder_of, read_build, unpack
from bkrules.testing.command import CommandFailed
from bkrules.testing.pytest_text import ROOT
from bkrules.testing.sandbox import Sandbox


def test_build(sandbox: Sandbox) -> None:
    """Build, and keep what buildctl prints, also when the time of the cell is over."""
    build = read_build(Path(ROOT, REQUEST).read_bytes())
    for name in build.folders:
        unpack(Path(ROOT, archive_of(name)), Path(folder_of(name)))
    command = sandbox.cmd(list(build.words))
    log = sandbox.log_folder / LOG
    with log.open("wb") as file:
        code = command.start(stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).wait()
    if code:
        done = subprocess.CompletedProcess(command.arguments, code, log.read_text(errors="replace"), "")
        print(done.stdout, end="")
        pytest.fail(str(CommandFailed(command.arguments, done)).partition("\n")[0], pytrace=False)
