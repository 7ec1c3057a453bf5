"""The reports that `bk-out` keeps, as pages: one of each matrix, and one of all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bkrules.errors import UsageError
from bkrules.execution.layout import KEY
from bkrules.model.action import Cell
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.selected import plan_of
from bkrules.model.status import ABSENT
from bkrules.report.artifacts import REPORT, SCHEMA
from bkrules.report.kept_keys import read_leaves
from bkrules.report.page import Page
from bkrules.report.page_cells import Details, Document, cell_of, details, fact, is_bad, size_of_logs, variables
from bkrules.report.redaction import secrets, without
from bkrules.report.schema import check_report
from bkrules.system.files import read_regular

MOST_LOGS = 64 << 20
"""The characters of all logs in a page, before they are compressed. Failed cells come first."""
_IMAGES = "input/mirror/"
"""The beginning of the leaves of a mirror's images: the host, the repository and the tag follow."""
_MOST_EARLIER = 30
"""The most earlier runs of a cell in a page; the newest are kept."""
_SHARD = re.compile(r"shard_\d+_of_\d+")
_HINT = "run `bk test` again with this bk, or name a report.json that it wrote"


@dataclass(frozen=True)
class Kept:
    """A report.json, its matrix, and the `bk-out` with the files of its cells."""

    path: Path
    document: Document
    label: Label
    out: Path

    @cached_property
    def cells(self) -> list[tuple[Mapping[str, Any], Cell, Path]]:
        """The entries of the report, with their cells and the folders of these."""
        try:
            cells = [(report, cell_of(report, self.label)) for report in self.document["cells"]]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError("no-report", f"{self.path} has a malformed cell: {error!r}", hint=_HINT) from error
        matrix = self.out / self.label.package / self.label.name
        return [(report, cell, matrix / cell.folder) for report, cell in cells]

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The secrets that the keys of the cells contain."""
        return secrets(variables(folder) for _, _, folder in self.cells)


def read(path: Path, out: Path) -> Kept:
    """Return a report; `out` is the `bk-out` with the files of its cells. Raises UsageError for a file that is none."""
    try:
        document = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("no-report", f"{path} cannot be read: {error}", hint=_HINT) from error
    label = _label(document)
    if label is None or not isinstance(document.get("cells"), list):
        raise UsageError("no-report", f"{path} is not the report of a matrix", hint=_HINT)
    if document.get("schema") != SCHEMA:
        message = f"{path} has the schema {document.get('schema')!r}, and this bk reads {SCHEMA}"
        raise UsageError("no-report", message, hint=_HINT)
    try:
        check_report(document)
    except (ValueError, RecursionError) as error:
        raise UsageError("no-report", f"{path} is malformed: {error}", hint=_HINT) from error
    return Kept(path, document, label, out)


def _label(document: object) -> Label | None:
    text = document.get("label") if isinstance(document, dict) else None
    try:
        return parse_label(text) if isinstance(text, str) else None
    except LabelError:
        return None


def all_kept(out: Path) -> Iterator[Kept]:
    """Yield the reports of all matrices in a `bk-out`, sorted. Shards, and jobs of a plan, count where the whole matrix
    has no report.

    A test can write a report.json too. Only those in the place of their matrix count.
    """
    for folder, folders, names in os.walk(out):
        folders.sort()
        parts = [name for name in folders if _SHARD.fullmatch(name) or plan_of(name)]
        shards = [name for name in parts if Path(folder, name, REPORT).is_file()]
        if REPORT not in names and not shards:
            continue
        folders.clear()  # the cells of the matrix
        for path in [Path(folder, REPORT)] if REPORT in names else [Path(folder, name, REPORT) for name in shards]:
            kept = read(path, out)
            if out / kept.label.package / kept.label.name == Path(folder):
                yield kept


def page_of(kept: Sequence[Kept], title: str, seconds: Callable[[str], float | None]) -> Page:
    """Return the page of reports. `seconds` are those of the last pass of an action, by its id."""
    page = Page(title)
    for number, one in enumerate(kept):
        page.matrices.append(_matrix(one.document))
        cells = [{"matrix": number, **fact(report, cell, folder, seconds)} for report, cell, folder in one.cells]
        page.cells += cells
        if unused := unpulled(one, cells):
            page.matrices[-1]["remarks"].append(f"its mirror has images that no cell pulled: {', '.join(unused)}")
    hidden = without(secret for one in kept for secret in one.secrets)
    page.cells = [_hidden(cell, hidden) for cell in page.cells]
    return page


def unpulled(kept: Kept, cells: Sequence[Document]) -> list[str]:
    """Return the images of a matrix's mirror, without tags, that none of its cells pulled.

    Empty when the files of a cell are not here, or when a filter left cells out.
    """
    ran = [cell for cell in cells if cell["status"] not in ABSENT]
    if not ran or (kept.document.get("selection") or {}).get("by") or not all(cell["phases"] for cell in ran):
        return []
    leaves = next(filter(None, (read_leaves(folder / KEY) for _, _, folder in kept.cells)), {})
    images = {name.removeprefix(_IMAGES).rpartition("/")[0] for name in leaves if name.startswith(_IMAGES)}
    pulled = {repository for cell in ran for repository in cell["pulled"]}
    return sorted(image for image in images if image.partition("/")[2] not in pulled)


def add_earlier(page: Page, builds: Iterable[Kept]) -> None:
    """Note in the cells of a page how they ended in reports of earlier builds, the oldest first. Cached results are no runs."""
    runs: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
    for kept in builds:
        for report, cell, _ in kept.cells:
            if not report.get("cached"):
                run = str(report.get("status")), report.get("seconds")
                runs.setdefault((str(kept.label), cell.name), []).append(run)
    for shown in page.cells:
        shown["earlier"] = runs.get((page.matrices[shown["matrix"]]["label"], shown["name"]), [])[-_MOST_EARLIER:]


def _matrix(document: Document) -> Document:
    selection = document.get("selection") or {}
    remarks = []
    if selection.get("by"):
        by = " ".join(map(str, selection["by"]))
        remarks.append(f"{selection.get('selected')} of {selection.get('declared')} declared cells, selected by {by}")
    if document.get("kernel_key") not in (None, "series"):
        remarks.append(f"the keys of these cells have --kernel_key={document['kernel_key']}")
    return {"label": document["label"], "exit_code": document.get("exit_code"), "remarks": remarks}


def _hidden(value: Any, hidden: Callable[[str], str]) -> Any:
    """Return a JSON value without the secrets in its texts."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, list):
        return [_hidden(each, hidden) for each in value]
    if isinstance(value, dict):
        return {name: _hidden(each, hidden) for name, each in value.items()}
    return value


def details_of(kept: Sequence[Kept], most: int = MOST_LOGS) -> Iterator[Details]:
    """Yield the details of the cells of these reports, in their order.

    When the logs of all cells have more than `most` bytes, those of failed cells are kept first.
    """
    cells = [each for one in kept for each in one.cells]
    hidden = without(secret for one in kept for secret in one.secrets)
    shown: set[int] = set()
    for number in sorted(range(len(cells)), key=lambda number: not is_bad(cells[number][0])):
        size = size_of_logs(cells[number][2])
        if size <= most:
            shown.add(number)
            most -= size
    for number, (report, _, folder) in enumerate(cells):
        each = details(report, folder, hidden)
        if number not in shown:
            left_out = f"This page has enough logs already. Those of this cell are in {report.get('log') or folder}"
            each = replace(each, lines=[], logs={}, left_out=left_out)
        yield each
