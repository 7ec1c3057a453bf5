"""Cells that another machine runs from a digest and a cache: one with neither Go nor a workspace nor any built tool."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import casd
import pytest
from bazel_remotes import Server, Start
from leftovers import Leftovers
from spaces import WORKERS, Space, check, matrix, wait_for

from bkrules import __version__
from bkrules.cache.grpc_calls import GrpcCalls
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import reapi

TEST = """
def test_one(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\\nRUN echo hello > /hello.txt\\n")
    folders = f"--local context={tmp_path} --local dockerfile={tmp_path}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/hello.txt").read_text() == "hello\\n"
"""
SHORT = """
def test_fails(sandbox):
    print("these are my last words")
    assert 1 == 2

def test_skips(sandbox):
    import pytest
    pytest.skip("not today")
"""
TWO = """
def test_one(sandbox):
    assert sandbox.worker

def test_two(sandbox):
    assert sandbox.worker
"""
OTHER = """
import platform, sys
import bkrules
{change}
from bkrules.__main__ import main
sys.exit(main())
"""
FOR_EVER = """
def test_waits(sandbox):
    while True:
        pass
"""
WITH_A_TOOL = """
import subprocess

def test_tool(sandbox):
    assert subprocess.run(["tool", "--version"]).returncode == 0
"""
GO_BUILD = """
go_binary(name = "g_test", srcs = ["//g:a_test.go"], mod = "//g:go.mod", test = True)
go_test(name = "suite", binary = ":g_test")
test_matrix(name = "small", tests = [":suite"], workers = [":oci"], mirror = ":mirror")
"""
GO_TESTS = """package g

import "testing"

func TestOne(t *testing.T) { t.Log("one") }

func TestTwo(t *testing.T) { t.Log("two") }
"""
GRPC = pytest.mark.parametrize("start", ["grpc"], indirect=True)
"""For tests that need not ask the cache by both protocols."""
EXECUTE = "/build.bazel.remote.execution.v2.Execution/Execute"
BATCH = """
import os

def test_policy(sandbox):
    assert os.sched_getscheduler(0) != os.SCHED_BATCH
