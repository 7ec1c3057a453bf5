"""A test that is a program: Bazel's contract for tests, in a cell. Its exit status counts, and then its report.

Source: Bazel's Test Encyclopedia (the variables TEST_*, XML_OUTPUT_FILE, sharding, the premature exit file).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bkrules.cell import go_harness, harness_networks
from bkrules.cell.protocol import Outcome, TestRequest
from bkrules.cell.reports import BadReport, cases_of
from bkrules.cell.task import task_of
from bkrules.model.cases import CASES, MOST_CASES, Case, Cases
from bkrules.model.parameters import TestProgram
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import RunningCell
from bkrules.plugin.worker import MIRROR_ADDRESS, Backend
from bkrules.testing.control import Control, ControlFailed

ROOT = "/src"
_PRIVATE = Path("/tmp/bk-test")
_XML, _PREMATURE, _SHARDS = _PRIVATE / "test.xml", _PRIVATE / "premature-exit", _PRIVATE / "shards"
_ONLY = "TESTBRIDGE_TEST_ONLY"
_SHOWN = 3


def main(backend: Backend, cell: RunningCell, control: Control, outcome: str) -> int:
    """Run the cell's program, keep its cases in the cell's folder, and write its outcome to the file `outcome`."""
    task = task_of(cell)
    request = task.test
    assert request is not None
    assert request.program is not None, "nothing says which program it is"
    _PRIVATE.mkdir()
    os.makedirs(ROOT, exist_ok=True)
    environment = _environment(request, backend, request.program.environment)
    start = os.fstat(1).st_size
    try:
        if request.program.is_bare:
            go_harness.prepare(environment["BUILDKIT_REGISTRY_MIRROR_DIR"])
            harness_networks.prepare(environment)
        else:
            environment |= _started(task.extra_workers, control)
        code = _run(request.program.arguments, environment, is_go=request.program.is_go)
        result, cases = _judged(code, environment, request.program, cell.daemons.logs / "test.log", start)
    except ControlFailed as error:
        result, cases = Outcome(Status.FAILED, FailureClass.INFRASTRUCTURE, str(error)), ()
    except OSError as error:
        words = f"cannot run {request.program.arguments[0]}: {error.strerror}"
        why = "; its first line may name an interpreter that the cell has not" if error.errno in (2, 8) else ""
        result, cases = _failed(words + why), ()
    document = json.dumps(Cases(cases).to())
    if len(document) > MOST_CASES:  # bk would read a part of it
        result, document = _failed(f"its report has more than {MOST_CASES >> 20} MiB"), json.dumps(Cases().to())
    (cell.daemons.logs / CASES).write_text(document)
    Path(outcome).write_text(json.dumps(result.to()))
    return 0 if result.status in (Status.PASSED, Status.SKIPPED) else 1


def _environment(request: TestRequest, backend: Backend, own: Mapping[str, str]) -> dict[str, str]:
    folder = _PRIVATE / "tmp"
    folder.mkdir()
    axes = {f"BK_AXIS_{axis.upper()}": value.choice for axis, value in request.axes.items()}
    return {
        **os.environ,
        "BUILDKIT_HOST": backend.address,
        **backend.extra_env,
        "BK_WORKER": request.worker,
        "BK_SNAPSHOTTER": backend.snapshotter,
        "BK_MIRROR": MIRROR_ADDRESS,
        **axes,
        "PWD": ROOT,
        "RUNFILES_DIR": ROOT,
        "TEST_SRCDIR": ROOT,
        "TEST_WORKSPACE": ".",
        "TEST_TMPDIR": str(folder),
        "TEST_TIMEOUT": f"{request.timeout:g}",
        "TEST_PREMATURE_EXIT_FILE": str(_PREMATURE),
        "XML_OUTPUT_FILE": str(_XML),
        **({"TEST_SHARD_STATUS_FILE": str(_SHARDS)} if "TEST_TOTAL_SHARDS" in own else {}),
        **own,
    }


def _started(workers: Sequence[str], control: Control) -> dict[str, str]:
    """Start the extra workers. Return the variables by which a program finds them. Raises ControlFailed."""
    found: dict[str, str] = {}
    for name in workers:
        found |= control.start_worker(name, "").variables
    return found


def _run(arguments: Sequence[str], environment: Mapping[str, str], *, is_go: bool) -> int:
    """Run the program. At the timeout it gets a signal: SIGTERM, as of Bazel, or SIGQUIT, at which Go prints all stacks."""
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL) as process:
        last = signal.SIGQUIT if is_go else signal.SIGTERM
        signal.signal(signal.SIGALRM, lambda *_: process.send_signal(last))
        return process.wait()


def _judged(
    code: int, environment: Mapping[str, str], program: TestProgram, log: Path, start: int
) -> tuple[Outcome, tuple[Case, ...]]:
    """Return the outcome and the cases of a program from its exit code. Its output begins at `start` of the log."""
    problem = ""
    cases: tuple[Case, ...] | None = None
    try:
        cases = cases_of(_XML, _lines(log, start))
    except BadReport as error:
        problem = str(error)
    bad = [case for case in cases or () if case.status == Status.FAILED]
    told = [f"{len(bad)} of {len(cases or ())} cases failed: {_names(bad)}"] if bad else []
    if code:
        how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        return _failed("; ".join([how, *told])), cases or ()
    if not problem and _PREMATURE.exists():
        problem = "its file TEST_PREMATURE_EXIT_FILE is still there, so it ended too early"
    if not problem and "TEST_SHARD_STATUS_FILE" in environment and not _SHARDS.exists():
        problem = "it knows no shards, since it did not touch the file TEST_SHARD_STATUS_FILE"
    name = program.environment.get(_ONLY, "")
    if not problem and program.is_go and not any(f"{case.name}/".startswith(f"{name}/") for case in cases or ()):
        problem = f"the binary ran no test {name}"
    if not problem and cases == ():
        problem = "its report has no case, so nothing ran"
    if told or problem:
        return _failed(f"exit status 0, but {'; '.join([*told, *filter(None, [problem])])}"), cases or ()
    if cases and all(case.status == Status.SKIPPED for case in cases):
        return Outcome(
            Status.SKIPPED, FailureClass.SKIP, next(filter(None, (case.reason for case in cases)), "")
        ), cases
    return Outcome(Status.PASSED), cases or ()


def _lines(log: Path, start: int) -> Iterator[str]:
    with log.open("rb") as file:
        file.seek(start)
        for line in file:
            yield line.decode(errors="replace").rstrip("\r\n")


def _names(cases: Sequence[Case]) -> str:
    more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
    shown = (f"{case.name} ({case.reason})" if case.reason else case.name for case in cases[:_SHOWN])
    return ", ".join(shown) + more


def _failed(reason: str) -> Outcome:
    return Outcome(Status.FAILED, FailureClass.TEST, reason)
