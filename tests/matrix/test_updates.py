"""Axis values that change the worker: its configuration as data, as text and by a function, its flags and environment."""

import re
import socket

from processes import named

from bkrules.testing.sandbox import Sandbox


def test_the_daemon_runs_with_what_the_axis_says(sandbox: Sandbox) -> None:
    listed = sandbox.run("debug workers --verbose").stdout
    assert re.search(rf"changed-by:\s+{sandbox.choice('daemon')}\n", listed)
    assert sandbox.value("daemon") == sandbox.choice("daemon").upper()


def test_other_keys_of_the_worker_are_as_they_were(sandbox: Sandbox) -> None:
    assert re.search(rf"worker\.snapshotter:\s+{sandbox.snapshotter}\n", sandbox.run("debug workers --verbose").stdout)


def test_variables_are_those_of_the_daemon(sandbox: Sandbox) -> None:
    environments = [(process / "environ").read_bytes().split(b"\0") for process in named("buildkitd")]
    assert environments
    assert all((b"CHANGED_BY=flags" in one) == (sandbox.choice("daemon") == "flags") for one in environments)


def test_what_a_function_started_lives_as_long_as_the_test(sandbox: Sandbox) -> None:
    with socket.socket() as client:
        answer = client.connect_ex(("127.0.0.1", 7000))
    assert (answer == 0) == (sandbox.choice("daemon") == "function")
