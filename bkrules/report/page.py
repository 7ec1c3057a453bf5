"""The page of a build: one HTML file with all that it shows, for a browser without a network.

The facts of all cells are JSON in the page. Logs, keys and timelines are compressed blocks, which the browser opens when a reader
opens a cell, so that a page of 5,000 cells opens at once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from bkrules.report.page_cells import Details, Document
from bkrules.report.trace import Span

PAGE = "report.html"
ASSETS = Path(__file__).with_name("assets")
_BLOCK = 1 << 20
"""The size in characters of a block before it is compressed; the last cell in it may exceed that."""
_SHOWN_FAILURES = 200


@dataclass
class Page:
    """The facts of a page. `spans` are the trace of the build."""

    title: str
    kind: str = "bk"
    matrices: list[Document] = field(default_factory=list)
    cells: list[Document] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def render(page: Page, details: Iterable[Details]) -> str:
    """Return the page as HTML. `details` are those of the cells, in their order."""
    script, style = _asset("page.js"), _asset("page.css")
    blocks = list(_blocks(page, details))  # before the cells are encoded: each learns its block
    counts = Counter(cell["status"] for cell in page.cells)
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    remarks = [f"{one['label']}: {'; '.join(one['remarks'])}" for one in page.matrices if one["remarks"]]
    return Template(_asset("page.html")).substitute(
        title=escape(page.title),
        outcome=outcome(page.cells),
        remarks="\n".join(f'<p class="remark">{escape(one)}</p>' for one in [*remarks, *page.remarks]),
        counts=escape(f"{len(page.cells)} {'cell' if len(page.cells) == 1 else 'cells'}: {words}"),
        failures=_failures([cell for cell in page.cells if cell["status"] in ("failed", "timed out")]),
        facts=_script_text(json.dumps(vars(page), separators=(",", ":"))),
        blocks="\n".join(f'<script type="text/plain" class="block">{block}</script>' for block in blocks),
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )


def _failures(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of failed cells, or a sentence without any."""
    if not cells:
        return "<p>None.</p>"
    rows = [
        f'<tr><th scope="row">{escape(str(cell["name"]))}</th><td>{escape(str(cell["status"]))}</td>'
        f"<td>{escape(str(cell['reason']))}</td></tr>"
        for cell in cells[:_SHOWN_FAILURES]
    ]
    head = '<tr><th scope="col">cell</th><th scope="col">status</th><th scope="col">reason</th></tr>'
    return "\n".join([f"<table>\n<thead>{head}</thead>\n<tbody>", *rows, "</tbody>\n</table>"])


def _script_text(text: str) -> str:
    """Return JSON without the characters that mean something to a parser of HTML."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("'", "\\u0027")


def outcome(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return one word for all cells: the worst of failed, incomplete, flaky, passed."""
    statuses = {cell["status"] for cell in cells}
    if statuses & {"failed", "timed out"}:
        return "failed"
    if "not run" in statuses or not statuses:
        return "incomplete"
    return "flaky" if "flaky" in statuses else "passed"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash of an inline element, by which the page's security policy allows it alone."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _blocks(page: Page, details: Iterable[Details]) -> Iterator[str]:
    """Yield the blocks, and note in each cell in which block its details are, and where in that block."""
    held: list[str] = []
    size = number = 0
    for cell, each in zip(page.cells, details, strict=True):
        text = json.dumps(vars(each), separators=(",", ":"), ensure_ascii=False)
        cell["block"] = [number, len(held)]
        held.append(text)
        size += len(text)
        if size >= _BLOCK:
            yield _packed(held)
            held, size, number = [], 0, number + 1
    if held:
        yield _packed(held)


def _packed(texts: Sequence[str]) -> str:
    data = f"[{','.join(texts)}]".encode(errors="replace")
    return base64.b64encode(zlib.compress(data, 6)).decode()
