"""What became of an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.errors import ActionFailed, BkError, MachineLacks
from bkrules.model.action import Action, Key, Node
from bkrules.model.status import ABSENT, FailureClass, Status

RESOURCES = FailureClass.RESOURCES.value
"""The reason of errors whose failure is of this class: a limit was met."""

BROKEN = "broken-plugin"
"""The reason of errors whose failure is of the class `plugin`: a plugin breaks its contract."""


@dataclass(frozen=True)
class Attempt:
    """One run of a cell: what came of it, how many seconds it took, and where its log is in the cell's folder."""

    status: Status
    seconds: float
    log: str
    failure: FailureClass = FailureClass.NONE
    reason: str = ""


@dataclass(frozen=True)
class CellReport:
    """What is known of a cell that ran, beside its status.

    `attempts` are in their order; `egress` holds who tried to reach what outside of it; `unlimited` names the limits that this
    machine could not give it: without one of them a cell is not fully isolated. `tainted` says in what a shared worker was other
    after the cell than before. A result of either kind is not kept.
    """

    attempts: tuple[Attempt, ...] = ()
    egress: tuple[tuple[str, str], ...] = ()
    unlimited: tuple[str, ...] = ()
    tainted: tuple[str, ...] = ()

    @property
    def may_be_kept(self) -> bool:
        """Whether a passed result may go into the cache."""
        return not self.unlimited and not self.tainted


@dataclass(frozen=True)
class Result:
    """`failure` is the class of what went wrong.

    `seconds` is what the action took when it ran, which for a cached result was another time. `ran` is there for a cell that ran
    in this build. `remote`: it is from the remote cache; the bytes of its outputs may not be on the disk. `unlimited` names the
    limits that an ordinary action ran without, since this machine cannot give them.
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

    @property
    def has_run(self) -> bool:
        """Whether the action ran in this build, to whatever end. An interrupted one did not."""
        return not self.cached and self.key is not None and self.status not in ABSENT

    @property
    def cache(self) -> str | None:
        """Which cache the result is from: disk, remote, or neither."""
        return ("remote" if self.remote else "disk") if self.cached else None


@dataclass(frozen=True)
class Outcome:
    """What a runner returns: `outputs` are paths by the names that the action declared, each a file or a folder
    as declared.

    A path ends in its name, and what is before that is a folder of bk's own: what lies in there is not believed. Together the
    outputs may have `most` bytes, or any number for 0. `handle` is a descriptor that is closed when they are stored.
    """

    status: Status
    outputs: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    failure: FailureClass = FailureClass.NONE
    ran: CellReport | None = None
    most: int = 0
    handle: int | None = None
    unlimited: tuple[str, ...] = ()


def failed(action: Action, error: BkError) -> Result:
    """Return the result of an action that could not run, or that raised."""
    if error.reason == "interrupted":
        return Result(action, Status.NOT_RUN, reason="the build was interrupted", failure=FailureClass.INTERRUPTED)
    if isinstance(error, MachineLacks) and action.cell is not None:
        return Result(action, Status.SKIPPED, reason=error.message, failure=FailureClass.MACHINE, hint=error.hint)
    failure = FailureClass.PLUGIN if error.reason == BROKEN else FailureClass.BUILD
    failure = FailureClass.MACHINE if isinstance(error, MachineLacks) else failure
    log = ""
    if isinstance(error, ActionFailed):
        log, failure = error.log, FailureClass.RESOURCES if error.reason == RESOURCES else failure
    hint = "\n".join(filter(None, [error.where, error.hint]))
    return Result(action, Status.FAILED, reason=error.message, failure=failure, hint=hint, log=log)
