"""The paths of an image's layer: each has only one spelling, no two of them are the same place, and each value fits."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from bkrules.images.layer import WHITEOUT

_LONGEST_NAME = 255  # the limits of Linux, in bytes
_LONGEST_PATH = 4095
_LARGEST = 64 << 30  # bytes of noise
_LARGEST_ID = (1 << 32) - 2  # the last number means "unchanged"
_LARGEST_XATTR = 64 << 10
_BASE64 = "0s"
"""The beginning of a value in base64, as getfattr writes it."""

Paths = Mapping[str, object]


def problems(attributes: Mapping[str, Paths]) -> Iterator[tuple[str, str, str]]:
    """Yield each fault: its reason, the attribute to blame, and the text. `attributes` are those of an image that have paths."""
    for attribute, paths in attributes.items():
        for path, value in paths.items():
            if problem := path_problem(path) or _VALUES.get(attribute, _none)(value):
                yield "bad-path", attribute, f"{attribute!r}: {path!r} {problem}"
    places = {name: paths for name, paths in attributes.items() if name in _PLACES}
    for attribute, problem in collisions(places, attributes.get("opaque", ())):
        yield "duplicate-path", attribute, problem
    for attribute, kinds in _OF.items():
        known = {path for kind in kinds for path in places.get(kind, ())}
        for path, value in attributes.get(attribute, {}).items():
            named = value if attribute == "hardlinks" else path
            if named not in known:
                yield "bad-path", attribute, f"{attribute!r}: {named!r} is in none of {', '.join(map(repr, kinds))}"


def path_problem(path: str) -> str:
    """Return the fault of a path in an image, or an empty text."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or not path:
        return "is not relative to the image's root"
    if "" in parts or "." in parts:
        return f"must be written {'/'.join(part for part in parts if part not in ('', '.'))!r}"
    if max(len(part.encode()) for part in parts) > _LONGEST_NAME or len(path.encode()) > _LONGEST_PATH:
        return f"has a name of more than {_LONGEST_NAME} bytes, or more than {_LONGEST_PATH} in all"
    if any(part.startswith(WHITEOUT) for part in parts):
        return f"has a name that begins with {WHITEOUT!r}, by which layers remove files; name what to remove in 'whiteouts'"
    return ""


def xattr_bytes(value: str) -> bytes:
    """Return the bytes of an extended attribute. Raises ValueError for invalid base64."""
    return base64.b64decode(value.removeprefix(_BASE64), validate=True) if value.startswith(_BASE64) else value.encode()


def collisions(attributes: Mapping[str, Paths], opaque: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield each collision of paths with the attribute to blame: a path that two attributes have, or that lies below a file.

    An opaque directory has an entry below it.
    """
    owners: dict[str, str] = {}
    for attribute, paths in attributes.items():
        for path in paths:
            if path in owners:
                yield attribute, f"{path!r} is in {owners[path]!r} and in {attribute!r}"
            owners[path] = attribute
    for path, attribute in [*owners.items(), *((f"{path}/*", "opaque") for path in opaque)]:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if owners.get(above, "directories") != "directories":
                yield (
                    attribute,
                    f"{above!r} of {owners[above]!r} is not a folder, but {path!r} of {attribute!r} lies in it",
                )


def _none(_value: object) -> str:
    return ""


def _target_problem(target: object) -> str:
    if not isinstance(target, str) or not target:
        return "must lead to a path"
    return "" if len(target.encode()) <= _LONGEST_PATH else f"leads to more than {_LONGEST_PATH} bytes"


def _size_problem(size: object) -> str:
    if type(size) is not int or not 0 <= size <= _LARGEST:
        return f"must have a number of bytes up to {_LARGEST}, but has {size!r}"
    return ""


def _mode_problem(mode: object) -> str:
    if not isinstance(mode, str) or not re.fullmatch("[0-7]{3,4}", mode):
        return f"must have a mode of three or four octal digits as text, '0755', but has {mode!r}"
    return ""


def _owner_problem(owner: object) -> str:
    numbers = re.fullmatch(r"(\d{1,10}):(\d{1,10})", owner, re.ASCII) if isinstance(owner, str) else None
    if numbers is None or max(map(int, numbers.groups())) > _LARGEST_ID:
        return f"must have an owner 'UID:GID' in numbers, but has {owner!r}"
    return ""


def _device_problem(words: object) -> str:
    if not isinstance(words, str) or not re.fullmatch(r"p|[cb] \d{1,6} \d{1,6}", words, re.ASCII):
        return f"must have 'c MAJOR MINOR', 'b MAJOR MINOR' or 'p', but has {words!r}"
    return ""


def _xattrs_problem(values: object) -> str:
    if not isinstance(values, Mapping) or not values:
        return f"must have a dictionary of names and values, but has {values!r}"
    for name, value in values.items():
        if not re.fullmatch(r"(user|trusted|security|system)\.[^=\0\n]{1,240}", name):
            return (
                f"has the extended attribute {name!r}; names begin with 'user.', 'trusted.', 'security.' or 'system.'"
            )
        try:
            size = len(xattr_bytes(value)) if isinstance(value, str) else -1
        except ValueError:
            size = -1
        if not 0 <= size <= _LARGEST_XATTR:
            return f"has no value for {name!r} of at most {_LARGEST_XATTR} bytes: a text, or base64 after {_BASE64!r}"
    return ""


_VALUES: dict[str, Callable[[object], str]] = {
    "symlinks": _target_problem,
    "hardlinks": _target_problem,
    "noise": _size_problem,
    "directories": _mode_problem,
    "modes": _mode_problem,
    "owners": _owner_problem,
    "devices": _device_problem,
    "xattrs": _xattrs_problem,
}
"""The checks of the value of a path, by the attribute."""
_PLACES = ("files", "symlinks", "hardlinks", "noise", "directories", "devices", "whiteouts")
"""The attributes whose paths are places in the layer. Only directories have more below them."""
_OF = {
    "hardlinks": ("files", "noise", "devices"),
    "modes": ("files", "noise", "devices"),
    "owners": ("files", "noise", "devices", "symlinks", "directories"),
    "xattrs": ("files", "noise", "directories"),
}
"""The attributes that say something of a path, and those that have such a path."""
