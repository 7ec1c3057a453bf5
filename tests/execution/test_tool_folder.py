"""The folders of tools that cells see: each made once, since a link into the cache makes bk read the blob again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.links import LinkFolders
from bkrules.execution.context import RunContext
from bkrules.model import digest
from bkrules.model.action import FileNode


@pytest.fixture
def context(tmp_path: Path) -> SimpleNamespace:
    """What `tool_folder` uses of a context."""

    def new(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    links = LinkFolders(str(tmp_path))
    cas = Cas(str(tmp_path / "cas"), FileDigests(str(tmp_path / "digests")))
    return SimpleNamespace(
        cas=cas, folder=SimpleNamespace(new=new), _lock=threading.Lock(), _tool_folders={}, links=links
    )


def blob(context: SimpleNamespace, data: bytes) -> FileNode:
    name = context.cas.put(data)
    return FileNode(name, context.cas.path(name))


def folder_of(context: SimpleNamespace, **tools: FileNode) -> Path:
    return Path(RunContext.tool_folder(context, tools))  # type: ignore[arg-type]


def test_cells_whose_keys_have_parts_of_a_binary_share_a_folder(context: SimpleNamespace) -> None:
    binary, runc = blob(context, b"the tests"), blob(context, b"runc")
    first = replace(binary, digest=digest.of_bytes(b"TestOne/1"))
    second = replace(binary, digest=digest.of_bytes(b"TestTwo/2"))

    folder = folder_of(context, suite=first, runc=runc)
    before = Path(binary.path).stat()

    assert folder_of(context, suite=second, runc=runc) == folder
    assert Path(binary.path).stat().st_ctime_ns == before.st_ctime_ns
    assert (folder / "suite").stat().st_ino == before.st_ino, "the binary was copied"
    assert folder_of(context, suite=blob(context, b"other tests"), runc=runc) != folder


def test_a_tool_of_the_machine_is_copied(context: SimpleNamespace, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"one")
    first = folder_of(context, tool=FileNode(digest.of_bytes(b"one"), str(tool)))
    tool.write_bytes(b"two")

    second = folder_of(context, tool=FileNode(digest.of_bytes(b"two"), str(tool)))

    assert ((first / "tool").read_bytes(), (second / "tool").read_bytes()) == (b"one", b"two")
    assert (second / "tool").stat().st_nlink == 1
