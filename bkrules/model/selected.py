"""Selections: the cells that a command line chose of the declared cells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bkrules.model.label import Label

_DIGITS = 12
"""How many digits of a plan's id are in the name of a folder."""
_JOB = re.compile(rf"plan_([0-9a-f]{{{_DIGITS}}})_job_\d+_of_\d+")


@dataclass(frozen=True)
class Selected:
    """The ids of the chosen cells. `declared` counts all cells of each matrix; `by` names the options that chose.

    `partition` names how all shards, or the jobs of a plan, divide the cells; those that belong together have the same.
    `shard` and `job` are the number of one, from 1, and how many there are. `remarks` are printed before anything runs.
    `skip` is why these cells are skipped.
    """

    ids: frozenset[str]
    declared: Mapping[Label, int]
    by: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    partition: str = ""
    remarks: tuple[str, ...] = ()
    skip: str = ""
    job: tuple[int, int] | None = None

    @property
    def folder(self) -> str:
        """The folder of the reports of a shard or a job below a matrix's outputs, so that they do not overwrite each other.
        That of a shard has Bazel's name.
        """
        if self.job:
            return f"plan_{self.partition[:_DIGITS]}_job_{self.job[0]}_of_{self.job[1]}"
        return f"shard_{self.shard[0]}_of_{self.shard[1]}" if self.shard else ""


def plan_of(folder: str) -> str:
    """Return the beginning of the id of a plan by the name of a job's folder; empty for another folder."""
    match = _JOB.fullmatch(folder)
    return match[1] if match else ""


def is_of_plan(folder: str, plan: str) -> bool:
    """Return whether a folder has the reports of a job of the plan with that id."""
    return plan_of(folder) == plan[:_DIGITS]
