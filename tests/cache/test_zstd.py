"""Streams of zstd that come from anybody."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from bkrules.cache import zstd

DATA = os.urandom(2 << 20) + bytes(3 << 20)


@pytest.fixture
def library() -> Any:
    found = zstd.library()
    assert found is not None, "the environment has neither Python 3.14 nor backports.zstd"
    return found


def frames(library: Any) -> bytes:
    """As bazel-remote sends them: a frame to skip, and a frame for each MiB."""
    skipped = struct.pack("<II", 0x184D2A50, 5) + b"hello"
    return skipped + b"".join(library.compress(DATA[at : at + (1 << 20)]) for at in range(0, len(DATA), 1 << 20))


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [7, 1000, 1 << 30])
def test_all_frames_are_read(library: Any, size: int) -> None:
    assert b"".join(zstd.plain(library, cut(frames(library), size))) == DATA


@pytest.mark.parametrize("size", [1, 1000, 1 << 30])
def test_what_bk_compresses_it_reads(library: Any, size: int) -> None:
    data = DATA[: size * 100]
    packed = b"".join(zstd.compressed(library, cut(data, size)))
    assert b"".join(zstd.plain(library, [packed])) == data
    assert library.decompress(packed) == data


def test_a_bomb_comes_in_pieces(library: Any) -> None:
    bomb = library.compress(bytes(256 << 20))
    assert len(bomb) < 64 << 10
    assert {len(piece) for piece in zstd.plain(library, [bomb])} == {1 << 20}


def test_damage_is_found(library: Any) -> None:
    good = frames(library)
    for bad in (b"junk", good[:-1], good[:100], good + b"junk", good[:13] + b"x" + good[14:]):
        with pytest.raises(ValueError, match="zstd"):
            list(zstd.plain(library, [bad]))


def test_a_window_of_too_many_bytes_is_refused(library: Any) -> None:
    options = {library.CompressionParameter.window_log: 27, library.CompressionParameter.content_size_flag: 0}
    stream = library.ZstdCompressor(options=options)
    wide = stream.compress(DATA) + stream.flush()
    with pytest.raises(ValueError, match="not zstd"):
        list(zstd.plain(library, [wide]))
