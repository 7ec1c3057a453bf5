"""What both sides agree on: the kinds of worker, how many cells each has, what a run says, and what it means to fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COPIES = 4
"""The cells of each kind: the hello test at so many points of an axis that changes nothing."""


@dataclass(frozen=True)
class Kind:
    """A kind of worker, as the two harnesses call it. `target` is its name in //targets."""

    target: str
    bk: str
    go: str


KINDS = (
    Kind("oci", "oci", "oci"),
    Kind("oci_stargz", "oci+stargz", "oci-snapshotter-stargz"),
    Kind("containerd", "containerd", "containerd"),
    Kind("containerd_stargz", "containerd+stargz", "containerd-snapshotter-stargz"),
    Kind("rootless", "rootless", "oci-rootless"),
)
CELLS = COPIES * len(KINDS)


@dataclass(frozen=True)
class Cell:
    """What one cell took, and its parts where they are known."""

    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of all cells: its wall time, and the cells of each kind."""

    seconds: float
    cells: Mapping[Kind, list[Cell]]


class Failed(Exception):
    """A side did not do what is timed here, so that there is nothing to compare."""
