"""Tests that are programs, as cells on four workers: a shell script, one that writes JUnit, TAP, shards, cases, failures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from spaces import Space

BUILD = """
host_binary(name = "bash", binary = "/bin/bash")
host_binary(name = "mkdir")
host_binary(name = "cp")
host_binary(name = "sh", binary = "/bin/sh")
host_binary(name = "cat", binary = "/bin/cat")
test_matrix(
    name = "suites",
    tests = ["//t:build.sh", "//t:junit.py3", "//t:tap", "//t:gotest"],
    args = ["one", "two words"],
    workers = [":oci", ":oci_stargz", ":containerd", ":rootless"],
    mirror = ":mirror",
    axes = {"mode": {"min": "MIN"}},
    tools = [":bash", ":cat", ":cp", ":mkdir", ":sh"],
    data = ["//t:Dockerfile"],
)
test_matrix(
    name = "parts",
    tests = ["//t:parts.sh"],
    cases = {"parts.sh": ["push", "pull"]},
    workers = [":oci"],
    mirror = ":mirror",
    tools = [":bash"],
)
test_matrix(
    name = "shards",
    tests = ["//t:parts.sh"],
    shard_count = 2,
    workers = [":oci"],
    mirror = ":mirror",
    tools = [":bash"],
)
test_matrix(
    name = "bad",
    tests = ["//t:" + name for name in ["status", "early", "xml", "lies", "empty", "short", "odd", "slow"]],
    workers = [":oci"],
    mirror = ":mirror",
    tools = [":bash"],
    timeout = 3,
)
test_matrix(
    name = "unsharded", tests = ["//t:unsharded"], shard_count = 2, workers = [":oci"], mirror = ":mirror", tools = [":bash"],
)
[
    test_matrix(
        name = "pytest_" + isolation,
        tests = ["//t:test_measure.py"],
        isolation = isolation,
        workers = [":oci"],
        mirror = ":mirror",
    )
    for isolation in ["cell", "worker"]
]
worker(name = "broken", plugin = "oci", id = "broken", tools = {"buildkitd": "//:buildctl"})
test_matrix(
    name = "extra",
    tests = ["//t:extra.sh"],
    workers = [":oci", ":rootless"],
    extra_workers = [":containerd_stargz", ":oci_buildkit_0_17"],
    mirror = ":mirror",
    tools = [":sh"],
)
test_matrix(
    name = "unready",
    tests = ["//t:extra.sh"],
    workers = [":oci"],
    extra_workers = [":broken"],
    mirror = ":mirror",
    tools = [":sh"],
)
test_matrix(name = "large", tests = ["//t:much"], workers = [":oci"], mirror = ":mirror", tools = [":bash"])
test_matrix(name = "skipped", tests = ["//t:skips"], workers = [":oci"], mirror = ":mirror", tools = [":bash"])
"""
SHELL = """#!/bin/sh -eu
[ "$1/$2" = "one/two words" ]
[ "$BK_AXIS_MODE" = min ]
[ "$TEST_TARGET" = //targets:suites ]
[ -d "$TEST_TMPDIR" ]
cd "$TEST_SRCDIR/$TEST_WORKSPACE/t"
echo "snapshotter $BK_SNAPSHOTTER, worker $BK_WORKER, mirror $BK_MIRROR"
buildctl debug workers
buildctl build --frontend=dockerfile.v0 --local=context=. --local=dockerfile=. \
  --output=type=local,dest="$TEST_TMPDIR/all"
mkdir -p "$TEST_UNDECLARED_OUTPUTS_DIR/made"
cp "$TEST_TMPDIR/all/hello" "$TEST_UNDECLARED_OUTPUTS_DIR/made/"
[ "$(cat "$TEST_UNDECLARED_OUTPUTS_DIR/made/hello")" = hello ]
"""
JUNIT = """#!/usr/bin/env python3
import os
with open(os.environ["XML_OUTPUT_FILE"], "w") as file:
    file.write('<testsuites><testsuite><testcase classname="Push" name="plain" time="0.25"/>'
               '<testcase name="lazy"><skipped message="not here"/></testcase></testsuite></testsuites>')
"""
TAP = """#!/bin/bash
echo 1..3
echo ok 1 - builds
echo "not ok 2 - sings # TODO later"
echo "ok 3 - flies # SKIP no wings"
"""
GO = """#!/bin/bash
echo "=== RUN   TestA"
echo "=== RUN   TestA/b"
echo "    a_test.go:7: no snapshotter"
echo "    --- SKIP: TestA/b (0.50s)"
echo "--- PASS: TestA (0.50s)"
echo "--- PASS: TestC (1.50s)"
"""
EXTRA = """#!/bin/sh -eu
[ "$BK_EXTRA_WORKER_CONTAINERD_STARGZ_SNAPSHOTTER" = stargz ]
old=$BK_EXTRA_WORKER_OCI_BUILDKIT_0_17_HOST
"$BK_EXTRA_WORKER_OCI_BUILDKIT_0_17_TOOLS/buildkitd" --version
for host in "$BUILDKIT_HOST" "$BK_EXTRA_WORKER_CONTAINERD_STARGZ_HOST" "$old"; do
  buildctl --addr "$host" debug info
done
echo "FROM scratch" > "$TEST_TMPDIR/Dockerfile"
buildctl --addr "$old" build --frontend=dockerfile.v0 --local=context="$TEST_TMPDIR" --local=dockerfile="$TEST_TMPDIR"
"""
PARTS = """#!/bin/bash
[ -z "${TEST_TOTAL_SHARDS:-}" ] || : > "$TEST_SHARD_STATUS_FILE"
echo "part ${TESTBRIDGE_TEST_ONLY:-} of shard ${TEST_SHARD_INDEX:-} of ${TEST_TOTAL_SHARDS:-}"
"""
BAD = {
    "status": ("exit 7", "exit status 7"),
    "early": (': > "$TEST_PREMATURE_EXIT_FILE"', "TEST_PREMATURE_EXIT_FILE is still there"),
    "xml": ('echo "<testsuites" > "$XML_OUTPUT_FILE"', "is no XML"),
    "lies": ("echo 1..1\necho not ok 1 - it", "exit status 0, but 1 of 1 cases failed: it"),
    "empty": ('echo "<testsuites/>" > "$XML_OUTPUT_FILE"', "has no case, so nothing ran"),
    "short": ("echo 1..2\necho ok 1 - it", "planned 2 cases, but reported 1"),
    "odd": ('echo \'{"Action":"fail","Test":"\\ud800"}\'', "exit status 0, but 1 of 1 cases failed: "),
    "slow": ("trap 'echo bye; exit 1' TERM\nwhile :; do read -t 0.1 < /dev/zero; done", "took more than 3 s"),
}


MUCH = """#!/bin/bash
echo '<testsuites>' > $XML_OUTPUT_FILE
for ((i = 0; i < 70; i++)); do printf '<testcase name="%01000000d"/>' 1; done >> $XML_OUTPUT_FILE
echo '</testsuites>' >> $XML_OUTPUT_FILE
"""
MEASURE = """
import os
from pathlib import Path

import pytest

@pytest.mark.parametrize("name", ["a", "b"])
def test_measure(name):
    folder = Path(os.environ["TEST_UNDECLARED_OUTPUTS_DIR"])
    assert not list(folder.iterdir())
    (folder / "deep").mkdir()
    (folder / "deep" / name).write_text(name)

def test_nothing():
    pass
"""
WORKERS = ("oci", "oci+stargz", "containerd", "rootless")
GOOD = (
    "//targets:suites",
    "//targets:parts",
    "//targets:shards",
    "//targets:skipped",
    "//targets:extra",
    "//targets:pytest_cell",
    "//targets:pytest_worker",
)


def written(space: Space) -> Space:
    build = space.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", host_binary, test_matrix, worker", 1) + BUILD)
    space.write("t/BUILD.py", 'from bkrules import host_binary\nhost_binary(name = "runc", binary = "cat")\n')
    space.write("t/test_measure.py", MEASURE)
    space.write("t/Dockerfile", "FROM docker.io/library/busybox:latest\nRUN echo hello > /hello\n")
    programs = {"build.sh": SHELL, "junit.py3": JUNIT, "tap": TAP, "gotest": GO, "parts.sh": PARTS, "extra.sh": EXTRA}
    programs["skips"] = '#!/bin/bash\necho "1..0 # skip no kernel"\n'
    programs["much"] = MUCH
    programs["unsharded"] = "#!/bin/bash\n"
    for name, text in {**programs, **{name: f"#!/bin/bash\n{text}\n" for name, (text, _) in BAD.items()}}.items():
        space.write(f"t/{name}", text)
    return space


def cells(space: Space, matrix: str) -> dict[str, dict[str, Any]]:
    report = json.loads((space.root / f"bk-out/targets/{matrix}/report.json").read_text())
    return {cell["name"]: cell for cell in report["cells"]}


def measured(out: Path) -> None:
    for isolation in ("cell", "worker"):
        folder = out / f"pytest_{isolation}"
        kept = [path for path in folder.rglob("test.outputs/**/*") if path.is_file()]
        assert sorted(str(path.relative_to(folder)) for path in kept) == [
            f"test_measure[{name}]/worker=oci/test.outputs/deep/{name}" for name in "ab"
        ]


def test_suites_of_programs(tools: Space) -> None:
    space = written(tools)

    done = space.bk("test", *GOOD)

    assert done.returncode == 0, done.stdout + done.stderr
    out = space.root / "bk-out/targets"
    assert len(cells(space, "suites")) == 16
    for worker in WORKERS:
        place = out / f"suites/build.sh/worker={worker}/mode=min"
        assert (place / "test.outputs/made/hello").read_text() == "hello\n"
        snapshotter = {"oci": "overlayfs", "oci+stargz": "stargz"}.get(worker, "")
        assert f"snapshotter {snapshotter}" in (place / "test.log").read_text()
    shown = [
        case for cell in cells(space, "suites").values() if cell["worker"] == "oci" for case in cell.get("cases", ())
    ]
    assert [(one["name"], one["status"], one.get("seconds", 0), one.get("reason", "")) for one in shown] == [
        ("Push.plain", "passed", 0.25, ""),
        ("lazy", "skipped", 0, "not here"),
        ("builds", "passed", 0, ""),
        ("sings", "passed", 0, "later"),
        ("flies", "skipped", 0, "no wings"),
        ("TestA/b", "skipped", 0.5, "no snapshotter"),
        ("TestC", "passed", 1.5, ""),
    ]
    suite = ElementTree.parse(out / "suites/test.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("skipped"), suite.get("failures")) == (str(16 + 4 * 7), str(4 * 3), "0")
    assert "gotest/worker=rootless/mode=min TestA/b" in [case.get("name") for case in suite]
    [skipped] = cells(space, "skipped").values()
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no kernel")
    logs = {path.parent.parent.name: path.read_text() for path in out.glob("[ps][ah]*/*/*/test.log")}
    for worker in ("oci", "rootless"):
        place = out / f"extra/extra.sh/worker={worker}"
        releases = re.findall(
            r"^buildkitd \S+ (v0\.\d+)|^BuildKit:\s+\S+ (v0\.\d+)", (place / "test.log").read_text(), re.M
        )
        assert ["".join(one) for one in releases] == ["v0.17", "v0.34", "v0.34", "v0.17"]
        assert (place / "containerd+stargz.stargz.log").exists()
    assert {text for name, text in logs.items() if name.startswith("parts")} == {
        "part push of shard  of \n",
        "part pull of shard  of \n",
        "part  of shard 0 of 2\n",
        "part  of shard 1 of 2\n",
    }

    measured(out)

    look = "sh t/extra.sh; cat /out/oci-buildkit-0.17.buildkitd.log"
    words = ("//targets:extra[extra.sh/worker=rootless]", "--disk_cache", str(space.cache))
    shell = space.bk("shell", *words, "--", "sh", "-c", f"TEST_TMPDIR=/tmp; export TEST_TMPDIR; {look}")
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert shell.stdout.count("BuildKit:") == 3
    assert "running server on" in shell.stdout

    shutil.rmtree(space.root / "bk-out")
    again = space.bk("test", *GOOD)

    assert "29 cells: 28 passed, 1 skipped (29 cached, 0 not); " in again.stdout
    assert (out / "suites/build.sh/worker=rootless/mode=min/test.outputs/made/hello").read_text() == "hello\n"
    measured(out)
    assert not (out / "suites/tap/worker=oci/mode=min/test.outputs").exists()
    assert cells(space, "suites")["tap/worker=oci/mode=min"]["cases"][0] == {"name": "builds", "status": "passed"}


def test_programs_that_fail(tools: Space) -> None:
    space = written(tools)

    done = space.bk(
        "test", "//targets:bad", "//targets:unsharded", "//targets:large", "//targets:unready", "--keep_going"
    )

    assert done.returncode == 3, done.stdout + done.stderr
    reasons = {name.partition("/")[0]: cell["reason"] for name, cell in cells(space, "bad").items()}
    assert reasons.keys() == BAD.keys()
    for name, (_, reason) in BAD.items():
        assert reason in reasons[name]
    assert "bye" in (space.root / "bk-out/targets/bad/slow/worker=oci/test.log").read_text()
    [unready] = cells(space, "unready").values()
    assert (unready["class"], len(unready["attempts"])) == ("infrastructure", 2)
    assert "broken.buildkitd died before it was ready: exit status 1" in unready["reason"]
    assert [cell["reason"] for cell in cells(space, "large").values()] == ["its report has more than 64 MiB"]
    for cell in cells(space, "unsharded").values():
        assert "it knows no shards" in cell["reason"]


WRONG = [
    (
        'tests = ["//t:Dockerfile"]',
        "t/Dockerfile is neither Python nor a program: it begins with 'FROM docker.io/l'",
    ),
    ('tests = ["//t:tap"]', "t/tap is run by 'bash', which is not among 'tools'"),
    ('tests = [":oci"]', "'tests' needs a Python file, an executable file, or a target with a binary, but"),
    ('tests = ["//t:runc"]', "the program 'runc' has the name of a tool of //targets:oci"),
    ('tests = ["//t:tap"], tools = [":bash"], cases = {"tip": ["a"]}', "'cases' names 'tip', which is no program"),
    ('tests = ["//t:tap"], tools = [":bash"], cases = {"tap": "a"}', "'cases' must map 'tap' to a list of names"),
    ('tests = ["//t:tap"], tools = [":bash"], shard_count = 51', "'shard_count' is 51, but the most is 50"),
    ('tests = ["//t:test_measure.py"], args = ["-v"]', "'args' changes nothing: no program in 'tests' can have it"),
    (
        'tests = ["//t:test_measure.py"], shard_count = 2',
        "'shard_count' changes nothing: no program in 'tests' can have it",
    ),
    (
        'tests = ["//t:tap"], tools = [":bash"], isolation = "worker"',
        "t/tap is a program, but 'isolation' is 'worker'",
    ),
]


def test_what_is_no_program(tools: Space) -> None:
    space = written(tools)
    build = space.root / "targets/BUILD.py"
    text = build.read_text()
    for change, reason in WRONG:
        build.write_text(f'{text}test_matrix(name = "wrong", workers = [":oci"], mirror = ":mirror", {change})\n')

        done = space.bk("aquery", "//targets:wrong")

        assert done.returncode == 1, (change, done.stdout)
        assert reason in done.stderr
        assert "targets/BUILD.py:" in done.stderr
