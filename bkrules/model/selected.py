"""Selections: the cells that a command line chose of the declared cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bkrules.model.label import Label


@dataclass(frozen=True)
class Selected:
    """The ids of the chosen cells. `declared` counts all cells of each matrix; `by` names the options that chose.

    `partition` names how all shards divide the cells; shards that belong together have the same. `remarks` are printed
    before anything runs. `skip` is why these cells are skipped.
    """

    ids: frozenset[str]
    declared: Mapping[Label, int]
    by: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    partition: str = ""
    remarks: tuple[str, ...] = ()
    skip: str = ""

    @property
    def folder(self) -> str:
        """The folder of a shard's reports below a matrix's outputs, so that shards do not overwrite each other; Bazel's name."""
        return f"shard_{self.shard[0]}_of_{self.shard[1]}" if self.shard else ""
