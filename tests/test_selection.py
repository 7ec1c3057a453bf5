"""Which of the declared cells run: filters, shards, a worker chosen at random."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bkrules import errors
from bkrules.build.selection import Selection, divide, fitting, select
from bkrules.errors import BkError
from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.model.selected import Selected

MATRIX, OTHER = Label("t", "m"), Label("t", "other")
TESTS = ("test_pull", "test_pull_lazily", "test_push[gzip]", "test_push[zstd]", "TestCache::test_export")
WORKERS = ("containerd+stargz", "oci", "oci+stargz")
CELLS = {
    f"{MATRIX} {cell.name}": cell
    for cell in (
        Cell(MATRIX, test, worker, (("kind", kind),))
        for test, worker, kind in itertools.product(TESTS, WORKERS, ("esgz", "tar"))
    )
}
ONE_MORE = {f"{OTHER} x": Cell(OTHER, "test_other", "narrow", ())}


def never(_name: str) -> None:
    return None


def points(*filters: str) -> list[str]:
    chosen = select(CELLS, Selection(filters), never)
    return [CELLS[name].point for name in CELLS if name in chosen.ids]


@pytest.mark.parametrize(
    ("text", "tests", "workers", "kinds"),
    [
        ("test_pull", {"test_pull"}, WORKERS, 2),
        ("test_pull.*", {"test_pull", "test_pull_lazily"}, WORKERS, 2),
        ("test_pull*", {"test_pull", "test_pull_lazily"}, WORKERS, 2),
        ("^test_pull", {"test_pull", "test_pull_lazily"}, WORKERS, 2),
        ("pull", {"test_pull", "test_pull_lazily"}, WORKERS, 2),
        ("lazily$", {"test_pull_lazily"}, WORKERS, 2),
        ("test_push", {"test_push[gzip]", "test_push[zstd]"}, WORKERS, 2),
        ("test_push[gzip]", {"test_push[gzip]"}, WORKERS, 2),
        ("test_push[*]", {"test_push[gzip]", "test_push[zstd]"}, WORKERS, 2),
        ("TestCache", {"TestCache::test_export"}, WORKERS, 2),
        ("TestCache::test_export", {"TestCache::test_export"}, WORKERS, 2),
        ("test_export", {"TestCache::test_export"}, WORKERS, 2),
        ("worker=oci", set(TESTS), ["oci"], 2),
        ("worker=oci$", set(TESTS), ["oci"], 2),
        ("//worker=oci$", set(TESTS), ["oci"], 2),
        ("worker=oci.*", set(TESTS), ["oci", "oci+stargz"], 2),
        ("worker=oci+stargz", set(TESTS), ["oci+stargz"], 2),
        ("worker=*+stargz", set(TESTS), ["containerd+stargz", "oci+stargz"], 2),
        ("kind=tar", set(TESTS), WORKERS, 1),
        ("test_pull/kind=tar", {"test_pull"}, WORKERS, 1),
        ("test_pull/worker=oci/kind=tar", {"test_pull"}, ["oci"], 1),
        ("//t:m[test_pull/worker=oci/kind=tar]", {"test_pull"}, ["oci"], 1),
    ],
)
def test_a_filter_names_cells(text: str, tests: set[str], workers: list[str], kinds: int) -> None:
    found = points(text)
    assert {one.split("/")[0] for one in found} == tests
    assert {one.split("/")[1] for one in found} == {f"worker={name}" for name in workers}
    assert len(found) == len(tests) * len(workers) * kinds


def test_the_cells_that_failed_last_are_chosen() -> None:
    first, second, *_ = CELLS
    failed = {first, f"{second} run 3", "//gone:m x"}
    chosen = select(CELLS, Selection(failed=True), never, failed)
    assert chosen.ids == {first, second}
    assert chosen.by == ("--failed",)
    assert select(CELLS, Selection((f"-{CELLS[first].name}",), failed=True), never, failed).ids == {second}
    with pytest.raises(BkError, match=f"none of {len(CELLS)} cells failed when it last ran") as caught:
        select(CELLS, Selection(failed=True), never, {"//gone:m x"})
    assert caught.value.exit_code == errors.NOTHING_RAN


def test_a_word_names_cells_whole_by_its_beginning_or_as_a_filter() -> None:
    def found(text: str) -> list[str]:
        return [CELLS[name].point for name in fitting(CELLS, text)]

    whole = "test_pull/worker=oci/kind=tar"
    assert found(whole) == found(f"//t:m[{whole}]") == [whole]
    assert found("test_pull/worker=oci/k") == ["test_pull/worker=oci/kind=esgz", whole]
    assert len(found("test_pull/")) == 6, "and nothing of test_pull_lazily"
    assert found("*lazily/worker=oci/kind=tar") == ["test_pull_lazily/worker=oci/kind=tar"]
    with pytest.raises(
        BkError, match="no cell is called test_pul/worker=ocx, and it matches none of 30 cells"
    ) as caught:
        found("test_pul/worker=ocx")
    assert "test_pull/worker=oci" in caught.value.hint


def test_a_subtest_of_go_has_a_part_for_each_of_its_names() -> None:
    names = ("TestA/TestPush", "TestA/TestPull", "TestB/TestPush/deep")
    cells = {name: Cell(MATRIX, name, "oci", (("frontend", "builtin"),)) for name in names}

    def found(text: str) -> list[str]:
        return sorted(select(cells, Selection((text,)), never).ids)

    assert found("TestA/TestPush") == ["TestA/TestPush"]
    assert found("TestA") == ["TestA/TestPull", "TestA/TestPush"]
    assert found("TestPush") == ["TestA/TestPush", "TestB/TestPush/deep"]
    assert found("^TestA$/^(TestPull|TestX)$/worker=oci/frontend=.*") == ["TestA/TestPull"]
    assert found("TestB/TestPush/deep/worker=oci") == ["TestB/TestPush/deep"]
    assert cells["TestB/TestPush/deep"].folder == "TestB/TestPush/deep/worker=oci/frontend=builtin"


def test_several_filters_add_up_and_those_with_a_minus_take_away() -> None:
    assert len(points("test_pull/worker=oci", "test_push[gzip]/kind=tar")) == 2 + 3
    assert len(points("-worker=oci")) == len(CELLS) * 2 // 3
    assert points("test_pull", "-kind=tar", "-worker=*stargz") == ["test_pull/worker=oci/kind=esgz"]


@pytest.mark.parametrize(
    ("filters", "message", "hint"),
    [
        (["test_pul_lazily"], "--test_filter=test_pul_lazily matches none of 30 cells", "test_pull_lazily"),
        (["worker=containerd+stargs"], "matches none", "worker=containerd+stargz"),
        (["kind=tar/test_pull"], "matches none", ""),
        (["("], "matches none", ""),
        (["/"], "matches none", ""),
        (["test_pull", "test_x"], "--test_filter=test_x matches none", ""),
        (["-test_x"], "--test_filter=test_x matches none", ""),
        (["test_pull", "-test_pull"], "the filters leave no cell", ""),
    ],
)
def test_a_filter_that_names_nothing_is_an_error(filters: list[str], message: str, hint: str) -> None:
    with pytest.raises(BkError) as caught:
        points(*filters)
    assert caught.value.exit_code == errors.NOTHING_RAN
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_is_declared_is_counted_for_each_matrix() -> None:
    chosen = select({**CELLS, **ONE_MORE}, Selection(("test_other",)), never)
    assert chosen.ids == set(ONE_MORE)
    assert chosen.declared == {MATRIX: 30, OTHER: 1}
    assert chosen.by == ("--test_filter=test_other",)


SECONDS = st.dictionaries(st.sampled_from(sorted(CELLS)), st.floats(0, 1000), max_size=len(CELLS))


def shards(count: int, seconds: dict[str, float]) -> list[Selected]:
    return [select(CELLS, Selection(shard=(number, count)), seconds.get) for number in range(1, count + 1)]


@given(st.integers(1, len(CELLS)), SECONDS)
def test_shards_are_disjoint_and_together_everything(count: int, seconds: dict[str, float]) -> None:
    found = shards(count, seconds)
    assert all(shard.ids for shard in found)
    assert sum(len(shard.ids) for shard in found) == len(CELLS)
    assert frozenset().union(*(shard.ids for shard in found)) == set(CELLS)
    assert len({shard.partition for shard in found}) == 1


@given(st.integers(1, 8), SECONDS, st.randoms())
def test_the_same_seconds_give_the_same_shards(count: int, seconds: dict[str, float], random: object) -> None:
    other = dict(reversed(seconds.items()))
    again = dict(reversed(CELLS.items()))
    first = shards(count, seconds)
    second = [select(again, Selection(shard=(number, count)), other.get) for number in range(1, count + 1)]
    assert [one.ids for one in first] == [one.ids for one in second]


@given(st.integers(1, 6), st.lists(st.floats(0.01, 100), min_size=1, max_size=40))
def test_no_shard_takes_much_longer_than_another(count: int, times: list[float]) -> None:
    """Graham's bound for the longest first: at most 4/3 of the best, which is at least the mean and the longest cell."""
    cells = [(f"cell{number:02}", took) for number, took in enumerate(times)]
    loads = [sum(dict(cells)[name] for name in shard) for shard in divide(cells, count)]
    extra = sorted(times, reverse=True)[count - 1 : count + 1]
    best = max(sum(times) / count, max(times), sum(extra) if len(extra) == 2 else 0)
    assert max(loads) <= best * 4 / 3 + 1e-9


