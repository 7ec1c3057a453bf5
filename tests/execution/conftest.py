from __future__ import annotations

from collections.abc import Callable

import pytest

from bkrules.model.action import Action, Cell, Output
from bkrules.model.label import Label
from bkrules.model.resources import UNASKED, Request


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
