"""`bk.lock`: the digests of references at the time of `bk mirror sync`, so that every machine gets the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bkrules.cache import atomic
from bkrules.errors import ActionFailed, LoadError
from bkrules.images.digests import ImageDigest
from bkrules.system.files import read_regular

NAME = "bk.lock"
_VERSION = 1


@dataclass(frozen=True)
class Pin:
    """The pin of a reference: the digest of its index or manifest, and of each platform's manifest."""

    digest: ImageDigest
    platforms: Mapping[str, ImageDigest] = field(default_factory=dict)


def read(path: str) -> dict[str, Pin]:
    """Return the pins by reference; none when the file does not exist. Raises LoadError when bk did not write the file."""
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(error.strerror or str(error)) from error
    from bkrules.images.json_object import read_json

    try:
        document = read_json(data, NAME)
        if document["version"] != _VERSION:
            raise ValueError(f"its version is {document['version']!r}, and this bk reads {_VERSION}")
        return {name: _pin(pin) for name, pin in document["images"].items()}
    except ActionFailed as error:
        raise _unreadable(error.message.removeprefix(f"{NAME}: ")) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(str(error)) from error


def _pin(document: Any) -> Pin:
    return Pin(
        ImageDigest(document["digest"]),
        {platform: ImageDigest(digest) for platform, digest in document["platforms"].items()},
    )


def _unreadable(problem: str) -> LoadError:
    line = re.search(r"line (\d+) column", problem)
    where = f"{NAME}:{line[1] if line else 1}"
    hint = "take it from version control; or remove it, and `bk mirror sync` writes a new one"
    return LoadError("bad-lock", f"{NAME} cannot be read: {problem}", where=where, hint=hint)


def write(path: str, pins: Mapping[str, Pin]) -> None:
    """Write the pins, sorted, so that a change affects few lines."""
    images = {
        name: {"digest": pin.digest, "platforms": dict(sorted(pin.platforms.items()))} for name, pin in pins.items()
    }
    text = json.dumps({"version": _VERSION, "images": dict(sorted(images.items()))}, indent=1)
    atomic.write(path, f"{text}\n".encode())
