"""`bk test --watch` on a terminal: it runs again after a change, waits otherwise, and ends by Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from spaces import Space
from terminals import Terminal

from bkrules.system import watching
from bkrules.system.waiting import readable
from bkrules.system.watching import Watch

BUILD = """
from bkrules import image_mirror, test_matrix, worker
worker(name = "oci", plugin = "oci")
image_mirror(name = "mirror", images = {})
test_matrix(name = "matrix", tests = ["test_a.py"], workers = [":oci"], mirror = ":mirror")
"""
TOOLS = (
    "from bkrules import host_binary, workspace\nworkspace(name = 'w')\n"
    "[host_binary(name = name, binary = 'true') for name in ['buildctl', 'buildkitd', 'runc', 'registry', 'box']]\n"
)


def test_watch(space: Space) -> None:
    space.write("WORKSPACE.py", TOOLS)
    space.write("p/BUILD.py", BUILD)
    test = space.write("p/test_a.py", "def test_a(): pass\n")
    environment = {**os.environ, "TERM": "dumb", "SKIP_INTEGRATION_TESTS": "1"}
    command = space.command("test", "--watch", "p:matrix")
    with Terminal(command, space.root, environment) as terminal:
        assert "1 cell: 1 skipped" in terminal.until("bk: waiting for a change (Ctrl-C ends)")
        test.write_text("def test_a(): pass\ndef test_b(): pass\n")
        assert "bk: p/test_a.py changed" in terminal.until("2 cells: 2 skipped")
        terminal.until("bk: waiting")
        (space.root / "new").mkdir()
        terminal.until("bk: new changed")
        terminal.until("bk: waiting")
        test.write_text("def test_a(:\n")
        terminal.until("error: ")
        terminal.until("bk: waiting")
        terminal.type("\x03")
        assert terminal.end() == 8
        assert terminal.shown.endswith("interrupted\r\n"), terminal.shown


def test_a_signal_before_a_wait_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python sees it when the wait ends, so each wait ends."""
    waits: list[float | None] = []

    def wait(descriptors: list[int], patience: float | None = None) -> list[int]:
        waits.append(patience)
        if len(waits) == 3:
            (tmp_path / "file").write_text("")
        return readable(descriptors, 0)

    watch = Watch(str(tmp_path), lambda _name: True)
    monkeypatch.setattr(watching, "readable", wait)
    assert watch.wait() == {f"{tmp_path}/file"}
    assert len(waits) > 3
    assert None not in waits
    watch.close()


def test_what_is_watched(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "no").mkdir()
    watch = Watch(str(tmp_path), lambda name: name != "no")
    (tmp_path / "no/file").write_text("")
    (tmp_path / "a/b/file").write_text("")
    assert watch.wait() == {f"{tmp_path}/a/b/file"}
    (tmp_path / "c/d").mkdir(parents=True)
    assert f"{tmp_path}/c" in watch.wait()
    (tmp_path / "c/d/file").write_text("")
    (tmp_path / "a/b/file").rename(tmp_path / "a/moved")
    assert watch.wait() == {f"{tmp_path}/c/d/file", f"{tmp_path}/a/b/file", f"{tmp_path}/a/moved"}
    (tmp_path / "a/moved").unlink()
    assert watch.wait() == {f"{tmp_path}/a/moved"}
    watch.close()
