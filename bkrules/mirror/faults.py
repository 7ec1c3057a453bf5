"""Faults that a cell's mirror injects: `"mirror"` of an axis value, as {"status": 429, "retry_after": 1, "times": 2}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

from bkrules.errors import did_you_mean

NEVER = -1


@dataclass(frozen=True)
class MirrorFaults:
    """The faults that requests of a cell meet.

    `status` replaces the registry's answer, with `retry_after` seconds in a `Retry-After` when that is not 0. `reset_after` resets
    the connection after this number of bytes of the answer's body, and those in flight are lost; 0 resets it before any answer, as
    if the mirror were down. `delay` delays each answer, in seconds. All answers of the cell share `bytes_per_second`.

    `times` is the number of requests that meet the faults, 0 for all; a body that is too short to be cut does not count. `paths` is
    a pattern with `*`, such as `*/blobs/*`. With `later`, the faults begin when the test calls `sandbox.begin_faults`.
    """

    status: int = 0
    retry_after: int = 0
    reset_after: int = NEVER
    delay: float = 0.0
    bytes_per_second: int = 0
    times: int = 0
    paths: str = "*"
    later: bool = False

    @classmethod
    def read(cls, document: object) -> MirrorFaults:
        """Parse the faults of an axis value. Raises ValueError, whose text follows the words "has a 'mirror' "."""
        if not isinstance(document, Mapping):
            raise ValueError(f"that must be a dictionary, but was {document!r}")
        known = {field.name: type(field.default) for field in fields(cls)}
        for name, value in document.items():
            if name not in known:
                raise ValueError(f"with the unknown key {name!r}\n{did_you_mean(str(name), known, 'keys')}")
            allowed = (int, float) if known[name] is float else (known[name],)
            if type(value) not in allowed:
                raise ValueError(f"whose {name!r} must be of the type {known[name].__name__}, but was {value!r}")
            if known[name] in (int, float) and value < 0:
                raise ValueError(f"whose {name!r} must not be negative, but was {value!r}")
        faults = cls(**document)
        if faults.status and not 400 <= faults.status <= 599:
            raise ValueError(f"whose 'status' must be an error status, 400 to 599, but was {faults.status}")
        if faults.status and faults.reset_after != NEVER:
            raise ValueError("with both 'status' and 'reset_after', but a request can meet only one of them")
        if faults.retry_after and not faults.status:
            raise ValueError("with a 'retry_after' but no 'status', such as 429")
        if not faults._any():
            raise ValueError("without a fault: set 'status', 'reset_after', 'delay' or 'bytes_per_second'")
        return faults

    def _any(self) -> bool:
        return bool(self.status or self.reset_after != NEVER or self.delay or self.bytes_per_second)

    def cuts(self, size: int) -> bool:
        """Return whether the connection is reset within an answer whose body has `size` bytes."""
        return NEVER != self.reset_after < size

    def concern(self, path: str) -> bool:
        """Return whether a request for this path can meet the faults."""
        return fnmatchcase(path, self.paths)
