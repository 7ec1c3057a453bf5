"""The runner of Genrule: a command in a sandbox that shows its inputs and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from bkrules.action import Action, FileNode, HostFile, Node
from bkrules.errors import ActionFailed
from bkrules.execution.processes import CommandSandbox
from bkrules.execution.result import Outcome
from bkrules.execution.runner import Workshop
from bkrules.rules.genrule import OUT

_WORK = "/work"
_SEEN = 10


def run_genrule(action: Action, inputs: Mapping[str, Node], workshop: Workshop) -> Outcome:
    """Run the command. Raises ActionFailed when it fails, or does not make what it should."""
    folder = workshop.scratch(action)
    out = folder / OUT
    for name in action.outputs:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    declared = dict(action.inputs)
    binds = [(str(out), f"{_WORK}/{OUT}", True)]
    for path, node in inputs.items():
        source = declared[path]
        assert isinstance(node, FileNode)
        if path.startswith("host/") and isinstance(source, HostFile):
            binds.append((node.path, source.path, False))
        else:
            binds.append((node.path, f"{_WORK}/{path}", False))
    log = folder / "log"
    sandbox = CommandSandbox(str(workshop.folder.root), tuple(binds))
    code = workshop.processes.run(action.arguments, _WORK, dict(action.environment), str(log), sandbox)
    missing = [name for name in action.outputs if not (out / name).is_file() or (out / name).is_symlink()]
    if code or missing:
        kept = workshop.log(action)
        kept.write_bytes(log.read_bytes())
        problem = f"failed with exit status {code}" if code else f"did not make the file {missing[0]!r}"
        seen = [path for path in inputs if not path.startswith("host/")]
        names = ", ".join(seen[:_SEEN]) + (f" and {len(seen) - _SEEN} more" if len(seen) > _SEEN else "")
        raise ActionFailed(
            "command-failed" if code else "missing-output",
            f"{action.label}: the command {problem}",
            hint=f"it sees nothing but: {names or 'an empty folder'}\nits output is in {kept}",
            log=log.read_text(errors="replace"),
        )
    return Outcome("passed", {name: str(out / name) for name in action.outputs})
