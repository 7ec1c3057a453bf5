from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare_cells import BareCells

from bkrules.model.action import Action, Cell, Output
from bkrules.model.label import Label
from bkrules.model.resources import UNASKED, Request
from bkrules.sandbox.spawner import Processes


@pytest.fixture
def make_action() -> Callable[..., Action]:
    def make(name: str, *needs: str, cell: bool = False, request: Request = UNASKED) -> Action:
        label = Label("p", name)
        return Action(
            id=name,
            label=label,
            mnemonic="Test",
            arguments=(),
            inputs=tuple((need, Output(need, "out")) for need in needs),
            outputs=("out",),
            cell=Cell(label, "test_x", "oci", ()) if cell else None,
            request=request,
        )

    return make


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """A zygote for the cells of a module's tests: its start takes as long as ten cells."""
    made = Processes()
    yield made
    made.close()


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder on which that zygote mounts what cells see of the machine."""
    return tmp_path_factory.mktemp("views")


@pytest.fixture
def cells(tmp_path: Path, processes: Processes, views: Path) -> Iterator[BareCells]:
    """Makes cells without bk, which needs root."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = BareCells(tmp_path, processes, views)
    yield made
    made.remove_groups()
