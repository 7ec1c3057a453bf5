from __future__ import annotations

from dataclasses import replace

import pytest

from bkrules.analysis.runs import FIXED, Runs
from bkrules.model.action import Action, Cell, key_of
from bkrules.model.label import Label

LABEL = Label("p", "m")
STEP = Action("//p:m GoBuild", LABEL, "GoBuild", (), (), ("out",), (("GOOS", "linux"),))
CELL = replace(STEP, id="//p:m test_x", mnemonic="TestCell", cell=Cell(LABEL, "test_x", "oci", (("a", "1"),)))


def test_one_run_is_the_action_itself() -> None:
    assert list(Runs().of(CELL)) == [CELL]
    assert [key_of(one, {}) for one in Runs(1).of(CELL)] == [key_of(CELL, {})]


def test_what_is_no_cell_runs_once_and_sees_nothing_of_it() -> None:
    assert list(Runs(5, (("A", "b"),)).of(STEP)) == [STEP]


def test_each_run_has_a_name_a_number_and_a_key_of_its_own() -> None:
    runs = list(Runs(3).of(CELL))

    assert [one.title for one in runs] == [f"test_x/worker=oci/a=1/run_{number}_of_3" for number in (1, 2, 3)]
    assert [dict(one.environment)["TEST_RUN_NUMBER"] for one in runs] == ["1", "2", "3"]
    assert [dict(one.environment)["TEST_RANDOM_SEED"] for one in runs] == ["1", "2", "3"]
    assert len({one.id for one in runs}) == 3
    assert len({key_of(one, {}).digest for one in (*runs, CELL)}) == 4
    assert {one.cell.point for one in runs if one.cell} == {"test_x/worker=oci/a=1"}


def test_a_run_has_the_same_key_however_many_there_are() -> None:
    assert key_of(next(Runs(2).of(CELL)), {}) == key_of(next(Runs(5).of(CELL)), {})


def test_a_variable_is_in_the_key() -> None:
    (one,) = Runs(1, (("LEVEL", "debug"),)).of(CELL)
    assert one.environment == (("GOOS", "linux"), ("LEVEL", "debug"))
    assert key_of(one, {}).leaves["env/LEVEL"] == "debug"
    assert key_of(one, {}).digest != key_of(CELL, {}).digest
    assert one.id == CELL.id


def test_a_chosen_seed_stays() -> None:
    seeds = [dict(one.environment)["TEST_RANDOM_SEED"] for one in Runs(2, (("TEST_RANDOM_SEED", "7"),)).of(CELL)]
    assert seeds == ["7", "7"]


@pytest.mark.parametrize("name", ["PATH", "HOME", "GOMAXPROCS"])
def test_what_is_bks_own_is_known(name: str) -> None:
    assert name in FIXED
