"""The options and attributes that say when actions run, as a user sees them."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, interruptible, wait_for

WORKSPACE = """
from bkrules import workspace, host_binary
workspace(name = "test")
host_binary(name = "sh")
host_binary(name = "sleep")
host_binary(name = "false")
"""
MACRO = """
from bkrules import genrule

def slow(name, seconds = 0, end = "echo x > $@", **more):
    genrule(name = name, outs = [name + ".txt"], tools = ["//:sh", "//:sleep", "//:false"],
            cmd = ["$(location //:sh)", "-c", "$(location //:sleep) %s; %s" % (seconds, end)], **more)
"""


@pytest.fixture
def rules(space: Space) -> Space:
    space.write("WORKSPACE.py", WORKSPACE)
    space.write("p/slow.py", MACRO)
    return space


def declare(space: Space, *targets: str) -> None:
    space.write("p/BUILD.py", "\n".join(["from bkrules import load", 'load("//p:slow.py", "slow")', *targets]))


def trace(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    events: list[dict[str, Any]] = json.loads(data)["traceEvents"]
    return events


def spans(path: Path, category: str) -> list[str]:
    return [event["name"] for event in trace(path) if event.get("cat") == category and event["ph"] == "X"]


def test_what_failed_last_time_runs_first(rules: Space) -> None:
    declare(rules, 'slow("a")', 'slow("b")', 'slow("c", end = "$(location //:false)")')
    assert rules.bk("build", "-k", "-j1", "//p:all").returncode == 1
    declare(rules, 'slow("a", 0.1)', 'slow("b", 0.1)', 'slow("c", end = "$(location //:false)")')

    done = rules.bk("build", "-j1", "//p:all")

    assert done.returncode == 1
    assert "3 actions: 1 ran, 0 cached" in done.stdout


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_a_profile_of_a_build_that_failed(rules: Space, name: str) -> None:
    declare(rules, 'slow("a")', 'slow("b", srcs = [":a"], end = "$(location //:false)")', 'slow("c", srcs = [":b"])')

    done = rules.bk("build", f"--profile={name}", "//p:all")

    assert done.returncode == 1
    profile = rules.root / name
    assert spans(profile, "action processing") == ["Genrule //p:a", "Genrule //p:b"]
    assert spans(profile, "disk cache") == ["//p:a", "//p:b"]
    assert spans(profile, "run") == ["run", "run"]
    waits = [(event["ph"], event["name"]) for event in trace(profile) if event.get("cat") == "wait for a job slot"]
    assert waits == [("b", "//p:a"), ("e", "//p:a"), ("b", "//p:b"), ("e", "//p:b")]
    ids = {event["tid"]: event["args"]["name"] for event in trace(profile) if event["ph"] == "M"}
    assert set(ids.values()) == {"main", "job-0"}
    assert {event["tid"] for event in trace(profile)} == set(ids)


def test_a_profile_is_written_each_time_that_it_is_asked_for(rules: Space) -> None:
    declare(rules, 'slow("a")')
    profile = rules.root / "p.json"
    for expected in (["Genrule //p:a"], [], []):
        assert rules.bk("build", "--profile=p.json", "//p:a").returncode == 0
        assert spans(profile, "action processing") == expected
        profile.unlink()


def test_the_critical_path_is_shown_when_something_ran(rules: Space) -> None:
    declare(rules, 'slow("a", 0.2)', 'slow("b", srcs = [":a"])', 'slow("c")')

    done = rules.bk("build", "//p:all")
    assert "Critical Path: 0." in done.stdout
    assert "Genrule //p:a 0." in done.stdout.partition(" -> ")[0]
    assert done.stdout.partition(" -> ")[2].startswith("Genrule //p:b 0.")

    assert re.search(r"^Phases: loading \d\.\d\ds, analysis \d\.\d\ds, Genrule [0-9.]+s$", done.stdout, re.MULTILINE)

    again = rules.bk("build", "//p:all").stdout
    assert "Critical Path" not in again
    assert "Phases" not in again


def test_a_named_resource_must_be_declared(rules: Space) -> None:
    declare(rules, 'slow("a", tags = ["resources:gpu:2"])')

    done = rules.bk("build", "//p:a")
    assert done.returncode == 36
    assert "//p:a takes 2 of the resource 'gpu', of which this machine has 0" in done.stdout
    assert "--local_resources=gpu=2" in done.stdout
    assert rules.bk("build", "--local_resources=gpu=2", "//p:a").returncode == 0
    assert rules.bk("build", "//p:a").returncode == 0, "what is cached needs nothing"


def test_a_tag_that_is_nearly_one_is_refused(rules: Space) -> None:
    declare(rules, 'slow("a", tags = ["resources:gpu"])')

    done = rules.bk("build", "//p:a")

    assert done.returncode == 1
    assert "the tag 'resources:gpu' must be cpu:N or resources:NAME:N" in done.stderr


@pytest.mark.alone
def test_what_waits_for_another_bk_holds_no_job(rules: Space) -> None:
    """Both builds have one job. The second cannot have `a`, which the first one makes, and so makes `b` meanwhile."""
    declare(rules, 'slow("a", 4)', 'slow("b")')
    first = subprocess.Popen(rules.command("build", "-j1", "//p:a"), cwd=rules.root)
    try:
        wait_for(lambda: any((rules.cache / "run").glob("*/action-*")))
        second = subprocess.Popen(rules.command("build", "-j1", "//p:all", "--profile=p.json"), cwd=rules.root)
        assert [second.wait(timeout=60), first.wait(timeout=60)] == [0, 0]
    finally:
        first.kill()
        first.wait()
    ends = {event["name"]: event["ts"] + event["dur"] for event in trace(rules.root / "p.json") if event["ph"] == "X"}
    assert ends["Genrule //p:b"] < ends["wait for another bk"] <= ends["Genrule //p:a"]
    assert spans(rules.root / "p.json", "run") == ["run"], "a was not made twice"


@pytest.mark.alone
@pytest.mark.parametrize("signals", [["INT"], ["TERM"], ["INT", "INT"]])
def test_a_build_that_is_interrupted(rules: Space, signals: list[str]) -> None:
    import signal

    declare(rules, 'slow("a", 30)', 'slow("b", srcs = [":a"])')
    process = subprocess.Popen(
        interruptible(rules.command("build", "//p:all", "--profile=p.json")),
        cwd=rules.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: any((rules.cache / "run").glob("*/action-*")))
    began = time.monotonic()
    for name in signals:
        process.send_signal(getattr(signal, f"SIG{name}"))
    output = process.communicate(timeout=20)[0]

    assert process.returncode == 8, output
    assert time.monotonic() - began < 5
    if len(signals) == 1:
        assert "interrupted: ending running actions" in output
        assert spans(rules.root / "p.json", "action processing") == ["Genrule //p:a"]
        assert os.listdir(rules.cache / "run") == []
