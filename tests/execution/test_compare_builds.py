"""The comparison of what cells saw: results are documents of others, which may be anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bkrules.declarative.seen import MOST, Entry, Seen
from bkrules.errors import ActionFailed
from bkrules.execution.result import Outcome
from bkrules.model import digest
from bkrules.model.action import Action, Cell, FileNode
from bkrules.model.digest import Digest
from bkrules.model.label import Label
from bkrules.model.parameters import CompareBuilds
from bkrules.model.wire import text_of
from bkrules.runners.compare_builds import compare_builds

LABEL = Label("p", "same")
SEEN = Seen(rootfs={"/": Entry("directory", "0755", "0:0")}, digest="sha256:d", layers=("sha256:1",))
Compared = Callable[..., Outcome]


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """Compare documents, with these expected differences."""

    def run(*documents: str, expected: tuple[dict[str, str], ...] = ()) -> Outcome:
        names = tuple(f"worker{number}" for number in range(len(documents)))
        parameters = CompareBuilds(names, tuple({"worker": name} for name in names), expected)
        action = Action(
            "//p:same agreement",
            LABEL,
            "CompareBuilds",
            (text_of(parameters),),
            (),
            ("test.log", "agreement.json"),
            cell=Cell(LABEL, "agreement", "all", (), compares=True),
        )
        inputs = {}
        for number, document in enumerate(documents):
            path = tmp_path / f"{number}.json"
            path.write_text(document)
            inputs[f"seen/{number:05}.json"] = FileNode(digest.of_bytes(document.encode()), str(path))
        context: Any = SimpleNamespace(cell_folder=lambda _action: tmp_path / "out")
        return compare_builds(action, inputs, context)

    return run


def test_what_differs_is_in_the_reason_the_log_and_the_report(compared: Compared, tmp_path: Path) -> None:
    other = Seen(rootfs={"/": Entry("directory", "0700", "1:1")}, digest="sha256:e", layers=("sha256:2",))
    result = compared(SEEN.text, SEEN.text, other.text)
    assert (result.status, result.failure) == ("failed", "test")
    assert result.reason == "worker2: modes of / differ from 2 others: 0700, not 0755 (and 1 more)"
    log = Path(result.outputs["test.log"]).read_text()
    assert "consequence: worker2: layer 1 of 1 differs from 2 others" in log
    assert log.endswith("worker2: owners of / differ from 2 others: 1:1, not 0:0\n")
    assert len(json.loads(Path(result.outputs["agreement.json"]).read_text())["unexpected"]) == 2


def test_results_that_are_the_same_pass(compared: Compared) -> None:
    result = compared(SEEN.text, SEEN.text)
    assert (result.status, result.reason) == ("passed", "")
    assert Path(result.outputs["test.log"]).read_text() == "2 results of the same build\nthey agree\n"


def test_a_build_that_fails_everywhere_fails(compared: Compared) -> None:
    text = Seen(failure="error: failed to solve: no").text
    assert compared(text, text).reason == "the build failed in all 2 cells: error: failed to solve: no"


@pytest.mark.parametrize("document", ["", "[]", '{"rootfs": []}', "[" * 100_000, '{"other": 1}'])
def test_a_result_that_is_none_is_an_error(compared: Compared, document: str) -> None:
    with pytest.raises(ActionFailed, match="the result of worker1 is malformed") as caught:
        compared(SEEN.text, document)
    assert caught.value.reason == "bad-output"


def test_a_result_that_is_too_large_is_not_read(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "of_bytes", lambda _data: Digest("0" * 64, MOST + 1))
    with pytest.raises(ActionFailed, match="has 256 MiB, but the most is 256"):
        compared(SEEN.text, SEEN.text)
