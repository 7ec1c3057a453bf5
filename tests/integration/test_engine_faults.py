"""`bk build --remote_executor` on a BuildGrid of which a part dies, refuses, or has too little."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import buildgrid
import pytest
import schedulers
from clusters import SECRET, Begin, Cluster
from leftovers import Leftovers
from schedulers import Worker
from spaces import Space, check, matrix, out_folders, wait_for

from bkrules import __version__

pytestmark = pytest.mark.soak
SMALL = "//targets:small"
PATIENCE = 300.0  # seconds for what a machine with other work does in ten
CELLS = """
import time
import pytest

@pytest.mark.parametrize("number", range(4))
def test_one(sandbox, number):
    assert sandbox.worker
    open("/out/waits", "w").close()
    time.sleep({seconds})
"""

OTHER = """
import sys
import bkrules
bkrules.__version__ = "0.0.1"
from bkrules.__main__ import main
sys.exit(main())
"""


def words(cluster: Cluster, *more: str) -> list[str]:
    queue = f"--remote_queue_timeout={PATIENCE * 10:g}"
    return [f"--remote_executor={cluster.grid.url}", f"--remote_cache={cluster.cache.url}", queue, *more]


@contextmanager
def building(space: Space, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A build that runs, and is killed at the end of the context, if it still runs."""
    command = space.command("build", *arguments)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=space.root, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], code: int) -> str:
    said = process.communicate()[0]
    assert "Traceback" not in said, said
    return check(process.returncode, said, code)


def busy(*machines: Worker) -> list[Worker]:
    """The machines with a cell that has started its daemons, and whose test waits."""
    return [
        machine
        for machine in machines
        if any((folder / "waits").exists() for folder in out_folders(machine.process.pid))
    ]


def left(leftovers: Leftovers, machine: Worker) -> set[str]:
    """The processes and mounts of the test without those of PostgreSQL, which come and go."""
    found = leftovers(machine.space.cache)
    return {line for kind in ("processes", "mounts") for line in found[kind] if "postgres" not in line}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_cells_of_other_machines(
    tools: Space, cluster: Cluster, begin: Begin, leftovers: Leftovers, number: signal.Signals
) -> None:
    matrix(tools, CELLS.format(seconds=100000), "containerd")
    machine = begin("worker")
    before = left(leftovers, machine)
    with building(tools, SMALL, *words(cluster)) as client:
        wait_for(lambda: bool(busy(machine)), PATIENCE)
        client.send_signal(number)
        ended(client, 8)
    wait_for(machine.is_idle, PATIENCE)
    wait_for(lambda: len(left(leftovers, machine) - before) == 1, PATIENCE)  # the spare for its next cell


def test_a_worker_is_killed(tools: Space, cluster: Cluster, begin: Begin, leftovers: Leftovers) -> None:
    matrix(tools, CELLS.format(seconds=5), "containerd")
    machines = begin("one"), begin("two")
    before = {machine.space.cache: left(leftovers, machine) for machine in machines}
    with building(tools, SMALL, *words(cluster)) as client:
        wait_for(lambda: bool(busy(*machines)), PATIENCE)
        victim = busy(*machines)[0]
        victim.process.kill()
        victim.process.wait()
        said = ended(client, 0)
    assert "4 cells: 4 passed (0 cached, 4 not)" in said, said
    there = before[victim.space.cache]
    wait_for(lambda: len(left(leftovers, victim) - there) <= 1, PATIENCE)  # the spare of the other machine


def test_the_scheduler_is_killed(tools: Space, cluster: Cluster, begin: Begin) -> None:
    matrix(tools, CELLS.format(seconds=5), "oci")
    machines = begin("one"), begin("two")
    with building(tools, SMALL, *words(cluster)) as client:
        wait_for(lambda: bool(busy(*machines)), PATIENCE)
        cluster.grid.kill()
        cluster.grid.begin()
        said = ended(client, 0)
    assert "4 cells: 4 passed (0 cached, 4 not)" in said, said


