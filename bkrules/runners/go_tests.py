"""The runner of ListGoTests: a test binary lists its tests, in a sandbox without daemons and without a network."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

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
_Run = Callable[..., tuple[int, list[str]]]
_RUN = re.compile(r"=== RUN +(\S+)")


def list_go_tests(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Run the binary to list its tests. Raises ActionFailed when it lists none."""
    parameters = parameters_of(action, ListGoTests)
    tools = {path: node for path, node in inputs.items() if isinstance(node, FileNode)}
    folder = context.scratch(action)
    binary = f"{_WORK}/tools/{parameters.binary}"
    binds = tuple((node.path, f"{_WORK}/{path}", False) for path, node in tools.items())
    sandbox = CommandSandbox(str(context.folder.root), binds, limits=action.limits)

    environment = {**dict(action.environment), **_ENVIRONMENT}
    runs = itertools.count()

    def run(*words: str) -> tuple[int, list[str]]:
        name = f"output-{next(runs)}"
        log = folder / name  # one for each run, since a log is appended to
        ended = context.processes.run_in_sandbox([binary, *words], _WORK, environment, str(log), sandbox)
        return ended.code, (outputs.read(folder, name, MOST_OUTPUT) or b"").decode(errors="replace").splitlines()

    code, lines = run("-test.list=.")
    tops = [line for line in lines if line.startswith("Test") and line.isidentifier()]
    if code or not tops:
        what = f"failed with exit status {code}" if code else "has no test function"
        hint = "is it a go_binary with test = True?"
        raise ActionFailed("no-tests", f"{action.label}: {parameters.binary} {what}", hint=hint, log="\n".join(lines))
    divided = [name for name in tops if any(fnmatch.fnmatchcase(name, one) for one in parameters.subtests)]
    names = [name for name in tops if name not in divided]
    for name in divided:
        names += _subtests(name, run, f"{action.label}: {parameters.binary}") or [name]
    path = folder / LISTED
    path.write_text(json.dumps(GoTests(tuple(names)).to()))
    return Outcome(Status.PASSED, {LISTED: str(path)})


def _subtests(top: str, run: _Run, who: str) -> list[str]:
    """Return the subtests that have no subtests themselves, in their order. Raises ActionFailed when some may be missing.

    Nothing that a subtest needs is there, so most of them fail. One that ends the whole binary by a panic does so before
    Go has run what is parallel, so then a child of the function counts as one test, whatever is below it.
    """
    found: dict[str, None] = {}
    children: dict[str, None] = {}
    skipped: list[str] = []
    panicked = False
    while True:
        skip = [f"-test.skip={'|'.join(skipped)}"] if skipped else []
        code, lines = run("-test.v", f"-test.run=^{top}$", *skip, f"-test.timeout={_SECONDS}s")
        names = list(dict.fromkeys(one[1] for line in lines if (one := _RUN.fullmatch(line)) and one[1] != top))
        parents = {top, *names}
        direct = [name for name in names if _parent(name, parents) == top]
        if code not in (0, 1):  # a panic, a signal or a limit
            panicked = True
            if not _has_ended(direct, lines):
                what = f"{who} ended with {code} while it listed the subtests of {top}, so some may be missing"
                raise ActionFailed("no-tests", what, hint=f"leave {top} out of 'subtests'", log="\n".join(lines))
        inner = {_parent(name, parents) for name in names}
        leaves = [name for name in names if name not in inner]
        known = len(found) + len(children)
        found.update(dict.fromkeys(leaves))
        children.update(dict.fromkeys(direct))
        if len(found) + len(children) == known or not _may_have_ended(leaves[-1], lines):
            return list(children if panicked else found)
        skipped.append(pattern(leaves[-1]))


def _parent(name: str, names: Collection[str]) -> str:
    """Return the test whose subtest this is: a name itself may have slashes."""
    above = name.rpartition("/")[0]
    while above and above not in names:
        above = above.rpartition("/")[0]
    return above


def _has_ended(children: Iterable[str], lines: Collection[str]) -> bool:
    """Return whether the body of a function has ended: Go continues its parallel children only then."""
    return any(f"=== CONT  {child}" in lines for child in children)


def _may_have_ended(leaf: str, lines: Sequence[str]) -> bool:
    """Return whether a function may have ended at its last subtest: one that failed, and was not left for later as parallel."""
    failed = any(line.strip().startswith(f"--- FAIL: {leaf} (") for line in lines)
    return failed and f"=== PAUSE {leaf}" not in lines