"""
"""A test that passes or fails by the scheduling of its engine, which no key covers."""
MIB = 1 << 20
SMALL = "//targets:small"
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def worker(tmp_path: Path) -> Space:
    """A machine with bk alone: no workspace, no compiler on its PATH, nothing in its home and its disk cache."""
    for name in ("worker", "home"):
        (tmp_path / name).mkdir()
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return Space(tmp_path / "worker", tmp_path / "worker-cache", environment=environment)


def push(space: Space, server: Server | casd.Casd) -> dict[str, str]:
    """Send the cells without a result; their digests by their names."""
    words = ["--json", f"--remote_cache={server.url}", f"--disk_cache={space.cache}"]
    done = space.bk("cache", "push", SMALL, "--actions", *words)
    check(done.returncode, done.stdout + done.stderr)
    sent = [action for action in json.loads(done.stdout)["actions"] if action["mnemonic"] == "TestCell"]
    return {action["label"].removeprefix(f"{SMALL}[").removesuffix("]"): action["digest"] for action in sent}


def run(worker: Space, server: Server, name: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = (f"--remote_cache={server.url}", f"--disk_cache={worker.cache}")
    return worker.bk("run-action", name, *words, prefix=prefix)


def run_all(workers: tuple[str, ...], client: Space, worker: Space, server: Server, report: Report) -> None:
    """Have the other machine run a cell of each worker, and the first one find all results."""
    matrix(client, TEST, *workers)
    sent = push(client, server)
    assert len(sent) == len(workers)
    for name in sent.values():
        done = run(worker, server, name)
        check(done.returncode, done.stdout + done.stderr)
        assert " ran in " in done.stdout, done.stdout
    done = client.bk("build", SMALL, f"--remote_cache={server.url}")
    check(done.returncode, done.stdout + done.stderr)
    assert f"{len(workers)} passed ({len(workers)} cached, 0 not)" in done.stdout, done.stdout
    assert {cell["status"] for cell in report(client.root, "small")["cells"]} == {"passed"}
    assert push(client, server) == {}


def test_another_machine_runs_a_cell(
    tools: Space, worker: Space, start: Start, report: Report, leftovers: Leftovers
) -> None:
    server = start()
    before = leftovers(worker.cache)
    run_all(("oci",), tools, worker, server, report)
    assert leftovers(worker.cache) == before


@GRPC
def test_commands_of_the_first_machine(tools: Space, worker: Space, start: Start) -> None:
    """A machine without newuidmap, which must act as root, and without a library of it, runs a rootless daemon."""
    server = start()
    matrix(tools, TEST, "rootless")
    [name] = push(tools, server).values()
    found = subprocess.run(["ldd", "/usr/bin/newuidmap"], capture_output=True, text=True, check=True).stdout
    library = next(iter(re.findall(r"=> (/\S+/lib(?:cap-ng|subid)\S+)", found)), "/usr/bin/newgidmap")
    hide = 'for file; do shift; [ "$file" = -- ] && break; mount --bind /dev/null "$file"; done; exec "$@"'
    hidden = ("unshare", "-m", "sh", "-ec", hide, "sh", "/usr/bin/newuidmap", "/usr/bin/newgidmap", library, "--")
    assert subprocess.run([*hidden, "/usr/bin/newuidmap"], capture_output=True, check=False).returncode == 126
    done = run(worker, server, name, hidden)
    check(done.returncode, done.stdout + done.stderr)
    assert push(tools, server) == {}


@GRPC
def test_another_machine_runs_a_test_of_go(tools: Space, worker: Space, start: Start) -> None:
    """The key has what one test reaches, and the run has the binary, so an edit of one test leaves the result of the other."""
    server = start()
    build = tools.root / "targets/BUILD.py"
    rules = build.read_text().replace(
        "from bkrules import ", "from bkrules import go_binary, go_test, test_matrix, ", 1
    )
    build.write_text(rules + GO_BUILD)
    tools.write("g/BUILD.py", "")
    tools.write("g/go.mod", "module g\n\ngo 1.24\n")
    tools.write("g/a_test.go", GO_TESTS)
    done = tools.bk("build", "//targets:suite")
    check(done.returncode, done.stdout + done.stderr)
    sent = push(tools, server)
    assert len(sent) == 2
    for name in sent.values():
        done = run(worker, server, name)
        check(done.returncode, done.stdout + done.stderr)
    assert push(tools, server) == {}
    tools.write("g/a_test.go", GO_TESTS.replace('Log("two")', 'Log("2")'))
    assert tools.bk("build", "//targets:suite").returncode == 0
    assert [name.partition("/")[0] for name in push(tools, server)] == ["TestTwo"]


@GRPC
@pytest.mark.soak
def test_another_machine_runs_a_cell_of_each_worker(
    tools: Space, worker: Space, start: Start, report: Report, leftovers: Leftovers
) -> None:
    server = start()
    before = leftovers(worker.cache)
    run_all(WORKERS, tools, worker, server, report)
    assert leftovers(worker.cache) == before


@GRPC
def test_failures_and_skips(tools: Space, worker: Space, start: Start) -> None:
    """A failed test tells its log and leaves nothing in a cache; a test that skips itself has a result."""
    server = start()
    matrix(tools, SHORT, "oci")
    sent = push(tools, server)
    failing = sent["test_fails/worker=oci"]
    for _ in range(2):
        done = run(worker, server, failing)
        assert done.returncode == 1, done.stderr
        assert "these are my last words\n" in done.stderr
        assert "error: the cell test_fails/worker=oci: failed: t/test_small.py:4: assert 1 == 2" in done.stderr
        assert done.stdout == ""
    done = run(worker, server, sent["test_skips/worker=oci"])
    check(done.returncode, done.stdout + done.stderr)
    assert push(tools, server) == {"test_fails/worker=oci": failing}


@GRPC
def test_inputs_are_fetched_once(tools: Space, worker: Space, start: Start) -> None:
    server = start()
    matrix(tools, TWO, "oci")
    one, two = push(tools, server).values()
    assert run(worker, server, one).returncode == 0
    before = {path for path in (worker.cache / "cas").rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in before) > 100 * MIB, "the tools are among them"
    assert run(worker, server, two).returncode == 0
    more = {path for path in (worker.cache / "cas").rglob("*") if path.is_file()} - before
    assert 0 < sum(path.stat().st_size for path in more) < MIB


@GRPC
def test_another_machine_refuses_a_cell(tools: Space, worker: Space, start: Start) -> None:
    """Its key has facts of the machine that made it. Nothing is fetched for a cell that is refused."""
    server = start()
    matrix(tools, TWO, "oci")
    name = push(tools, server)["test_one/worker=oci"]
    words = ["--nohome_rc", "run-action", name, f"--remote_cache={server.url}", f"--disk_cache={worker.cache}"]

    def refused(prefix: list[str], change: str, reason: str) -> None:
        program = [worker.python, "-I", "-c", OTHER.format(change=change)]
        environment = dict(worker.environment)
        done = subprocess.run(
            [*prefix, *program, *words], cwd=worker.root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 36, done.stderr
        assert reason in done.stderr
        assert "Traceback" not in done.stderr

    refused([], "bkrules.__version__ = '0.0.1'", f"has a key of bk {__version__}, but this machine has bk 0.0.1")
    python = platform.python_version()
    refused(
        [], "platform.python_version = lambda: '3.0.1'", f"a key of Python {python}, but this machine has Python 3.0.1"
    )
    refused(["setarch", "--uname-2.6"], "", "kernel-release (2.6 here, ")
    refused(["prlimit", "--nofile=4096:4096"], "", "kernel-limits (open files 4096 here, ")
    refused(["unshare", "--user", "--map-root-user"], "", "this machine cannot run cells: root of a user namespace")
    held = sum(path.stat().st_size for path in (worker.cache / "cas").rglob("*") if path.is_file())
    assert held < MIB


@GRPC
def test_a_tool_of_the_first_machine(tools: Space, worker: Space, start: Start, tmp_path: Path) -> None:
    """It and the libraries that it loads come from the cache."""
    server = start()
    tool = Path(shutil.copy("/bin/cat", tmp_path / "tool"))
    workspace = tools.root / "WORKSPACE.py"
    more = f"\nfrom bkrules import host_binary\nhost_binary(name = 'tool', binary = {str(tool)!r})\n"
    workspace.write_text(workspace.read_text() + more)
    matrix(tools, WITH_A_TOOL, "oci", more='tools = ["//:tool"],')
    [name] = push(tools, server).values()
    tool.unlink()
    done = run(worker, server, name)
    check(done.returncode, done.stdout + done.stderr)


@GRPC
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_ends_a_cell(
    tools: Space, worker: Space, start: Start, leftovers: Leftovers, number: signal.Signals
) -> None:
    server = start()
    before = leftovers(worker.cache)
    matrix(tools, FOR_EVER, "oci")
    [name] = push(tools, server).values()
    words = worker.command("run-action", name, f"--remote_cache={server.url}", f"--disk_cache={worker.cache}")
    environment = {**os.environ, **worker.environment}
    with subprocess.Popen(
        words, cwd=worker.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: any(worker.cache.glob("run/*/cells*/**/buildkitd.log")) or process.poll() is not None)
        process.send_signal(number)
        said = process.communicate()
    assert process.returncode == 8, said
    assert "Traceback" not in said[1]
    assert leftovers(worker.cache) == before
    assert push(tools, server) == {"test_waits/worker=oci": name}


def test_an_engine_runs_a_cell(tools: Space, casd_program: Path, tmp_path: Path) -> None:
    """It has the logs of a cell that fails, and the client has the result of the other without a run."""
    matrix(tools, TWO + SHORT, "oci")
    with casd.engine(casd_program, tmp_path) as server:
        sent = push(tools, server)
        calls = GrpcCalls(RemoteOptions(server.url))

        def result_of(test: str) -> reapi.Message:
            name, _, size = sent[f"{test}/worker=oci"].partition("/")
            request = reapi.encode("ExecuteRequest", {"action_digest": {"hash": name, "size_bytes": int(size)}})
            answers = [
                reapi.decode("Operation", data) for data in calls.read(EXECUTE, request, 300, first=300, idle=300)
            ]
            answer = reapi.decode("ExecuteResponse", answers[-1]["response"]["value"])
            assert not answer["cached_result"], answer
            found: reapi.Message = answer["result"]
            return found

        def files_of(result: reapi.Message) -> set[str]:
            return {item["path"] for item in result["output_files"]}

        passed = result_of("test_one")
        assert (passed["exit_code"], files_of(passed)) == (0, {"out/test.log", "out/result.json"})
        for _ in range(2):
            failed = result_of("test_fails")
            assert failed["exit_code"] == 3
            logs = {f"out/{name}" for name in ("test.log", "buildkitd.log", "timeline.log", "result.json")}
            assert files_of(failed) >= logs
            assert b"these are my last words\n" in failed["stdout_raw"]
            assert b"bk: the cell test_fails/worker=oci: failed: t/" in failed["stderr_raw"]
        assert push(tools, server).keys() == {f"test_{name}/worker=oci" for name in ("two", "fails", "skips")}


def test_a_build_has_its_cells_run_by_an_engine(
    tools: Space, casd_program: Path, tmp_path: Path, report: Report, cache_copy: Callable[[str], Path]
) -> None:
    """The report, the logs and the exit code are those of a build that runs them itself; nothing of a cell starts here."""
    matrix(tools, TWO + SHORT, "oci")
    with casd.engine(casd_program, tmp_path, ["--jobs=2"]) as server:
        words = ("test", SMALL, f"--remote_executor={server.url}", "--keep_going")
        for cached, client in ((0, tools), (3, replace(tools, cache=cache_copy("second")))):
            done = client.bk(*words)
            check(done.returncode, done.stdout + done.stderr, 3)
            assert "4 cells: 2 passed, 1 failed, 1 skipped" in done.stdout, done.stdout
            cells = {cell["name"].partition("/")[0]: cell for cell in report(tools.root, "small")["cells"]}
            assert sum(cell["cached"] for cell in cells.values()) == cached
            assert cells["test_fails"]["reason"] == "t/test_small.py:10: assert 1 == 2"
            assert cells["test_skips"]["reason"] == "not today"
            folder = tools.root / "bk-out/targets/small/test_fails/worker=oci"
            assert "these are my last words\n" in (folder / "test.log").read_text()
            assert (folder / "buildkitd.log").read_text()
            assert not any(client.cache.glob("run/*"))


def test_an_engine_contradicts_an_earlier_result(tools: Space, casd_program: Path, tmp_path: Path) -> None:
    """The disk cache has no result any more of a test that fails without a change of its key, as when it fails here."""
    matrix(tools, BATCH, "oci")
    batch = casd.RUNNER.replace(
        "sys.exit(", "import os\nos.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\nsys.exit("
    )
    for name, text, code in (("one", casd.RUNNER, 0), ("other", batch, 3)):
        (tmp_path / name).mkdir()
        with casd.engine(casd_program, tmp_path / name, text=text) as server:
            done = tools.bk("test", SMALL, f"--remote_executor={server.url}", "--nocache_test_results")
            check(done.returncode, done.stdout + done.stderr, code)
            if code == 0:
                assert "(1 cached, 0 not)" in tools.bk("test", SMALL).stdout
    done = tools.bk("test", SMALL)
    assert "1 passed (0 cached, 1 not)" in done.stdout, done.stdout
