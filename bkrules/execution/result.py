"""The results of actions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.cache.results import files_of
from bkrules.errors import ActionFailed, BkError, MachineLacks, RemoteFailed
from bkrules.model.action import Action, Key, Node
from bkrules.model.status import ABSENT, FailureClass, Status

RESOURCES = FailureClass.RESOURCES.value
"""The reason of errors of this class of failure: a limit was met."""

CONTRADICTIONS = (FailureClass.TEST, FailureClass.TIMEOUT)
"""Classes of failures that depend only on inputs that the key covers: an earlier result that passed is then no proof
any more.
"""

BROKEN = "broken-plugin"
"""The reason of errors whose failure is of the class `plugin`: a plugin breaks its contract."""


@dataclass(frozen=True)
class Attempt:
    """One run of a cell: its status, its seconds, and the place of its log in the cell's folder."""

    status: Status
    seconds: float
    log: str
    failure: FailureClass = FailureClass.NONE
    reason: str = ""


@dataclass(frozen=True)
class CellReport:
    """The report of a cell that ran.

    `attempts` are in their order; `egress` lists the attempts to leave the cell; `unlimited` names the limits that this
    machine could not apply: without one of them a cell is not fully isolated. `tainted` lists what changed in a shared
    worker during the cell. A result with `unlimited` or `tainted` is not cached. `unmet`: no request met the faults of the
    mirror that its axis values define.
    """

    attempts: tuple[Attempt, ...] = ()
    egress: tuple[tuple[str, str], ...] = ()
    unlimited: tuple[str, ...] = ()
    tainted: tuple[str, ...] = ()
    unmet: bool = False

    @property
    def may_be_kept(self) -> bool:
        """Whether a pass or a skip may be cached."""
        return not self.unlimited and not self.tainted


@dataclass(frozen=True)
class Result:
    """The result of an action. `failure` is the class of its failure.

    `seconds` is how long the action took when it ran, for a cached result in an earlier build. `ran` is the report of a
    cell that ran in this build. `remote`: it comes from the remote cache; the bytes of its outputs may not be on the
    disk. `unlimited` names the limits without which an ordinary action ran, since this machine cannot apply them.
    `is_kept`: a cache has it; else its inputs changed while it ran, or it is not the answer of a first attempt.
    """

    action: Action
    status: Status
    cached: bool = False
    seconds: float = 0.0
    key: Key | None = None
    outputs: Mapping[str, Node] = field(default_factory=dict)
    reason: str = ""
    failure: FailureClass = FailureClass.NONE
    hint: str = ""
    log: str = ""
    ran: CellReport | None = None
    remote: bool = False
    unlimited: tuple[str, ...] = ()
    is_kept: bool = True

    @property
    def has_run(self) -> bool:
        """Whether the action ran to an end in this build. An interrupted one did not."""
        return not self.cached and self.key is not None and self.status not in ABSENT

    @property
    def is_here(self) -> bool:
        """Whether the disk has the bytes of all outputs."""
        files = (file for node in self.outputs.values() for file in files_of(node))
        return not self.remote or all(os.path.exists(file.path) for file in files)

    @property
    def cache(self) -> str | None:
        """The cache from which the result comes: disk, remote, or neither."""
        return ("remote" if self.remote else "disk") if self.cached else None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a runner: `outputs` are paths by the names that the action declared, each a file or a folder as
    declared.

    `is_own_skip`: the test itself, in its cell, has decided at its first attempt that it does not apply.

    A path ends in its name; the folder before that belongs to bk, and its contents are untrusted. Together the outputs
    may have `most` bytes; 0 means no limit. `handle` is a descriptor that is closed once they are stored.
    """

    status: Status
    outputs: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    failure: FailureClass = FailureClass.NONE
    ran: CellReport | None = None
    most: int = 0
    handle: int | None = None
    unlimited: tuple[str, ...] = ()
    is_own_skip: bool = False

    @property
    def may_be_kept(self) -> bool:
        """Whether a cache may keep the result."""
        return (self.status == Status.PASSED or self.is_own_skip) and (self.ran is None or self.ran.may_be_kept)


def failed(action: Action, error: BkError) -> Result:
    """Return the result of an action that raised, or could not run."""
    if error.reason == "interrupted":
        return Result(action, Status.NOT_RUN, reason="the build was interrupted", failure=FailureClass.INTERRUPTED)
    is_about_machine = isinstance(error, (MachineLacks, RemoteFailed))
    if is_about_machine and action.cell is not None:
        return Result(action, Status.SKIPPED, reason=error.message, failure=FailureClass.MACHINE, hint=error.hint)
    failure = FailureClass.PLUGIN if error.reason == BROKEN else FailureClass.BUILD
    failure = FailureClass.MACHINE if is_about_machine else failure
    log = ""
    if isinstance(error, ActionFailed):
        log, failure = error.log, FailureClass.RESOURCES if error.reason == RESOURCES else failure
    hint = "\n".join(filter(None, [error.where, error.hint]))
    return Result(action, Status.FAILED, reason=error.message, failure=failure, hint=hint, log=log)
