"""The hooks of a cell: when each is called, in which order, and what a plugin's fault in one of them becomes."""

from __future__ import annotations

import inspect
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from bare_cells import WORKER, BareCells

from bkrules.cell import hooks
from bkrules.cell.hooks import CellHooks, HookError
from bkrules.cell.task import Task
from bkrules.plugin import Daemons, DaemonSpec, RunningCell, spec
from bkrules.plugin.spec import CELL_HOOKS

DAEMON = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
    ready.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
print(sys.argv[1:], flush=True)
while True:
    signal.pause()
"""
STARTS = WORKER.replace(
    '        yield Backend("unix:///none", "none")\n',
    f"""        import sys
        daemons.start("one", [sys.executable, "-c", {DAEMON!r}])
        yield Backend("unix:///none", "none")
""",
).replace("import Backend, Worker", "import Backend, ProgramResult, Worker, hookimpl")
RECORDS = """
def record(text):
    with open("/out/order", "a") as file:
        file.write(text + "\\n")

@hookimpl
def bk_cell_starting(cell):
    record(f"starting {cell.name} {cell.worker} {cell.program} {sorted(cell.axes.items())}")

@hookimpl
def bk_daemon_starting(cell, spec):
    spec.arguments.append("more")
    record(f"daemon starting {spec.name}")

@hookimpl
def bk_daemon_ready(daemon):
    record(f"daemon ready {daemon.name}")

@hookimpl
def bk_backend_ready(backend):
    record(f"backend ready {backend.address}")

@hookimpl(wrapper=True)
def bk_run_program(cell):
    record("before")
    result = yield
    record(f"after {result.status}")
    return result

@hookimpl
def bk_daemon_stopping(daemon, signal):
    record(f"daemon stopping {daemon.name} {signal}")

@hookimpl
def bk_daemon_stopped(daemon, status):
    record(f"daemon stopped {daemon.name} {status}")

@hookimpl
def bk_collect_logs(folder, result):
    (folder / "collected").write_text(result.status)
    record("logs")

@hookimpl
def bk_cell_stopping(result):
    record(f"stopping {result.status}")
"""
TEST = """
def test_it(sandbox):
    with open("/out/order", "a") as file:
        file.write("test\\n")
    sandbox.restart("one")
"""
PASSES = "def test_it():\n    pass\n"


def run(cells: BareCells, worker: str, test: str, **more: Any) -> dict[str, Any]:
    """Run a cell in which the worker's module is a plugin too."""
    cells.worker = worker
    module = cells.spec(test).modules[0]
    return cells.run(test, plugins=[module], owners={module: "bk-odd 1.0"}, **more)


def test_the_hooks_of_a_cell_are_called_in_their_order(cells: BareCells) -> None:
    result = run(cells, STARTS + RECORDS, TEST, axes={"size": {"choice": "big", "value": 7}})

    assert result["status"] == "passed", result
    assert (result["out"] / "order").read_text().splitlines() == [
        "starting bare bare test [('size', 7)]",
        "daemon starting one",
        "daemon ready one",
        "backend ready unix:///none",
        "before",
        "test",
        "daemon stopping one 15",
        "daemon stopped one exit status 0",
        "daemon starting one",
        "daemon ready one",
        "after passed",
        "logs",
        "stopping passed",
    ]
    assert (result["out"] / "one.log").read_text() == "['more']\n['more']\n"
    assert (result["out"] / "collected").read_text() == "passed"


def test_a_worker_has_hooks_for_its_own_cells(cells: BareCells) -> None:
    indented = textwrap.indent(RECORDS.partition("@hookimpl\n")[2].partition("\n\n")[0], "    ")
    method = "    @hookimpl\n" + indented.replace("(cell)", "(self, cell)") + "\n"
    cells.worker = STARTS + method + RECORDS.partition("\n@hookimpl")[0]

    result = cells.run(PASSES)

    assert (result["out"] / "order").read_text() == "starting bare bare test []\n"


def test_a_daemon_that_ended_by_itself_was_stopped(cells: BareCells) -> None:
    kill = "daemon = os.pidfd_open(2)\n    os.kill(2, signal.SIGKILL)\n    select.select([daemon], [], [])\n"
    test = f"import os, select, signal\ndef test_it():\n    {kill}"
    result = run(cells, STARTS + RECORDS, test)

    assert (result["status"], result["class"]) == ("failed", "infrastructure"), result
    assert "daemon stopped one killed by SIGKILL" in (result["out"] / "order").read_text()


def test_a_test_that_takes_too_long_is_looked_at_while_it_stands_still(cells: BareCells) -> None:
    hook = """
import os

@hookimpl
def bk_timed_out(cell):
    (test,) = [int(name) for name in os.listdir("/proc")
               if name.isdigit() and open(f"/proc/{name}/comm").read() == "test\\n"]
    os.waitid(os.P_PID, test, os.WSTOPPED | os.WNOWAIT)
    (cell.daemons.logs / "state").write_text(open(f"/proc/{test}/stat").read().rpartition(")")[2].split()[0])
"""
    result = run(cells, STARTS + hook, "import time\ndef test_it():\n    time.sleep(60)\n", timeout=1)

    assert result["status"] == "timed out", result
    assert (result["out"] / "state").read_text() == "T"


