"""What bisect makes of the results of a build, and what it remembers of them. Builds are scripted, keys are real."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from one_cell import Cells

from bkrules import cli
from bkrules.build import probes
from bkrules.build.analysis import Analysis, analyze_patterns
from bkrules.build.bisection import Answer, Verdict
from bkrules.build.execute import Execution
from bkrules.build.probes import Prober
from bkrules.build.request import Options
from bkrules.errors import ActionFailed, BkError, Interrupted, MachineLacks
from bkrules.execution.result import Result
from bkrules.model.action import Action
from bkrules.model.status import FailureClass, Status
from bkrules.report.build_result import BuildResult

PASSED = (Status.PASSED, FailureClass.NONE, "")
FAILED = (Status.FAILED, FailureClass.TEST, "AssertionError\nmore")
DIED = (Status.FAILED, FailureClass.INFRASTRUCTURE, "buildkitd died")
Given = tuple[Status, FailureClass, str]
Probe = Callable[..., tuple[Answer, list[str]]]


@pytest.fixture
def probe(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Probes the one cell, whose runs end as given. Returns the answer, and for each run whether a cached result counted."""

    def call(*waiting: Given, again: bool = False, interrupted: bool = False) -> tuple[Answer, list[str]]:
        left, asked = list(waiting), list[str]()
        analysis = analyze_patterns(str(cells.root), ["//p:m"])
        (cell,) = analysis.wanted().values()

        def execute(of: Analysis, options: Options) -> BuildResult:
            if not of.wanted():
                return BuildResult((), 0, interrupted)  # the inputs of the cell are files
            asked.append(options.cache_test_results)
            status, failure, reason = left.pop(0)
            key = Execution(of, options, print, show=False).executor.key(cell)
            return BuildResult((Result(cell, status, key=key, reason=reason, failure=failure),), 0, interrupted)

        monkeypatch.setattr(probes, "execute", execute)
        answer = Prober(Options(1, str(cells.root / "cache")), again).answer(analysis, cell)
        assert not left
        return answer, asked

    return call


def test_a_failure_that_is_repeated_is_remembered(probe: Probe) -> None:
    assert probe(FAILED, DIED) == (Answer(Verdict.BAD, "buildkitd died", 2), ["auto", "no"])
    assert probe() == (Answer(Verdict.BAD, "buildkitd died", 0), [])
    assert probe(PASSED, again=True) == (Answer(Verdict.GOOD, "", 1), ["no"])


def test_a_flaky_cell_runs_three_times_once(probe: Probe) -> None:
    """The second run passed, and its result is cached: only the memory says that the majority failed."""
    assert probe(FAILED, PASSED, FAILED) == (Answer(Verdict.BAD, "flaky, failed 2 of 3 times", 3), ["auto", "no", "no"])
    assert probe() == (Answer(Verdict.BAD, "flaky, failed 2 of 3 times", 0), [])
    assert probe(FAILED, PASSED, PASSED, again=True)[0] == Answer(Verdict.GOOD, "flaky, passed 2 of 3 times", 3)
    assert probe()[0].verdict == Verdict.GOOD


def test_another_cell_is_not_remembered(probe: Probe, cells: Cells) -> None:
    probe(FAILED, FAILED)
    cells.write("buildkitd", "other bytes")
    assert probe(PASSED)[0].verdict == Verdict.GOOD


def test_a_skipped_cell_says_nothing(probe: Probe) -> None:
    answer, _ = probe((Status.SKIPPED, FailureClass.SKIP, "not here"))
    assert answer == Answer(Verdict.UNKNOWN, "skipped: not here")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((Status.SKIPPED, FailureClass.MACHINE, "no cgroups"), MachineLacks),
        ((Status.FAILED, FailureClass.MACHINE, "the disk is full"), MachineLacks),
        ((Status.FAILED, FailureClass.PLUGIN, "start returned None"), ActionFailed),
    ],
)
def test_what_says_nothing_of_the_tool_ends_the_bisection(probe: Probe, given: Given, error: type[BkError]) -> None:
    with pytest.raises(error, match=given[2]):
        probe(given)


def test_an_interrupted_probe_ends_the_bisection(probe: Probe) -> None:
    with pytest.raises(Interrupted):
        probe((Status.NOT_RUN, FailureClass.INTERRUPTED, "the build was interrupted"), interrupted=True)


def test_a_cell_whose_name_says_the_tool_is_not_bisected(
    cells: Cells, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cells.build(value="{'tools': {'runc': '//:runc'}}")
    monkeypatch.chdir(cells.root)

    assert (
        cli.main(["--nohome_rc", "bisect", "test_it/worker=oci/size=small", "--tool=runc", "--good=a", "--bad=b"]) == 2
    )

    assert (
        "test_it/worker=oci/size=small runs the runc that its size=small gives, and no other" in capfd.readouterr().err
    )


def test_a_tool_that_does_not_build(cells: Cells, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of the build is remembered, but not the absence of a network."""
    analysis = analyze_patterns(str(cells.root), ["//p:m"])
    (cell,) = analysis.wanted().values()
    key = Execution(analysis, Options(1, str(cells.root / "cache")), print, show=False).executor.key(cell)
    build = Action("//:tool GoBuild", cell.label, "GoBuild", (), (), ())

    def failing(log: str) -> Callable[..., BuildResult]:
        failed = Result(build, Status.FAILED, key=key, reason="GoBuild failed", failure=FailureClass.BUILD, log=log)
        return lambda *_: BuildResult((failed, Result(cell, Status.NOT_RUN, reason="it depends on it")), 0)

    prober = Prober(Options(1, str(cells.root / "cache")))
    monkeypatch.setattr(probes, "execute", failing("dial tcp: lookup proxy: no such host"))
    with pytest.raises(MachineLacks, match="GoBuild failed"):
        prober.answer(analysis, cell)
    monkeypatch.setattr(probes, "execute", failing("main.go:1: syntax error"))
    assert prober.answer(analysis, cell) == Answer(Verdict.UNKNOWN, "does not build: GoBuild failed", 0)
    assert probe() == (Answer(Verdict.UNKNOWN, "does not build: GoBuild failed", 0), [])
