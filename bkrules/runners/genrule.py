"""The runner of Genrule: a command in a sandbox with only its inputs."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext, limit_met, limit_text
from bkrules.execution.result import RESOURCES, Outcome
from bkrules.model.action import Action, FileNode, Node, Source
from bkrules.model.status import Status
from bkrules.rules.genrule import HOST, OUT
from bkrules.sandbox import outputs
from bkrules.sandbox.outputs import BadOutput
from bkrules.sandbox.spawner import CommandSandbox, Ended

_WORK = "/work"
_SEEN = 10


@dataclass(frozen=True)
class CommandRun:
    """A command that has ended, the file with its output, and how it failed; `problem` is empty when it did not.

    `limit` is the limit that it met. `reason` is that of the error.
    """

    ended: Ended
    log: Path
    problem: str = ""
    reason: str = ""
    limit: str = ""


def run_genrule(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Run the command. Raises ActionFailed when it fails, meets a limit, or lacks an output."""
    with command_run(action, inputs, context) as run:
        if run.limit:
            remedy = "let it print less" if run.limit == "output" else f"give it more with the attribute {run.limit!r}"
            raise _failed(action, context, run, remedy)
        if run.problem:
            raise _failed(action, context, run, _seen_by(inputs))
        assert run.ended.out is not None
        out = os.dup(run.ended.out)
    made = {name: f"/proc/self/fd/{out}/{name}" for name in action.outputs}
    return Outcome(Status.PASSED, made, most=action.limits.disk << 20, handle=out, unlimited=run.ended.unlimited)


@contextmanager
def command_run(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Iterator[CommandRun]:
    """Run a command in a sandbox with its inputs. Its folder of outputs is open for as long as the context lasts."""
    with context.command_log() as log:
        ended = _run(action, inputs, context, log)
        try:
            if limit := limit_met(ended, log):
                yield CommandRun(ended, log, limit_text(action.limits, limit), RESOURCES, limit)
            else:
                yield CommandRun(ended, log, *_problem(action, ended))
        finally:
            if ended.out is not None:
                os.close(ended.out)


def _run(action: Action, inputs: Mapping[str, Node], context: RunContext, log: Path) -> Ended:
    declared = dict(action.inputs)
    scratch = cache(lambda: context.scratch(action))
    binds = []
    for path, node in inputs.items():
        assert isinstance(node, FileNode)
        shown = _readable(node.path, scratch) if isinstance(declared[path], Source) else node.path
        target = path.removeprefix(HOST) if path.startswith(f"{HOST}/") else f"{_WORK}/{path}"
        binds.append((shown, target, False))
    out = f"{_WORK}/{OUT}"
    folders = dict.fromkeys([out, *(os.path.dirname(f"{out}/{name}") for name in action.outputs)])
    sandbox = CommandSandbox(
        str(context.folder.root), tuple(binds), limits=action.limits, folders=tuple(folders), out=out
    )
    return context.processes.run_in_sandbox(action.arguments, _WORK, dict(action.environment), str(log), sandbox)


def _readable(path: str, scratch: Callable[[], Path]) -> str:
    """Return the file, or a copy of one that only its owner may read: the command is user 0, but without root's rights."""
    status = os.stat(path)
    if status.st_mode & stat.S_IROTH or (status.st_uid == os.geteuid() and status.st_mode & stat.S_IRUSR):
        return path
    copy = scratch() / f"source-{len(os.listdir(scratch()))}"
    shutil.copyfile(path, copy)
    copy.chmod(0o755 if status.st_mode & stat.S_IXUSR else 0o644)
    return str(copy)


def _problem(action: Action, ended: Ended) -> tuple[str, str]:
    """Return how a run failed, and the reason of the error; two empty texts when it did not fail."""
    if ended.code:
        return f"failed with exit status {ended.code}", "command-failed"
    assert ended.out is not None
    for name in action.outputs:
        try:
            outputs.check_file(ended.out, name)
        except FileNotFoundError:
            return f"did not make the file {name!r}", "missing-output"
        except BadOutput as error:
            return f"did not make the file {name!r}: {error}", "bad-output"
    return "", ""


def _failed(action: Action, context: RunContext, run: CommandRun, remedy: str) -> ActionFailed:
    """Keep the command's output. Return the error, whose hint begins with `remedy`."""
    copy = context.log(action)
    text = outputs.tail(run.log)
    outputs.replace(copy.parent, copy.name, text.encode())
    hint = f"{remedy}\nits output is in {copy}"
    return ActionFailed(run.reason, f"{action.label}: the command {run.problem}", hint=hint, log=text)


def _seen_by(inputs: Mapping[str, Node]) -> str:
    seen = [path for path in inputs if not path.startswith(f"{HOST}/")]
    names = ", ".join(seen[:_SEEN]) + (f" and {len(seen) - _SEEN} more" if len(seen) > _SEEN else "")
    return f"it sees nothing but: {names or 'an empty folder'}"
