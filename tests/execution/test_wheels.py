"""Toolchains that several threads and processes of bk want at once."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bkrules.model import digest
from bkrules.model.action import FileNode
from bkrules.runners.wheels import unpacked

HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print(flush=True)
    sys.stdin.read()
"""


def wheel(folder: Path) -> FileNode:
    path = folder / "tool.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tool/bin/run", "#!/bin/sh\n")
        for number in range(200):
            archive.writestr(f"tool/lib/{number}", "x")
    return FileNode(digest.of_file(str(path)), str(path))


def test_one_of_many_unpacks_a_wheel(tmp_path: Path) -> None:
    node, cache = wheel(tmp_path), tmp_path / "cache"
    with ThreadPoolExecutor(8) as threads:
        folders = set(threads.map(lambda _number: unpacked(node, cache, "tool/bin/*"), range(8)))

    (folder,) = folders
    assert (folder / "tool/bin/run").stat().st_mode & 0o777 == 0o755
    assert len(list((folder / "tool/lib").iterdir())) == 200
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_what_another_process_unpacks_is_awaited_until_it_is_killed(tmp_path: Path) -> None:
    node, cache = wheel(tmp_path), tmp_path / "cache"
    folder = cache / "toolchains" / node.digest.hash
    folder.parent.mkdir(parents=True)
    partial = Path(f"{folder}.partial")
    partial.mkdir()
    (partial / "half").write_text("of a file")
    words = [sys.executable, "-c", HOLDER, f"{folder}.lock"]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        ThreadPoolExecutor(1) as thread,
    ):
        assert holder.stdout and holder.stdout.readline()
        waiting = thread.submit(unpacked, node, cache)
        assert not folder.exists()
        assert not waiting.done()
        holder.kill()
        assert waiting.result(60) == folder

    assert not (folder / "half").exists()
    assert not partial.exists()
