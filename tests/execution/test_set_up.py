"""A cell that cannot be set up says why; one that is stopped ends all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bare_cells import WORKER, BareCells, last
from spaces import wait_for

from bkrules.cell.protocol import CellSpec
from bkrules.model.wire import Wire
from bkrules.sandbox import spawner as module
from bkrules.sandbox.cgroups import processes as members
from bkrules.sandbox.cgroups import remove

PASSES = "def test_it(sandbox): pass\n"
SOON = 60


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[BareCells]:
    """Cells of a zygote that a test may stop."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = BareCells(tmp_path)
    yield made
    made.close()


def test_a_cell_without_daemons_passes(cells: BareCells) -> None:
    assert cells.run(PASSES)["status"] == "passed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"binds": [("/nowhere/at/all", "/opt/x")]}, "/nowhere/at/all"),
        ({"copies": [("/nowhere/at/all", "/etc/bk/x", False)]}, "No such file or directory: '/nowhere/at/all'"),
        ({"limits": {"memory": 1 << 30, "pids": 1000, "disk": -1}}, "mount bk on"),
        ({"limits": {"memory": 1 << 30, "pids": 1000, "disk": 4096}}, "No space left on device"),
        ({"root": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"links": [("/usr/bin/x", "a" * 5000)]}, "File name too long"),
        ({"cgroup": "/proc/self/nowhere"}, "/proc/self/nowhere"),
        ({"environment": {"PATH": "/opt/bk/bin", "BAD=NAME": "x"}}, "illegal environment variable name"),
    ],
    ids=["bind", "copy", "size", "no-room", "root", "link", "cgroup", "environment"],
)
@pytest.mark.parametrize("isolation", ["cell", "jail"])
def test_the_reason_is_the_cells_own(cells: BareCells, isolation: str, change: dict[str, Any], reason: str) -> None:
    result = cells.run(PASSES, isolation=isolation, **change)

    lack = "resources" if "No space" in reason else "infrastructure"
    assert (result["status"], result["class"]) == ("failed", lack)
    assert reason in result["reason"], result
    assert "Connection reset" not in result["reason"]
    assert "Broken pipe" not in result["reason"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no such library')", "ImportError: no such library"),
        ("raise SystemExit('it gives up')", "SystemExit: it gives up"),
        ("1 +", "SyntaxError"),
        (WORKER.replace("class Bare", "class Other"), "has no attribute 'Bare'"),
        (WORKER.replace("yield", "raise RuntimeError('no daemon today')\n        yield"), "no daemon today"),
    ],
    ids=["import", "exit", "syntax", "class", "start"],
)
def test_a_plugin_that_cannot_be_used_is_named_and_others_go_on(cells: BareCells, code: str, reason: str) -> None:
    good, cells.worker = cells.worker, code
    result = cells.run(PASSES)
    cells.worker = good

    assert result["class"] == "infrastructure"
    assert reason in result["reason"]
    assert cells.run(PASSES)["status"] == "passed"


class Raw(Wire):
    """A document that nobody has checked."""

    def __init__(self, document: dict[str, object]) -> None:
        self.document = document

    def to(self) -> dict[str, object]:
        return self.document


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"update": {"functions": 7}}, "the field 'update' is malformed"),
        ({"limits": {}}, "the field 'memory' is missing"),
        ({"surprise": 1}, "the field 'surprise' is unknown"),
        ({"kind": "other"}, "it is not a message of the kind 'cell' or 'sandboxes' or 'command'"),
    ],
    ids=["type", "missing", "unknown", "kind"],
)
def test_a_request_that_makes_no_sense_is_refused_and_others_go_on(
    cells: BareCells, change: dict[str, object], reason: str
) -> None:
    with cells.processes.cell(Raw({**cells.spec(PASSES).to(), **change})) as started:
        result = last(started)

    assert result["class"] == "infrastructure"
    assert reason in result["reason"]
    assert cells.run(PASSES)["status"] == "passed"


