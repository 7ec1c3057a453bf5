"""The portable form of a cell: its key follows from it, and what no bk writes is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from one_cell import Cells

from bkrules.analysis.runs import Runs
from bkrules.build.analysis import analyze_patterns
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.execution.portable_cell import CELL, CellForm, is_portable, read_form, with_images
from bkrules.model import digest
from bkrules.model.action import Action, DirectoryNode, FileNode, HostFile, Key, Node, key_of, merkle
from bkrules.model.wire import text_of


class Sent:
    """A cell as its client knows it, and in its portable form."""

    def __init__(self, root: Path, runs: Runs = Runs()) -> None:  # noqa: B008 - it is frozen
        analysis = analyze_patterns(str(root), ["//p:m"], runs=runs)
        execution = Execution(analysis, Options(1, str(root / "cache")), print, show=False)
        [self.action] = analysis.wanted().values()
        self.covered = execution.executor.inputs(self.action)
        found = execution.executor.portable(self.action)
        assert found is not None
        self.whole, self.inputs = found

    @property
    def key(self) -> Key:
        return key_of(self.action, self.covered)

    @property
    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.text(CELL))
        return document

    def text(self, name: str) -> str:
        """The bytes that the run reads as this input."""
        node = self.inputs[name]
        assert isinstance(node, FileNode)
        assert node.digest == digest.of_file(node.path)
        return Path(node.path).read_text()

    @property
    def files(self) -> dict[str, FileNode]:
        """The files of the cell, as a runner reads them."""
        return {name: node for name, node in self.inputs.items() if name != CELL and isinstance(node, FileNode)}


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    Cells(tmp_path)
    return Sent(tmp_path)


def test_the_key_follows_from_the_form(sent: Sent) -> None:
    form = read_form(sent.text(CELL).encode())
    assert form.key(sent.files) == sent.key
    assert text_of(form) == sent.text(CELL)
    assert form.parameters.test == "test_it"
    assert (form.action({}).title, form.action({}).declared) == (sent.action.title, sent.action.declared)
    assert form.action({}).cell == sent.action.cell


def test_it_has_what_the_run_reads_and_names_what_the_machine_has(sent: Sent) -> None:
    form = read_form(sent.text(CELL).encode())
    assert sent.text("src/p/test_it.py").startswith("import near")
    ours = {name for name, item in sent.action.inputs if isinstance(item, HostFile)} - sent.files.keys()
    assert form.machine.keys() == ours
    assert {"host/python", "bkrules/cell/init.py"} <= ours
    assert not any(name.startswith(("tools/", "host/helpers/")) for name in ours)
    assert {name for name in sent.files if name.startswith("host/helpers/")} == form.places.keys()
    assert all(place.startswith("/") for place in form.places.values())


def test_lines_of_a_module_are_in_the_form_and_not_in_the_key(sent: Sent, tmp_path: Path) -> None:
    path = tmp_path / "p/test_it.py"
    path.write_text(f"# a comment\n\n\n{path.read_text()}")
    other = Sent(tmp_path)
    assert other.key == sent.key
    assert other.text("src/p/test_it.py").startswith("# a comment")
    assert merkle(other.inputs)[0] != merkle(sent.inputs)[0]
    for one in (sent, other):
        assert read_form(one.text(CELL).encode()).key(one.files) == sent.key


def test_any_other_file_or_fact_is_another_key(sent: Sent) -> None:
    form = read_form(sent.text(CELL).encode())
    for name in sent.files.keys() - form.covered.keys():
        changed = {**sent.files, name: FileNode(digest.of_bytes(b"another"), "")}
        assert form.key(changed).digest != sent.key.digest, name
    changes: tuple[dict[str, object], ...] = (
        {"timeout": 61},
        {"platform": {**form.platform, "kernel-release": "1.0"}},
        {"environment": {**form.environment, "HOME": "/"}},
        {"arguments": ["{}"]},
        {"outputs": ["test.log"]},
        {"machine": {}},
    )
    for change in changes:
        document = {**sent.document, **change}
        assert CellForm.parse(document).key(sent.files).digest != sent.key.digest, change


def test_a_client_is_believed_about_the_digests_in_the_place_of_files(sent: Sent) -> None:
    """As SECURITY.md says: another module has the same key, so only those may send cells whose results count."""
    form = read_form(sent.text(CELL).encode())
    assert "src/p/test_it.py" in form.covered
    other = {**sent.files, "src/p/test_it.py": FileNode(digest.of_bytes(b"def test_it(): pass"), "")}
    assert form.key(other) == sent.key


def test_the_values_of_variables_are_in_the_form_alone(tmp_path: Path) -> None:
    """As SECURITY.md says: the cell needs them, wherever it runs."""
    Cells(tmp_path)
    sent = Sent(tmp_path, Runs(environment=(("TOKEN", "s3cr3t"),)))
    assert read_form(sent.text(CELL).encode()).environment["TOKEN"] == "s3cr3t"
    assert not any(b"s3cr3t" in Path(file.path).read_bytes() for file in sent.files.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "../x"}, "label"),
        ({"places": {"host/helpers/x": "etc/passwd"}}, "places"),
        ({"places": {"host/helpers/x": "/usr/../etc/passwd"}}, "places"),
        ({"machine": {"host/python": {"hash": "../x", "size": 1}}}, "machine"),
        ({"covered": {"src/x": {"hash": "0" * 64, "size": -1}}}, "covered"),
        ({"timeout": "60"}, "timeout"),
        ({"axes": [["a"]]}, "axes"),
        ({"more": 1}, "more"),
    ],
)
def test_what_no_bk_writes_is_refused(sent: Sent, change: Mapping[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_form(json.dumps({**sent.document, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"{}", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_form_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_form(data)


def test_images_are_folders() -> None:
    file = FileNode(digest.EMPTY, "")
    name = "docker.io/library/busybox:latest"
    found: dict[str, Node] = with_images(
        {"src/x": file, "mirror/docker.io/library/busybox/latest/blobs/a": file}, (name,)
    )
    assert found == {"src/x": file, "mirror/docker.io/library/busybox/latest": DirectoryNode({"blobs/a": file})}
    with pytest.raises(ValueError, match="belongs to no image"):
        with_images({"mirror/docker.io/library/busybox/other/a": file}, (name,))


def test_a_cell_without_a_run_stays_here(sent: Sent) -> None:
    assert is_portable(sent.action)
    skipped: Action = sent.action
    assert skipped.cell is not None

    assert not is_portable(replace(skipped, cell=replace(skipped.cell, skip="why")))
    assert not is_portable(replace(skipped, mnemonic="GoBuild", cell=None))
