"""The selection of cells: by filters, by a random worker, or as one shard of several.

An empty selection is an error, never a success. Everything here is a function of its arguments: the same cells and the
same recorded seconds give the same answer.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bkrules.build.ci_plan import PlanJob
from bkrules.errors import NOTHING_RAN, BkError, UsageError
from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.model.selected import Selected

_NEAR = 5
_LEAST = 0.001
_RUN = re.compile(r" run \d+$")


@dataclass(frozen=True)
class Selection:
    """The selecting options of the command line. `shard` is the number of a shard, from 1, and the number of shards;
    `random_worker` is a seed.

    A cell must match one of the filters; a filter that begins with `-` excludes its matches. `skip` is why no cell
    runs; `failed`: only cells that failed when they last ran; `job`: the cells of one job of a plan.
    """

    filters: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    random_worker: int | None = None
    skip: str = ""
    failed: bool = False
    job: PlanJob | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The options that repeat this selection."""
        options = [f"--test_filter={text}" for text in self.filters]
        options += ["--failed"] if self.failed else []
        options += [f"--random_worker={self.random_worker}"] if self.random_worker is not None else []
        options += [f"--shard={self.shard[0]}/{self.shard[1]}"] if self.shard else []
        options += list(self.job.words) if self.job else []
        return tuple(options)


def select(
    cells: Mapping[str, Cell],
    selection: Selection,
    seconds: Callable[[str], float | None],
    failed: Collection[str] = frozenset(),
) -> Selected:
    """Return the cells that run, of all declared cells by their ids. `seconds` is how long a cell took when it last ran, if ever,
    and `failed` are the ids of cells, or of their runs, that failed then.

    Raises BkError with exit code 4 when nothing is left.
    """
    declared: dict[Label, int] = {}
    for cell in cells.values():
        declared[cell.matrix] = declared.get(cell.matrix, 0) + 1
    ids = _filtered(cells, selection.filters)
    if selection.failed:
        ids = _failed(ids, failed)
    remarks: tuple[str, ...] = ()
    if selection.random_worker is not None:
        ids, remarks = _one_worker(ids, cells, selection.random_worker)
    partition = ""
    if selection.shard is not None:
        number, count = selection.shard
        shards = divide_cells({name: cells[name] for name in ids if not cells[name].skip}, seconds, count)
        skipped = [name for name in ids if cells[name].skip]
        partition = hashlib.sha256(repr((skipped, shards)).encode()).hexdigest()[:16]
        ids = shards[number - 1]
        if not ids:
            runnable = sum(map(len, shards))
            filled = sum(map(bool, shards))
            hint = f"use at most --shard={min(number, filled)}/{filled}" if filled else "all of them are skipped"
            raise _nothing(f"shard {number} of {count} is empty: {runnable} cells can run", hint)
        if number == 1:
            ids = [*ids, *skipped]
    job = None
    if selection.job is not None:
        ids, partition, job = _planned(ids, cells, selection.job), selection.job.plan.id, selection.job.numbers
    return Selected(frozenset(ids), declared, selection.words, selection.shard, partition, remarks, selection.skip, job)


def _planned(ids: Sequence[str], cells: Mapping[str, Cell], job: PlanJob) -> list[str]:
    """Return the cells of a job. Raises UsageError when one of them is not among the cells."""
    wanted = set(job.cells)
    chosen = [name for name in ids if cells[name].label in wanted]
    if len(chosen) < len(wanted):
        lost = min(wanted.difference(cells[name].label for name in chosen))
        hint = "use the targets and the options that `bk ci plan` printed as arguments of the job"
        raise UsageError("not-the-plan", f"{lost} is in {job.title}, and not among these {len(ids)} cells", hint=hint)
    return chosen


def divide_cells(cells: Mapping[str, Cell], seconds: Callable[[str], float | None], count: int) -> list[list[str]]:
    """Divide cells into shards as `divide` does. The cells that another one compares are in the shard of that one."""
    compared = {cell.matrix for cell in cells.values() if cell.compares}
    units: dict[Label | str, list[str]] = {}
    for name, cell in cells.items():
        units.setdefault(cell.matrix if cell.matrix in compared else name, []).append(name)
    by_first = {min(names): names for names in units.values()}
    timed = [(first, _sum([seconds(name) for name in names])) for first, names in by_first.items()]
    return [sorted(name for first in shard for name in by_first[first]) for shard in divide(timed, count)]


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [took for took in seconds if took is not None]
    return sum(known) if known else None


