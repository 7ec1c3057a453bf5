"""The runner of ListGoTests: a test binary lists its tests, in a sandbox without daemons and without a network."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from bkrules.errors import ActionFailed
from bkrules.execution.context import RunContext
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, FileNode, Node
from bkrules.model.go_tests import LISTED, GoTests, pattern
from bkrules.model.parameters import ListGoTests, parameters_of
from bkrules.model.status import Status
from bkrules.sandbox import outputs
from bkrules.sandbox.command import MOST_OUTPUT
from bkrules.sandbox.spawner import CommandSandbox

_WORK = "/work"
_ENVIRONMENT = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": f"{_WORK}/tools", "TMPDIR": "/tmp", "TZ": "UTC"}
_SECONDS = 120
_RUN = re.compile(r"=== RUN +(\S+)")


def list_go_tests(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Run the binary to list its tests. Raises ActionFailed when it lists none."""
    parameters = parameters_of(action, ListGoTests)
    tools = {path: node for path, node in inputs.items() if isinstance(node, FileNode)}
    folder = context.scratch(action)
    binary = f"{_WORK}/tools/{parameters.binary}"
    binds = tuple((node.path, f"{_WORK}/{path}", False) for path, node in tools.items())
    sandbox = CommandSandbox(str(context.folder.root), binds, limits=action.limits)

    def run(name: str, *words: str) -> tuple[int, list[str]]:
        log = folder / name
        ended = context.processes.run_in_sandbox([binary, *words], _WORK, _ENVIRONMENT, str(log), sandbox)
        return ended.code, (outputs.read(folder, name, MOST_OUTPUT) or b"").decode(errors="replace").splitlines()

    code, lines = run("list", "-test.list=.")
    tops = [line for line in lines if line.startswith("Test") and line.isidentifier()]
    if code or not tops:
        what = f"failed with exit status {code}" if code else "has no test function"
        hint = "is it a go_binary with test = True?"
        raise ActionFailed("no-tests", f"{action.label}: {parameters.binary} {what}", hint=hint, log="\n".join(lines))
    divided = [name for name in tops if any(fnmatch.fnmatchcase(name, one) for one in parameters.subtests)]
    names = [name for name in tops if name not in divided]
    for name in divided:
        leaves: dict[str, None] = {}
        skipped: list[str] = []
        while True:
            skip = [f"-test.skip={'|'.join(skipped)}"] if skipped else []
            code, lines = run("subtests", "-test.v", f"-test.run=^{name}$", *skip, f"-test.timeout={_SECONDS}s")
            if code not in (0, 1):  # a panic, a signal or a limit: what comes after it is not in the list
                what = f"{parameters.binary} ended with {code} while it listed the subtests of {name}, so some may be missing"
                hint = f"leave {name} out of 'subtests'"
                raise ActionFailed("no-tests", f"{action.label}: {what}", hint=hint, log="\n".join(lines))
            found = _leaves(name, lines)
            new = [leaf for leaf in found if leaf not in leaves]
            leaves.update(dict.fromkeys(new))
            if not new or not _may_have_ended(found[-1], lines):
                break
            skipped.append(pattern(found[-1]))
        names += leaves or [name]
    path = folder / LISTED
    path.write_text(json.dumps(GoTests(tuple(names)).to()))
    return Outcome(Status.PASSED, {LISTED: str(path)})


def _may_have_ended(leaf: str, lines: Sequence[str]) -> bool:
    """Return whether a function may have ended at its last subtest: one that failed, and was not left for later as parallel."""
    failed = any(line.strip().startswith(f"--- FAIL: {leaf} (") for line in lines)
    return failed and not any(line.split() == ["===", "PAUSE", leaf] for line in lines)


def _leaves(top: str, lines: Iterable[str]) -> list[str]:
    """Return the subtests that ran and have no subtests themselves, in their order."""
    names = list(dict.fromkeys(found[1] for line in lines if (found := _RUN.fullmatch(line))))
    inner = [name for name in names if name.startswith(f"{top}/")]
    parents = {parent for name in inner for parent in _above(name)}
    return [name for name in inner if name not in parents]


def _above(name: str) -> Sequence[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
