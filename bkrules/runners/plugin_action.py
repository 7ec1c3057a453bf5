"""The runner of actions that rules of plugins declare: a function of the plugin, in bk's own process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.status import Status
from bkrules.plugin.installed import Plugin
from bkrules.rules.define import ActionRun, Runner


def run_plugin_action(
    runner: Runner, plugin: Plugin, action: Action, inputs: Mapping[str, Node], context: RunContext
) -> Outcome:
    """Run the function for at most the action's timeout. Raises BkError."""
    folder = context.scratch(action)
    for name in action.outputs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for name, node in inputs.items():
        if name.startswith("plugin/"):
            continue
        inner = (
            {name: node}
            if isinstance(node, FileNode)
            else {f"{name}/{path}": file for path, file in node.files.items()}
        )
        files |= {path: Path(file.path) for path, file in inner.items()}
    run = ActionRun(str(action.label), action.arguments, files, folder)
    what = f"the runner of {action.mnemonic} for {action.label}"
    context.plugins.hooks.guarded(plugin.title, what, partial(runner, run), ActionFailed, action.limits.timeout)
    return Outcome(Status.PASSED, {name: str(folder / name) for name in action.outputs}, most=action.limits.disk << 20)
