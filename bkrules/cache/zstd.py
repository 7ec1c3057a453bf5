"""Zstandard streams, where the interpreter has a library for them: Python 3.14 has one, and backports.zstd is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

_LIBRARIES = ("compression.zstd", "backports.zstd")
_LEVEL = 1  # the fastest one that compresses well
_WINDOW = 25  # log2 of the largest window in bytes: 32 MiB, which is what a stream can make bk allocate
_PIECE = 1 << 20


def library() -> Any | None:
    """Return the library, or None where the interpreter has none."""
    for name in _LIBRARIES:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def compressed(zstd: Any, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the compressed bytes of chunks."""
    stream = zstd.ZstdCompressor(level=_LEVEL)
    for chunk in chunks:
        if piece := stream.compress(chunk):
            yield piece
    yield stream.flush()


def plain(zstd: Any, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the plain bytes of compressed ones, at most a MiB at a time. Raises ValueError for bytes that are not zstd.

    A stream has any number of frames, some of which hold no bytes. Its reader has to limit the sum.
    """
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW}
    stream = zstd.ZstdDecompressor(options=options)
    is_whole = True
    for chunk in chunks:
        rest = chunk
        while rest or not (stream.needs_input or stream.eof):
            if stream.eof:
                stream = zstd.ZstdDecompressor(options=options)
            try:
                piece = stream.decompress(rest, _PIECE)
            except zstd.ZstdError as error:
                raise ValueError(f"not zstd: {error}") from error
            rest = stream.unused_data if stream.eof else b""
            is_whole = stream.eof
            if piece:
                yield piece
    if not is_whole:
        raise ValueError("the zstd stream is cut short")
