"""The paths of an image's files: each has only one spelling, and no two of them are the same place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_LONGEST_NAME = 255  # the limits of Linux, in bytes
_LONGEST_PATH = 4095
_LARGEST = 64 << 30  # bytes of noise


def path_problem(path: str) -> str:
    """Return the fault of a path in an image, or an empty text."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or not path:
        return "is not relative to the image's root"
    if "" in parts or "." in parts:
        return f"must be written {'/'.join(part for part in parts if part not in ('', '.'))!r}"
    if max(len(part.encode()) for part in parts) > _LONGEST_NAME or len(path.encode()) > _LONGEST_PATH:
        return f"has a name of more than {_LONGEST_NAME} bytes, or more than {_LONGEST_PATH} in all"
    return ""


def target_problem(target: object) -> str:
    """Return the fault of a symbolic link's target, or an empty text."""
    if not isinstance(target, str) or not target:
        return "must lead to a path"
    return "" if len(target.encode()) <= _LONGEST_PATH else f"leads to more than {_LONGEST_PATH} bytes"


def size_problem(size: object) -> str:
    """Return the fault of a size of noise, or an empty text."""
    if type(size) is not int or not 0 <= size <= _LARGEST:
        return f"must have a number of bytes up to {_LARGEST}, but has {size!r}"
    return ""


def collisions(attributes: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    """Yield each collision of paths with the attribute to blame: a path that two attributes have, or that lies below a file."""
    owners: dict[str, str] = {}
    for attribute, paths in attributes.items():
        for path in paths:
            if path in owners:
                yield attribute, f"{path!r} is in {owners[path]!r} and in {attribute!r}"
            owners[path] = attribute
    for path, attribute in owners.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above in owners:
                yield (
                    attribute,
                    f"{above!r} of {owners[above]!r} is not a folder, but {path!r} of {attribute!r} lies in it",
                )
