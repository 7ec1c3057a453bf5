"""buildbox-casd runs actions by `bk-buildbox-run`, as a client of Execute that is not bk sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import casd
import pytest
from leftovers import Leftovers
from spaces import Space, wait_for

from bkrules.cache.grpc_calls import CallFailed, GrpcCalls
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import reapi

WORKSPACE = """
from bkrules import genrule, host_binary, workspace
workspace(name = "test")
host_binary(name = "sh")
genrule(name = "one", outs = ["a/one"], tools = [":sh"], cmd = ["$(location :sh)", "-c", {script!r}], {more})
"""
EXECUTE = "/build.bazel.remote.execution.v2.Execution/Execute"
CANCEL = "/google.longrunning.Operations/CancelOperation"


@pytest.fixture
def server(casd_program: Path, tmp_path: Path) -> Iterator[casd.Casd]:
    """A server that runs actions."""
    with casd.engine(casd_program, tmp_path) as running:
        yield running


def sent(space: Space, server: casd.Casd, script: str, more: str = "") -> reapi.Message:
    """Send the action of a script. Return its digest."""
    space.write("WORKSPACE.py", WORKSPACE.format(script=script, more=more))
    words = ["--json", f"--remote_cache={server.url}", f"--disk_cache={space.cache}"]
    done = space.bk("cache", "push", "//:one", "--actions", *words)
    assert done.returncode == 0, done.stderr
    name, _, size = json.loads(done.stdout)["actions"][0]["digest"].partition("/")
    return {"hash": name, "size_bytes": int(size)}


def operations(server: casd.Casd, key: reapi.Message) -> Iterator[reapi.Message]:
    """The operation as the server tells it, again and again until it is done."""
    calls = GrpcCalls(RemoteOptions(server.url))
    request = reapi.encode("ExecuteRequest", {"action_digest": key})
    for message in calls.read(EXECUTE, request, 300, first=300, idle=300):
        yield reapi.decode("Operation", message)


def response(server: casd.Casd, key: reapi.Message) -> reapi.Message:
    [done] = [operation for operation in operations(server, key) if operation["done"]]
    answer: reapi.Message = reapi.decode("ExecuteResponse", done["response"]["value"])
    return answer


def code_of(answer: reapi.Message) -> int:
    return answer["status"]["code"] if answer["status"] else 0


def test_a_command_that_fails_has_a_result_which_the_engine_does_not_keep(space: Space, server: casd.Casd) -> None:
    key = sent(space, server, "echo last words; exit 7")
    for _ in range(2):
        answer = response(server, key)
        assert code_of(answer) == 0
        assert not answer["cached_result"]
        assert answer["result"]["exit_code"] == 7
        assert answer["result"]["stdout_raw"] == b"last words\n"
        assert b"failed with exit status 7" in answer["result"]["stderr_raw"]


def test_an_output_that_is_missing_is_a_failure(space: Space, server: casd.Casd) -> None:
    answer = response(server, sent(space, server, ":"))
    assert (code_of(answer), answer["result"]["exit_code"]) == (0, 1)
    assert b"did not make the file 'a/one'" in answer["result"]["stderr_raw"]


def test_a_property_that_the_machine_lacks(space: Space, server: casd.Casd) -> None:
    answer = response(server, sent(space, server, "echo 1 > out/a/one", 'exec_properties = {"gpu": "a100"},'))
    assert code_of(answer) == 9
    assert "needs a machine with the property gpu=a100, but here gpu is none" in answer["status"]["message"]


IGNORES = """
import signal
import sys
from bkrules.commands import buildbox_run

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
buildbox_run._answer = lambda _: signal.getsignal(signal.SIGCHLD).name.encode()
sys.exit(buildbox_run.main())
"""


def test_an_engine_may_ignore_the_ends_of_its_children(tmp_path: Path) -> None:
    """The kernel keeps no exit code for a process that inherits that."""
    result = tmp_path / "result"
    subprocess.run([sys.executable, "-c", IGNORES, f"--action-result={result}"], check=True)
    assert result.read_bytes() == b"SIG_DFL"


def test_a_disk_cache_that_cannot_be_made_is_a_status(tmp_path: Path) -> None:
    taken, action, result = tmp_path / "taken", tmp_path / "action", tmp_path / "result"
    for path in (taken, action):
        path.write_bytes(b"")
    words = ["--remote=http://127.0.0.1:1", f"--action={action}", f"--action-result={result}"]
    runner = [sys.executable, "-m", "bkrules.commands.buildbox_run"]
    done = subprocess.run([*runner, *words, f"--disk_cache={taken}/cache"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    status = reapi.decode("Status", Path(f"{result}.error-status").read_bytes())
    assert status["code"] == 14
    assert f"{taken}/cache" in status["message"]


def test_an_action_that_is_cancelled_leaves_nothing(
    space: Space, server: casd.Casd, tmp_path: Path, leftovers: Leftovers
) -> None:
    runner = tmp_path / "runner"
    before = leftovers(runner)
    key = sent(space, server, "setsid sh -c 'while :; do :; done' & while :; do :; done")
    names: list[str] = []
    ends: list[str] = []

    def follow() -> None:
        try:
            for operation in operations(server, key):
                names.append(operation["name"])
        except CallFailed as error:
            ends.append(error.code)

    follower = threading.Thread(target=follow)
    follower.start()
    wait_for(lambda: bool(names) and any(runner.glob("run/*/action-*/log")))
    GrpcCalls(RemoteOptions(server.url)).ask(CANCEL, reapi.encode("CancelOperationRequest", {"name": names[0]}))
    wait_for(lambda: leftovers(runner) == before)
    follower.join()
    assert len(names) > 1 or ends


def test_an_engine_that_is_killed_leaves_nothing(
    space: Space, server: casd.Casd, tmp_path: Path, leftovers: Leftovers
) -> None:
    runner = tmp_path / "runner"
    key = sent(space, server, "while :; do :; done")
    before = leftovers(runner)
    ends: list[str] = []

    def follow() -> None:
        try:
            list(operations(server, key))
        except CallFailed as error:
            ends.append(error.code)

    follower = threading.Thread(target=follow)
    follower.start()
    wait_for(lambda: any(runner.glob("run/*/action-*/log")))
    server.process.kill()
    server.process.wait()
    follower.join()
    assert ends == ["UNAVAILABLE"]
    wait_for(lambda: not any(runner.glob("run/*")))
    before["processes"] = []
    wait_for(lambda: leftovers(runner) == before)