def test_a_wrapper_may_change_what_became_of_a_test(cells: BareCells) -> None:
    hook = """
@hookimpl(wrapper=True)
def bk_run_program():
    result = yield
    return ProgramResult("failed", "test", f"it {result.status}, and that is not enough")
"""
    result = run(cells, STARTS + hook, PASSES)

    assert (result["status"], result["class"]) == ("failed", "test")
    assert result["reason"] == "it passed, and that is not enough"


@pytest.mark.parametrize("hook", sorted(CELL_HOOKS - {"bk_state", "bk_timed_out"}))
def test_a_hook_that_raises_fails_its_cell_by_name(cells: BareCells, hook: str) -> None:
    result = run(cells, f"{STARTS}\n@hookimpl\ndef {hook}():\n    raise KeyError('why')\n", TEST)

    assert (result["status"], result["class"]) == ("failed", "infrastructure"), result
    assert result["reason"] == f"{hook} of the plugin bk-odd 1.0 failed: KeyError: 'why'"
    assert "Traceback" in result["detail"]


@pytest.mark.parametrize(
    ("body", "what"),
    [("yield\n    yield", "wrapper"), ("if False:\n        yield", "did not yield")],
    ids=["twice", "never"],
)
def test_a_wrapper_that_does_not_yield_once_is_named(cells: BareCells, body: str, what: str) -> None:
    result = run(cells, f"{STARTS}\n@hookimpl(wrapper=True)\ndef bk_run_program():\n    {body}\n", PASSES)

    assert result["class"] == "infrastructure"
    assert result["reason"].startswith("bk_run_program of the plugin bk-odd 1.0 failed: RuntimeError: ")
    assert what in result["reason"]


@pytest.mark.parametrize("change", ["spec.arguments.append(7)", "spec.environment['A'] = None"])
def test_a_daemon_that_is_given_no_string_is_named(cells: BareCells, change: str) -> None:
    result = run(cells, f"{STARTS}\n@hookimpl\ndef bk_daemon_starting(spec):\n    {change}\n", PASSES)

    assert (result["status"], result["class"]) == ("failed", "infrastructure"), result
    assert result["reason"].startswith("bk_daemon_starting of the plugin bk-odd 1.0 gave one ")


class Odd:
    """A plugin whose hook does what it is told to."""

    def __init__(self, hook: str, answer: Any) -> None:
        setattr(self, hook, self._marked(answer))

    @staticmethod
    def _marked(answer: Any) -> Any:
        def implementation() -> Any:
            return answer()

        implementation.bk_impl = {  # type: ignore[attr-defined]
            **dict.fromkeys(("wrapper", "hookwrapper", "optionalhook", "tryfirst", "trylast"), False),
            "specname": None,
        }
        return implementation


def _calls(hook: str, answer: Any, tmp_path: Path) -> tuple[CellHooks, RunningCell]:
    daemons = Daemons({})
    daemons.logs = daemons.configuration = tmp_path
    made = CellHooks(Odd(hook, answer), (), {__name__: "bk-odd 1.0"})  # type: ignore[arg-type]
    return made, RunningCell("t", "odd", "commands", {}, 0.0, daemons, Task())


@pytest.mark.parametrize("hook", sorted(CELL_HOOKS - {"bk_timed_out"}))
def test_a_hook_that_hangs_is_ended_and_named(hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "SECONDS", 0.1)
    monkeypatch.setattr(hooks, "GRACE", 0.1)
    monkeypatch.setattr(hooks, "BUILT_IN", ())
    made, cell = _calls(hook, lambda: time.sleep(60), tmp_path)
    arguments: dict[str, Any] = {
        **dict.fromkeys(inspect.signature(getattr(spec, hook)).parameters),
        "spec": DaemonSpec("x", [], {}),
    }

    with pytest.raises(HookError, match=rf"^{hook} of the plugin bk-odd 1\.0 failed: it took longer than 0\.1 s$"):
        made.call(hook, **{**arguments, "cell": cell})


@pytest.mark.parametrize("answer", [True, "passed", {"status": "passed"}, 0.0])
def test_a_result_of_another_type_is_an_error(answer: object, tmp_path: Path) -> None:
    made, cell = _calls("bk_run_program", lambda: answer, tmp_path)

    with pytest.raises(
        HookError, match=r"^bk_run_program of the plugin bk-odd 1\.0 returned .*, which is no ProgramResult$"
    ):
        made.run_program(cell, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("x", "returned 'x', which is no lines by name"),
        ({"x": "y"}, "which is no lines by name"),
        ({1: []}, "which is no lines by name"),
        ({"mounts": []}, "returned 'mounts' twice"),
    ],
)
def test_a_state_of_another_type_is_an_error(
    answer: object, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = Odd("bk_state", lambda: {"mounts": []})
    monkeypatch.setattr(hooks, "BUILT_IN", (mounts,))
    made, cell = _calls("bk_state", lambda: answer, tmp_path)

    with pytest.raises(HookError, match=what):
        made.state(cell, None)  # type: ignore[arg-type]


def test_of_an_extra_worker_the_hooks_for_a_whole_cell_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(hooks, "BUILT_IN", (Odd("bk_cell_starting", lambda: called.append("plugin")),))
    made, cell = _calls("bk_cell_starting", lambda: called.append("worker"), tmp_path)

    made.call_worker("bk_cell_starting", cell)
    assert called == ["worker"]
    made.call("bk_cell_starting", cell)
    assert sorted(called) == ["plugin", "worker", "worker"]
