from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.model import digest
from bkrules.model.digest import Digest


@pytest.fixture
def digests(tmp_path: Path) -> FileDigests:
    return FileDigests(str(tmp_path / "digests"))


@pytest.fixture
def cas(tmp_path: Path, digests: FileDigests) -> Cas:
    return Cas(str(tmp_path / "cas"), digests)


@pytest.fixture
def actions(tmp_path: Path, cas: Cas) -> ActionCache:
    return ActionCache(str(tmp_path / "ac"), cas)


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files whose bytes were read for a digest."""
    found: list[str] = []
    of_file = digest.of_file

    def record(path: str) -> Digest:
        found.append(path)
        return of_file(path)

    monkeypatch.setattr(digest, "of_file", record)
    return found


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ctime cannot be set, so for a file to be old the clock has to be ahead."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)
