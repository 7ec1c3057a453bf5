"""Digests of images, parsed before they become part of a path or an address.

A digest from a registry, an archive or a file is untrusted text: `sha256:../../x` would lead out of a folder.
"""

from __future__ import annotations

import re

_DIGEST = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<hex>[a-zA-Z0-9=_-]+)")
_HEX = re.compile(r"[0-9a-f]{64}")
_ALGORITHM = "sha256"


class ImageDigest(str):
    """A digest `sha256:` and 64 lower-case hexadecimal digits. Raises ValueError for any other text."""

    __slots__ = ()

    def __new__(cls, text: str) -> ImageDigest:
        """Check the text: a value of this type is safe in a path."""
        match = _DIGEST.fullmatch(text)
        if match is None:
            raise ValueError(f"{_shown(text)} is no digest; one is 'sha256:' and 64 hexadecimal digits")
        if match["algorithm"] != _ALGORITHM:
            raise ValueError(f"{_shown(text)} is a digest of {match['algorithm']}, and bk knows sha256 alone")
        if not _HEX.fullmatch(match["hex"]):
            raise ValueError(f"{_shown(text)} must have 64 lower-case hexadecimal digits after 'sha256:'")
        return super().__new__(cls, text)

    @classmethod
    def of_hash(cls, text: str) -> ImageDigest:
        """Return the digest with these hexadecimal digits. Raises ValueError."""
        return cls(f"{_ALGORITHM}:{text}")

    @property
    def hash(self) -> str:
        """The 64 hexadecimal digits."""
        return self[len(_ALGORITHM) + 1 :]

    @property
    def path(self) -> str:
        """The path of the blob below a folder `blobs`: `sha256/HEX`."""
        return f"{_ALGORITHM}/{self.hash}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
