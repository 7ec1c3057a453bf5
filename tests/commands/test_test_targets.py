"""`--test_tag_filters` and `--test_arg`: which targets of a test run, and more words for their programs."""

from __future__ import annotations

import argparse

import pytest
from spaces import Space

from bkrules.commands.test_targets import changes_of
from bkrules.loading.workspace import Workspace
from bkrules.model.label import parse_pattern
from bkrules.rules import RULES

BUILD = """
from bkrules import image_mirror, test_matrix, worker
worker(name = "oci", plugin = "oci")
image_mirror(name = "mirror", images = {})
test_matrix(name = "slow", tests = ["run.sh"], tools = ["//:sh"], workers = [":oci"], mirror = ":mirror", tags = ["slow", "net"])
test_matrix(name = "quick", tests = ["test_a.py"], workers = [":oci"], mirror = ":mirror")
"""


@pytest.fixture
def suite(space: Space) -> Space:
    """A workspace with a matrix of a program and a matrix of a test in Python; its tools exist, and do not run."""
    space.write(
        "WORKSPACE.py",
        "from bkrules import host_binary, workspace\nworkspace(name = 'w')\n"
        "[host_binary(name = name, binary = 'true') for name in ['buildctl', 'buildkitd', 'runc', 'registry', 'box', 'sh']]\n",
    )
    space.write("p/BUILD.py", BUILD)
    space.write("p/run.sh", "#!/bin/sh\n").chmod(0o755)
    space.write("p/test_a.py", "def test_a(): pass\n")
    return space


def planned(space: Space, *options: str) -> str:
    """The error with which `bk test` ends; its cells would run, if no tests were skipped."""
    done = space.bk("test", *options)
    return f"{done.returncode} {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("slow", "0 //p:slow\n"),
        ("slow,nothing", "0 //p:slow\n"),
        ("-slow", "0 //p:quick\n"),
        ("-slow,-net", "0 //p:quick\n"),
        ("slow,-net", "4 error: --test_tag_filters=slow,-net leaves none of 2 targets\n"),
        (
            "slwo",
            "2 error: --test_tag_filters: no target here has the tag 'slwo'\n  did you mean 'slow'? their tags: net, slow\n",
        ),
        ("slow,nte", "2 error: --test_tag_filters: no target here has the tag 'nte'\n  did you mean 'net'?"),
        ("-slwo", "2 error: --test_tag_filters: no target here has the tag 'slwo'\n"),
        (
            "other",
            "4 warning: --test_tag_filters: no target here has the tag 'other'\n  their tags: net, slow\nerror: ",
        ),
    ],
)
def test_tags_choose_targets(suite: Space, monkeypatch: pytest.MonkeyPatch, filters: str, expected: str) -> None:
    monkeypatch.setenv("SKIP_INTEGRATION_TESTS", "1")
    seen = planned(suite, "//p/...", f"--test_tag_filters={filters}")
    assert seen.startswith(expected), seen


def test_a_tag_that_no_target_has_is_a_warning_of_each_build(suite: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIP_INTEGRATION_TESTS", "1")
    for _ in range(2):
        seen = planned(suite, "//p/...", "--test_tag_filters=-other,-manual")
        assert seen.startswith("0 "), seen
        assert seen.count("warning: ") == 1
        assert "warning: --test_tag_filters: no target here has the tag 'other'\n  their tags: net, slow\n" in seen


def test_words_are_for_programs(suite: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIP_INTEGRATION_TESTS", "1")
    seen = planned(suite, "//p:quick", "--test_arg=-v")
    assert seen.startswith("2 error: --test_arg: none of 1 targets runs a program\n"), seen
    assert "--test_env=NAME=VALUE" in seen

    (change,) = changes_of(argparse.Namespace(test_tag_filters="", test_arg=["-v", "x y"]))
    workspace = Workspace(str(suite.root), RULES)
    changed = change(workspace.match([parse_pattern("//p:quick"), parse_pattern("//p:slow")]))
    assert [target.attributes["args"] for target in changed] == [(), ("-v", "x y")]
