"""What a cell's mirror does wrong on purpose: `"mirror"` of an axis value, as {"status": 429, "retry_after": 1, "times": 2}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

from bkrules.errors import did_you_mean

NEVER = -1


@dataclass(frozen=True)
class MirrorFaults:
    """What becomes of a request that meets the faults.

    `status` is answered instead of what was asked for, with `retry_after` seconds in a `Retry-After` when that is not 0.
    `reset_after` resets the connection after so many bytes of the answer's body, of which those still under way are lost; 0 does
    so before any answer, as a mirror does that is gone. `delay` holds each answer back, in seconds. `bytes_per_second` is shared by
    all answers of the cell.

    `times` is how many requests meet them, 0 for all; a body that is too short to be cut is none. `paths` is a pattern with `*`,
    such as `*/blobs/*`. With `later`, they begin when the test calls `sandbox.begin_faults`.
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
    def read(cls, given: object) -> MirrorFaults:
        """The faults that an axis value says. Raises ValueError, whose text follows the words "has a 'mirror' "."""
        if not isinstance(given, Mapping):
            raise ValueError(f"that must be a dictionary, but was {given!r}")
        known = {one.name: type(one.default) for one in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"with the unknown key {name!r}\n{did_you_mean(str(name), known, 'keys')}")
            allowed = (int, float) if known[name] is float else (known[name],)
            if type(value) not in allowed:
                raise ValueError(f"whose {name!r} must be of the type {known[name].__name__}, but was {value!r}")
            if known[name] in (int, float) and value < 0:
                raise ValueError(f"whose {name!r} must not be negative, but was {value!r}")
        faults = cls(**given)
        if faults.status and not 400 <= faults.status <= 599:
            raise ValueError(f"whose 'status' must be one of an error, 400 to 599, but was {faults.status}")
        if faults.status and faults.reset_after != NEVER:
            raise ValueError("with both 'status' and 'reset_after', of which a request can meet one")
        if faults.retry_after and not faults.status:
            raise ValueError("with a 'retry_after' but no 'status', such as 429")
        if not faults._any():
            raise ValueError("without a fault: it needs 'status', 'reset_after', 'delay' or 'bytes_per_second'")
        return faults

    def _any(self) -> bool:
        return bool(self.status or self.reset_after != NEVER or self.delay or self.bytes_per_second)

    def cuts(self, size: int) -> bool:
        """Whether the connection is reset within an answer whose body has so many bytes."""
        return NEVER != self.reset_after < size

    def concern(self, path: str) -> bool:
        """Whether a request for this path can meet them."""
        return fnmatchcase(path, self.paths)