def test_no_process_for_the_cell(cells: BareCells) -> None:
    """The kernel refuses to fork: here the zygote's group is full."""
    assert cells.run(PASSES)["status"] == "passed"
    (zygote,) = children(os.getpid())
    spec = cells.spec(PASSES)
    folder = next((path for name, path in spec.limited.items() if name == "pids"), "")
    if not folder:
        pytest.skip("the number of processes cannot be limited here")
    group = Path(f"{folder}-zygote")
    group.mkdir()
    home = next(
        line.split(":")[2]
        for line in Path(f"/proc/{zygote}/cgroup").read_text().splitlines()
        if "pids" in line.split(":")[1] or line.startswith("0::")
    )
    try:
        (group / "pids.max").write_text("1")
        (group / "cgroup.procs").write_text(str(zygote))
        with cells.processes.cell(spec) as started:
            result = last(started)
        assert "Resource temporarily unavailable" in result["reason"], result
        (group / "pids.max").write_text("2")  # enough for the supervisor
        with cells.processes.cell(spec) as started:
            result = last(started)
        assert "clone3: Resource temporarily unavailable" in result["reason"], result
    finally:
        (group.parent / home.removeprefix("/") / "cgroup.procs").write_text(str(zygote))
        remove(str(group))
    assert cells.run(PASSES)["status"] == "passed"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def begun(cells: BareCells, spec: CellSpec) -> dict[str, int]:
    """The processes of a cell whose test sleeps, by their names."""
    wait_for(lambda: len(members(spec.cgroup)) == 2, SOON)
    first = min(members(spec.cgroup), key=lambda pid: Path(f"/proc/{pid}/comm").read_text() != "cell\n")
    supervisor = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    return {"zygote": children(os.getpid())[0], "supervisor": supervisor, "first process": first}


SLEEPS = "import time\ndef test_it(sandbox): time.sleep(600)\n"


@pytest.mark.parametrize("who", ["zygote", "supervisor", "first process"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_who_is_stopped_does_not_stop_bk(
    cells: BareCells, monkeypatch: pytest.MonkeyPatch, who: str, interrupted: bool
) -> None:
    """Nothing is left of the cell, and its end takes as long as bk is ready to wait: not for ever."""
    monkeypatch.setattr(module, "_END_SECONDS", 60 if interrupted else 0.5)
    monkeypatch.setattr(module, "_INTERRUPTED_SECONDS", 0.5)
    spec = cells.spec(SLEEPS)
    with cells.processes.cell(spec) as started:
        found = begun(cells, spec)
        os.kill(found[who], signal.SIGSTOP)
        if interrupted:
            cells.processes.interrupt()
            assert last(started, SOON)["reason"] == "no result"

    cells.processes.close()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found.values()), SOON)


def test_a_zygote_that_is_stopped_before_it_takes_a_request(cells: BareCells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_END_SECONDS", 0.5)
    cells.run(PASSES)
    (zygote,) = children(os.getpid())
    os.kill(zygote, signal.SIGSTOP)

    with pytest.raises(TimeoutError), cells.processes.cell(cells.spec(PASSES)) as started:
        last(started, 0.5)

    assert cells.run(PASSES)["status"] == "passed"
    assert children(os.getpid()) != [zygote]


def test_a_command_that_is_stopped_ends_at_an_interrupt(
    cells: BareCells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first process of its namespace stands still: it hears of no end."""
    monkeypatch.setattr(module, "_INTERRUPTED_SECONDS", 0.5)
    began = time.monotonic()
    with cells.processes.command(["/bin/sleep", "600"], "/", {}, str(tmp_path / "log")) as started:
        (zygote,) = children(os.getpid())
        wait_for(lambda: any(children(pid) for pid in children(zygote)), SOON)
        (first,) = children(zygote)
        os.kill(first, signal.SIGSTOP)

        cells.processes.interrupt()

        assert started.next(SOON) == (None, [])
    assert time.monotonic() - began < SOON
