"""The rows of the whole table: bk's seconds to those of one other tool, in one run."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.shared import table

_SAMPLES = 2000
_OUTSIDE = 0.025
"""The part of the samples on each side of a confidence interval of 95 %."""
_WORSE = 1.05
SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """Some work, the tool that bk is compared with, and the ratio that bk should reach."""

    work: str
    peer: str
    goal: float

    @property
    def name(self) -> str:
        """Its name in options and files: `null build, 10,000 / ninja`."""
        return f"{self.work} / {self.peer}"


@dataclass(frozen=True)
class Measured:
    """A row with the wall seconds of each round, bk's and the peer's."""

    row: Row
    bk: Sequence[float]
    peer: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: bk and its peer had the same minutes in each."""
        return median(self._ratios())

    def interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of the ratio, by a bootstrap over the rounds, the same for the same seconds."""
        ratios = self._ratios()
        chance = random.Random(0)
        medians = sorted(median(chance.choices(ratios, k=len(ratios))) for _ in range(_SAMPLES))
        outside = int(_SAMPLES * _OUTSIDE)
        return medians[outside], medians[-1 - outside]

    def _ratios(self) -> list[float]:
        return [own / other for own, other in zip(self.bk, self.peer, strict=True)]


def to_file(file: Path, measured: Sequence[Measured], machine: Sequence[str]) -> None:
    """Write what was measured as JSON."""
    rows = [{"work": one.row.work, "peer": one.row.peer, "bk": one.bk, "other": one.peer} for one in measured]
    file.write_text(json.dumps({"schema": SCHEMA, "machine": machine, "rows": rows}, indent=1) + "\n")


def from_file(file: Path) -> dict[str, Measured]:
    """Return what an earlier run measured, by the names of the rows. Raises OSError, and ValueError for another file."""
    document = json.loads(file.read_text())
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"{file} is no file of this bench with schema {SCHEMA}")
    try:
        rows = [Measured(Row(one["work"], one["peer"], 0), one["bk"], one["other"]) for one in document["rows"]]
        return {one.row.name: one for one in rows if one.ratio > 0}
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{file} has a row that is malformed: {error!r}") from error


def worse(measured: Sequence[Measured], before: dict[str, Measured]) -> list[str]:
    """Return the names of the rows whose ratio is more than 5 % above that of an earlier run."""
    known = [one for one in measured if one.row.name in before]
    return [one.row.name for one in known if one.ratio > _WORSE * before[one.row.name].ratio]


def text(measured: Sequence[Measured], before: dict[str, Measured]) -> str:
    """Return the table."""
    rows = [["work", "peer", "bk s", "peer s", "ratio", "95 %", "goal", *(["before", ""] if before else [])]]
    marked = worse(measured, before)
    for one in measured:
        low, high = one.interval()
        row = [one.row.work, one.row.peer, f"{median(one.bk):.3f}", f"{median(one.peer):.3f}", f"{one.ratio:.2f}"]
        row += [f"{low:.2f} to {high:.2f}", f"{one.row.goal:g}"]
        if before:
            earlier = before.get(one.row.name)
            row += [f"{earlier.ratio:.2f}" if earlier else "-", "worse" if one.row.name in marked else ""]
        rows.append(row)
    return table(rows)
