"""`bk bisect`: the first release of a tool, or commit of its source, with which a cell fails."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.build.bisection import Answer, Verdict, first_bad
from bkrules.commands.build_arguments import add_execution, options_of, runs_of
from bkrules.commands.cells import one_cell
from bkrules.commands.harness import add_overrides, overrides_of
from bkrules.commands.parser import command
from bkrules.errors import BkError, UsageError

if TYPE_CHECKING:
    from bkrules.build.analysis import Analysis
    from bkrules.build.probes import Prober
    from bkrules.build.revisions import Revisions
    from bkrules.build.worker_overrides import WorkerOverrides
    from bkrules.commands.parser import Commands
    from bkrules.model.action import Action


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    text = "find the first release of a tool, or commit of its source, with which a cell fails"
    bisect = command(commands, "bisect", _bisect, text)
    bisect.add_argument("cell", metavar="CELL", help="test_x/worker=oci, or //pkg:matrix[CELL]")
    bisect.add_argument("--tool", required=True, metavar="NAME", help="a tool of the worker or of the test")
    bisect.add_argument("--good", required=True, metavar="VERSION-or-COMMIT", help="with it, the cell passes")
    bisect.add_argument("--bad", required=True, metavar="VERSION-or-COMMIT", help="with it, the cell fails")
    bisect.add_argument(
        "--source",
        default="",
        metavar="DIR",
        help="the tool's module in a Git checkout: look among its commits, not among the declared releases",
    )
    bisect.add_argument(
        "--again", action="store_true", help="run also what is cached, or was found by an earlier bisect"
    )
    bisect.add_argument("--json", action="store_true", help="print JSON")
    add_overrides(bisect)
    add_execution(bisect)


def _bisect(arguments: argparse.Namespace) -> int:
    from bkrules.build.probes import Prober

    if arguments.runs_per_test != 1:
        raise UsageError(
            "usage", "bk bisect: --runs_per_test is not for one cell", hint="bisect repeats failures itself"
        )
    options = replace(options_of(arguments), test_attempts=1, test_output="summary")
    with _revisions(arguments) as revisions:
        search = _Search(arguments, revisions, Prober(options, arguments.again))
        search.check_ends()
        last_good, found = first_bad(len(revisions.names), search.ask)
    _print(search, last_good, found, as_json=arguments.json)
    return errors.SUCCESS


def _revisions(arguments: argparse.Namespace) -> AbstractContextManager[Revisions]:
    """Return the revisions to look among. Raises UsageError, also for a cell or a tool that does not exist."""
    from bkrules.build.commits import commits
    from bkrules.build.revisions import module_of_tool, releases

    overrides = overrides_of(arguments)
    analysis, cell = one_cell(arguments.cell, runs_of(arguments), overrides)
    _check_open(analysis, cell, arguments.tool)
    if arguments.source:
        module = module_of_tool(analysis.targets.targets, arguments.tool)
        return commits(arguments.source, arguments.good, arguments.bad, module, overrides)
    return nullcontext(releases(analysis.workspace, arguments.tool, arguments.good, arguments.bad, overrides))


def _check_open(analysis: Analysis, cell: Action, tool: str) -> None:
    """Raise UsageError when the values in the name of the cell decide which binary of the tool it runs."""
    assert cell.cell is not None
    matrix = analysis.workspace.target(cell.cell.matrix)
    assert matrix is not None
    for axis, choice in cell.cell.axes:
        value = matrix.attributes["axes"][axis][choice]
        if isinstance(value, dict) and tool in value.get("tools", {}):
            what = f"{cell.title} runs the {tool} that its {axis}={choice} gives, and no other"
            raise UsageError("fixed-tool", what, hint="name a cell without a value that gives it")


@dataclass
class _Search:
    """The questions of a bisection, each asked once, and their answers by place."""

    arguments: argparse.Namespace
    revisions: Revisions
    prober: Prober
    answers: dict[int, Answer] = field(default_factory=dict)

    def ask(self, place: int) -> Verdict:
        """Return the verdict on a revision, and print it."""
        answer = self.answers[place] = self._answer(self.revisions.overrides(place))
        note = f" ({answer.note})" if answer.note else ""
        print(f"probe {len(self.answers)}: {self.name(place)}: {answer.verdict}{note}", file=sys.stderr, flush=True)
        return answer.verdict

    def _answer(self, overrides: WorkerOverrides) -> Answer:
        try:
            analysis, cell = one_cell(self.arguments.cell, runs_of(self.arguments), overrides)
        except BkError as error:
            if error.reason != "override-module":
                raise
            return Answer(Verdict.UNKNOWN, error.message)  # the commit has another module, or none
        return self.prober.answer(analysis, cell)

    def name(self, place: int) -> str:
        """Return the name of a revision with its tool."""
        return f"{self.arguments.tool} {self.revisions.names[place]}"

    def check_ends(self) -> None:
        """Raise BkError unless the good end is good and the bad one is bad."""
        last = len(self.revisions.names) - 1
        for place, expected, remedy in ((0, Verdict.GOOD, "an older"), (last, Verdict.BAD, "a newer")):
            verdict = self.ask(place)
            if verdict != expected:
                fault = "cannot be judged" if verdict == Verdict.UNKNOWN else f"is {verdict}"
                what = f"--{expected}={getattr(self.arguments, expected)}: {self.name(place)} {fault}"
                hint = f"{self.answers[place].note}\nname {remedy} one".strip()
                raise BkError(f"not-{expected}", what, hint=hint)


def _print(search: _Search, last_good: int, found: int, *, as_json: bool) -> None:
    names, answers = search.revisions.names, search.answers
    unknown = [names[place] for place in range(last_good + 1, found)]
    if as_json:
        probes = [
            {
                "revision": names[place],
                "verdict": str(answers[place].verdict),
                "note": answers[place].note,
                "runs": answers[place].runs,
            }
            for place in sorted(answers)
        ]
        document = {"first_bad": names[found], "last_good": names[last_good], "cannot_say": unknown, "probes": probes}
        print(json.dumps(document, indent=1))
        return
    between = f", or one of {len(unknown)} before it that cannot be judged" if unknown else ""
    print(f"the first bad one is {search.name(found)}{between}; {names[last_good]} is good")
    width = max(len(names[place]) for place in answers)
    for place in sorted(answers):
        answer = answers[place]
        runs = f"{answer.runs} run{'s' * (answer.runs != 1)}" if answer.runs else "0 runs"
        print(f"  {names[place]:{width}}  {answer.verdict:10}  {runs}  {answer.note}".rstrip())
