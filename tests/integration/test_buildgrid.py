"""`bk worker` with a real BuildGrid, its PostgreSQL, and bazel-remote as its CAS and action cache."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import buildgrid
import grpc
import pytest
import schedulers
from buildgrid import Client, ended, stage
from clusters import SECRET, Begin, Cluster
from leftovers import Leftovers
from schedulers import ENDLESS, WAITS, Worker
from spaces import WORKERS, Space, matrix, out_folders, wait_for

from bkrules.model import reapi
from bkrules.model.digest import Digest

pytestmark = pytest.mark.soak
QUEUED, EXECUTING = 2, 3
CANCELLED, PRECONDITION, ABORTED = 1, 9, 10
CELL = """
import time

def test_one(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\\nRUN echo hello > /hello.txt\\n")
    folders = f"--local context={{tmp_path}} --local dockerfile={{tmp_path}}"
    sandbox.run(f"build --frontend=dockerfile.v0 {{folders}} --output type=local,dest={{tmp_path}}/out")
    open("/out/waits", "w").close()
    time.sleep({seconds})
"""


def sent(space: Space, cluster: Cluster, scripts: dict[str, str], more: str = "") -> dict[str, Digest]:
    schedulers.write(space, scripts, more)
    return schedulers.send(space, cluster.cache)


def property_of(name: str, value: str) -> str:
    return f'exec_properties = {{"{name}": "{value}"}},'


def passed(response: reapi.Message) -> bool:
    """Whether the response has no error, and the exit code 0."""
    return not (response["status"] or {"code": 0})["code"] and response["result"]["exit_code"] == 0


def left(leftovers: Leftovers, worker: Worker) -> set[str]:
    """The processes and mounts of the test without those of PostgreSQL, which come and go."""
    found = leftovers(worker.space.cache)
    return {line for kind in ("processes", "mounts") for line in found[kind] if "postgres" not in line}


def running(*workers: Worker) -> Worker:
    """Wait until one of the workers runs a command; return it."""
    wait_for(lambda: any(worker.runs() for worker in workers))
    [found] = [worker for worker in workers if worker.runs()]
    return found


def test_properties_results_failures(space: Space, cluster: Cluster, begin: Begin, tmp_path: Path) -> None:
    client = cluster.client
    [early] = sent(space, cluster, {"early": "echo early > $@"}).values()
    operations = client.execute(early)
    assert stage(next(operations)) == QUEUED, "there is no worker yet"
    plain, strong = begin("plain"), begin("strong", "--property=privileged=true")
    assert ended(operations)["result"]["exit_code"] == 0

    privileged = sent(space, cluster, {name: f"echo {name} > $@" for name in "abc"}, property_of("privileged", "true"))
    for action in privileged.values():
        response = client.run(action)
        assert passed(response), response
        assert strong.says(action.hash)
        assert not plain.says(action.hash)
    third = Space(space.root, tmp_path / "third")
    done = third.bk("build", "//:all", f"--remote_cache={cluster.cache.url}")
    assert "hit remote 3" in done.stdout, done.stdout + done.stderr
    assert (space.root / "bk-out/a/out").read_text() == "a\n"

    [failing] = sent(space, cluster, {"failing": "echo last words; exit 7"}).values()
    for count in (1, 2):
        response = client.run(failing)
        assert (response["result"]["exit_code"], response["cached_result"]) == (7, False)
        assert response["result"]["stdout_raw"] == b"last words\n"
        assert sum(worker.log.read_text().count(failing.hash) for worker in (plain, strong)) == count

    [nobody] = sent(space, cluster, {"nobody": "echo > $@"}, property_of("privileged", "perhaps")).values()
    operations = client.execute(nobody)
    first = next(operations)
    assert stage(first) == QUEUED
    client.cancel(first["name"])
    assert ended(operations)["status"]["code"] == CANCELLED
    [unknown] = sent(space, cluster, {"unknown": "echo > $@"}, property_of("colour", "blue")).values()
    with pytest.raises(grpc.RpcError) as error:
        client.run(unknown)
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    [wildcard] = sent(space, cluster, {"wildcard": "echo > $@"}, property_of("zone", "north")).values()
    response = client.run(wildcard)
    assert response["status"]["code"] == PRECONDITION, "the scheduler passes this property on, and the worker lacks it"
    assert "needs a machine with the property zone=north" in response["status"]["message"]
    assert [worker.stop(signal.SIGTERM) for worker in (plain, strong)] == [0, 0]


def test_a_cancelled_operation_ends_its_command(
    space: Space, cluster: Cluster, begin: Begin, leftovers: Leftovers
) -> None:
    actions = sent(space, cluster, {"endless": ENDLESS, "good": "echo good > $@"})
    worker = begin("worker")
    before = left(leftovers, worker)
    operations = cluster.client.execute(actions["endless"])
    name = next(operations)["name"]
    wait_for(worker.runs)
    cluster.client.cancel(name)
    assert ended(operations)["status"]["code"] == CANCELLED
    wait_for(lambda: not list(worker.space.cache.glob("run/*")))
    assert left(leftovers, worker) <= before
    assert cluster.client.run(actions["good"])["result"]["exit_code"] == 0


def test_another_worker_finishes_the_action_of_a_killed_one(
    space: Space, cluster: Cluster, begin: Begin, leftovers: Leftovers
) -> None:
    [action] = sent(space, cluster, {"waits": WAITS}).values()
    workers = begin("one"), begin("two")
    before = {worker.space.cache: left(leftovers, worker) for worker in workers}
    operations = cluster.client.execute(action)
    next(operations)
    victim = running(*workers)
    victim.process.kill()
    victim.process.wait()
    response = ended(operations)
    assert passed(response), response
    [other] = [worker for worker in workers if worker is not victim]
    assert other.says(action.hash)
    assert not victim.says(action.hash)
    there = before[victim.space.cache]
    wait_for(lambda: len(left(leftovers, victim) - there) <= 1)  # the spare of the other machine


@pytest.mark.parametrize("cluster", [{"keepalive": 600}], indirect=True)
def test_the_scheduler_is_killed_and_begins_again(space: Space, cluster: Cluster, begin: Begin) -> None:
    """The result of the running action arrives, without another run."""
    [action] = sent(space, cluster, {"waits": WAITS}).values()
    worker = begin("worker")
    operations = cluster.client.execute(action)
    name = next(operations)["name"]
    wait_for(worker.runs)
    cluster.grid.kill()
    with pytest.raises(grpc.RpcError):
        ended(operations)
    cluster.grid.begin()
    again = Client(cluster.grid.url)
    response = ended(again.wait(name))
    assert passed(response), response
    assert worker.log.read_text().count(action.hash) == 1
    assert again.run(action)["cached_result"]


def test_the_cache_is_killed_and_begins_again(space: Space, cluster: Cluster, begin: Begin) -> None:
    """The client gets an error, or a result of a later run; the worker continues."""
    [action] = sent(space, cluster, {"waits": WAITS}).values()
    worker = begin("worker")
    operations = cluster.client.execute(action)
    next(operations)
    wait_for(worker.runs)
    cluster.cache.kill()
    wait_for(lambda: worker.says(f"{action.hash}: the action ran, but its outputs are not stored: remote cache "))
    with subprocess.Popen(cluster.cache.process.args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with contextlib.suppress(grpc.RpcError):  # BuildGrid needs the cache too
                response = ended(operations)
                assert passed(response) or response["status"]["code"] == ABORTED, response
            assert passed(cluster.client.run(action))
        finally:
            process.kill()
    assert worker.process.poll() is None


def test_a_worker_that_ends_leaves_the_rest_to_another(space: Space, cluster: Cluster, begin: Begin) -> None:
    actions = sent(space, cluster, {"waits": WAITS, "next": "echo next > $@"})
    one = begin("one")
    first = cluster.client.execute(actions["waits"])
    next(first)
    wait_for(one.runs)
    second = cluster.client.execute(actions["next"])
    assert stage(next(second)) == QUEUED
    one.process.send_signal(signal.SIGTERM)
    wait_for(lambda: one.says("the worker ends; actions that run: 1"))
    two = begin("two")
    assert ended(second)["result"]["exit_code"] == 0
    assert ended(first)["result"]["exit_code"] == 0
    assert one.process.wait(300) == 0
    assert two.says(actions["next"].hash)
    assert one.says(actions["waits"].hash)


@pytest.mark.parametrize("cluster", [{"threads": 20}], indirect=True)
def test_sixty_clients_of_twenty_threads(space: Space, cluster: Cluster, begin: Begin) -> None:
    actions = sent(space, cluster, {f"a{number}": f"echo {number} > $@" for number in range(60)})
    workers = begin("one", "--jobs=2"), begin("two", "--jobs=2")
    with ThreadPoolExecutor(60) as pool:
        responses = list(pool.map(cluster.client.run, actions.values()))
    assert [response for response in responses if not passed(response)] == []
    assert all(any(worker.says(action.hash) for worker in workers) for action in actions.values())


def test_two_clients_with_one_action(space: Space, cluster: Cluster, begin: Begin) -> None:
    """It may run twice, which both results survive."""
    [action] = sent(space, cluster, {"waits": WAITS}).values()
    begin("one"), begin("two")
    barrier = threading.Barrier(2)

    def run(_number: int) -> object:
        barrier.wait()
        return Client(cluster.grid.url).run(action)["result"]["output_files"]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first == second != []


@pytest.mark.parametrize("cluster", [{"secret": SECRET}], indirect=True)
def test_tokens(space: Space, cluster: Cluster, begin: Begin) -> None:
    wrong = {
        "none": "",
        "signature": buildgrid.token("another secret, which has more than 32 bytes"),
        "expired": buildgrid.token(SECRET, seconds=-1),
        "algorithm": buildgrid.token(SECRET, algorithm="none"),
    }
    for name, bearer in wrong.items():
        words = [f"--remote_header=authorization=Bearer {bearer}"] if bearer else []
        worker = begin(name, *words, ready="the scheduler refuses the worker")
        assert worker.process.wait(300) == 34
        assert worker.says("status UNAUTHENTICATED: it requires other credentials")
        assert not bearer or not worker.says(bearer)
    begin("good", f"--remote_header=authorization=Bearer {buildgrid.token(SECRET)}")
    [action] = sent(space, cluster, {"good": "echo good > $@"}).values()
    assert cluster.client.run(action)["result"]["exit_code"] == 0


def sent_cells(space: Space, cluster: Cluster, test: str, *workers: str) -> dict[str, Digest]:
    """Send the cells of a new matrix. Return their digests by their names."""
    matrix(space, test, *workers)
    words = ["--json", f"--remote_cache={cluster.cache.url}", f"--disk_cache={space.cache}"]
    done = space.bk("cache", "push", "//targets:small", "--actions", *words)
    assert done.returncode == 0, done.stderr
    found = {}
    for action in json.loads(done.stdout)["actions"]:
        name, _, size = action["digest"].partition("/")
        found[action["label"]] = Digest(name, int(size))
    return found


def test_cells_of_each_worker(tools: Space, cluster: Cluster, begin: Begin) -> None:
    machines = begin("one"), begin("two")
    cells = sent_cells(tools, cluster, CELL.format(seconds=0), *WORKERS)
    assert len(cells) == len(WORKERS)
    with ThreadPoolExecutor(len(cells)) as pool:
        responses = list(pool.map(cluster.client.run, cells.values()))
    assert [response for response in responses if not passed(response)] == []
    assert all(any(machine.says(name) for name in hashes(cells)) for machine in machines)
    done = tools.bk("build", "//targets:small", f"--remote_cache={cluster.cache.url}")
    assert f"{len(cells)} passed ({len(cells)} cached, 0 not)" in done.stdout, done.stdout + done.stderr


def hashes(actions: dict[str, Digest]) -> list[str]:
    return [action.hash for action in actions.values()]


def test_a_machine_dies_while_the_daemons_of_a_cell_run(
    tools: Space, cluster: Cluster, begin: Begin, leftovers: Leftovers
) -> None:
    """Another one runs the cell, and none of its daemons is left on the first one."""
    [cell] = sent_cells(tools, cluster, CELL.format(seconds=5), "containerd").values()
    machines = begin("one"), begin("two")
    before = {machine.space.cache: left(leftovers, machine) for machine in machines}
    operations = cluster.client.execute(cell)
    next(operations)
    wait_for(lambda: any(is_busy(machine) for machine in machines))
    [victim] = [machine for machine in machines if is_busy(machine)]
    victim.process.kill()
    victim.process.wait()
    assert passed(ended(operations))
    there = before[victim.space.cache]
    wait_for(lambda: len(left(leftovers, victim) - there) <= 1)  # the spare of the other machine


def is_busy(machine: Worker) -> bool:
    """Whether a cell of that machine has started its daemons, and its test waits."""
    return any((folder / "waits").exists() for folder in out_folders(machine.process.pid))