def test_the_cache_is_killed(tools: Space, cluster: Cluster, begin: Begin) -> None:
    matrix(tools, CELLS.format(seconds=5), "oci")
    machines = begin("one"), begin("two")
    with building(tools, SMALL, *words(cluster)) as client:
        wait_for(lambda: bool(busy(*machines)), PATIENCE)
        cluster.cache.kill()
        with subprocess.Popen(
            cluster.cache.process.args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as cache:
            try:
                said = ended(client, 0)
            finally:
                cache.kill()
    assert "4 cells: 4 passed (0 cached, 4 not)" in said, said


@pytest.mark.parametrize("cluster", [{"threads": 20}], indirect=True)
def test_more_actions_than_threads(space: Space, cluster: Cluster, begin: Begin) -> None:
    """The streams of the client leave threads to the workers."""
    schedulers.write(space, {f"a{number}": f"echo {number} > $@" for number in range(60)})
    begin("one", "--jobs=2"), begin("two", "--jobs=2")
    done = space.bk("build", "//:all", *words(cluster))
    check(done.returncode, done.stdout + done.stderr)
    assert "60 actions: 60 ran" in done.stdout, done.stdout


def refused(space: Space, cluster: Cluster, *more: str) -> str:
    """What a build says whose engine refuses it."""
    done = space.bk("build", "//:all", *words(cluster, *more))
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert f"error: remote executor {cluster.grid.url}" in said, said
    return check(done.returncode, said, 34)


@pytest.mark.parametrize("cluster", [{"secret": SECRET}], indirect=True)
def test_tokens_of_clients(space: Space, cluster: Cluster, begin: Begin) -> None:
    schedulers.write(space, {"good": "echo good > $@"})
    wrong = {
        "none": "",
        "signature": buildgrid.token("another secret, which has more than 32 bytes"),
        "expired": buildgrid.token(SECRET, seconds=-1),
        "algorithm": buildgrid.token(SECRET, algorithm="none"),
    }
    for bearer in wrong.values():
        said = refused(space, cluster, *([f"--remote_header=authorization=Bearer {bearer}"] if bearer else []))
        assert "status UNAUTHENTICATED: it requires other credentials" in said
        assert not bearer or bearer not in said
    right = f"--remote_header=authorization=Bearer {buildgrid.token(SECRET)}"
    begin("worker", right)
    done = space.bk("build", "//:all", *words(cluster, right))
    check(done.returncode, done.stdout + done.stderr)


def test_what_no_machine_has(space: Space, cluster: Cluster, begin: Begin) -> None:
    schedulers.write(space, {"good": "echo good > $@"})
    begin("worker")
    assert "team/b" in refused(space, cluster, "--remote_instance_name=team/b")
    assert "colour" in refused(space, cluster, "--remote_default_exec_properties=colour=blue")
    queued = ("--remote_default_exec_properties=privileged=perhaps", "--remote_queue_timeout=2")
    untaken = refused(space, cluster, *queued)
    assert "no worker took it" in untaken
    assert "Its output says why it gave an action back" in untaken
    passed_on = refused(space, cluster, "--remote_default_exec_properties=zone=north")
    assert "needs a machine with the property zone=north, but here zone is none" in passed_on


def test_a_worker_of_another_version(tools: Space, cluster: Cluster, begin: Begin) -> None:
    matrix(tools, CELLS.format(seconds=0), "oci")
    begin("worker")
    arguments = [*tools.command("build", SMALL, *words(cluster))]
    program = [arguments[0], "-I", "-c", OTHER, *arguments[arguments.index("--nohome_rc") :]]
    done = subprocess.run(program, cwd=tools.root, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    check(done.returncode, said, 34)
    assert f"has a key of bk 0.0.1, but this machine has bk {__version__}" in said
    assert "Traceback" not in said