def test_recorded_seconds_balance_shards() -> None:
    times = {name: 10.0 if number == 0 else 1.0 for number, name in enumerate(sorted(CELLS))}
    loads = [sum(times[name] for name in one.ids) for one in shards(2, times)]
    assert sorted(loads) == [19.0, 20.0]


def test_cells_that_never_ran_count_as_the_median_of_the_others() -> None:
    cells = [("a", 100.0), ("b", 1.0), ("c", 1.0), ("d", None), ("e", None)]
    assert divide(cells, 2) == [["a"], ["b", "c", "d", "e"]]


def test_other_seconds_are_another_partition() -> None:
    partitions = {shards(2, {**dict.fromkeys(CELLS, 1.0), name: 50.0})[0].partition for name in sorted(CELLS)[:3]}
    assert len(partitions) == 3


def test_an_empty_shard_is_an_error_and_says_so() -> None:
    few = dict(list(CELLS.items())[:2])
    assert len(select(few, Selection(shard=(2, 5)), never).ids) == 1
    for number in (3, 4, 5):
        with pytest.raises(BkError, match=f"shard {number} of 5 is empty: 2 cells can run") as caught:
            select(few, Selection(shard=(number, 5)), never)
        assert caught.value.exit_code == errors.NOTHING_RAN


