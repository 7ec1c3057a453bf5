"""`bk.lock`: the digests that references had when somebody looked, for everybody to get the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bkrules.cache import atomic
from bkrules.errors import LoadError

NAME = "bk.lock"
_VERSION = 1


@dataclass(frozen=True)
class Pin:
    """What a reference stands for: the digest of its index or manifest, and of each platform's manifest."""

    digest: str
    platforms: Mapping[str, str] = field(default_factory=dict)


def read(path: str) -> dict[str, Pin]:
    """The pins by reference; none when there is no file. Raises LoadError for a file that is none of bk's."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return {}
    try:
        document: Any = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError(f"its version is {document['version']!r}, and this bk reads {_VERSION}")
        return {name: Pin(pin["digest"], dict(pin["platforms"])) for name, pin in document["images"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LoadError(
            "bad-lock", f"{NAME} cannot be read: {error}", where=f"{NAME}:1", hint="bk mirror sync writes a new one"
        ) from error


def write(path: str, pins: Mapping[str, Pin]) -> None:
    """Write the pins, sorted, so that a change shows as few lines."""
    images = {
        name: {"digest": pin.digest, "platforms": dict(sorted(pin.platforms.items()))} for name, pin in pins.items()
    }
    text = json.dumps({"version": _VERSION, "images": dict(sorted(images.items()))}, indent=1)
    atomic.write(path, f"{text}\n".encode())
