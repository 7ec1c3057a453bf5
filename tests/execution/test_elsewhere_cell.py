"""The results of cells that an engine tells, which may be mistaken or hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from remote_machines import Machine, maker
from servers import cache_server

from bkrules.errors import ActionFailed
from bkrules.execution import elsewhere_cell
from bkrules.model import reapi
from bkrules.model.action import Action, Cell, to_message
from bkrules.model.label import Label
from bkrules.model.status import Status

MakeAction = Callable[..., Action]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with cache_server() as server:
        yield maker(tmp_path, server.address)()


@pytest.fixture
def cell(make_action: MakeAction) -> Action:
    where = Cell(Label("p", "m"), "test_it", "oci", ())
    return replace(make_action("cell"), cell=where, outputs=("result.json", "seen.json", "test.log"))


def answer(machine: Machine, *names: str, data: bytes = b'{"status": "passed"}', code: int = 3) -> reapi.Message:
    """An ActionResult with these files, each with the same bytes, which are in the disk cache."""
    file = {"digest": to_message(machine.actions.cas.put(data))}
    fields = {"output_files": [{"path": f"out/{name}", **file} for name in names], "exit_code": code}
    return reapi.decode("ActionResult", reapi.encode("ActionResult", fields))


@pytest.mark.parametrize("status", [Status.FLAKY, Status.PASSED])
def test_a_pass_that_no_cache_may_have_has_all_outputs(cell: Action, machine: Machine, status: Status) -> None:
    """Other actions read them."""
    said = f"bk: the cell {cell.title}: {status}: once more\n"
    found = elsewhere_cell.read(cell, answer(machine, *cell.outputs), said, machine.actions)
    assert found is not None
    assert (found.status, found.may_be_kept, set(found.result.outputs)) == (status, False, set(cell.outputs))
    for names in (("result.json",), (*cell.outputs, "more")):
        with pytest.raises(ActionFailed, match=r"not the result of that cell: it (lacks the|has an) output"):
            elsewhere_cell.read(cell, answer(machine, *names), said, machine.actions)


def test_a_failure_may_lack_outputs(cell: Action, machine: Machine) -> None:
    said = f"bk: the cell {cell.title}: failed: oh\x1b[2J\n"
    found = elsewhere_cell.read(cell, answer(machine, "result.json"), said, machine.actions)
    assert found is not None
    assert (found.status, found.reason, found.may_be_kept) == (Status.FAILED, "oh?[2J", False)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("result.json", "../key.json"), "bk: the cell test_it/worker=oci: failed: oh"),
        (("result.json", "/etc/passwd"), "bk: the cell test_it/worker=oci: failed: oh"),
        (("result.json",), "bk: the cell test_other/worker=oci: failed: oh"),
        (("result.json",), "bk: the cell test_it/worker=oci: fine: oh"),
        (("result.json",), ""),
    ],
)
def test_another_answer_is_none(cell: Action, machine: Machine, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ActionFailed, match="not the result of that cell"):
        elsewhere_cell.read(cell, answer(machine, *names), said, machine.actions)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"status": "failed"}', b"[" * 100_000])
def test_a_result_that_says_no_pass_is_none(cell: Action, machine: Machine, data: bytes) -> None:
    with pytest.raises(ActionFailed, match="not the result of that cell"):
        elsewhere_cell.read(cell, answer(machine, *cell.outputs, data=data, code=0), "", machine.actions)


def test_another_program_has_failed(cell: Action, machine: Machine) -> None:
    assert elsewhere_cell.read(cell, answer(machine, "test.log"), "Killed\n", machine.actions) is None