def test_what_is_skipped_anyway_is_in_the_first_shard_and_weighs_nothing() -> None:
    skipped = {f"{MATRIX} s{number}": Cell(MATRIX, f"test_s{number}", "oci", (), skip="why") for number in range(3)}
    cells = {**skipped, **dict(list(CELLS.items())[:2])}
    first, second = (select(cells, Selection(shard=(number, 2)), never).ids for number in (1, 2))
    assert (len(first), len(second)) == (4, 1)
    assert set(skipped) < first
    with pytest.raises(BkError, match="shard 3 of 3 is empty"):
        select(cells, Selection(shard=(3, 3)), never)


def test_a_shard_is_one_of_what_the_filters_leave() -> None:
    found = [select(CELLS, Selection(("kind=tar",), (number, 3)), never) for number in (1, 2, 3)]
    assert [len(one.ids) for one in found] == [5, 5, 5]
    assert found[0].by == ("--test_filter=kind=tar", "--shard=1/3")
    assert [one.folder for one in found] == ["shard_1_of_3", "shard_2_of_3", "shard_3_of_3"]


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_chooses_one_worker_of_each_matrix_again_and_again(seed: int) -> None:
    first, second = (select({**CELLS, **ONE_MORE}, Selection(random_worker=seed), never) for _ in range(2))
    assert first == second
    [worker] = {CELLS[name].worker for name in first.ids if name in CELLS}
    assert len(first.ids) == 10 + 1
    assert first.remarks[0] == f"//t:m: the worker {worker} was chosen at random; repeat with --random_worker={seed}"
    assert first.remarks[1].startswith("//t:other: the worker narrow ")


def test_seeds_choose_different_workers() -> None:
    chosen = [select(CELLS, Selection(random_worker=seed), never).ids for seed in range(30)]
    assert len(set(chosen)) == len(WORKERS)


def test_without_cells_there_is_nothing_to_choose_from() -> None:
    assert select({}, Selection(random_worker=1), never).ids == frozenset()
    for selection in (Selection(("test_pull",)), Selection(shard=(1, 1))):
        with pytest.raises(BkError) as caught:
            select({}, selection, never)
        assert caught.value.exit_code == errors.NOTHING_RAN


AGREEMENT = Label("p", "agreement")
COMPARED = {
    f"{AGREEMENT} {cell.name}": cell
    for cell in (
        *(Cell(AGREEMENT, "test_build", worker, ()) for worker in WORKERS),
        Cell(AGREEMENT, "agreement", "all", (), compares=True),
    )
}


def test_cells_that_another_one_compares_are_in_its_shard() -> None:
    """Otherwise the shard of that one would run them again, and two reports would have them."""
    cells = {**CELLS, **COMPARED}
    for count in (2, 3, 5):
        found = [select(cells, Selection(shard=(number, count)), never).ids for number in range(1, count + 1)]
        assert sum(map(len, found)) == len(cells)
        assert [len(COMPARED.keys() & ids) for ids in found if COMPARED.keys() & ids] == [len(COMPARED)]
    with pytest.raises(BkError, match="shard 2 of 2 is empty: 4 cells can run") as caught:
        select(COMPARED, Selection(shard=(2, 2)), never)
    assert caught.value.hint == "use at most --shard=1/1"


def test_a_random_worker_leaves_cells_that_are_compared() -> None:
    chosen = select({**CELLS, **COMPARED}, Selection(random_worker=7), never)
    assert COMPARED.keys() < chosen.ids
    assert len({CELLS[name].worker for name in chosen.ids - COMPARED.keys()}) == 1
    assert len(chosen.remarks) == 1
