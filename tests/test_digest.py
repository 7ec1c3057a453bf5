from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.model import digest
from bkrules.model.digest import Digest

# From FIPS 180-2.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
A_MILLION = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_of_bytes() -> None:
    assert digest.of_bytes(b"abc") == Digest(ABC, 3)
    assert digest.of_bytes(b"a" * 1_000_000) == Digest(A_MILLION, 1_000_000)


def test_the_empty_digest() -> None:
    assert str(digest.EMPTY) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.EMPTY.size == 0


@pytest.mark.parametrize("size", [0, 3, digest.CHUNK - 1, digest.CHUNK, digest.CHUNK + 1, 2 * digest.CHUNK])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(data)
    assert digest.of_file(tmp_path / "file") == digest.of_bytes(data)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest.of_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        digest.of_file(tmp_path)