def divide(cells: Iterable[tuple[str, float | None]], count: int) -> list[list[str]]:
    """Divide cells, with their seconds, into shards of nearly equal length; every cell is in exactly one shard.

    The longest cell goes first, always to the shard with the least time. A cell that never ran counts as the median of
    the others. No shard is empty unless there are more shards than cells.
    """
    timed = list(cells)
    known = sorted(took for _, took in timed if took is not None)
    usual = known[len(known) // 2] if known else 1.0
    weights = {name: max(_LEAST, usual if took is None else took) for name, took in timed}
    shards: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for name in sorted(weights, key=lambda cell: (-weights[cell], cell)):
        least = min(range(count), key=lambda number: (loads[number], number))
        shards[least].append(name)
        loads[least] += weights[name]
    return [sorted(shard) for shard in shards]


def _one_worker(ids: Sequence[str], cells: Mapping[str, Cell], seed: int) -> tuple[list[str], tuple[str, ...]]:
    """Return the cells of one worker in each matrix, and all of a matrix that compares workers.

    The choice depends on the seed and the names of the workers alone.
    """
    import random  # the import takes a millisecond, which other builds save

    compared = {cell.matrix for cell in cells.values() if cell.compares}
    workers: dict[Label, set[str]] = {}
    for name in ids:
        if cells[name].matrix in compared:
            continue
        workers.setdefault(cells[name].matrix, set()).add(cells[name].worker)
    chosen = {label: random.Random(seed).choice(sorted(names)) for label, names in workers.items()}
    again = f"chosen at random; repeat with --random_worker={seed}"
    remarks = tuple(f"{label}: the worker {worker} was {again}" for label, worker in sorted(chosen.items()))
    return [name for name in ids if cells[name].worker == chosen.get(cells[name].matrix, cells[name].worker)], remarks


def _filtered(cells: Mapping[str, Cell], filters: Sequence[str]) -> list[str]:
    if not filters:
        return list(cells)
    wanted = [text for text in filters if not text.startswith("-")]
    unwanted = [text[1:] for text in filters if text.startswith("-")]
    ids = {name for text in wanted for name in _fitting(cells, text)} if wanted else set(cells)
    for text in unwanted:
        ids.difference_update(_fitting(cells, text))
    if not ids:
        raise _nothing("the filters leave no cell", f"of {len(cells)} cells; filters with - in front exclude the rest")
    return [name for name in cells if name in ids]


def _failed(ids: Sequence[str], failed: Collection[str]) -> list[str]:
    """Return the cells that failed when they last ran, or one of whose runs did."""
    names = {_RUN.sub("", name) for name in failed}
    left = [name for name in ids if name in names]
    if not left:
        hint = "run them without --failed; a cell counts that failed or timed out when it last ran in this workspace"
        raise _nothing(f"none of {len(ids)} cells failed when it last ran", hint)
    return left


def fitting(cells: Mapping[str, Cell], text: str) -> list[str]:
    """Return the cells that a word names: exactly, else by the beginning of their names, else as a filter does."""
    exact = [name for name, cell in cells.items() if text in (cell.label, cell.name, cell.point)]
    begun = [] if exact else [name for name, cell in cells.items() if cell.point.startswith(text)]
    return exact or begun or _fitting(cells, text, "no cell is called {}, and it")


def _fitting(cells: Mapping[str, Cell], text: str, who: str = "--test_filter={}") -> list[str]:
    """Return the cells that a filter matches: exactly, else as patterns with `*` and `?`, else by regular expressions."""
    named = [name for name, cell in cells.items() if _is_named(cell, text)]
    if named:
        return named
    parts = _split(text)
    for make in (_exact, _glob, _regex):
        fits = [make(part) for part in parts]
        if parts and all(fits):
            matches = [name for name, cell in cells.items() if _fits(cell, fits)]
            if matches:
                return matches
    names = list(dict.fromkeys(cell.point if "/" in text else part for cell in cells.values() for part in cell.parts))
    near = difflib.get_close_matches(text, names, n=_NEAR, cutoff=0.4) or names[:_NEAR]
    hint = f"the nearest names: {', '.join(near)}" if near else "see `bk query //...`"
    raise _nothing(f"{who.format(text)} matches none of {len(cells)} cells", hint)


Fits = Callable[[str, bool], bool]


def _fits(cell: Cell, fits: Iterable[Fits | None]) -> bool:
    """Return whether parts of the cell's name match, in their order. A subtest of Go has a part for each of its names."""
    test, *others = cell.parts
    rest = iter([*((part, True) for part in _split(test)), *((part, False) for part in others)])
    return all(fit is not None and any(fit(part, is_test) for part, is_test in rest) for fit in fits)


def _is_named(cell: Cell, text: str) -> bool:
    """Return whether a text is the cell's label, or its test and some of its other parts verbatim, even if they contain slashes."""
    if text in (cell.label, cell.name):
        return True
    for test in dict.fromkeys([cell.test, *_names(cell.test)]):
        if text == test or text.startswith(f"{test}/"):
            rest = iter(cell.parts[1:])
            if all(part in rest for part in text[len(test) + 1 :].split("/") if part):
                return True
    return False


def _exact(text: str) -> Fits:
    return lambda part, is_test: text == part or (is_test and text in _names(part))


def _names(test: str) -> list[str]:
    """Return the other names of a test: its name without parameters, its class, its method."""
    function = test.partition("[")[0]
    parts = function.split("::")
    return [function, *("::".join(parts[:number]) for number in range(1, len(parts))), parts[-1]]


def _glob(text: str) -> Fits | None:
    if "*" not in text and "?" not in text:
        return _exact(text)
    expression = re.compile(fnmatch.translate(text.replace("[", "[[]")))
    return lambda part, _: expression.match(part) is not None


def _regex(text: str) -> Fits | None:
    try:
        expression = re.compile(text)
    except re.error:
        return None
    return lambda part, _: expression.search(part) is not None


def _split(text: str) -> list[str]:
    """Return the parts of a filter between slashes, except in brackets, as Go's `-run` does. Empty ones match anything."""
    return [part for part in re.findall(r"(?:\[[^]]*\]|\([^)]*\)|[^/\[(]|[\[(])+", text) if part]


def _nothing(message: str, hint: str) -> BkError:
    error = BkError("nothing-ran", message, hint=hint)
    error.exit_code = NOTHING_RAN
    return error
