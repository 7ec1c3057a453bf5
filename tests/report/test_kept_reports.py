"""The reports that `bk-out` keeps, and `bk report` on them."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from many_cells import write_many
from spaces import Space

from bkrules.errors import UsageError
from bkrules.model.label import Label
from bkrules.report.kept_reports import add_earlier, all_kept, details_of, page_of
from bkrules.report.trace import read_spans


@pytest.fixture
def kept(space: Space) -> Space:
    """A workspace in which a matrix of 30 cells has run, with logs and keys."""
    write_many(space.root, 30, with_files=True)
    return space


def test_one_matrix_has_a_page_and_so_has_the_build(kept: Space) -> None:
    done = kept.bk("report")
    assert (done.returncode, done.stderr) == (0, "")
    matrix, whole = kept.root / "bk-out/many/matrix/report.html", kept.root / "bk-out/report.html"
    assert done.stdout.startswith("bk-out/many/matrix/report.html: //many:matrix: 30 cells: ")
    assert matrix.read_bytes() == whole.read_bytes()
    assert kept.bk("report").returncode == 0 and matrix.read_bytes() == whole.read_bytes()


def test_no_workspace_needs_to_be_loadable(kept: Space) -> None:
    kept.write("WORKSPACE.py", "import os (")
    assert kept.bk("report", "//many/...", "--out", "page.html").returncode == 0
    assert (kept.root / "page.html").is_file() and not (kept.root / "bk-out/report.html").exists()


def test_images_that_no_cell_pulled_are_named(kept: Space) -> None:
    """When all cells are known to have run, and none was left out."""
    matrix = kept.root / "bk-out/many/matrix"
    keys = sorted(matrix.rglob("key.json"))
    for number, path in enumerate(keys):
        document = json.loads(path.read_text())
        for image in ("bulk/latest", "bulk/esgz", "other/1"):
            document["leaves"][f"input/mirror/docker.io/library/{image}"] = "sha256:00"
        path.write_text(json.dumps(document))
        result = json.loads(path.with_name("result.json").read_text())
        path.with_name("result.json").write_text(json.dumps({**result, "pulled": {"library/bulk": [1, number]}}))
    line = "//many:matrix: its mirror has images that no cell pulled: docker.io/library/other\n"
    assert kept.bk("report").stdout.endswith(line)
    assert "no cell pulled: docker.io/library/other" in (matrix / "report.html").read_text()

    report = matrix / "report.json"
    document = json.loads(report.read_text())
    selection = {"by": ["--test_filter=x"], "declared": 60, "selected": 30, "shard": None, "partition": None}
    report.write_text(json.dumps({**document, "selection": {**document["selection"], **selection}}))
    assert "no cell pulled" not in kept.bk("report").stdout
    report.write_text(json.dumps(document))
    keys[0].with_name("result.json").unlink()
    assert "no cell pulled" not in kept.bk("report").stdout


def test_what_has_no_report_is_named(kept: Space, space: Space) -> None:
    done = kept.bk("report", "//many:other")
    assert done.returncode == 4
    assert "bk-out has no report of //many:other" in done.stderr and "there are reports of //many:matrix" in done.stderr
    assert kept.bk("report", "//...", "-//many:matrix").returncode == 4
    assert kept.bk("report", "--profile", "missing.json").returncode == 2
    assert kept.bk("report", "--out", "WORKSPACE.py/page.html").returncode == 2


def test_a_file_is_a_report_too(kept: Space) -> None:
    document = json.loads((kept.root / "bk-out/many/matrix/report.json").read_text())
    (kept.root / "merged").mkdir()
    kept.write("merged/report.json", json.dumps({**document, "cells": document["cells"][:2]}))
    done = kept.bk("report", "merged/report.json", "--out", "merged/page.html")
    assert (done.returncode, "2 cells" in done.stdout) == (0, True), done.stderr
    for text in ("{", "[]", json.dumps({**document, "schema": 9}), json.dumps({**document, "cells": [{}]}), "[" * 9999):
        kept.write("merged/report.json", text)
        done = kept.bk("report", "merged/report.json")
        assert done.returncode == 2 and "merged/report.json" in done.stderr, done.stderr
    kept.write("merged/report.json", json.dumps({**document, "label": "//../../etc:x"}))
    assert "is not the report of a matrix" in kept.bk("report", "merged/report.json").stderr


def test_shards_count_where_no_whole_report_is(tmp_path: Path) -> None:
    matrix = write_many(tmp_path, 20) / "bk-out/many/matrix"
    document = json.loads((matrix / "report.json").read_text())
    for number in (1, 2):
        (matrix / f"shard_{number}_of_2").mkdir()
        half = {**document, "cells": document["cells"][number - 1 :: 2]}
        (matrix / f"shard_{number}_of_2/report.json").write_text(json.dumps(half))
    assert [len(one.cells) for one in all_kept(tmp_path / "bk-out")] == [20]
    (matrix / "report.json").unlink()
    assert [len(one.cells) for one in all_kept(tmp_path / "bk-out")] == [10, 10]


def test_a_report_that_a_test_wrote_does_not_count(kept: Space) -> None:
    out = kept.root / "bk-out"
    document = json.loads((out / "many/matrix/report.json").read_text())
    folder = out / "other/matrix/test_x/worker=oci/test.outputs"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(document))
    assert [str(one.label) for one in all_kept(out)] == ["//many:matrix"]


def test_logs_of_failed_cells_come_first(kept: Space) -> None:
    (one,) = all_kept(kept.root / "bk-out")
    one.document["cells"][7]["status"] = "failed"
    size = 12_000  # more than the logs of one cell, and less than those of two
    made = list(details_of([one], size))
    assert [number for number, each in enumerate(made) if each.lines] == [7]
    assert all("enough logs" in each.left_out for number, each in enumerate(made) if number != 7)


def test_secrets_are_in_no_part_of_a_page(kept: Space) -> None:
    (one,) = all_kept(kept.root / "bk-out")
    report, _, folder = one.cells[0]
    assert isinstance(report, dict)
    report["reason"] = "the password is hunter22"
    leaves = {"env/REGISTRY_PASSWORD": "hunter22", "salt": "1"}
    (folder / "key.json").write_text(json.dumps({"key": "0", "leaves": leaves}))
    (folder / "test.log").write_text("login with hunter22\n")
    page = page_of([one], "//many:matrix", lambda _: None)
    assert page.cells[0]["reason"] == "the password is ***"
    assert next(iter(details_of([one]))).logs["test.log"] == "login with ***\n"


def test_a_profile_becomes_a_trace(tmp_path: Path) -> None:
    thread = {"name": "thread_name", "ph": "M", "pid": 1, "tid": 7, "args": {"name": "job-0"}}
    span = {"name": "GoBuild //:x", "cat": "action processing", "ph": "X", "ts": 5, "dur": 9, "tid": 7}
    wait = {"name": "x", "ph": "b", "ts": 1, "tid": 7}
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [thread, span, wait]}))
    assert read_spans(str(path)) == [("job-0", "GoBuild //:x", "action processing", 5, 9)]
    endless = json.dumps({"traceEvents": [{**span, "ts": float("inf")}]})
    for text in ("", "[]", '{"traceEvents": [{"ph": "X"}]}', '{"traceEvents": 1}', endless):
        path.write_text(text)
        with pytest.raises(UsageError, match="--profile"):
            read_spans(str(path))


def test_a_page_is_served_to_this_machine_alone(kept: Space) -> None:
    command = kept.command("report", "--serve")
    with subprocess.Popen(command, cwd=kept.root, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        address = next(line for line in served.stdout if line.startswith("http://")).split()[0]
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == (kept.root / "bk-out/report.html").read_bytes()
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        for request in (f"{address}WORKSPACE.py", urllib.request.Request(address, headers={"Host": "evil.example"})):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request)
        served.terminate()
        assert served.wait(30) == 8


def test_earlier_reports_are_a_history(kept: Space) -> None:
    (one,) = all_kept(kept.root / "bk-out")
    page = page_of([one], "//many:matrix", lambda _: None)
    run = {**one.document["cells"][0], "status": "failed", "seconds": 2.0, "cached": False}
    builds = [
        replace(one, document={**one.document, "cells": [run, {**run, "cached": True}]}, label=label)
        for label in (one.label, Label("other", "matrix"))
    ]
    add_earlier(page, builds)
    assert page.cells[0]["earlier"] == [("failed", 2.0)] and page.cells[1]["earlier"] == []
    done = kept.bk("report", "--earlier", "bk-out/many/matrix/report.json")
    assert done.returncode == 0, done.stderr
    assert kept.bk("report", "--earlier", "WORKSPACE.py").returncode == 2
